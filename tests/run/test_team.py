"""Several processes that torchrun started do what one does: shares of minibatches, gradients, stops and continuations.

Where torchrun itself is not the point, the processes are quick ones, which find in their environment what it tells.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import progan.__main__
from progan.config import DiscriminatorConfig, GeneratorConfig, LossConfig, ScheduleConfig, TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.networks import Generator
from progan.run.minibatches import read_reals
from progan.run.state import TrainState, checkpoints
from progan.run.team import ALONE, Team, check_shares, join_team
from progan.schedule import Schedule
from progan.stddev import minibatch_stddev
from progan.step import train_step
from progan.support.errors import ConfigError
from progan.support.recording import Recordings
from progan.training import train
from tests.processes import quick_process

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def small(label_dim: int = 0, **fields: Any) -> TrainConfig:
    shape = {"resolution": 16, "fmap_base": 32, "fmap_max": 16, "label_dim": label_dim}
    config = TrainConfig(
        g=GeneratorConfig(**shape),
        d=DiscriminatorConfig(**shape),
        schedule=ScheduleConfig(stable_nimg=16, fade_nimg=48, total_nimg=96, batch={4: 16}),
        device="cpu",
        precision="fp32",
    )
    return replace(config, **fields)


LSGAN = LossConfig(kind="lsgan")
CASES = {
    "wgan-gp, mirrored": small(mirror=True),
    "labels": small(label_dim=3),
    "two steps of D": small(d_steps=2),
    "lsgan with its noise": small(loss=LSGAN),
    "no stddev": small(d=DiscriminatorConfig(resolution=16, fmap_base=32, fmap_max=16, stddev_group=0)),
    "micro-batches": small(micro_batch={4: 4}),
    "micro-batches, lsgan with its noise": small(loss=LSGAN, micro_batch={4: 0, 8: 5}),
    "pairs": small(d=DiscriminatorConfig(resolution=16, fmap_base=32, fmap_max=16, stddev_group=2)),
}


def one_step(config: TrainConfig, data: ImagePyramid, team: Team = ALONE) -> dict[str, Tensor]:
    """Terms, and the gradients that both optimizers saw, of a step in the middle of the fade to 8x8."""
    state = TrainState.create(config, torch.device("cpu"))
    state.nimg, state.d_output = 32, torch.tensor(0.9)
    phase = Schedule(config.schedule, 16).at(state.nimg)

    def reals(nimg: int) -> Any:
        return read_reals(data, config, phase, torch.device("cpu"), nimg, team)

    terms = train_step(state, reals, phase, team)
    found = {f"term {name}": value for name, value in terms.items()} | {"d_output": state.d_output}
    for name, network in (("g", state.g), ("d", state.d)):
        found |= {f"{name}.{key}": p.grad for key, p in network.named_parameters() if p.grad is not None}
    return found


def check_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """The same but for rounding, which a bias feels most, whose gradient is a small rest of large sums."""
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.allclose(found[key], value, rtol=1e-3, atol=1e-5 * float(value.abs().max())), key


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *command], capture_output=True, text=True, timeout=300)


def together(size: int, task: Callable[..., object], *what: object) -> list[tuple[int, str]]:
    """How each of so many processes ended that are at task(*what) as torchrun starts them, and what it said."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(size)]
        members = [quick_process(member, rank, size, store.port, log, task, *what) for rank, log in enumerate(logs)]
        for process in members:
            process.join(100)
        return [(process.exitcode, log.read_text()) for process, log in zip(members, logs, strict=True)]


def member(rank: int, size: int, port: int, log: Path, task: Callable[..., object], *what: object) -> None:
    """One of them."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "TORCHELASTIC_RUN_ID": "x"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    with log.open("w") as file:
        os.dup2(file.fileno(), 2)
    task(*what)


def command(words: list[str], most_bytes: int | None = None) -> None:
    """The console command; no file may have more bytes."""
    if most_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    sys.argv = ["progan", *words]
    progan.__main__.main()


def take_steps(path: Path, out: Path) -> None:
    """Of every case, written down."""
    data = ImagePyramid.open(path)
    with join_team(torch.device("cpu")) as team:
        assert team.size == 2
        assert team.largest(team.rank) == 1
        assert team.first(lambda: os.getpid()) == team.first(lambda: os.getpid())
        torch.save({name: one_step(config, data, team) for name, config in CASES.items()}, out / f"{team.rank}.pt")


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("batch", "group"), [(16, 4), (32, 4), (8, 2), (16, 1), (8, 0)])
def test_shares_are_disjoint_and_keep_stddev_groups_whole(size: int, batch: int, group: int) -> None:
    config = small(d=DiscriminatorConfig(resolution=16, stddev_group=group))
    shares = [Team(rank, size).rows(batch, config) for rank in range(size)]
    assert sorted(i for share in shares for i in share) == list(range(batch))
    images = torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = minibatch_stddev(images, group or 1)
    for share in shares:
        assert torch.allclose(minibatch_stddev(images[share], group or 1), whole[share], atol=1e-6)
    assert torch.equal(images[ALONE.rows(batch, config)], images)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> ImagePyramid:
    from tests.conftest import write_data

    return write_data(tmp_path_factory.mktemp("labelled") / "data", count=100, labels=3)


@pytest.fixture(scope="module")
def shared_steps(
    labelled: ImagePyramid, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Tensor]]]:
    """What each of two processes found in each case."""
    out = tmp_path_factory.mktemp("steps")
    assert together(2, take_steps, labelled.path, out) == [(0, "")] * 2
    parts = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return {name: [part[name] for part in parts] for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_the_gradients_of_one(
    name: str, shared_steps: dict[str, list[dict[str, Tensor]]], labelled: ImagePyramid
) -> None:
    ours, other = shared_steps[name]
    check_close(ours, one_step(replace(CASES[name], micro_batch={4: 0}), labelled))
    assert all(torch.equal(ours[key], other[key]) for key in other)  # the networks stay the same in both, to the bit


WHOLE_GROUP = DiscriminatorConfig(resolution=16, stddev_group=1_000_000)
KERNELS = DiscriminatorConfig(resolution=16, minibatch_kernels=10)
SOME_OF_14 = ScheduleConfig(batch={4: 14})
SOME_OF_12 = ScheduleConfig(total_nimg=3_000_000, batch={4: 16, 8: 12})


@pytest.mark.parametrize(
    ("size", "config", "message"),
    [
        (
            2,
            small(g=GeneratorConfig(resolution=16, norm="batch")),
            "g.norm: batch normalisation needs whole minibatches",
        ),
        (2, small(d=KERNELS), "d.minibatch_kernels: they need whole minibatches"),
        (
            2,
            small(schedule=SOME_OF_12),
            "12 at 8x8 cannot be cut into whole stddev groups of 4 for 2 processes; make it a",
        ),
        (
            2,
            small(d=WHOLE_GROUP),
            "batch: 16 at 4x4 cannot be cut into whole stddev groups of 16 for 2 processes; make",
        ),
        (1, small(d=KERNELS, micro_batch={4: 8}), "d.minibatch_kernels: they need whole minibatches"),
        (1, small(micro_batch={4: 0, 8: 3}), "micro_batch: 3 at 8x8 holds no stddev group of 4; use 4 or more, or set"),
        (
            1,
            small(d=WHOLE_GROUP, micro_batch={4: 8}),
            "micro_batch: 8 at 4x4 holds no stddev group of 16; use 16 or more",
        ),
        (
            1,
            small(schedule=SOME_OF_14, micro_batch={4: 8}),
            "14 at 4x4 cannot be cut into whole stddev groups of 4 for 1 p",
        ),
    ],
)
def test_minibatches_that_cannot_be_cut_are_refused(size: int, config: TrainConfig, message: str) -> None:
    check_shares(replace(config, micro_batch={4: 0}), 1)
    with pytest.raises(ConfigError) as caught:
        check_shares(config, size)
    assert message in str(caught.value)


@pytest.mark.parametrize("values", [{}, {8: 4}, {4: -1}, {4: 0, 48: 4}])
def test_a_micro_batch_is_given_for_all_resolutions(values: dict[int, int]) -> None:
    with pytest.raises(ConfigError, match="micro_batch"):
        small(micro_batch=values)


@pytest.mark.parametrize("at_once", [4, 7, 8, 15])
@pytest.mark.parametrize("name", ["wgan-gp, mirrored", "labels", "two steps of D", "lsgan with its noise", "pairs"])
def test_micro_batches_find_the_gradients_of_the_whole(name: str, at_once: int, labelled: ImagePyramid) -> None:
    whole = one_step(CASES[name], labelled)
    parts = one_step(replace(CASES[name], micro_batch={4: 0, 8: at_once}), labelled)
    check_close(parts, whole)


def test_no_more_images_than_allowed_are_computed_at_once(
    labelled: ImagePyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = Generator.forward

    def count(self: Generator, z: Tensor, *args: Any, **how: Any) -> Tensor:
        seen.append(len(z))
        return forward(self, z, *args, **how)

    monkeypatch.setattr(Generator, "forward", count)
    monkeypatch.setattr(Recordings, "run", lambda self, stage, key, function, inputs, lasting: function(inputs))
    one_step(small(micro_batch={4: 0, 8: 9}), labelled)
    assert seen == [8, 8, 8, 8]
    seen.clear()
    one_step(small(micro_batch={4: 4, 16: 2}), labelled)
    assert seen == [4] * 8


def test_a_run_goes_on_with_smaller_micro_batches(data: ImagePyramid, tmp_path: Path) -> None:
    config = small(schedule=ScheduleConfig(stable_nimg=16, fade_nimg=48, total_nimg=32, batch={4: 16}))
    train(config, data, tmp_path / "run")
    longer = replace(config, micro_batch={4: 4}, schedule=replace(config.schedule, total_nimg=64))
    assert train(longer, data, tmp_path / "run").nimg == 64


def test_alone_without_torchrun() -> None:
    with join_team(torch.device("cpu")) as team:
        assert team is ALONE
        assert team.largest(7) == 7
        assert team.first(lambda: "made") == "made"


# ---------------------------------------------------------------------------------------------------------------------


FLAGS = shlex.split(
    "--resolution 16 --g.fmap-base 32 --d.fmap-base 32 --g.fmap-max 16 --d.fmap-max 16 --stable-kimg 0.1"
    " --fade-kimg 0.1 --total-kimg 0.8 --batch 16 --tick-nimg 16 --snapshot-nimg 400 --checkpoint-kimg 10 --precision"
    " fp32 --device cpu"
)
TRAIN = ["train", *FLAGS]


def wait_for_lock(folder: Path) -> None:
    """Until no process is at work in a run's folder."""
    fcntl = pytest.importorskip("fcntl", reason="this system locks nothing")
    deadline = time.monotonic() + 60
    with (folder / ".lock").open("w") as lock:
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline, "a process is left behind"
                time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_shared_run_that_was_stopped_ends_in_the_same_bits(data: ImagePyramid, tmp_path: Path) -> None:
    """However it was stopped. SIGKILL is for torchrun alone: what it started saves and ends by itself."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train, reached = [*TRAIN, "--data", str(data.path), "--out"], 0
    for number, lines in ((signal.SIGTERM, 5), (signal.SIGHUP, 15), (signal.SIGKILL, 25)):
        process = subprocess.Popen([*TORCHRUN, "--module", "progan", *train, str(stopped)], stderr=subprocess.DEVNULL)
        while not (stopped / "stats.jsonl").exists() or (stopped / "stats.jsonl").read_text().count("\n") < lines:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(100) != 0
        wait_for_lock(stopped)
        saved = int(checkpoints(stopped / "checkpoints")[-1].stem.removeprefix("checkpoint-"))
        assert reached < saved < 800
        reached = saved
    for out in (straight, stopped):
        (code, said), other = together(2, command, [*train, str(out)])
        assert code == 0, said
        assert said.count("done: ") == 1
        assert other == (0, "")  # the first process speaks for both
    for file in ("stats.jsonl", "generator.safetensors", "fakes-000000800.png"):
        assert (stopped / file).read_bytes() == (straight / file).read_bytes(), file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "flags", "sentence"),
    [
        (2, ["--lr", "1e9"], "training diverged"),  # late: the others are in their next step
        (2, ["--metrics", "nonsense"], "nonsense not known"),
        (3, ["--batch", "8"], "8 at 4x4 cannot be cut into whole stddev groups of 4 for 3 processes"),
        (2, ["--checkpoint-kimg", "0.1"], "checkpoint-000000112.pt: cannot be written (File too large)"),  # a full disk
    ],
)
def test_when_the_first_process_refuses_the_others_end_without_a_word(
    data: ImagePyramid, tmp_path: Path, processes: int, flags: list[str], sentence: str
) -> None:
    pytest.importorskip("resource", reason="this system limits no file sizes")
    words = [*TRAIN, "--data", str(data.path), "--out", str(tmp_path / "run"), *flags]
    (code, said), *others = together(processes, command, words, 100_000)  # of which a checkpoint has more
    assert code == 2
    assert said.count(sentence) == 1, said
    assert "Traceback" not in said
    assert others == [(2, "")] * (processes - 1)


def test_a_process_that_torchrun_left_alone_asks_to_stop() -> None:
    assert ALONE.left_alone() == Team(torchrun=os.getppid()).left_alone() == 0
    assert Team(torchrun=os.getpid()).left_alone() == signal.SIGTERM


def test_no_process_waits_a_day_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for name, does in {"get_rank": lambda: 0, "get_world_size": lambda: 2, "barrier": lambda: None}.items():
        monkeypatch.setattr(dist, name, does)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "init_process_group", lambda *words, **how: asked.update(how))
    with join_team(torch.device("cpu")) as team:
        assert team.size == 2
    assert asked["timeout"] <= timedelta(hours=3)


@pytest.mark.slow
def test_a_refused_run_ends_at_once_with_one_sentence(data: ImagePyramid, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    start = time.monotonic()
    done = torchrun("--module", "progan", *TRAIN, "--data", str(data.path), "--out", str(tmp_path / "full"))
    assert done.returncode != 0
    assert time.monotonic() - start < 60
    of_progan, _, of_torchrun = done.stderr.partition("Traceback")
    assert of_progan.count("is not empty and holds no run") == 1, done.stderr
    assert 'File "' not in of_progan
    assert of_torchrun.count("exitcode  : 2 ") == 2, done.stderr
