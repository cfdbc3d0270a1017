"""What a killed process left is cleared, what another is at work on is not touched."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from progan.data.celebahq.ratings import rate
from progan.data.create import create
from progan.data.formats.export import export
from progan.data.sources.folder import Folder
from progan.data.store.partial import Partial, held
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.support.errors import DataError
from tests.attack.damage import bounded
from tests.conftest import MakeData

AT_WORK = """
import sys, time
from pathlib import Path
from progan.data.store.partial import Partial
place = Partial(Path(sys.argv[1]), kept="kept" in sys.argv, file="file" in sys.argv)
print(place.path, flush=True)
time.sleep(60)
"""


def at_work(out: Path, *how: str) -> tuple[subprocess.Popen[str], Path]:
    """Another process that has begun to make `out`, and where."""
    process = subprocess.Popen([sys.executable, "-c", AT_WORK, out, *how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def write(out: Path, **options: object) -> ImagePyramid:
    with PyramidWriter(out, resolution=4, channels=1, source={}, **options) as writer:  # type: ignore[arg-type]
        writer.append(box_pyramid(np.zeros((1, 4, 4), np.uint8)))
    return ImagePyramid.open(out)


@pytest.mark.parametrize("how", ["folder", "file"])
def test_what_a_killed_process_left_is_cleared_by_the_next(how: str, tmp_path: Path) -> None:
    process, left = at_work(tmp_path / "data", how)
    mine = tmp_path / "data.partial-of-mine"
    mine.mkdir()
    write(tmp_path / "data")
    assert left.exists()  # it is at work
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "data").rename(tmp_path / "before")
    write(tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "data", mine.name]


@pytest.mark.parametrize("to", ["zip", "folder", "tfrecords"])
def test_an_export_clears_too_and_leaves_others_alone(to: str, make_data: MakeData, tmp_path: Path) -> None:
    data, out = make_data(resolution=4), tmp_path / ("out.zip" if to == "zip" else "out")
    process, held_by_another = at_work(out)
    left = out.with_name(f"{out.name}.partial-0123abcd")
    left.mkdir()
    (left / "half").write_bytes(b"x")
    export(data, out, to, quiet=True, workers=1)  # type: ignore[arg-type]
    process.kill()
    process.wait()
    assert not left.exists()
    assert held_by_another.exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_of_two_that_could_go_on_the_second_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "data"
    process, _ = at_work(out, "kept")
    with bounded(), pytest.raises(DataError, match=r"data\.partial: another progan is at work on it"):
        write(out, identity={"kind": "x"})
    process.kill()
    process.wait()
    assert len(write(out, identity={"kind": "x"})) == 1
    assert list(tmp_path.iterdir()) == [out]


def test_it_is_refused_before_hours_of_looking_at_photographs(tmp_path: Path) -> None:
    """Where the source itself takes long: rating photographs, finding faces."""
    (tmp_path / "data.partial").mkdir()
    with held(tmp_path / "data.partial"), pytest.raises(DataError, match=r"data\.partial: another progan is at work"):
        create(Folder(src=tmp_path / "missing", out=tmp_path / "data"), quiet=True)
    path = tmp_path / "ratings.jsonl"
    path.touch()
    with held(path), pytest.raises(DataError, match=r"ratings\.jsonl: another progan is at work"):
        rate({"a": 1}, float, path=path, recipe={})
    assert rate({"a": 1}, float, path=path, recipe={}, workers=1) == ({"a": 1.0}, [])


def test_a_file_is_held_for_a_block(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    with held(path), pytest.raises(DataError, match="another progan is at work on it"), held(path):
        pass
    with held(path):
        pass


def test_without_locks_nothing_is_cleared_and_all_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("progan.data.store.partial.fcntl", None)
    left = tmp_path / "data.partial-0123abcd"
    left.mkdir()
    assert len(write(tmp_path / "data")) == 1
    assert left.exists()
    with held(left):
        pass


@pytest.mark.parametrize("out", ["", ".", "/", "a/.."])
def test_a_place_without_a_name_is_refused(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"--out: '.*' cannot be made; give the name of a new folder"):
        Partial(Path(out))
    assert not os.listdir(tmp_path)
