"""Paths and labels of any letters: every command works with them or refuses them, and shows them harmlessly."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from progan.data.store.pyramid import ImagePyramid
from progan.training import fit_to_data, train
from tests.command import refused, run
from tests.conftest import write_data

NAMES = {
    "markup": "[/] [bold]x",
    "an escape sequence": "a\x1b]52;c;eA==\x07\x1b[2J",
    "a new line": "a\nb",
    "letters that turn the line": "a\u202eb\u2066c",
    "no UTF-8": os.fsdecode(b"\xff\xfe caf\xe9"),
    "an emoji's name": ":smile: %s {x}",
}

pytestmark = pytest.mark.usefixtures("few_directions")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a data set."""
    place = tmp_path_factory.mktemp("names")
    data = write_data(place / "data", count=32, labels=2)
    for i, image in enumerate(data.read(list(range(8)), 16)):  # type: ignore[arg-type]
        path = place / "pictures" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return place


def harmless(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code, out, err = run(capsys, *words)
    shown = out + err
    assert code in (0, 2), shown
    assert "Traceback" not in shown
    assert all(line.isprintable() for line in shown.splitlines()), shown
    shown.encode()
    return code, shown


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_command_in_a_folder_of_any_name(
    made: Path, name: str, tmp_path: Path, make_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / name
    shutil.copytree(made, place)
    (place / "pictures" / "class1").rename(place / "pictures" / name.replace("/", ""))
    labelled = place / "labelled"
    assert harmless(capsys, "data", "doctor", place / "pictures", "--report", place / "report.json")[0] == 0
    code, _ = harmless(capsys, "data", "create", "folder", place / "pictures", "--out", labelled, "--labels", "folders")
    if name != NAMES["no UTF-8"]:
        assert code == 0
        assert ImagePyramid.open(labelled).label_dim == 2
    for action, *flags in (("info", "--verify"), ("doctor",), ("show", "--out", place / "sheet.png")):
        assert harmless(capsys, "data", action, labelled, *flags)[0] == code
    assert harmless(capsys, "data", "export", labelled, "--to", "zip", "--out", place / "out.zip")[0] == code
    data = ImagePyramid.open(place / "data")
    train(fit_to_data(make_config(schedule={"total_nimg": 48}), data), data, place / "run")
    capsys.readouterr()
    for command in (
        ("train", "--data", place / "data", "--out", place / "run"),  # of another config
        ("generate", place / "run", "--seeds", "0-3", "--grid", "2x2", "--out", place / "images"),
        ("evaluate", place / "run", "--data", place / "data", "--images", 16),
        ("evaluate", "--fakes", place / "images", "--data", place / "data", "--images", 16),
        ("project", place / "run", place / "images" / "seed0000.png", "--out", place / "found", "--steps", 1),
        ("video", place / "run", "--out", place / "walk.gif", "--seconds", 0.2, "--grid", "1x1"),
        ("export", place / "run", "--to", "web", "--data", place / "data", "--out", place / "page.html"),
        ("track", place / "run", "--to", "tensorboard", "--out", place / "board"),
        ("import", place / "data" / "dataset.json", "--out", place / "import"),
        ("ablate", "--data", place / "data", "--out", place / "study", "--rows", "a"),
        ("modes", "--data", place / "data", "--out", place / "modes"),
        ("cifar10", "--data", place / "data", "--out", place / "cifar"),
    ):
        _, shown = harmless(capsys, *command)
        assert place.exists(), shown


@pytest.mark.parametrize("word", [*NAMES.values(), "x" * 300, "a/" * 3000, ""], ids=lambda word: repr(word[:12]))
def test_a_word_of_any_letters_where_a_name_is_expected(
    word: str, made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ("train", "--data", word, "--out", "run"),
        ("train", "--preset", word, "--data", made / "data", "--out", "run"),
        ("train", "--resolution", word),
        ("train", "--batch", word, "--dry-run"),
        ("train", f"--{word}"),
        ("train", "--init", word, "--data", made / "data", "--out", "run"),
        ("train", "--branch", word, "--data", made / "data", "--out", "run"),
        ("generate", word),
        ("generate", made / "data", "--seeds", word),
        ("project", word, made / "pictures" / "class0" / "0.png", "--out", "found"),
        ("video", word, "--out", "walk.gif"),
        ("evaluate", word, "--data", made / "data"),
        ("evaluate", "--fakes", word, "--data", made / "data"),
        ("evaluate", made / "data", "--data", word),
        ("evaluate", made / "data", "--data", made / "data", "--metrics", word),
        ("export", word, "--to", "web", "--out", "page.html"),
        ("track", word, "--to", "tensorboard", "--out", "board"),
        ("import", word, "--out", "import"),
        ("data", "create", "folder", word, "--out", "made"),
        ("data", "doctor", word),
        ("data", "info", word),
        ("data", "show", word, "--out", "sheet.png"),
        ("ablate", "--data", word, "--out", "study"),
        ("modes", "--data", word, "--out", "study"),
        ("cifar10", "--data", word, "--out", "study"),
        (word,),
    ):
        code, shown = harmless(capsys, *command)
        assert code == 2, (command, shown)
        assert not list(tmp_path.iterdir()), command


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--data", "a\nb", "--out", "run"),
        ("generate", "a\nb", "--out", "images"),
        ("import", "a\nb", "--out", "import"),
        ("data", "info", "a\nb"),
        ("data", "create", "folder", "a\nb", "--out", "made"),
    ],
)
def test_a_new_line_in_a_name_makes_no_second_line_of_the_sentence(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "a\\nb" in refused(capsys, *command)


def test_nor_does_one_in_an_error_of_the_system(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object) -> None:
        raise PermissionError(13, "Permission denied", "a\nb")

    monkeypatch.setattr("progan.commands.data.Info.run", fail)
    assert refused(capsys, "data", "info", "x") == "progan: a\\nb: cannot be used (Permission denied)\n"


@pytest.mark.parametrize("language", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_a_terminal_that_knows_few_letters(language: str, made: Path, tmp_path: Path) -> None:
    place = tmp_path / "Bücher 漢"
    shutil.copytree(made / "data", place)
    manifest = json.loads((place / "dataset.json").read_text())
    environment = {**os.environ, "LANG": language, "LC_ALL": language, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (["data", "info", str(place)], ["data", "info", str(place / "nothing")]):
        command = [sys.executable, "-m", "progan", *words]
        process = subprocess.run(command, capture_output=True, env=environment)
        shown = (process.stdout + process.stderr).decode("latin-1")
        assert process.returncode == (2 if "nothing" in words[-1] else 0), shown
        assert "Traceback" not in shown
        assert manifest["label_names"][0] in shown or "nothing" in words[-1]
