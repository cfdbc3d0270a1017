"""CIFAR-10 without labels: the inception score of the paper's small network (section 6.5, appendix D).

The paper's 8.80 is the best score of its best run, and 8.56 ± 0.06 the mean and deviation, over ten random
initialisations, of the best score seen during each. A run here is measured once, at its end, with no best moment to
choose, so expect a little less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.fakes import fakes_of
from progan.evaluation.meter import Meter, Reals, number
from progan.images import write_png
from progan.metrics.feature_networks import load_feature_network
from progan.metrics.features import FeatureProtocol
from progan.metrics.suite import Metric, choose, value_title
from progan.presets import PRESETS
from progan.studies.experiment import Experiment
from progan.studies.folder import prepare_study, study_precision
from progan.studies.place import HERE, Place
from progan.studies.rows import Scale
from progan.studies.runner import run_experiments
from progan.studies.side_by_side import Block, side_by_side
from progan.studies.tables import markdown_table, mean_and_std, not_there, plus_minus
from progan.support.device import pick_device
from progan.support.errors import ConfigError, DataError
from progan.support.files import write_json, write_text
from progan.support.malloc import keep_freed_memory
from progan.support.progress import duration
from progan.support.run_files import RunFolder
from progan.weights import load_network

RESOLUTION = 32
INCEPTION_SCORE = "is"

PAPER = PRESETS["cifar10"].config  # for three colours and no labels, whatever the data set has
SCALES = {
    "paper": Scale(
        replace(PAPER, snapshot_nimg=200_000, checkpoint_nimg=100_000),
        images=0,  # 50,000 for the inception score
        metrics="is,swd,ms_ssim",
    ),
    "small": Scale(
        replace(
            PAPER,
            g=replace(PAPER.g, fmap_base=256, fmap_max=64),  # and so 64 components of the latent
            d=replace(PAPER.d, fmap_base=256, fmap_max=64),
            schedule=PRESETS["demo"].config.schedule,
            ema_decay=0.997,
            snapshot_nimg=5_000,
            checkpoint_nimg=5_000,
        ),
        images=2_500,
        metrics="is_efficientnet_lite0,swd,ms_ssim",
    ),
}
PUBLISHED = {"paper": {INCEPTION_SCORE: "8.56 ± 0.06 (best 8.80)"}}
NOTES = {
    "paper": "Paper: mean ± std, over ten random initialisations, of the best score seen while training, and the best"
    " of all; the networks here are measured once, at the end of training.",
    "small": "A small network, trained for minutes: no score here compares with published ones, and"
    " is_efficientnet_lite0, which looks through another network, never does.",
}


@dataclass(frozen=True)
class ScoreMeasure:
    """Metrics of a run's final generator against a data set, as {"results": [...], "device": ...}.

    metrics, images: as `metrics.suite.choose` takes them; weights: a file of the inception network.
    """

    data: Path
    metrics: str
    images: int | None
    weights: Path | None
    device: str = field(compare=False)

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        """Raises DataError when the data set is too small, ConfigError when a network cannot be loaded."""
        device = pick_device(self.device)
        if device.type == "cpu":
            keep_freed_memory()
        chosen = self.chosen()
        reals = Reals(ImagePyramid.open(self.data), RESOLUTION, mirrored=False)
        g = load_network(folder.generator, "generator")[0].requires_grad_(False).to(device)
        fakes = fakes_of(g, None, max(metric.size for metric in chosen))
        results = Meter(chosen, reals, device, quiet=True).measure(fakes)
        return {"results": [result.as_json() for result in results], "device": str(device)}

    def chosen(self) -> list[Metric]:
        """The metrics with their protocols."""
        return choose(self.metrics, images=self.images, weights=self.weights)


def cifar10(
    data: Path,
    out: Path,
    scale: str = "small",
    *,
    seeds: int = 1,
    weights: Path | None = None,
    device: str = "auto",
    place: Place = HERE,
) -> tuple[str, list[Path]]:
    """Train a network per seed on 32x32 colour images, measure it; write table.md, table.json and grid.png into `out`.

    data: any such data set; its labels are not used. scale: one of SCALES. weights: a file of the inception network,
    with which "small" measures the inception score too. The run of seed k goes to out/seed<k>. What was done before is
    not done again. place: where the runs are trained. Returns the table in Markdown, of the runs that are there, and
    the files. Raises ConfigError or DataError, before the first image, when something that the measurement at the end
    will need is not there, RunError when `out` holds something else, and what a run that failed did, after the report.
    """
    if scale not in SCALES:
        raise ConfigError(f"--scale: {scale!r} is not known; use one of {', '.join(SCALES)}")
    if seeds < 1:
        raise ConfigError(f"--seeds: {seeds} is not allowed; train 1 or more networks")
    pyramid = ImagePyramid.open(data)
    pick_device(device)
    of = SCALES[scale]
    metrics = of.metrics
    if weights is not None and INCEPTION_SCORE not in metrics.split(","):
        metrics = f"{INCEPTION_SCORE},{metrics}"
    measure = ScoreMeasure(data, metrics, of.images or None, weights, device)
    check_data(pyramid, measure.chosen(), scale)
    check_networks(measure.chosen(), weights)
    prepare_study(out, {"study": "CIFAR-10", "scale": scale, "data": pyramid.hash})
    config = replace(of.config, device=device, precision=study_precision(out, device, of.config.precision, place))
    experiments = [
        Experiment(f"cifar10, seed {seed}", replace(config, seed=seed), data, out / f"seed{seed}", measure)
        for seed in range(seeds)
    ]
    outcome = run_experiments(experiments, place)
    records = {seed: record for seed, record in enumerate(outcome.records) if record is not None}
    if not records:
        outcome.check()
        return not_there(outcome.missing), []
    table = make_table(scale, config, pyramid, records, outcome.missing)
    text = markdown(table)
    written = [out / name for name in ("table.md", "table.json", "grid.png")]
    write_text(written[0], text)
    write_json(written[1], table)
    folders = {seed: RunFolder(experiments[seed].folder) for seed in records}
    blocks = [Block(f"seed {seed}", "", folder.newest_fakes()) for seed, folder in folders.items()]
    blocks.append(Block("reals", "", folders[min(folders)].reals))
    write_png(written[2], side_by_side(blocks, RESOLUTION))
    outcome.check(written)
    return text, written


def check_data(data: ImagePyramid, metrics: Sequence[Metric], scale: str) -> None:
    """Raise DataError unless the data set has 32x32 colour images, and enough for every metric."""
    if (data.channels, data.resolution) != (3, RESOLUTION):
        raise DataError(
            f"{data.path}: holds {data.resolution}x{data.resolution} images with {data.channels} channel"
            f"{'s' * (data.channels != 1)}; give one of 32x32 in colour, made by `progan data create cifar10`"
        )
    for metric in metrics:
        if len(data) < metric.reals_needed:
            raise DataError(
                f"{data.path}: holds {len(data):,} images, {metric.name} at --scale {scale} needs"
                f" {metric.reals_needed:,}; give a larger data set, such as CIFAR-10's 50,000 training images"
            )


def check_networks(metrics: Sequence[Metric], weights: Path | None) -> None:
    """Load the networks that metrics look through, downloading the inception network if it is not there.

    Raises ConfigError when a package or a file is missing, unreadable or not the published one.
    """
    for metric in metrics:
        if isinstance(metric.protocol, FeatureProtocol):
            network = metric.protocol.network
            try:
                load_feature_network(network, "cpu", weights if network == "inception" else None)
            except OSError as error:
                what = f"--inception-weights: {weights}" if network == "inception" and weights else network
                raise ConfigError(
                    f"{what} cannot be read ({error.strerror or error}); mend that or copy it anew"
                ) from None


def make_table(
    scale: str,
    config: TrainConfig,
    data: ImagePyramid,
    by_seed: Mapping[int, Mapping[str, Any]],
    missing: Sequence[str] = (),
) -> dict[str, Any]:
    """What the runs of one scale found, as JSON values; by_seed: a record of `run_experiments` each; missing: names.

    Each row is one value: "values" and "spread" by seed, "mean" and "std" (n - 1) over several seeds, "reals" what the
    data set itself has, for a distance that of reals to other reals.
    """
    rows, records = [], list(by_seed.values())
    for results in zip(*(record["results"] for record in records), strict=True):
        first = results[0]
        of_reals = first["floor"] if "floor" in first else first["reals"]
        for level in first["values"]:
            values = [result["values"][level] for result in results]
            mean, std = mean_and_std(values)
            rows.append(
                {
                    "metric": first["metric"],
                    "level": level,
                    "images": first["images"]["fakes"],
                    "values": values,
                    "spread": [result["spread"].get(level) for result in results],
                    "spread_is": first["spread_is"],
                    "mean": mean,
                    "std": std,
                    "reals": of_reals.get(level),
                    "paper": PUBLISHED.get(scale, {}).get(first["metric"]),
                    "protocol": first["protocol"],
                }
            )
    source = data.manifest["source"]
    return {
        "scale": scale,
        "data": {
            "source": source.get("kind", "unknown"),
            "split": source.get("split"),
            "images": len(data),
            "hash": data.hash,
        },
        "nimg": config.schedule.total_nimg,
        "parameters": records[0]["parameters"],
        "seeds": list(by_seed),
        "missing": list(missing),
        "rows": rows,
        "seconds": [record["seconds"] for record in records],
        "devices": [record["device"] for record in records],
    }


def markdown(table: Mapping[str, Any]) -> str:
    """A table of `make_table` for people."""
    data, several = table["data"], len(table["seconds"]) > 1
    paper = any(row["paper"] for row in table["rows"])
    names = ["metric", "images", *(f"seed {seed}" for seed in table["seeds"])]
    names += ["mean ± std"] * several + ["reals"] + ["paper, CIFAR-10"] * paper
    lines = []
    for row in table["rows"]:
        cells = [_title(row), f"{row['images']:,}"]
        of_seeds = [*zip(row["values"], row["spread"], strict=True), *[(row["mean"], row["std"])] * several]
        cells += [plus_minus(value, spread, spread_form=".2g") for value, spread in of_seeds]
        cells += [number(row["reals"])] + [row["paper"] or ""] * paper
        lines.append(cells)
    times = ["training", "", *map(duration, table["seconds"])]
    lines.append(times + [""] * (len(names) - len(times)))
    source = data["source"] + (f" ({data['split']})" if data["split"] else "")
    devices, parameters = ", ".join(sorted(set(table["devices"]))), table["parameters"]
    spreads = {_title(row | {"level": ""}): row["spread_is"] for row in table["rows"]}
    return "\n".join(
        [
            "# Inception score without labels (paper section 6.5)",
            "",
            f"Data set: {source}, {data['images']:,} images, {data['hash'][:12]}."
            f" Scale `{table['scale']}`: {table['nimg'] / 1000:,g} kimg,"
            f" G {parameters['g']:,} and D {parameters['d']:,} parameters, on {devices}.",
            "",
            markdown_table(names, lines, words=1),
            "±, of one network: "
            + "; ".join(f"{name}: {spread}" for name, spread in spreads.items())
            + ("; std: over the seeds, n - 1." if several else "."),
            "Reals: what the data set itself has; for SWD, the distance of its images to others of it.",
            NOTES[table["scale"]],
            *filter(None, [not_there(table["missing"])]),
            "",
        ]
    )


def _title(row: Mapping[str, Any]) -> str:
    """As elsewhere; a metric that has no other title than its name is set as code."""
    title = value_title(row["metric"], row["level"])
    return f"`{title}`" if title == row["metric"] else title
