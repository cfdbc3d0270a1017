"""`progan evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from progan.support.config_io import split_names
from progan.support.errors import ConfigError
from progan.support.terminal import say

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Evaluate:
    """Measure a generator, or any folder of images, against a data set: SWD, MS-SSIM, FID and others.

    Processes that torchrun started share the images of one measurement.
    """

    data: Path
    """Data set of the reals."""
    source: Positional[Path | None] = None
    """Run folder, a .safetensors file, or hf://OWNER/NAME; leave it out with --fakes."""
    metrics: str = "swd,ms_ssim"
    """Some of swd, ms_ssim, fid, kid, is, precision, recall, the last five with _efficientnet_lite0 at their end to go
    without a network, neighbours."""
    fakes: Path | None = None
    """Measure the images in this folder instead of a generator's, whatever program made them."""
    all_snapshots: bool = False
    """Measure every snapshot of the run, one row each."""
    images: int | None = None
    """Images of each set; by default each metric's own number: 16384 for swd, 20000 for ms_ssim, 50000 for fid,
    with as many reals as there are."""
    seed: int = 0
    """Decides latents, the choice of reals, patches and directions."""
    mirror: Literal["auto", "on", "off"] = "auto"
    """Mirror half of the reals; auto: if the run trained so."""
    held_out: Path | None = None
    """Data set that the run did not see, for neighbours; without it, other images of the data set are taken."""
    inception_weights: Path | None = None
    """File of the Inception network for fid, kid and is; by default torch-fidelity downloads it."""
    out: Path | None = None
    """Folder of metrics.jsonl and pictures; by default the run's folder, or the current one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps: where images are made, in float32 as `progan generate` makes them, and measured."""

    def run(self) -> None:
        import torch

        from progan.evaluation.subjects import evaluate, neighbours_picture, results_table
        from progan.metrics.suite import NEIGHBOURS
        from progan.run.metrics_log import plot_metrics
        from progan.run.team import join_team, own_gpu
        from progan.support.device import pick_device
        from progan.support.run_files import RunFolder

        out = self.out or (self.source if self.source is not None and self.source.is_dir() else Path())
        # They speak with each other on the CPU alone, about statistics.
        with join_team(torch.device("cpu")) as team:
            device = team.first(lambda: pick_device(self.device))
            team.together(lambda: own_gpu(device))
            asked = team.together(lambda: self._asked(device))
            rows = list(evaluate(**asked, seed=self.seed, device=device, out=out, images=self.images, processes=team))
            if team.rank:
                return
            picture = plot_metrics(RunFolder(out)) if RunFolder(out).config.exists() else None
            say(results_table(rows))
            written = [out / "metrics.jsonl", *([] if picture is None else [picture])]
            if NEIGHBOURS in split_names(self.metrics):
                written += [neighbours_picture(out, subject) for subject in asked["subjects"]]
            say("written to " + ", ".join(map(str, written)))

    def _asked(self, device: "torch.device") -> dict[str, Any]:
        """What is measured against what, by what, as arguments of `evaluate`."""
        from progan.data.store.pyramid import ImagePyramid
        from progan.evaluation.subjects import folder_subject, subjects_of, training_mirrors
        from progan.metrics.suite import NEIGHBOURS, choose

        if (self.source is None) == (self.fakes is None):
            raise ConfigError(
                "SOURCE: give a run folder, a .safetensors file, hf://OWNER/NAME, or --fakes FOLDER, one of them"
            )
        if self.all_snapshots and self.fakes is not None:
            raise ConfigError("--all-snapshots: goes with a run folder, not with --fakes")
        metrics = choose(self.metrics, images=self.images, seed=self.seed, weights=self.inception_weights)
        data = ImagePyramid.open(self.data)
        mirrored = self.mirror == "on"
        if self.source is None:
            assert self.fakes is not None
            subjects = [folder_subject(self.fakes, data.channels, self.seed)]
        else:
            subjects = subjects_of(self.source, data, device, all_snapshots=self.all_snapshots, seed=self.seed)
            if self.mirror == "auto":
                mirrored = bool(training_mirrors(self.source))
        return {
            "subjects": subjects,
            "data": data,
            "metrics": metrics,
            "mirrored": mirrored,
            "neighbours": NEIGHBOURS in split_names(self.metrics),
            "held_out": None if self.held_out is None else ImagePyramid.open(self.held_out),
        }
