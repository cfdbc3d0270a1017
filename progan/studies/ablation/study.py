"""The ablation study: trains rows of Table 1, measures them, and collects what the report shows (section 6.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.fakes import fakes_of
from progan.evaluation.meter import Meter, Reals
from progan.metrics.suite import choose
from progan.studies.ablation.report import write_report
from progan.studies.ablation.rows import SCALES
from progan.studies.experiment import RESULT, Experiment, Measure
from progan.studies.folder import prepare_study, study_precision
from progan.studies.place import HERE, Place
from progan.studies.rows import Row, row_config
from progan.studies.runner import run_experiments
from progan.studies.tables import not_there
from progan.support.device import Precision, pick_device, processor
from progan.support.errors import ConfigError, DataError
from progan.support.run_files import RunFolder, read_lines
from progan.weights import load_network


@dataclass(frozen=True)
class Study:
    """What all rows of a study have in common.

    data: folder of the training images; held_out: folder of the images to measure against, None for the same; mirror:
    whether training and measuring show mirrored reals; seeds: runs per row; images: of each measured set, None for the
    scale's own number; place: where the runs are trained.
    """

    data: Path
    out: Path
    scale: str = "small"
    held_out: Path | None = None
    mirror: bool = False
    seeds: int = 1
    images: int | None = None
    device: str = "auto"
    place: Place = HERE

    @property
    def reals(self) -> Path:
        """The data set to measure against."""
        return self.data if self.held_out is None else self.held_out

    def config(self, row: Row, seed: int, rows: Sequence[Row]) -> TrainConfig:
        """A row's configuration for this study's data. Labels of the data are left aside, as in the paper."""
        config = row_config(row, self.scale, SCALES, rows)
        channels = ImagePyramid.open(self.data).channels
        networks = {name: replace(getattr(config, name), channels=channels) for name in ("g", "d")}
        precision = self.precision if config.precision == "auto" else config.precision
        return replace(config, seed=seed, mirror=self.mirror, device=self.device, precision=precision, **networks)

    @cached_property
    def precision(self) -> Precision:
        """The number format of all rows."""
        return study_precision(self.out, self.device, place=self.place)

    @property
    def row_measure(self) -> "RowMeasure":
        """What is measured of every row."""
        return RowMeasure(self.reals, self.images or SCALES[self.scale].images, self.mirror, self.device)

    def experiments(self, chosen: Sequence[Row], rows: Sequence[Row]) -> list[Experiment]:
        """One experiment for each row and seed: measured once, at its end."""
        return self.experiments_of(chosen, rows, self.row_measure, RESULT)

    def table(self, chosen: Sequence[Row], rows: Sequence[Row], *, command: str = "") -> tuple[str, list[Path]]:
        """Run what is missing of the chosen rows and write the report: the table as text, and the files written.

        All rows of the study that are there are in the report, whether chosen now or before, also when others are
        missing, which it names. Then raises UserError when a run has failed.
        """
        self.check(chosen, rows)
        outcome = run_experiments(self.experiments(chosen, rows), self.place)
        records: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            for seed, experiment in enumerate(self.experiments([row], rows)):
                if (record := experiment.record()) is not None:
                    picture = (experiment.folder / record["picture"]).relative_to(self.out).as_posix()
                    about = {"row": row.name, "title": row.title, "base": row.base, "seed": seed, "picture": picture}
                    records.setdefault(row.name, []).append(record | about)
        if not records:
            outcome.check()
            return not_there(outcome.missing), []
        missing = {"missing": ", ".join(name.replace(",", "") for name in outcome.missing)} if outcome.missing else {}
        written = write_report(self.out, records, self.facts(records, command) | missing)
        outcome.check(written)
        return written[0].read_text(), written

    def facts(self, records: dict[str, list[dict[str, Any]]], command: str) -> dict[str, Any]:
        """What the report says about the study."""
        first = next(iter(records.values()))[0]
        machines = list(read_lines(RunFolder((self.out / first["picture"]).parent).machines))
        ran = {"processor": processor(), "device": str(pick_device(self.device))} | (machines[-1] if machines else {})
        return {
            "scale": self.scale,
            "resolution": SCALES[self.scale].config.g.resolution,
            "data": described(self.data),
            "reals": described(self.reals),
            "machine": ran.get("gpu") or ran["processor"],
            "device": ran["device"],
            "precision": self.precision,
            "torch": torch.__version__.split("+")[0],
            "command": command,
            "reals_picture": Path(first["picture"]).with_name("reals.png").as_posix(),
        }

    def check(self, chosen: Sequence[Row], rows: Sequence[Row]) -> None:
        """Raise before anything is trained when a row or the data cannot do, or the folder holds another study."""
        if self.seeds < 1:
            raise ConfigError(f"--seeds: {self.seeds} is not allowed; use 1 or more")
        data, reals = (ImagePyramid.open(path) for path in (self.data, self.reals))
        for resolution in {self.config(row, 0, rows).g.resolution for row in chosen}:
            for one in (data, reals):
                if resolution not in one.resolutions:
                    raise DataError(
                        f"{one.path}: goes up to {one.resolution}x{one.resolution} and the scale {self.scale} needs"
                        f" {resolution}x{resolution}; make a larger data set"
                    )
            self.row_measure.meter("swd,ms_ssim", resolution)  # are there images enough?
        if data.channels != reals.channels:
            raise DataError(
                f"{reals.path}: has {reals.channels} channels and {data.path} has {data.channels}; give data sets alike"
            )
        facts = {"scale": self.scale, "data": data.hash, "reals": reals.hash, "mirror": self.mirror}
        prepare_study(self.out, {"study": "ablation", **facts})

    def experiments_of(
        self, chosen: Sequence[Row], rows: Sequence[Row], measure: Measure, result: str
    ) -> list[Experiment]:
        """The runs of each row, seed by seed, and what is measured of them, into a file of this name."""
        return [
            Experiment(
                f"{row.name}, seed {seed}",
                self.config(row, seed, rows),
                self.data,
                self.out / "rows" / f"{row.folder}-seed{seed}",
                measure,
                result,
            )
            for row in chosen
            for seed in range(self.seeds)
        ]


@dataclass(frozen=True)
class Against:
    """Against which reals, over how many images of each set, mirrored or not, and where."""

    reals: Path
    images: int
    mirror: bool
    device: str = field(compare=False)

    def meter(self, metrics: str, resolution: int) -> Meter:
        reals = Reals(ImagePyramid.open(self.reals), resolution, self.mirror)
        return Meter(choose(metrics, images=self.images), reals, pick_device(self.device), quiet=True)

    def fakes(self, g: Any, about: dict[str, Any]) -> Iterator[np.ndarray]:
        g.to(pick_device(self.device))
        return fakes_of(g, None, self.images, resolution=about["resolution"], alpha=about["alpha"])


class RowMeasure(Against):
    """SWD and MS-SSIM of a finished run's generator."""

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        g, about = load_network(folder.generator, "generator")
        results = self.meter("swd,ms_ssim", g.config.resolution).measure(self.fakes(g, about))
        lines = [result.as_json() for result in results]
        for line in lines:
            del line["seconds"]  # whose value differs from one time to the next
        return {"results": lines, "picture": folder.newest_fakes().name}


def described(path: Path) -> str:
    """A data set in words: 12,000 images of kind faces, and the first digits of its hash."""
    data = ImagePyramid.open(path)
    return f"{len(data):,} images ({data.manifest['source'].get('kind', 'unknown')}, {data.hash[:12]})"
