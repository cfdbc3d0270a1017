"""What the small archives have in common: labelled 32x32 images that need no decoding."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from progan.data.source import ImageStream, Source
from progan.data.store.pyramid import box_pyramid

RESOLUTION = 32


@dataclass(frozen=True, kw_only=True)
class ArraySource(Source):
    """Options of a source whose images are arrays, each of which is as good as the others."""

    images: int | None = None
    """Only the first so many images; all by default."""


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
    """A stream of `found` pairs: image, uint8 [channels, 32, 32], and class index; `limit` keeps the first so many."""
    total = found if limit is None else min(limit, found)
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
