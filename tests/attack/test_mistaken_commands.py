"""Mistaken command lines for every command: exit code 0 or 2, words that can be printed, and nothing half-written."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from tyro.conf import Positional

import progan.cli
import progan.commands.data
from progan.config import GeneratorConfig
from progan.networks import Generator
from progan.support.errors import UserError
from progan.weights import save_network
from tests.attack.damage import bounded, listing
from tests.attack.kinds import GOLDEN, KINDS, tracked
from tests.command import run
from tests.conftest import write_data

NUMBERS = ("", "x", "-1", "0", "1.5", "nan", "1e400", "9" * 20, "9" * 5000, "0x10", "\x1b[2J", "1,", "--")
TEXTS = ("", "x", ",", "4:", "4:nan", "9:9", "0-99999999999", "1x", "9" * 20, "[/]", "\x1b]52;c;eA==\x07", "a\nb", "-x")
PATHS = (
    "",
    "nowhere",
    "file/x",
    "pipe",
    "zero",
    "file",
    "empty",
    "l" * 300,
    "a\x1b[2Jb",
    "a\nb",
    "[/]",
    "\udcff",
    "loop",
)
TINY = ["--resolution", "16", "--g.fmap-max", "4", "--d.fmap-max", "4", "--precision", "fp32", "--device", "cpu"]
SHORT = ["--batch", "4", "--stable-kimg", "0.004", "--fade-kimg", "0.004", "--total-kimg", "0.02"]
HONEST = {"cifar10": "pickle of CIFAR-10", "hdf5": "hdf5", "lsun": "lmdb", "mnist": "idx", "svhn": "mat"}


def commands(given: Path, work: Path) -> dict[str, list[str]]:
    """Every command with words that are no mistake, or few."""
    weights, run_folder, data, pictures = (str(given / name) for name in ("g.safetensors", "run", "data", "pictures"))
    out = {name: ["--out", str(work / f"a{name}")] for name in ("", ".gif", ".html", ".png", ".zip")}
    cpu, one = ["--device", "cpu"], ["--workers", "1"]
    table = {
        "train": ["--data", data, *out[""], *TINY, *SHORT, "--dry-run"],
        "generate": [weights, *out[""], "--seeds", "0", *cpu],
        "project": [weights, f"{pictures}/0.png", *out[""], "--starts", "1", "--steps", "1", *cpu],
        "video": [weights, *out[".gif"], "--seconds", "0.2", "--fps", "10", "--pixels", "16", *cpu],
        "evaluate": [weights, "--data", data, "--images", "8", *out[""], *cpu],
        "export": [weights, *out[".html"], "--to", "web"],
        "push": [weights, "me/mine", *out[""]],
        "view": [str(given)],
        "report": [run_folder, *out[".html"]],
        "track": [run_folder, *out[""]],
        "ablate": ["--data", data, *out[""], "--rows", "a", *cpu],
        "cifar10": ["--data", data, *out[""], *cpu],
        "modes": ["--data", data, *out[""], *cpu],
        "import": [str(GOLDEN / "official_a.pkl"), *out[""]],
        "data doctor": [pictures, *one],
        "data show": [data, *out[".png"]],
        "data info": [data, "--verify"],
        "data export": [data, *out[".zip"], "--to", "zip", *one],
    }
    sources: dict[str, list[str]] = {
        "faces": ["--count", "1", "--resolution", "8", *one],
        "folder": [pictures, *one],
        "photos": [pictures, "--resolution", "8", *one],
        "celeba": [str(given / "celeba" / "img_align_celeba"), *one],
        "celebahq": [str(given / "nowhere"), *one],
        "tfrecords": [str(GOLDEN / "tfrecords"), *one],
        "hdf5": [str(given / "hdf5" / "a.h5"), *one],
        "lsun": [str(given / "lsun" / "bedroom_train_lmdb"), "--resolution", "8", *one],
        "mnist": [str(given / "mnist")],
        "fashion-mnist": [str(given / "mnist")],
        "mnist-rgb": [str(given / "mnist"), "--count", "2"],
        "cifar10": [str(given / "cifar10" / "cifar-10-batches-py"), "--split", "test"],
        "cifar100": [str(given / "cifar10" / "cifar-10-batches-py")],
        "svhn": [str(given / "svhn")],
        "huggingface": [str(given / "no" / "data"), *one],
    }
    return table | {f"data create {name}": [*words, *out[""]] for name, words in sources.items()}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands are given, and what is put in its place."""
    place = tmp_path_factory.mktemp("given")
    write_data(place / "data", count=13)
    g = Generator(GeneratorConfig(resolution=16, fmap_base=16, fmap_max=8))
    save_network(place / "g.safetensors", g, nimg=4, resolution=16, alpha=1.0)
    save_network(tracked(place) / "generator.safetensors", g, nimg=96, resolution=16, alpha=1.0)
    (place / "pictures").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "pictures" / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        for source, kind in {**HONEST, "celeba": "splits of CelebA"}.items():
            (place / source).mkdir()
            KINDS[kind](place / source, patch)
    (place / "file").write_bytes(b"a file")
    (place / "empty").mkdir()
    (place / "zero").symlink_to("/dev/zero")
    (place / "loop").symlink_to(place / "loop")
    os.mkfifo(place / "pipe")
    return place


@pytest.fixture
def nothing_long(monkeypatch: pytest.MonkeyPatch, few_directions: None) -> None:
    """What takes long or asks the network is not reached by a mistake, and would be no part of this test."""

    def reached(*args: Any, **options: Any) -> Any:
        raise UserError("would begin")

    for where in ("view.server.serve", "export.hub.push", "studies.ablation.study.run_experiments"):
        monkeypatch.setattr(f"progan.{where}", reached)
    for where in ("studies.cifar10.run_experiments", "studies.modes.study.run_experiments"):
        monkeypatch.setattr(f"progan.{where}", reached)
    monkeypatch.setattr("progan.studies.modes.study.train_classifier", reached, raising=False)
    monkeypatch.setattr("progan.data.sources.huggingface._load", reached)


def flags_of(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every flag of a command and its type; "" for a word without one."""
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        hint = hints[field.name]
        positional = get_origin(hint) is Annotated and get_args(Positional[int])[1] in hint.__metadata__
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(plain):
            yield from flags_of(plain, "" if field.name in ("config", "place") else f"{prefix}{field.name}.")
        else:
            yield "" if positional else f"--{prefix}{field.name}".replace("_", "-"), plain


def class_of(command: str) -> Any:
    name = command.split()[-1]
    module = progan.commands.data if command.startswith("data ") else progan.cli
    source = Path(str(module.__file__)).read_text()
    found = re.search(rf'Annotated\[(\w+), subcommand\(name="{name}"', source)
    assert found is not None, command
    return getattr(module, found[1])


def mistakes(command: str, words: list[str], given: Path) -> Iterator[list[str]]:
    """The command with one word or flag that is strange, left out, unknown, or there twice."""
    rng = np.random.default_rng(crc32(command.encode()))
    first = words.index(next((word for word in words if word.startswith("--")), words[-1]))
    yield from ([], words[:-1], words[1:], [*words, *words], [*words, "--unknown"], [*words, "more"], ["--help"])
    for flag, kind in flags_of(class_of(command)):
        if kind is bool:
            yield [*words, f"{flag}=x"]
            yield [*words, flag, flag]
            continue
        text = str(kind)
        values = PATHS if "Path" in text else NUMBERS if "int" in text or "float" in text else TEXTS
        for value in rng.choice(len(values), 1 if command == "train" else 4, replace=False):
            told = (
                str(given / values[value]) if values is PATHS and values[value] not in ("", "a\nb") else values[value]
            )
            if flag:
                yield [*words, f"{flag}={told}"] if rng.integers(2) else [*words, flag, told]
            elif first:
                place = int(rng.integers(first))
                yield [*words[:place], told, *words[place + 1 :]]


def test_every_command_is_attacked(tmp_path: Path) -> None:
    names = re.findall(r'subcommand\(name="([\w-]+)"', Path(progan.cli.__file__).read_text())
    inside = re.findall(r'subcommand\(name="([\w-]+)"', Path(progan.commands.data.__file__).read_text())
    table = commands(tmp_path, tmp_path)
    assert {command.split()[0] for command in table} == set(names)
    assert {command.split()[-1] for command in table if command.startswith("data ")} == set(inside) - {"create"}


@pytest.mark.parametrize("command", commands(Path(), Path()))
@pytest.mark.usefixtures("nothing_long")
def test_mistakes(
    command: str, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    here, work = tmp_path / "here", tmp_path / "work"
    monkeypatch.chdir(tmp_path)
    for words in mistakes(command, commands(given, work)[command], given):
        for place in (here, work):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        monkeypatch.chdir(here)
        before = listing(tmp_path), listing(given)
        try:
            with bounded():
                code, out, err = run(capsys, *command.split(), *words)
            assert code in (0, 2)
            assert "Traceback" not in err
            assert all(line.isprintable() for line in (out + err).splitlines())
            if code == 2:
                assert (listing(tmp_path), listing(given)) == before
                if err.startswith("progan: "):
                    assert err.count("\n") == 1 or "pictures cannot be used" in err
                    assert len(err) < 1000 + 2 * sum(map(len, words))
        except BaseException as error:
            error.add_note(f"progan {command} {words}")
            raise
