"""What an archive lost is never lost silently, as far as its format can tell: here an independent reader tells."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from progan.data.pictures.tree import open_tree
from progan.support.errors import DataError
from tests.attack.damage import damaged
from tests.attack.kinds import FILES, archive

WHOLE = archive("")
CASES = 100  # of each way of damage


def members(content: bytes) -> list[str] | None:
    """The names in a tar, by the POSIX layout alone; None where it is no archive from its first block to its last."""
    names, at = [], 0
    blocks = [content[start : start + 512] for start in range(0, len(content), 512)]
    while at < len(blocks) and any(blocks[at]):
        header = blocks[at]
        numbers = [header[part].split(b"\0")[0].strip() for part in (slice(124, 136), slice(148, 156))]
        if len(header) < 512 or not all(number and set(number) <= set(b"01234567") for number in numbers):
            return None
        size, told = (int(number, 8) for number in numbers)
        if sum(header[:148]) + 8 * 32 + sum(header[156:]) != told:
            return None
        names.append(header[:100].rstrip(b"\0").decode("utf-8", "replace"))
        at += 1 + -(-size // 512)
    rest = blocks[at:]
    return names if len(rest) >= 2 and not any(map(any, rest)) and not len(content) % 512 else None


@pytest.fixture(scope="module")
def cases() -> list[bytes]:
    """Damage of all kinds, and every way to cut whole blocks out of the archive."""
    blocks = len(WHOLE) // 512
    cut = [WHOLE[: a * 512] + WHOLE[b * 512 :] for a in range(blocks) for b in range(a + 1, min(blocks, a + 9))]
    return [*damaged(WHOLE, 0, CASES), *cut]


def test_a_tar_is_what_another_reader_says_or_refused(cases: list[bytes], tmp_path: Path) -> None:
    path, shorter = tmp_path / "a.tar", 0
    for number, content in enumerate(cases):
        path.write_bytes(content)
        try:
            found = [file.name for file in open_tree(path).files()]
        except DataError:
            continue
        told = members(content)
        assert told is not None, (number, found)
        assert found == [name for name in told if name.endswith(".png")], number
        shorter += len(found) < len(FILES)
    assert shorter  # members that were cut out to the block leave a whole archive: none can know


def test_the_other_reader_reads(cases: list[bytes]) -> None:
    assert members(WHOLE) == [*FILES, "dataset.json"]
    assert sum(members(content) is None for content in cases) > 500


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_any_header_is_seen(seed: int, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as tar:
        headers = [info.offset for info in tar]
    rng, path, refused = np.random.default_rng(seed), tmp_path / "a.tar", 0
    for header in headers:
        for place in rng.integers(500, size=20):
            content = bytearray(WHOLE)
            content[header + place] ^= 1 << rng.integers(8)
            path.write_bytes(content)
            try:
                assert [file.name for file in open_tree(path).files()] == list(
                    FILES
                )  # what follows a number is nothing
            except DataError:
                refused += 1
    assert refused > 70
