"""The CIFAR-10 experiment: the paper's numbers, what is refused before days of training, the table at the end."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import progan.studies.cifar10
from progan.commands.cifar10 import Cifar10
from progan.evaluation.meter import Meter, Reals
from progan.images import to_uint8
from progan.metrics.suite import choose
from progan.networks import Discriminator, Generator, parameter_count
from progan.presets import PRESETS
from progan.run.state import FREE_FIELDS
from progan.studies.cifar10 import SCALES, ScoreMeasure, cifar10
from progan.studies.experiment import Experiment, Record
from progan.studies.place import HERE, Place
from progan.studies.rows import Scale
from progan.studies.runner import Outcome
from progan.studies.side_by_side import Block, side_by_side
from progan.support.errors import ConfigError, DataError, RunError, UserError
from progan.support.rng import latents
from progan.support.run_files import RunFolder
from progan.weights import save_network

SMALL = SCALES["small"].config
TINY = Scale(
    replace(
        SMALL,
        g=replace(SMALL.g, fmap_base=32, fmap_max=16),
        d=replace(SMALL.d, fmap_base=32, fmap_max=16),
        schedule=replace(SMALL.schedule, stable_nimg=4, fade_nimg=4, total_nimg=24, batch={4: 4}),
        precision="fp32",
        tick_nimg=8,
        snapshot_nimg=8,
        checkpoint_nimg=8,
    ),
    images=16,
    metrics="ms_ssim,swd",
)


@pytest.fixture
def place(make_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a labelled data set of 40 images, where "small" is tiny."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SCALES, "small", TINY)
    make_data(count=40, resolution=32, labels=10)
    return tmp_path


def result(metric: str, values: dict[str, float], reals: dict[str, float], **more: Any) -> dict[str, Any]:
    """One of a record's results, as measuring leaves them."""
    spread = {level: value / 100 for level, value in values.items()}
    kind = "floor" if metric == "swd" else "reals"
    told = {"metric": metric, "values": values, "spread": spread, "spread_is": f"spread of {metric}", kind: reals}
    return told | {"images": {"fakes": 50_000}, "protocol": "0123456789ab"} | more


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """In place of training: notes the experiments, and finds a score of 8, 9, ... by seed."""
    seen: list[Experiment] = []

    def run(experiments: Sequence[Experiment], place: Place = HERE) -> Outcome:
        seen.extend(experiments)
        records: list[Record | None] = [
            {
                "name": experiment.name,
                "seconds": 4000.0,
                "nimg": 24,
                "parameters": {"g": 1_296_908, "d": 1_298_689},
                "device": "cpu",
                "results": [
                    result("is", {"": 8.0 + experiment.config.seed}, {"": 11.24}),
                    result("swd", {"32": 12.5, "average": 10.0}, {"32": 2.0, "average": 1.5}),
                ],
            }
            for experiment in experiments
        ]
        return Outcome(records, [])

    monkeypatch.setattr(progan.studies.cifar10, "run_experiments", run)
    return seen


# What is trained.


def test_the_paper_scale_is_the_papers() -> None:
    config = SCALES["paper"].config
    assert parameter_count(Generator(config.g)) == 1_296_908  # official code, all layers
    assert parameter_count(Discriminator(config.d)) == 1_298_689
    assert config.g.z_dim == 128
    schedule = config.schedule
    assert (schedule.stable_nimg, schedule.fade_nimg, schedule.total_nimg) == (400_000, 400_000, 20_000_000)
    assert (schedule.batch, config.loss.gp_target, config.mirror) == ({4: 16}, 750, False)
    assert (config.g.channels, config.g.label_dim) == (3, 0)
    preset = PRESETS["cifar10"].config
    assert replace(config, **{name: getattr(preset, name) for name in FREE_FIELDS if "." not in name}) == preset
    (score, swd, similarity) = choose(SCALES["paper"].metrics, images=SCALES["paper"].images or None)
    assert (score.name, swd.name, similarity.name) == ("is", "swd", "ms_ssim")
    assert (score.size, score.spread) == (50_000, "deviation over 10 splits")


def test_the_small_scale_is_the_same_but_for_its_size() -> None:
    small, paper = SCALES["small"].config, SCALES["paper"].config
    assert small.g.z_dim == small.g.fmap_max == 64
    assert small.schedule.total_nimg == 36_000
    assert (small.loss, small.mirror, small.beta2, small.d_steps) == (paper.loss, False, paper.beta2, 1)
    shape = {"fmap_base": paper.g.fmap_base, "fmap_max": paper.g.fmap_max}
    assert replace(small.g, **shape) == paper.g
    assert replace(small.d, **shape) == paper.d
    names = [metric.name for metric in choose(SCALES["small"].metrics, images=SCALES["small"].images)]
    assert names == ["is_efficientnet_lite0", "swd", "ms_ssim"]  # nothing that must be downloaded


def test_a_network_per_seed_without_labels(place: Path, stand_in: list[Experiment]) -> None:
    cifar10(Path("data"), Path("out"), seeds=3, device="cpu")
    assert [experiment.config.seed for experiment in stand_in] == [0, 1, 2]
    assert [experiment.folder for experiment in stand_in] == [Path("out/seed0"), Path("out/seed1"), Path("out/seed2")]
    for experiment in stand_in:
        assert replace(experiment.config, seed=0, device="auto") == SCALES["small"].config
        assert experiment.config.g.label_dim == experiment.config.d.label_dim == 0
        assert experiment.config.device == "cpu"
        assert experiment.data == Path("data")
    assert len({experiment.measure for experiment in stand_in}) == 1  # all on the same reals and latents


def test_inception_weights_add_the_inception_score_at_small_scale(
    place: Path, stand_in: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(progan.studies.cifar10, "load_feature_network", lambda *what: asked.append(what))
    cifar10(Path("data"), Path("out"), weights=Path("weights.pth"))
    assert asked == [("inception", "cpu", Path("weights.pth"))]
    measure = stand_in[0].measure
    assert isinstance(measure, ScoreMeasure)
    assert [metric.name for metric in measure.chosen()] == ["is", "ms_ssim", "swd"]
    assert measure.weights == Path("weights.pth")


# What is refused.


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ({"data": "gray"}, DataError, "gray: holds 32x32 images with 1 channel; give one of 32x32 in colour"),
        ({"data": "large"}, DataError, "large: holds 64x64 images with 3 channels; give one of 32x32 in colour"),
        ({"data": "few"}, DataError, "few: holds 23 images, swd at --scale small needs 24; give a larger data set"),
        ({"data": "none"}, DataError, "none: no such folder"),
        ({"scale": "paper"}, DataError, "data: holds 40 images, swd at --scale paper needs 24,576"),
        ({"scale": "medium"}, ConfigError, "--scale: 'medium' is not known; use one of paper, small"),
        ({"seeds": 0}, ConfigError, "--seeds: 0 is not allowed; train 1 or more networks"),
        ({"device": "tpu"}, ConfigError, "device: 'tpu' is not on this machine"),
        ({"weights": "none.pth"}, ConfigError, "--inception-weights: none.pth is no file; get https"),
        ({"out": "data"}, RunError, "data: is not empty and holds no study; give --out a new folder"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_before_training(
    place: Path, make_data: Any, stand_in: list[Experiment], what: dict[str, Any], error: type, sentence: str
) -> None:
    make_data("gray", count=40, resolution=32, channels=1)
    make_data("large", count=40, resolution=64)
    make_data("few", count=23, resolution=32)
    given = {"data": "data", "out": "out", "scale": "small", "seeds": 1, "weights": None, "device": "cpu"} | what
    paths = {name: Path(given.pop(name)) for name in ("data", "out", "weights") if given[name] is not None}
    given.pop("weights", None)
    with pytest.raises(error, match="^" + sentence.replace("(", r"\(")) as told:
        cifar10(**paths, **given)
    assert "\n" not in str(told.value)
    assert not stand_in
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (ConfigError("inception: not installed"), "inception: not installed"),
        (
            PermissionError(13, "Permission denied"),
            "--inception-weights: w.pth cannot be read \\(Permission denied\\); mend",
        ),
    ],
)
def test_paper_scale_does_not_begin_without_its_network(
    place: Path, stand_in: list[Experiment], monkeypatch: pytest.MonkeyPatch, failure: Exception, sentence: str
) -> None:
    def load(*_: object) -> None:
        raise failure

    monkeypatch.setitem(SCALES, "paper", replace(SCALES["paper"], images=16))
    monkeypatch.setattr(progan.studies.cifar10, "load_feature_network", load)
    with pytest.raises(UserError, match=sentence):
        cifar10(Path("data"), Path("out"), "paper", weights=Path("w.pth"))
    assert not stand_in


# What is measured, and the table.


@pytest.mark.usefixtures("few_directions")
def test_a_run_is_measured_at_its_end_against_its_data(place: Path, make_config: Any) -> None:
    config = make_config(resolution=32)
    torch.manual_seed(0)
    g = Generator(config.g).eval()
    save_network(place / "generator.safetensors", g, nimg=24, resolution=32, alpha=1.0)
    measure = ScoreMeasure(Path("data"), "swd,ms_ssim", 16, None, "cpu")
    found = measure(RunFolder(place))
    data = progan.studies.cifar10.ImagePyramid.open("data")
    with torch.no_grad():
        images = g(latents(0, "measured fakes", 0, 16, g.config.z_dim), resolution=32)
    fakes = to_uint8(images).numpy()
    expected = Meter(choose("swd,ms_ssim", images=16), Reals(data, 32, False), torch.device("cpu"), True).measure(
        [fakes]
    )
    for told, wanted in zip(found["results"], expected, strict=True):
        assert told["values"] == pytest.approx(wanted.values, rel=1e-6)
        assert told.get("floor", told.get("reals")) == wanted.floor
    assert found["device"] == "cpu"
    assert json.loads(json.dumps(found)) == found


def test_the_table_of_one_network_at_paper_scale(
    place: Path, stand_in: list[Experiment], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SCALES, "paper", replace(SCALES["paper"], images=16))
    monkeypatch.setattr(progan.studies.cifar10, "load_feature_network", lambda *_: None)
    Cifar10(data=Path("data"), out=Path("out"), scale="paper").run()
    text = (place / "out" / "table.md").read_text()
    hash_ = progan.studies.cifar10.ImagePyramid.open("data").hash[:12]
    for line in (
        f"Data set: test, 40 images, {hash_}. Scale `paper`: 20,000 kimg,"
        " G 1,296,908 and D 1,298,689 parameters, on cpu.",
        "| metric | images | seed 0 | reals | paper, CIFAR-10 |",
        "| `is` | 50,000 | 8 ± 0.08 | 11.24 | 8.56 ± 0.06 (best 8.80) |",
        "| SWD x1e3 32 | 50,000 | 12.5 ± 0.12 | 2 |  |",
        "| training |  | 1 h 07 min |  |  |",
        "±, of one network: `is`: spread of is; SWD x1e3: spread of swd.",
    ):
        assert line in text.splitlines()
    assert "the networks here are measured once, at the end of training" in text
    told = capsys.readouterr().out
    assert told.startswith(text)
    assert "written to out/table.md, out/table.json, out/grid.png" in told


def test_a_folder_is_of_one_scale(place: Path, stand_in: list[Experiment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCALES, "paper", replace(TINY, images=17))
    cifar10(Path("data"), Path("out"))
    cifar10(Path("data"), Path("out"), seeds=2)
    with pytest.raises(RunError, match=r"out: holds another study \(scale was small and is now paper\)"):
        cifar10(Path("data"), Path("out"), "paper")
    facts = place / "out" / "study.json"
    facts.write_text(facts.read_text().replace("CIFAR-10", "mode recovery"))
    with pytest.raises(RunError, match=r"another study \(study was mode recovery and is now CIFAR-10\)"):
        cifar10(Path("data"), Path("out"))
    assert len(stand_in) == 3


def test_the_table_of_several_networks(place: Path, stand_in: list[Experiment]) -> None:
    text, _ = cifar10(Path("data"), Path("out"), seeds=3)
    assert "| metric | images | seed 0 | seed 1 | seed 2 | mean ± std | reals |" in text
    assert "| `is` | 50,000 | 8 ± 0.08 | 9 ± 0.09 | 10 ± 0.1 | 9 ± 1 | 11.24 |" in text
    assert "8.56" not in text
    table = json.loads((place / "out" / "table.json").read_text())
    score = table["rows"][0]
    assert (score["metric"], score["values"], score["mean"], score["std"]) == ("is", [8, 9, 10], 9, 1)
    assert (score["reals"], score["paper"], score["spread_is"]) == (11.24, None, "spread of is")
    assert [row["level"] for row in table["rows"]] == ["", "32", "average"]
    assert table["seconds"] == [4000.0] * 3
    assert table["data"]["source"] == "test"
    assert table["parameters"] == {"g": 1_296_908, "d": 1_298_689}


def test_a_seed_without_a_score_leaves_the_others_theirs(
    place: Path, stand_in: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = progan.studies.cifar10.run_experiments

    def diverged(experiments: Sequence[Experiment], place: Place) -> Outcome:
        outcome = run(experiments, place)
        (outcome.records[1] or {})["results"][0]["values"][""] = math.nan
        return outcome

    monkeypatch.setattr(progan.studies.cifar10, "run_experiments", diverged)
    text, _ = cifar10(Path("data"), Path("out"), seeds=3)
    assert "| `is` | 50,000 | 8 ± 0.08 | nan ± 0.09 | 10 ± 0.1 | nan | 11.24 |" in text


def test_the_table_of_what_is_there(
    place: Path, stand_in: list[Experiment], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = progan.studies.cifar10.run_experiments

    def some(experiments: Sequence[Experiment], place: Place) -> Outcome:
        records = [record if i in there else None for i, record in enumerate(run(experiments, place).records)]
        names = [one.name for one, record in zip(experiments, records, strict=True) if record is None]
        return Outcome(records, names, failure)

    monkeypatch.setattr(progan.studies.cifar10, "run_experiments", some)
    there: set[int] = set()
    failure: RunError | None = None
    Cifar10(data=Path("data"), out=Path("out"), seeds=3, place=Place(wait=False)).run()
    assert capsys.readouterr().out == "Not there yet: cifar10, seed 0; cifar10, seed 1; cifar10, seed 2.\n"
    assert not (place / "out" / "table.md").exists()
    there = {0, 2}
    text, written = cifar10(Path("data"), Path("out"), seeds=3)
    assert "| metric | images | seed 0 | seed 2 | mean ± std | reals |" in text
    assert "| `is` | 50,000 | 8 ± 0.08 | 10 ± 0.1 | 9 ± 1.4 | 11.24 |" in text
    assert text.endswith("Not there yet: cifar10, seed 1.\n")
    assert all(path.exists() for path in written)
    assert json.loads(written[1].read_text())["missing"] == ["cifar10, seed 1"]
    there, failure = {1}, RunError("cifar10, seed 0: diverged")
    with pytest.raises(RunError, match=r"seed 0: diverged"):
        cifar10(Path("data"), Path("out"), seeds=2)
    assert "of the runs that are there: out/table.md, out/table.json, out/grid.png" in capsys.readouterr().out
    assert "| metric | images | seed 1 | reals |" in (place / "out" / "table.md").read_text()


@pytest.mark.usefixtures("in_this_process", "few_directions")
def test_from_data_to_table(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCALES, "small", replace(TINY, metrics="ms_ssim"))
    first = cifar10(Path("data"), Path("out"), device="cpu")
    run = place / "out" / "seed0"
    assert {"fakes-000000024.png", "reals.png", "result.json"} <= {path.name for path in run.iterdir()}
    pictures = [Block("seed 0", "", run / "fakes-000000024.png"), Block("reals", "", run / "reals.png")]
    with Image.open(place / "out" / "grid.png") as grid:
        assert grid.tobytes() == side_by_side(pictures, 32).tobytes()
    row = json.loads((place / "out" / "table.json").read_text())["rows"][0]
    assert 0 <= row["values"][0] <= 1
    assert 0 <= row["reals"] <= 1
    generator = (run / "generator.safetensors").stat().st_mtime_ns
    assert cifar10(Path("data"), Path("out"), device="cpu") == first  # nothing is done twice, seconds stay
    assert (run / "generator.safetensors").stat().st_mtime_ns == generator
