"""Mode recovery: counting, the paper's numbers, what is refused, and a whole tiny study."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import progan.studies.modes.classifier
import progan.studies.modes.study
from progan.commands.modes import Modes
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.networks import Generator
from progan.presets import WHOLE_BATCH
from progan.studies.experiment import Experiment, Record
from progan.studies.modes.classifier import MODE_NAMES, Recipe, classifier_for
from progan.studies.modes.report import NOISE, modes_picture
from progan.studies.modes.study import (
    BY_NAME,
    CLASSIFIER,
    SCALES,
    VARIANTS,
    ModeRecovery,
    count_modes,
    mode_config,
    recover_modes,
)
from progan.studies.place import HERE, Place
from progan.studies.rows import Scale
from progan.studies.runner import Outcome
from progan.support.config_io import flat_fields
from progan.support.errors import ConfigError, DataError, RunError, UserError
from progan.support.run_files import RunFolder
from progan.weights import save_network

SMALL = SCALES["small"].config
TINY = Scale(
    replace(
        SMALL,
        schedule=replace(SMALL.schedule, stable_nimg=4, fade_nimg=4, total_nimg=24, batch={4: 4}),
        ema_decay=0.9,
        snapshot_nimg=12,
        checkpoint_nimg=12,
    ),
    images=60,
)
QUICK = Recipe(images=10_000, steps=25, batch=32, lr=5e-3)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> ImagePyramid:
    """200 images of three fake digits: digit d is a bright bar on noise, in column 3 d + 1; only to be read."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("modes") / "data"
    with PyramidWriter(path, resolution=32, channels=3, label_names=MODE_NAMES, source={"kind": "test"}) as writer:
        for digits in rng.integers(0, 10, (200, 3)):
            pixels = rng.integers(0, 90, (3, 32, 32), dtype=np.uint8)
            for image, digit in zip(pixels, digits, strict=True):
                image[4:28, 3 * digit + 1 : 3 * digit + 4] += 150
            writer.append(box_pyramid(pixels), int(digits @ [100, 10, 1]))
    return ImagePyramid.open(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where "small" is tiny and the classifier trained for a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SCALES, "small", TINY)
    monkeypatch.setattr(progan.studies.modes.classifier, "Recipe", lambda: QUICK)
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """In place of training: notes the experiments; finds 900 + 10 seed modes, once each, 200 fewer without stddev."""
    seen: list[Experiment] = []

    def run(experiments: Sequence[Experiment], place: Place = HERE) -> Outcome:
        seen.extend(experiments)
        for i, one in enumerate(experiments):
            one.folder.mkdir(exist_ok=True)
            for nimg, colour in ((0, (9, 9, 9)), (24, (200, 20 * i, 0))):
                Image.new("RGB", (256, 256), colour).save(one.folder / f"fakes-{nimg:09}.png")
        found = [900 + 10 * one.config.seed - 200 * (one.config.d.stddev_group == 0) for one in experiments]
        records: list[Record | None] = [
            {
                "name": experiment.name,
                "seconds": 90.0,
                "nimg": 24,
                "parameters": {"g": 40_000, "d": 3000 // experiment.config.d.fmap_max},
                "modes": modes,
                "kl": modes / 1000,
                "counts": [1] * modes + [0] * (1000 - modes),
            }
            for experiment, modes in zip(experiments, found, strict=True)
        ]
        return Outcome(records, [])

    monkeypatch.setattr(progan.studies.modes.study, "run_experiments", run)
    return seen


# Counting.


def test_counting_is_the_plain_loop() -> None:
    digits = np.random.default_rng(0).integers(0, 7, (300, 3))
    tally: dict[str, int] = {}
    for red, green, blue in digits.tolist():
        tally[f"{red}{green}{blue}"] = tally.get(f"{red}{green}{blue}", 0) + 1
    kl = 0.0
    for count in tally.values():
        kl += count / 300 * math.log(count / 300 / (1 / 1000))
    found, divergence, counts = count_modes(digits)
    assert found == len(tally)
    assert divergence == pytest.approx(kl, rel=1e-12)
    assert {name: count for name, count in zip(MODE_NAMES, counts.tolist(), strict=True) if count} == tally


def test_even_images_have_no_divergence_and_one_mode_has_all() -> None:
    every = np.array([[int(digit) for digit in name] for name in MODE_NAMES])
    assert count_modes(np.tile(every, (3, 1)))[:2] == (1000, pytest.approx(0.0, abs=1e-12))
    assert count_modes(np.tile(every[[271]], (9, 1)))[:2] == (1, pytest.approx(math.log(1000)))


def test_the_noise_of_a_draw_is_as_told() -> None:
    digits = np.random.default_rng(0).integers(0, 10, (25_600, 3))
    found, kl, _ = count_modes(digits)
    assert found == 1000
    assert kl == pytest.approx(NOISE / 25_600, rel=0.1)  # its deviation is 4.5%


def test_a_generators_images_are_read_digit_by_digit(
    stacks: ImagePyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = classifier_for(stacks, tmp_path / CLASSIFIER, QUICK)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    save_network(folder.generator, Generator(mode_config("progressive", 4, "small").g))
    asked = []

    def reals(g: Generator, labels: None, count: int, *, seed: int) -> list[np.ndarray]:
        asked.append((g.config.fmap_max, labels, count, seed))
        return [stacks.read(np.arange(start, start + 50), 32) for start in range(0, 200, 50)]

    monkeypatch.setattr(progan.studies.modes.study, "fakes_of", reals)
    record = ModeRecovery(classifier.hash, 200, 7, "cpu")(folder)
    labels = np.bincount(stacks.read_labels(np.arange(200)).argmax(1), minlength=1000)
    assert asked == [(64, None, 200, 7)]
    assert np.abs(np.array(record["counts"]) - labels).sum() < 20  # the classifier errs a little
    assert record["modes"] == sum(count > 0 for count in record["counts"])
    assert json.loads(json.dumps(record)) == record


def test_modes_are_generated_where_they_are_told_to(
    stacks: ImagePyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    save_network(folder.generator, Generator(mode_config("progressive", 2, "small").g), nimg=0)
    classifier = classifier_for(stacks, tmp_path / CLASSIFIER, QUICK)
    asked = []

    def reals(g: Generator, *_: object, **__: object) -> list[np.ndarray]:
        asked.append(next(g.parameters()).device.type)
        return [stacks.read(np.arange(4), 32)]

    monkeypatch.setattr(progan.studies.modes.study, "fakes_of", reals)
    monkeypatch.setattr(progan.studies.modes.study, "pick_device", torch.device)
    ModeRecovery(classifier.hash, 4, 0, "meta")(folder)
    assert asked == ["meta"]


# What is trained.


def test_the_paper_scale_is_the_papers() -> None:
    for variant in VARIANTS:
        config = mode_config(variant.name, 2, "paper")
        schedule = config.schedule
        assert (schedule.stable_nimg, schedule.fade_nimg, schedule.total_nimg) == (400_000, 400_000, 10_000_000)
        assert (schedule.batch, schedule.g_lr, schedule.d_lr) == ({4: 64}, {4: 1e-3}, {4: 1e-3})
        assert (config.d_steps, config.beta1, config.beta2, config.loss.drift) == (5, 0.0, 0.99, 0.0)
        assert (config.loss.kind, config.loss.gp_weight, config.loss.gp_target) == ("wgan-gp", 10.0, 1.0)
        assert (config.g.channels, config.g.label_dim, config.g.z_dim) == (3, 0, 64)
        assert (config.g.normalize_latent, config.g.output, config.d.norm, config.mirror) == (
            True,
            "tanh",
            "none",
            False,
        )
        assert SCALES["paper"].images == 25_600


def test_each_variant_adds_one_thing_to_the_one_before() -> None:
    added = {
        "normalization": {"g.norm": "pixel", "g.equalized": True, "d.equalized": True},
        "minibatch-stddev": {"d.stddev_group": WHOLE_BATCH},
        "progressive": {"schedule.growing": True},
    }
    for before, variant in pairwise(VARIANTS):
        old, new = (dict(flat_fields(mode_config(one.name, 4, "paper"))) for one in (before, variant))
        assert {name: value for name, value in new.items() if value != old[name]} == added[variant.name]
    plain = mode_config("wgan-gp", 4, "paper")
    assert (plain.g.norm, plain.g.equalized, plain.d.equalized) == ("batch", False, False)
    assert (plain.d.stddev_group, plain.schedule.growing) == (0, False)


@pytest.mark.parametrize("divisor", [1, 2, 4])
def test_d_is_narrower_by_its_divisor(divisor: int) -> None:
    config = mode_config("progressive", divisor, "paper")
    for resolution in (4, 8, 16, 32):
        assert config.d.fmaps_at(resolution) == config.g.fmaps_at(resolution) // divisor


@pytest.mark.parametrize("name", BY_NAME)
def test_the_small_scale_has_the_same_networks(name: str) -> None:
    small, paper = mode_config(name, 4, "small"), mode_config(name, 4, "paper")
    assert (small.g, small.d, small.loss, small.beta2) == (paper.g, paper.d, paper.loss, paper.beta2)
    assert small.schedule.growing == paper.schedule.growing
    assert small.schedule.total_nimg < paper.schedule.total_nimg / 50
    assert (small.d_steps, small.precision) == (1, "fp32")
    rate = {4: 1e-3 if name == "wgan-gp" else 6e-3}  # it alone is not equalized
    assert (small.schedule.g_lr, small.schedule.d_lr) == (rate, rate)


# The study.


def test_a_run_for_each_variant_divisor_and_seed(
    place: Path, stacks: ImagePyramid, stand_in: list[Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    command = Modes(stacks.path, Path("out"), "small", variants="progressive, wgan-gp", seeds=2, device="cpu")
    command.run()
    assert [str(one.folder) for one in stand_in] == [
        f"out/{name}-d{k}-seed{seed}" for k in (2, 4) for name in ("progressive", "wgan-gp") for seed in (0, 1)
    ]
    kept = progan.studies.modes.classifier.read_classifier(Path("out") / CLASSIFIER)
    for one in stand_in:
        name, d, seed = one.folder.name.rsplit("-", 2)
        k = int(d[1:])
        assert replace(one.config, seed=0, device="auto") == mode_config(name, k, "small")
        assert (one.config.device, one.data) == ("cpu", stacks.path)
        assert one.measure == ModeRecovery(kept.hash, 60, int(seed.removeprefix("seed")))
    table = json.loads(Path("out/table.json").read_text())
    row = table["rows"][0]
    assert (row["variant"], row["divisor"]) == ("progressive", 2)
    assert row["modes"] == {"mean": 905.0, "std": pytest.approx(math.sqrt(50)), "seeds": [900, 910]}
    assert row["kl"]["mean"] == pytest.approx(0.905)
    assert row["seconds"]["mean"] == 90
    assert table["classifier"]["accuracy"] == kept.accuracy > 0.9
    text = Path("out/table.md").read_text()
    assert "| 1/2 | + progressive | 905.0 ± 7.1 | 0.905 ± 0.007 | 2 min | 40,000, 93 |" in text
    assert "| 1/4 | wgan-gp | 705.0 ± 7.1 |" in text
    out = capsys.readouterr().out
    assert f"{kept.accuracy:.2%} of {kept.held_out} held-out digits right" in out
    assert text.splitlines()[0] in out


def test_the_table_of_what_is_there(
    place: Path,
    stacks: ImagePyramid,
    stand_in: list[Experiment],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = progan.studies.modes.study.run_experiments

    def some(experiments: Sequence[Experiment], place: Place) -> Outcome:
        records = [record if i in there else None for i, record in enumerate(run(experiments, place).records)]
        return Outcome(records, [one.name for one, it in zip(experiments, records, strict=True) if it is None])

    monkeypatch.setattr(progan.studies.modes.study, "run_experiments", some)
    there: set[int] = set()
    command = Modes(stacks.path, Path("out"), variants="wgan-gp,progressive", divisors="4", seeds=2)
    command.run()
    assert "Not there yet: wgan-gp, D/4, seed 0; wgan-gp, D/4, seed 1; progressive, D/4, seed 0;" in (
        capsys.readouterr().out
    )
    assert not Path("out/table.md").exists()
    there = {3}
    command.run()
    text = Path("out/table.md").read_text()
    assert "| 1/4 | + progressive | 910 | 0.910 |" in text
    assert "| 1/4 | wgan-gp" not in text
    assert "Not there yet: wgan-gp, D/4, seed 0; wgan-gp, D/4, seed 1; progressive, D/4, seed 0." in text
    with Image.open("out/grid.png") as grid:
        across = [grid.getpixel((x, grid.height - 40)) for x in range(grid.width)]
    assert (200, 60, 0) in across  # of the fourth run


def test_reals_are_the_ceiling(place: Path, stacks: ImagePyramid, stand_in: list[Experiment]) -> None:
    table = recover_modes(stacks.path, Path("out"), divisors=(4,))
    reals = table["reals"]
    assert reals["images"] == 60  # as many as are generated
    assert 50 < reals["modes"] <= 60
    assert reals["kl"] == pytest.approx(math.log(1000 / 60), abs=0.2)  # few modes are drawn twice
    assert table["data"] == {"images": 200, "hash": stacks.hash}
    assert "counts" not in json.dumps(table)
    assert "| | 60 reals |" in Path("out/table.md").read_text()


def test_a_smaller_data_set_is_counted_whole(
    place: Path, stacks: ImagePyramid, stand_in: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCALES, "small", replace(TINY, images=500))
    assert recover_modes(stacks.path, Path("out"), divisors=(4,))["reals"]["images"] == 200


def test_one_seed_has_no_deviation(place: Path, stacks: ImagePyramid, stand_in: list[Experiment]) -> None:
    table = recover_modes(stacks.path, Path("out"), variants=("wgan-gp",), divisors=(2, 2))
    assert len(stand_in) == 1
    assert table["rows"][0]["modes"]["std"] is None
    assert "| 1/2 | wgan-gp | 700 | 0.700 |" in Path("out/table.md").read_text()


def test_the_grid_shows_the_newest_images_of_each_first_seed(
    place: Path, stacks: ImagePyramid, stand_in: list[Experiment]
) -> None:
    recover_modes(stacks.path, Path("out"), variants=("wgan-gp", "progressive"), divisors=(2, 4), seeds=2)
    with Image.open("out/grid.png") as grid:
        across = [grid.getpixel((x, grid.height - 40)) for x in range(grid.width)]
    found = [colour for colour in dict.fromkeys(across) if colour != (255, 255, 255)]
    assert found == [(200, 20 * run, 0) for run in (0, 2, 4, 6)] + [(0xDD, 0xDD, 0xDD)]  # none of the data


def test_the_picture_shows_every_mode(place: Path) -> None:
    counts = np.full(1000, 10)
    counts[[0, 345]] = 0, 40
    counts[999] = 1
    picture = np.asarray(modes_picture({"reals": [1] * 1000, "run": counts.tolist()}))

    def pixel(run: int, mode: int) -> list[int]:
        red, green, blue = (int(digit) for digit in MODE_NAMES[mode])
        size, height = 6, picture.shape[0] // 2
        top = height * run + height - 12 * size  # below the title
        return picture[top + (green + 1) * size + 3, (12 * red + blue + 1) * size + 3].tolist()

    assert pixel(0, 0) == pixel(0, 999) == [155] * 3
    assert pixel(1, 0) == [200, 0, 0]
    assert pixel(1, 345) == [255] * 3
    assert pixel(1, 543)[0] in (153, 154, 155)
    assert 55 < pixel(1, 999)[0] < 70


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ({"data": "none"}, DataError, "none: no such folder"),
        ({"data": "gray"}, DataError, "gray: holds 32x32 images with 1 channel and 10 labels, not 32x32 images with 3"),
        ({"variants": "wgan-gp,b"}, ConfigError, "--variants: 'b' is not allowed; use some of wgan-gp, normalization"),
        ({"variants": " , "}, ConfigError, "--variants, --divisors, --seeds: nothing to train"),
        ({"divisors": "2,3"}, ConfigError, "--divisors: 3 is not allowed; use some of 1, 2, 4"),
        ({"divisors": "2,x"}, ConfigError, "--divisors: '2,x' is not a list of numbers such as 2,4"),
        ({"seeds": 0}, ConfigError, "--variants, --divisors, --seeds: nothing to train"),
        ({"scale": "medium"}, ConfigError, "--scale: 'medium' is not allowed; use some of paper, small"),
        ({"device": "tpu"}, ConfigError, "device: 'tpu' is not on this machine"),
        ({"out": "full"}, RunError, "full: is not empty and holds no study; give --out a new folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    place: Path,
    stacks: ImagePyramid,
    make_data: Any,
    stand_in: list[Experiment],
    what: dict[str, Any],
    error: type[UserError],
    sentence: str,
) -> None:
    make_data("gray", resolution=32, channels=1, labels=10)
    Path("full").mkdir()
    Path("full/letter.txt").write_text("mine")
    given: dict[str, Any] = {"data": stacks.path, "out": Path("out")} | what
    with pytest.raises(error) as caught:
        Modes(**{name: Path(value) if name in ("data", "out") else value for name, value in given.items()}).run()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not stand_in
    assert not Path("out").exists()


def test_a_folder_holds_one_scale_and_data_set(place: Path, stacks: ImagePyramid, stand_in: list[Experiment]) -> None:
    recover_modes(stacks.path, Path("out"), divisors=(4,))
    recover_modes(stacks.path, Path("out"), divisors=(2, 4), seeds=2)  # more of the same study
    with pytest.raises(RunError, match="scale was small and is now paper"):
        recover_modes(stacks.path, Path("out"), "paper")


@pytest.mark.usefixtures("in_this_process")
def test_a_whole_study_trains_measures_and_is_not_done_twice(place: Path, stacks: ImagePyramid) -> None:
    def study() -> dict[str, Any]:
        variants = ("wgan-gp", "progressive")
        return recover_modes(
            stacks.path, Path("out"), variants=variants, divisors=(4,), place=Place(jobs=1), device="cpu"
        )

    table = study()
    assert [row["variant"] for row in table["rows"]] == ["wgan-gp", "progressive"]
    for row in table["rows"]:
        assert 1 <= row["modes"]["mean"] <= 60
        assert 0 < row["kl"]["mean"] <= math.log(1000) + 1e-9
        assert row["parameters"]["d"] < row["parameters"]["g"] / 4
        run = Path("out") / f"{row['variant']}-d4-seed0"
        counts = json.loads((run / "result.json").read_text())["record"]["counts"]
        assert (sum(counts), len(counts)) == (60, 1000)
        assert list(run.glob("fakes-*.png"))
    with Image.open("out/modes.png") as picture:
        assert picture.width == 720
    files = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/result.json")}
    assert len(files) == 2
    assert study() == table
    assert {path: path.stat().st_mtime_ns for path in files} == files
