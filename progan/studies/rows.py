"""What the studies share: a row is a base row and what changes, a scale is what all rows have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from progan.config import TrainConfig
from progan.support.config_io import overridden
from progan.support.errors import ConfigError, printable

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One training configuration: a base row, None for the scale's own configuration, and the fields that change.

    overrides: dotted names of TrainConfig's fields and JSON values, the same at every scale; at: those of one scale.
    """

    name: str
    base: str | None
    title: str
    overrides: Overrides = field(default_factory=dict)
    at: Mapping[str, Overrides] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name for files."""
        return self.name.replace("*", "-star")


@dataclass(frozen=True)
class Scale:
    """The configuration that all rows start from, and how much is measured.

    images: of each measured set, 0 for each metric's own number. For studies in which they differ between scales,
    curve_images: of each point of a curve; metrics: names as `metrics.suite.choose` takes them.
    """

    config: TrainConfig
    images: int
    curve_images: int = 0
    metrics: str = ""
    like: str = ""
    """Another scale whose `at` a row takes where it has none of its own for this one."""


def lr(rate: float) -> Overrides:
    """One learning rate for both networks at all resolutions."""
    return {"schedule.g_lr": {"4": rate}, "schedule.d_lr": {"4": rate}}


def row_config(row: Row, scale: str, scales: Mapping[str, Scale], rows: Sequence[Row]) -> TrainConfig:
    """The configuration of a row at a scale: its base row's, with its own overrides.

    Raises ConfigError when the base is missing or leads back to the row, or an override names no field.
    """
    chain, known = [row], {other.name: other for other in rows}
    while (base := chain[-1].base) is not None:
        if base not in known:
            missing = printable(repr(base))
            raise ConfigError(f"row {chain[-1].name}: its base {missing} is missing; use one of {', '.join(known)}")
        if known[base] in chain:
            raise ConfigError(f"row {row.name}: its bases lead back to {base!r}; let one of them have no base")
        chain.append(known[base])
    config, like = scales[scale].config, scales[scale].like
    for one in reversed(chain):
        at = one.at.get(scale, one.at.get(like, {}))
        config = overridden(config, {**one.overrides, **at}, f"row {one.name}")
    return config
