"""A creation that costs hours goes on where it stopped."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from progan.data.create import create
from progan.data.source import BadImage, FileSource, ImageStream, Made
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError

BAD = (3, 8)


@dataclass(frozen=True, kw_only=True)
class Slow(FileSource):
    """Twelve images, two of which are bad; job `stop` is interrupted."""

    stop: ClassVar[int] = -1
    how: ClassVar[type[BaseException]] = KeyboardInterrupt
    asked: ClassVar[list[int]] = []
    shade: int = 0

    def _open(self) -> ImageStream:
        return ImageStream(
            resolution=8,
            channels=1,
            jobs=((i, i % 3) for i in range(12)),
            total=12,
            levels=partial(self.levels_of, shade=self.shade),
            label_names=["a", "b", "c"],
            facts={"kind": "slow", "box": (1, 2)},
            resumable=True,
        )

    @classmethod
    def levels_of(cls, i: int, shade: int) -> Made | BadImage:
        if i == cls.stop:
            raise cls.how
        cls.asked.append(i)
        if i in BAD:
            return BadImage(f"{i:02}", "bad")
        return Made(box_pyramid(np.full((1, 8, 8), 10 * i + shade, np.uint8)), {"even": int(i % 2 == 0)})


def make(out, **options) -> ImagePyramid:
    return create(Slow(out=out, workers=1, **{"on_bad": "skip", **options}), quiet=True)


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """An out folder beside which a creation was left at job 9."""
    monkeypatch.setattr(Slow, "stop", 9)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "d")
    monkeypatch.setattr(Slow, "stop", -1)
    monkeypatch.setattr(Slow, "asked", [])
    assert not (tmp_path / "d").exists()
    return tmp_path / "d"


def test_the_same_data_set_and_only_the_missing_work(interrupted, tmp_path):
    made, whole = make(interrupted), make(tmp_path / "whole")
    assert Slow.asked[:3] == [9, 10, 11]
    assert len(Slow.asked) == 3 + 12
    made.verify()
    assert made.hash == whole.hash
    assert made.manifest["source"] == whole.manifest["source"]
    assert made.manifest["source"]["counts"] == {"even": 5}
    assert [bad["file"] for bad in made.manifest["source"]["left_out"]] == ["03", "08"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "whole"]
    assert not (made.path / "journal.jsonl").exists()


@pytest.mark.parametrize("cut", [1, 130, 700])
def test_files_cut_anywhere_by_a_kill(interrupted, tmp_path, cut):
    for path in interrupted.with_name("d.partial").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[: max(0, len(data) - cut)] if path.name != "images-4x4.npy" else data)
    made, whole = make(interrupted), make(tmp_path / "whole")
    assert made.hash == whole.hash
    assert made.manifest["source"] == whole.manifest["source"]


def test_other_options_are_refused_and_nothing_is_lost(interrupted):
    with pytest.raises(DataError, match=r"d\.partial: was begun with another shade"):
        make(interrupted, shade=1)
    assert len(make(interrupted)) == 10


def test_a_damaged_journal_is_named(interrupted):
    path = interrupted.with_name("d.partial") / "journal.jsonl"
    path.write_text(path.read_text().replace("{", "(", 3))
    with pytest.raises(DataError, match=r"journal\.jsonl: is damaged .* delete .*d\.partial to begin again"):
        make(interrupted)


def test_bad_images_that_shall_fail_leave_nothing(tmp_path):
    with pytest.raises(DataError, match="2 of 12 pictures cannot be used, the first being 03: bad"):
        make(tmp_path / "d", on_bad="fail")
    assert list(tmp_path.iterdir()) == []
