"""Measuring while training: the same file as `progan evaluate`, and training does not notice."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from progan.config import TrainConfig
from progan.evaluation.meter import Meter
from progan.run.log import cut_measurements
from progan.run.metrics_log import RunMetrics, plot_metrics, read_metrics, worse
from progan.support.errors import ConfigError, DataError, RunError, UserError
from progan.support.run_files import RunFolder
from progan.training import fit_to_data, train

pytestmark = pytest.mark.usefixtures("few_directions")


@pytest.fixture(autouse=True)
def _no_plot(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture, which is drawn anew at every measurement, takes longer than all else, and is looked at in one."""
    if "the_plot" not in request.node.name:
        monkeypatch.setattr("progan.run.metrics_log.plot_metrics", lambda folder: None)


@pytest.fixture
def measured(make_config: Any) -> TrainConfig:
    return make_config(metrics="swd, ms_ssim", metrics_nimg=40, metrics_images=16)


def test_a_measured_run_learns_the_same_as_any_other(measured: TrainConfig, make_data: Any, tmp_path: Path) -> None:
    data = make_data(count=32)
    train(measured, data, tmp_path / "a")
    train(replace(measured, metrics=""), data, tmp_path / "b")
    for name in ("generator.safetensors", "stats.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["nimg"], row["metric"]) for row in rows] == [
        (nimg, metric) for nimg in (40, 80, 96) for metric in ("swd", "ms_ssim")
    ]
    assert all(row["images"]["fakes"] == 16 and row["resolution"] == 16 and row["mirrored"] for row in rows)
    assert not (tmp_path / "b" / "metrics.jsonl").exists()
    assert "SWD x1e3 average" in (tmp_path / "a" / "log.txt").read_text()


def test_a_run_that_goes_on_measures_the_same_again(measured: TrainConfig, make_data: Any, tmp_path: Path) -> None:
    data = make_data(count=32)
    train(measured, data, tmp_path / "whole")
    short = replace(measured, schedule=replace(measured.schedule, total_nimg=48))
    train(short, data, tmp_path / "parts")
    for row in read_metrics(tmp_path / "parts" / "metrics.jsonl"):
        assert row["nimg"] in (40, 48)
    train(measured, data, tmp_path / "parts")
    whole, parts = (
        {(row["nimg"], row["metric"]): row["values"] for row in read_metrics(tmp_path / name / "metrics.jsonl")}
        for name in ("whole", "parts")
    )
    assert {key: parts[key] for key in whole} == whole


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            MemoryError("Unable to allocate 9 GiB"),
            RunError,
            "pass a smaller --metrics-images, or leave out --metrics; ",
        ),
        (DataError("data: gone"), DataError, "data: gone; "),
        (ZeroDivisionError("ours"), ZeroDivisionError, "^ours$"),
    ],
)
def test_a_run_is_saved_when_it_cannot_be_measured(
    measured: TrainConfig,
    make_data: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    said: str,
) -> None:
    def measure(*args: Any, **how: Any) -> str:
        raise error

    data, config = make_data(count=32), replace(measured, checkpoint_nimg=1000)
    train(replace(config, metrics=""), data, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(RunMetrics, "measure", measure)
        saved = "the run is saved at 0.0 kimg, where the same command continues"
        with pytest.raises(kind, match=said + (saved if issubclass(kind, UserError) else "")):
            train(config, data, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-000000040.pt"]
    train(config, data, tmp_path / "run")
    for name in ("generator.safetensors", "stats.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be moved there")
@pytest.mark.parametrize("moved", ["data", "run"])
def test_what_is_moved_while_metrics_are_measured(
    measured: TrainConfig, make_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    original = Meter.measure

    def measure(*args: Any) -> Any:
        if (tmp_path / moved).exists():
            (tmp_path / moved).rename(tmp_path / "elsewhere")
        return original(*args)

    monkeypatch.setattr(Meter, "measure", measure)
    data = make_data(count=32)
    if moved == "data":  # the run goes on
        assert train(measured, data, tmp_path / "run").nimg == 96
        assert {row["nimg"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")} == {40, 80, 96}
    else:
        with pytest.raises(RunError, match="the run's folder was moved or deleted"):
            train(measured, data, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_only_the_newest_of_equal_measurements_counts(tmp_path: Path) -> None:
    row = {"nimg": 8, "metric": "swd", "protocol": "p", "data": "d", "resolution": 16, "mirrored": False}
    row |= {"values": {"": 1}, "spread": {}}
    other = row | {"nimg": 4, "values": {"": 2}}
    again = row | {"values": {"": 3}}
    file = row | {"nimg": None}
    lines = [json.dumps(line) for line in (row, other, file, again)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines[:2], '{"nimg": 8, "met', "[]", *lines[2:]]))
    assert [found["values"][""] for found in read_metrics(tmp_path / "metrics.jsonl")] == [2, 3]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_the_plot_shows_what_was_measured(measured: TrainConfig, make_data: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'progan[plot]'")
    train(measured, make_data(count=32), tmp_path / "run")
    picture = tmp_path / "run" / "metrics.png"
    assert picture.stat().st_size > 10_000
    picture.unlink()
    assert plot_metrics(RunFolder(tmp_path / "run")) == picture
    assert plot_metrics(RunFolder(tmp_path)) is None


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"metrics": "swd,neighbours"}, ConfigError, "--metrics: neighbours is not measured while training"),
        ({"metrics": "swd,nonsense"}, ConfigError, "nonsense not known; use some of swd"),
        ({"metrics": "swd", "metrics_images": 0}, DataError, "swd needs 24,576 .*or --metrics-images 16"),
        ({"metrics_images": 3}, ConfigError, "--metrics-images: 3 are too few"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_refused_before_training(
    measured: TrainConfig, make_data: Any, tmp_path: Path, fields: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        train(replace(measured, **fields), make_data(count=32), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"resolution": 8}, "--metrics: swd needs images of 16x16, these are 8x8; leave it out"),
        ({"channels": 4}, "--metrics: .*data has 4 channels, and 1 or 3 can be measured"),
    ],
)
def test_so_are_images_that_a_metric_does_not_take(
    measured: TrainConfig, make_data: Any, tmp_path: Path, shape: dict[str, int], message: str
) -> None:
    data = make_data(count=32, **shape)
    small = {name: replace(getattr(measured, name), resolution=data.resolution) for name in ("g", "d")}
    with pytest.raises(DataError, match=message):
        train(fit_to_data(replace(measured, **small), data), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_measurements_after_the_checkpoint_are_cut_and_those_of_others_stay(tmp_path: Path) -> None:
    own = [json.dumps({"source": f"generator-{nimg:09d}", "nimg": nimg}) + "\n" for nimg in (40, 80, 96)]
    others = [
        json.dumps({"source": "run/snapshots/generator-000000096.safetensors", "nimg": 96}) + "\n",
        json.dumps({"source": "pictures", "nimg": None}) + "\n",
        "[]\n",
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join([*own[:2], *others, own[2], '{"nimg": 96, "met']))
    cut_measurements(path, 48)
    assert path.read_text() == "".join([own[0], *others])
    before = path.stat()
    cut_measurements(path, 48)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def row(metric: str, nimg: int, value: float, **about: Any) -> dict[str, Any]:
    level = "average" if metric == "swd" else ""
    return {"metric": metric, "nimg": nimg, "protocol": "p", "data": "d", "values": {level: value}} | about


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], False),
        ([30.0], False),
        ([30.0, 12.0, 23.9], False),
        ([30.0, 12.0, 24.1], True),
        ([30.0, 12.0, 24.1, 90.0], False),  # was said before
    ],
)
def test_an_swd_over_twice_its_best_is_said_once(values: list[float], said: bool) -> None:
    rows = [row("swd", 1000 * i, value) for i, value in enumerate(values, 1)]
    other = [row("swd", 500, 1.0, protocol="another")]  # does not compare
    text = "SWD is over twice its best, 12; it was best at 2 kimg, to which --branch with --from-kimg goes back"
    assert worse(other + rows) == [text] * said


def test_images_that_become_alike_are_said_once() -> None:
    rows = [row("ms_ssim", 1000 * i, value, reals={"": 0.2}) for i, value in enumerate((0.3, 0.59, 0.61, 0.9), 1)]
    assert worse(rows[:2]) == []
    (said,) = worse(rows[:3])
    assert said.startswith("MS-SSIM nears 1: the images become alike; it was best at 1 kimg")
    assert worse(rows) == []
