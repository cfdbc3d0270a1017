"""A folder of pictures, or a .zip or .tar file of them, in any format that Pillow reads."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from progan.data.pictures.decode import Crop, read_size, square_side, too_small
from progan.data.pictures.tree import PictureFile, Tree, file_levels, open_tree, shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream
from progan.data.store.manifest import MOST_CLASSES, pyramid_resolutions
from progan.support.errors import DataError, printable
from progan.support.json_reader import parse_json


@dataclass(frozen=True, kw_only=True)
class Folder(FileSource):
    """A data set from a folder of pictures, sub-folders included, or from a .zip or .tar file of pictures.

    Every format that Pillow reads will do. The EXIF orientation is applied, transparency shows white, 16-bit gray
    becomes 8-bit, of an animation the first frame counts. Hidden files and files without a picture's extension are
    counted and left out. The order is that of the names; of a tar file, its own. A data set in the layout of
    StyleGAN, with labels in its dataset.json, is read with --labels json.
    """

    src: Positional[Path]
    """Folder of image files, or a .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz file."""
    resolution: int | None = None
    """Pixels, a power of two from 4 up; by default the largest that the smallest picture fills."""
    crop: Crop = "none"
    """How to make a picture square: center cuts the long side."""
    pad: bool = False
    """Make a picture square with black borders instead."""
    labels: Literal["none", "folders", "json"] = "none"
    """folders: the first-level folder of a picture is its class; json: dataset.json holds the classes."""
    channels: Literal[1, 3] = 3
    """Colour channels of the data set."""

    def _open(self) -> ImageStream:
        """Read the names of all pictures and the header of each; `progan.data.pictures.decode` says how they decode.

        Raises DataError when `src` holds no pictures, when a picture has no class though classes are asked for, and
        for a resolution that is no power of two of at least 4.
        """
        if self.channels not in (1, 3):
            raise DataError(f"{self.channels} channels are not supported; choose 3 (RGB) or 1 (gray)")
        if self.resolution is not None:
            pyramid_resolutions(self.resolution)
        if self.pad and self.crop != "none":
            raise DataError("--crop center and --pad exclude each other; pass one of them")
        # To cut the borders off is the one way to a square that invents nothing.
        crop: Crop = "center" if self.on_bad == "fix" and not self.pad else self.crop
        tree = open_tree(self.src)
        survey = _Survey(tree, crop=crop, pad=self.pad, copies=self.on_bad == "fix", images=self.images)
        sides = {name: side for name, side in survey.sides.items() if side >= 4}
        smallest = min(sides, key=lambda name: sides[name], default="")
        resolution = self.resolution or 1 << (sides.get(smallest, 4).bit_length() - 1)
        for name, side in survey.sides.items():
            if side < resolution:
                survey.bad[name] = too_small(side, resolution)
        used = [name for name in survey.names if name not in survey.bad]
        classes, label_names = _classes(tree, survey.names, self.labels)
        notes = []
        if self.resolution is None and used:
            notes.append(f"resolution {resolution}, set by the smallest picture ({shown(smallest)})")
        return ImageStream(
            resolution=resolution,
            channels=self.channels,
            jobs=_jobs(tree, set(used), classes),
            total=len(used),
            levels=partial(file_levels, resolution=resolution, channels=self.channels, crop=crop, pad=self.pad),
            facts={
                "kind": "folder",
                "folder": self.src.resolve().name,
                "crop": crop,
                "pad": self.pad,
                "ignored_hidden": tree.hidden,
                "ignored_other": tree.other,
            },
            label_names=label_names,
            bad=[BadImage(shown(name), reason) for name, reason in sorted(survey.bad.items())],
            notes=notes,
        )


class _Survey:
    """What names and headers say: `names` in order, the side of the square each would be, and why some are bad."""

    def __init__(self, tree: Tree, *, crop: Crop, pad: bool, copies: bool, images: int | None) -> None:
        self.names: list[str] = []
        self.sides: dict[str, int] = {}
        self.bad: dict[str, str] = {}
        contents: dict[str, str] = {}
        for file in tree.files():
            if len(self.names) == images:
                continue  # the others are only counted
            self.names.append(file.name)
            try:
                with file.open() as opened:
                    self.sides[file.name] = square_side(read_size(opened), crop=crop, pad=pad)
                    if copies:
                        opened.seek(0)
                        digest = hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]
                        first = contents.setdefault(digest, file.name)
                        if first != file.name:
                            self.bad[file.name] = f"the same bytes as {shown(first)}"
                            del self.sides[file.name]
            except BadImageError as error:
                self.bad[file.name] = str(error)
        if not self.names:
            raise DataError(
                f"{tree.src}: holds no pictures ({tree.other} other and {tree.hidden} hidden files were ignored); "
                "pass a folder of pictures"
            )


def _jobs(tree: Tree, used: set[str], classes: dict[str, int]) -> Iterator[tuple[PictureFile, int | None]]:
    for file in tree.files():
        if file.name in used:
            yield file, classes.get(file.name)


def _classes(tree: Tree, names: list[str], labels: str) -> tuple[dict[str, int], list[str] | None]:
    """The class index of every picture, and the names of the classes."""
    if labels == "none":
        return {}, None
    if labels == "json":
        return _json_classes(tree, names)
    loose = [name for name in names if "/" not in name]
    if loose:
        raise DataError(
            f"{tree.src}: pictures outside all class folders: {len(loose)}, the first being {shown(loose[0])}; "
            "move them into folders or leave out --labels folders"
        )
    of = {name: shown(name.split("/")[0]) for name in names}
    found = sorted(set(of.values()))
    index = {name: i for i, name in enumerate(found)}
    return {name: index[of[name]] for name in names}, found


def _json_classes(tree: Tree, names: list[str]) -> tuple[dict[str, int], list[str] | None]:
    """The classes in a dataset.json of StyleGAN's layout: {"labels": [["00000/img00000000.png", 6], ...]}."""
    path = tree.src / "dataset.json"
    data = tree.read("dataset.json")
    if data is None:
        raise DataError(f"{path}: is missing; leave out --labels json, or take --labels folders")
    try:
        content = parse_json(data, dict[str, Any])
        pairs = content["labels"]
        found = dict(pairs.items() if isinstance(pairs, dict) else pairs)
        named: Any = content.get("label_names")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{path}: needs {{"labels": [["00000/img00000000.png", 6], ...]}} with a class index for every picture; '
            "leave out --labels json to do without"
        ) from error
    for name in names:
        label = found.get(name)
        if type(label) is not int or not 0 <= label < MOST_CLASSES:
            what = (
                "has no label" if label is None else f"has the label {printable(repr(label))}, which is no class index"
            )
            raise DataError(f"{path}: {shown(name)} {what}; give every picture one, or leave out --labels json")
    count = max(found[name] for name in names) + 1
    if isinstance(named, list) and len(named) >= count:
        return found, [str(name) for name in named]
    return found, [str(i) for i in range(count)]
