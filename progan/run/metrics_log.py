"""Metrics of a run: measured while it trains, read back, drawn."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.fakes import fakes_of
from progan.evaluation.meter import Meter, Reals, append, in_one_line
from progan.metrics.suite import NEIGHBOURS, choose, value_title
from progan.networks import Generator
from progan.support.config_io import split_names
from progan.support.errors import ConfigError
from progan.support.files import write_whole
from progan.support.run_files import RunFolder, own_source, read_lines


class _Time(TypedDict):
    """A line of timing.jsonl."""

    nimg: int
    seconds: float


class _Measured(TypedDict):
    """A line of metrics.jsonl."""

    nimg: int | None
    metric: str
    protocol: str
    data: str
    resolution: int
    mirrored: bool
    values: dict[str, float]
    spread: dict[str, float]
    floor: NotRequired[dict[str, float]]
    reals: NotRequired[dict[str, float]]
    images: NotRequired[dict[str, int]]


class RunMetrics:
    """Measures the generator of a run against the data it trains on.

    Raises ConfigError or DataError before the run begins if a metric is unknown or the data set is not for it.
    """

    def __init__(self, config: TrainConfig, data: ImagePyramid, device: torch.device, folder: RunFolder) -> None:
        if NEIGHBOURS in split_names(config.metrics):
            raise ConfigError(
                f"--metrics: {NEIGHBOURS} is not measured while training; leave it out, and ask progan evaluate for it"
            )
        flag = "--metrics-images"
        chosen = choose(config.metrics, images=config.metrics_images or None, seed=config.seed, flag=flag)
        self.images = max(metric.size for metric in chosen)
        self.seed = config.seed
        self.folder = folder
        reals = Reals(data, config.g.resolution, config.mirror, config.seed)
        self.meter = Meter(chosen, reals, device, quiet=True, flag=flag)

    def measure(self, g: Generator, *, nimg: int, resolution: int, alpha: float) -> str:
        """Add a line per metric to metrics.jsonl, draw metrics.png anew, and say the result in one line."""
        data = self.meter.reals.data
        fakes = fakes_of(g, data, self.images, seed=self.seed, resolution=resolution, alpha=alpha)
        results = self.meter.measure(fakes)
        append(self.folder.metrics, results, own_source(nimg), nimg, self.meter)
        plot_metrics(self.folder)
        return "; ".join([in_one_line(results), *worse(read_metrics(self.folder.metrics))])


def check_metrics(config: TrainConfig, data: ImagePyramid, device: torch.device, folder: RunFolder) -> None:
    """Raise what `RunMetrics` raises, if the config asks for metrics."""
    if config.metrics:
        RunMetrics(config, data, device, folder)


def worse(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the last measurement says for the first time of a run that goes wrong; rows as `read_metrics` gives them.

    SWD over twice its best says that images leave the data; MS-SSIM nearer to 1 than to the reals' own that all images
    become one.
    """
    found = []
    for metric, level in (("swd", "average"), ("ms_ssim", "")):
        series = [row for row in rows if row["metric"] == metric]
        same = [row for row in series if all(row[name] == series[-1][name] for name in ("protocol", "data"))]
        values = [row["values"].get(level, math.nan) for row in same]
        if metric == "swd":
            bad = [value > 2 * min(values[:i], default=math.inf) for i, value in enumerate(values)]
            text = f"SWD is over twice its best, {min(values, default=0):.4g}"
        else:
            reals = [row.get("reals", {}).get(level, math.nan) for row in same]
            bad = [value > (1 + own) / 2 for value, own in zip(values, reals, strict=True)]
            text = "MS-SSIM nears 1: the images become alike"
        if bad and bad[-1] and not any(bad[:-1]):
            good = same[values.index(min(values))]["nimg"] / 1000
            found.append(f"{text}; it was best at {good:g} kimg, to which --branch with --from-kimg goes back")
    return found


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl that tell how far training was, in that order, the newest of each measurement.

    A line that a kill cut short is left out.
    """
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in read_lines(path, _Measured):
        if row["nimg"] is not None:
            fields = ("nimg", "metric", "protocol", "data", "resolution", "mirrored")
            newest[tuple(row[field] for field in fields)] = row
    return sorted(newest.values(), key=lambda row: row["nimg"])


def read_times(path: Path) -> tuple[list[int], list[float]]:
    """Images shown and seconds of training until then, of every whole line of a timing.jsonl."""
    times = list(read_lines(path, _Time))
    return [time["nimg"] for time in times], [time["seconds"] for time in times]


def plot_metrics(folder: RunFolder) -> Path | None:
    """Draw every metric of a run against images shown and against hours of training: metrics.png in its folder.

    Dashed lines are what reals have. Returns None, and draws nothing, without matplotlib or measurements.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = read_metrics(folder.metrics)
    names = list(dict.fromkeys((row["metric"], row["protocol"], row["data"]) for row in rows))
    if not names:
        return None
    shown, seconds = read_times(folder.timing)
    figure = Figure(figsize=(11, 3.6 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 2, squeeze=False, sharey="row")
    for (left, right), name in zip(axes, names, strict=True):
        chosen = [row for row in rows if (row["metric"], row["protocol"], row["data"]) == name]
        nimg = np.array([row["nimg"] for row in chosen])
        hours = np.interp(nimg, shown, seconds) / 3600 if shown else None
        unit = (60, "minutes") if hours is not None and hours.max() < 2 else (1, "hours")
        spent = None if hours is None else hours * unit[0]
        for axis, x, label in ((left, nimg / 1000, "kimg"), (right, spent, f"{unit[1]} of training")):
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
            if x is not None:
                _lines(axis, x, chosen)
        left.set_ylabel(value_title(name[0]))
        left.legend(fontsize="small")
    path = folder.path / "metrics.png"
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=110))
    return path


def _lines(axis: Any, x: np.ndarray, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    for level in rows[0]["values"]:
        values = [row["values"].get(level, math.nan) for row in rows]
        errors = [row["spread"].get(level, 0.0) for row in rows]
        width = 2.5 if level == "average" else 1.2
        label = level or "generated"
        line = axis.errorbar(x, values, errors, marker=".", linewidth=width, capsize=2, label=label)
        floor = rows[-1].get("floor", rows[-1].get("reals", {})).get(level)
        if floor is not None:
            last = level == list(rows[0]["values"])[-1]
            colour = line[0].get_color()
            axis.axhline(floor, linestyle="--", linewidth=0.8, color=colour, label="reals" if last else None)
    axis.set_ylim(bottom=0)
