"""Trackers: what a run wrote is what they show, each point once, whatever happened in between."""

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

import progan.export.track
from progan.config import TrainConfig
from progan.export.track import RECORD, track
from progan.support.errors import ConfigError, RunError
from progan.training import train
from tests.command import refused, run

EVENTS = "events.out.tfevents.progan"


def read_back(out: Path) -> Any:
    """What TensorBoard itself reads."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'progan[track]'"
    )
    events = accumulator.EventAccumulator(str(out), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def scalars(out: Path) -> dict[str, dict[int, float]]:
    """{tag: {step: value}}; fails when a step comes twice."""
    events = read_back(out)
    points = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag, values in points.items():
        assert len(dict(values)) == len(values), tag
    return {tag: dict(values) for tag, values in points.items()}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def config(make_config: Any) -> TrainConfig:
    return make_config(resolution=8)


@pytest.fixture(scope="module")
def made(config: TrainConfig, data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, only to be copied."""
    out = tmp_path_factory.mktemp("made") / "run"
    train(config, data, out)
    return out


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Path:
    """The test's own."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def measurement(nimg: int, values: dict[str, float], metric: str = "swd", protocol: str = "p") -> str:
    """A line of metrics.jsonl, as far as it is read."""
    row = {"nimg": nimg, "metric": metric, "protocol": protocol, "data": "d", "resolution": 8, "mirrored": True}
    return json.dumps(row | {"values": values, "spread": {}}) + "\n"


def test_tensorboard_shows_what_the_run_wrote(trained: Path, tmp_path: Path) -> None:
    swd, ms_ssim = measurement(40, {"16": 3.0, "average": 4.0}), measurement(40, {"": 0.25}, "ms_ssim", "m")
    (trained / "metrics.jsonl").write_text(swd + ms_ssim)
    track(trained, "tensorboard", tmp_path / "out")
    points = scalars(tmp_path / "out")
    stats, timing = rows_of(trained / "stats.jsonl"), rows_of(trained / "timing.jsonl")
    assert len(stats) > 8
    losses = set(stats[0]) - {"nimg", "resolution", "alpha", "batch"}
    assert "wasserstein" in losses
    for name in losses:
        assert points[f"loss/{name}"] == pytest.approx({row["nimg"]: row[name] for row in stats})
    for name in ("resolution", "alpha", "batch"):
        assert points[f"schedule/{name}"] == pytest.approx({row["nimg"]: row[name] for row in stats})
    assert points["speed/img_per_s"] == pytest.approx({row["nimg"]: row["img_per_s"] for row in timing})
    assert points["metrics/swd/16"] == {40: 3.0}
    assert points["metrics/swd/average"] == {40: 4.0}
    assert points["metrics/ms_ssim"] == {40: 0.25}
    events = read_back(tmp_path / "out")
    fakes = {event.step: event.encoded_image_string for event in events.Images("fakes")}
    assert fakes == {int(path.stem[6:]): path.read_bytes() for path in trained.glob("fakes-*.png")}
    assert len(fakes) == 4
    (reals,) = events.Images("reals")
    assert reals.encoded_image_string == (trained / "reals.png").read_bytes()
    hours = [event.wall_time for event in events.Scalars("loss/drift")]
    assert hours[-1] - hours[0] == pytest.approx(timing[-1]["seconds"] - timing[0]["seconds"], abs=1e-3)


def test_hyperparameters_are_what_the_run_never_changes(trained: Path, tmp_path: Path) -> None:
    track(trained, "tensorboard", tmp_path / "out")
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2", reason="pip install 'progan[track]'")
    content = read_back(tmp_path / "out").SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    fields = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    assert fields["g.fmap_max"].number_value == 16
    assert fields["schedule.batch"].string_value == "4:4"
    assert fields["g.equalized"].bool_value is True
    assert "schedule.total_nimg" not in fields


def test_a_second_call_adds_nothing(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert track(trained, "tensorboard", out) == 2 * len(rows_of(trained / "stats.jsonl")) + 5
    before = (out / EVENTS).read_bytes()
    assert track(trained, "tensorboard", out) == 0
    assert (out / EVENTS).read_bytes() == before


def test_a_run_that_was_killed_cut_back_and_lengthened_gives_each_point_once(
    config: TrainConfig, data: Any, tmp_path: Path
) -> None:
    folder, out = tmp_path / "run", tmp_path / "out"
    train(replace(config, schedule=replace(config.schedule, total_nimg=64)), data, folder)
    track(folder, "tensorboard", out)
    with (folder / "stats.jsonl").open("a") as file:
        file.write('{"nimg": 72, "resolution": 8, "alp')  # a kill tore it
    track(folder, "tensorboard", out)
    assert max(scalars(out)["schedule/alpha"]) == 64
    max((folder / "checkpoints").iterdir()).unlink()
    (folder / "stats.jsonl").write_text("".join((folder / "stats.jsonl").read_text().splitlines(True)[:3]))
    track(folder, "tensorboard", out)
    train(config, data, folder)
    track(folder, "tensorboard", out)
    train(config, data, tmp_path / "straight")
    track(tmp_path / "straight", "tensorboard", tmp_path / "other")
    found, straight = scalars(out), scalars(tmp_path / "other")
    assert {tag: values for tag, values in found.items() if "speed" not in tag} == {
        tag: values for tag, values in straight.items() if "speed" not in tag
    }
    assert list(found["speed/img_per_s"]) == list(straight["speed/img_per_s"])
    pictures = Counter(event.step for event in read_back(out).Images("fakes"))
    assert set(pictures.values()) == {1}
    assert set(pictures) == {0, 32, 64, 96}


def test_a_tracker_killed_between_events_and_record_neither_loses_nor_doubles(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = (trained / "stats.jsonl").read_text().splitlines(True)
    (trained / "stats.jsonl").write_text("".join(lines[:4]))
    track(trained, "tensorboard", out)
    record = (out / RECORD).read_bytes()
    (trained / "stats.jsonl").write_text("".join(lines))
    track(trained, "tensorboard", out)
    whole = (out / EVENTS).read_bytes()
    for cut in (len(whole), len(whole) - 7):
        (out / RECORD).write_bytes(record)
        (out / EVENTS).write_bytes(whole[:cut])
        track(trained, "tensorboard", out)
        assert list(scalars(out)["loss/drift"]) == [row["nimg"] for row in rows_of(trained / "stats.jsonl")]


def test_a_late_measurement_is_added_and_another_way_of_measuring_has_its_own_name(
    trained: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", trained / "metrics.jsonl"
    file.write_text(measurement(64, {"16": 3.0, "average": 4.0}))
    track(trained, "tensorboard", out)
    file.write_text(
        measurement(64, {"16": 3.0, "average": 4.0})
        + measurement(32, {"16": 5.0, "average": 6.0})
        + measurement(64, {"16": 9.0, "average": 10.0}, protocol="other")
        + measurement(64, {"16": 3.5, "average": 4.5})
    )
    assert track(trained, "tensorboard", out) == 2
    points = scalars(out)
    assert points["metrics/swd/16"] == {64: 3.0, 32: 5.0}
    (other,) = [tag for tag in points if tag.startswith("metrics/swd-") and tag.endswith("/16")]
    assert points[other] == {64: 9.0}


def test_following_ends_with_the_run(
    config: TrainConfig, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progan.export.track, "SECONDS_BETWEEN_LOOKS", 0.01)
    folder, out = tmp_path / "run", tmp_path / "out"
    train(replace(config, schedule=replace(config.schedule, total_nimg=8)), data, folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"total_nimg": 8', '"total_nimg": 96'))  # to be lengthened
    follower = Thread(target=track, args=(folder, "tensorboard", out), kwargs={"follow": True}, daemon=True)
    follower.start()
    follower.join(0.5)
    assert follower.is_alive()
    train(config, data, folder)
    follower.join(20)
    assert not follower.is_alive()
    assert list(scalars(out)["loss/drift"]) == [row["nimg"] for row in rows_of(folder / "stats.jsonl")]
    assert [event.step for event in read_back(out).Images("fakes")] == [0, 8, 32, 64, 96]


class StandIn:
    """In place of the package wandb: takes the calls, checks nothing that wandb would check."""

    Error = RuntimeError

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.started: list[dict[str, Any]] = []
        self.fields: dict[str, Any] = {}

    def Image(self, path: str) -> str:  # noqa: N802
        return path

    def init(self, **how: Any) -> SimpleNamespace:
        self.started.append(how)
        return SimpleNamespace(
            id=how["id"] or "first",
            config=SimpleNamespace(update=lambda fields, allow_val_change: self.fields.update(fields)),
            define_metric=lambda name, step_metric=None: None,
            log=self.lines.append,
            finish=lambda exit_code: None,
        )


def test_wandb_is_given_each_point_once_and_stays_offline(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)  # type: ignore[arg-type]
    monkeypatch.delenv("WANDB_MODE", raising=False)
    track(trained, "wandb", tmp_path / "out")
    count = len(wandb.lines)
    track(trained, "wandb", tmp_path / "out")
    assert len(wandb.lines) == count
    assert [how["mode"] for how in wandb.started] == ["offline", "offline"]
    assert [how["id"] for how in wandb.started] == [None, "first"]
    stats = rows_of(trained / "stats.jsonl")
    drift = [(line["nimg"], line["loss/drift"]) for line in wandb.lines if "loss/drift" in line]
    assert drift == [(row["nimg"], row["drift"]) for row in stats]
    assert [Path(line["fakes"]).name for line in wandb.lines if "fakes" in line] == [
        path.name for path in sorted(trained.glob("fakes-*.png"))
    ]
    assert wandb.fields["g.fmap_max"] == 16


@pytest.mark.slow
def test_the_real_wandb_writes_its_offline_files(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    track(trained, "wandb", tmp_path / "out")
    assert track(trained, "wandb", tmp_path / "out") == 0
    pictures = {path.read_bytes() for path in (tmp_path / "out").rglob("media/images/*.png")}
    assert {path.read_bytes() for path in trained.glob("fakes-*.png")} < pictures
    assert any(file.stat().st_size > 2000 for file in (tmp_path / "out").rglob("*.wandb"))


def test_what_cannot_be_tracked_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    code, text, _ = run(capsys, "track", trained, "--out", out)
    assert code == 0
    assert f"tensorboard --logdir {out}" in text
    assert "holds no run of progan train" in refused(capsys, "track", tmp_path / "nowhere", "--out", out)
    (tmp_path / "file").write_text("")
    assert "--out: " in refused(capsys, "track", trained, "--out", tmp_path / "file")
    shutil.copytree(trained, tmp_path / "copy")
    assert track(tmp_path / "copy", "tensorboard", out) == 0  # the same run, elsewhere
    text = (trained / "config.json").read_text()
    (trained / "config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    assert "holds the points of another run" in refused(capsys, "track", trained, "--out", out)
    with pytest.raises(ConfigError, match="'paper' is not known; use one of tensorboard, wandb"):
        track(trained, "paper", out)
    (out / RECORD).write_text("{")
    with pytest.raises(RunError, match=r"progan-track\.json: cannot be read"):
        track(trained, "tensorboard", out)
    for package, pip in (("tensorboard", "'progan[track]'"), ("wandb", "wandb")):
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
        sentence = refused(capsys, "track", trained, "--to", package, "--out", tmp_path / package)
        assert f"{package} is not installed" in sentence
        assert f"pip install {pip}" in sentence
