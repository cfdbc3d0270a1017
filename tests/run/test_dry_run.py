"""What the dry run promises."""

from dataclasses import replace

import pytest

from progan.networks import Discriminator, Generator, parameter_count
from progan.presets import PRESETS
from progan.run.dry_run import image_work, memory_bytes, seconds_left, working_parameters

DEMO = PRESETS["demo"].config


def test_all_parameters_work_at_the_full_resolution_and_fewer_before() -> None:
    whole = (parameter_count(Generator(DEMO.g)), parameter_count(Discriminator(DEMO.d)))
    assert working_parameters(DEMO, 32) == whole
    counts = [working_parameters(DEMO, r) for r in DEMO.g.resolutions]
    assert counts == sorted(counts)
    # 4x4 of G: dense 64 -> 64 x 16 with a bias per map, convolution, to RGB
    assert counts[0][0] == 64 * 64 * 16 + 64 + 64 * 64 * 9 + 64 + 64 * 3 + 3


def test_in_the_last_phase_the_time_left_is_images_over_speed() -> None:
    assert seconds_left(DEMO, 26_000, 50.0) == pytest.approx(10_000 / 50.0)
    assert seconds_left(DEMO, DEMO.schedule.total_nimg, 50.0) == 0.0


def test_before_it_the_later_resolutions_count_for_more() -> None:
    assert seconds_left(DEMO, 0, 500.0) > 5 * DEMO.schedule.total_nimg / 500.0
    assert image_work(DEMO, 4) < image_work(DEMO, 8) < image_work(DEMO, 16) < image_work(DEMO, 32)


def test_memory_grows_with_batch_and_resolution() -> None:
    assert memory_bytes(DEMO, 32, 16) > memory_bytes(DEMO, 32, 8) > memory_bytes(DEMO, 16, 8)
    assert memory_bytes(replace(DEMO, precision="bf16"), 32, 16) < memory_bytes(DEMO, 32, 16)
