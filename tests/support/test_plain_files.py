"""The gate: plain files of a bounded size, and nothing that hangs."""

import os
import socket
from pathlib import Path

import pytest

from progan.support.plain_files import check_plain, open_plain, read_plain
from tests.attack.damage import bounded


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with open_plain(path) as file:
        assert file.read() == b"12345"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_plain(path, 4)
    with pytest.raises(OSError, match="more than 3 bytes"):
        read_plain(Path("/proc/self/status"), 3)  # says that it has none


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe, plug = tmp_path / "pipe", tmp_path / "plug"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(plug))
        for path, kind in ((pipe, "a pipe"), (plug, "a socket"), (tmp_path, "a folder"), (Path("/dev/zero"), "device")):
            for read in (check_plain, open_plain, lambda path: read_plain(path, 9)):
                with bounded(), pytest.raises(OSError, match=kind):
                    read(path)
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "nothing")
