"""Growing against not growing, each side at its best rate, in the time that steps cost (section 6.2)."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from progan.studies.ablation.rows import ROWS
from progan.studies.ablation.step_costs import Cost
from progan.studies.ablation.study import Study
from progan.studies.ablation.time_to_quality import chosen_rates, lowest, time_to_quality, timed
from progan.studies.experiment import Experiment, Record
from progan.studies.place import Place
from progan.studies.runner import Outcome
from progan.support.errors import ConfigError
from tests.command import refused


def test_seconds_are_what_the_images_until_then_cost() -> None:
    costs = [Cost(4, False, 0, 1000, 16, 1e-3, 0, 0, 0), Cost(8, False, 1000, 4000, 16, 5e-3, 0, 0, 0)]
    points = [{"nimg": nimg, "resolution": 8, "values": {}} for nimg in (500, 2000, 4000)]
    assert [point["seconds"] for point in timed(points, costs, growing=True)] == [0.5, 6.0, 16.0]
    assert [point["seconds"] for point in timed(points, costs, growing=False)] == [2.5, 10.0, 20.0]


def test_a_run_is_judged_by_its_best_once_fully_grown() -> None:
    points = [
        {"resolution": resolution, "values": {"average": value}}
        for resolution, value in ((8, 1.0), (16, 9.0), (16, 4.0), (16, None), (16, 6.0))
    ]
    assert lowest(points) == 4.0
    assert lowest([{"resolution": 16, "values": {"average": None}}]) == float("inf")


# The least average SWD of each run, once fully grown: with growing half the rate is best, without three times.
BEST = {"g-rate-0.5": 20.0, "g": 30.0, "g-rate-3": 40.0, "g-ungrown-rate-0.5": 45.0, "g-ungrown": 35.0,
        "g-ungrown-rate-3": 25.0}  # fmt: skip


@pytest.mark.usefixtures("tiny")
def test_each_side_at_its_best_rate_with_seeds_of_that_rate_alone(
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: dict[str, float] = {}

    def records(experiments: Sequence[Experiment], place: Place) -> Outcome:
        found: list[Record | None] = []
        for experiment in experiments:
            row, _, seed = experiment.folder.name.partition("-seed")
            ran[experiment.folder.name] = experiment.config.schedule.g_lr[4]
            values = [BEST[row] * factor + int(seed) for factor in (8, 4, 1, 2)]
            points = [
                {"nimg": nimg, "resolution": 8 if nimg == 60 else 16, "spread": {},
                 "values": {"average": value, "ms_ssim": 0.3}}
                for nimg, value in zip((60, 120, 180, 240), values, strict=True)
            ]  # fmt: skip
            found.append({"points": points, "floor": {"average": 5.0, "ms_ssim": 0.2}})
        return Outcome(found, [])

    monkeypatch.setattr("progan.studies.ablation.time_to_quality.run_experiments", records)
    study = Study(faces, tmp_path / "study", seeds=3)
    text, written = time_to_quality(study, ROWS, [0.5, 1.0, 3.0])
    found = json.loads(written[0].read_text())
    assert found["best_rate"] == {"grown": 0.5, "not grown": 3.0}
    first = {f"{row}-seed0" for row in BEST}
    assert ran.keys() == first | {f"{row}-seed{seed}" for row in ("g-rate-0.5", "g-ungrown-rate-3") for seed in (1, 2)}
    assert ran["g-rate-0.5-seed1"] == pytest.approx(0.003)  # row f's rate is 0.006
    assert ran["g-ungrown-seed0"] == pytest.approx(0.006)
    assert [point["values"]["average"] for point in found["curves"]["grown"]] == [161.0, 81.0, 21.0, 41.0]
    assert [point["values"]["average"] for point in found["curves"]["not grown"]] == [201.0, 101.0, 26.0, 51.0]
    assert "the best without growing" in text
    assert "seed by seed" in text
    assert "| grown | 0.5 | 20 | 40 |" in text
    assert "Compared at 0.5 grown and 3 not grown." in text
    assert "ms_ssim" not in text  # it is no distance


def test_a_users_mistake_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("", "a", "1,-2", "0", "nan", "1e9"):
        with pytest.raises(ConfigError, match=r"--rates: .* is not allowed; use multiples above 0 such as 0\.5,1,2"):
            chosen_rates(text)
    assert chosen_rates("0.5,1,1.0") == [0.5, 1.0]
    said = refused(capsys, "ablate", "--data", tmp_path, "--out", tmp_path / "out", "--rates", "0.5")
    assert said == "progan: --rates: is for --figure time-to-quality and stability; leave it out\n"
