"""The minibatches of reals of a run, each read while the step before it computes (appendix A.1's training stream)."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.images import to_float
from progan.run.team import ALONE, Team
from progan.schedule import Phase, Schedule
from progan.support.rng import data_order, keyed_generator

Reals = tuple[Tensor, Tensor | None]


class _Rows(NamedTuple):
    """A minibatch on the CPU: uint8 [batch, C, R, R], bool [batch] or None, one-hot [batch, label_dim] or None."""

    images: Tensor
    flips: Tensor | None
    labels: Tensor | None


class Minibatches:
    """Reals by position, read one minibatch ahead by a thread; it is closed by leaving its `with` block.

    A minibatch is a function of its position, so that what was read ahead is what would have been read then.
    """

    def __init__(self, data: ImagePyramid, config: TrainConfig, device: torch.device, team: Team = ALONE) -> None:
        self._data, self._config, self._device, self._team = data, config, device, team
        self._schedule = Schedule(config.schedule, config.g.resolution)
        self._reader = ThreadPoolExecutor(1, "progan reads ahead")
        self._ahead: tuple[tuple[int, int, int], Future[_Rows]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.shutdown(cancel_futures=True)

    def at(self, phase: Phase, nimg: int) -> Reals:
        """As `read_reals`, whose errors it raises; meanwhile the minibatch after it is read."""
        ahead, self._ahead = self._ahead, None
        found = ahead[1].result() if ahead and ahead[0] == _key(phase, nimg) else self._read(phase, nimg)
        after = nimg + phase.batch
        if after < self._config.schedule.total_nimg:
            following = self._schedule.at(after)
            self._ahead = _key(following, after), self._reader.submit(self._read, following, after)
        return _placed(found, self._device)

    def _read(self, phase: Phase, nimg: int) -> _Rows:
        rows = _read(self._data, self._config, phase, nimg, self._team)
        if self._device.type != "cuda":
            return rows
        flips, labels = (part if part is None else part.pin_memory() for part in (rows.flips, rows.labels))
        return _Rows(rows.images.pin_memory(), flips, labels)  # which are copied while the host goes on


def read_reals(
    data: ImagePyramid, config: TrainConfig, phase: Phase, device: torch.device, nimg: int, team: Team = ALONE
) -> Reals:
    """The minibatch of reals at `nimg`: float32 [batch, C, R, R] in [-1, 1], one-hot labels [batch, label_dim].

    Of a team, this process's rows of both. Raises DataError when the data set was changed or is gone.
    """
    return _placed(_read(data, config, phase, nimg, team), device)


def _read(data: ImagePyramid, config: TrainConfig, phase: Phase, nimg: int, team: Team) -> _Rows:
    mine = team.rows(phase.batch, config)
    indices = data_order(config.seed, nimg, phase.batch, len(data))[mine]
    images = torch.from_numpy(data.read(indices, phase.resolution))
    flips = None
    if config.mirror:
        flips = (torch.rand(phase.batch, generator=keyed_generator(config.seed, "mirror", nimg)) < 0.5)[mine]
    labels = torch.from_numpy(np.asarray(data.read_labels(indices))) if config.g.label_dim else None
    return _Rows(images, flips, labels)


def _placed(rows: _Rows, device: torch.device) -> Reals:
    images, flips, labels = (part if part is None else part.to(device, non_blocking=True) for part in rows)
    assert images is not None
    if flips is not None:
        images = torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)
    return to_float(images), labels


def _key(phase: Phase, nimg: int) -> tuple[int, int, int]:
    return nimg, phase.resolution, phase.batch
