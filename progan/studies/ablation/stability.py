"""How many runs end well, against the learning rate: with growing and without, WGAN-GP and LSGAN (paper 2, appendix B).

Each run is cut as soon as its fate is clear: it trains in parts, is measured after each, and goes on while it may still
end well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.meter import number
from progan.metrics.suite import value_title
from progan.schedule import Schedule
from progan.studies.ablation.rows import SCALES, chosen_rows
from progan.studies.ablation.stability_figure import FATES, figure
from progan.studies.ablation.study import Against, Study
from progan.studies.ablation.time_to_quality import at_rate
from progan.studies.experiment import Experiment, Record
from progan.studies.rows import Row
from progan.studies.runner import run_experiments
from progan.studies.tables import markdown_table, mean_and_std, not_there, plus_minus, write_figure
from progan.support.errors import DivergedError
from progan.support.run_files import RunFolder
from progan.training import train
from progan.weights import load_network

FATE = "fate.json"
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
VARIANTS = {
    "WGAN-GP, grown": "g",
    "WGAN-GP, not grown": "g-ungrown",
    "LSGAN, grown": "g-lsgan",
    "LSGAN, not grown": "g-lsgan-ungrown",
}
PARTS = 3  # that a run is measured after, from where it is fully grown to its end
# Shorter than the scale's own runs, for there are sixty; with an average that does not lag behind so short phases.
SHORT = {
    "schedule.stable_nimg": 2_000,
    "schedule.fade_nimg": 2_000,
    "schedule.total_nimg": 24_000,
    "ema_rampup": 0.1,
}


@dataclass(frozen=True)
class Bounds:
    """What ends well: an average SWD x1e3 of at most `swd`, an MS-SSIM of at most `ms_ssim`.

    A run whose MS-SSIM is above that bound after two parts in turn has collapsed; one whose SWD is over `hopeless`
    times its bound before its last part is not going to end well.
    """

    swd: float = 60.0
    ms_ssim: float = 0.5
    hopeless: float = 4.0


@dataclass(frozen=True)
class Fate(Against):
    """Measures a run after a part of it, and says what has become of it."""

    bounds: Bounds = Bounds()

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        g, about = load_network(folder.generator, "generator")
        swd, ms_ssim = self.meter("swd,ms_ssim", g.config.resolution).measure(self.fakes(g, about))
        return {"nimg": about["nimg"], "swd": swd.values["average"], "ms_ssim": ms_ssim.values[""]}


def fate_of(points: Sequence[Mapping[str, Any]], bounds: Bounds, *, ended: bool) -> str:
    """One of FATES, or "" while it may still end well. points: {"swd", "ms_ssim"} after each part, in order."""
    similar = [not point["ms_ssim"] <= bounds.ms_ssim for point in points]
    far = not points[-1]["swd"] <= bounds.swd * (1 if ended else bounds.hopeless)
    if similar[-2:] == [True, True] or (ended and similar[-1]):
        return "collapsed"
    if far:
        return "far from the data"
    return "ends well" if ended else ""


@dataclass(frozen=True)
class FateExperiment(Experiment):
    """A run in parts, cut as soon as its fate is clear: {"fate", "points"} beside what every record has."""

    def run(self) -> Record:
        """As `Experiment.run`; that a run diverges is a result."""
        assert isinstance(self.measure, Fate)
        nimg, seconds, fate = 0, 0.0, ""
        points: list[Record] = []
        ends = parts(Schedule(self.config.schedule, self.config.g.resolution))
        for end in ends:
            try:
                schedule = replace(self.config.schedule, total_nimg=end)
                state = train(replace(self.config, schedule=schedule), ImagePyramid.open(self.data), self.folder)
            except DivergedError:
                fate = "diverged"
                break
            nimg, seconds = state.nimg, state.seconds
            points.append(self.measure(RunFolder(self.folder)))
            fate = fate_of(points, self.measure.bounds, ended=end == ends[-1])
            if fate:
                break
        return self.keep(nimg, seconds, {"fate": fate, "points": points})


def parts(schedule: Schedule) -> list[int]:
    """Where a run is measured: PARTS moments, evenly from where a growing one is fully grown to its end."""
    grown = Schedule(replace(schedule.config, growing=True), schedule.resolution)
    start, total = grown.first_full_nimg(), schedule.config.total_nimg
    return [start + (total - start) * (i + 1) // PARTS for i in range(PARTS)]


def stability(study: Study, rows: Sequence[Row], rates: Sequence[float] = RATES) -> tuple[str, list[Path]]:
    """Train what is missing of every variant, rate and seed, write stability.json, .md and, with matplotlib, .png into
    the study's folder; returns the text and the files written. What is not there yet is named, as `Study.table` does.
    """
    bounds = Bounds()
    tries = {
        (variant, rate): _short(at_rate(study, chosen_rows(row, rows)[0], rate, rows))
        for variant, row in VARIANTS.items()
        for rate in rates
    }
    every = [*rows, *tries.values()]
    study.check([*tries.values()], every)
    images = study.images or SCALES[study.scale].curve_images
    measure = Fate(study.reals, images, study.mirror, study.device, bounds)
    experiments = [
        FateExperiment(**vars(experiment))
        for experiment in study.experiments_of([*tries.values()], every, measure, FATE)
    ]
    outcome = run_experiments(experiments, study.place)
    records: dict[str, dict[float, list[Record]]] = {}
    for i, (variant, rate) in enumerate(tries):
        found = [record for record in outcome.records[i * study.seeds : (i + 1) * study.seeds] if record]
        if found:
            records.setdefault(variant, {})[rate] = found
    if not records:
        outcome.check()
        return not_there(outcome.missing), []
    text = "\n\n".join(filter(None, (_text(records, bounds, study.seeds), not_there(outcome.missing))))
    runs = {
        variant: {f"{rate:g}": [{key: record[key] for key in ("fate", "nimg", "points")} for record in seeds]
                  for rate, seeds in of.items()}
        for variant, of in records.items()
    }  # fmt: skip
    rate = study.config(chosen_rows("g", rows)[0], 0, rows).schedule.g_lr[4]
    data = {"bounds": asdict(bounds), "rate": rate, "runs": runs}
    written = write_figure(study.out, "stability", data, text, lambda path: figure(path, records, bounds.swd))
    outcome.check(written)
    return text, written


def _short(row: Row) -> Row:
    """The row with a schedule of a few minutes, in a folder of its own."""
    return replace(row, name=f"{row.name}-short", overrides={**row.overrides, **SHORT})


def _text(records: Mapping[str, Mapping[float, Sequence[Record]]], bounds: Bounds, seeds: int) -> str:
    """A table of the fates, and what they mean."""
    rates = sorted({rate for of in records.values() for rate in of})
    lines = []
    for variant, of in records.items():
        cells = [variant]
        for rate in rates:
            fates = [record["fate"] for record in of.get(rate, ())]
            last = [record["points"][-1]["swd"] for record in of.get(rate, ()) if record["fate"] == "ends well"]
            said = [f"{fates.count(fate)} {fate}" for fate in FATES if fate in fates]
            cells.append(", ".join(said) + (f" (SWD {plus_minus(*mean_and_std(last), '.3g')})" if last else ""))
        lines.append(cells)
    well = {variant: sum(record["fate"] == "ends well" for seeds in of.values() for record in seeds)
            for variant, of in records.items()}  # fmt: skip
    every = {variant: sum(map(len, of.values())) for variant, of in records.items()}
    summary = "; ".join(f"{variant}: {well[variant]} of {every[variant]}" for variant in records)
    heads = ("", *(f"x {rate:g}" for rate in rates))
    return (
        f"{markdown_table(heads, lines, words=len(heads))}\n"
        f"End well: {summary}.\n\n"
        f"Up to {seeds} seeds each; the learning rate as a multiple of the scale's. A run ends well with an average"
        f" {value_title('swd')} of at most {number(bounds.swd)} and an MS-SSIM of at most {bounds.ms_ssim:g}; it has"
        " collapsed when the latter is above that twice in turn or at the end, and diverged when a loss is no number."
    )
