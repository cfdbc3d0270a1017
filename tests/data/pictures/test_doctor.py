import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from progan.data.create import create
from progan.data.pictures.doctor import Report, examine, report_table, write_report
from progan.data.pictures.duplicates import near_groups, shapes_and_thumb
from progan.data.sources.folder import Folder
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.support.errors import DataError
from tests.command import on_screen


def scene(seed: int, side: int = 64) -> Image.Image:
    """Smooth shapes, as photos have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def look(src: Path, **options) -> Report:
    return examine(src, **{"workers": 1, "quiet": True, **options})


def findings(report: Report) -> dict[str, list[tuple[str, str]]]:
    return {entry["file"]: [(f["kind"], f["detail"]) for f in entry["findings"]] for entry in report.files}


def write_set(out: Path, images: list[np.ndarray], labels: list[int] | None = None, names: int = 0) -> Path:
    with PyramidWriter(
        out,
        resolution=images[0].shape[-1],
        channels=len(images[0]),
        source={"kind": "test"},
        label_names=[f"class {i}" for i in range(names)] if names else None,
    ) as writer:
        for index, image in enumerate(images):
            writer.append(box_pyramid(image), labels[index] if labels else None)
    return out


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.fixture
def src(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    return folder


def test_sound_pictures_have_no_findings(src):
    for seed in range(5):
        scene(seed).save(src / f"{seed}.png")
    report = look(src)
    assert all(not found for found in findings(report).values())
    assert report.by_kind() == {}
    assert report.files[0] == {
        "file": "0.png",
        "width": 64,
        "height": 64,
        "format": "PNG",
        "mode": "RGB",
        "findings": [],
    }
    assert "all can be used" in on_screen(report_table(report))


def test_copies_name_the_first_of_their_kind(src):
    for seed in range(3):
        scene(seed).save(src / f"{seed}.png")
    shutil.copy(src / "1.png", src / "9 copy.png")
    scene(1).save(src / "9 other.bmp")
    scene(2).save(src / "9 near.jpg", quality=60)
    scene(0).resize((48, 48), Image.Resampling.LANCZOS).point(lambda v: v * 0.98 + 2).save(src / "9 small.png")
    assert {name: found for name, found in findings(look(src)).items() if found} == {
        "9 copy.png": [("same_bytes", "1.png")],
        "9 near.jpg": [("near", "2.png")],
        "9 other.bmp": [("same_pixels", "1.png")],
        "9 small.png": [("near", "0.png"), ("small", "48x48, but most fill 64x64")],
    }


def test_look_alikes_in_outline_or_in_colour_only_are_told_apart():
    flat = [Image.new("RGB", (64, 64), (level, level, level)) for level in (0, 60, 120, 180)]
    steps = []
    for low in (0, 60, 120):  # the same shapes, so nearly the same hash
        step = Image.new("RGB", (64, 64), (low, low, low))
        step.paste((low + 20,) * 3, (32, 0, 64, 64))
        steps.append(step)
    looks = [shapes_and_thumb(picture) for picture in [*flat, *steps, steps[1].filter(ImageFilter.GaussianBlur(1))]]
    hashes = np.array([code for code, _ in looks], np.uint64)
    thumbs = np.stack([np.frombuffer(thumb, np.uint8) for _, thumb in looks])
    assert len(set(hashes.tolist())) < len(looks)  # hashes alone would join them
    assert near_groups(hashes, thumbs).tolist() == [0, 1, 2, 3, 4, 5, 6, 5]


def slow_groups(hashes: np.ndarray, thumbs: np.ndarray) -> list[int]:
    """All pairs, then the smallest index that can be reached over pairs."""
    count = len(hashes)
    groups = list(range(count))
    pairs = []
    for i in range(count):
        for j in range(i):
            bits = (int(hashes[i]) ^ int(hashes[j])).bit_count()
            rms = np.sqrt(((thumbs[i].astype(float) - thumbs[j]) ** 2).mean())
            if bits <= 3 and rms <= 8:
                pairs.append((i, j))
    for _ in range(count):
        for i, j in pairs:
            groups[i] = groups[j] = min(groups[i], groups[j])
    return groups


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_comparing_all_pairs(seed):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 12).astype(np.uint64)
    hashes = centres[rng.integers(0, 12, 150)]
    for _ in range(3):
        hashes ^= np.where(rng.random(150) < 0.7, np.uint64(1) << rng.integers(0, 64, 150).astype(np.uint64), 0)
    thumbs = (rng.integers(0, 3, (150, 1)) * 40 + rng.integers(0, 20, (150, 48))).astype(np.uint8)
    groups = near_groups(hashes, thumbs)
    assert groups.tolist() == slow_groups(hashes, thumbs)
    assert 12 < len(set(groups.tolist())) < 140


def test_no_pictures_make_no_groups():
    assert near_groups(np.zeros(0, np.uint64), np.zeros((0, 192), np.uint8)).tolist() == []


def test_sizes_and_the_resolution_they_allow(src, tmp_path):
    for index, (width, height) in enumerate([(70, 70), (64, 64), (64, 64), (128, 100), (40, 40), (3, 3), (2, 9)]):
        scene(index, 128).resize((width, height)).save(src / f"{index}.png")
    facts = look(src).facts
    assert facts["sizes"] == {"64x64": 2, "2x9": 1, "3x3": 1, "40x40": 1, "70x70": 1, "128x100": 1}
    assert facts["resolution_most_fill"] == 64
    assert facts["levels"] == [
        {"resolution": 4, "square": 4, "cropped": 5},
        {"resolution": 8, "square": 4, "cropped": 5},
        {"resolution": 16, "square": 4, "cropped": 5},
        {"resolution": 32, "square": 4, "cropped": 5},
        {"resolution": 64, "square": 3, "cropped": 4},
    ]
    data = create(Folder(src=src, out=tmp_path / "out", on_bad="skip", workers=1), quiet=True)
    assert facts["resolution"] == data.resolution == 32
    assert len(data) == facts["levels"][3]["square"]
    assert "64x64: 2, 2x9: 1, 3x3: 1, 40x40: 1, 70x70: 1, and 1 more" in on_screen(report_table(look(src)))


def test_an_archive_has_the_findings_of_the_folder(src, tmp_path):
    scene(0).save(src / "a.png")
    scene(0).convert("P").save(src / "b.gif")
    (src / "c.png").write_bytes(b"no")
    (src / "d.txt").write_bytes(b"text")
    with zipfile.ZipFile(tmp_path / "src.zip", "w") as file, tarfile.open(tmp_path / "src.tar.gz", "w:gz") as tar:
        for path in sorted(src.iterdir()):
            file.write(path, path.name)
            tar.add(path, path.name)
    reports = [look(tmp_path / name) for name in ("src", "src.zip", "src.tar.gz")]
    for report in reports:
        assert report.facts.pop("name") in ("src", "src.zip", "src.tar.gz")
        assert report == reports[0]
    assert [kind for kind, _ in findings(reports[0])["c.png"]] == ["unreadable"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no such folder"),
        ("file.txt", "is a file, not a folder"),
        ("broken.zip", "cannot be read as an archive"),
        ("empty", "holds no pictures"),
        ("half", "half-written"),
    ],
)
def test_what_cannot_be_read_at_all(tmp_path, name, message):
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "broken.zip").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half/images-4x4.npy").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        look(tmp_path / name)


def test_pictures_beside_a_foreign_dataset_json_are_pictures(src):
    scene(0).save(src / "a.png")
    (src / "dataset.json").write_text(json.dumps({"labels": [["a.png", 0]]}))
    assert look(src).facts["kind"] == "pictures"


def test_the_report_file_says_what_create_does(src, tmp_path):
    scene(0, 64).crop((0, 0, 64, 48)).save(src / "wide [b].png")
    scene(1).save(src / "a.png")
    write_report(look(src), tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_bytes())
    assert content["format"] == "progan data report"
    assert content["kinds"]["not_square"] == {
        "title": "not square",
        "severity": "bad",
        "files": 1,
        "create": {"fail": "stops", "skip": "left out", "fix": "cropped"},
        "mend": "--crop center or --pad",
    }
    assert content["files"][1]["findings"][0] == {"kind": "not_square", "detail": "64x48"}
    screen = on_screen(report_table(look(src)))
    assert "wide [b].png" in screen  # not taken for markup
    assert "stops | left out | cropped" in screen
    assert "1 of 2 cannot be used as they are" in screen
    with pytest.raises(Exception, match=r"cannot be written|No such file"):
        write_report(look(src), tmp_path / "missing" / "report.json")


def test_nothing_is_changed(src):
    scene(0).save(src / "a.png")
    (src / "b.png").write_bytes(b"no")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in src.iterdir()}
    look(src)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in src.iterdir()} == before


def test_a_sound_data_set_has_no_findings(tmp_path):
    data = write_set(tmp_path / "data", [pixels(scene(seed, 32)) for seed in range(6)])
    report = look(data)
    assert report.facts["kind"] == "data set"
    assert report.facts["images"] == 6
    assert report.facts["hash"] == ImagePyramid.open(data).hash
    assert [entry["file"] for entry in report.files] == ["dataset.json", *(f"image {i}" for i in range(6))]
    assert report.by_kind() == {}
    assert look(data, workers=2) == report
    assert "every file matches the manifest" in on_screen(report_table(report))


@pytest.mark.parametrize("channels", [1, 3])
def test_findings_in_a_data_set(tmp_path, channels):
    images = [pixels(scene(seed, 32))[:channels] for seed in range(30)]
    images[7] = images[2]
    images[8] = (images[3] * 0.98 + 2).astype(np.uint8)
    images[9] = np.full_like(images[0], 40)
    data = write_set(tmp_path / "data", images, [0] * 28 + [1] * 2, names=2)
    assert {name: found for name, found in findings(look(data)).items() if found} == {
        "dataset.json": [("unbalanced", "2 to 28 images a class")],
        "image 7": [("same_pixels", "image 2")],
        "image 8": [("near", "image 3")],
        "image 9": [("blank", f"RGB {[40, 40, 40]}")],
    }
    assert look(data).facts["labels"] == {"class 0": 28, "class 1": 2}


def test_changed_bytes_are_found(tmp_path):
    data = write_set(tmp_path / "data", [pixels(scene(seed, 16)) for seed in range(3)])
    path = data / "images-8x8.npy"
    content = bytearray(path.read_bytes())
    content[128 + 192 + 5] ^= 1  # in image 1
    path.write_bytes(content)
    found = findings(look(data))
    assert found["dataset.json"][0][0] == "checksum"
    assert os.fspath(path) in found["dataset.json"][0][1]
    assert found["image 1"] == [("levels", "8")]
    assert "the data set is damaged" in on_screen(report_table(look(data)))
    assert "--on-bad" not in on_screen(report_table(look(data)))


def test_levels_made_in_another_way_are_found(tmp_path):
    levels = box_pyramid(pixels(scene(0, 16)))
    levels[4] = levels[16][:, ::4, ::4].copy()
    with PyramidWriter(tmp_path / "data", resolution=16, channels=3, source={"kind": "test"}) as writer:
        writer.append(levels)
    assert findings(look(tmp_path / "data")) == {"dataset.json": [], "image 0": [("levels", "4")]}
