"""Which generator of a run is the newest."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from progan.config import GeneratorConfig
from progan.networks import Generator
from progan.support.errors import RunError
from progan.support.run_files import RunFolder
from progan.weights import save_network


def weights(path: Path, **facts: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.manual_seed(0)
    save_network(path, Generator(GeneratorConfig(resolution=4, fmap_base=8, fmap_max=8)), **facts)
    return path


def test_newer_snapshots_of_a_lengthened_run_go_before_its_first_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="holds no generator yet"):
        folder.newest_generator()
    snapshots = [weights(folder.snapshots / f"generator-{nimg:09d}.safetensors", nimg=nimg) for nimg in (100, 200)]
    assert folder.newest_generator() == snapshots[-1]
    weights(folder.generator, nimg=200)
    assert folder.newest_generator() == folder.generator
    newer = weights(folder.snapshots / "generator-000002300.safetensors", nimg=2300)
    os.utime(newer, (0, 0))  # a copy of a run keeps no times
    assert folder.newest_generator() == newer
    weights(folder.generator, nimg=2300)
    assert folder.newest_generator() == folder.generator


@pytest.mark.parametrize("imported", [True, False])
def test_a_final_generator_that_tells_no_time_is_taken(tmp_path: Path, imported: bool) -> None:
    folder = RunFolder(tmp_path)
    weights(folder.snapshots / "generator-000000100.safetensors", nimg=100)
    if imported:
        weights(folder.generator)
    else:
        folder.generator.write_bytes(b"damaged")  # reading it says so
    assert folder.newest_generator() == folder.generator
