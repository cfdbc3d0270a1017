"""Figure 4c: costs of steps, put together into times."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from progan.presets import PRESETS
from progan.run.state import TrainState
from progan.schedule import Schedule
from progan.step import train_step
from progan.studies.ablation.step_costs import Cost, kept_costs, measure_costs
from progan.studies.ablation.training_speed import figure, report, speed_ups
from progan.support import recording
from progan.support.flops import CountFlops
from progan.support.recording import record
from tests.command import refused, run


def cost(resolution: int, start: int, stop: int, seconds: float, flops: float, *, fading: bool = False) -> Cost:
    return Cost(resolution, fading, start, stop, 16, seconds, seconds / 2, 2 * seconds, flops)


# 1,000 images at 1 ms, as many at 2 ms, 2,000 at 5 ms: 1, 3 and 13 s; without growing 5 ms each.
COSTS = [cost(4, 0, 1000, 1e-3, 1e6), cost(8, 1000, 2000, 2e-3, 8e6, fading=True), cost(8, 2000, 4000, 5e-3, 20e6)]


def test_times_add_up() -> None:
    assert speed_ups(COSTS, "seconds") == pytest.approx([5, 10 / 3, 20 / 13])
    assert speed_ups(COSTS, "flops") == pytest.approx([20, 40 / 9, 80 / 49])
    assert speed_ups(COSTS[2:], "seconds") == pytest.approx([2])  # as if it began there


def test_what_is_said() -> None:
    text = report({"device": "cpu"}, COSTS)
    assert "the 4 kimg of this schedule take 13 s on this machine; without, 20 s: 1.54 times as fast." in text
    assert "after 2 kimg, it is 3.33 times" in text
    assert "| 8x8 | fade | 2 | 16 | 2 (1 to 4) | 0.008 | 3.33 | 4.44 |" in text
    alone = [cost(8, 0, 4000, 5e-3, 1.0)]
    assert report({}, alone).startswith("With growing, the 4 kimg of this schedule take 20 s on this machine; without")
    assert speed_ups(alone, "seconds") == [1]


def test_every_phase_is_timed_by_real_steps(make_config: Any) -> None:
    config = make_config(
        schedule={"stable_nimg": 40, "fade_nimg": 24, "total_nimg": 300, "batch": {4: 8, 16: 4}}, d_steps=2
    )
    costs = measure_costs(config, rounds=2)
    assert [(c.resolution, c.fading, c.start_nimg, c.stop_nimg, c.batch) for c in costs] == [
        (4, False, 0, 40, 8), (8, True, 40, 64, 8), (8, False, 64, 104, 8), (16, True, 104, 128, 4),
        (16, False, 128, 300, 4),
    ]  # fmt: skip
    assert all(0 < c.least <= c.seconds <= c.most < 10 for c in costs)
    assert costs[0].flops < costs[2].flops < costs[4].flops
    assert costs[2].flops < costs[1].flops < 1.1 * costs[2].flops  # a fade computes the colours of both


def test_what_is_timed_was_recorded_before(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[object] = []
    monkeypatch.setattr(recording, "record", lambda *what: (recorded.append(what), record(*what))[1])
    schedule = {"stable_nimg": 40, "fade_nimg": 24, "total_nimg": 300}
    costs = measure_costs(make_config(schedule=schedule), rounds=2)
    assert len(recorded) == 2 * len(costs)  # D's update and G's of each phase, before the first round


def test_kept_costs_are_measured_once_with_one_thread(make_config: Any, tmp_path: Path, one_round: None) -> None:
    config = make_config(schedule={"stable_nimg": 40, "fade_nimg": 24, "total_nimg": 300, "batch": {4: 8}})
    path, threads = tmp_path / "step-costs.json", torch.get_num_threads()
    torch.set_num_threads(2)
    about, costs = kept_costs(path, config)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert about["threads"] == 1
    assert kept_costs(path, config) == (about, costs)
    longer = make_config(schedule={"stable_nimg": 48, "fade_nimg": 24, "total_nimg": 300, "batch": {4: 8}})
    assert kept_costs(path, longer)[1][0].stop_nimg == 48  # another schedule has costs of its own
    path.write_text("[]")
    assert kept_costs(path, config)[1][0].stop_nimg == 40


def test_without_growing_there_is_one_phase_that_costs_as_much_as_the_last(make_config: Any) -> None:
    schedule = {"stable_nimg": 40, "fade_nimg": 0, "total_nimg": 300, "batch": {4: 8}}
    grown = measure_costs(make_config(schedule=schedule, d_steps=2), rounds=1)
    config = make_config(schedule={**schedule, "growing": False}, d_steps=2)
    (whole,) = measure_costs(config, rounds=1)
    assert whole.flops == grown[-1].flops
    state = TrainState.create(config, torch.device("cpu"))
    with CountFlops() as counter:
        train_step(state, lambda _: (torch.zeros(8, 3, 16, 16), None), Schedule(config.schedule, 16).at(0))
    assert whole.flops == counter.total / 16


def test_a_step_with_labels_and_lsgan_is_timed_too(make_config: Any) -> None:
    config = make_config(
        g={"label_dim": 3}, d={"label_dim": 3}, loss=replace(PRESETS["demo"].config.loss, kind="lsgan")
    )
    assert len(measure_costs(config, rounds=1)) == len(Schedule(config.schedule, 16).phases())


def test_the_command_writes_table_figure_and_numbers(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = replace(
        PRESETS["demo"], config=make_config(schedule={"stable_nimg": 40, "fade_nimg": 40, "total_nimg": 300})
    )
    monkeypatch.setitem(PRESETS, "demo", tiny)
    out = tmp_path / "speed"
    words = ("ablate", "--figure", "training-speed", "--preset", "demo", "--out", out, "--device", "cpu")
    code, printed, _ = run(capsys, *words)
    text = (out / "training-speed.md").read_text()
    assert code == 0
    assert text.strip() in printed
    assert text.count("| 16x16 |") == 2
    found = json.loads((out / "training-speed.json").read_text())
    assert (found["about"]["config"], found["about"]["precision"], len(found["phases"])) == ("demo", "fp32", 5)
    assert (out / "training-speed.png").exists()


def test_the_figure_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert figure(tmp_path / "a.png", "a", COSTS) == tmp_path / "a.png"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert figure(tmp_path / "b.png", "b", COSTS) is None


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "new")
    assert "--preset: 'nothing' is not known; use one of demo, " in refused(
        capsys, "ablate", *out, "--figure", "training-speed", "--preset", "nothing"
    )
    assert "--preset: is for --figure training-speed" in refused(capsys, "ablate", *out, "--preset", "demo")
    assert "--data: is missing" in refused(capsys, "ablate", *out)
    assert not (tmp_path / "new").exists()
