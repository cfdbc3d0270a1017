"""A run that was stopped, however it was stopped, ends in the very bits of one that was not."""

import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import progan.__main__
import progan.cli
import progan.images
import progan.run.log
import progan.run.metrics_log
import progan.run.minibatches
import progan.run.state
import progan.support.files
import progan.weights
from progan.data.store.pyramid import ImagePyramid
from progan.run.minibatches import Minibatches
from progan.run.state import checkpoints
from tests.processes import quick_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has neither forks nor these signals"),
]

# 4x4 to 24, fade to 48, 8x8 to 72, fade to 96, 16x16 to 150 images; nothing divides anything.
FLAGS = shlex.split(
    "--resolution 16 --g.fmap-base 32 --d.fmap-base 32 --g.fmap-max 16 --d.fmap-max 16 --stable-kimg 0.024"
    " --fade-kimg 0.024 --total-kimg 0.15 --batch 4:4,16:3 --tick-nimg 10 --snapshot-nimg 36 --checkpoint-kimg 0.014"
    " --precision fp32 --device cpu --mirror"
)


# ---------------------------------------------------------------------------------------------------------------------
# The other process


def run_job(job: dict[str, Any]) -> None:
    """Train as the command line does, with an accident on the way; never returns."""
    code = 1
    try:
        with open(job["log"], "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        torch.set_num_threads(1)
        progan.run.metrics_log.plot_metrics = lambda folder: None  # a second each
        if "write" in job:
            die_writing(job["write"], job["when"])
        if "nimg" in job:
            happen_at(job["nimg"], job)
        if "console" in job:
            sys.argv = ["progan", "train", *job["flags"]]
            progan.__main__.main()
        code = progan.cli.main(["train", *job["flags"]])
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_writing(name: str, when: str) -> None:
    """SIGKILL half-way through writing the file of this name, or right after."""
    original = progan.support.files.write_whole

    def write_whole(path: Path, write: Callable[[Any], Any]) -> None:
        def half(file: Any) -> None:
            buffer = io.BytesIO()
            write(buffer)
            file.write(buffer.getvalue()[: buffer.tell() // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        original(path, half if path.name == name and when == "half" else write)
        if path.name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    for module in (progan.support.files, progan.images, progan.run.log, progan.run.state, progan.weights):
        module.write_whole = write_whole  # type: ignore[attr-defined]


def happen_at(nimg: int, job: dict[str, Any]) -> None:
    """A signal, data that is cut, or a full disk, as the reals at nimg are read."""
    original, read = Minibatches.at, progan.run.minibatches._read

    def at(self: Minibatches, phase: Any, now: int) -> Any:
        if now == nimg and "signal" in job:
            os.kill(os.getpid(), job["signal"])
        elif now == nimg and "file_bytes" in job:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_bytes"], job["file_bytes"]))
        return original(self, phase, now)

    def cut_and_read(*args: Any) -> Any:
        if args[3] == nimg and "cut" in job:
            os.truncate(job["cut"], 0)
        return read(*args)

    Minibatches.at = at  # type: ignore[method-assign]
    progan.run.minibatches._read = cut_and_read


# ---------------------------------------------------------------------------------------------------------------------
# This side


@dataclass
class Outcome:
    code: int
    text: str
    seconds: float


class Runner:
    """Trains in `folder` / name, in processes of their own."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data

    def flags(self, name: str, *more: str, data: Path | None = None) -> list[str]:
        return [*FLAGS, "--data", str(data or self.data), "--out", str(self.folder / name), *more]

    def start(self, name: str, *more: str, data: Path | None = None, log: Path | None = None, **accident: Any) -> Any:
        """The process, just started; what it says is in `log`, or name.log."""
        job = {"flags": self.flags(name, *more, data=data), "log": str(log or self.folder / f"{name}.log")}
        return quick_process(run_job, job | accident)

    def __call__(self, name: str, *more: str, kill_after: float | None = None, **how: Any) -> Outcome:
        start = time.perf_counter()
        process = self.start(name, *more, **how)
        process.join(kill_after)
        process.kill()
        process.join()
        seconds = time.perf_counter() - start
        log = self.folder / f"{name}.log"
        return Outcome(process.exitcode, log.read_text() if log.exists() else "", seconds)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, data: ImagePyramid) -> Runner:
    return Runner(tmp_path_factory.mktemp("runs"), data.path)


@pytest.fixture(scope="module")
def straight(runner: Runner) -> tuple[Path, float]:
    """The run that nothing stopped, and the seconds it took."""
    outcome = runner("straight")
    assert outcome.code == 0, outcome.text
    return runner.folder / "straight", outcome.seconds


def equal(a: Any, b: Any, where: str = "") -> None:
    """Assert equality to the bit, through dictionaries and lists."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds", "config"}:
            equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            equal(x, y, f"{where}/{i}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def check_state(folder: Path, wanted: Path) -> None:
    """The same weights, average, moments and position."""
    ours, theirs = (torch.load(checkpoints(f / "checkpoints")[-1], weights_only=True) for f in (folder, wanted))
    equal(ours, theirs)


def check_same(folder: Path, wanted: Path) -> None:
    """The same state, the same bytes in every file that says what was computed."""
    check_state(folder, wanted)
    for pattern in ("stats.jsonl", "generator.safetensors", "*.png", "snapshots/*", "checkpoints/*", "config.json"):
        ours, theirs = ({p.name for p in f.glob(pattern) if p.name[0] != "."} for f in (folder, wanted))
        assert ours == theirs
        assert theirs
    for pattern in ("stats.jsonl", "generator.safetensors", "*.png", "snapshots/*.safetensors", "config.json"):
        for path in wanted.glob(pattern):
            assert (folder / path.relative_to(wanted)).read_bytes() == path.read_bytes(), path.name


def finish(runner: Runner, name: str, straight: tuple[Path, float], *more: str) -> None:
    outcome = runner(name, *more)
    assert outcome.code == 0, outcome.text
    assert "done: " in outcome.text
    check_same(runner.folder / name, straight[0])


def console(runner: Runner, name: str, **how: Any) -> subprocess.Popen[str]:
    """The console command, training in a process of its own."""
    command = [sys.executable, "-m", "progan", "train", *runner.flags(name)]
    return subprocess.Popen(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **how)


def wait_for(ended: Callable[[], bool], file: Path) -> None:
    """Until there is something in the file, or the process has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ended() and not (file.exists() and file.read_bytes()):
        time.sleep(0.01)


def nimg_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("checkpoint-"))


# ---------------------------------------------------------------------------------------------------------------------


def test_the_same_run_twice_is_the_same(runner: Runner, straight: tuple[Path, float]) -> None:
    finish(runner, "twice", straight)
    lines = [json.loads(line) for line in (straight[0] / "stats.jsonl").read_text().splitlines()]
    assert {line["resolution"] for line in lines} == {4, 8, 16}
    assert any(0 < line["alpha"] < 1 for line in lines)
    assert len(list(straight[0].glob("fakes-*.png"))) == 6


def test_a_run_killed_five_times_at_random(runner: Runner, straight: tuple[Path, float]) -> None:
    lives = random.Random(2018)
    codes = [runner("killed", kill_after=straight[1] * lives.uniform(0.05, 0.3)).code for _ in range(5)]
    assert codes.count(-signal.SIGKILL) >= 2, codes  # so few only if the machine quickened
    assert set(codes) <= {-signal.SIGKILL, 0}
    finish(runner, "killed", straight)


@pytest.mark.parametrize("when", ["half", "after"])
def test_a_run_killed_in_one_write_after_another(runner: Runner, straight: tuple[Path, float], when: str) -> None:
    for name in (
        "config.json",
        "fakes-000000036.png",
        "generator-000000072.safetensors",
        "checkpoint-000000084.pt",
        "generator.safetensors",
    ):
        assert runner(when, write=name, when=when).code == -signal.SIGKILL, name
        left = [path for path in (runner.folder / when).rglob(name) if path.is_file()]
        assert len(left) == (when == "after"), name  # no part of it under its own name
    finish(runner, when, straight)


@pytest.mark.parametrize("when", ["half", "after"])
@pytest.mark.parametrize("name", ["reals.png", "fakes-000000000.png"])
def test_a_run_killed_between_its_first_pictures_has_both(runner: Runner, name: str, when: str) -> None:
    folder = runner.folder / f"{when} {name}"
    assert runner(folder.name, write=name, when=when).code == -signal.SIGKILL
    assert runner(folder.name, nimg=0, signal=signal.SIGKILL).code == -signal.SIGKILL
    assert {path.name for path in folder.glob("*.png")} == {"reals.png", "fakes-000000000.png"}


def test_a_run_killed_in_mid_fade_while_it_wrote_a_line(runner: Runner, straight: tuple[Path, float]) -> None:
    assert runner("fade", nimg=36, signal=signal.SIGKILL).code == -signal.SIGKILL
    with (runner.folder / "fade" / "stats.jsonl").open("a") as stats:
        stats.write('{"nimg": 40, "resol')
    finish(runner, "fade", straight)


def test_a_killed_run_measures_as_often_as_one_that_never_stopped(runner: Runner, make_data: Any) -> None:
    measured = ("--metrics", "ms_ssim", "--metrics-every-kimg", "0.02", "--metrics-images", "16")
    data = make_data(count=20).path
    assert runner("measured", *measured, data=data).code == 0
    others = '{"nimg": 60, "metric": "ms_ssim", "source": "run/snapshots/generator-000000060.safetensors"}\n'
    metrics = runner.folder / "measured and killed" / "metrics.jsonl"
    for nimg in (40, 68, 81):  # measured at 40, 60 and 81, saved at 28, 56 and 72
        assert (
            runner("measured and killed", *measured, data=data, nimg=nimg, signal=signal.SIGKILL).code
            == -signal.SIGKILL
        )
        with metrics.open("a") as file:
            file.write(others)  # as `progan evaluate` does
    assert runner("measured and killed", *measured, data=data).code == 0
    whole, parts = (
        [(row["nimg"], row["values"]) for row in map(json.loads, path.read_text().splitlines()) if "values" in row]
        for path in (runner.folder / "measured" / "metrics.jsonl", metrics)
    )
    assert parts == whole
    assert len(whole) == 8
    assert metrics.read_text().count(others) == 3


def test_a_run_asked_to_stop_saves_at_once(runner: Runner, straight: tuple[Path, float]) -> None:
    for number, code, nimg, saved in (
        (signal.SIGTERM, 143, 40, 44),
        (signal.SIGHUP, 129, 60, 64),
        (signal.SIGINT, 130, 90, 93),
    ):
        outcome = runner("asked", "--checkpoint-kimg", "0.05", nimg=nimg, signal=number)
        assert outcome.code == code, outcome.text
        assert "and saved; the same command continues" in outcome.text
        assert "Traceback" not in outcome.text
        assert nimg_of(checkpoints(runner.folder / "asked" / "checkpoints")[-1]) == saved
    # Checkpoints at odd positions and in another cadence leave no trace in what is computed.
    assert runner("asked", "--checkpoint-kimg", "0.05").code == 0
    check_state(runner.folder / "asked", straight[0])
    for name in ("stats.jsonl", "generator.safetensors", "fakes-000000144.png"):
        assert (runner.folder / "asked" / name).read_bytes() == (straight[0] / name).read_bytes()


def test_the_console_command_stops_at_a_signal_from_outside(runner: Runner, straight: tuple[Path, float]) -> None:
    process = console(runner, "console", stderr=subprocess.PIPE)
    wait_for(lambda: process.poll() is not None, runner.folder / "console" / "stats.jsonl")
    process.terminate()
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "and saved; the same command continues" in text
    finish(runner, "console", straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_and_a_third_signal_end_a_run_without_a_traceback(
    runner: Runner, straight: tuple[Path, float], number: int
) -> None:
    name = f"impatient-{number}"
    process = runner.start(name, console=True)
    wait_for(lambda: not process.is_alive(), runner.folder / name / "stats.jsonl")
    for _ in range(3):
        if process.is_alive():
            os.kill(process.pid, number)
        time.sleep(0.001)
    process.join(60)
    text = (runner.folder / f"{name}.log").read_text()
    assert process.exitcode in (130, 128 + number), text  # a second signal interrupts
    assert "Traceback" not in text
    finish(runner, name, straight)


def test_a_run_goes_on_when_the_reader_of_its_output_goes(runner: Runner, straight: tuple[Path, float]) -> None:
    process = console(runner, "unread", stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("starting at 0.0 of 0.15 kimg")
    process.stderr.close()
    assert process.wait(60) == 0
    check_same(runner.folder / "unread", straight[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
def test_a_run_goes_on_when_its_output_is_on_a_full_disk(runner: Runner, straight: tuple[Path, float]) -> None:
    process = runner.start("full", console=True, log=Path("/dev/full"))
    process.join(60)
    assert process.exitcode == 0
    check_same(runner.folder / "full", straight[0])


def test_a_data_set_that_is_cut_under_a_run_ends_it_with_a_sentence(
    runner: Runner, straight: tuple[Path, float], tmp_path: Path
) -> None:
    shutil.copytree(runner.data, tmp_path / "data")
    file = tmp_path / "data" / "images-8x8.npy"
    outcome = runner("cut", data=file.parent, nimg=40, cut=str(file))
    assert outcome.code == 2, outcome.text
    assert "images-8x8.npy: was changed while it was in use" in outcome.text
    assert "Traceback" not in outcome.text
    assert nimg_of(checkpoints(runner.folder / "cut" / "checkpoints")[-1]) == 40
    assert runner("cut").code == 0
    check_state(runner.folder / "cut", straight[0])


def test_a_full_disk_ends_a_run_with_a_sentence_and_loses_nothing(runner: Runner, straight: tuple[Path, float]) -> None:
    outcome = runner("checkpoint too large", nimg=40, file_bytes=100_000)
    assert outcome.code == 2, outcome.text
    (sentence,) = [line for line in outcome.text.splitlines() if line.startswith("progan: ")]
    assert "cannot be written (File too large); free some space" in sentence
    assert "Traceback" not in outcome.text
    finish(runner, "checkpoint too large", straight)


def test_a_disk_too_full_for_a_line_ends_a_run_with_a_sentence(runner: Runner, straight: tuple[Path, float]) -> None:
    rarely = ("--checkpoint-kimg", "1", "--snapshot-nimg", "1000")  # so that the lines come first
    outcome = runner("line too long", *rarely, nimg=40, file_bytes=1500)
    assert outcome.code == 2, outcome.text
    assert "File too large" in outcome.text
    assert "Traceback" not in outcome.text
    finish(runner, "line too long", straight)


def test_a_shorter_run_can_be_lengthened(runner: Runner, straight: tuple[Path, float]) -> None:
    assert runner("longer", "--total-kimg", "0.1").code == 0  # ten lines of 10
    assert nimg_of(checkpoints(runner.folder / "longer" / "checkpoints")[-1]) == 102
    assert runner("longer").code == 0
    check_state(runner.folder / "longer", straight[0])
    assert (runner.folder / "longer" / "stats.jsonl").read_bytes() == (straight[0] / "stats.jsonl").read_bytes()


@pytest.fixture
def finished(runner: Runner, straight: tuple[Path, float], tmp_path: Path) -> Path:
    """A finished run to do things to."""
    name = f"finished-{tmp_path.name}"
    shutil.copytree(straight[0], runner.folder / name)
    return runner.folder / name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_stays_as_it_is(runner: Runner, straight: tuple[Path, float], finished: Path) -> None:
    finish(runner, finished.name, straight)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--seed", "1"], "seed was 0 and is now 1"),
        (["--lr", "0.003"], "schedule.g_lr was"),
        (["--d.stddev-group", "8"], "d.stddev_group was 4 and is now 8"),
        (["--tick-nimg", "20"], "tick_nimg was 10 and is now 20"),
        (["--precision", "bf16"], "precision was fp32 and is now bf16"),
    ],
)
def test_another_config_is_refused_by_the_names_of_its_fields(
    runner: Runner, finished: Path, flags: list[str], named: str
) -> None:
    before = contents(finished)
    outcome = runner(finished.name, *flags)
    assert outcome.code == 2
    assert outcome.text.count("\n") == 1
    assert named in outcome.text
    assert contents(finished) == before


def test_another_data_set_is_refused(runner: Runner, finished: Path, make_data: Any) -> None:
    before = contents(finished)
    outcome = runner(finished.name, data=make_data(seed=1).path)
    assert outcome.code == 2
    assert "data was" in outcome.text
    assert contents(finished) == before


def test_the_same_data_set_elsewhere_is_accepted(runner: Runner, finished: Path, make_data: Any) -> None:
    assert runner(finished.name, data=make_data().path).code == 0


def test_two_processes_cannot_train_in_one_folder(runner: Runner, finished: Path) -> None:
    import fcntl

    with (finished / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = contents(finished)
        outcome = runner(finished.name)
    assert outcome.code == 2
    assert "another progan train is at work here" in outcome.text
    assert contents(finished) == before


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_continues(
    runner: Runner, straight: tuple[Path, float], finished: Path
) -> None:
    newest = checkpoints(finished / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    outcome = runner(finished.name)
    assert outcome.code == 2
    assert newest.name in outcome.text
    assert "delete it to continue from the one before" in outcome.text
    newest.unlink()
    assert runner(finished.name).code == 0
    check_state(finished, straight[0])


def test_what_a_killed_run_left_half_written_is_cleared_away(runner: Runner, finished: Path) -> None:
    left = finished / "checkpoints" / ".checkpoint-000000150.pt.abcdefgh.partial"
    left.write_bytes(b"half a checkpoint")
    assert runner(finished.name).code == 0
    assert not left.exists()
