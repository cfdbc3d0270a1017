"""Table 1 as data, and the command that makes it real (section 6.1)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from progan.cli import main
from progan.config import GeneratorConfig, TrainConfig
from progan.layers import LayerNorm
from progan.networks import Discriminator, Generator, parameter_count
from progan.studies.ablation.rows import ROWS, SCALES, TABLE_1, Row, Scale, chosen_rows, read_rows, row_config
from progan.studies.ablation.study import Study
from progan.support.config_io import flat_fields
from progan.support.errors import ConfigError
from tests.conftest import write_data

BY_NAME = {row.name: row for row in ROWS}


def config_of(name: str, scale: str) -> TrainConfig:
    return row_config(BY_NAME[name], scale)


def networks(config: TrainConfig) -> tuple[Generator, Discriminator]:
    with torch.device("meta"):
        return Generator(config.g), Discriminator(config.d)


# ---------------------------------------------------------------------------------------------------------------------
# The rows

# What a row changes of its base, at the paper's scale (REFERENCE: the Theano configuration of table 1).
CHANGES: dict[str, dict[str, Any]] = {
    "b": {"schedule.growing": True},
    "c": {"schedule.batch": {4: 16}, "ema_decay": 0.999},
    "d": {
        "d_steps": 1,
        "beta2": 0.99,
        "loss.drift": 0.001,
        "g.latent_dim": None,
        "g.normalize_latent": True,
        "g.norm": "none",
        "g.activation": "leaky",
        "g.output": "linear",
        "d.norm": "none",
    },
    "e*": {"d.minibatch_kernels": 100},
    "e": {"d.stddev_group": 1_000_000},
    "f": {"g.equalized": True, "d.equalized": True, "schedule.g_lr": {4: 0.001}, "schedule.d_lr": {4: 0.001}},
    "g": {"g.norm": "pixel"},
    "h": {"g.fmap_base": 8192, "d.fmap_base": 8192, "schedule.total_nimg": 19_000_000},
    "g-ungrown": {"schedule.growing": False},
    "g-lsgan": {"loss.kind": "lsgan"},
    "g-lsgan-ungrown": {"schedule.growing": False},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_row_changes_its_own_thing_of_its_base(name: str) -> None:
    row = BY_NAME[name]
    assert row.base is not None
    old, new = (dict(flat_fields(config_of(one, "paper"))) for one in (row.base, name))
    assert {field: value for field, value in new.items() if value != old[field]} == CHANGES[name]


def test_the_first_row_is_gulrajanis_baseline() -> None:
    a = config_of("a", "paper")
    assert (a.d_steps, a.beta1, a.beta2, a.schedule.batch, a.schedule.g_lr) == (5, 0.0, 0.9, {4: 64}, {4: 1e-4})
    assert (a.g.latent_dim, a.g.normalize_latent, a.g.activation, a.g.norm, a.g.output) == (
        128,
        False,
        "relu",
        "batch",
        "tanh",
    )
    assert (a.d.norm, a.d.stddev_group, a.d.minibatch_kernels, a.d.fused_scaling) == ("layer", 0, 0, False)
    assert (a.g.equalized, a.d.equalized, a.schedule.growing) == (False, False, False)
    assert (a.loss.drift, a.loss.gp_weight, a.loss.kind) == (0.0, 10.0, "wgan-gp")
    assert a.ema_decay**5 == pytest.approx(0.999**20)  # per step of G, of which there is one in five
    assert (a.g.resolution, a.g.fmap_base, a.schedule.stable_nimg, a.schedule.fade_nimg, a.schedule.total_nimg) == (
        128,
        2048,
        800_000,
        800_000,
        10_000_000,
    )


def test_the_table_has_the_papers_nine_rows_in_its_order() -> None:
    assert [row.name for row in ROWS][:9] == list(TABLE_1)
    assert {row.name: row.base for row in ROWS if row.name in TABLE_1} == {
        "a": None, "b": "a", "c": "b", "d": "c", "e*": "d", "e": "d", "f": "e", "g": "f", "h": "g",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(BY_NAME))
def test_the_small_scale_changes_sizes_alone(name: str) -> None:
    sizes = {"g.latent_dim", "d.minibatch_kernels", "ema_decay"}
    sizes |= {f"{network}.{field}" for network in "gd" for field in ("resolution", "fmap_base", "fmap_max")}
    sizes |= {f"schedule.{field}" for field in ("stable_nimg", "fade_nimg", "total_nimg", "batch", "g_lr", "d_lr")}
    sizes |= {"d.fused_scaling", "loss.gp_norm_at", "snapshot_nimg", "checkpoint_nimg"}
    paper, small = (dict(flat_fields(config_of(name, scale))) for scale in ("paper", "small"))
    assert {field for field in paper if paper[field] != small[field]} <= sizes
    for rates in ("schedule.g_lr", "schedule.d_lr"):  # row f raises it tenfold at both
        assert small[rates][4] / paper[rates][4] == pytest.approx(6)


# ---------------------------------------------------------------------------------------------------------------------
# Their networks


def wanted_parameters(config: TrainConfig) -> tuple[int, int]:
    """By hand from the paper's table 2 and the fields of the row."""
    g, d = config.g, config.d

    def maps(resolution: int) -> int:
        return min(g.fmap_base // (resolution // 2), g.fmap_max)

    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2

    latent = min(g.fmap_base, g.fmap_max) if g.latent_dim is None else g.latent_dim
    after = 2 if g.norm == "batch" else 1  # per map: scale and bias, or the bias alone
    of_g = conv(latent, maps(4) * 16, 1) + conv(maps(4), maps(4), 3) + 2 * after * maps(4)
    last = min(d.fmap_base, d.fmap_max)
    extra = (d.stddev_group > 0) + d.minibatch_kernels
    gain = d.norm == "layer"  # one number per layer
    of_d = conv(maps(4) + extra, maps(4), 3) + maps(4) + gain
    of_d += conv(maps(4) * 16, last, 1) + last + gain + last + 1
    of_d += maps(4) * 16 * d.minibatch_kernels * d.minibatch_dims
    for resolution in (2**i for i in range(2, g.resolution.bit_length())):
        of_g += 3 * maps(resolution) + 3
        of_d += 3 * maps(resolution) + maps(resolution)
        if resolution > 4:
            below = maps(resolution // 2)
            of_g += conv(below, maps(resolution), 3) + conv(maps(resolution), maps(resolution), 3)
            of_g += 2 * after * maps(resolution)
            of_d += conv(maps(resolution), maps(resolution), 3) + maps(resolution) + gain
            of_d += conv(maps(resolution), below, 3) + below + gain
    return of_g, of_d


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", list(BY_NAME))
def test_parameter_counts_follow_from_the_row(name: str, scale: str) -> None:
    config = config_of(name, scale)
    assert tuple(map(parameter_count, networks(config))) == wanted_parameters(config)


def test_row_g_at_the_papers_scale_has_the_official_counts() -> None:
    # Official TensorFlow code, fmap_base 2048, 128x128.
    assert tuple(map(parameter_count, networks(config_of("g", "paper")))) == (13_629_810, 13_636_897)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_norms_are_in_rows_a_to_c_and_nowhere_else(name: str) -> None:
    g, d = networks(config_of(name, "paper"))
    batch = sum(isinstance(module, nn.BatchNorm2d) for module in g.modules())
    layer = sum(isinstance(module, LayerNorm) for module in d.modules())
    assert (batch, layer) == ((12, 12) if name in "abc" else (0, 0))
    assert not any(isinstance(module, LayerNorm) for module in g.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in d.modules())


# ---------------------------------------------------------------------------------------------------------------------
# Choosing rows, and rows of one's own


def test_rows_are_chosen_by_name() -> None:
    assert [row.name for row in chosen_rows("g, e*,g")] == ["g", "e*"]
    assert len(chosen_rows("all")) == len(ROWS)


@pytest.mark.parametrize(("names", "said"), [("a,z", "z not known; use some of a, b,"), (" ,", "none not known")])
def test_an_unknown_row_is_named(names: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--rows: {said}")):
        chosen_rows(names)


def test_a_row_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    row = {"name": "no-drift", "base": "g", "title": "g, no drift", "overrides": {"loss.drift": 0.0}}
    path.write_text(json.dumps([row]))
    (own,) = read_rows(path)
    assert row_config(own, "small", [*ROWS, own]) == replace(
        config_of("g", "small"), loss=replace(config_of("g", "small").loss, drift=0.0)
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("x", "y", ""), "row x: its base 'y' is missing; use one of a, b,"),
        (Row("x", "x", ""), "row x: its bases lead back to 'x'"),
        (Row("x", "g", "", {"g.colour": 1}), "row x: there is no field 'g.colour'"),
        (Row("x", "g", "", {"colour": 1}), "row x: there is no field 'colour'"),
        (Row("x", "g", "", {"g.norm.type": 1}), "row x: there is no field 'g.norm.type'"),
        (Row("x", "g", "", {"g.norm": "layer"}), "row x: norm: 'layer' is not allowed"),
        (Row("x", "g", "", {"d_steps": "two"}), "row x.d_steps: 'two' is not of type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_cannot_be_is_named(row: Row, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        row_config(row, "small", [*ROWS, row])


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"name": "x"}]', '[{"name": "a", "base": "g", "title": "", "overrides": {}}]']
)
def test_a_file_of_anything_else_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    if text == "{}":
        assert read_rows(path) == []
        return
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_rows(path)


# ---------------------------------------------------------------------------------------------------------------------
# The command, at a scale of seconds

TINY = Scale(
    replace(
        SCALES["small"].config,
        g=GeneratorConfig(resolution=16, fmap_base=32, fmap_max=8),
        d=replace(SCALES["small"].config.d, resolution=16, fmap_base=32, fmap_max=8),
        schedule=replace(SCALES["small"].config.schedule, stable_nimg=40, fade_nimg=40, total_nimg=240),
        tick_nimg=32,
        snapshot_nimg=60,
        checkpoint_nimg=40,
    ),
    images=32,
    curve_images=32,
)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return write_data(tmp_path / "faces", count=48).path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, few_directions: None) -> None:
    monkeypatch.setitem(SCALES, "small", TINY)


def without_times(table: str) -> str:
    """table.md without its minutes and the command, which may name another folder."""
    return re.sub(r"\| [\d.e-]+ \|$", "|", table, flags=re.MULTILINE).split("Scale small")[0]


def test_a_study_makes_a_table_pictures_and_curves(tiny: None, faces: Path, tmp_path: Path) -> None:
    study = Study(faces, tmp_path / "study", held_out=write_data(tmp_path / "others", count=48, seed=1).path)
    text, written = study.table(chosen_rows("c,g-lsgan"), ROWS)
    assert {path.name for path in written} >= {"table.md", "table.json", "grid.png"}
    assert all(path.stat().st_size for path in written)
    for line in ("| c | + small minibatch |", "| g-lsgan | g with LSGAN |", "| reals |"):
        assert line in text
    results = [study.out / "rows" / name / "result.json" for name in ("c-seed0", "g-lsgan-seed0")]
    before = [path.stat().st_mtime_ns for path in results]
    text, _ = study.table(chosen_rows("e*"), ROWS)  # rows of before are in the table, and not done again
    assert [line.split(" | ")[0] for line in text.splitlines()[2:6]] == ["| c", "| e*", "| g-lsgan", "| reals"]
    assert [path.stat().st_mtime_ns for path in results] == before
    text, written = study.time_to_quality(ROWS)
    assert "with growing" in text
    points = json.loads((study.out / "time-to-quality.json").read_text())["curves"]["grown"]
    assert [point["nimg"] for point in points] == [64, 120, 184, 240]
    assert [point["resolution"] for point in points] == [8, 16, 16, 16]
    assert points[0]["seconds"] < points[-1]["seconds"]


def command(faces: Path, out: Path, rows: str) -> list[str]:
    """progan ablate at the tiny scale, in a process of its own."""
    code = (
        "import sys, progan.studies.ablation.rows as rows, tests.studies.ablation.test_study as test;"
        "rows.SCALES['small'] = test.TINY; from progan.__main__ import main; main()"
    )
    options = ["--data", str(faces), "--out", str(out), "--rows", rows, "--jobs", "2"]
    return [sys.executable, "-c", code, "ablate", *options]


def finish(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_study_that_is_killed_and_run_again_ends_the_same(faces: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(command(faces, whole, "b,e*"))
    rows = killed / "rows"
    moments: list[tuple[int, Callable[[], bool]]] = [
        (signal.SIGKILL, (rows / "b-seed0/config.json").exists),
        (signal.SIGKILL, (rows / "e-star-seed0/snapshots/generator-000000064.safetensors").exists),
        (signal.SIGTERM, lambda: len([*rows.glob("*/snapshots/*")]) > 4),
        (signal.SIGINT, lambda: any(rows.glob("*/generator.safetensors"))),
        (signal.SIGKILL, lambda: any(rows.glob("*/result.json"))),
    ]
    stopped = []
    for number, reached in moments:
        process = subprocess.Popen(
            command(faces, killed, "b,e*"), stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3]
        )
        while process.poll() is None and not reached():
            time.sleep(0.002)
        os.kill(process.pid, number)
        stopped.append(process.wait())
        while any_worker(killed):  # the orphans of a killed parent end by themselves
            time.sleep(0.05)
    assert stopped[:3] == [-signal.SIGKILL, -signal.SIGKILL, 128 + signal.SIGTERM]
    finish(command(faces, killed, "b,e*"))
    assert (whole / "grid.png").read_bytes() == (killed / "grid.png").read_bytes()
    one, other = (without_times((out / "table.md").read_text()) for out in (whole, killed))
    assert one == other
    assert "| e* |" in one
    tables = [json.loads((out / "table.json").read_text()) for out in (whole, killed)]
    values, others = ({name: row["values"] for name, row in table["rows"].items()} for table in tables)
    assert values == others


@pytest.mark.slow
def test_a_study_that_is_stopped_begins_no_other_run(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    argv = [*command(faces, out, "c,e*,g"), "--jobs", "1"]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3])
    while process.poll() is None and not any(path.stat().st_size for path in out.glob("rows/*/stats.jsonl")):
        time.sleep(0.002)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    (begun,) = (out / "rows").iterdir()
    assert "and saved; the same command continues" in (begun / "log.txt").read_text()


def any_worker(out: Path) -> bool:
    """Whether a process still holds a run of the study."""
    import fcntl

    for lock in out.glob("rows/*/.lock"):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False


def test_a_users_mistake_gets_one_sentence(
    tiny: None, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, out, rows = (
        write_data(tmp_path / "small", resolution=8, count=48).path,
        tmp_path / "out",
        tmp_path / "r.json",
    )
    rows.write_text(json.dumps([{"name": "x", "base": "y", "title": "", "overrides": {}}]))
    gray = write_data(tmp_path / "gray", channels=1, count=48).path
    few = write_data(tmp_path / "few", count=20).path
    for argv, said in (
        (["--data", faces, "--rows", "a,q"], "--rows: q not known; use some of a, b, c, d, e*, e, f, g, h,"),
        (["--data", faces, "--rows", "x", "--more-rows", rows], "row x: its base 'y' is missing"),
        (["--data", small], f"{small}: goes up to 8x8 and the scale small needs 16x16; make a larger data set"),
        (["--data", faces, "--held-out", gray], f"{gray}: has 1 channels and"),
        (["--data", few], f"{few}: holds 20 images, swd needs 48"),
        (["--data", faces, "--seeds", 0], "--seeds: 0 is not allowed"),
        (["--data", tmp_path / "nothing"], f"{tmp_path / 'nothing'}: "),
        (["--data", faces, "--more-rows", tmp_path], f"{tmp_path}: cannot be read"),
    ):
        assert main(["ablate", "--out", str(out), *map(str, argv)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"progan: {said}"), error
        assert error.count("\n") == 1
        assert not out.exists()


def test_a_folder_of_another_scale_is_refused(
    tiny: None, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    Study(faces, out).check(chosen_rows("a"), ROWS)
    monkeypatch.setitem(SCALES, "paper", TINY)
    assert main(["ablate", "--data", str(faces), "--out", str(out), "--scale", "paper"]) == 2
    assert "holds another study (scale was small and is now paper); give --out a new folder" in capsys.readouterr().err
