"""The pictures below a folder, or inside a .zip or .tar file."""

import io
import os
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from progan.data.pictures.decode import Crop, load_image, picture_formats
from progan.data.source import BadImage, BadImageError, Levels
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MEMBER_BYTES = 2**30  # of one picture in an archive, unpacked: more is no picture but a trap


@dataclass(frozen=True)
class PictureFile:
    """One picture that is still encoded. `name`: its path below the folder or inside the archive, with slashes."""

    name: str
    path: Path  # the file itself, or the archive
    member: str | None = None  # of a zip file
    data: bytes | None = field(default=None, repr=False)  # from a tar file, which can only be read in its own order

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The encoded bytes, for reading. Raises BadImageError when they cannot be had."""
        try:
            if self.data is not None:
                yield io.BytesIO(self.data)
            elif self.member is not None:
                yield io.BytesIO(_zip_member(self.path, self.member))
            else:
                with self.path.open("rb") as file:
                    yield file
        except OSError as error:
            raise BadImageError(error.strerror or str(error)) from error


def file_levels(
    file: PictureFile, *, resolution: int, channels: int = 3, crop: Crop = "none", pad: bool = False
) -> Levels | BadImage:
    """Read one picture at every resolution from `resolution` down to 4, or say why that cannot be done."""
    try:
        with file.open() as opened:
            return box_pyramid(load_image(opened, resolution=resolution, channels=channels, crop=crop, pad=pad))
    except BadImageError as error:
        return BadImage(shown(file.name), str(error))


class Tree(ABC):
    """Pictures of one place. `hidden`, `other`: how many files were left out, once `files` has been walked through."""

    def __init__(self, src: Path) -> None:
        self.src = src
        self.hidden = 0
        self.other = 0

    @abstractmethod
    def files(self) -> Iterator[PictureFile]:
        """Every file with a picture's extension: of folders and zip files by name, of a tar file in its own order.

        Hidden files and files without a picture's extension are counted and left out. The order is always the same.
        """

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content of one file that is no picture, such as dataset.json; None if there is none of that name."""

    def _is_picture(self, name: str) -> bool:
        parts = name.split("/")
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            self.hidden += 1
            return False
        if not is_picture_name(parts[-1]):
            self.other += 1
            return False
        return True


def open_tree(src: Path) -> Tree:
    """The pictures at `src`: a folder, a .zip file or a .tar file, compressed or not.

    Raises DataError when there is nothing or something else, or when the archive cannot be read.
    """
    if src.is_dir():
        return _Folder(src)
    if not src.exists():
        raise DataError(f"{src}: no such folder or file; pass a folder of pictures, or a {_named(ARCHIVES)} file")
    name = src.name.lower()
    if not src.is_file() or not name.endswith(ARCHIVES):
        raise DataError(f"{src}: is a file, not a folder; pass a folder of pictures, or a {_named(ARCHIVES)} file")
    return _Zip(src) if name.endswith(".zip") else _Tar(src)


def is_picture_name(name: str) -> bool:
    """Whether a file's extension is one of a format that Pillow decodes."""
    return Image.registered_extensions().get(os.path.splitext(name)[1].lower()) in picture_formats()


def shown(name: str) -> str:
    """A file name that any terminal and JSON file can hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


class _Folder(Tree):
    """Sub-folders are searched, links to folders followed, but never in a circle."""

    def files(self) -> Iterator[PictureFile]:
        self.hidden = self.other = 0
        names = sorted(path.relative_to(self.src).as_posix() for path in self._walk(self.src, ()))
        for name in names:
            yield PictureFile(name, self.src / name)

    def read(self, name: str) -> bytes | None:
        path = self.src / name
        return path.read_bytes() if path.is_file() else None

    def _walk(self, folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        """Paths of pictures under `folder`; `above`: the folders on the way here, which a link may not enter again."""
        try:
            here = folder.stat()
            entries = list(os.scandir(folder))
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be read ({error.strerror}); mend its permissions or move it away"
            ) from error
        inside = (*above, (here.st_dev, here.st_ino))
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:  # a link to nowhere: worth reporting if it calls itself a picture
                status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and not entry.name.startswith("."):
                if (status.st_dev, status.st_ino) not in inside:
                    yield from self._walk(Path(entry.path), inside)
            elif self._is_picture(entry.name):
                if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    yield Path(entry.path)
                else:  # a pipe or a device
                    self.other += 1


class _Zip(Tree):
    def __init__(self, src: Path) -> None:
        super().__init__(src)
        open_zip.cache_clear()  # what is there now counts, not what was there when it was last read
        with _archive_errors(src):
            self._infos = {info.filename: info for info in open_zip(src).infolist() if not info.is_dir()}

    def files(self) -> Iterator[PictureFile]:
        self.hidden = self.other = 0
        for name in sorted(self._infos):
            if self._is_picture(name):
                yield PictureFile(name, self.src, member=name)

    def read(self, name: str) -> bytes | None:
        with _archive_errors(self.src):
            return open_zip(self.src).read(name) if name in self._infos else None


class _Tar(Tree):
    def files(self) -> Iterator[PictureFile]:
        self.hidden = self.other = 0
        with _archive_errors(self.src), closing(tarfile.open(self.src, "r:*")) as tar:
            for info in tar:
                name = info.name.removeprefix("./")
                if info.isdir() or not self._is_picture(name):
                    continue
                if not info.isfile():  # links in archives: seldom, and easily a trap
                    self.other += 1
                    continue
                file = tar.extractfile(info)
                assert file is not None
                data = b"" if info.size > MEMBER_BYTES else file.read()
                yield PictureFile(name, self.src, data=data)

    def read(self, name: str) -> bytes | None:
        with _archive_errors(self.src), closing(tarfile.open(self.src, "r:*")) as tar:
            for info in tar:
                if info.name.removeprefix("./") == name and info.isfile():
                    file = tar.extractfile(info)
                    return file.read() if file else None
        return None


@lru_cache(maxsize=4)
def open_zip(path: Path) -> zipfile.ZipFile:
    """One handle in each process: opening reads the whole list of members."""
    return zipfile.ZipFile(path)


def _zip_member(path: Path, name: str) -> bytes:
    try:
        archive = open_zip(path)
        if archive.getinfo(name).file_size > MEMBER_BYTES:
            raise BadImageError(f"unpacks to more than {MEMBER_BYTES:,} bytes")
        return archive.read(name)
    except BadImageError:
        raise
    except Exception as error:  # encrypted, an unknown compression, a wrong checksum: each has its own
        raise BadImageError(f"cannot be unpacked ({error})") from error


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as an archive ({error}); copy or download it again") from error


def _named(endings: tuple[str, ...]) -> str:
    return ", ".join(endings[:-1]) + " or " + endings[-1]
