"""Files and folders that are made whole, and guarded."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from progan.support.errors import RunError
from progan.support.files import locked

fcntl = pytest.importorskip("fcntl", reason="this system locks nothing")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_folder_that_another_locked_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", answer(number))
    with pytest.raises(RunError, match="another progan train is at work here"), locked(tmp_path, "progan train"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO])
def test_where_no_file_can_be_locked_that_is_said_and_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", answer(number))
    with locked(tmp_path / "run", "progan train"):
        (tmp_path / "run" / "file").write_text("written")
    said = f"progan: {tmp_path / 'run'}: cannot be locked ({os.strerror(number)}); start no other progan train in it\n"
    assert capsys.readouterr().err == said


def answer(number: int) -> Any:
    """A flock that always fails so."""

    def flock(file: Any, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock
