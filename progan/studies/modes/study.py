"""How many of 1,000 modes a small discriminator lets a generator find (paper appendix E, after Metz et al. 2016).

The data are three random MNIST digits as the colours of one image. A classifier reads the digits of generated images;
the modes that it finds are counted, and how far their distribution is from an even one. The discriminator has 1/K of
the generator's width, K = 2 and 4 in the paper.

The networks are this project's, with the maps of the paper's code. That one, which follows Metz et al., has one
convolution per block in place of two, a D that ends in one dense layer and has batch norm in "wgan-gp", and a slope of
0.3 in G's activation. So the variants compare with each other, and with published figures only in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from progan.config import DiscriminatorConfig, GeneratorConfig, LossConfig, ScheduleConfig, TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.fakes import fakes_of
from progan.evaluation.meter import Reals
from progan.images import write_png
from progan.presets import WHOLE_BATCH
from progan.studies.experiment import Experiment
from progan.studies.folder import prepare_study
from progan.studies.modes.classifier import MODES, SIDE, check_mnist_rgb, classifier_for, read_classifier
from progan.studies.modes.report import markdown, modes_picture
from progan.studies.place import HERE, Place
from progan.studies.rows import Row, Scale, lr, row_config
from progan.studies.runner import run_experiments
from progan.studies.side_by_side import Block, side_by_side
from progan.studies.tables import mean_and_std
from progan.support.device import pick_device
from progan.support.errors import ConfigError
from progan.support.files import write_json, write_text
from progan.support.progress import counted
from progan.support.run_files import RunFolder
from progan.support.terminal import say
from progan.weights import load_network

CLASSIFIER = "classifier.safetensors"
WIDTH = 64  # most maps of G, and half of its fmap_base; K times those of D
DIVISORS = (1, 2, 4)

PAPER = TrainConfig(
    g=GeneratorConfig(resolution=SIDE, fmap_base=2 * WIDTH, fmap_max=WIDTH),
    d=DiscriminatorConfig(resolution=SIDE, fmap_base=2 * WIDTH, fmap_max=WIDTH, fused_scaling=False),
    schedule=ScheduleConfig(stable_nimg=400_000, fade_nimg=400_000, total_nimg=10_000_000, batch={4: 64}),
    loss=LossConfig(drift=0.0),
    d_steps=5,
    ema_decay=0.999**0.2,  # per D step; the paper's code has 0.999 per step of G
    mirror=False,
    precision="fp32",  # with so few maps bf16 takes longer
    snapshot_nimg=200_000,
    checkpoint_nimg=200_000,
)
IMAGES = 25_600  # generated, whose modes are counted; the number of Metz et al. and of the paper's code
SCALES = {
    "paper": Scale(PAPER, IMAGES),
    "small": Scale(
        replace(
            PAPER,
            schedule=ScheduleConfig(stable_nimg=4_000, fade_nimg=4_000, total_nimg=48_000, batch={4: 8}),
            d_steps=1,
            ema_decay=0.997,
            snapshot_nimg=8_000,
            checkpoint_nimg=8_000,
        ),
        IMAGES,
    ),
}
VARIANTS = (
    Row(
        "wgan-gp",
        None,
        "wgan-gp",
        {
            "g.norm": "batch",
            "g.output": "tanh",
            "g.equalized": False,
            "d.equalized": False,
            "d.stddev_group": 0,
            "schedule.growing": False,
        },
    ),
    Row(
        "normalization",
        "wgan-gp",
        "+ normalization",
        {"g.norm": "pixel", "g.equalized": True, "d.equalized": True},
        at={"small": lr(6e-3)},  # with which "wgan-gp" would be left with one black image
    ),
    Row("minibatch-stddev", "normalization", "+ minibatch-stddev", {"d.stddev_group": WHOLE_BATCH}),
    Row("progressive", "minibatch-stddev", "+ progressive", {"schedule.growing": True}),
)
BY_NAME = {variant.name: variant for variant in VARIANTS}


def count_modes(digits: np.ndarray) -> tuple[int, float, np.ndarray]:
    """How many modes there are among images, their KL divergence from an even distribution, and images per mode.

    digits: int [N, 3], 0 to 9, red first; N at least 1. Returns the modes found, 0 to 1,000; the sum of q log(1000 q)
    in nats, q being a mode's share of the images, 0 (even) to log(1000); and the counts, int64 [1000], by the number
    that the digits spell. Even images drawn at random have a divergence of about 999 / (2 N).
    """
    counts = np.bincount(digits @ np.array([100, 10, 1]), minlength=MODES)
    share = counts[counts > 0] / len(digits)
    return len(share), float((share * np.log(share * MODES)).sum()), counts


@dataclass(frozen=True)
class ModeRecovery:
    """Counts the modes of a run's generator: {"modes", "kl", "counts"}, the last for each of the 1,000.

    classifier: the SHA-256 of the file beside the run folder that holds it; images: how many are generated; seed: of
    their latents; device: where.
    """

    classifier: str
    images: int
    seed: int
    device: str = field(default="auto", compare=False)

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        classifier = read_classifier(folder.path.parent / CLASSIFIER)
        g = load_network(folder.generator, "generator")[0].requires_grad_(False).to(pick_device(self.device))
        digits = [classifier.digits(images) for images in fakes_of(g, None, self.images, seed=self.seed)]
        return _counted(np.concatenate(digits))


def recover_modes(
    data: Path,
    out: Path,
    scale: str = "small",
    *,
    variants: Sequence[str] = tuple(BY_NAME),
    divisors: Sequence[int] = (2, 4),
    seeds: int = 1,
    device: str = "auto",
    place: Place = HERE,
) -> dict[str, Any]:
    """Train and measure variants; writes table.md, table.json, modes.png and grid.png into `out`; returns the table.

    data: an MNIST-RGB data set, whose labels only the classifier sees. scale: one of SCALES; variants: names; divisors:
    K, some of DIVISORS; seeds: runs of each. A run goes to out/<variant>-d<K>-seed<k>. What was done before is not done
    again. place: where the runs are trained. The table is of those that are there; without any, nothing is written.
    Raises ConfigError, DataError or RunError before anything is trained when an argument is not allowed, the data set
    is another, or `out` holds another study, and what a run that failed did, after the report.
    """
    for name, given, allowed in (
        ("--scale", [scale], list(SCALES)),
        ("--variants", variants, list(BY_NAME)),
        ("--divisors", divisors, DIVISORS),
    ):
        if unknown := [one for one in given if one not in allowed]:
            raise ConfigError(f"{name}: {unknown[0]!r} is not allowed; use some of {', '.join(map(str, allowed))}")
    if seeds < 1 or not variants or not divisors:
        raise ConfigError("--variants, --divisors, --seeds: nothing to train; give one of each or more")
    pyramid = ImagePyramid.open(data)
    check_mnist_rgb(pyramid)
    pick_device(device)
    prepare_study(out, {"study": "mode recovery", "scale": scale, "data": pyramid.hash})
    classifier = classifier_for(pyramid, out / CLASSIFIER)
    say(f"digit classifier: {classifier.accuracy:.2%} of {classifier.held_out:,} held-out digits right")
    lines = [(BY_NAME[name], divisor) for divisor in dict.fromkeys(divisors) for name in dict.fromkeys(variants)]
    experiments = [
        Experiment(
            f"{variant.name}, D/{divisor}, seed {seed}",
            replace(mode_config(variant.name, divisor, scale), seed=seed, device=device),
            data,
            out / f"{variant.name}-d{divisor}-seed{seed}",
            ModeRecovery(classifier.hash, SCALES[scale].images, seed, device),
        )
        for variant, divisor in lines
        for seed in range(seeds)
    ]
    outcome = run_experiments(experiments, place)
    there = [(one, record) for one, record in zip(experiments, outcome.records, strict=True) if record is not None]
    if not there:
        outcome.check()
        return {"rows": [], "missing": outcome.missing}
    count = min(SCALES[scale].images, len(pyramid))  # of reals: what a perfect generator would have
    stream = counted("modes of reals", Reals(pyramid, SIDE, mirrored=False).stream(0, count), count, quiet=False)
    reals = {"images": count, **_counted(np.concatenate([classifier.digits(images) for images in stream]))}
    counts = {"reals": reals.pop("counts")}
    counts |= {one.folder.name: record["counts"] for one, record in there}
    rows, blocks = [], []
    for i, (variant, divisor) in enumerate(lines):
        part = range(i * seeds, (i + 1) * seeds)
        if found := [(experiments[k], record) for k in part if (record := outcome.records[k]) is not None]:
            rows.append(_line(variant, divisor, [record for _, record in found]))
            blocks.append(Block(f"D/{divisor}", variant.title, RunFolder(found[0][0].folder).newest_fakes()))
    table = {
        "scale": scale,
        "data": {"images": len(pyramid), "hash": pyramid.hash},
        "nimg": SCALES[scale].config.schedule.total_nimg,
        "images": SCALES[scale].images,
        "classifier": {"accuracy": classifier.accuracy, "held_out": classifier.held_out},
        "reals": reals,
        "rows": rows,
        "missing": outcome.missing,
    }
    write_json(out / "table.json", table)
    write_text(out / "table.md", markdown(table))
    write_png(out / "modes.png", modes_picture(counts))
    blocks.append(Block("reals", "", RunFolder(there[0][0].folder).reals))
    write_png(out / "grid.png", side_by_side(blocks, SIDE))
    outcome.check([out / name for name in ("table.md", "table.json", "modes.png", "grid.png")])
    return table


def mode_config(name: str, divisor: int, scale: str) -> TrainConfig:
    """The configuration of a variant with D of 1/divisor of G's width, at a scale; without labels."""
    config, width = row_config(BY_NAME[name], scale, SCALES, VARIANTS), WIDTH // divisor
    return replace(config, d=replace(config.d, fmap_base=2 * width, fmap_max=width))


def _counted(digits: np.ndarray) -> dict[str, Any]:
    found, kl, counts = count_modes(digits)
    return {"modes": found, "kl": kl, "counts": counts.tolist()}


def _line(variant: Row, divisor: int, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A line of the table: the runs of one variant and divisor, one record per seed; std (n - 1) of several."""
    line: dict[str, Any] = {"variant": variant.name, "title": variant.title, "divisor": divisor}
    for name in ("modes", "kl", "seconds"):
        values = [record[name] for record in records]
        mean, std = mean_and_std(values)
        line[name] = {"mean": mean, "std": std, "seeds": values}
    return line | {"parameters": records[0]["parameters"]}
