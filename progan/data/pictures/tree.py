"""The pictures below a folder, or inside a .zip or .tar file."""

import io
import os
import stat
import zipfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from progan.data.pictures.decode import PICTURE_BYTES, Crop, load_image, picture_formats
from progan.data.source import BadImage, BadImageError, Levels
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError, printable
from progan.support.plain_files import LIST_BYTES, check_plain, open_plain, read_plain
from progan.support.tar_files import read_content, tar_members

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MEMBER_BYTES = 2**29  # of one picture in an archive, unpacked: more is no picture but a trap


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
                with open_plain(self.path, PICTURE_BYTES) as file:
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
        names = sorted(path.relative_to(self.src).as_posix() for path in self._walk())
        for name in names:
            yield PictureFile(name, self.src / name)

    def read(self, name: str) -> bytes | None:
        path = self.src / name
        if not path.exists():
            return None
        try:
            return read_plain(path, LIST_BYTES)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({printable(error)}); move it away") from error

    def _walk(self) -> Iterator[Path]:
        """Paths of pictures. Each real folder is entered once: by its own name, or by the first link if it has none."""
        folders, links = deque([self.src]), deque[Path]()
        seen: set[tuple[int, int]] = set()
        system = {os.stat(path).st_dev for path in ("/proc", "/sys") if os.path.ismount(path)}  # lead to everything
        while folders or links:
            folder = folders.popleft() if folders else links.popleft()
            try:
                here = folder.stat()
                if (here.st_dev, here.st_ino) in seen or here.st_dev in system:
                    continue
                seen.add((here.st_dev, here.st_ino))
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except FileNotFoundError:  # gone meanwhile
                continue
            except OSError as error:
                raise _unreadable(folder, error) from error
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError as error:
                    if entry.is_symlink():  # to nowhere: worth reporting if it calls itself a picture
                        status = entry.stat(follow_symlinks=False)
                    elif isinstance(error, FileNotFoundError):  # gone meanwhile
                        continue
                    else:
                        raise _unreadable(Path(entry.path), error) from error
                if stat.S_ISDIR(status.st_mode) and not entry.name.startswith("."):
                    (links if entry.is_symlink() else folders).append(Path(entry.path))
                elif self._is_picture(entry.name):
                    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                        yield Path(entry.path)
                    else:  # a pipe or a device
                        self.other += 1


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); mend its permissions or move it away")


class _Zip(Tree):
    def __init__(self, src: Path) -> None:
        super().__init__(src)
        open_zip.cache_clear()  # what is there now counts, not what was there when it was last read
        with _archive_errors(src):
            check_plain(src)
            found = open_zip(src).infolist()
            entries = [info for info in found if not info.is_dir()]
            self._infos = {info.filename: info for info in entries}
            if len(self._infos) < len(entries):
                raise zipfile.BadZipFile("it holds two files of one name")
            if (told := _entries_told(src)) not in (len(found) % 2**16, 2**16 - 1):
                raise zipfile.BadZipFile(f"its list of files has {len(found):,} entries, its end says {told:,}")

    def files(self) -> Iterator[PictureFile]:
        self.hidden = self.other = 0
        for name in sorted(self._infos):
            if self._is_picture(name):
                yield PictureFile(name, self.src, member=name)
            else:
                self._check_name(name)

    def _check_name(self, name: str) -> None:
        """Raise DataError where the file itself has another name than in the list: that may be a picture's."""
        with _archive_errors(self.src), suppress(NotImplementedError, RuntimeError):  # packed or locked as none is here
            open_zip(self.src).open(name).close()

    def read(self, name: str) -> bytes | None:
        with _archive_errors(self.src):
            if name not in self._infos or not _fits(self.src, name, self._infos[name].file_size):
                return None
            return open_zip(self.src).read(name)


class _Tar(Tree):
    def files(self) -> Iterator[PictureFile]:
        self.hidden = self.other = 0
        with _archive_errors(self.src), closing(tar_members(self.src)) as members:
            for info, file in members:
                name = info.name.removeprefix("./")
                if info.isdir() or not self._is_picture(name):
                    continue
                if file is None:  # links in archives: seldom, and easily a trap
                    self.other += 1
                    continue
                yield PictureFile(name, self.src, data=b"" if info.size > MEMBER_BYTES else read_content(file))

    def read(self, name: str) -> bytes | None:
        with _archive_errors(self.src), closing(tar_members(self.src)) as members:
            for info, file in members:
                if info.name.removeprefix("./") == name and file is not None:
                    return read_content(file) if _fits(self.src, name, info.size) else None
        return None


def _fits(src: Path, name: str, size: int) -> bool:
    """Raise DataError for a list that claims more bytes than any has."""
    if size > LIST_BYTES:
        raise DataError(f"{src}: its {name} unpacks to {size:,} bytes, more than any list has; get another archive")
    return True


@lru_cache(maxsize=4)
def open_zip(path: Path) -> zipfile.ZipFile:
    """One handle in each process: opening reads the whole list of members."""
    return zipfile.ZipFile(open_plain(path))


def _entries_told(path: Path) -> int:
    """How many files the end of a zip says that there are, modulo 2^16; all ones where there are more."""
    with open_plain(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 2**16 - 22))
        tail = file.read()
    place = tail.rindex(b"PK\5\6") + 10
    return int.from_bytes(tail[place : place + 2], "little")


def _zip_member(path: Path, name: str) -> bytes:
    try:
        archive = open_zip(path)
        if archive.getinfo(name).file_size > MEMBER_BYTES:
            raise BadImageError(f"unpacks to more than {MEMBER_BYTES:,} bytes")
        return archive.read(name)
    except BadImageError:
        raise
    except Exception as error:  # encrypted, an unknown compression, a wrong checksum: each has its own
        raise BadImageError(f"cannot be unpacked ({printable(error)})") from error


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # every kind of archive and of packing has its own
        reason = printable(error)
        raise DataError(f"{path}: cannot be read as an archive ({reason}); copy or download it again") from error


def _named(endings: tuple[str, ...]) -> str:
    return ", ".join(endings[:-1]) + " or " + endings[-1]
