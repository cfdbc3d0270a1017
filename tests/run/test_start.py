"""A run goes on from networks of another: everything that fits is taken, the function stays, the rest is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.run.start import kept_checkpoint, read_start, start_from
from progan.run.state import TrainState
from progan.support.errors import ConfigError, RunError
from progan.support.files import write_json
from progan.training import train
from progan.weights import save_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(data: ImagePyramid, make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainConfig]:
    """A finished run at 16x16, and its config, only to be read; it kept a checkpoint every 32 images, beside its newest
    two."""
    config, out = make_config(seed=5, keep_every_nimg=32), tmp_path_factory.mktemp("start") / "source"
    train(config, data, out)
    return out, config


def weights_of(state: TrainState) -> dict[str, dict[str, Tensor]]:
    return {"g": state.g.state_dict(), "d": state.d.state_dict(), "generator": state.g_ema.state_dict()}


def test_kept_checkpoints_are_the_first_at_or_after_each_multiple(run: tuple[Path, TrainConfig]) -> None:
    kept = sorted((run[0] / "checkpoints").iterdir())
    assert [int(path.stem[-9:]) for path in kept] == [32, 64, 80, 96]  # two multiples, and the newest two


@pytest.mark.parametrize(("nimg", "found"), [(None, 96), (0, 32), (32, 32), (33, 64), (90, 96)])
def test_a_kept_moment_is_the_first_at_or_after_the_one_asked_for(
    run: tuple[Path, TrainConfig], nimg: int | None, found: int
) -> None:
    assert kept_checkpoint(run[0], nimg).name == f"checkpoint-{found:09d}.pt"


def test_a_moment_that_was_not_kept_is_named(run: tuple[Path, TrainConfig]) -> None:
    with pytest.raises(RunError, match=r"kept no moment from 0.2 kimg on; --from-kimg can reach 0.032, 0.064, 0.08"):
        kept_checkpoint(run[0], 200)


def test_the_same_networks_are_taken_whole_and_fully_grown(run: tuple[Path, TrainConfig]) -> None:
    state = TrainState.create(replace(run[1], seed=6), CPU)
    notes = start_from(state, start := read_start(run[0]))
    assert state.nimg == 64  # two stable phases and two fades of 16
    assert len(notes) == 1
    for name, weights in weights_of(state).items():
        assert all(torch.equal(value, start.weights[name][key]) for key, value in weights.items())


@pytest.mark.parametrize(("moment", "start_nimg"), [(32, 32), (64, 64)])
def test_a_run_that_was_still_growing_starts_where_its_newest_block_is_in(
    run: tuple[Path, TrainConfig], moment: int, start_nimg: int
) -> None:
    state = TrainState.create(run[1], CPU)
    start_from(state, read_start(run[0], moment))
    assert state.nimg == start_nimg


def test_larger_networks_keep_what_is_there_and_grow_from_it(run: tuple[Path, TrainConfig]) -> None:
    config = replace(run[1], g=replace(run[1].g, resolution=32), d=replace(run[1].d, resolution=32))
    state = TrainState.create(config, CPU)
    notes = start_from(state, start := read_start(run[0]))
    assert state.nimg == 64  # 16x16 is in, and 32x32 fades in 16 images later
    assert notes[1:] == ["begins anew: the block at 32x32"]
    z = torch.randn(2, config.g.z_dim)
    before = TrainState.create(run[1], CPU)
    start_from(before, start)
    assert torch.equal(state.g_ema(z, resolution=16), before.g_ema(z, resolution=16))


def test_smaller_networks_take_the_lower_blocks(run: tuple[Path, TrainConfig]) -> None:
    config = replace(run[1], g=replace(run[1].g, resolution=8), d=replace(run[1].d, resolution=8))
    state = TrainState.create(config, CPU)
    notes = start_from(state, start := read_start(run[0]))
    assert state.nimg == 32
    assert len(notes) == 1
    assert torch.equal(state.g.state_dict()["to_rgb.8.weight"], start.weights["g"]["to_rgb.8.weight"])


@pytest.mark.parametrize("equalized", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_new_labels_leave_the_function_of_latents_and_images_alone(
    make_config: Any, tmp_path: Path, equalized: bool, normalize: bool
) -> None:
    fields = {"g": {"equalized": equalized, "normalize_latent": normalize}, "d": {"equalized": equalized}}
    old = TrainState.create(make_config(**fields), CPU)
    for name, network in (("g", old.g), ("d", old.d), ("generator", old.g_ema)):
        save_network(tmp_path / f"{name}.safetensors", network)
    labelled = {name: {**values, "label_dim": 3} for name, values in fields.items()}
    state = TrainState.create(make_config(**labelled, seed=9), CPU)
    notes = start_from(state, read_start(tmp_path))
    assert notes[1:] == ["begins anew: what the networks know of labels"]
    z, images = torch.randn(4, old.config.g.z_dim), torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(state.g(z, torch.zeros(4, 3)), old.g(z), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state.d(images)[0], old.d(images)[0], rtol=1e-4, atol=1e-4)
    assert state.d(images)[1].shape == (4, 3)


def test_other_channels_begin_with_colour_layers_of_their_own(make_config: Any, run: tuple[Path, TrainConfig]) -> None:
    gray = replace(run[1], g=replace(run[1].g, channels=1), d=replace(run[1].d, channels=1))
    state = TrainState.create(gray, CPU)
    notes = start_from(state, start := read_start(run[0]))
    assert notes[1:] == ["begins anew: the colour layers, for the channels differ"]
    assert torch.equal(state.g.state_dict()["blocks.8.conv0.weight"], start.weights["g"]["blocks.8.conv0.weight"])


def test_networks_of_another_width_are_refused(make_config: Any, run: tuple[Path, TrainConfig]) -> None:
    state = TrainState.create(make_config(g={"fmap_max": 8}), CPU)
    with pytest.raises(ConfigError, match=r"init: .* is of GeneratorConfig"):
        start_from(state, read_start(run[0]))


def test_a_run_goes_on_from_another_on_other_data_and_may_be_continued(
    run: tuple[Path, TrainConfig], make_data: Any, tmp_path: Path
) -> None:
    data = make_data("other", seed=3)
    for total in (80, 96):
        config = replace(run[1], schedule=replace(run[1].schedule, total_nimg=total))
        state = train(config, data, tmp_path / "new", run[0], from_nimg=64)
    straight = train(config, data, tmp_path / "straight", run[0], from_nimg=64)
    assert state.nimg == 96
    for ours, theirs in zip(state.g.parameters(), straight.g.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert "starts from" in (tmp_path / "new" / "log.txt").read_text()


def test_a_branch_with_equal_fields_is_the_run_itself(
    run: tuple[Path, TrainConfig], make_data: Any, tmp_path: Path
) -> None:
    train(run[1], make_data("before again"), tmp_path / "branch", branch=run[0], from_nimg=32)
    for name in ("generator.safetensors", "fakes-000000096.png", "checkpoints/checkpoint-000000080.pt"):
        if name.endswith(".pt"):
            ours, theirs = (torch.load(path / name)["g_optimizer"] for path in (tmp_path / "branch", run[0]))
            assert str(ours) == str(theirs)
        else:
            assert (tmp_path / "branch" / name).read_bytes() == (run[0] / name).read_bytes()


def test_a_branch_may_take_another_rate(run: tuple[Path, TrainConfig], make_data: Any, tmp_path: Path) -> None:
    slow = {4: 0.0001}
    config = replace(run[1], schedule=replace(run[1].schedule, g_lr=slow, d_lr=slow))
    state = train(config, make_data(), tmp_path / "branch", branch=run[0], from_nimg=64)
    assert state.nimg == 96
    with pytest.raises(RunError, match=r"init was branch of .* and is now"):
        train(config, make_data("again"), tmp_path / "branch")


def test_a_folder_without_a_checkpoint_is_no_start(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {})
    with pytest.raises(RunError, match="holds no checkpoint; give the folder of a run that has trained"):
        read_start(tmp_path)
    with pytest.raises(RunError, match="leave out --from-kimg"):
        read_start(tmp_path / "nothing", 100)


def test_a_branch_that_begins_at_its_end_is_refused(
    run: tuple[Path, TrainConfig], make_data: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"total_nimg: 0.096 kimg .* begins at 0.096; pass a larger --total-kimg"):
        train(run[1], make_data(), tmp_path / "branch", branch=run[0])
    assert not (tmp_path / "branch").exists()
