"""Collectors take streams cut in any way; the cache gives back what was collected, or nothing."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from progan.metrics.cache import cache_folder, cached
from progan.metrics.protocol import Collector, Statistics, collect, rgb
from progan.support.errors import DataError

IMAGES = np.arange(23 * 3 * 4 * 4, dtype=np.uint8).reshape(23, 3, 4, 4)


class Blocks(Collector):
    """Keeps the blocks that it is given."""

    def __init__(self, size: int, block: int) -> None:
        super().__init__(size, block)
        self.blocks: list[np.ndarray] = []

    def _block(self, images: np.ndarray) -> None:
        self.blocks.append(images.copy())

    def _statistics(self) -> Statistics:
        return {"all": np.concatenate(self.blocks)}


@pytest.mark.parametrize("cut", [1, 3, 5, 8, 23])
@pytest.mark.parametrize("size", [1, 5, 16, 22, 23])
def test_blocks_are_the_same_however_the_stream_is_cut(cut: int, size: int) -> None:
    collector = Blocks(size, 5)
    found = collect((IMAGES[i : i + cut] for i in range(0, 23, cut)), collector)
    np.testing.assert_array_equal(found["all"], IMAGES[:size])
    assert [len(block) for block in collector.blocks] == [5] * (size // 5) + [size % 5] * (size % 5 > 0)


def test_arrays_and_tensors_are_streams_too() -> None:
    for images in (IMAGES, torch.from_numpy(IMAGES), [torch.from_numpy(IMAGES)]):
        np.testing.assert_array_equal(collect(images, Blocks(20, 7))["all"], IMAGES[:20])


def test_no_more_of_the_stream_is_read_than_needed() -> None:
    def stream():  # type: ignore[no-untyped-def]
        yield IMAGES
        raise AssertionError("too far")

    collect(stream(), Blocks(23, 5))


def test_too_few_images_are_an_error_that_says_how_many_are_needed() -> None:
    with pytest.raises(DataError, match=r"23 images are too few, 24 are needed.*--images 23"):
        collect(IMAGES, Blocks(24, 5))


def test_gray_is_repeated_and_colour_is_left_alone() -> None:
    assert rgb(IMAGES) is IMAGES
    np.testing.assert_array_equal(rgb(IMAGES[:, :1]), IMAGES[:, [0, 0, 0]])


def make(value: int, calls: list[int]) -> Statistics:
    calls.append(value)
    return {"counts 8": np.full((3, 4), value, np.uint32), "x": np.array([0.5])}


def test_the_cache_hits_on_the_same_key_and_misses_on_any_other(tmp_path: Path) -> None:
    calls: list[int] = []
    key = {"metric": "m", "data": "abc", "file": [12, 34]}
    for _ in range(2):
        found = cached(key, lambda: make(1, calls), tmp_path)
    assert calls == [1]
    assert found["counts 8"].dtype == np.uint32
    np.testing.assert_array_equal(found["counts 8"], np.full((3, 4), 1))
    for i, change in enumerate(({"data": "abd"}, {"file": [12, 35]}, {"metric": "n"}, {"more": 0})):
        cached(key | change, lambda i=i: make(i + 2, calls), tmp_path)
    assert calls == [1, 2, 3, 4, 5]
    assert cached(key, lambda: make(9, calls), tmp_path)["counts 8"][0, 0] == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "other", "empty", "text"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    calls: list[int] = []
    key = {"metric": "m"}
    cached(key, lambda: make(1, calls), tmp_path)
    (path,) = tmp_path.glob("m-*.npz")
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("counts 8.npy")
        at = entry.header_offset + 30 + len(entry.filename) + len(entry.extra) + entry.compress_size // 2 + 20
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    elif damage == "other":  # a file under a name that is not its own
        cached({"metric": "m", "other": 1}, lambda: make(7, calls), tmp_path)
        other = next(file for file in tmp_path.glob("m-*.npz") if file != path)
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(b"" if damage == "empty" else b"hello")
    assert cached(key, lambda: make(2, calls), tmp_path)["counts 8"][0, 0] == 2
    assert cached(key, lambda: make(3, calls), tmp_path)["counts 8"][0, 0] == 2


def test_a_folder_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert cached({"metric": "m"}, lambda: make(1, []), blocked)["x"][0] == 0.5


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("PROGAN_CACHE", raising=False)
    assert cache_folder() == Path("/somewhere/progan")
    monkeypatch.setenv("PROGAN_CACHE", f"{os.sep}elsewhere")
    assert cache_folder() == Path("/elsewhere")
