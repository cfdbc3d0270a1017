"""The pickles of the official code, read as data: every allowed name is a class of notes, and nothing is called."""

import math
import pickle
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from progan.support.errors import RunError


class _Call:
    """A call that the file asks for: written down, never made."""

    __match_args__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "_Call":
        call = super().__new__(cls)
        call.args, call.state = args, None
        return call

    def __setstate__(self, state: Any) -> None:
        self.state = state


class NetworkCall(_Call):
    """A tfutil.Network of the file; its state is the official dict."""


class _NdArray(_Call): ...


class _Dtype(_Call): ...


class _Reconstruct(_Call): ...


class _FromBuffer(_Call): ...


class ScalarCall(_Call):
    """A NumPy scalar of the file."""


class _Encode(_Call): ...


_ALLOWED: dict[str, type[_Call]] = {
    "tfutil.Network": NetworkCall,
    "numpy.ndarray": _NdArray,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _Encode,  # how protocol 2 spells bytes
    **{f"numpy.{core}.multiarray._reconstruct": _Reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": ScalarCall for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _FromBuffer for core in ("core", "_core")},
}


# The unpickler written in C makes a table as long as the highest memo number that a file mentions, up to 64 GB.
class _Unpickler(pickle._Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # the strings of Python 2 are bytes
        self.path = path

    def find_class(self, module: str, name: str) -> type[_Call]:
        asked = f"{module}.{name}"
        if asked not in _ALLOWED:
            raise RunError(
                f"{self.path}: refused, for it asks for {asked[:200]!a}, which no official snapshot needs; "
                "nothing in the file was executed"
            )
        return _ALLOWED[asked]


def unpickle(path: Path) -> Any:
    """The content of a pickle with every call written down, none made; raises RunError for any other name."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            # Older protocols have no mark to know them by, and the official code never wrote them.
            if start[:1] != b"\x80":
                kind = "a zip archive (torch.save writes such)" if start == b"PK" else "no pickle of protocol 2 or up"
                raise RunError(f"{path}: is {kind}, so it is not an official snapshot; pass the .pkl file itself")
            return _Unpickler(file, path).load()
    except RunError:
        raise
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; pass an official snapshot (.pkl)") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise RunError(f"{path}: is cut short or damaged ({type(error).__name__}); fetch or copy it again") from error


def to_array(value: Any, where: str) -> np.ndarray:
    """The array or number that a note stands for; raises RunError for anything but plain numbers."""
    order: Any = "C"
    match value:
        case _Reconstruct((array_class, *_), (_, shape, dtype, fortran, data)):
            if array_class is not _NdArray:
                asked = next((name for name, known in _ALLOWED.items() if known is array_class), None)
                asked = asked or reprlib.repr(array_class)
                raise RunError(f"{where} asks for an array of class {asked}; only numpy.ndarray can be read")
            order = "F" if fortran else "C"
        case _FromBuffer((data, dtype, shape, order)):
            pass
        case ScalarCall((dtype, data)):
            shape = ()
        case _:
            raise RunError(f"{where} is not an array of numbers")
    number, content = _dtype(dtype, where), _bytes(data)
    whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape) and order in ("C", "F")
    if not whole or content is None or math.prod(shape) * number.itemsize != len(content):
        raise RunError(f"{where} is not a whole array: its shape and its bytes do not fit together")
    return np.frombuffer(content, number).reshape(shape, order=order)


def _dtype(value: Any, where: str) -> np.dtype:
    match value:
        case _Dtype((("f2" | "f4" | "f8" | "i4" | "i8" | "b1") as kind, *_), (_, ("<" | ">" | "=" | "|") as order, *_)):
            return np.dtype(f"{order}{kind}")
        case _Dtype((kind, *_), _):
            raise RunError(f"{where} has the dtype {reprlib.repr(kind)}; only arrays of plain numbers can be read")
    raise RunError(f"{where} has no dtype")


def _bytes(value: Any) -> bytes | bytearray | None:
    match value:
        case bytes() | bytearray():
            return value
        case str() as text:
            pass
        case _Encode((str() as text, "latin1")):
            pass
        case _:
            return None
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        return None
