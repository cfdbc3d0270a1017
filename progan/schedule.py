"""Progressive growing as a pure function of the images shown (paper section 2, appendix A.1)."""

from dataclasses import dataclass

from progan.config import ScheduleConfig
from progan.support.config_io import value_at
from progan.support.errors import ConfigError


@dataclass(frozen=True)
class Phase:
    """What training does at one moment."""

    index: int
    """0, 1, 2, ...: stable at 4x4, fading to 8x8, stable at 8x8, ..."""
    resolution: int
    """Pixels that the networks work at."""
    alpha: float
    """Weight of the newest block, 0 to 1."""
    batch: int
    """Images per minibatch."""
    g_lr: float
    """Learning rate of G."""
    d_lr: float
    """Learning rate of D."""


@dataclass(frozen=True)
class Span:
    """A phase as people see it: from which image to which, half open."""

    index: int
    resolution: int
    fading: bool
    start_nimg: int
    stop_nimg: int


class Schedule:
    """Alternates `stable_nimg` at a resolution with `fade_nimg` into the next; the last one stays to the end.

    Without growing there is the last phase alone. resolution: the full resolution in pixels, a power of two from 4 up.
    """

    def __init__(self, config: ScheduleConfig, resolution: int) -> None:
        self.config = config
        self.resolution = resolution
        self._last = 2 * (resolution.bit_length() - 3)  # index of the last phase

    def at(self, nimg: int) -> Phase:
        """The phase after `nimg` real images, 0 or more. alpha is linear in nimg and rises from 0."""
        stable, fade = self.config.stable_nimg, self.config.fade_nimg
        step, offset = divmod(nimg, stable + fade) if self.config.growing else (self._last // 2, 0)
        alpha = 1.0
        if 2 * step >= self._last:
            index = self._last
        elif offset < stable:
            index = 2 * step
        else:
            index, alpha = 2 * step + 1, (offset - stable) / fade
        resolution = 4 * 2 ** ((index + 1) // 2)
        return Phase(
            index,
            resolution,
            alpha,
            value_at(self.config.batch, resolution),
            value_at(self.config.g_lr, resolution),
            value_at(self.config.d_lr, resolution),
        )

    def entered_nimg(self, nimg: int) -> int:
        """The first image of the newest block at `nimg`, where it begins to fade in; 0 for 4x4, and without growing."""
        stable_from = self.stable_from_nimg(self.at(nimg).resolution)
        return max(0, stable_from - self.config.fade_nimg)

    def first_full_nimg(self) -> int:
        """The first image of the last phase, where the network is fully grown."""
        return self.stable_from_nimg(self.resolution)

    def stable_from_nimg(self, resolution: int) -> int:
        """The first image at which the block of a resolution is in; 0 without growing."""
        blocks = resolution.bit_length() - 3
        return blocks * (self.config.stable_nimg + self.config.fade_nimg) if self.config.growing else 0

    def check_grows(self) -> None:
        """Raise ConfigError when the run would end before its last block is in, with networks that are smaller."""
        full, total = self.first_full_nimg(), self.config.total_nimg
        if total <= full:
            end, whole = self.at(total - 1).resolution, self.resolution
            raise ConfigError(
                f"total_nimg: {total / 1000:g} kimg end at {end}x{end}, the last block of {whole}x{whole} is in after"
                f" {full / 1000:g}; pass --total-kimg {(full + max(1, self.config.stable_nimg)) / 1000:g}, a smaller"
                " --resolution, or smaller --stable-kimg and --fade-kimg"
            )

    def phases(self) -> list[Span]:
        """All phases up to total_nimg, in order."""
        stable, fade, total = self.config.stable_nimg, self.config.fade_nimg, self.config.total_nimg
        spans: list[Span] = []
        start = 0
        while start < total:
            phase = self.at(start)
            fading = phase.index % 2 == 1
            stop = total if phase.index == self._last else min(total, start + (fade if fading else stable))
            spans.append(Span(phase.index, phase.resolution, fading, start, stop))
            start = stop
        return spans
