"""JSON that others wrote, read against a schema: a type of Python, with TypedDict for objects."""

import json
import types
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from progan.support.errors import printable
from progan.support.plain_files import read_plain

T = TypeVar("T")

_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list"}


def parse_json(text: bytes | str, kind: type[T]) -> T:
    """The value of a JSON text, of the type `kind`: int, str, list[int], dict[str, Any], int | None, a TypedDict.

    A TypedDict names the fields that must be there, and may be (NotRequired); others are free. An int will do for a
    float. Raises ValueError with a sentence that lacks only its subject, and names the field of a wrong type.
    """
    try:
        content = text.decode() if isinstance(text, bytes) else text
        value = json.loads(content)
        if "\\ud" in content.lower():  # half of a pair is a text that no file and no terminal takes
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("is nested too deeply to be read") from None
    except UnicodeError:
        raise ValueError("is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"is no JSON ({printable(error)})") from None
    _check(value, kind, "")
    return value


def read_json(path: Path, kind: type[T], most: int) -> T:
    """The value of a JSON file of at most `most` bytes; raises OSError as `read_plain` does, and ValueError."""
    return parse_json(read_plain(path, most), kind)


def _check(value: Any, kind: Any, where: str) -> None:
    if kind is Any:
        return
    found: type = type(value)
    if get_origin(kind) in (Union, types.UnionType):
        choices = get_args(kind)
        # The one for lists or objects, if it is one, names what is wrong inside.
        alike = [choice for choice in choices if found is _plain_type(choice)]
        _check(value, alike[0] if alike else choices[0], where)
    elif found is not _plain_type(kind) and not (kind is float and found is int):
        name = _NAMES.get(_plain_type(kind), "an object")
        raise ValueError(f"says {printable(repr(value))} where {where or 'it'} must be {name}")
    elif found is int and not abs(value) < 2**63:
        raise ValueError(f"says {printable(value)} for {where or 'it'}, a number too large to mean anything")
    elif is_typeddict(kind):
        if missing := sorted(kind.__required_keys__ - value.keys()):
            raise ValueError(f"has no field {where + '.' if where else ''}{missing[0]}")
        for name, hint in get_type_hints(kind).items():
            if name in value:
                _check(value[name], hint, f"{where}.{name}" if where else name)
    elif get_origin(kind) is list:
        for index, item in enumerate(value):
            _check(item, get_args(kind)[0], f"{where}[{index}]")
    elif get_origin(kind) is dict:
        for name, item in value.items():
            _check(item, get_args(kind)[1], f"{where}.{printable(name)}" if where else printable(name))


def _plain_type(kind: Any) -> type:
    if kind is None:
        return types.NoneType
    return dict if is_typeddict(kind) else get_origin(kind) or kind
