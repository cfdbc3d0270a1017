"""`progan data ...`. Every source has its own file, `progan/data/sources/`: its fields are the options here."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from progan.data.sources.celeba import CelebA
from progan.data.sources.celebahq import CelebaHQ
from progan.data.sources.cifar import Cifar10, Cifar100
from progan.data.sources.faces import Faces
from progan.data.sources.folder import Folder
from progan.data.sources.hdf5 import Hdf5
from progan.data.sources.huggingface import HuggingFace
from progan.data.sources.lsun import Lsun
from progan.data.sources.mnist import FashionMnist, Mnist, MnistRgb
from progan.data.sources.photos import Photos
from progan.data.sources.svhn import Svhn
from progan.data.sources.tfrecords import Tfrecords
from progan.support.terminal import say


@dataclass(frozen=True)
class Create:
    """Make a data set; every source's own --help says where its files are downloaded and how large they are."""

    source: Annotated[
        Annotated[Folder, subcommand(name="folder")]
        | Annotated[Photos, subcommand(name="photos")]
        | Annotated[Faces, subcommand(name="faces")]
        | Annotated[CelebaHQ, subcommand(name="celebahq")]
        | Annotated[CelebA, subcommand(name="celeba")]
        | Annotated[Lsun, subcommand(name="lsun")]
        | Annotated[Mnist, subcommand(name="mnist")]
        | Annotated[FashionMnist, subcommand(name="fashion-mnist")]
        | Annotated[MnistRgb, subcommand(name="mnist-rgb")]
        | Annotated[Cifar10, subcommand(name="cifar10")]
        | Annotated[Cifar100, subcommand(name="cifar100")]
        | Annotated[Svhn, subcommand(name="svhn")]
        | Annotated[Tfrecords, subcommand(name="tfrecords")]
        | Annotated[Hdf5, subcommand(name="hdf5")]
        | Annotated[HuggingFace, subcommand(name="huggingface")],
        arg(name=""),
    ]

    def run(self) -> None:
        from progan.data.create import create, describe

        say(describe(create(self.source, command=shlex.join(["progan", *sys.argv[1:]]))))


@dataclass(frozen=True)
class Doctor:
    """Look at every picture, or at every image of a data set, before anything is made of it; nothing is changed.

    Names each file and why: unreadable, truncated, not square, of an odd mode, transparent, turned by EXIF, copies and
    near copies, smaller than the others. Says for each kind what `create` does with --on-bad fail, skip or fix.
    """

    src: Positional[Path]
    """A folder of pictures, a .zip or .tar file of pictures, or a data set."""
    report: Path | None = None
    """Also write everything that was found to this JSON file."""
    overwrite: bool = False
    """Write over a file that is there."""
    workers: int | None = None
    """Processes; all cores by default."""

    def run(self) -> None:
        from progan.data.pictures.doctor import examine, report_table, write_report
        from progan.support.files import check_free

        if self.report is not None and not self.overwrite:
            check_free("--report", self.report)
        report = examine(self.src, workers=self.workers)
        if self.report is not None:
            write_report(report, self.report)
        say(report_table(report))


@dataclass(frozen=True)
class Show:
    """Draw a contact sheet of a data set: the same images at every level, or many at one."""

    data: Positional[Path]
    """Folder of the data set."""
    out: Path
    """The picture to write, a PNG file."""
    level: int | None = None
    """Only this resolution; all by default."""
    overwrite: bool = False
    """Write over a file that is there."""

    def run(self) -> None:
        from progan.data.show import contact_sheet, write_sheet
        from progan.data.store.pyramid import ImagePyramid
        from progan.support.files import check_free

        if not self.overwrite:
            check_free("--out", self.out)
        write_sheet(contact_sheet(ImagePyramid.open(self.data), level=self.level), self.out)
        say(f"contact sheet: {self.out}")


@dataclass(frozen=True)
class Export:
    """Write a data set as files that other programs read."""

    data: Positional[Path]
    """Folder of the data set."""
    out: Path
    """Folder to make, or the .zip file."""
    to: Literal["tfrecords", "folder", "zip"]
    """tfrecords: byte for byte as the official TensorFlow tool writes them; folder, zip: PNG files and dataset.json in
    the layout of StyleGAN."""
    workers: int | None = None
    """Processes; all cores by default."""

    def run(self) -> None:
        from progan.data.formats.export import export
        from progan.data.store.pyramid import ImagePyramid

        say(f"exported: {export(ImagePyramid.open(self.data), self.out, self.to, workers=self.workers)}")


@dataclass(frozen=True)
class Info:
    """What a data set holds."""

    data: Positional[Path]
    """Folder of the data set."""
    verify: bool = False
    """Also read every byte and compare with the manifest's hashes."""

    def run(self) -> None:
        from progan.data.create import describe
        from progan.data.store.pyramid import ImagePyramid

        pyramid = ImagePyramid.open(self.data)
        if self.verify:
            pyramid.verify()
        say(describe(pyramid))
        if self.verify:
            say("every file matches the manifest")


@dataclass(frozen=True)
class Data:
    """Make and look at data sets."""

    action: Annotated[
        Annotated[Create, subcommand(name="create")]
        | Annotated[Doctor, subcommand(name="doctor")]
        | Annotated[Show, subcommand(name="show")]
        | Annotated[Info, subcommand(name="info")]
        | Annotated[Export, subcommand(name="export")],
        arg(name=""),
    ]

    def run(self) -> None:
        self.action.run()
