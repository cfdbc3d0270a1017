import builtins
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from progan.data.create import create, describe
from progan.data.sources import faces
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError
from progan.support.workers import work
from tests.attack.damage import bounded
from tests.command import on_screen

pytest.importorskip("dicebear")
pytest.importorskip("resvg_py")

ROOT = Path(__file__).parents[3]


def create_faces(out, *, command="", quiet=False, **options) -> ImagePyramid:
    return create(faces.Faces(out=out, **options), command=command, quiet=quiet)


def everything(data: ImagePyramid, resolution: int) -> np.ndarray:
    return data.read(np.arange(len(data)), resolution)


def test_a_seed_is_a_face_whatever_the_workers_and_the_count(tmp_path):
    alone = create_faces(tmp_path / "a", count=20, resolution=16, workers=1, quiet=True)
    pooled = create_faces(tmp_path / "b", count=20, resolution=16, workers=2, quiet=True)
    later = create_faces(tmp_path / "c", count=7, resolution=16, first_seed=15, workers=1, quiet=True)
    assert alone.hash == pooled.hash != later.hash
    for r in (4, 8, 16):
        assert np.array_equal(everything(alone, r)[15:], everything(later, r)[:5])
    assert not np.array_equal(everything(alone, 16)[:7], everything(later, 16))
    for data in (alone, pooled, later):
        data.verify()


@pytest.mark.parametrize("resolution", [16, 256])
def test_faces_are_many_and_colourful(resolution):
    pixels = np.stack([faces.render_face(seed, resolution) for seed in range(12)])
    assert pixels.shape == (12, 3, resolution, resolution)
    assert pixels.dtype == np.uint8
    assert len({image.tobytes() for image in pixels}) == 12
    backgrounds = {tuple(corner) for corner in pixels[:, :, 0, 0].tolist()}
    palette = {tuple(bytes.fromhex(colour[1:])) for colour in faces.BACKGROUNDS}
    assert backgrounds <= palette
    assert len(backgrounds) >= 4
    middle = pixels[:, :, resolution // 2, resolution // 2]  # skin, not background
    assert not {tuple(colour) for colour in middle.tolist()} & palette


def test_loose_faces_are_the_same_faces_elsewhere(tmp_path):
    """Where a face's parts are differs from seed to seed; its colours do not change."""
    still, loose = (
        np.stack([faces.render_face(seed, 64, loose=loose) for seed in range(40)]) for loose in (False, True)
    )
    assert (still[:, :, 0, 0] == loose[:, :, 0, 0]).all(1).mean() > 0.7  # the background, where no hair is
    columns = []  # the mean column of what is no background, [40] each
    for images in (still, loose):
        drawn = np.abs(images - images[:, :, :1, :1].astype(float)).max(1) > 40  # [40, 64, 64]
        columns.append((drawn * np.arange(64)).sum((1, 2)) / drawn.sum((1, 2)))
    assert columns[0].std() < 2
    assert columns[1].std() > 4
    data = create_faces(tmp_path / "d", count=3, resolution=64, loose=True, quiet=True)
    assert data.manifest["source"]["loose"] is True
    assert "turned" in data.manifest["attribution"]["changes"]
    assert np.array_equal(everything(data, 64), loose[:3])


def test_anti_aliasing_matches_a_much_larger_drawing():
    errors = [
        box_pyramid(faces.render_face(seed, 256))[32].astype(float) - faces.render_face(seed, 32) for seed in range(6)
    ]
    assert np.sqrt(np.square(errors).mean()) < 2.2  # of 255; drawing straight at 32x32 gives 3.3


def test_the_manifest_names_the_artist_and_the_licence(tmp_path):
    data = create_faces(tmp_path / "d", count=1, resolution=4, first_seed=9, command="progan x", quiet=True)
    manifest = data.manifest
    assert manifest["command"] == "progan x"
    assert manifest["source"]["style"] == "toon-head"
    assert manifest["source"]["first_seed"] == 9
    assert set(manifest["source"]["packages"]) == {"dicebear-core", "dicebear-styles", "resvg-py"}
    credits = manifest["attribution"]
    assert credits["creator"] == "Johan Melin"
    assert credits["licence"] == "CC BY 4.0"
    assert credits["licence_url"] == "https://creativecommons.org/licenses/by/4.0/"
    assert credits["source"] == "https://www.figma.com/community/file/1589627891082866389"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resolution": 48}, "resolution 48 is not a power of two"),
        ({"resolution": 2}, "too small"),
        ({"count": 0}, "at least 1"),
        ({"first_seed": -1}, "negative"),
        ({"count": 10**20}, "100000000000000000000 images fit on no disk; ask for at most 1,000,000,000"),
        ({"workers": 0}, "0 worker processes cannot work; ask for 1 to 1,024"),
        ({"workers": 10**20}, "100000000000000000000 worker processes cannot work; ask for 1 to 1,024"),
    ],
)
def test_wrong_arguments(tmp_path, wrong, message):
    with bounded(), pytest.raises(DataError, match=message):
        create_faces(tmp_path / "d", **{"count": 1, "resolution": 16, "quiet": True, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "resvg_py":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    faces.check_installed.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r'pip install "progan\[faces\]"'):
        create_faces(tmp_path / "d", count=1, resolution=16)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def importable(monkeypatch):
    """Worker processes find the functions below by the name of this module."""
    monkeypatch.syspath_prepend(str(ROOT))


def slow_square(number: int) -> int:
    time.sleep(0.002 * (5 - number % 5))  # later jobs finish first
    return number**2


def fails_at_three(number: int) -> int:
    if number == 3:
        raise DataError("three")
    return number


def dies(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_order_and_few_jobs_are_in_flight(importable):
    taken = []

    def jobs():
        for number in range(60):
            taken.append(number)
            yield number

    stream = work(slow_square, jobs(), total=60, together=4, workers=2, quiet=True)
    assert next(stream) == 0
    assert len(taken) <= 2 * 2 * 4
    assert list(stream) == [n**2 for n in range(1, 60)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_reaches_the_caller(importable, workers):
    with pytest.raises(DataError, match="three"):
        list(work(fails_at_three, range(8), total=8, together=1, workers=workers, quiet=True))


def test_worker_processes_start_light():
    modules = ["__main__", "support.workers", "data.store.row_files", "data.pictures.tree", "data.sources.faces"]
    imports = ", ".join(f"progan.{name}" for name in modules)
    script = f"import sys, {imports}; print({{'rich', 'tyro', 'torch'}} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_dead_worker_is_one_sentence(importable):
    with pytest.raises(DataError, match="a worker process died; pass --workers 1"):
        list(work(dies, range(8), total=8, together=16, workers=2, quiet=True))


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(seed, resolution, loose):
        if seed == 2:
            raise KeyboardInterrupt
        return box_pyramid(np.zeros((3, resolution, resolution), np.uint8))

    monkeypatch.setattr(faces, "face_levels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_faces(tmp_path / "d", count=9, resolution=16, workers=1, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_lines_instead_of_a_bar_without_a_terminal(tmp_path, capsys):
    create_faces(tmp_path / "d", count=2, resolution=4, workers=1)
    assert "2 of 2 images" in capsys.readouterr().err


def test_describe_shows_what_matters(tmp_path):
    data = create_faces(tmp_path / "d", count=3, resolution=16, command="progan [red]", quiet=True)
    text = on_screen(describe(data))
    for part in (
        "3 x 16 x 16",
        data.hash,
        "CC BY 4.0",
        "Johan Melin",
        "images-8x8.npy",
        "3 x 3 x 8 x 8",
        "progan [red]",
    ):
        assert part in text


def test_a_killed_creation_leaves_neither_a_data_set_nor_workers(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from progan.data.create import create\nfrom progan.data.sources.faces import Faces\n"
        "if __name__ == '__main__':\n"
        "    create(Faces(out=Path(sys.argv[1]), count=100_000, resolution=64, workers=2), quiet=True)\n"
    )
    (tmp_path / "script.py").write_text(script)
    out = tmp_path / "out"
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(out / "d")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not any(f.stat().st_size > 10_000 for f in out.glob("d.partial-*/images-64x64.npy")):
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    for folder in (out / "d", *out.iterdir()):
        with pytest.raises(DataError):
            ImagePyramid.open(folder)
    with suppress(ProcessLookupError):  # raised once the process group is empty
        while time.monotonic() < deadline:
            os.killpg(parent.pid, 0)
            time.sleep(0.05)
        os.killpg(parent.pid, signal.SIGKILL)
        pytest.fail("workers outlive their parent")


def test_of_very_many_classes_the_first_are_shown(make_data):
    text = on_screen(describe(make_data(count=60, resolution=4, labels=50)))
    assert "class39" in text
    assert "class40" not in text
    assert "and 10 more; 1 to 2 images each" in text
