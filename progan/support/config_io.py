"""What all configurations share: checks of single fields, values per resolution, the JSON round trip."""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from progan.support.errors import ConfigError, printable

C = TypeVar("C")

IntAt = dict[int, int]  # a value from each resolution up; the command line writes 16 or 4:128,32:64
FloatAt = dict[int, float]
LARGEST_RESOLUTION = 8192


def check_resolution(name: str, resolution: int) -> None:
    """Raise ConfigError unless `resolution` is a power of two from 4 up, and one that some machine can hold."""
    if resolution > LARGEST_RESOLUTION:
        raise ConfigError(f"{name}: {resolution} is not allowed; use {LARGEST_RESOLUTION} or less")
    if resolution < 4 or resolution & (resolution - 1):
        raise ConfigError(f"{name}: {resolution} is not a power of two from 4 up; use 4, 8, 16, 32, 64, ...")


def check_per_resolution(name: str, values: Mapping[int, Any]) -> None:
    """Raise ConfigError unless `values` begin at 4x4 and name only resolutions that there are."""
    if 4 not in values:
        raise ConfigError(f"{name}: {print_per_resolution(values)} says nothing about 4x4; begin with 4:...")
    for resolution in values:
        check_resolution(name, resolution)


def check_at_least(low: float, **fields: float) -> None:
    """Raise ConfigError for a field below `low`."""
    for name, value in fields.items():
        if not value >= low:
            raise ConfigError(f"{name}: {value} is not allowed; use {low} or more")


def check_at_most(high: float, **fields: float) -> None:
    """Raise ConfigError for a field above `high`, which no honest use meets."""
    for name, value in fields.items():
        if value > high:
            raise ConfigError(f"{name}: {value} is not allowed; use {high:,} or less")


def parse_per_resolution(text: str, kind: type) -> dict[int, Any]:
    """Read '16' or '4:128,32:64': a value from each resolution up, as the smallest one that applies."""
    try:
        pairs = [entry.split(":") for entry in text.split(",")]
        if len(pairs) == 1 and len(pairs[0]) == 1:
            return {4: kind(pairs[0][0])}
        return {int(resolution): kind(value) for resolution, value in pairs}
    except ValueError:
        raise ValueError(f"{printable(repr(text))} is neither a number nor a list such as 4:128,32:64") from None


def print_per_resolution(values: Mapping[int, Any]) -> str:
    """The inverse of parse_per_resolution."""
    return ",".join(f"{resolution}:{value}" for resolution, value in values.items())


def split_names(names: str) -> list[str]:
    """'swd, ms_ssim,' -> ['swd', 'ms_ssim'], each once."""
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def value_at(values: Mapping[int, Any], resolution: int) -> Any:
    """The entry of the largest key that is not above `resolution`."""
    return values[max(key for key in values if key <= resolution)]


def check_choices(config: Any) -> None:
    """Raise ConfigError for a field outside its Literal type."""
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal and getattr(config, name) not in get_args(hint):
            allowed = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{name}: {printable(repr(getattr(config, name)))} is not allowed; use one of {allowed}")


def to_json(config: Any) -> dict[str, Any]:
    """The fields as JSON values; from_json gives the same configuration back."""
    return dataclasses.asdict(config)


def from_json(cls: type[C], values: Any, where: str = "config") -> C:
    """Build a configuration from JSON values; raises ConfigError naming a field that is unknown or of a wrong type."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {printable(repr(values))} is not an object with fields")
    hints = get_type_hints(cls, include_extras=False)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown field {printable(repr(unknown[0]))}; it has {', '.join(hints)}")
    return cls(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def overridden(config: C, overrides: Mapping[str, Any], where: str) -> C:
    """The configuration with other values in some fields: {"g.norm": "batch"}, dotted names and JSON values.

    Raises ConfigError beginning with `where` when there is no such field or a value is not allowed.
    """
    values = to_json(config)
    for name, value in overrides.items():
        *groups, last = name.split(".")
        place: Any = values
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            unknown = printable(repr(name))
            raise ConfigError(f"{where}: there is no field {unknown}; see progan train --help for their names")
        place[last] = value
    try:
        return from_json(type(config), values, where)
    except ConfigError as error:
        raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from None


def _decode(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is dict and isinstance(value, dict):
        kind = get_args(hint)[1]
        if not all(str(key).isdecimal() for key in value):
            raise ConfigError(f"{where}: {printable(repr(value))} is not of type {hint}")
        return {_decode(int, int(key), where): _decode(kind, item, where) for key, item in value.items()}
    if get_origin(hint) is Literal:
        return value  # the configuration checks its own choices
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(value) in allowed or (type(value) is int and float in allowed):
        return value
    raise ConfigError(f"{where}: {printable(repr(value))} is not of type {hint}")


def flat_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """('g.resolution', 1024), ... for every field."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from flat_fields(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value
