"""Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., ICLR 2018)."""

from progan.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ScheduleConfig,
    TrainConfig,
)
from progan.errors import ConfigError, DataError, RunError, UserError
from progan.schedule import Phase, Schedule

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "DataError",
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "ImagePyramid",
    "LossConfig",
    "Phase",
    "RunError",
    "Schedule",
    "ScheduleConfig",
    "TrainConfig",
    "TrainState",
    "UserError",
    "train",
    "train_step",
]


def __getattr__(name: str) -> object:
    """Import what needs PyTorch only when it is asked for, so that `progan --help` is quick."""
    home = {
        "Generator": "networks",
        "Discriminator": "networks",
        "ImagePyramid": "data.pyramid",
        "TrainState": "state",
        "train_step": "train",
        "train": "train",
    }
    if name not in home:
        raise AttributeError(f"module 'progan' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"progan.{home[name]}"), name)
