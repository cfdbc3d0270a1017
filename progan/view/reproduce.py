"""The commands that make a run again."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from progan.config import TrainConfig
from progan.presets import PRESETS
from progan.support.config_io import flat_fields, print_per_resolution, split_names
from progan.support.terminal import cleaned

_OF_DATA = ("g.channels", "d.channels", "g.label_dim", "d.label_dim")  # the data set decides them
_KIMG = {
    "schedule.total_nimg": "--total-kimg",
    "schedule.stable_nimg": "--stable-kimg",
    "schedule.fade_nimg": "--fade-kimg",
    "checkpoint_nimg": "--checkpoint-kimg",
    "snapshot_nimg": "--snapshot-kimg",
    "metrics_nimg": "--metrics-every-kimg",
    "keep_every_nimg": "--keep-every-kimg",
}
_PAIRS = {"--resolution": ("g.resolution", "d.resolution"), "--lr": ("schedule.g_lr", "schedule.d_lr")}
_START = re.compile(r"(?P<run>.+?)(?P<checkpoint>/checkpoints/checkpoint-(?P<at>\d+)\.pt)?(?: at (?P<from>\d+))?", re.S)


def train_command(config: TrainConfig, preset: str, *, data: str, out: str, init: str = "") -> str:
    """The `progan train` of a run: parsed, and fitted to the run's data, it gives the same config.

    init: what the run's config.json says it began from.
    """
    words = ["progan", "train"]
    own = dict(flat_fields(config))
    start = _START.fullmatch(init.removeprefix("branch of "))
    if start is not None and init.startswith("branch of "):
        # The config of that run, from which this one's flags were counted, is not known here: so all are given.
        theirs: dict[str, Any] = {}
        words += ["--branch", start["run"], *_moment(start["at"])]
    else:
        theirs = dict(flat_fields(PRESETS[preset].config))
        words += ["--preset", preset]
        if start is not None:
            words += ["--init", start["run"], *_moment(start["from"]), "--resolution", str(config.g.resolution)]
            own = {name: value for name, value in own.items() if name[:2] not in ("g.", "d.")}  # as those networks were
    words += ["--data", data, "--out", out]
    differ = {
        name: own[name] for name in own if name not in _OF_DATA and (name not in theirs or own[name] != theirs[name])
    }
    for flag, (one, other) in _PAIRS.items():
        if one in differ and other in differ and differ[one] == differ[other]:
            words += [flag, _text(differ.pop(one))]
            del differ[other]
    for name, value in differ.items():
        words += _flag(name, value)
    return " ".join(shlex.quote(cleaned(word)) for word in words)


def evaluate_commands(metrics: Sequence[Mapping[str, Any]], config: TrainConfig, *, data: str, out: str) -> list[str]:
    """The `progan evaluate` of what was measured of a run beside its training; metrics: as `runs.curves` gives them."""
    asked: dict[tuple[Any, bool], dict[str, None]] = {}
    for curve in metrics:
        if curve["metric"] not in split_names(config.metrics):
            asked.setdefault((curve["images"], len(curve["nimg"]) > 1), {})[str(curve["metric"])] = None
    commands = []
    for (images, several), names in asked.items():
        words = ["progan", "evaluate", out, "--data", data, "--metrics", ",".join(names)]
        words += ["--images", str(images)] * isinstance(images, int) + ["--all-snapshots"] * several
        commands.append(" ".join(shlex.quote(cleaned(word)) for word in words))
    return commands


def _flag(name: str, value: Any) -> list[str]:
    group, dot, field = name.rpartition(".")
    if name in _KIMG:
        return [_KIMG[name], f"{value / 1000!r}".removesuffix(".0")]
    if name == "schedule.batch":
        return ["--batch", _text(value)]
    flag = field.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{group}{dot}{'' if value else 'no-'}{flag}"]
    return [f"--{group}{dot}{flag}", _text(value)]


def _moment(nimg: str | None) -> list[str]:
    return [] if nimg is None else ["--from-kimg", f"{int(nimg) / 1000!r}".removesuffix(".0")]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str(value[4]) if list(value) == [4] else print_per_resolution(value)
    return str(value)
