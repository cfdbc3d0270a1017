"""What a run has learned, how it is saved and how it is read back, to the bit."""

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from progan.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
from progan.errors import ConfigError, RunError
from progan.fields import from_json, to_json
from progan.files import write_whole
from progan.networks import Discriminator, Generator
from progan.rng import keyed_generator

CHECKPOINT_FORMAT = 1
# What reading a damaged file may raise.
DAMAGES = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
KEPT_CHECKPOINTS = 2  # the newest, and the one before in case a disk fails under it
NETWORKS: dict[str, tuple[type, Any]] = {
    "generator": (Generator, GeneratorConfig),
    "discriminator": (Discriminator, DiscriminatorConfig),
}


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
        self.g_optimizer = new_optimizer(self.g, self.config)
        self.d_optimizer = new_optimizer(self.d, self.config)

    def update_ema(self) -> None:
        """G_ema follows G by one D step, all layers (appendix A.1); batch norm's statistics are averages already."""
        averages, weights = ([*network.parameters()] for network in (self.g_ema, self.g))
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1.0 - self.config.ema_decay)  # type: ignore[arg-type]
            for own, new in zip(self.g_ema.buffers(), self.g.buffers(), strict=True):
                own.copy_(new)

    def _parts(self) -> dict[str, Any]:
        return {
            "g": self.g,
            "d": self.d,
            "g_ema": self.g_ema,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
        }

    def save(self, folder: Path) -> Path:
        """Write a checkpoint, whole or not at all, and drop the oldest. Returns its path.

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
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"checkpoint-{self.nimg:09d}.pt"
        write_whole(path, lambda file: file.write(buffer.getbuffer()))
        for old in checkpoints(folder)[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)
        return path

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same config; raises RunError when the file is no whole checkpoint."""
        try:
            with zipfile.ZipFile(path) as file:  # torch.load checks no checksums
                if bad := file.testzip():
                    raise ValueError(f"{bad} is damaged")
            record = torch.load(path, map_location="cpu", weights_only=True)
            if record["format"] != CHECKPOINT_FORMAT:
                raise RunError(f"{path}: checkpoint format {record['format']} is not {CHECKPOINT_FORMAT}")
            for name, part in self._parts().items():
                part.load_state_dict(record[name])
            self.nimg, self.sums, self.steps = record["nimg"], record["sums"], record["steps"]
            self.seconds = record["seconds"]
            self.d_output = record.get("d_output", torch.zeros(())).to(self.d_output.device)  # older runs had none
        except RunError:
            raise
        except FileNotFoundError:
            raise RunError(f"{path}: no such file; give a checkpoint of a run") from None
        except DAMAGES as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RunError(
                f"{path}: not a whole checkpoint of this run ({reason}); delete it to continue from the one before"
            ) from None


def new_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """Adam with the config's betas; the learning rate is set at every step from the phase."""
    fused = next(network.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.Adam(
        network.parameters(), lr=0.0, betas=(config.beta1, config.beta2), eps=config.adam_eps, fused=fused
    )


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*.pt"))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Key PyTorch's global generator for a while, for code that offers no generator of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_generator(seed, purpose).initial_seed())
        yield


def save_network(path: Path, network: Generator | Discriminator, **facts: Any) -> None:
    """Write weights and config as one safetensors file, whole or not at all; `facts` go into its metadata as JSON."""
    kind = next(name for name, (cls, _) in NETWORKS.items() if isinstance(network, cls))
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    about = {"kind": kind, "config": to_json(network.config), **facts}
    data = safetensors_bytes(tensors, {"progan": json.dumps(about)})
    write_whole(path, lambda file: file.write(data))


def load_network(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """Read a network that save_network wrote, and the facts beside it. kind: "generator" or "discriminator".

    Raises RunError when the file is missing, damaged, or something else.
    """
    cls, config_cls = NETWORKS[kind]
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("progan", "null"))
            if not isinstance(about, dict) or about.get("kind") != kind:
                raise RunError(f"{path}: these are not the weights of a progan {kind}")
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = cls(from_json(config_cls, about.pop("config")))
        network.load_state_dict(tensors)
        network.eval()
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; give the weights of a {kind}") from None
    except (SafetensorError, ConfigError, *DAMAGES) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{path}: cannot be read as the weights of a progan {kind} ({reason})") from None
    return network, about
