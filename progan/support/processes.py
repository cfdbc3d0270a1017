"""Processes that do one piece of work together, and which part of it is whose."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """One process, alone; what there is to agree on is agreed. `progan.run.team.Team` is several, by the same names."""

    rank: int = 0
    size: int = 1

    def first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all. If it raises UserError there, the others end with exit code 2."""
        return make()

    def together(self, make: Callable[[], T]) -> T:
        """What each makes for itself. If any raises UserError, the first process tells it, and all end with code 2."""
        return make()

    def gather(self, mine: T) -> list[T]:
        """In the first process, what each has, by rank; in the others nothing."""
        return [mine]

    def total(self, counts: np.ndarray) -> np.ndarray:
        """In the first process, the sum of all arrays of one shape, uint32; in the others an array of no meaning."""
        return counts

    def own(self, count: int, unit: int) -> list[range]:
        """Which of the numbers 0 .. count are this process's: every size-th stretch of `unit` of them, in order.

        So each has its part of the first n, whatever n is.
        """
        if self.size == 1:
            return [range(count)]
        starts = range(self.rank * unit, count, self.size * unit)
        return [range(start, min(start + unit, count)) for start in starts]


ALONE = Processes()
