"""Growing against the numbers of section 2 and appendix A.1, worked out by hand."""

from itertools import pairwise
from math import floor

import pytest

from progan.config import ScheduleConfig
from progan.presets import PRESETS
from progan.schedule import Schedule

KIMG = 1000
PAPER = Schedule(ScheduleConfig(stable_nimg=800 * KIMG, fade_nimg=800 * KIMG, total_nimg=19_000 * KIMG), 1024)


@pytest.mark.parametrize(
    ("kimg", "index", "resolution", "alpha"),
    [
        (0, 0, 4, 1.0),  # the first resolution does not fade in
        (799.999, 0, 4, 1.0),
        (800, 1, 8, 0.0),  # 8x8 enters with no weight
        (1000, 1, 8, 0.25),
        (1400, 1, 8, 0.75),
        (1600, 2, 8, 1.0),
        (2399.999, 2, 8, 1.0),
        (2400, 3, 16, 0.0),
        (2800, 3, 16, 0.5),
        (3200, 4, 16, 1.0),
        (12_000, 15, 1024, 0.0),  # 15 phases of 800 kimg: the last block enters
        (12_799.2, 15, 1024, 0.999),
        (12_800, 16, 1024, 1.0),  # and stays to the end
        (18_999, 16, 1024, 1.0),
    ],
)
def test_the_papers_schedule(kimg: float, index: int, resolution: int, alpha: float) -> None:
    phase = PAPER.at(round(kimg * KIMG))
    assert (phase.index, phase.resolution) == (index, resolution)
    assert phase.alpha == pytest.approx(alpha, abs=1e-12)


def official_lod(nimg: int, *, resolution_log2: int, training_kimg: int, transition_kimg: int) -> float:
    """Level of detail by the official rule: each phase is training, then transition; lod falls by one in each."""
    kimg = nimg / 1000
    phase_kimg = training_kimg + transition_kimg
    number = floor(kimg / phase_kimg) if phase_kimg > 0 else 0
    rest = kimg - number * phase_kimg
    lod = float(resolution_log2 - 2 - number)
    if transition_kimg > 0:
        lod -= max(rest - training_kimg, 0.0) / transition_kimg
    return max(lod, 0.0)


@pytest.mark.parametrize(("stable", "fade"), [(600, 600), (800, 800), (600, 100), (0, 300), (300, 0)])
@pytest.mark.parametrize("power", [2, 3, 5, 10])
def test_resolution_and_alpha_are_the_official_lod(power: int, stable: int, fade: int) -> None:
    schedule = Schedule(ScheduleConfig(stable_nimg=stable * KIMG, fade_nimg=fade * KIMG), 2**power)
    for nimg in range(0, 12_000 * KIMG, 12_345):
        phase = schedule.at(nimg)
        lod = official_lod(nimg, resolution_log2=power, training_kimg=stable, transition_kimg=fade)
        ours = power - phase.resolution.bit_length() + 1 + (1 - phase.alpha)
        assert ours == pytest.approx(lod, abs=1e-9), nimg


CASES = [(800, 800, 19_000), (600, 600, 12_000), (0, 500, 3_000), (500, 0, 3_000), (0, 0, 700), (300, 200, 650)]


@pytest.mark.parametrize(("stable", "fade", "total"), CASES)
@pytest.mark.parametrize("resolution", [4, 8, 64])
def test_phases_tile_the_run_and_agree_with_every_moment(stable: int, fade: int, total: int, resolution: int) -> None:
    growing = stable + fade > 0
    schedule = Schedule(ScheduleConfig(growing, stable_nimg=stable, fade_nimg=fade, total_nimg=total), resolution)
    spans = schedule.phases()
    assert (spans[0].start_nimg, spans[-1].stop_nimg) == (0, total)
    assert all(a.stop_nimg == b.start_nimg and a.index < b.index for a, b in pairwise(spans))
    for span in spans:
        assert span.start_nimg < span.stop_nimg
        for nimg in {span.start_nimg, (span.start_nimg + span.stop_nimg) // 2, span.stop_nimg - 1}:
            phase = schedule.at(nimg)
            assert (phase.index, phase.resolution) == (span.index, span.resolution)
            assert span.fading == (phase.index % 2 == 1)
            assert span.fading or phase.alpha == 1.0


def test_alpha_rises_in_a_straight_line_and_never_falls() -> None:
    schedule = Schedule(ScheduleConfig(stable_nimg=100, fade_nimg=100), 16)
    fade = [schedule.at(nimg) for nimg in range(100, 200)]
    assert [phase.alpha for phase in fade] == pytest.approx([i / 100 for i in range(100)])
    assert {phase.resolution for phase in fade} == {8}
    assert all(a.index <= b.index for a, b in pairwise([schedule.at(nimg) for nimg in range(1000)]))


def test_without_stable_and_fade_the_whole_network_trains_from_the_start() -> None:
    schedule = Schedule(ScheduleConfig(growing=False, total_nimg=100), 64)
    for nimg in (0, 1, 99):
        phase = schedule.at(nimg)
        assert (phase.resolution, phase.alpha, phase.index % 2) == (64, 1.0, 0)
    assert schedule.first_full_nimg() == 0


def test_without_fade_a_block_enters_at_full_weight() -> None:
    schedule = Schedule(ScheduleConfig(stable_nimg=100, fade_nimg=0), 16)
    assert [schedule.at(n).resolution for n in (0, 99, 100, 199, 200, 10_000)] == [4, 4, 8, 8, 16, 16]
    assert {schedule.at(n).alpha for n in range(300)} == {1.0}
    assert len({schedule.at(n).index for n in range(300)}) == 3  # so that the optimizers reset at each


@pytest.mark.parametrize(("stable", "fade"), [(800, 800), (600, 100), (0, 5), (5, 0)])
def test_first_full_nimg_is_where_the_last_phase_begins(stable: int, fade: int) -> None:
    schedule = Schedule(ScheduleConfig(stable_nimg=stable, fade_nimg=fade), 64)
    first = schedule.first_full_nimg()
    last = schedule.at(10**9).index
    assert schedule.at(first).index == last
    assert schedule.at(first - 1).index < last


# Official presets: minibatch and learning rate at 4, 8, ..., 1024.
TABLES = {
    "celebahq-1024": ([16, 16, 16, 16, 16, 16, 14, 6, 3], [0.001] * 9),
    "celebahq-1024-1gpu": ([128, 128, 128, 64, 32, 16, 8, 4, 4], [0.001] * 8 + [0.0015]),
    "celebahq-1024-8gpu": (
        [512, 256, 128, 64, 32, 32, 32, 32, 32],
        [0.001] * 5 + [0.0015, 0.002, 0.003, 0.003],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_batches_and_rates_of_the_published_runs(name: str) -> None:
    config = PRESETS[name].config
    schedule = Schedule(config.schedule, config.g.resolution)
    stable = [schedule.at(span.start_nimg) for span in schedule.phases() if not span.fading]
    assert [phase.resolution for phase in stable] == [2**r for r in range(2, 11)]
    assert [phase.batch for phase in stable] == TABLES[name][0]
    assert [phase.g_lr for phase in stable] == [phase.d_lr for phase in stable] == TABLES[name][1]


def test_a_fading_block_already_has_its_resolutions_batch_and_rates() -> None:
    config = ScheduleConfig(
        stable_nimg=100, fade_nimg=100, batch={4: 9, 8: 5}, g_lr={4: 0.1, 8: 0.2}, d_lr={4: 0.3, 8: 0.4}
    )
    before, after = (Schedule(config, 8).at(nimg) for nimg in (99, 100))
    assert (before.batch, before.g_lr, before.d_lr) == (9, 0.1, 0.3)
    assert (after.batch, after.g_lr, after.d_lr) == (5, 0.2, 0.4)
