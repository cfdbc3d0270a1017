"""Damaged and hostile files: each is read as what it was, or refused in one printable sentence."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from progan.config import GeneratorConfig, TrainConfig
from progan.data.pictures.tree import open_tree
from progan.data.store.pyramid import ImagePyramid
from progan.metrics.cache import cached
from progan.networks import Generator
from progan.run.folder import open_run
from progan.run.log import cut_after
from progan.run.metrics_log import read_metrics, read_times
from progan.run.state import TrainState
from progan.sampling.images import read_latent, save_latent
from progan.support.errors import UserError
from progan.weights import load_network, save_network
from tests.conftest import MakeConfig, write_data

CPU = torch.device("cpu")
CASES = 40  # of each way to damage a file
JSON = (b"", b"[]", b"null", b"7", b"{}", b'"\\ud800"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000)


def damaged(whole: bytes, seed: int) -> Iterator[bytes]:
    """Flipped bits, cut ends, swapped and repeated pieces of a file, and other JSON in place of numbers in it."""
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        yield bytes(flipped)
        yield whole[: rng.integers(len(whole))]
        a, b = sorted(rng.integers(len(whole), size=2))
        yield whole[:a] + whole[b:]
        yield whole[:b] + whole[a:]
        head = bytearray(whole)
        head[rng.integers(min(len(whole), 600))] = rng.integers(256)
        yield bytes(head)
        digits = [i for i, byte in enumerate(whole[:2000]) if byte in b"0123456789"]
        if digits:
            place = int(rng.choice(digits))
            other = (b"null", b"[]", b'"x"', b"1e999", b"9" * 30, b"-1", b"{}")[rng.integers(7)]
            yield whole[:place] + other + whole[place + 1 :]
    yield from JSON


def archive(kind: str) -> bytes:
    """Three small pictures and a list."""
    memory, picture = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    files = {"a.png": picture.getvalue(), "b.png": picture.getvalue(), "dataset.json": b'{"labels": [["a.png", 1]]}'}
    if kind == "zip":
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as pack:
            for name, data in files.items():
                pack.writestr(name, data)
    else:
        with tarfile.open(fileobj=memory, mode=f"w:{kind}") as pack:  # type: ignore[call-overload]
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                pack.addfile(info, io.BytesIO(data))
    return memory.getvalue()


def attack(path: Path, whole: bytes, read: Callable[[], object], seed: int = 0) -> int:
    """Read the file in every damaged form; how often it was refused."""
    said = []
    for content in damaged(whole, seed):
        path.write_bytes(content)
        try:
            read()
        except UserError as error:
            said.append(str(error))
    assert all(sentence.isprintable() and len(sentence) < 1000 for sentence in said)
    return len(said)


def test_weights(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    save_network(path, Generator(GeneratorConfig(resolution=8, fmap_base=16, fmap_max=8)), nimg=4, alpha=0.5)
    assert attack(path, path.read_bytes(), lambda: load_network(path, "generator")) > 100


def test_latents(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_latent(path, torch.ones(8), 1)
    config = GeneratorConfig(resolution=8, latent_dim=8, label_dim=3)
    assert attack(path, path.read_bytes(), lambda: read_latent(path, config)) > 100


def test_checkpoints(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(resolution=8)
    path = TrainState.create(config, CPU).save(tmp_path)
    assert attack(path, path.read_bytes(), lambda: TrainState.create(config, CPU).load(path)) > 100


@pytest.mark.parametrize("kind", ["", "gz", "xz", "zip"])
def test_archives(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.zip" if kind == "zip" else f"a.tar.{kind}".rstrip("."))

    def read() -> None:
        tree = open_tree(path)
        tree.read("dataset.json")
        list(tree.files())

    assert attack(path, archive(kind), read) > 40


def test_manifests(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", count=3, labels=2)
    path = data.path / "dataset.json"
    assert attack(path, path.read_bytes(), lambda: ImagePyramid.open(data.path)) > 100


def test_configs(make_config: MakeConfig, tmp_path: Path) -> None:
    config: TrainConfig = make_config()
    out = tmp_path / "run"

    def enter() -> None:
        with open_run(out, config, "hash", ""):
            pass

    enter()
    assert attack(out / "config.json", (out / "config.json").read_bytes(), enter) > 100


def test_lines_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    row = '{"nimg": 8, "seconds": 1.5, "metric": "swd", "protocol": "p", "data": "d", "resolution": 16,'
    row += ' "mirrored": false, "values": {"16": 2.0}, "spread": {"16": 0.1}}\n'

    def read() -> None:
        read_metrics(path)
        read_times(path)
        cut_after(path, 8)

    attack(path, (3 * row).encode(), read)


def test_the_cache(tmp_path: Path) -> None:
    made = {"features": np.arange(6.0)}
    cached({"metric": "m"}, lambda: made, tmp_path)
    (path,) = tmp_path.iterdir()

    def read() -> None:
        assert np.array_equal(cached({"metric": "m"}, lambda: made, tmp_path)["features"], made["features"])

    assert attack(path, path.read_bytes(), read) == 0
