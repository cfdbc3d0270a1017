"""Pickles of plain arrays, read as data: what a file wants to be called is written down, and nothing is called."""

import contextlib
import functools
import pickle
import reprlib
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Literal

import numpy as np

from progan.support.errors import UserError

_ARRAYS = ("_codecs.encode", "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray._reconstruct")


# A class per name, for protocol 2 makes objects of classes; it has nothing that the file could set.
class Call:
    """A call that the file asks for, such as Call("numpy.dtype", ("f4", False, True), state): written down, not made.

    Only bytes are made at once, for they may be keys of a dictionary: protocol 2 spells them _codecs.encode.
    """

    __match_args__ = ("name", "args", "state")
    name: ClassVar[str]
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Any:
        match cls.name, args:
            case "_codecs.encode", (str() as text, "latin1" | b"latin1"):
                return text.encode("latin1")
        call = super().__new__(cls)
        call.args, call.state = args, None
        return call

    def __setstate__(self, state: Any) -> None:
        self.state = state


@functools.cache
def _note(name: str) -> type[Call]:
    return type(name, (Call,), {"name": name})


@dataclass(frozen=True)
class InertPickle:
    """A kind of pickle: what may be in it, and the words for a file that is of another kind."""

    error: type[UserError]
    refused: str
    """How the sentence ends about a file that asks for a name which is not allowed."""
    damaged: str
    """What is said about a damaged file; {} is the name of the exception."""
    strings: Literal["bytes", "latin1"]
    """What the strings of Python 2 become: bytes or text."""
    also: tuple[str, ...] = ()
    """The names allowed beyond those of arrays, numpy._core spelled numpy.core; they too are never called."""

    def load(self, file: IO[bytes], where: object) -> Any:
        """The value of a pickle, each call in it a `Call`, which `as_array` can turn into an array.

        Raises `error`, beginning with `where`, for a pickle that is damaged or asks for a name that is not allowed,
        and OSError where the file cannot be read; no code that a file names is ever run.
        """
        try:
            return _Unpickler(file, where, self).load()
        except (OSError, self.error):
            raise
        except Exception as error:  # a damaged pickle raises almost anything
            raise self.error(f"{where}: {self.damaged.format(type(error).__name__)}") from error


class _Bounded:
    """A file that makes no room for more bytes than it has."""

    def __init__(self, file: IO[bytes]) -> None:
        start = file.tell()
        self._size = file.seek(0, 2)
        file.seek(start)
        self._file, self.readline = file, file.readline

    def read(self, size: int) -> bytes:
        if size > self._size:
            raise EOFError
        return self._file.read(size)


# The unpickler written in C makes a table as long as the highest memo number that a file mentions, up to 64 GB.
class _Unpickler(pickle._Unpickler):
    def __init__(self, file: IO[bytes], where: object, kind: InertPickle) -> None:
        super().__init__(_Bounded(file), encoding=kind.strings)
        self.where, self.kind = where, kind

    def find_class(self, module: str, name: str) -> type[Call]:
        asked = f"{module}.{name}"
        known = asked.replace("numpy._core.", "numpy.core.")  # NumPy 2 writes the first, NumPy 1 the second
        if known not in _ARRAYS + self.kind.also:
            raise self.kind.error(f"{self.where}: refused, for it asks for {asked[:200]!a}, which {self.kind.refused}")
        return _note(known)

    # Left alone, it makes as many zeros as the file says that there will be bytes.
    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    # Left alone, it hands out without asking what this process once found under the code.
    def get_extension(self, code: int) -> None:
        raise ValueError(f"extension code {code}")


def as_array(value: Any, dtypes: tuple[str, ...]) -> np.ndarray:
    """The array or number that a `Call` stands for, of one of the dtypes, such as "f4", in either byte order.

    Raises ValueError for all else; its text is a sentence that lacks only its subject.
    """
    order: Any = "C"
    match value:
        case Call("numpy.core.multiarray._reconstruct", (array_class, *_), (_, shape, dtype, fortran, data)):
            if array_class is not _note("numpy.ndarray"):
                asked = getattr(array_class, "name", None) or reprlib.repr(array_class)
                raise ValueError(f"asks for an array of class {asked}; only numpy.ndarray can be read")
            order = "F" if fortran else "C"
        case Call("numpy.core.numeric._frombuffer", (data, dtype, shape, order)):
            pass
        case Call("numpy.core.multiarray.scalar", (dtype, data)):
            shape = ()
        case _:
            raise ValueError("is not an array of numbers")
    number = _dtype(dtype, dtypes)
    sizes_make_sense = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if sizes_make_sense and order in ("C", "F"):
        with contextlib.suppress(TypeError, ValueError):  # no bytes, too few, too many, more dimensions than NumPy has
            content = data.encode("latin1") if isinstance(data, str) else data
            return np.frombuffer(content, number).reshape(shape, order=order)
    raise ValueError("is not a whole array: its shape and its bytes do not fit together")


def _dtype(value: Any, dtypes: tuple[str, ...]) -> np.dtype:
    match value:
        case Call("numpy.dtype", (kind, *_), state):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
            known, byte_order = (text.decode("latin1") if isinstance(text, bytes) else text for text in (kind, order))
            if known in dtypes and byte_order in ("<", ">", "=", "|"):
                return np.dtype(f"{byte_order}{known}")
            raise ValueError(f"has the dtype {reprlib.repr(kind)}; only arrays of plain numbers can be read")
    raise ValueError("has no dtype")
