"""Pickles of plain arrays, read as data: what a file wants to be called is written down, and nothing is called."""

import io
import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from progan.support.errors import DataError

_ALLOWED = {
    "_codecs.encode",  # how Python 3 spells bytes in protocol 2
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
}


@dataclass
class _Call:
    name: str
    args: tuple[Any, ...]
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass
class _Name:
    """A callable that the file asks for: calling it makes a note, except for bytes, which may be keys."""

    name: str

    def __call__(self, *args: Any) -> Any:
        match self.name, args:
            case "_codecs.encode", (str() as text, "latin1" | b"latin1"):
                return text.encode("latin1")
        return _Call(self.name, args)


# The unpickler written in C makes a table as long as the highest memo number that a file mentions, up to 64 GB.
class _Unpickler(pickle._Unpickler):
    def __init__(self, content: bytes, where: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")  # the strings of Python 2 are bytes
        self.where = where

    def find_class(self, module: str, name: str) -> _Name:
        asked = f"{module}.{name}"
        if asked not in _ALLOWED:
            raise DataError(
                f"{self.where}: refused, for it asks for {asked[:200]!a}, which plain arrays do not need; "
                "nothing in the file was executed, download it from its publisher"
            )
        return _Name(asked)


def unpickle(content: bytes, where: str) -> Any:
    """The value of a pickle of numbers, bytes, lists, dicts and arrays; of these only `to_uint8` can read the last.

    The strings of Python 2 become bytes. Raises DataError that begins with `where` for a pickle that asks for
    anything else, or that is damaged; no code that a file names is ever run.
    """
    try:
        return _Unpickler(content, where).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{where}: no whole pickle ({type(error).__name__}); download it again") from error


def to_uint8(value: Any, where: str) -> np.ndarray:
    """An array from `unpickle`: uint8, any shape, read-only. Raises DataError that begins with `where` for all else."""
    match value:
        case _Call(
            state=(
                _,
                tuple() as shape,
                _Call("numpy.dtype", ("u1" | b"u1", *_)),
                fortran,
                bytes() as data,
            )
        ):
            sizes_make_sense = all(type(size) is int and size >= 0 for size in shape)
            if sizes_make_sense and math.prod(shape) == len(data):
                return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
    raise DataError(f"{where} is no whole array of bytes (uint8); download the file again")
