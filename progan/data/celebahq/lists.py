"""The two lists CelebA-HQ is made by: CelebA's landmarks, and the published choice of photographs."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from progan.support.errors import DataError, printable
from progan.support.plain_files import LIST_BYTES, read_plain

LANDMARKS = "Anno/list_landmarks_celeba.txt"  # below CelebA's folder; the in-the-wild photographs' own pixels
IMAGE_LIST = "image_list.txt"  # beside the zips of deltas

_COLUMNS = ("idx", "orig_file", "proc_md5", "final_md5")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a file in this very folder, never a way out of it
_MD5 = re.compile(r"[0-9a-f]{32}")


class ListedImage(NamedTuple):
    """One row of the published list.

    idx: of the image in CelebA-HQ. file: the photograph's name in CelebA. proc_md5, final_md5: of the image's bytes
    in the order [3, 1024, 1024], before and after the delta is added.
    """

    idx: int
    file: str
    proc_md5: str
    final_md5: str


def read_landmarks(path: Path) -> dict[str, np.ndarray]:
    """Photograph's name -> float32 [5, 2], (x, y) in pixels: left eye, right eye, nose, left and right mouth corner.

    The file: a line with the number of rows, a line with ten column names, then rows of a name and ten numbers.
    Raises DataError naming the line that is none of these.
    """
    lines = _lines(path)
    count = lines[0].strip() if lines else ""
    if not count.isdecimal() or len(lines) < 2 or len(lines[1].split()) != 10:
        raise DataError(f"{path}: does not begin with a count and ten column names; it is not CelebA's landmark list")
    rows = [line.split() for line in lines[2:]]
    if len(rows) != int(count):
        raise DataError(f"{path}: has {len(rows):,} rows, but says {int(count):,}; download it again")
    landmarks: dict[str, np.ndarray] = {}
    for number, row in enumerate(rows, 3):
        try:
            name, *numbers = row
            landmarks[name] = np.array(numbers, np.float32).reshape(5, 2)
        except ValueError:
            raise DataError(f"{path}, line {number}: is not a file name and ten numbers; download it again") from None
    return landmarks


def read_image_list(path: Path) -> list[ListedImage]:
    """The published list in the order of idx.

    The file: a line of column names, then rows of as many words; columns that are not needed may be there too.
    Raises DataError naming the column that is missing or the line that makes no sense, and for an idx that comes twice.
    """
    lines = _lines(path)
    header = lines[0].split() if lines else []
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise DataError(f"{path}: has no column {missing[0]}; download the list that came with the deltas again")
    images: dict[int, ListedImage] = {}
    for number, line in enumerate(lines[1:], 2):
        words = dict(zip(header, line.split(), strict=False))
        idx, file, proc_md5, final_md5 = (words.get(column, "") for column in _COLUMNS)
        sound = re.fullmatch("[0-9]{1,5}", idx) and _PLAIN_NAME.fullmatch(file)
        if not sound or not _MD5.fullmatch(proc_md5) or not _MD5.fullmatch(final_md5):
            raise DataError(f"{path}, line {number}: is not an index, a file name and two MD5 sums; download it again")
        if int(idx) in images:
            raise DataError(f"{path}, line {number}: idx {int(idx)} comes a second time; download it again")
        images[int(idx)] = ListedImage(int(idx), file, proc_md5, final_md5)
    if not images:
        raise DataError(f"{path}: lists no images; download it again")
    return [images[idx] for idx in sorted(images)]


def _lines(path: Path) -> list[str]:
    """The lines of a text file without the empty ones at its end."""
    try:
        return read_plain(path, LIST_BYTES).decode("ascii").rstrip().splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; see `progan data create celebahq --help` for the layout") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = printable(error) if isinstance(error, OSError) else "it is no plain text"
        raise DataError(f"{path}: cannot be read ({reason}); download it again") from None
