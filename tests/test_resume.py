"""Every model resumes bit for bit with loader workers, and in two processes."""

import tempfile
from pathlib import Path

import pytest

from tests.support import TOYS
from zoo import check, registry

NAMES = [*registry.list(), *TOYS]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_loader_workers_resume_bit_for_bit(name):
    resume = check.everyone.resume
    assert resume(check.Subject.of(name), workers=2) is None  # raises where they differ


@pytest.mark.ddp
def test_two_processes_resume_bit_for_bit():
    processes = check.processes
    with tempfile.TemporaryDirectory() as scratch:
        processes.launch(processes.resume_in_group, 2, tuple(NAMES), scratch)
        outcome = {name: (Path(scratch) / name).read_text() for name in NAMES}
    assert outcome == dict.fromkeys(NAMES, "equal")
