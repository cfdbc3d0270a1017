"""Tar files: whole, or refused; never shorter than they were."""

import io
import lzma
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from progan.support.tar_files import tar_members
from tests.attack.damage import bounded


def packed(mode: str) -> bytes:
    """A tar of three small files."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as tar:  # type: ignore[call-overload]
        for name in ("a.png", "b.png", "c.png"):
            info = tarfile.TarInfo(name)
            info.size = 600
            tar.addfile(info, io.BytesIO(600 * name[:1].encode()))
    return memory.getvalue()


def read(path: Path) -> dict[str, bytes]:
    return {info.name: file.read() for info, file in tar_members(path) if file is not None}


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_every_member_is_read(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(packed(mode))
    assert read(path) == {f"{letter}.png": 600 * letter.encode() for letter in "abc"}


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_what_was_packed_without_its_holes_is_read(form: str, tmp_path: Path) -> None:
    """As GNU tar does with --sparse, to a picture that is black in places."""
    pack = shutil.which("tar")
    if pack is None or "GNU" not in subprocess.run([pack, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("needs GNU tar")
    with (tmp_path / "a.bmp").open("wb") as file:
        file.write(b"start")
        file.seek(10**6)
        file.write(b"end")
    path = tmp_path / "a.tar"
    subprocess.run([pack, "-cSf", path, f"--format={form}", "-C", tmp_path, "a.bmp"], check=True)
    assert path.stat().st_size < 10**5
    assert read(path) == {"a.bmp": (tmp_path / "a.bmp").read_bytes()}


def spoiled(**fields: Any) -> bytes:
    """A tar of one member whose header is sound but for what it says."""
    info = tarfile.TarInfo("a.png")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.PAX_FORMAT if "pax_headers" in fields else tarfile.GNU_FORMAT) + bytes(20 * 512)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (spoiled(size=-512), "a member at byte 0 has no size"),  # after it would come itself
        (spoiled(type=tarfile.XHDTYPE, size=2**33), "a header says that it has 8,589,934,592 bytes"),
        (spoiled(type=tarfile.GNUTYPE_LONGNAME, size=2**33), "a header says that it has 8,589,934,592 bytes"),
        (spoiled(pax_headers={"GNU.sparse.map": "x"}), "invalid literal"),
        (spoiled(pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "x"}), "invalid literal"),
        (spoiled(pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "not enough values"),
    ],
)
def test_headers_that_make_no_sense_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with bounded(), pytest.raises(tarfile.TarError, match=said):
        read(path)


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_flipped_bit_in_a_header_is_no_end(member: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "a.tar", packed("w:")
    for place in range(0, 160, 13):
        spoiled = bytearray(whole)
        spoiled[member * 3 * 512 + place] ^= 4
        path.write_bytes(spoiled)
        with pytest.raises(tarfile.TarError):
            read(path)


@pytest.mark.parametrize("length", [512, 3 * 512, 6 * 512, 9 * 512, 4000, 10 * 512, 12 * 512 - 1, -1])
def test_a_tar_that_was_cut_is_no_shorter_tar(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(packed("w:")[:length])
    with pytest.raises((tarfile.TarError, EOFError)):
        read(path)


def test_pieces_that_were_cut_out_of_a_tar_are_missed(tmp_path: Path) -> None:
    """The rest of the second member and all of the third are gone, and zeros of the end take their place."""
    path, whole = tmp_path / "a.tar", packed("w:")
    for cut in (5 * 512, 5 * 512 + 77):
        path.write_bytes(whole[: cut - 1] + whole[9 * 512 + 3 :])
        with pytest.raises(tarfile.TarError, match="no whole number of blocks"):
            read(path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_zeros_in_place_of_the_end_of_a_packed_tar_are_no_end(mode: str, tmp_path: Path) -> None:
    """As a download leaves them that had its room reserved and ended early."""
    path, whole = tmp_path / "a.tar", packed(mode)
    path.write_bytes(whole + bytes(2**20 + 1))
    with pytest.raises(OSError, match="it ends in zeros, so it was never whole"):
        read(path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_packed_tar_that_was_cut_is_no_shorter_tar(mode: str, tmp_path: Path) -> None:
    path, whole = tmp_path / "a.tar", packed(mode)
    for missing in (1, 4, 12, len(whole) // 2):
        path.write_bytes(whole[:-missing])
        with pytest.raises((tarfile.TarError, EOFError, OSError, lzma.LZMAError)):
            read(path)
