"""Every test runs offline and seeded, from an empty folder of its own."""

from __future__ import annotations

import logging
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # of the tests and the commands they start
    os.environ.setdefault(name, "1")

import pytest
import torch
from lightning.pytorch import seed_everything

from zoo import registry

collect_ignore = ["toys"]  # models and data, imported by their names


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """No file of tests sees the models that another registered, not even while it is collected."""
    before = dict(registry._added)
    try:
        return (yield)
    finally:
        registry._added = before


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Tests that start several processes run one after another, in one worker of ``pytest -n``:
    they share their launches.
    """
    for item in items:
        if item.get_closest_marker("ddp"):
            item.add_marker(pytest.mark.xdist_group("ddp"))


LAUNCH = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def no_launch_is_left():
    """A run of one process under ddp leaves its rank behind, and the next command would take itself
    for one that another started, and wait for the rest.
    """
    yield
    for name in LAUNCH:
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    """What a command hushes is heard again in the next test."""
    names = [f"lightning.{part}" for part in ("pytorch", "fabric", "pytorch.utilities.rank_zero")]
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(registry, "_added", {})  # no test sees another's models
    monkeypatch.chdir(tmp_path)
    seed_everything(0, verbose=False)
    torch.set_num_threads(1)
