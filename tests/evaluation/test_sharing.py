"""Several processes that torchrun started measure what one does, and tell a mistake once.

Run by torchrun, this file is `progan` whose SWD has few directions.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import progan.metrics.suite
from progan.__main__ import main
from progan.config import GeneratorConfig
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.subjects import folder_subject, generator_subject
from progan.images import to_pil
from progan.metrics.protocol import Collector, collect
from progan.metrics.sliced_wasserstein import SwdCollector, SwdProtocol
from progan.networks import Generator
from progan.support.processes import Processes
from progan.support.rng import keyed_generator
from progan.weights import save_network
from tests.conftest import write_data

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
EVALUATE = [__file__, "evaluate", "--device", "cpu", "--seed", "3"]


def evaluate(*words: object, cache: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Measure in fresh processes of one thread each, with a cache of their own."""
    start = [sys.executable, *(TORCHRUN if processes > 1 else []), *EVALUATE]
    here = str(Path(__file__).parents[2])
    env = {**os.environ, "PROGAN_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    return subprocess.run([*start, *map(str, words)], capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> ImagePyramid:
    return write_data(tmp_path_factory.mktemp("faces") / "data", count=300, resolution=16, labels=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator with labels in the midst of its fade to 16x16."""
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(resolution=16, fmap_base=32, fmap_max=16, label_dim=3))
    path = tmp_path_factory.mktemp("weights") / "g.safetensors"
    save_network(path, g, nimg=70, resolution=16, alpha=0.5)
    return path


def results(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.slow
def test_two_processes_find_what_one_does_to_the_bit(faces: ImagePyramid, weights: Path, tmp_path: Path) -> None:
    """SWD with its spread and noise floor, and MS-SSIM, of two units of 64 images."""
    metrics = "swd,ms_ssim"
    words = (weights, "--data", faces.path, "--images", 128, "--metrics", metrics)
    for processes in (1, 2):
        out, cache = tmp_path / f"out{processes}", tmp_path / f"cache{processes}"
        done = evaluate(*words, "--out", out, cache=cache, processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written to ") == 1  # the first process speaks for both
    alone, shared = (results(tmp_path / f"out{processes}") for processes in (1, 2))
    assert shared == alone
    assert [row["metric"] for row in shared] == metrics.split(",")
    assert all(row["values"] and row["spread"] for row in shared)
    assert {path.name for path in (tmp_path / "cache1").iterdir()} == {
        path.name for path in (tmp_path / "cache2").iterdir()
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """72 pictures, of which the second process reads 8."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (72, 3, 16, 16), dtype=np.uint8)):
        to_pil(image).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "cuda:7"], "device: 'cuda:7' is not on this machine; use auto, cpu, cuda or mps"),
        (["--metrics", "ms_ssim", "--images", "80"], "72 images are too few, 80 are needed; give more"),
        (["--metrics", "ms_ssim", "--images", "72"], "damaged"),
    ],
    ids=["device", "fakes", "pictures"],
)
def test_a_mistake_is_told_once(
    words: list[str], sentence: str, faces: ImagePyramid, pictures: Path, tmp_path: Path
) -> None:
    if sentence == "damaged":  # behind a header that is whole; one of each process, of which the first tells its own
        order = torch.randperm(72, generator=keyed_generator(3, "measured files")).tolist()
        damaged = [pictures / f"{order[place]:03}.png" for place in (10, 64 + 3)]
        for path in damaged:
            path.write_bytes(path.read_bytes()[:200])
        sentence = f"{damaged[0].name}: "
    out = tmp_path / "out"
    done = evaluate("--data", faces.path, "--fakes", pictures, "--out", out, *words, cache=tmp_path / "cache")
    said = [line for line in done.stderr.splitlines() if line.startswith("progan: ")]
    assert len(said) == 1, done.stderr
    assert sentence in said[0]
    assert "exitcode  : 2" in done.stderr  # as torchrun counts it
    assert done.stdout == ""
    assert not out.exists()


# In one process, whose threads stand in for several.


class Threads(Processes):
    """Some of several threads, that speak by one list of slots."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        super().__init__(rank, size)
        self.__dict__.update(barrier=barrier, slots=slots)

    def gather(self, mine: Any) -> list[Any]:
        self.slots[self.rank] = mine
        self.barrier.wait()
        found = [*self.slots] if self.rank == 0 else []
        self.barrier.wait()
        return found

    def first(self, make: Any) -> Any:
        self.slots[self.rank] = make() if self.rank == 0 else None
        self.barrier.wait()
        made = self.slots[0]
        self.barrier.wait()
        return made

    def total(self, counts: np.ndarray) -> np.ndarray:
        return sum(self.gather(counts), np.zeros_like(counts))


def shared(size: int, unit: int, images: np.ndarray, make: Callable[[], Collector]) -> list[dict[str, np.ndarray]]:
    """What each of several processes ends with."""
    barrier, slots = threading.Barrier(size, timeout=60), [None] * size

    def work(rank: int) -> dict[str, np.ndarray]:
        collector, processes = make(), Threads(rank, size, barrier, slots)
        collector.share(processes, unit)
        own = processes.own(len(images), unit)
        assert collector.wanted == sum(map(len, processes.own(collector.size, unit)))
        for some in own:
            collector.add(images[some.start : some.stop])
        return collector.finish()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("count", "images"), [(40, 40), (40, 44), (17, 17), (3, 8)])
def test_shares_make_the_whole_whatever_their_number(size: int, count: int, images: int) -> None:
    """Also where one has nothing, or where another metric asks for more images."""
    drawn = np.random.default_rng(0).integers(0, 256, (images, 3, 16, 16), dtype=np.uint8)
    protocol = SwdProtocol(images=count, patches=4, directions=8)
    reals = collect(drawn[::-1].copy(), SwdCollector(replace(protocol, images=images)))
    kinds: list[Callable[[], Collector]] = [
        lambda: SwdCollector(protocol, "fakes", against=reals),
        lambda: Rows(count),
    ]
    for make in kinds:
        wanted = collect(drawn, make())
        unit = 2 * make().block_size
        first, *others = shared(size, unit, drawn, make)
        assert first.keys() == wanted.keys()
        assert all(np.array_equal(first[name], wanted[name]) for name in wanted)
        assert others == [{}] * (size - 1)


class Rows(Collector):
    """A row for every two images."""

    def __init__(self, count: int) -> None:
        super().__init__(2 * (count // 2), 4)
        self.kept: list[np.ndarray] = []

    def _block(self, images: np.ndarray) -> None:
        self.kept.append(images[::2, 0, 0].astype(float) - images[1::2, 0, 0])

    def _statistics(self) -> dict[str, np.ndarray]:
        return self._rows({"rows": self.kept}, images=2)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_image_is_of_one_process_and_each_has_its_part_of_the_first(size: int, count: int) -> None:
    processes = [Processes(rank, size) for rank in range(size)]
    parts = [[i for some in each.own(count, 64) for i in some] for each in processes]
    assert sorted(i for part in parts for i in part) == list(range(count))
    for part, each in zip(parts, processes, strict=True):
        fewer = [i for some in each.own(count // 2, 64) for i in some]
        assert part[: len(fewer)] == fewer
    assert max(map(len, parts)) - min(map(len, parts)) <= 64 or size == 1


def test_images_of_a_share_are_those_of_the_whole(faces: ImagePyramid, weights: Path, pictures: Path) -> None:
    """Of a generator to the bit, for its batches are the same ones."""
    subjects = [generator_subject(weights, faces, torch.device("cpu")), folder_subject(pictures, 3)]
    subjects.append(folder_subject(faces.path, 3))
    for subject, unit in zip(subjects, (64, 8, 64), strict=True):
        whole = np.concatenate(list(subject.images(100 if unit == 64 else 30)))
        for each in (Processes(0, 2), Processes(1, 2)):
            own = each.own(len(whole), unit)
            part = np.concatenate(list(subject.images(len(whole), own)))
            assert np.array_equal(part, np.concatenate([whole[some.start : some.stop] for some in own]))
    assert not list(subjects[1].images(150, []))


if __name__ == "__main__":
    progan.metrics.suite.SWD = SwdProtocol(directions=64)
    main()
