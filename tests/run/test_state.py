"""What a run has learned: the moving average, the optimizers' reset, and checkpoints that are whole or refused."""

import io
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from progan.config import GeneratorConfig, TrainConfig
from progan.networks import Generator
from progan.run.state import TrainState, checkpoints
from progan.schedule import Phase, Schedule
from progan.step import train_step
from progan.support.errors import RunError, UserError
from progan.weights import load_network, save_network
from tests.attack.damage import bounded

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

CPU = torch.device("cpu")


def reals_at(phase: Phase, nimg: int) -> tuple[Tensor, None]:
    generator = torch.Generator().manual_seed(nimg)
    return torch.rand(phase.batch, 3, phase.resolution, phase.resolution, generator=generator) * 2 - 1, None


def step(state: TrainState) -> None:
    phase = Schedule(state.config.schedule, state.config.g.resolution).at(state.nimg)
    train_step(state, partial(reals_at, phase), phase)


@pytest.fixture
def config(make_config: Any) -> TrainConfig:
    return make_config()


@pytest.fixture
def trained(config: TrainConfig) -> TrainState:
    """A state in mid-fade, with moments in both optimizers and sums in the tick."""
    state = TrainState.create(config, CPU)
    for _ in range(6):
        step(state)
    state.sums, state.steps, state.seconds = {"wasserstein": torch.tensor(1.25)}, 3, 4.5
    return state


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, through dictionaries and lists."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def content(state: TrainState) -> dict[str, Any]:
    parts = ("g", "d", "g_ema", "g_optimizer", "d_optimizer")
    facts = {"nimg": state.nimg, "sums": state.sums, "steps": state.steps, "seconds": state.seconds}
    return {name: getattr(state, name).state_dict() for name in parts} | facts


# ---------------------------------------------------------------------------------------------------------------------
# Start, moving average, optimizers


def test_initial_weights_are_a_function_of_the_seed(make_config: Any) -> None:
    one, two, other = (TrainState.create(make_config(seed=seed), CPU) for seed in (1, 1, 2))
    assert same(content(one), content(two))
    assert not same(one.g.state_dict(), other.g.state_dict())
    assert not same(one.d.state_dict(), other.d.state_dict())


def test_the_average_starts_as_a_copy_of_g_and_is_no_part_of_it(config: TrainConfig) -> None:
    state = TrainState.create(config, CPU)
    assert same(state.g_ema.state_dict(), state.g.state_dict())
    assert not {p.data_ptr() for p in state.g.parameters()} & {p.data_ptr() for p in state.g_ema.parameters()}
    assert not any(p.requires_grad for p in state.g_ema.parameters())


def test_the_average_follows_every_layer_from_the_start(make_config: Any) -> None:
    state = TrainState.create(make_config(ema_decay=0.75), CPU)
    before = deepcopy(state.g_ema.state_dict())
    with torch.no_grad():
        for parameter in state.g.parameters():
            parameter.add_(1.0)
    state.update_ema(4)
    state.update_ema(4)
    for name, weight in state.g.state_dict().items():  # those of resolutions to come, too
        wanted = 0.75**2 * before[name] + (1 - 0.75**2) * weight
        assert torch.allclose(state.g_ema.state_dict()[name], wanted, atol=1e-6), name


@pytest.mark.parametrize(
    ("nimg", "decay"),
    [(0, 0.25), (8, 0.5), (92, 0.5 ** (8 / 50)), (100, 0.25), (108, 0.5), (200, 0.5 ** (8 / 54)), (300, 0.25),
     (396, 0.5 ** (8 / 52)), (10_000, 0.99)],
)  # fmt: skip
def test_the_average_of_a_new_block_is_short(make_config: Any, nimg: int, decay: float) -> None:
    config = make_config(schedule={"stable_nimg": 100, "fade_nimg": 100}, ema_decay=0.99, ema_rampup=0.5)
    state = TrainState.create(config, CPU)  # 16x16: its blocks enter at 100 and 300
    state.nimg = nimg
    assert state.ema_decay(8) == pytest.approx(decay)


@pytest.mark.parametrize(("nimg", "decay"), [(0, 0.25), (92, 0.5 ** (8 / 50)), (292, 0.5 ** (8 / 150))])
def test_without_growing_the_average_is_short_at_the_start_alone(make_config: Any, nimg: int, decay: float) -> None:
    schedule = {"growing": False, "stable_nimg": 100, "fade_nimg": 100}
    state = TrainState.create(make_config(schedule=schedule, ema_decay=0.99, ema_rampup=0.5), CPU)
    state.nimg = nimg
    assert state.ema_decay(8) == pytest.approx(decay)


def test_growing_never_restarts_the_average(config: TrainConfig) -> None:
    state = TrainState.create(config, CPU)
    slow = deepcopy(state.g_ema.state_dict())
    while state.nimg < 80:  # 4x4, a fade, 8x8, a fade, 16x16
        weights = deepcopy(state.g.state_dict())
        step(state)
        slow = {name: 0.999 * slow[name] + 0.001 * weights[name] for name in slow}
    assert all(torch.allclose(value, slow[name], atol=1e-5) for name, value in state.g_ema.state_dict().items())


def test_optimizers_reset_at_the_borders_of_phases_and_only_there(make_config: Any) -> None:
    config = make_config(schedule={"stable_nimg": 16, "fade_nimg": 12, "total_nimg": 88})
    state = TrainState.create(config, CPU)
    resets = []
    while state.nimg < 88:
        step(state)
        steps = steps_of(state.g_optimizer)
        assert steps == steps_of(state.d_optimizer)
        if not steps:
            resets.append(state.nimg)
            assert not any(value.any() for kept in state.g_optimizer.state.values() for value in kept.values())
        else:
            assert steps == {(state.nimg - (resets[-1] if resets else 0)) / 4}  # moments of this phase, and all of them
    assert resets == [16, 28, 44, 56]


@pytest.mark.parametrize(("whose", "forgets"), [("both", {"g", "d"}), ("g", {"g"}), ("d", {"d"}), ("none", set())])
def test_whose_optimizer_is_reset(make_config: Any, whose: str, forgets: set[str]) -> None:
    config = make_config(schedule={"stable_nimg": 8, "fade_nimg": 8, "total_nimg": 40}, optimizer_reset=whose)
    state = TrainState.create(config, CPU)
    step(state)
    step(state)
    assert state.nimg == 8
    assert {name for name in ("g", "d") if not steps_of(getattr(state, f"{name}_optimizer"))} == forgets


def test_moments_may_have_been_saved_in_any_order_of_memory(trained: TrainState, tmp_path: Path) -> None:
    """Older runs' lay as they were made, not as their weights do, and the fused Adam walks through both."""
    saved = trained.save(tmp_path)
    for optimizer in (trained.g_optimizer, trained.d_optimizer):
        for kept in optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                kept[name] = kept[name].contiguous()
    older = trained.save(tmp_path / "older")
    ended = []
    for path in (saved, older):
        state = TrainState.create(trained.config, CPU)
        state.load(path)
        step(state)
        ended.append(content(state))
    assert same(*ended)


def steps_of(optimizer: torch.optim.Optimizer) -> set[float]:
    """How many steps its moments are of, each weight's that are of any."""
    return {float(kept["step"]) for kept in optimizer.state.values()} - {0.0}


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints


def test_a_checkpoint_gives_the_very_bits_back(trained: TrainState, config: TrainConfig, tmp_path: Path) -> None:
    path = trained.save(tmp_path)
    again = TrainState.create(config, CPU)
    again.load(path)
    assert same(content(again), content(trained))
    for state in (again, trained):
        step(state)
    assert same(content(again), content(trained))


def test_the_two_newest_checkpoints_stay(trained: TrainState, tmp_path: Path) -> None:
    for nimg in (8, 16, 1000, 999_999_999):
        trained.nimg = nimg
        newest = trained.save(tmp_path)
    names = ["checkpoint-000001000.pt", "checkpoint-999999999.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [path.name for path in checkpoints(tmp_path)] == names
    assert newest == checkpoints(tmp_path)[-1]


class Hostile:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.flag),)


def record(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture
def whole(trained: TrainState, tmp_path: Path) -> bytes:
    return trained.save(tmp_path / "whole").read_bytes()


SPOILED_CHECKPOINTS = {
    "empty": lambda data, flag: b"",
    "text": lambda data, flag: b"not a checkpoint\n",
    "noise": lambda data, flag: bytes(range(256)) * 40,
    "a few bytes": lambda data, flag: data[:7],
    "half": lambda data, flag: data[: len(data) // 2],
    "all but a byte": lambda data, flag: data[:-1],
    "zeros at the end": lambda data, flag: data[:1000] + bytes(len(data) - 1000),
    "a program, zipped": lambda data, flag: record({"format": 1, "g": Hostile(flag)}),
    "a program": lambda data, flag: pickle.dumps(Hostile(flag), 2),
    "another format": lambda data, flag: record({"format": 2}),
    "no networks": lambda data, flag: record({"format": 1}),
    "a list": lambda data, flag: record([1, 2]),
    "nothing": lambda data, flag: record(None),
    "a number for a network": lambda data, flag: record({"format": 1, "g": 3}),
    "another's network": lambda data, flag: record({"format": 1, "g": {"weight": torch.zeros(1)}}),
}


@pytest.mark.parametrize("how", SPOILED_CHECKPOINTS)
def test_anything_but_a_whole_checkpoint_is_refused_unexecuted(
    how: str, whole: bytes, config: TrainConfig, tmp_path: Path
) -> None:
    flag = tmp_path / "executed"
    path = tmp_path / "checkpoint-000000024.pt"
    path.write_bytes(SPOILED_CHECKPOINTS[how](whole, flag))
    with pytest.raises(RunError, match=r"checkpoint-000000024\.pt: .*checkpoint") as caught:
        TrainState.create(config, CPU).load(path)
    assert "\n" not in str(caught.value)
    assert not flag.exists()


def test_a_bit_that_the_disk_flipped_is_noticed(whole: bytes, config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-000000024.pt"
    at = len(whole) // 2  # in the middle of some tensor
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(RunError, match="whole checkpoint"):
        TrainState.create(config, CPU).load(path)


def test_a_checkpoint_of_another_network_is_refused(trained: TrainState, make_config: Any, tmp_path: Path) -> None:
    path = trained.save(tmp_path)
    with pytest.raises(RunError, match="not a whole checkpoint of this run"):
        TrainState.create(make_config(g={"fmap_max": 8}), CPU).load(path)


def test_a_missing_checkpoint_is_named(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere.*no such file"):
        TrainState.create(config, CPU).load(tmp_path / "nowhere.pt")


# ---------------------------------------------------------------------------------------------------------------------
# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def check_full(caught: UserError, state: TrainState, folder: Path, old: Path, config: TrainConfig) -> None:
    assert "checkpoint-000000200.pt: cannot be written (" in str(caught)
    assert "\n" not in str(caught)
    assert list(folder.iterdir()) == [old]  # no part of the new one either
    again = TrainState.create(config, CPU)
    again.load(old)
    assert same(again.g.state_dict(), state.g.state_dict())


def test_a_full_disk_leaves_the_older_checkpoint(trained: TrainState, config: TrainConfig, small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    trained.nimg = 100
    old = trained.save(folder)
    with (small_disk / "ballast").open("wb") as ballast:
        room = shutil.disk_usage(small_disk).free - old.stat().st_size // 2
        ballast.write(bytes(room))
    trained.nimg = 200
    with pytest.raises(UserError, match="No space left on device") as caught:
        trained.save(folder)
    check_full(caught.value, trained, folder, old, config)


@pytest.mark.skipif(resource is None, reason="this system limits no file sizes")
def test_a_file_size_limit_leaves_the_older_checkpoint(
    trained: TrainState, config: TrainConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    trained.nimg = 100
    old = trained.save(folder)
    trained.nimg = 200
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (old.stat().st_size // 2, hard))
    try:
        with pytest.raises(UserError, match="File too large") as caught:
            trained.save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_full(caught.value, trained, folder, old, config)


# ---------------------------------------------------------------------------------------------------------------------
# Weights for others


@pytest.mark.parametrize(("name", "kind"), [("g_ema", "generator"), ("d", "discriminator")])
def test_weights_files_bring_network_and_facts_back(trained: TrainState, tmp_path: Path, name: str, kind: str) -> None:
    network = getattr(trained, name)
    save_network(tmp_path / "w.safetensors", network, nimg=24, resolution=8, alpha=0.5)
    again, about = load_network(tmp_path / "w.safetensors", kind)
    assert type(again) is type(network)
    assert again.config == network.config
    assert same(again.state_dict(), network.state_dict())
    assert about == {"kind": kind, "nimg": 24, "resolution": 8, "alpha": 0.5}
    with pytest.raises(
        RunError, match=f"not the weights of a progan {'generator' if name == 'd' else 'discriminator'}"
    ):
        load_network(tmp_path / "w.safetensors", "generator" if name == "d" else "discriminator")


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"resolution": None}, "says None where resolution must be a whole number"),
        ({"alpha": None}, "says None where alpha must be a number"),
        ({"data": {"hash": "x", "label_names": ["a", 7]}}, r"says 7 where data\.label_names\[1\] must be a text"),
    ],
)
def test_a_field_beside_weights_that_is_of_a_wrong_type_is_named(
    tmp_path: Path, facts: dict[str, Any], named: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_network(path, Generator(GeneratorConfig(resolution=4, fmap_max=4)), **facts)
    with pytest.raises(RunError, match=named):
        load_network(path, "generator")


def test_weights_that_claim_to_be_enormous_make_no_room(tmp_path: Path) -> None:
    """Their network would have 12 GB; the file has one number."""
    path = tmp_path / "w.safetensors"
    config = {"resolution": 1024, "fmap_base": 2**20, "fmap_max": 4096}
    foreign(path, progan=json.dumps({"kind": "generator", "config": config}))
    with bounded(), pytest.raises(RunError, match=r"its configuration asks for .*, the file holds none"):
        load_network(path, "generator")
    foreign(path, progan=json.dumps({"kind": "generator", "config": config | {"resolution": 2**40}}))
    with bounded(), pytest.raises(RunError, match="resolution: 1099511627776 is not allowed; use 8192 or less"):
        load_network(path, "generator")


def test_the_same_weights_are_the_same_bytes(trained: TrainState, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_network(tmp_path / name, trained.g, nimg=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def foreign(path: Path, **metadata: str) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata)


SPOILED = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello\n" * 100),
    "another's": foreign,
    "no JSON": lambda path: foreign(path, progan="{"),
    "no object": lambda path: foreign(path, progan="[1]"),
    "no config": lambda path: foreign(path, progan='{"kind": "generator"}'),
    "wrong config": lambda path: foreign(path, progan='{"kind": "generator", "config": {"resolution": 48}}'),
    "other tensors": lambda path: foreign(path, progan='{"kind": "generator", "config": {"resolution": 4}}'),
    "wrong data": lambda path: save_network(
        path, Generator(GeneratorConfig(resolution=4, fmap_max=4)), data={"hash": 3}
    ),
    "cut": lambda path: (
        save_network(path, Generator(GeneratorConfig(resolution=4, fmap_max=4))),
        path.write_bytes(path.read_bytes()[:-8]),
    ),
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("how", SPOILED)
def test_anything_but_weights_is_refused_in_one_sentence(tmp_path: Path, how: str) -> None:
    path = tmp_path / "w.safetensors"
    SPOILED[how](path)
    with pytest.raises(RunError, match=r"w\.safetensors: ") as caught:
        load_network(path, "generator")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_anywhere_is_seen(trained: TrainState, config: TrainConfig, tmp_path: Path) -> None:
    path = trained.save(tmp_path)
    whole = bytearray(path.read_bytes())
    directory = whole.rindex(b"PK\1\2")
    # Byte 38 of a directory entry says what kind of file it is; zip's own checksums do not reach there.
    for place in (directory + 38, *range(7, len(whole), len(whole) // 40), len(whole) - 1):
        spoiled = whole.copy()
        spoiled[place] ^= 0x10
        path.write_bytes(spoiled)
        with pytest.raises(RunError, match="not a whole checkpoint"):
            TrainState.create(config, CPU).load(path)


def test_a_checkpoint_without_a_checksum_is_still_read(
    trained: TrainState, config: TrainConfig, tmp_path: Path
) -> None:
    path = trained.save(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"progan sha256")][:-2] + b"\0\0")
    again = TrainState.create(config, CPU)
    again.load(path)
    assert same(content(again), content(trained))
    spoiled = bytearray(path.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1  # in some tensor
    path.write_bytes(spoiled)
    with pytest.raises(RunError, match=r"not a whole checkpoint of this run \(.* is damaged\)"):
        again.load(path)
