"""What the dry run promises."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from progan.data.store.pyramid import ImagePyramid
from progan.networks import Discriminator, Generator, parameter_count
from progan.presets import PRESETS
from progan.run.dry_run import disk_bytes, image_work, memory_bytes, plan_table, seconds_left, working_parameters
from progan.training import train
from tests.command import on_screen

DEMO = PRESETS["demo"].config


def test_all_parameters_work_at_the_full_resolution_and_fewer_before() -> None:
    whole = (parameter_count(Generator(DEMO.g)), parameter_count(Discriminator(DEMO.d)))
    assert working_parameters(DEMO, 32) == whole
    counts = [working_parameters(DEMO, r) for r in DEMO.g.resolutions]
    assert counts == sorted(counts)
    # 4x4 of G: dense 64 -> 64 x 16 with a bias per map, convolution, to RGB
    assert counts[0][0] == 64 * 64 * 16 + 64 + 64 * 64 * 9 + 64 + 64 * 3 + 3


def test_in_the_last_phase_the_time_left_is_images_over_speed() -> None:
    total = DEMO.schedule.total_nimg
    assert seconds_left(DEMO, total - 10_000, 50.0) == pytest.approx(10_000 / 50.0)
    assert seconds_left(DEMO, total, 50.0) == 0.0


def test_before_it_the_later_resolutions_count_for_more() -> None:
    assert seconds_left(DEMO, 0, 500.0) > 5 * DEMO.schedule.total_nimg / 500.0
    assert image_work(DEMO, 4) < image_work(DEMO, 8) < image_work(DEMO, 16) < image_work(DEMO, 32)


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_writes_down(name: str) -> None:
    """A snapshot is G, a checkpoint both networks, Adam's two moments of each, and G's average; two stay."""
    config = PRESETS[name].config
    g, d = (4 * parameter_count(network) for network in (Generator(config.g), Discriminator(config.d)))
    checkpoint, total = g + d + 2 * (g + d) + g, config.schedule.total_nimg
    saved, snapshots = -(-total // config.checkpoint_nimg), -(-total // config.snapshot_nimg)
    assert disk_bytes(config) == (saved * checkpoint + snapshots * g, 2 * checkpoint + snapshots * g)
    kept = replace(config, keep_every_nimg=total // 3)
    assert disk_bytes(kept)[1] - disk_bytes(config)[1] == 3 * checkpoint
    assert disk_bytes(config)[0] < 200 * 2**30
    assert disk_bytes(config)[1] < 12 * 2**30


def test_the_table_states_the_disk_and_its_time() -> None:
    config = PRESETS["celebahq-1024-1gpu"].config
    written, kept = disk_bytes(config)
    shares = f"{kept / 2**30:.3g} GiB stay of {written / 2**30:.3g} written"
    assert f"disk: {shares}, {written / 12e9:.0f} min at 200 MB/s (1% of 11 h" in on_screen(plan_table(config))


def test_a_checkpoint_is_as_large_as_promised(make_config: Any, data: ImagePyramid, tmp_path: Path) -> None:
    wide = {"fmap_base": 256, "fmap_max": 64}
    config = make_config(resolution=8, g=wide, d=wide, schedule={"total_nimg": 52})
    train(config, data, tmp_path / "run")
    files = list((tmp_path / "run").rglob("*-0000000*.*t*"))
    kept = sum(path.stat().st_size for path in files if path.suffix in (".pt", ".safetensors"))
    assert disk_bytes(config)[1] == pytest.approx(kept, rel=0.1)


def test_memory_grows_with_batch_and_resolution() -> None:
    assert memory_bytes(DEMO, 32, 16) > memory_bytes(DEMO, 32, 8) > memory_bytes(DEMO, 16, 8)
    assert memory_bytes(replace(DEMO, precision="bf16"), 32, 16) < memory_bytes(DEMO, 32, 16)
