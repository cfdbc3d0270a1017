"""Named configurations, each with its source and what it costs."""

from dataclasses import dataclass
from typing import Any

from progan.config import DiscriminatorConfig, GeneratorConfig, LossConfig, ScheduleConfig, TrainConfig
from progan.support.errors import ConfigError, printable

WHOLE_BATCH = 1_000_000  # a stddev group that no minibatch fills: the whole minibatch is one group


@dataclass(frozen=True)
class Preset:
    """A config and what to expect of it."""

    config: TrainConfig
    about: str
    """One line: the source of the numbers, and the cost as far as it was measured."""


def _networks(
    resolution: int, fmap_base: int, fmap_max: int, *, paper: bool
) -> dict[str, GeneratorConfig | DiscriminatorConfig]:
    """Networks of the paper, or of the official TensorFlow code where the two differ (both in D alone)."""
    shape: dict[str, Any] = {"resolution": resolution, "fmap_base": fmap_base, "fmap_max": fmap_max}
    return {
        "g": GeneratorConfig(**shape),
        "d": DiscriminatorConfig(**shape, fused_scaling=not paper, stddev_group=WHOLE_BATCH if paper else 4),
    }


# Written down so often, a run of five hours spends under 1% of them on it (`progan train --dry-run`).
_CADENCE: dict[str, Any] = {"snapshot_nimg": 200_000, "checkpoint_nimg": 100_000}
_LR_1GPU = {4: 0.001, 1024: 0.0015}
_LR_8GPU = {4: 0.001, 128: 0.0015, 256: 0.002, 512: 0.003}

PRESETS: dict[str, Preset] = {
    "demo": Preset(
        TrainConfig(
            **_networks(32, 512, 64, paper=False),  # type: ignore[arg-type]
            schedule=ScheduleConfig(
                stable_nimg=2_000,
                fade_nimg=2_000,
                total_nimg=36_000,
                batch={4: 8},
                g_lr={4: 0.006},
                d_lr={4: 0.006},
            ),
            loss=LossConfig(gp_norm_at="working"),
            ema_decay=0.998,
            ema_rampup=0.1,
            mirror=False,
            snapshot_nimg=5_000,
            checkpoint_nimg=5_000,
        ),
        "composed faces at 32x32 on a laptop's CPU: small minibatches and a high rate, for many steps in little time",
    ),
    "paper-128": Preset(
        TrainConfig(
            **_networks(128, 2048, 512, paper=True),  # type: ignore[arg-type]
            schedule=ScheduleConfig(stable_nimg=800_000, fade_nimg=800_000, total_nimg=10_000_000),
            labels="ignore",
            **_CADENCE,
        ),
        "the ablation study's network at 128x128 with every ingredient (paper table 1, row g)",
    ),
    "celebahq-1024": Preset(
        TrainConfig(
            **_networks(1024, 8192, 512, paper=True),  # type: ignore[arg-type]
            schedule=ScheduleConfig(
                stable_nimg=800_000,
                fade_nimg=800_000,
                total_nimg=19_000_000,
                batch={4: 16, 256: 14, 512: 6, 1024: 3},
            ),
            labels="ignore",
            **_CADENCE,
        ),
        "CelebA-HQ as the paper trained it (appendix A.1)",
    ),
    "celebahq-1024-1gpu": Preset(
        TrainConfig(
            **_networks(1024, 8192, 512, paper=False),  # type: ignore[arg-type]
            schedule=ScheduleConfig(
                batch={4: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}, g_lr=_LR_1GPU, d_lr=_LR_1GPU
            ),
            labels="ignore",
            **_CADENCE,
        ),
        "CelebA-HQ as the official TensorFlow code trains it on one GPU",
    ),
    "celebahq-1024-8gpu": Preset(
        TrainConfig(
            **_networks(1024, 8192, 512, paper=False),  # type: ignore[arg-type]
            schedule=ScheduleConfig(batch={4: 512, 8: 256, 16: 128, 32: 64, 64: 32}, g_lr=_LR_8GPU, d_lr=_LR_8GPU),
            labels="ignore",
            **_CADENCE,
        ),
        "CelebA-HQ with the official TensorFlow code's batches and rates for eight GPUs",
    ),
    "cifar10": Preset(
        TrainConfig(
            **_networks(32, 4096, 128, paper=True),  # type: ignore[arg-type]
            schedule=ScheduleConfig(stable_nimg=400_000, fade_nimg=400_000, total_nimg=20_000_000),
            loss=LossConfig(gp_target=750.0),
            labels="ignore",
            mirror=False,
            **_CADENCE,
        ),
        "CIFAR-10 with the paper's settings (appendix A.1, section 6.5)",
    ),
}


def named_preset(name: str) -> Preset:
    """The preset of this name; raises ConfigError when there is none."""
    if name not in PRESETS:
        raise ConfigError(f"--preset: {printable(repr(name))} is not known; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
