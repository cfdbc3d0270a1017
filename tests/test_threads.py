"""How many threads a run computes with: chosen by its own steps, once, and kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import progan.threads
from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.schedule import Phase
from progan.support.errors import ConfigError
from progan.threads import pick_threads
from progan.training import train

CPU = torch.device("cpu")
Costs = Callable[[dict[int, float]], list[tuple[int, int, int]]]


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Costs:
    """costs({threads: seconds}): PyTorch has four threads, and a step takes so long; returns what steps were taken."""

    def set_up(seconds: dict[int, float]) -> list[tuple[int, int, int]]:
        taken: list[tuple[int, int, int]] = []

        def step(state: Any, phase: Phase, nimg: int, threads: int) -> float:
            taken.append((threads, phase.resolution, nimg))
            return seconds[threads]

        monkeypatch.setattr(progan.threads, "_step", step)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
        return taken

    return set_up


@pytest.mark.parametrize(
    ("alone", "together", "chosen"), [(1.0, 0.3, 4), (1.0, 0.89, 4), (1.0, 0.95, 1), (1.0, 12.0, 1), (0.01, 0.004, 4)]
)
def test_all_threads_only_where_they_are_worth_it(
    costs: Costs, make_config: Any, capsys: pytest.CaptureFixture[str], alone: float, together: float, chosen: int
) -> None:
    taken = costs({1: alone, 4: min(together, 3.9)})
    config = make_config(schedule={"stable_nimg": 8, "fade_nimg": 8})
    assert pick_threads(config, CPU) == chosen
    assert taken == [(4, 16, 32)] + 5 * [(4, 16, 32), (1, 16, 32)]  # in turn, at the full resolution, where it is in
    said = f"a step at 16x16 takes {alone * 1e3:.0f} ms with one thread and {min(together, 3.9) * 1e3:.0f} ms with 4"
    assert capsys.readouterr().err == f"{said}: computing with {chosen}\n"


def test_a_long_step_is_not_taken_again_and_again(costs: Costs, make_config: Any) -> None:
    taken = costs({1: 1.0, 4: 5.0})
    assert pick_threads(make_config(), CPU) == 4
    assert len(taken) == 1


def test_nothing_is_timed_where_there_is_no_choice(
    costs: Costs, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = costs({})
    assert pick_threads(make_config(threads=3), CPU) == 3
    assert pick_threads(make_config(), torch.device("cuda")) == 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert pick_threads(make_config(), CPU) == 1
    assert taken == []


def test_steps_are_really_taken_with_so_many_threads(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    computing: list[int] = []
    original = progan.threads.train_step

    def step(*args: Any) -> Any:
        computing.append(torch.get_num_threads())
        return original(*args)

    monkeypatch.setattr(progan.threads, "train_step", step)
    torch.set_num_threads(2)
    try:
        assert pick_threads(make_config(g={"label_dim": 2}, d={"label_dim": 2}), CPU) in (1, 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert computing == [2, *5 * [2, 1]]


def test_a_run_keeps_its_threads_until_it_is_told_otherwise(
    make_config: Any, data: ImagePyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainConfig] = []

    def pick(config: TrainConfig, device: torch.device) -> int:
        asked.append(config)
        return config.threads or 2

    monkeypatch.setattr(progan.training, "pick_threads", pick)
    run, computing = tmp_path / "run", []
    monkeypatch.setattr(progan.training, "_loop", lambda *_: computing.append(torch.get_num_threads()))

    def recorded() -> int:
        number: int = json.loads((run / "config.json").read_text())["config"]["threads"]
        return number

    found = []
    for threads in (0, 0, 3, 0):
        train(make_config(threads=threads), data, run)
        found.append(recorded())
    assert found == computing == [2, 2, 3, 3]
    assert [config.threads for config in asked] == [0, 2, 3, 3]
    assert torch.get_num_threads() == 1  # as before


def test_threads_out_of_range_are_refused(make_config: Any) -> None:
    for threads in (-1, 2000):
        with pytest.raises(ConfigError, match=f"threads: {threads} is not allowed"):
            make_config(threads=threads)
