"""What a run has learned, how it is saved and how it is read back, to the bit (appendix A.1)."""

import hashlib
import io
import json
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from progan.config import TrainConfig
from progan.networks import Discriminator, Generator
from progan.schedule import Schedule
from progan.support.config_io import flat_fields, from_json, to_json
from progan.support.errors import RunError, printable
from progan.support.files import write_whole
from progan.support.plain_files import open_plain
from progan.support.recording import Recordings
from progan.support.rng import seeded

CHECKPOINT_FORMAT = 1
CHECKSUM = b"progan sha256 "  # begins the comment of the archive, its last bytes; 64 digits follow
# What may change between two parts of one run: how far it goes and what it writes down, never what it computes,
# but for rounding.
FREE_FIELDS = (
    "schedule.total_nimg",
    "labels",  # label_dim says what came of it
    "device",
    "threads",
    "micro_batch",
    "snapshot_nimg",
    "checkpoint_nimg",
    "keep_every_nimg",
    "metrics",
    "metrics_nimg",
    "metrics_images",
)
KEPT_CHECKPOINTS = 2  # the newest, and the one before in case a disk fails under it


@dataclass
class TrainState:
    """Everything that training changes. The position of the run is `nimg` alone."""

    config: TrainConfig
    g: Generator
    d: Discriminator
    g_ema: Generator
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    nimg: int = 0
    d_output: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Moving average of D's mean score of fakes, from which LSGAN's noise follows (appendix B)."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Sums of the loss terms since the last line of stats.jsonl."""
    steps: int = 0
    """Steps since the last line of stats.jsonl."""
    seconds: float = 0.0
    """Seconds of training so far, over all its parts."""
    recordings: Recordings = field(default_factory=Recordings)
    """What a step does in the phase at hand; nothing that is to be saved."""

    @classmethod
    def create(cls, config: TrainConfig, device: torch.device) -> "TrainState":
        """A run at nimg 0; the weights are a function of config.seed."""
        with seeded(config.seed, "initial weights"):
            g, d = Generator(config.g), Discriminator(config.d)
        g_ema = Generator(config.g)
        g_ema.load_state_dict(g.state_dict())
        for network in (g, d, g_ema):
            network.to(device)
        g_ema.requires_grad_(False).eval()
        state = cls(config, g, d, g_ema, new_optimizer(g, config), new_optimizer(d, config))
        state.d_output = state.d_output.to(device)
        return state

    def reset_optimizers(self) -> None:
        """Forget Adam's moments: the loss has just changed with the networks (appendix A.1)."""
        for whose, optimizer in (("g", self.g_optimizer), ("d", self.d_optimizer)):
            if self.config.optimizer_reset in ("both", whose):
                for kept in optimizer.state.values():
                    for value in kept.values():  # moments and steps, in their place
                        value.zero_()

    def stage(self) -> dict[str, Any]:
        """What a weights file says about how far its network has grown: nimg, resolution, alpha."""
        schedule = self.config.schedule
        phase = Schedule(schedule, self.config.g.resolution).at(max(0, min(self.nimg, schedule.total_nimg - 1)))
        return {"nimg": self.nimg, "resolution": phase.resolution, "alpha": phase.alpha}

    def update_ema(self, batch: int) -> None:
        """G_ema follows G by one D step, all layers (appendix A.1); batch norm's statistics are averages already."""
        averages, weights = ([*network.parameters()] for network in (self.g_ema, self.g))
        get_ema_multi_avg_fn(self.ema_decay(batch))(averages, weights, None)
        if self.config.g.norm == "batch":
            for own, new in zip(self.g_ema.buffers(), self.g.buffers(), strict=True):
                own.copy_(new)

    def ema_decay(self, batch: int) -> float:
        """The decay of a D step, whose minibatch ends `batch` images from here; ramped up as StyleGAN2-ADA does it."""
        decay, rampup = self.config.ema_decay, self.config.ema_rampup
        if not rampup:
            return decay
        since = self.nimg + batch - Schedule(self.config.schedule, self.config.g.resolution).entered_nimg(self.nimg)
        return min(decay, 0.5 ** (batch / (rampup * since)))

    def _parts(self) -> dict[str, Any]:
        return {
            "g": self.g,
            "d": self.d,
            "g_ema": self.g_ema,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
        }

    def save(self, folder: Path) -> Path:
        """Write a checkpoint, whole or not at all, and drop those neither new nor to be kept. Returns its path.

        Raises UserError when the disk is full; the checkpoints before stay.
        """
        record = {name: part.state_dict() for name, part in self._parts().items()}
        record |= {
            "format": CHECKPOINT_FORMAT,
            "config": json.dumps(to_json(self.config)),
            "nimg": self.nimg,
            "d_output": self.d_output,
            "sums": self.sums,
            "steps": self.steps,
            "seconds": self.seconds,
        }
        buffer = io.BytesIO()
        torch.save(record, buffer)
        with suppress(OSError):  # which writing then tells
            folder.mkdir(exist_ok=True)  # not its parents: a run that was moved is not begun anew in its old place
        path = folder / f"checkpoint-{self.nimg:09d}.pt"
        write_whole(path, lambda file: _write_sealed(file, buffer.getbuffer()))
        before, keep = 0, self.config.keep_every_nimg
        for old in checkpoints(folder)[:-KEPT_CHECKPOINTS]:
            nimg = nimg_of(old)
            if keep and before // keep != nimg // keep:  # the first at or after a multiple
                before = nimg
            else:
                old.unlink(missing_ok=True)
        return path

    def load(self, path: Path, *, branch: bool = False) -> None:
        """Continue from a checkpoint of this run, or as a branch of another, which may have had another config.

        Raises RunError when the file is no whole checkpoint, or one of another config.
        """
        record = read_checkpoint(path)
        try:
            if not branch:
                self._check_config(from_json(TrainConfig, json.loads(record["config"])))
            for name, part in self._parts().items():
                part.load_state_dict(record[name])
            for optimizer in (self.g_optimizer, self.d_optimizer):
                _lay_out(optimizer)
            self.nimg, self.sums, self.steps = record["nimg"], record["sums"], record["steps"]
            self.seconds = record["seconds"]
            self._check()
            self.d_output = record.get("d_output", torch.zeros(())).to(self.d_output.device)  # older runs had none
        except Exception as error:  # a damaged file raises almost anything
            raise _no_checkpoint(path, error) from None

    def _check_config(self, theirs: TrainConfig) -> None:
        """Raise ValueError when a checkpoint is of another config; older runs have some of precision "auto"."""
        ours = lasting_fields(self.config)
        for name, value in lasting_fields(theirs).items():
            if value != ours[name] and (name, value) != ("precision", "auto"):
                raise ValueError(f"its {name} is {value}, the run's {ours[name]}")

    def _check(self) -> None:
        """Raise ValueError for what a checkpoint of this run cannot hold and PyTorch does not look at."""
        numbers = type(self.nimg) is type(self.steps) is int and type(self.seconds) is float
        if not (numbers and self.nimg >= 0 and self.steps >= 0):
            raise ValueError("its position is no number")
        scalars = [self.d_output, *self.sums.values()]
        if not all(isinstance(value, Tensor) and value.shape == () for value in scalars):
            raise ValueError("its sums are no numbers")
        for optimizer in (self.g_optimizer, self.d_optimizer):
            for weight, kept in optimizer.state.items():
                if any(kept[name].shape != weight.shape for name in ("exp_avg", "exp_avg_sq")):
                    raise ValueError("its optimizers are those of other networks")


def lasting_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields that one run never changes, by dotted name."""
    return {name: value for name, value in flat_fields(config) if name not in FREE_FIELDS}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `TrainState.save` wrote, on the CPU; raises RunError when the file is no whole checkpoint."""
    try:
        with open_plain(path) as file:
            _check_seal(file)
            record: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        if record["format"] != CHECKPOINT_FORMAT:
            raise ValueError(f"format {record['format']} is not {CHECKPOINT_FORMAT}")
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; give a checkpoint of a run") from None
    except Exception as error:  # a damaged file raises almost anything
        raise _no_checkpoint(path, error) from None
    return record


def _no_checkpoint(path: Path, error: Exception) -> RunError:
    return RunError(
        f"{path}: not a whole checkpoint of this run ({printable(error)}); delete it to continue from the one before"
    )


def _write_sealed(file: BinaryIO, archive: memoryview) -> None:
    """Write a zip archive with the checksum of all its bytes as its comment."""
    length = len(CHECKSUM) + 64
    # Without a comment the archive ends with the length of one.
    body = (archive[:-2], length.to_bytes(2, "little"), CHECKSUM)
    digest = hashlib.sha256()
    for part in body:
        digest.update(part)
        file.write(part)
    file.write(digest.hexdigest().encode())


def _check_seal(file: BinaryIO) -> None:
    """Raise ValueError unless every byte is what was written; of an older checkpoint only the content is checked."""
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is packed")  # PyTorch packs nothing, and what is packed may grow without bound
        seal = archive.comment
        if not seal and (bad := archive.testzip()):  # torch.load checks no checksums
            raise ValueError(f"{bad} is damaged")
    if seal:
        left = file.seek(0, io.SEEK_END) - 64
        digest = hashlib.sha256()
        file.seek(0)
        while part := file.read(min(left, 2**20)):
            digest.update(part)
            left -= len(part)
        if seal != CHECKSUM + digest.hexdigest().encode():
            raise ValueError("its checksum is wrong")
    file.seek(0)


def new_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """Adam with the config's betas; the learning rate is set at every step from the phase."""
    fused = next(network.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.Adam(
        network.parameters(), lr=0.0, betas=(config.beta1, config.beta2), eps=config.adam_eps, fused=fused
    )


def _lay_out(optimizer: torch.optim.Adam) -> None:
    """Moments as their weights lie in memory, which the fused Adam takes for granted; older runs saved others."""
    for weight, kept in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if kept[name].shape == weight.shape:
                kept[name] = torch.empty_like(weight, requires_grad=False).copy_(kept[name])


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return [path for path in sorted(folder.glob("checkpoint-*.pt")) if path.stem[11:].isdecimal()]


def nimg_of(checkpoint: Path) -> int:
    """How far a checkpoint is, by its name."""
    return int(checkpoint.stem.rpartition("-")[2])
