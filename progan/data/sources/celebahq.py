"""CelebA-HQ of CelebA's photographs: the published images by the official deltas, or others by the paper's recipe."""

import hashlib
import importlib
import io
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import features
from tyro.conf import Positional

from progan.data.celebahq import deltas
from progan.data.celebahq.align import Enlarge, align, lanczos_enlarge
from progan.data.celebahq.enhance import Enhance, enlarger
from progan.data.celebahq.lists import IMAGE_LIST, LANDMARKS, ListedImage, read_image_list, read_landmarks
from progan.data.celebahq.ratings import rate
from progan.data.pictures.decode import PICTURE_BYTES, check_scans, opened_picture, pillow_errors
from progan.data.pictures.tree import shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream, Levels, Made, OnBad
from progan.data.store.manifest import pyramid_resolutions
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError, printable
from progan.support.plain_files import LIST_BYTES, read_plain

PHOTOS = "img_celeba"  # the in-the-wild photographs, below CelebA's folder
PUBLISHED_IMAGES = 30_000
NATIVE = 1024  # the resolution of CelebA-HQ; smaller ones are its 2x2 means

_ATTRIBUTION = {
    "title": "CelebA-HQ",
    "creator": "Karras, Aila, Laine and Lehtinen (2018), from CelebA by Liu, Luo, Wang and Tang (2015)",
    "source": "https://github.com/tkarras/progressive_growing_of_gans",
    "licence": "CelebA: non-commercial research only; the deltas: CC BY-NC 4.0",
}


class Photo(NamedTuple):
    """A photograph to align; landmarks: float32 [5, 2], (x, y) in its pixels."""

    path: Path
    landmarks: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CelebaHQ(FileSource):
    """CelebA-HQ: faces at 1024x1024 from CelebA's photographs (paper, appendix C).

    Both ways start from CelebA in the wild, for non-commercial research only, which its publisher hands out at
    mmlab.ie.cuhk.edu.hk/projects/CelebA.html: unpack img_celeba.7z (14 parts, about 10 GB) to SRC/img_celeba, and put
    list_landmarks_celeba.txt into SRC/Anno. Needs packages: pip install "progan[celebahq]".

    With --deltas these become the published 30,000 images, in the published order. The folder celeba-hq-deltas, linked
    from github.com/tkarras/progressive_growing_of_gans, has 27.6 GB, CC BY-NC 4.0: 30 zips deltas00000.zip,
    deltas01000.zip ... and image_list.txt; leave the zips packed. A delta is encrypted with the original JPEG, so the
    photographs must be the publisher's own files, never saved again. It is a difference, modulo 256, to a face
    aligned with Pillow 3.1.1 and libjpeg 8d. Other versions decode and resize with differences of a few gray levels,
    which stay in the image, and at the ends of the range turn white to black; --clip prevents that. How many images
    have the published hash before and after the delta is counted in dataset.json: with today's versions expect none.

    Without --deltas the paper's recipe is applied to every photograph: align at 1024x1024, rate the sharpness, keep
    the best. The order is that of the file names. Rating aligns all 202,599 photographs, at seconds each and seven
    times the work of making 30,000 images, so it is kept line by line in OUT.ratings.jsonl, and a later command with
    the same options rates only what is missing there.

    Either way an interrupted command goes on when it is given again. 30,000 images take 126 GB at 1024x1024.
    """

    src: Positional[Path]
    """CelebA's folder, the one that holds img_celeba and Anno."""
    deltas: Path | None = None
    """Folder of the official deltas; without it the paper's recipe is applied."""
    clip: bool = False
    """With --deltas: in images whose hash before the delta is not the published one, sums that pass black or white by
    up to 16 gray levels end there, in place of turning round."""
    count: int | None = None
    """How many of the best photographs are kept, 30,000 by default; not with --deltas."""
    resolution: int = NATIVE
    """Of the images: 1024, or a smaller power of two, of 2x2 means."""
    enhance: Enhance = "lanczos"
    """How small faces are enlarged: lanczos adds nothing, superres removes JPEG artefacts and sharpens as in the paper,
    at a second per 1,000 pixels, and needs pip install "progan[superres]"; not with --deltas, which are the result."""
    images: int | None = None
    """Only the first so many: of the published list, or of the photographs by name before they are rated."""
    on_bad: OnBad = "skip"
    """What to do about an image whose photograph or delta is missing or damaged: skip leaves it out and names it, fail
    names all and makes nothing, fix is the same as skip."""

    def _open(self) -> ImageStream:
        """Read the lists and, without deltas, rate all photographs, which takes long.

        Raises DataError when options exclude each other, a folder or list is missing or damaged, a package is missing,
        or the ratings were made with other options.
        """
        pyramid_resolutions(self.resolution)
        for wanted in (self.images, self.count):
            if wanted is not None and wanted < 1:
                raise DataError(f"{wanted} images make no data set; ask for at least 1")
        if self.resolution > NATIVE:
            raise DataError(f"resolution {self.resolution} is more than CelebA-HQ has; choose at most {NATIVE}")
        if not (self.src / PHOTOS).is_dir():
            raise DataError(f"{self.src / PHOTOS}: no such folder; unpack img_celeba.7z there, or pass CelebA's folder")
        return self._by_recipe() if self.deltas is None else self._by_deltas(self.deltas)

    def _by_deltas(self, folder: Path) -> ImageStream:
        if self.count is not None:
            raise DataError("--count chooses the best photographs; with --deltas pass --images for the first so many")
        if self.enhance != "lanczos":
            raise DataError(f"--enhance {self.enhance} does not go with --deltas, which bring their own details")
        check_installed("scipy", "cryptography")
        deltas.open_zip.cache_clear()  # what is there now counts, not what was there at an earlier call
        landmarks = read_landmarks(self.src / LANDMARKS)
        listed = read_image_list(folder / IMAGE_LIST)[: self.images]
        zips, photos = _names(folder), _names(self.src / PHOTOS)
        jobs: list[tuple[tuple[ListedImage, Photo], None]] = []
        bad: list[BadImage] = []
        for image in listed:
            if deltas.zip_name(image.idx) not in zips:
                bad.append(BadImage(_title(image), f"{deltas.zip_name(image.idx)} is missing; download it"))
            elif image.file not in photos:
                bad.append(BadImage(_title(image), f"{PHOTOS}/{image.file} is missing; unpack it"))
            elif image.file not in landmarks:
                bad.append(BadImage(_title(image), f"{image.file} is not in {LANDMARKS}; download that again"))
            else:
                jobs.append(((image, Photo(self.src / PHOTOS / image.file, landmarks[image.file])), None))
        return ImageStream(
            resolution=self.resolution,
            channels=3,
            jobs=jobs,
            total=len(jobs),
            levels=partial(published_levels, folder=folder, resolution=self.resolution, clip=self.clip, native=NATIVE),
            facts={
                "kind": "celebahq",
                "made": "by the official deltas",
                "order": "idx",
                "clip": self.clip,
                "pillow": PIL.__version__,
                "libjpeg": _libjpeg(),
            },
            attribution=_ATTRIBUTION,
            bad=bad,
            notes=_notes(bad, len(listed)),
            resumable=True,
        )

    def _by_recipe(self) -> ImageStream:
        # The writer would tell only after the rating.
        if self.out.is_file() or (self.out.is_dir() and any(self.out.iterdir())):
            raise DataError(f"{self.out}: already holds files; delete it or choose another folder")
        check_installed("scipy")
        enlarger(self.enhance)  # complains of missing packages
        landmarks = read_landmarks(self.src / LANDMARKS)
        names = sorted(name for name in _names(self.src / PHOTOS) if name.lower().endswith(".jpg"))[: self.images]
        if not names:
            raise DataError(f"{self.src / PHOTOS}: holds no .jpg files; unpack img_celeba.7z there")
        known = [name for name in names if name in landmarks]
        bad = [BadImage(shown(name), f"is not in {LANDMARKS}") for name in names if name not in landmarks]
        photos = {name: Photo(self.src / PHOTOS / name, landmarks[name]) for name in known}
        digest = hashlib.sha256(read_plain(self.src / LANDMARKS, LIST_BYTES)).hexdigest()
        qualities, unrated = rate(
            photos,
            partial(photo_quality, enhance=self.enhance, native=NATIVE),
            path=self.out.with_name(f"{self.out.name}.ratings.jsonl"),
            recipe={"version": 1, "enhance": self.enhance, "landmarks_sha256": digest},
            workers=self.workers,
        )
        bad += unrated
        chosen = sorted(sorted(qualities, key=lambda name: (-qualities[name], name))[: self.count or PUBLISHED_IMAGES])
        facts = {
            "kind": "celebahq",
            "made": "by the paper's recipe",
            "enhance": self.enhance,
            "rated": len(qualities),
            "lowest_quality_kept": min((qualities[name] for name in chosen), default=None),
            "order": "file name",
        }
        return ImageStream(
            resolution=self.resolution,
            channels=3,
            jobs=[(photos[name], None) for name in chosen],
            total=len(chosen),
            levels=partial(photo_levels, enhance=self.enhance, resolution=self.resolution, native=NATIVE),
            facts=facts,
            attribution=_ATTRIBUTION,
            bad=bad,
            notes=_notes(bad, len(names)),
            resumable=True,
        )


def published_levels(
    job: tuple[ListedImage, Photo], *, folder: Path, resolution: int, clip: bool = False, native: int = NATIVE
) -> Made | BadImage:
    """One image of CelebA-HQ at every resolution from `resolution` down to 4, by its delta from the zips in `folder`.

    `clip`: see `add_delta`, where the published hash is missed. Counts the published hashes before and after the delta.
    """
    image, photo = job
    try:
        data = _read(photo.path)
        token = deltas.read_delta(folder, image.idx, resolution=native)
        delta = deltas.decrypt_delta(token, data, image.file, resolution=native)
        processed = _aligned(data, photo.landmarks, native, lanczos_enlarge)
    except BadImageError as error:
        return BadImage(_title(image), str(error))
    exact = _md5(processed) == image.proc_md5
    final = deltas.add_delta(processed, delta, clip=clip and not exact)
    counts = {"processed_hashes_equal": int(exact), "final_hashes_equal": int(_md5(final) == image.final_md5)}
    return Made(_levels(final, resolution), counts)


def photo_levels(photo: Photo, *, enhance: Enhance, resolution: int, native: int = NATIVE) -> Levels | BadImage:
    """The face of a photograph at every resolution from `resolution` down to 4, by the paper's recipe."""
    try:
        return _levels(_aligned(_read(photo.path), photo.landmarks, native, enlarger(enhance)), resolution)
    except BadImageError as error:
        return BadImage(shown(photo.path.name), str(error))


def photo_quality(photo: Photo, *, enhance: Enhance, native: int = NATIVE) -> float | BadImage:
    """The quality of a photograph's face at full resolution by the paper's measure; higher is better."""
    from progan.data.celebahq.quality import quality

    try:
        value = quality(_aligned(_read(photo.path), photo.landmarks, native, enlarger(enhance)))
    except BadImageError as error:
        return BadImage(shown(photo.path.name), str(error))
    return float(value) if math.isfinite(value) else BadImage(shown(photo.path.name), "its quality is no number")


def check_installed(*packages: str) -> None:
    """Raises DataError with the command to run when an optional package is missing."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise DataError(f'CelebA-HQ needs the package {package}; run: pip install "progan[celebahq]"') from error


def _read(path: Path) -> bytes:
    try:
        return read_plain(path, PICTURE_BYTES)
    except OSError as error:
        raise BadImageError(f"{path.name} cannot be read ({printable(error)})") from error


def _aligned(data: bytes, landmarks: np.ndarray, resolution: int, enlarge: Enlarge) -> np.ndarray:
    """An encoded photograph -> its face, uint8 [3, resolution, resolution]. Raises BadImageError."""
    with pillow_errors():
        with opened_picture(io.BytesIO(data)) as opened:
            check_scans(opened)
            picture = opened.convert("RGB")  # as it is stored: landmarks and deltas know of no EXIF orientation
        face = align(picture, landmarks, resolution=resolution, enlarge=enlarge)
        return np.ascontiguousarray(np.asarray(face).transpose(2, 0, 1))


def _levels(image: np.ndarray, resolution: int) -> Levels:
    levels = box_pyramid(image)
    return {r: levels[r] for r in pyramid_resolutions(resolution)}


def _md5(image: np.ndarray) -> str:
    return hashlib.md5(image.tobytes(), usedforsecurity=False).hexdigest()


def _title(image: ListedImage) -> str:
    return f"idx {image.idx:05d} ({image.file})"


def _names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); pass another folder") from error


def _notes(bad: list[BadImage], total: int) -> list[str]:
    if not bad:
        return []
    return [f"{len(bad):,} of {total:,} images cannot be made, the first being {bad[0].name}: {bad[0].reason}"]


def _libjpeg() -> str:
    turbo = features.version_feature("libjpeg_turbo")
    return f"turbo {turbo}" if turbo else str(features.version_codec("jpg"))
