"""Export a data set for other programs: as the official TFRecords, or as PNG files in a folder or a zip."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from progan.data.formats.tfrecord import encode_example, encode_record
from progan.data.store.partial import Partial, remove
from progan.data.store.pyramid import ImagePyramid
from progan.support.errors import DataError
from progan.support.files import disk_reason, sync_folder
from progan.support.workers import images_together, work

Format = Literal["tfrecords", "folder", "zip"]
Encode = Callable[[Callable[..., Any], Iterator[Any]], Generator[Any, None, None]]  # by all cores, with progress


def export(
    data: ImagePyramid, out: str | os.PathLike[str], to: Format, *, quiet: bool = False, workers: int | None = None
) -> Path:
    """Write every image of `data` to `out`, a new folder or .zip file, and return its path.

    tfrecords: a folder of NAME-r02.tfrecords (4x4), NAME-r03.tfrecords (8x8), ..., and NAME-rxx.labels when there are
    labels, NAME being that of the folder; byte for byte what the official TensorFlow tool writes for these images.
    folder: the full resolution as 00000/img00000000.png, ..., a thousand to a folder, or as CLASS/img00000000.png
    when there are labels, and dataset.json as StyleGAN2-ADA and later read it, with the names of the classes and the
    credits. zip: the same without folders of classes, uncompressed, so that the order stays when it is read back.

    Nothing is at `out` before everything is. `workers` None takes every core; `quiet` leaves out the progress.
    Raises DataError for an `out` that holds files, a zip by another name than *.zip, and a full or read-only disk.
    """
    out = Path(os.path.abspath(out))
    if to == "zip" and out.suffix != ".zip":
        raise DataError(f"{out}: a zip must be called so for others to know it; choose {out.name}.zip")
    if out.exists() and (to == "zip" or not out.is_dir()):
        raise DataError(f"{out}: is there already; delete it or choose another name")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: already holds files; delete it or choose another folder")
    encode = partial(work, total=data.count, together=images_together(data.resolution), workers=workers, quiet=quiet)
    place: Partial | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = Partial(out, file=to == "zip")
        unfinished = place.path
        if to == "tfrecords":
            _write_tfrecords(data, unfinished, out.name, encode)
        elif to == "folder":
            _write_folder(data, unfinished, encode)
        else:
            _write_zip(data, unfinished, encode)
        if hasattr(os, "sync"):
            os.sync()  # after a power cut the content must be there if the name is
        if out.is_dir():
            out.rmdir()
        if to == "zip":
            out.open("xb").close()  # of two exports to one name the first has it; renaming would replace it
        unfinished.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        reason = disk_reason(error) or error
        raise DataError(f"{out}: cannot be written ({reason}); free some space or choose another folder") from error
    finally:
        if place is not None:
            remove(place.path)
            place.close()
    return out


def folder_names(label_names: list[str]) -> list[str]:
    """The names of classes as folders of any file system: what may trouble one becomes _, and no two are alike."""
    folders: list[str] = []
    taken: set[str] = set()
    for index, name in enumerate(label_names):
        folder = re.sub(r"[^\w\-+,()&' .]", "_", name)[:60].strip(". ") or "class"
        while folder.casefold() in taken:
            folder = f"{folder}-{index}"
        taken.add(folder.casefold())
        folders.append(folder)
    return folders


def _write_tfrecords(data: ImagePyramid, folder: Path, prefix: str, encode: Encode) -> None:
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / f"{prefix}-r{r.bit_length() - 1:02}.tfrecords").open("wb"))
            for r in data.resolutions
        ]
        images = ([data.read(np.array([i]), r)[0] for r in data.resolutions] for i in range(data.count))
        for records in stack.enter_context(closing(encode(_records, images))):
            for file, record in zip(files, records, strict=True):
                file.write(record)
    if data.label_names is None:
        return
    with (folder / f"{prefix}-rxx.labels").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (data.count, data.label_dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in _one_hot(data):
            file.write(rows.tobytes())


def _write_folder(data: ImagePyramid, folder: Path, encode: Encode) -> None:
    for name, content in _files(data, encode, by_class=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _write_zip(data: ImagePyramid, path: Path, encode: Encode) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # stored, since PNG files are compressed already
        for name, content in _files(data, encode, by_class=False):
            entry = zipfile.ZipInfo(name)  # of 1980, so that the same data set gives the same zip
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def _files(data: ImagePyramid, encode: Encode, *, by_class: bool) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of the folder or zip."""
    labels: list[int] | None = None
    names = [f"{index // 1000:05}/img{index:08}.png" for index in range(data.count)]
    about: dict[str, Any] = {}
    if data.label_names is not None:
        labels = [int(label) for rows in _one_hot(data) for label in rows.argmax(1)]
        if by_class:
            folders = folder_names(data.label_names)
            names = [f"{folders[label]}/img{index:08}.png" for index, label in enumerate(labels)]
        about["label_names"] = data.label_names
    if data.manifest.get("attribution"):
        about["attribution"] = data.manifest["attribution"]
    images = (data.read(np.array([index]), data.resolution)[0] for index in range(data.count))
    with closing(encode(_png, images)) as pngs:
        yield from zip(names, pngs, strict=True)
    pairs = None if labels is None else [list(pair) for pair in zip(names, labels, strict=True)]
    yield "dataset.json", json.dumps({"labels": pairs, **about}).encode()


def _one_hot(data: ImagePyramid) -> Iterator[np.ndarray]:
    """One-hot labels of all images, float32 [n, label_dim], some at a time."""
    for start in range(0, data.count, 4096):
        yield data.read_labels(np.arange(start, min(start + 4096, data.count)))


def _records(levels: list[np.ndarray]) -> list[bytes]:
    return [encode_record(encode_example(image)) for image in levels]


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()
