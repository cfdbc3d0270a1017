import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from progan.data.create import create
from progan.data.pictures.decode import BadImageError, open_picture
from progan.data.pictures.doctor import KINDS, examine, write_report
from progan.data.pictures.tree import shown
from progan.data.sources.folder import Folder
from progan.support.errors import DataError
from tests.data.nasty import SIDE, Nasty, build, quilt

MEGABYTES = 100  # more than before the first file was touched; a decoded bomb would take 1,200, half of one 400

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> tuple[Path, list[Nasty]]:
    folder = tmp_path_factory.mktemp("nasty") / "pictures"
    folder.mkdir()
    return folder, sorted(build(folder), key=lambda file: file.name)


@pytest.fixture(scope="module")
def report(nasty):
    return examine(nasty[0], workers=1, quiet=True)


def centre(pixels: np.ndarray) -> np.ndarray:
    """The middle square of [3, H, W]."""
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[:, top : top + side, left : left + side]


def test_the_folder_is_nasty_enough(nasty):
    assert len(nasty[1]) >= 90
    assert set().union(*(file.kinds for file in nasty[1])) == set(KINDS) - {"checksum", "levels", "unbalanced"}


def test_the_doctor_finds_what_is_there_and_nothing_else(nasty, report):
    found = {entry["file"]: {finding["kind"] for finding in entry["findings"]} for entry in report.files}
    assert found == {shown(file.name): set(file.kinds) for file in nasty[1] if not file.ignored}
    assert [entry["file"] for entry in report.files] == [shown(file.name) for file in nasty[1] if not file.ignored]


def test_the_report_is_the_same_for_every_run_and_number_of_workers(nasty, report, tmp_path):
    for number, again in enumerate([report, *(examine(nasty[0], workers=n, quiet=True) for n in (1, 2))]):
        write_report(again, tmp_path / f"{number}.json")
    texts = {(tmp_path / f"{number}.json").read_bytes() for number in range(3)}
    assert len(texts) == 1


@pytest.mark.parametrize("on_bad", ["skip", "fix"])
def test_every_pixel_that_is_written_is_the_right_one(nasty, tmp_path, on_bad):
    folder, files = nasty
    data = create(Folder(src=folder, out=tmp_path / "out", resolution=SIDE, on_bad=on_bad, workers=1), quiet=True)
    left_out = {entry["file"] for entry in data.manifest["source"]["left_out"]}
    expected = []
    for file in files:
        if file.pixels is None or min(file.pixels.shape[1:]) < SIDE:
            continue
        if on_bad == "fix" and "same_bytes" not in file.kinds:
            expected.append(file)
        if on_bad == "skip" and file.pixels.shape == (3, SIDE, SIDE):
            expected.append(file)
    assert left_out == {shown(file.name) for file in files if not file.ignored} - {shown(f.name) for f in expected}
    assert len(data) == len(expected) > 70
    images = data.read(np.arange(len(data)), SIDE).astype(int)
    for image, file in zip(images, expected, strict=True):
        assert abs(image - centre(file.pixels)).max() <= file.tolerance, file.name


@pytest.mark.parametrize("on_bad", ["skip", "fix"])
def test_create_does_what_the_doctor_says(nasty, report, tmp_path, on_bad):
    data = create(Folder(src=nasty[0], out=tmp_path / "out", on_bad=on_bad, workers=1), quiet=True)
    gone = {"skip": {"left out"}, "fix": {"left out", "first kept"}}[on_bad]
    told = {
        entry["file"]
        for entry in report.files
        if any(KINDS[finding["kind"]].policy()[on_bad] in gone for finding in entry["findings"])
    }
    assert {entry["file"] for entry in data.manifest["source"]["left_out"]} == told
    assert data.resolution == report.facts["resolution"]
    assert (report.facts["ignored_hidden"], report.facts["ignored_other"]) == (
        data.manifest["source"]["ignored_hidden"],
        data.manifest["source"]["ignored_other"],
    )


def test_on_bad_fail_names_them_and_writes_nothing(nasty, tmp_path):
    with pytest.raises(DataError, match="pictures cannot be used"):
        create(Folder(src=nasty[0], out=tmp_path / "out", resolution=SIDE, workers=1), quiet=True)
    assert not list(tmp_path.iterdir())


def test_no_file_starts_another_program(nasty, report, tmp_path, monkeypatch):
    def started(*_: object, **__: object) -> None:
        pytest.fail("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    for name in ("script.png", "script.eps"):
        with pytest.raises(BadImageError, match="not a picture that Pillow can read"):
            open_picture(nasty[0] / name)
    examine(nasty[0], workers=1, quiet=True)


MEASURE = """
import sys
from pathlib import Path
from progan.data.create import create
from progan.data.pictures.doctor import examine
from progan.data.sources.folder import Folder
from PIL import Image, ImageCms

def peak():  # the resource module would count the parent's memory too
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

Image.init()
before = peak()
examine(Path(sys.argv[1]), workers=1, quiet=True)
create(Folder(src=Path(sys.argv[1]), out=Path(sys.argv[2]), resolution=16, on_bad="fix", workers=1), quiet=True)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to know the peak of memory")
def test_memory_is_bounded_and_nothing_hangs(nasty, tmp_path):
    script = [sys.executable, "-c", MEASURE, os.fspath(nasty[0]), os.fspath(tmp_path / "out")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < MEGABYTES, done.stdout


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(quilt(1).transpose(1, 2, 0).astype(np.uint8)).save(file, format=kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "TGA", "QOI", "JPEG progressive"])
def test_a_file_cut_anywhere_is_refused_or_whole(kind):
    data = encoded(kind.split()[0], progressive="progressive" in kind)
    whole = np.asarray(open_picture(io.BytesIO(data)))
    refused = 0
    for length in range(0, len(data), 7):
        try:
            part = np.asarray(open_picture(io.BytesIO(data[:length])))
        except BadImageError:
            refused += 1
        else:
            assert np.array_equal(part, whole), length
    assert refused > len(data) / 7 * 0.8


def test_a_png_with_any_byte_changed_is_refused_or_whole():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(pixels).save(file, format="PNG")
    for place in range(len(file.getvalue())):
        changed = bytearray(file.getvalue())
        changed[place] ^= 0x10
        try:
            found = np.asarray(open_picture(io.BytesIO(changed)))
        except BadImageError:
            continue
        assert np.array_equal(found, pixels), place
