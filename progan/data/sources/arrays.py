"""What the small archives have in common: labelled 32x32 images that need no decoding."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from progan.data.pyramid import box_pyramid
from progan.data.source import ImageStream
from progan.errors import DataError

RESOLUTION = 32


def labelled_stream(
    jobs: Iterable[tuple[np.ndarray, int]],
    found: int,
    *,
    channels: int,
    label_names: list[str],
    facts: dict[str, Any],
    attribution: dict[str, str],
    limit: int | None = None,
    notes: list[str] | None = None,
) -> ImageStream:
    """A stream of `found` pairs: image, uint8 [channels, 32, 32], and class index; `limit` keeps the first so many.

    Raises DataError when that leaves none.
    """
    total = found if limit is None else min(limit, found)
    if total < 1:
        raise DataError(f"{total} images make no data set; ask for at least 1")
    return ImageStream(
        resolution=RESOLUTION,
        channels=channels,
        jobs=islice(jobs, total),
        total=total,
        levels=box_pyramid,
        facts=facts,
        label_names=label_names,
        attribution=attribution,
        cheap=True,
        notes=notes or [],
    )
