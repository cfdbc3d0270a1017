"""Does a generator copy its training images? Their nearest neighbours, as numbers and as a picture (paper appendix)."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.meter import Reals, Result
from progan.images import write_png
from progan.metrics.cache import cached
from progan.metrics.features import FeatureCollector, FeatureProtocol
from progan.metrics.neighbours import memorisation, nearest, neighbour_sheet
from progan.metrics.protocol import collect
from progan.metrics.suite import Metric
from progan.support.progress import counted

IMAGES = 1000
ROWS, COLUMNS = 5, 8  # of each half of the picture


def measure_neighbours(
    fakes: Iterable[np.ndarray],
    train: Reals,
    held_out: ImagePyramid | None,
    picture: Path,
    *,
    images: int | None = None,
    device: torch.device,
    quiet: bool = False,
) -> Result:
    """Distances of generated images to their nearest training images, and the same of reals; writes `picture`.

    fakes: uint8 batches; 1,000 images are taken, or `images`. train: what the generator saw; all of it is searched, as
    it is stored: the features hardly tell an image from its mirror image. held_out: reals that it did not see; without
    them, training images stand in, each against all others. picture: five generated images and their eight nearest
    training images, and below them the five generated images that lie nearest to any.
    """
    protocol = FeatureProtocol("efficientnet_lite0", images or IMAGES)
    metric = Metric("neighbours", protocol, protocol.images, True, "")

    def features(reals: Reals, what: str) -> np.ndarray:
        every = replace(protocol, images=len(reals.data))

        def make() -> dict[str, np.ndarray]:
            stream = counted(f"neighbours: {what}", reals.in_order(), len(reals.data), quiet)
            return {"features": collect(stream, FeatureCollector(every, device))["features"]}

        stored = replace(reals, mirrored=False, seed=0).key()
        key = {"metric": every.name, "protocol": every.describe(), "reals": stored, "role": "in order"}
        return cached(key, make)["features"]

    seen = features(train, "training images")
    others = None if held_out is None else features(replace(train, data=held_out), "held-out images")
    start = time.perf_counter()
    kept: list[np.ndarray] = []
    for batch in counted("neighbours: fakes", fakes, protocol.images, quiet):
        kept.append(batch)
        if sum(map(len, kept)) >= protocol.images:
            break
    pixels = np.concatenate(kept)[: protocol.images]
    own = collect(pixels, FeatureCollector(protocol, device))["features"]
    found = memorisation(own, seen, others)
    distances = nearest(own, seen, 1)[1][:, 0]
    rows = np.concatenate([np.arange(min(ROWS, len(own))), np.argsort(distances, kind="stable")[:ROWS]])
    columns = nearest(own[rows], seen, min(COLUMNS, len(seen)))[0]
    images_of = np.stack([train.data.read(row, train.resolution) for row in columns])
    write_png(picture, neighbour_sheet(pixels[rows], images_of, scale=max(1, 64 // train.resolution)))
    return Result(
        metric,
        {"distance": found["fakes"], "ratio": found["ratio"], "near share": found["near_share"]},
        {},
        {"distance": found["reals"], "ratio": 1.0, "near share": 0.01},
        {"fakes": len(own), "reals": len(seen), "floor": len(seen if others is None else others)},
        time.perf_counter() - start,
    )
