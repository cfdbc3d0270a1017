"""`progan evaluate` on the real command line: generators, snapshots, folders, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import progan.evaluation.subjects
from progan.cli import main
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.subjects import subjects_of
from progan.images import to_pil, write_png
from progan.training import train
from tests.conftest import write_data

pytestmark = pytest.mark.usefixtures("few_directions")


@pytest.fixture(scope="module")
def made(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its data, and pictures of another program; only to be copied."""
    path = tmp_path_factory.mktemp("made") / "place"
    data = write_data(path / "data", count=48)
    write_data(path / "gray", count=48, channels=1)
    write_data(path / "small", count=48, resolution=8)
    train(replace(make_config(), mirror=True), data, path / "run")
    (path / "pictures").mkdir()
    for i, image in enumerate(data.read(np.arange(20), 16)):
        write_png(path / "pictures" / f"{i:02d}.png", to_pil(image))
    return path


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_measured_into_its_own_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--data", "data", "--images", "16"]) == 0
    rows = lines(place / "run" / "metrics.jsonl")
    assert [row["metric"] for row in rows] == ["swd", "ms_ssim"]
    assert all(row["nimg"] == 96 and row["mirrored"] and row["images"]["fakes"] == 16 for row in rows)
    assert "SWD x1e3 average" in capsys.readouterr().out


def test_every_snapshot_has_a_row(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--data", "data", "--images", "16", "--metrics", "ms_ssim", "--all-snapshots"]) == 0
    snapshots = len(list((place / "run" / "snapshots").iterdir()))
    rows = lines(place / "run" / "metrics.jsonl")
    assert len(rows) == snapshots == len({row["nimg"] for row in rows})
    assert "reals" in capsys.readouterr().out


def test_the_images_of_any_program_are_measured(place: Path) -> None:
    assert main(["evaluate", "--fakes", "pictures", "--data", "data", "--images", "16", "--out", "found"]) == 0
    (swd, _) = lines(place / "found" / "metrics.jsonl")
    assert swd["nimg"] is None
    assert not swd["mirrored"]
    assert swd["source"] == "pictures"


def test_the_generator_works_where_it_is_told_to(place: Path) -> None:
    asked = []
    (subject,) = subjects_of(place / "run", ImagePyramid.open(place / "data"), torch.device("meta"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progan.evaluation.subjects, "fakes_of", lambda g, *_, **__: asked.append(g))
        subject.images(4)
    assert {weight.device.type for weight in asked[0].parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("run --data data", "data: holds 48 images, swd needs 24,576"),
        ("run --data gray --images 16", "has 3 channels, gray has 1"),
        ("run --data small --images 16", "images are 16x16, small holds 4 to 8 pixels"),
        ("run --data data --images 3", "--images: 3 are too few"),
        ("run --data data --metrics foo", "foo not known; use some of swd"),
        ("--data data", "give a run folder, a .safetensors file, hf://OWNER/NAME, or --fakes FOLDER"),
        ("run --fakes pictures --data data", "one of them"),
        ("--fakes pictures --data data --images 24", "20 images are too few, 24 are needed"),
        ("--fakes broken --data data --images 16", "07.png"),
        ("--fakes mixed --data data --images 16", "03.png: is 8x8, the others are 16x16"),
        ("pictures --data data --all-snapshots --images 16", "holds no snapshots"),
        ("run --data data --images 16 --metrics fid --inception-weights none.pth", "none.pth is no file; get https"),
        ("run --data data --images 16 --out pictures/00.png", "--out: pictures/00.png cannot be made a folder"),
        ("nothing --data data --images 16", "no such file"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, sentence: str
) -> None:
    for name in ("broken", "mixed"):
        (place / name).mkdir()
        for path in (place / "pictures").iterdir():
            (place / name / path.name).write_bytes(path.read_bytes())
    (place / "broken" / "07.png").write_bytes((place / "pictures" / "07.png").read_bytes()[:200])
    write_png(place / "mixed" / "03.png", to_pil(np.zeros((3, 8, 8), np.uint8)))
    capsys.readouterr()
    before = sorted(place.rglob("*"))
    assert main(["evaluate", "--out", "new/deep", *command.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(place.rglob("*")) == before
