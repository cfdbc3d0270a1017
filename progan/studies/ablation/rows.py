"""Table 1 of the paper as data: each row is a base row and what changes (section 6.1, and its Theano configuration)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from progan.config import DiscriminatorConfig, GeneratorConfig, LossConfig, ScheduleConfig, TrainConfig
from progan.presets import WHOLE_BATCH
from progan.studies.rows import Overrides, Row, Scale, lr
from progan.support.config_io import split_names
from progan.support.errors import ConfigError, printable
from progan.support.json_reader import read_json
from progan.support.plain_files import CONFIG_BYTES


def _grown_longer(resolution: int, *, stable: int, total: int) -> Scale:
    shape: dict[str, Any] = {"resolution": resolution, "fmap_base": 512, "fmap_max": 64}
    config = TrainConfig(
        g=GeneratorConfig(**shape),
        d=DiscriminatorConfig(**shape, stddev_group=0),
        schedule=ScheduleConfig(stable_nimg=stable, fade_nimg=stable, total_nimg=total),
        loss=LossConfig(gp_norm_at="working"),
        ema_rampup=0.1,
        snapshot_nimg=6_000,
        checkpoint_nimg=6_000,
    )
    return Scale(config, images=8_192, curve_images=4_096, like="small")


SCALES: dict[str, Scale] = {
    # 128x128 as published; fmap_base 2048 in all rows but h.
    "paper": Scale(
        TrainConfig(
            g=GeneratorConfig(resolution=128, fmap_base=2048),
            d=DiscriminatorConfig(resolution=128, fmap_base=2048, fused_scaling=False, stddev_group=0),
            schedule=ScheduleConfig(stable_nimg=800_000, fade_nimg=800_000, total_nimg=10_000_000),
            snapshot_nimg=500_000,
            checkpoint_nimg=100_000,
        ),
        images=16_384,
        curve_images=16_384,
    ),
    # Minutes per row on one core: 32x32, widths divided by 8, 1/250 of the images; in their place minibatches of half
    # the size, six times the learning rates, shorter averages, the faster D, and the penalty of the resolution at work.
    "small": Scale(
        TrainConfig(
            g=GeneratorConfig(resolution=32, fmap_base=256, fmap_max=64),
            d=DiscriminatorConfig(resolution=32, fmap_base=256, fmap_max=64, stddev_group=0),
            schedule=ScheduleConfig(stable_nimg=4_000, fade_nimg=4_000, total_nimg=40_000),
            loss=LossConfig(gp_norm_at="working"),
            snapshot_nimg=2_500,
            checkpoint_nimg=5_000,
        ),
        images=8_192,
        curve_images=4_096,
    ),
    # One or two hours per row on one core, for growing against not growing: 64x64 with the demo's widths, and 128x128
    # with networks that narrow down to 8 maps.
    "medium": _grown_longer(64, stable=3_000, total=96_000),
    "tall": _grown_longer(128, stable=3_000, total=120_000),
}


def _batch(count: int) -> Overrides:
    return {"schedule.batch": {"4": count}}


TABLE_1 = ("a", "b", "c", "d", "e*", "e", "f", "g", "h")
ROWS: tuple[Row, ...] = (
    Row(
        "a",
        None,
        "Gulrajani et al. (2017)",
        {
            "schedule.growing": False,
            "d_steps": 5,
            "beta2": 0.9,
            "loss.drift": 0.0,
            "g.normalize_latent": False,
            "g.norm": "batch",
            "g.activation": "relu",
            "g.output": "tanh",
            "g.equalized": False,
            "d.norm": "layer",
            "d.equalized": False,
        },
        # The published decays are per G step of 5 D steps (0.999^20, row c: 0.999^5); these are per D step.
        at={
            "paper": {**_batch(64), **lr(1e-4), "ema_decay": 0.999**4, "g.latent_dim": 128},
            "small": {**_batch(32), **lr(6e-4), "ema_decay": 0.997**4, "g.latent_dim": 16},
        },
    ),
    Row("b", "a", "+ progressive growing", {"schedule.growing": True}),
    Row(
        "c",
        "b",
        "+ small minibatch",
        at={"paper": {**_batch(16), "ema_decay": 0.999}, "small": {**_batch(8), "ema_decay": 0.997}},
    ),
    Row(
        "d",
        "c",
        "+ revised training parameters",
        {
            "d_steps": 1,
            "beta2": 0.99,
            "loss.drift": 0.001,
            "g.latent_dim": None,
            "g.normalize_latent": True,
            "g.norm": "none",
            "g.activation": "leaky",
            "g.output": "linear",
            "d.norm": "none",
        },
    ),
    Row(
        "e*",
        "d",
        "+ minibatch discrimination",
        {"d.minibatch_dims": 5},
        at={"paper": {"d.minibatch_kernels": 100}, "small": {"d.minibatch_kernels": 12}},
    ),
    Row("e", "d", "+ minibatch stddev", {"d.stddev_group": WHOLE_BATCH}),
    Row(
        "f",
        "e",
        "+ equalized learning rate",
        {"g.equalized": True, "d.equalized": True},
        at={"paper": lr(1e-3), "small": lr(6e-3)},
    ),
    Row("g", "f", "+ pixelwise normalization", {"g.norm": "pixel"}),
    # The paper says "until converged"; 19,000 kimg is what it gave CelebA-HQ.
    Row(
        "h",
        "g",
        "+ full width, longer training",
        at={
            "paper": {"g.fmap_base": 8192, "d.fmap_base": 8192, "schedule.total_nimg": 19_000_000},
            "small": {"g.fmap_base": 512, "d.fmap_base": 512, "schedule.total_nimg": 60_000},
        },
    ),
    # Growing is orthogonal to the loss (appendix B), and saves time (section 6.2).
    Row("g-ungrown", "g", "g without growing", {"schedule.growing": False}),
    Row("g-lsgan", "g", "g with LSGAN", {"loss.kind": "lsgan"}),
    Row("g-lsgan-ungrown", "g-lsgan", "g with LSGAN, without growing", {"schedule.growing": False}),
)


def chosen_rows(names: str, rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows of "a,b,e*", each once; "all" is every row. Raises ConfigError for an unknown one."""
    known = {row.name: row for row in rows}
    wanted = list(known) if names.strip() == "all" else split_names(names)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ConfigError(f"--rows: {', '.join(unknown) or 'none'} not known; use some of {', '.join(known)}, or all")
    return [known[name] for name in wanted]


def read_rows(path: Path) -> list[Row]:
    """Rows of one's own: a JSON list of {"name", "base", "title", "overrides"}. Raises ConfigError naming the file."""
    try:
        rows = [_row(entry) for entry in read_json(path, list[Any], CONFIG_BYTES)]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a JSON file of rows") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f'{path}: not a list of rows such as {{"name": "x", "base": "g", "title": "g, no drift",'
            f' "overrides": {{"loss.drift": 0.0}}}} ({printable(error)})'
        ) from None
    names = [row.name for row in (*ROWS, *rows)]
    for row in rows:
        if names.count(row.name) > 1 or not row.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"{path}: {row.name!r} cannot name a row; use letters and digits that no other row has")
    return rows


def _row(entry: Any) -> Row:
    kinds = {"name": str, "base": str, "title": str, "overrides": dict}
    if not isinstance(entry, dict) or entry.keys() != kinds.keys():
        raise ValueError(f"{entry!r} has other fields")
    for name, kind in kinds.items():
        if not isinstance(entry[name], kind):
            raise ValueError(f"{name} {entry[name]!r} is not a {kind.__name__}")
    return Row(**entry)
