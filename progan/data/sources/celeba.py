"""CelebA, the aligned pictures at 128x128."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tyro.conf import Positional

from progan.data.pictures.decode import open_picture
from progan.data.pictures.tree import PictureFile, open_tree, shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream, Levels
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError, printable
from progan.support.plain_files import LIST_BYTES, read_plain

PICTURES = 202_599  # of the whole data set
SIZE = (178, 218)  # width and height of an aligned picture
RESOLUTION = 128
LEFT, TOP = 89 - 64, 121 - 64  # of the crop, which the official tool centres on x 89, y 121

ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
SPLITS = {"train": "0", "valid": "1", "test": "2"}

_PLACES = ("img_align_celeba_png", "img_align_celeba", "img_align_celeba.zip")
_ASK = "pass the publisher's img_align_celeba.zip, or the folder it unpacks to"


@dataclass(frozen=True, kw_only=True)
class CelebA(FileSource):
    """CelebA (Liu et al., 2015), aligned and cropped to 128x128.

    202,599 pictures of celebrities, for non-commercial research only. The publisher's page,
    mmlab.ie.cuhk.edu.hk/projects/CelebA.html, leads to img_align_celeba.zip (1.4 GB of JPEG, which need not be
    unpacked) and to img_align_celeba_png.7z (10 GB of PNG, the ones that the official tool reads; unpack them first).
    The lists for --attribute and --split, list_attr_celeba.txt and list_eval_partition.txt, are there too; they are
    looked for beside the pictures and in the publisher's folders Anno and Eval.

    Pictures come in the order of their numbers. Each is 178x218; the 128x128 pixels around x 89, y 121 are cut out
    as the official tool does, and nothing is resized.
    """

    src: Positional[Path]
    """img_align_celeba.zip, the folder it unpacks to, or the folder that holds either; beside each other, PNG
    pictures win over JPEG and a folder over a zip."""
    attribute: str | None = None
    """Make two classes of one of the 40 attributes: with Smiling, "not Smiling" and "Smiling"."""
    split: Literal["all", "train", "valid", "test"] = "all"
    """Only the pictures of one of the publisher's three parts."""

    def _open(self) -> ImageStream:
        """Raises DataError when there are no such pictures, or no such list, or it does not hold what is asked for."""
        place = _find_pictures(self.src)
        files = _list_pictures(place)
        notes = [] if len(files) == PICTURES else [f"{place}: {len(files):,} of CelebA's {PICTURES:,} pictures"]
        bad: dict[str, BadImage] = {}
        if self.split != "all":
            parts = dict(_read_partition(_find_list(place, PARTITION, f"--split {self.split}")))
            bad |= _unlisted(files, parts, PARTITION)
            files = {number: file for number, file in files.items() if parts.get(number) == SPLITS[self.split]}
        labels: dict[str, int] = {}
        if self.attribute is not None:
            listed = _find_list(place, ATTRIBUTES, f"--attribute {self.attribute}")
            labels = dict(_read_attribute(listed, self.attribute))
            bad |= _unlisted(files, labels, ATTRIBUTES)
        numbers = [number for number in files if number not in bad][: self.images]
        return ImageStream(
            resolution=RESOLUTION,
            channels=3,
            jobs=[(files[number], labels.get(number)) for number in numbers],
            total=len(numbers),
            levels=picture_levels,
            facts={
                "kind": "celeba",
                "pictures": place.name,
                "split": self.split,
                "attribute": self.attribute,
                "crop": f"{RESOLUTION}x{RESOLUTION} at left {LEFT}, top {TOP}",
            },
            label_names=None if self.attribute is None else [f"not {self.attribute}", self.attribute],
            bad=[bad[number] for number in sorted(bad)],
            notes=notes,
        )


def picture_levels(file: PictureFile) -> Levels | BadImage:
    """The face of one aligned picture at every resolution from 128 down to 4, or why it cannot be used."""
    try:
        with file.open() as encoded:
            picture = open_picture(encoded)
        if picture.size != SIZE:
            raise BadImageError(
                f"{picture.width}x{picture.height} is not {SIZE[0]}x{SIZE[1]}, the size of CelebA's aligned pictures"
            )
    except BadImageError as error:
        return BadImage(shown(file.name), str(error))
    face = np.asarray(picture)[TOP : TOP + RESOLUTION, LEFT : LEFT + RESOLUTION]  # [128, 128, 3]
    return box_pyramid(np.ascontiguousarray(face.transpose(2, 0, 1)))


def _find_pictures(src: Path) -> Path:
    for folder in (src, src / "Img"):
        for name in _PLACES:
            if (folder / name).exists():
                return folder / name
    if src.is_file() and src.suffix != ".zip":
        raise DataError(f"{src}: is no zip file and no folder; {_ASK}")
    if not src.exists():
        raise DataError(f"{src}: no such file or folder; {_ASK}")
    return src


def _list_pictures(place: Path) -> dict[str, PictureFile]:
    """Number, such as 000001, -> picture, in the order of the numbers."""
    files: dict[str, PictureFile] = {}
    for file in open_tree(place).files():
        match = re.fullmatch(r"(?:.*/)?(\d{6})\.(?:jpg|png)", file.name)
        if match is None:
            continue
        if match[1] in files:
            raise DataError(
                f"{place}: the picture {match[1]} is there twice, as {shown(files[match[1]].name)} and "
                f"{shown(file.name)}; pass the folder of one of them"
            )
        files[match[1]] = file
    if not files:
        raise DataError(f"{place}: holds no picture named like 000001.jpg; {_ASK}")
    return dict(sorted(files.items()))


def _find_list(place: Path, name: str, option: str) -> Path:
    here = place.resolve()
    for folder in (here, *here.parents[:3]):
        for path in (folder / name, folder / "Anno" / name, folder / "Eval" / name):
            if path.exists():
                return path
    raise DataError(f"{option}: needs the publisher's {name}, which is not beside {place}; put it there")


def _read_partition(path: Path) -> Iterator[tuple[str, str]]:
    """(number, "0", "1" or "2") of every picture."""
    for where, words in _rows(path):
        if len(words) != 2 or words[1] not in SPLITS.values():
            raise DataError(f"{where}: is not a picture's name and 0, 1 or 2; download the list again")
        yield words[0][:6], words[1]


def _read_attribute(path: Path, attribute: str) -> Iterator[tuple[str, int]]:
    """(number, 1 if the picture has the attribute else 0) of every picture."""
    rows = _rows(path)
    next(rows, None)  # the count
    _, names = next(rows, ("", []))
    if attribute not in names:
        raise DataError(
            f"--attribute {attribute}: is not in {path}; choose one of {printable(', '.join(names)) or 'none'}"
        )
    column = 1 + names.index(attribute)
    for where, words in rows:
        if len(words) != 1 + len(names) or words[column] not in ("-1", "1"):
            raise DataError(f"{where}: is not a picture's name and {len(names)} times -1 or 1; download the list again")
        yield words[0][:6], int(words[column] == "1")


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a line stands, and its words; empty lines are left out."""
    try:
        lines = read_plain(path, LIST_BYTES).decode("ascii").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({printable(error)}); download the list again") from error
    for count, line in enumerate(lines, 1):
        if words := line.split():
            yield f"{path}: line {count}", words


def _unlisted(files: dict[str, PictureFile], listed: dict[str, str] | dict[str, int], name: str) -> dict[str, BadImage]:
    return {
        number: BadImage(shown(file.name), f"has no line in {name}")
        for number, file in files.items()
        if number not in listed
    }
