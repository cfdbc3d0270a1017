"""What every source of images has in common: options that are a dataclass, and the stream of images they open."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from progan.support.errors import DataError, printable

Levels = dict[int, np.ndarray]  # one image at every resolution: {r: uint8 [C, r, r]}, as `box_pyramid` makes them
MOST_IMAGES = 10**9  # more than any data set has
OnBad = Literal["fail", "skip", "fix"]


class BadImageError(DataError):
    """One image cannot be used; the message is the reason, without the image's name."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used, and why; `name` tells it from the others of its source."""

    name: str
    reason: str


@dataclass(frozen=True)
class Made:
    """One image with something to count: `counts` of all images are added up in the manifest, under "counts"."""

    levels: Levels
    counts: dict[str, int]


@dataclass
class ImageStream:
    """The images of one source, in a fixed order, not decoded yet.

    resolution, channels: of every image. jobs: for each image what `levels` needs to make it, and its class index or
    None; drawn one by one in the creating process. total: how many jobs there are. levels: makes one image, or says
    why not; picklable, runs in worker processes unless `cheap`, which says that an image takes less time to make than
    to send. facts: how the images were made, for the manifest; what is in it when the last job is done is written.
    bad: images already known to be of no use. notes: for the screen, before the work starts. resumable: what was done
    is kept when the work is interrupted, for images that cost seconds each; `jobs` must then be the same every time.
    """

    resolution: int
    channels: int
    jobs: Iterable[tuple[Any, int | None]]
    total: int
    levels: Callable[[Any], Levels | Made | BadImage]
    facts: dict[str, Any]
    label_names: list[str] | None = None
    attribution: dict[str, str] | None = None
    bad: list[BadImage] = field(default_factory=list)
    cheap: bool = False
    notes: list[str] = field(default_factory=list)
    resumable: bool = False

    @property
    def found(self) -> int:
        """How many images the source holds, the bad ones too."""
        return self.total + len(self.bad)


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Options of one source: fields are the command line's options, the docstring is the command's help page."""

    out: Path
    """Folder of the data set."""

    def open(self) -> ImageStream:
        """Look at everything that can be known before the first image is decoded.

        Raises DataError when the options make no sense, files are missing or are not what they should be.
        """
        for option in ("images", "count"):
            wanted = getattr(self, option, None)
            if wanted is not None and wanted < 1:
                raise DataError(f"{wanted} images make no data set; ask for at least 1")
            if wanted is not None and wanted > MOST_IMAGES:
                raise DataError(f"{printable(wanted, 30)} images fit on no disk; ask for at most {MOST_IMAGES:,}")
        return self._open()

    @abstractmethod
    def _open(self) -> ImageStream:
        """What `open` promises, once the number of images is known to make sense."""


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Options of a source whose images come from files, some of which may be bad."""

    images: int | None = None
    """Only the first so many images; all by default."""
    on_bad: OnBad = "fail"
    """What to do about an image that cannot be used. fail: name all and make nothing; skip: leave them out and name
    them; fix: mend what can be mended without guessing, skip the rest."""
    workers: int | None = None
    """Processes; all cores by default."""
