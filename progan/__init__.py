"""Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., ICLR 2018)."""

from progan.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ScheduleConfig,
    TrainConfig,
)
from progan.errors import ConfigError, DataError, RunError, UserError
from progan.lazy import lazy_names
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

__getattr__ = lazy_names(
    __name__,
    {
        "Generator": "networks",
        "Discriminator": "networks",
        "ImagePyramid": "data.pyramid",
        "TrainState": "state",
        "train_step": "train",
        "train": "train",
    },
)
