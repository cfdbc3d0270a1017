"""`progan ablate`, at a scale of seconds (section 6.1)."""

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

import pytest

import progan.__main__
import progan.metrics.suite
from progan.cli import main
from progan.metrics.sliced_wasserstein import SwdProtocol
from progan.studies.ablation.rows import ROWS, SCALES, chosen_rows
from progan.studies.ablation.study import Study
from progan.studies.ablation.time_to_quality import time_to_quality
from progan.support.device import processor
from progan.support.run_files import RunFolder
from tests.conftest import write_data
from tests.processes import quick_pools, quick_process
from tests.studies.ablation.conftest import TINY


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
    text, written = time_to_quality(study, ROWS)
    assert "with growing" in text
    points = json.loads((study.out / "time-to-quality.json").read_text())["curves"]["grown"]
    assert [point["nimg"] for point in points] == [64, 120, 184, 240]
    assert [point["resolution"] for point in points] == [8, 16, 16, 16]
    assert points[0]["seconds"] < points[-1]["seconds"]
    moved = tmp_path / "moved"  # its small files are enough to go on
    for path in (study.out / "study.json", *study.out.glob("rows/*/co*.json"), *study.out.glob("rows/*/curve.json")):
        to = moved / path.relative_to(study.out)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    time_to_quality(replace(study, out=moved), ROWS)
    one, other = (json.loads((out / "time-to-quality.json").read_text()) for out in (study.out, moved))
    assert one["rates"] == other["rates"]
    assert not [*moved.glob("rows/*/stats.jsonl")]  # none was trained again


def test_the_report_names_the_machine_that_trained(
    tiny: None, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(faces, tmp_path / "study")
    text, _ = study.table(chosen_rows("c"), ROWS)
    assert f"{processor()}, device cpu, numbers in" in text
    machines = RunFolder(study.out / "rows" / "c-seed0").machines
    machines.write_text(json.dumps({"nimg": 0, "device": "cuda", "processor": "16 cores", "gpu": "NVIDIA H200"}) + "\n")
    text, _ = study.table(chosen_rows("c"), ROWS)
    assert ", NVIDIA H200, device cuda, numbers in" in text


def test_the_report_is_of_what_is_there(
    tiny: None, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    argv = ["ablate", "--data", str(faces), "--out", str(out), "--seeds", "2", "--rows", "c"]
    assert main([*argv, "--no-wait"]) == 0
    assert capsys.readouterr().out == "Not there yet: c, seed 0; c, seed 1.\n"
    assert [path.name for path in out.iterdir()] == ["study.json"]
    taken = out / "rows" / "c-seed1"
    taken.mkdir(parents=True)
    (taken / "else").write_text("")
    assert main([*argv, "--jobs", "1"]) == 2
    told = capsys.readouterr()
    assert told.out.startswith(f"of the runs that are there: {out}/table.md")
    assert told.err.endswith(f"progan: c, seed 1: {taken}: is not empty and holds no run; give --out a new folder\n")
    table = (out / "table.md").read_text()
    assert "Seeds: 1." in table
    assert ", not there yet: c seed 1" in table
    assert main([*argv, "--no-wait", "--figure", "time-to-quality"]) == 0
    assert "Not there yet: g, seed 0; g-ungrown, seed 0." in capsys.readouterr().out


COMMAND = "import sys, progan.studies.ablation.rows as rows, tests.studies.ablation.test_study as test;" \
    "rows.SCALES['small'] = test.TINY; from progan.__main__ import main; main()"  # fmt: skip
ROOT = Path(__file__).parents[3]


def words(faces: Path, out: Path, rows: str, jobs: int) -> list[str]:
    return ["ablate", "--data", str(faces), "--out", str(out), "--rows", rows, "--jobs", str(jobs)]


def study_process(words: list[str]) -> None:
    """progan ablate at the tiny scale in this process, a quick one; its workers are forks of it."""
    with pytest.MonkeyPatch.context() as patch:
        quick_pools(patch)
        patch.setitem(SCALES, "small", TINY)
        patch.setattr(progan.metrics.suite, "SWD", SwdProtocol(directions=16))
        patch.setattr(sys, "argv", ["progan", *words])
        progan.__main__.main()


@pytest.mark.slow
def test_a_study_that_is_killed_and_run_again_ends_the_same(tiny: None, faces: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(words(faces, whole, "b,e*", 1)) == 0
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
        process = quick_process(study_process, words(faces, killed, "b,e*", 2))
        while process.is_alive() and not reached():
            time.sleep(0.002)
        os.kill(process.pid, number)
        process.join()
        stopped.append(process.exitcode)
        while any_worker(killed):  # the orphans of a killed parent end by themselves
            time.sleep(0.05)
    assert stopped[:3] == [-signal.SIGKILL, -signal.SIGKILL, 128 + signal.SIGTERM]
    assert main(words(faces, killed, "b,e*", 1)) == 0
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
    argv = [sys.executable, "-c", COMMAND, *words(faces, out, "c,e*,g", 1)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, cwd=ROOT)
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
