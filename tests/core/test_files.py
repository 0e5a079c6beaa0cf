"""A file is whole under its name at every moment; a folder has one process."""

import errno
import fcntl
import os

import pytest

from tests.support import in_a_process
from zoo.core.files import alone_in, written_whole


def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with written_whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_former_file_and_no_part(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half():
        with written_whole(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_another_process_is_refused_by_number_until_the_first_has_left(tmp_path):
    def other():
        with alone_in(tmp_path):
            return 0

    def refused():
        with pytest.raises(ValueError, match=f"{tmp_path} is in use by process {here} on "):
            other()
        return 0

    here = os.getpid()
    with alone_in(tmp_path):
        assert in_a_process(refused) == 0
    assert in_a_process(other) == 0


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with (
        pytest.warns(UserWarning, match=r"cannot be locked \(No locks available\)"),
        alone_in(tmp_path),
    ):
        pass
