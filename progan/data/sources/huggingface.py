"""A data set of the Hugging Face hub, or one of theirs on disk."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from progan.data.pictures.decode import Crop, read_size, square_side
from progan.data.pictures.tree import PictureFile, file_levels, shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream
from progan.data.store.manifest import pyramid_resolutions
from progan.support.errors import DataError

UNNAMED_SPLIT = "train"  # what a data set without a split's name is taken for


@dataclass(frozen=True, kw_only=True)
class HuggingFace(FileSource):
    """A data set of the Hugging Face hub (huggingface.co/datasets), or one on disk in their formats.

    Needs the package datasets: pip install "progan[huggingface]". What is on the hub is loaded to that package's
    cache, ~/.cache/huggingface, and so is a second copy of parquet and arrow files; what `Dataset.save_to_disk` wrote
    is read in place. Code that comes with a data set is never run. The licence is told by the data set's page.

    Images come in the order of the rows and are decoded and resized as those of a folder.
    """

    src: Positional[str]
    """A name on the hub, such as uoft-cs/cifar10; or a folder that `Dataset.save_to_disk` wrote; or a
    folder of parquet, arrow or picture files."""
    subset: str | None = None
    """Which subset, where the hub offers several."""
    split: str = UNNAMED_SPLIT
    """Which split; a data set that names none is one split, train."""
    image_column: str | None = None
    """Which column holds the images; by default the only one that the data set declares to be images."""
    label_column: str | None = None
    """Make classes of this column, of class labels or of integers; without labels by default."""
    resolution: int | None = None
    """Of the images, a power of two; by default the largest that the smallest image fills."""
    channels: Literal[3, 1] = 3
    """3 is RGB, 1 gray."""
    crop: Crop = "none"
    """What to do about an image that is not square: center cuts the largest centred square."""
    pad: bool = False
    """Add black bars to an image that is not square."""

    def _open(self) -> ImageStream:
        """Raises DataError for options that make no sense, a data set that cannot be loaded, and wrong columns."""
        if self.resolution is not None:
            pyramid_resolutions(self.resolution)
        if self.pad and self.crop != "none":
            raise DataError("--crop center and --pad exclude each other; pass one of them")
        # To cut the borders off is the one way to a square that invents nothing.
        crop: Crop = "center" if self.on_bad == "fix" and not self.pad else self.crop
        dataset = _pick_split(self.src, _load(self.src, self.subset), self.split)
        if self.images is not None:
            dataset = dataset.select(range(min(self.images, len(dataset))))
        if len(dataset) == 0:
            raise DataError(f"{self.src}: its split {self.split} has no rows")
        column = self.image_column or _image_column(self.src, dataset)
        rows = _encoded_images(self.src, dataset, column)
        labels: list[int | None] = [None] * len(dataset)
        label_names, bad = None, []
        if self.label_column is not None:
            labels, label_names = _labels(self.src, dataset, self.label_column)
            bad = [
                BadImage(f"row {row}", f"has no label in the column {self.label_column}")
                for row, label in enumerate(labels)
                if label is None
            ]
        resolution, notes = self.resolution, []
        if resolution is None:
            side, smallest = _smallest_side(rows, crop=crop, pad=self.pad)
            resolution = 1 << (side.bit_length() - 1)
            notes = [f"resolution {resolution}, set by the smallest image ({smallest})"]
        return ImageStream(
            resolution=resolution,
            channels=self.channels,
            jobs=_jobs(rows, labels, labelled=label_names is not None),
            total=len(dataset) - len(bad),
            levels=partial(file_levels, resolution=resolution, channels=self.channels, crop=crop, pad=self.pad),
            facts={
                "kind": "huggingface",
                "dataset": Path(self.src).resolve().name if Path(self.src).exists() else self.src,
                "subset": self.subset,
                "split": self.split,
                "image_column": column,
                "label_column": self.label_column,
                "crop": crop,
                "pad": self.pad,
            },
            label_names=label_names,
            bad=bad,
            notes=notes,
        )


def _load(src: str, subset: str | None) -> dict[str, Any]:
    """Split -> datasets.Dataset."""
    datasets = _datasets()
    folder = Path(src)
    if folder.is_file():
        raise DataError(f"{src}: is a file; pass its folder")
    if not folder.exists() and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", src):
        raise DataError(
            f"{src}: no such folder, and no name that the hub allows; pass a folder or a name like uoft-cs/cifar10"
        )
    saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    if saved and subset is not None:
        raise DataError(f"{src}: was saved to disk without subsets; leave out --subset")
    try:
        loaded = datasets.load_from_disk(src) if saved else datasets.load_dataset(src, subset)
    except Exception as error:  # of the hub, of the connection and of every file format
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        where = "a data set" if folder.exists() else "a folder here, nor loaded from the hub"
        raise DataError(f"{src}: cannot be read as {where} ({reason}); check the name and what is there") from error
    return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or UNNAMED_SPLIT): loaded}


def _pick_split(src: str, splits: dict[str, Any], split: str) -> Any:
    if split not in splits:
        raise DataError(f"{src}: has no split {split}; pass --split with one of {', '.join(splits)}")
    return splits[split]


def _image_column(src: str, dataset: Any) -> str:
    kind = _datasets().Image
    found = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        columns = ", ".join(shown(f"{name} ({_type_name(feature)})") for name, feature in dataset.features.items())
        raise DataError(
            f"{src}: declares {len(found) or 'no'} columns to be images; pass --image-column with one of its "
            f"columns: {columns}"
        )
    return found[0]


def _encoded_images(src: str, dataset: Any, column: str) -> Any:
    """The rows of one column, as the bytes or the path of a picture file each."""
    _check_column(src, dataset, column, "--image-column")
    try:
        return dataset.select_columns([column]).cast_column(column, _datasets().Image(decode=False))
    except Exception as error:  # pyarrow's own, one for each pair of types
        raise DataError(
            f"{src}: its column {column} is of type {_type_name(dataset.features[column])}, which holds no encoded "
            "images; pass another --image-column"
        ) from error


def _labels(src: str, dataset: Any, column: str) -> tuple[list[int | None], list[str]]:
    """The class index of every row, None where there is none, and the names of the classes."""
    _check_column(src, dataset, column, "--label-column")
    feature = dataset.features[column]
    values = dataset.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    if isinstance(feature, _datasets().ClassLabel):
        names = list(feature.names)
        return [value if value is not None and 0 <= value < len(names) else None for value in values], names
    if not re.fullmatch(r"u?int\d+", _type_name(feature)):
        raise DataError(
            f"{src}: its column {column} is of type {_type_name(feature)}; --label-column takes class labels "
            "or integers"
        )
    classes = sorted({value for value in values if value is not None})
    index = {value: position for position, value in enumerate(classes)}
    return [index.get(value) for value in values], [str(value) for value in classes]


def _check_column(src: str, dataset: Any, column: str, option: str) -> None:
    if column not in dataset.features:
        raise DataError(f"{src}: has no column {column}; pass {option} with one of {', '.join(dataset.features)}")


def _files(rows: Any) -> Iterator[PictureFile]:
    for number, row in enumerate(rows):
        (image,) = row.values()
        image = image or {"bytes": b"", "path": None}
        path = Path(image["path"] or "")
        name = f"row {number}" + (f" ({shown(path.name)})" if path.name else "")
        yield PictureFile(name, path, data=image["bytes"])


def _jobs(rows: Any, labels: list[int | None], *, labelled: bool) -> Iterator[tuple[PictureFile, int | None]]:
    for file, label in zip(_files(rows), labels, strict=True):
        if not labelled or label is not None:
            yield file, label


def _smallest_side(rows: Any, *, crop: Crop, pad: bool) -> tuple[int, str]:
    """The side of the smallest image of at least 4x4, and which it is, by the headers; 4 if none can be read."""
    smallest = (0, "none can be read")
    for file in _files(rows):
        try:
            with file.open() as encoded:
                side = square_side(read_size(encoded), crop=crop, pad=pad)
        except BadImageError:
            continue  # told when it is decoded
        if side >= 4 and (side < smallest[0] or not smallest[0]):
            smallest = (side, file.name)
    return max(smallest[0], 4), smallest[1]


def _type_name(feature: Any) -> str:
    return str(feature.dtype) if isinstance(feature, _datasets().Value) else type(feature).__name__


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            'a Hugging Face data set needs the package datasets; run: pip install "progan[huggingface]"'
        ) from error
    return datasets
