"""`dataset.json`: what a data set says about itself, and whether that can be believed."""

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from progan.support.errors import DataError, printable
from progan.support.json_reader import parse_json
from progan.support.plain_files import LIST_BYTES, read_plain

FORMAT = "progan image pyramid"
VERSION = 2
MANIFEST = "dataset.json"
MOST_CLASSES = 100_000  # more than any data set has
AGAIN = "copy or create the data set again"


class _File(TypedDict):
    name: str
    bytes: int
    dtype: str
    shape: list[int]
    rows_sha256: str


class _Manifest(TypedDict):
    count: int
    channels: int
    resolution: int
    label_names: list[str] | None
    source: dict[str, Any]
    hash: str
    files: list[_File]
    attribution: NotRequired[dict[str, str] | None]
    command: NotRequired[str]


def pyramid_resolutions(resolution: int) -> list[int]:
    """4, 8, ... up to `resolution`. Raises DataError unless that is a power of two of at least 4."""
    if resolution < 4:
        raise DataError(f"resolution {resolution} is too small; choose a power of two of at least 4")
    if resolution & (resolution - 1):
        below = 1 << (resolution.bit_length() - 1)
        raise DataError(f"resolution {resolution} is not a power of two; choose {below} or {2 * below}")
    return [1 << power for power in range(2, resolution.bit_length())]


def images_name(resolution: int) -> str:
    """The file that holds every image at `resolution`."""
    return f"images-{resolution}x{resolution}.npy"


def layout(facts: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """File name -> dtype and shape, for a data set of these facts."""
    files: dict[str, tuple[str, tuple[int, ...]]] = {
        images_name(r): ("uint8", (facts["count"], facts["channels"], r, r))
        for r in pyramid_resolutions(facts["resolution"])
    }
    if facts["label_names"] is not None:
        files["labels.npy"] = ("int64", (facts["count"],))
    return files


def dataset_hash(files: list[dict[str, Any]]) -> str:
    """One name for the content: sha256 over every file's name, size, type, shape and checksum."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def read_manifest(root: Path) -> dict[str, Any]:
    """Load `dataset.json` of the data set at `root`.

    Raises DataError when there is no data set, a half-written one, one of another format version, or one whose
    fields are missing or contradict each other.
    """
    path = root / MANIFEST
    if not root.is_dir():
        what = "is a file, not the folder of a data set" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}; create a data set with `progan data create`")
    if not path.exists():
        if any(root.glob("images-*x*.npy")):
            raise DataError(f"{root}: a half-written data set (it has no {MANIFEST}); delete it and create it again")
        raise DataError(f"{root}: not a data set (it has no {MANIFEST}); create one with `progan data create`")
    try:
        content = read_plain(path, LIST_BYTES)
        manifest = parse_json(content, dict[str, Any])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({printable(error)}); {AGAIN}") from error
    if manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not the manifest of a progan data set; create one with `progan data create`")
    if manifest.get("version") != VERSION:
        raise DataError(
            f"{path}: format version {printable(manifest.get('version'), 20)}, but this progan reads {VERSION}; "
            "update progan or create the data set again"
        )
    try:
        parse_json(content, _Manifest)
    except ValueError as error:
        raise DataError(f"{path}: {error}; {AGAIN}") from error
    _check_manifest(path, manifest)
    return manifest


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    try:
        expected = {name: (dtype, list(shape)) for name, (dtype, shape) in layout(manifest).items()}
        told = {entry["name"]: (entry["dtype"], entry["shape"]) for entry in manifest["files"]}
        sizes_told = all(isinstance(entry["bytes"], int) and entry["rows_sha256"] for entry in manifest["files"])
    except (KeyError, TypeError, DataError) as error:
        raise DataError(f"{path}: its resolution or its list of files makes no sense; {AGAIN}") from error
    whole = manifest["count"] >= 1 and expected == told and sizes_told
    if not whole or manifest["hash"] != dataset_hash(manifest["files"]):
        raise DataError(f"{path}: its fields contradict each other, so it was edited or damaged; {AGAIN}")
