"""The command line: a mistake costs one sentence, exit code 2 and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import progan.training
from progan.cli import main
from progan.commands.generate import parse_grid, parse_numbers
from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.presets import PRESETS
from progan.run.state import TrainState
from progan.schedule import Schedule
from progan.support.errors import ConfigError
from progan.weights import load_network, save_network
from tests.attack.damage import bounded
from tests.command import refused, run
from tests.conftest import MakeConfig, MakeData


def console(*argv: object) -> subprocess.CompletedProcess[str]:
    """The real console command."""
    script = Path(sys.executable).parent / "progan"
    command = [str(script)] if script.exists() else [sys.executable, "-m", "progan"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run([*command, *map(str, argv)], capture_output=True, text=True, env=environment, timeout=120)


SMALL = ("--resolution", 8, "--g.fmap-max", 8, "--d.fmap-max", 8, "--precision", "fp32", "--device", "cpu")


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--resolution", 48], "--resolution: 48 is not a power of two from 4 up"),
        (["--resolution", 64], "the data set goes up to 16x16; pass --resolution 16 or make a larger data set"),
        (["--preset", "paper-128"], "the networks make 128x128 images and the data set goes up to 16x16"),
        (["--preset", "mine"], "--preset: 'mine' is not known; use one of demo, paper-128, celebahq-1024"),
        (["--preset=mine"], "--preset: 'mine' is not known"),
        (["--batch", 0], "batch: 0 is not allowed"),
        (["--batch", "-4"], "batch: -4 is not allowed"),
        (["--batch", "many"], "--batch: 'many' is neither a number nor a list such as 4:128,32:64"),
        (["--batch", "8:16"], "batch: 8:16 says nothing about 4x4"),
        (["--lr", 0], "lr: 0.0 is not allowed"),
        (["--lr", "nan"], "lr: nan is not allowed"),
        (["--total-kimg", 0], "total_nimg: 0 is not allowed; use 1 or more"),
        (["--total-kimg", "-1"], "--total-kimg: -1.0 is not allowed"),
        (["--total-kimg", "nan"], "--total-kimg: nan is not allowed"),
        (["--total-kimg", "inf"], "--total-kimg: inf is not allowed"),
        (["--stable-kimg", "-1"], "--stable-kimg: -1.0 is not allowed"),
        (["--checkpoint-kimg", 0], "checkpoint_nimg: 0 is not allowed"),
        (["--total-kimg", "1e30"], "is not allowed; use 1,000,000,000,000 or less"),
        (["--d-steps", 10**20], "d_steps: 100000000000000000000 is not allowed; use 1,048,576 or less"),
        (["--g.fmap-base", 10**20], "fmap_base: 100000000000000000000 is not allowed; use 1,048,576 or less"),
        (["--d.fmap-max", 10**20], "fmap_max: 100000000000000000000 is not allowed; use 1,048,576 or less"),
        (["--g.latent-dim", 10**20], "latent_dim: 100000000000000000000 is not allowed; use 1,048,576 or less"),
        (["--d.minibatch-kernels", 10**20], "kernels: 100000000000000000000 is not allowed; use 1,048,576 or less"),
        (["--batch", 10**20], "batch: 100000000000000000000 is not allowed; use 1,048,576 or less"),
        (["--resolution", 1048576], "--resolution: 1048576 is not allowed; use 8192 or less"),
        (["--device", "toaster"], "device: 'toaster' is not on this machine"),
        (["--init", "nowhere"], "nowhere/g.safetensors: no such file"),
        (["--data", "nowhere"], "nowhere: no such folder; create a data set with `progan data create`"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(
    capsys: pytest.CaptureFixture[str], data: ImagePyramid, tmp_path: Path, flags: list[object], sentence: str
) -> None:
    out = tmp_path / "run"
    start = [] if "--data" in flags else ["--data", data.path]
    if "--resolution" not in flags and "--preset" not in flags:
        start += ["--resolution", 16]
    with bounded():
        assert sentence in refused(capsys, "train", *start, "--out", out, *flags)
    assert not out.exists()


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_run_that_would_end_before_its_last_block_is_refused(
    capsys: pytest.CaptureFixture[str], make_data: MakeData, make_config: MakeConfig, tmp_path: Path, flags: tuple[str]
) -> None:
    command = ("train", "--data", make_data(resolution=32).path, "--out", tmp_path / "run", "--device", "cpu", *flags)
    command = (*command, "--stable-kimg", 4, "--fade-kimg", 4)
    sentence = refused(capsys, *command, "--total-kimg", 24)
    assert "total_nimg: 24 kimg end at 32x32, the last block of 32x32 is in after 24; pass --total-kimg 28," in sentence
    start = TrainState.create(make_config(), torch.device("cpu"))
    for name, network in (("g", start.g), ("d", start.d), ("generator", start.g_ema)):
        save_network(tmp_path / f"{name}.safetensors", network)
    given = refused(capsys, *command, "--init", tmp_path, "--total-kimg", 16)
    assert "total_nimg: 16 kimg end at 16x16" in given
    assert not (tmp_path / "run").exists()
    assert run(capsys, *command, "--dry-run", "--total-kimg", 28)[0] == 0


def test_a_run_that_was_begun_too_short_goes_on(
    capsys: pytest.CaptureFixture[str], data: ImagePyramid, tmp_path: Path
) -> None:
    command = ["train", "--data", data.path, "--out", tmp_path / "run", *SMALL, "--batch", 4, "--fade-kimg", 0]
    growth = ["--stable-kimg", 0.008, "--total-kimg", 0.016]
    assert run(capsys, *command, *growth)[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["config"]["schedule"]["stable_nimg"] = 100
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # for they are of another config
    assert run(capsys, *command, "--stable-kimg", 0.1, "--total-kimg", 0.02)[0] == 0


def test_a_run_needs_data_and_a_folder(capsys: pytest.CaptureFixture[str], data: ImagePyramid, tmp_path: Path) -> None:
    assert "--data: is needed to train" in refused(capsys, "train", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "--out: is needed to train" in refused(capsys, "train", "--data", data.path, "--resolution", 16)


def test_a_folder_that_is_anothers_stays_untouched(
    capsys: pytest.CaptureFixture[str], data: ImagePyramid, tmp_path: Path
) -> None:
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("mine")
    full.mkdir()
    (full / "letter.txt").write_text("mine")
    for out in (file, full):
        assert f"{out}: is not empty and holds no run" in refused(
            capsys, "train", "--data", data.path, "--out", out, *SMALL
        )
    assert file.read_text() == "mine"
    assert [path.name for path in full.iterdir()] == ["letter.txt"]
    assert "cannot be written" in refused(capsys, "train", "--data", data.path, "--out", file / "run", *SMALL)


def test_a_folder_of_a_broken_run_is_refused(
    capsys: pytest.CaptureFixture[str], data: ImagePyramid, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for text in ("", "{", "[]", "{}", '{"config": {"nothing": 1}}'):
        out.mkdir(exist_ok=True)
        (out / "config.json").write_text(text)
        assert "config.json: cannot be read" in refused(capsys, "train", "--data", data.path, "--out", out, *SMALL)
        assert (out / "config.json").read_text() == text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--seeds", "5-3"], "--seeds: '5-3' is not a list of numbers and rising ranges such as 0-63,100"),
        (["--seeds", "one"], "--seeds: 'one' is not a list"),
        (["--seeds", ""], "--seeds: '' is not a list"),
        (["--grid", "8"], "--grid: '8' is not COLUMNSxROWS such as 8x8"),
        (["--grid", "0x8"], "--grid: '0x8' is not COLUMNSxROWS"),
        (["--labels", "a"], "--labels: 'a' is not a list"),
        ([], "nowhere: no such file"),
    ],
)
def test_pictures_that_cannot_be_are_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[object], sentence: str
) -> None:
    assert sentence in refused(capsys, "generate", tmp_path / "nowhere", "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["paint"], "paint"),
        (["train", "--nothing", "1"], "--nothing"),
        (["train", "--g.nothing", "1"], "--g.nothing"),
        (["train", "--seed", "abc"], "abc"),
        (["train", "--precision", "fp8"], "fp8"),
        (["train", "--schedule.batch", "x"], "--schedule.batch"),
        (["generate"], "Run folder, a .safetensors file, or hf://OWNER/NAME"),
        ([], "{train, generate, project, video, evaluate,"),
    ],
)
def test_words_that_mean_nothing_are_named(capsys: pytest.CaptureFixture[str], argv: list[str], named: str) -> None:
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert named.lower() in (out + err).lower()
    assert "Traceback" not in err


@pytest.mark.parametrize("empty", [("--out", ""), ("--out=",)])
@pytest.mark.parametrize(
    "command",
    [
        "train --data x",
        "generate x",
        "project x y.png",
        "video x",
        "evaluate x --data y",
        "export x --to web",
        "push x me/mine",
        "report x",
        "track x --to tensorboard",
        "import x.pkl",
        "data create folder x",
        "data show x",
        "data export x --to zip",
        "ablate --data x",
        "cifar10 --data x",
        "modes --data x",
    ],
)
def test_no_name_at_all_does_not_mean_the_current_folder(
    capsys: pytest.CaptureFixture[str], command: str, empty: tuple[str, ...]
) -> None:
    assert "--out: '' is no name; give one" in refused(capsys, *command.split(), *empty)


def test_numbers_and_grids_are_read() -> None:
    assert parse_numbers("--seeds", "0-3,100, 7") == [0, 1, 2, 3, 100, 7]
    assert parse_numbers("--seeds", "5-5") == [5]
    assert parse_grid("8x4") == (8, 4)
    for text in ("8x", "x8", "8*8", "-1x4", "8x4x2"):
        with pytest.raises(ConfigError, match=r"--grid: "):
            parse_grid(text)
    with pytest.raises(ConfigError, match="--grid: 1000x101 has over 100,000 cells; ask for fewer"):
        parse_grid("1000x101")


# ---------------------------------------------------------------------------------------------------------------------
# Flags, plans, help


def config_of(monkeypatch: pytest.MonkeyPatch, data: ImagePyramid, out: Path, *flags: object) -> TrainConfig:
    """The config with which a command would train."""
    found: list[TrainConfig] = []
    monkeypatch.setattr(progan.training, "train", lambda config, *rest, **named: found.append(config))
    assert main(["train", "--data", str(data.path), "--out", str(out), *map(str, flags)]) == 0
    return found[0]


def test_plain_flags_are_short_for_fields(monkeypatch: pytest.MonkeyPatch, data: ImagePyramid, tmp_path: Path) -> None:
    plain = config_of(
        monkeypatch, data, tmp_path, "--resolution", 8, "--total-kimg", 1.5, "--stable-kimg", 0.25, "--fade-kimg", 0,
        "--batch", "4:8,8:2", "--lr", "4:0.5,8:0.25", "--checkpoint-kimg", 3, "--snapshot-kimg", 4,
    )  # fmt: skip
    fields = config_of(
        monkeypatch, data, tmp_path, "--g.resolution", 8, "--d.resolution", 8, "--schedule.total-nimg", 1500,
        "--schedule.stable-nimg", 250, "--schedule.fade-nimg", 0, "--schedule.batch", "4:8,8:2", "--schedule.g-lr",
        "4:0.5,8:0.25", "--schedule.d-lr", "4:0.5,8:0.25", "--checkpoint-nimg", 3000, "--snapshot-nimg", 4000,
    )  # fmt: skip
    assert plain == fields
    assert plain.schedule.batch == {4: 8, 8: 2}
    assert plain.schedule.total_nimg == 1500


@pytest.mark.parametrize("flags", [["--preset", "cifar10"], ["--preset=cifar10"]])
def test_a_preset_gives_the_defaults_that_flags_change(
    monkeypatch: pytest.MonkeyPatch, data: ImagePyramid, tmp_path: Path, flags: list[str]
) -> None:
    config = config_of(monkeypatch, data, tmp_path, "--resolution", 16, *flags, "--loss.drift", 0.5)
    preset = PRESETS["cifar10"].config
    assert (config.loss.gp_target, config.loss.drift) == (750.0, 0.5)
    assert config.schedule == preset.schedule
    assert (config.g.fmap_base, config.g.resolution, config.mirror) == (4096, 16, False)


@pytest.mark.parametrize("name", PRESETS)
def test_a_dry_run_prints_every_phase(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "train", "--dry-run", "--preset", name, "--out", tmp_path / "run")
    config = PRESETS[name].config
    schedule = Schedule(config.schedule, config.g.resolution)
    rows = [line for line in out.splitlines() if " stable " in line or " fade " in line]
    assert (code, err) == (0, "")
    assert len(rows) == len(schedule.phases())
    for row, span in zip(rows, schedule.phases(), strict=True):
        assert f"{span.resolution}x{span.resolution}" in row
        assert f" {span.start_nimg / 1000:g}-{span.stop_nimg / 1000:g} " in row
        assert f" {schedule.at(span.start_nimg).batch} " in row
        assert re.search(r"\d\.\d GiB", row)
    assert not list(tmp_path.iterdir())


def squeezed(text: str) -> str:
    """Without frames, spaces and line ends, so that wrapping hides nothing."""
    return re.sub(r"[\s│]+", "", text)


def test_help_names_every_command_and_preset(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in (
        (["--help"], ["train", "generate", "data", "import"]),
        (["data", "--help"], ["create", "info"]),
        (["data", "create", "--help"], ["faces", "folder"]),
        (["train", "--help"], list(PRESETS)),
        (["generate", "--help"], ["--seeds", "--grid", "--labels", "--resolution", "--alpha", "--device"]),
    ):
        code, out, _ = run(capsys, *argv)
        assert code == 0
        for word in words:
            assert word in squeezed(out)


# ---------------------------------------------------------------------------------------------------------------------
# From data to pictures


@pytest.fixture(scope="module")
def trained(data: ImagePyramid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at 8x8 that the command line made."""
    out = tmp_path_factory.mktemp("cli") / "run"
    growth = ("--total-kimg", 0.06, "--stable-kimg", 0.02, "--fade-kimg", 0.02, "--batch", 4, "--tick-nimg", 20)
    argv = ["train", "--data", data.path, "--out", out, *SMALL, *growth]
    assert main([str(word) for word in argv]) == 0
    return out


def test_train_then_generate(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    assert len((trained / "stats.jsonl").read_text().splitlines()) == 3
    out = tmp_path / "pictures"
    argv = ("generate", trained, "--seeds", "0-2,7", "--grid", "2x2", "--out", out, "--device", "cpu")
    code, printed, _ = run(capsys, *argv)
    assert code == 0
    assert "4 pictures in" in printed
    names = ["grid.png", "seed0000.png", "seed0001.png", "seed0002.png", "seed0007.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    with Image.open(out / "grid.png") as grid, Image.open(out / "seed0000.png") as one:
        assert (grid.size, one.size) == ((16, 16), (8, 8))


def test_pictures_can_go_into_a_folder_that_is_there(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert run(capsys, "generate", trained, "--seeds", "1", "--out", tmp_path, "--device", "cpu")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["seed0001.png"]


def test_pictures_cannot_go_into_a_file(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        sentence = refused(capsys, "generate", trained, "--seeds", "1", "--out", out, "--device", "cpu")
        assert str(file) in sentence
    assert file.read_text() == "mine"


def test_networks_cannot_go_into_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, official = tmp_path / "file", Path(__file__).parent / "golden" / "official_a.pkl"
    file.write_text("mine")
    for out in (file, file / "below"):
        assert f"--out: {out} cannot be made a folder (" in refused(capsys, "import", official, "--out", out)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "command",
    [
        "generate g.safetensors --out new --device cpu",
        "project g.safetensors fakes.png --out new --device cpu",
        "video g.safetensors --out new.gif --seconds 1 --device cpu",
        "evaluate g.safetensors --data data --images 16 --out new --device cpu",
        "export g.safetensors --to web --out new.html",
        "export g.safetensors --to onnx --out new.onnx",
    ],
)
def test_weights_of_a_training_that_diverged_are_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make_data: MakeData,
    trained: Path,
    tmp_path: Path,
    command: str,
    value: float,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_data(count=16, resolution=8)
    shutil.copyfile(trained / "reals.png", "fakes.png")
    g = load_network(trained / "generator.safetensors", "generator")[0]
    with torch.no_grad():
        next(g.parameters())[0] = value
    save_network(tmp_path / "g.safetensors", g)
    assert "g.safetensors: holds weights that are not finite" in refused(capsys, *command.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "fakes.png", "g.safetensors"]


def test_a_path_is_printed_in_one_piece(data: ImagePyramid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / ("a-long-name-for-a-run-" * 5)
    growth = ("--total-kimg", 0.004, "--stable-kimg", 0.001, "--fade-kimg", 0)
    code, _, err = run(capsys, "train", "--data", data.path, "--out", out, *SMALL, *growth, "--batch", 4)
    assert code == 0
    assert str(out / "generator.safetensors") in err  # to be copied from a log


@pytest.mark.slow
def test_the_console_command(data: ImagePyramid, tmp_path: Path) -> None:
    help_text = console("--help")
    assert help_text.returncode == 0
    assert all(word in help_text.stdout for word in ("train", "generate", "data", "import"))
    unknown = console("paint")
    assert unknown.returncode == 2
    assert "paint" in unknown.stderr
    small = console("train", "--data", data.path, "--out", tmp_path / "run")
    assert small.returncode == 2
    assert small.stdout == ""
    assert small.stderr.startswith("progan: resolution: the networks make 32x32 images")
    assert small.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_reader_that_has_enough_is_no_accident() -> None:
    """As `progan train --help | head` ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "progan", "train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (1, b"")


def test_no_command_writes_over_what_it_did_not_make(
    capsys: pytest.CaptureFixture[str], data: ImagePyramid, trained: Path, tmp_path: Path
) -> None:
    manifest, weights = data.path / "dataset.json", trained / "generator.safetensors"
    before = manifest.read_bytes(), weights.read_bytes()
    film = tmp_path / "mine.webp"
    film.write_bytes(b"mine")
    for argv in (
        ("data", "doctor", data.path, "--report", manifest),
        ("data", "show", data.path, "--out", manifest),
        ("import", Path(__file__).parent / "golden" / "official_a.pkl", "--out", trained),
        ("video", trained, "--out", film, "--seconds", 1),
    ):
        assert "is there already; choose another name, or pass --overwrite" in refused(capsys, *argv)
    assert "config.json is there already" in refused(capsys, "generate", trained, "--out", trained)
    growth = ("--stable-kimg", 0.02, "--fade-kimg", 0.02, "--batch", 4, "--tick-nimg", 20)
    shorter = refused(capsys, "train", "--data", data.path, "--out", trained, *SMALL, *growth, "--total-kimg", 0.02)
    assert "the run is at 0.06 kimg already, beyond --total-kimg 0.02" in shorter
    assert (manifest.read_bytes(), weights.read_bytes(), film.read_bytes()) == (*before, b"mine")
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"of before")
    assert run(capsys, "data", "show", data.path, "--out", sheet, "--overwrite")[0] == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.json", "train"),
        ("stats.jsonl", "train"),
        ("timing.jsonl", "train"),
        ("log.txt", "train"),
        ("checkpoints/checkpoint-000000060.pt", "train"),
        ("generator.safetensors", "generate"),
        ("snapshots/generator-000000060.safetensors", "generate"),
        ("metrics.jsonl", "train"),
        ("metrics.jsonl", "evaluate"),
    ],
)
def test_a_runs_file_that_is_no_plain_file_is_refused_and_not_waited_for(
    capsys: pytest.CaptureFixture[str],
    data: ImagePyramid,
    make_data: MakeData,
    trained: Path,
    tmp_path: Path,
    name: str,
    command: str,
    kind: str,
) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(trained, run_folder)
    path = run_folder / name
    path.unlink(missing_ok=True)
    {"pipe": os.mkfifo, "folder": Path.mkdir, "device": lambda path: path.symlink_to("/dev/zero")}[kind](path)
    if name.startswith("snapshots"):
        (run_folder / "generator.safetensors").unlink()
    growth = ("--total-kimg", 0.08, "--stable-kimg", 0.02, "--fade-kimg", 0.02, "--batch", 4, "--tick-nimg", 20)
    words = {
        "train": ("--data", data.path, "--out", run_folder, *SMALL, *growth),
        "generate": (run_folder, "--out", tmp_path / "pictures", "--seeds", 1, "--device", "cpu"),
        "evaluate": (run_folder, "--data", make_data(count=24).path, "--images", 16, "--metrics", "ms_ssim"),
    }
    with bounded():
        assert path.name in refused(capsys, command, *words[command])


@pytest.mark.parametrize(
    "flags",
    [
        ("--seeds", "0-99999999999"),
        ("--seeds", "1" * 5000),
        ("--grid", "100000x100000"),
        ("--grid", "1" * 5000 + "x1"),
    ],
)
def test_sizes_that_are_only_claimed(capsys: pytest.CaptureFixture[str], trained: Path, flags: tuple[str, str]) -> None:
    with bounded():
        assert flags[0] in refused(capsys, "generate", trained, "--out", trained.parent / "large", *flags)[:20]
    assert not (trained.parent / "large").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
@pytest.mark.parametrize("how", ["train --help >/dev/full", "train --help >&-", "data info {data} >&- 2>&-"])
def test_output_that_goes_nowhere_is_no_traceback(data: ImagePyramid, how: str) -> None:
    command = f"{sys.executable} -m progan {how.format(data=data.path)}"
    process = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert process.returncode in (0, 1)
    assert process.stderr.count("\n") == (process.returncode == 1)
    assert "Traceback" not in process.stderr
    assert "Exception" not in process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed there")
@pytest.mark.parametrize("words", ["data info {data}", "generate x --out y", "train --dry-run"])
def test_a_current_folder_that_is_gone_is_one_sentence(data: ImagePyramid, tmp_path: Path, words: str) -> None:
    (tmp_path / "gone").mkdir()
    command = f'rmdir "$PWD" && exec {sys.executable} -m progan {words.format(data=data.path)}'
    environment = os.environ | {"PYTHONPATH": str(Path(progan.training.__file__).parents[1])}
    process = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=tmp_path / "gone", env=environment
    )
    sentence = "progan: the current folder cannot be found (No such file or directory); change to another\n"
    assert (process.returncode, process.stdout, process.stderr) == (2, "", sentence)


@pytest.mark.parametrize("columns", ["1", "0", "7"])
def test_a_narrow_terminal_is_answered(columns: str) -> None:
    environment = os.environ | {"COLUMNS": columns, "LANG": "C", "PYTHONIOENCODING": "ascii"}
    for words in (["train", "--dry-run"], ["train", "--help"]):
        process = subprocess.run(
            [sys.executable, "-m", "progan", *words], capture_output=True, text=True, env=environment, timeout=30
        )
        assert (process.returncode, process.stderr) == (0, ""), words
