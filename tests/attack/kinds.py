"""Every kind of file that the program reads: how to make an honest one, and how the program reads it.

A new file format gets a row here; the damage of damage.py, the pipes and devices of test_not_plain.py and the count of
cases then know it.
"""

import bz2
import gzip
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from progan.config import DiscriminatorConfig, GeneratorConfig, ScheduleConfig, TrainConfig
from progan.data.create import create, describe
from progan.data.pictures.doctor import examine, report_table
from progan.data.pictures.tree import open_tree
from progan.data.source import Source
from progan.data.sources import celebahq
from progan.data.sources.celeba import CelebA
from progan.data.sources.celebahq import CelebaHQ
from progan.data.sources.cifar import Cifar10
from progan.data.sources.folder import Folder
from progan.data.sources.hdf5 import Hdf5
from progan.data.sources.lsun import Lsun
from progan.data.sources.mnist import Mnist
from progan.data.sources.svhn import Svhn
from progan.data.sources.tfrecords import Tfrecords
from progan.data.store.pyramid import ImagePyramid
from progan.data.store.writer import PyramidWriter
from progan.export.track import track
from progan.export.web import export_page
from progan.interop.official import read as read_official
from progan.metrics.cache import cached
from progan.networks import Discriminator, Generator
from progan.run.folder import open_run
from progan.run.log import cut_after, cut_measurements
from progan.run.metrics_log import read_metrics, read_times, worse
from progan.run.start import read_start
from progan.run.state import CHECKSUM, TrainState
from progan.sampling.images import read_latent, save_latent, write_images
from progan.studies.ablation.rows import ROWS, SCALES, read_rows
from progan.studies.experiment import Experiment, trained_nimg
from progan.studies.folder import prepare_study
from progan.studies.rows import row_config
from progan.support.errors import RunError
from progan.support.plain_files import CONFIG_BYTES, check_plain
from progan.support.run_files import RunFolder
from progan.weights import save_network
from tests.conftest import write_data
from tests.data.celebahq.test_deltas import encrypt, store
from tests.data.sources.test_celebahq import landmarks_text, list_text, photo
from tests.data.sources.test_cifar import FOLDER10, cifar10_files
from tests.data.sources.test_mnist import idx

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Attacked:
    """A file to be damaged. read: as the program does; what it returns is compared when the file is `whole`, one whose
    format has checksums, so that it is refused or read as what it was."""

    path: Path
    read: Callable[[], object]
    whole: bool = False


Make = Callable[[Path, pytest.MonkeyPatch], Attacked]
KINDS: dict[str, Make] = {}


def kind(name: str) -> Callable[[Make], Make]:
    def add(make: Make) -> Make:
        KINDS[name] = make
        return make

    return add


def made(source: Source) -> str:
    """The content, by its hash, of the data set that a source makes, which is removed again."""
    try:
        return create(source, quiet=True).hash
    finally:
        shutil.rmtree(source.out, ignore_errors=True)


@contextmanager
def as_before(path: Path) -> Iterator[None]:
    """A small file has its content again after the block, which may add to it or cut it."""
    content = path.read_bytes() if path.is_file() and path.stat().st_size < 2**20 else None
    try:
        yield
    finally:
        if content is not None:
            path.write_bytes(content)


# ---------------------------------------------------------------------------------------------------------------------
# Weights and what a run writes


def tiny_config() -> TrainConfig:
    shape: dict[str, Any] = {"resolution": 8, "fmap_base": 16, "fmap_max": 8}
    return TrainConfig(
        g=GeneratorConfig(**shape),
        d=DiscriminatorConfig(**shape),
        schedule=ScheduleConfig(stable_nimg=16, fade_nimg=16, total_nimg=96, batch={4: 4}),
        precision="fp32",
        device="cpu",
    )


@kind("weights")
def weights(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    path = folder / "generator.safetensors"
    data = {"hash": "0" * 64, "count": 12, "label_names": ["a", "b"], "attribution": {"title": "A"}, "source": {}}
    g = Generator(GeneratorConfig(resolution=8, fmap_base=16, fmap_max=8, label_dim=2))
    save_network(path, g, nimg=4, resolution=8, alpha=0.5, data=data)

    def read() -> None:
        try:
            write_images(path, folder / "out", [0], classes=[1], device="cpu")
            export_page(path, folder / "page.html", title="t")
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)
            (folder / "page.html").unlink(missing_ok=True)

    return Attacked(path, read)


@kind("what weights say of themselves")
def about_weights(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    honest = weights(folder, patch)
    path = folder / "about.json"
    with safe_open(honest.path, framework="pt") as file:
        path.write_text(file.metadata()["progan"])
    tensors = load_file(honest.path)

    def read() -> None:
        check_config(path)
        save_file(tensors, honest.path, {"progan": path.read_text("utf-8", "replace")})
        honest.read()

    def check_config(path: Path) -> None:
        try:
            check_plain(path, CONFIG_BYTES)
        except OSError as error:
            raise RunError(str(error)) from None

    return Attacked(path, read)


@kind("weights of a discriminator")
def discriminator(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    for name, network in (("generator", Generator), ("g", Generator), ("d", Discriminator)):
        config: Any = getattr(tiny_config(), "d" if name == "d" else "g")
        save_network(folder / f"{name}.safetensors", network(config))
    return Attacked(folder / "d.safetensors", lambda: read_start(folder).resolution)


@kind("latent")
def latent(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    path, config = folder / "a.npz", GeneratorConfig(resolution=8, latent_dim=6, label_dim=2)
    save_latent(path, torch.arange(6.0), 1)

    def read() -> list[Any]:
        z, label = read_latent(path, config)
        return [z.tolist(), label]

    return Attacked(path, read, whole=True)


@kind("checkpoint")
def checkpoint(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    path = TrainState.create(tiny_config(), CPU).save(folder)
    return Attacked(path, lambda: _state(path), whole=True)


@kind("checkpoint of an older version")
def old_checkpoint(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    path = TrainState.create(tiny_config(), CPU).save(folder)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(CHECKSUM) - 2] + bytes(2))
    return Attacked(path, lambda: _state(path))


def _state(path: Path) -> list[Any]:
    state = TrainState.create(tiny_config(), CPU)
    state.load(path)
    return [state.nimg, *(value.tolist() for value in state.g.state_dict().values())]


@kind("config.json")
def run_config(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    def enter() -> None:
        with open_run(folder / "run", tiny_config(), "hash", ""):
            pass

    enter()
    return Attacked(folder / "run" / "config.json", enter)


@kind("study.json")
def study(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    facts = {"study": "ablation", "scale": "small", "seeds": 1, "data": "0" * 64, "images": None}
    prepare_study(folder / "out", facts)
    return Attacked(folder / "out" / "study.json", lambda: prepare_study(folder / "out", facts))


@kind("rows of a study")
def rows_file(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    path = folder / "rows.json"
    rows = [{"name": "x", "base": "g", "title": "g, no drift", "overrides": {"loss.drift": 0.0, "g.fmap_max": 8}}]
    path.write_text(json.dumps(rows))

    def read() -> None:
        own = read_rows(path)
        for row in own:
            row_config(row, "small", SCALES, [*ROWS, *own])

    return Attacked(path, read)


@dataclass(frozen=True)
class NoMeasure:
    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        return {}


@kind("result of a study's run")
def result(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    experiment = Experiment("a", tiny_config(), folder / "data", folder, NoMeasure())
    path = folder / experiment.result
    path.write_text(json.dumps({"key": experiment.key(), "record": {"name": "a", "nimg": 8}}))
    return Attacked(path, experiment.record)


def line(nimg: int) -> dict[str, Any]:
    row = {"nimg": nimg, "seconds": 1.5, "metric": "swd", "protocol": "p", "data": "d", "resolution": 16}
    return row | {"mirrored": False, "source": f"generator-{nimg:09d}", "values": {"average": 2.0}, "spread": {}}


@kind("lines of a run")
def lines(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    run = RunFolder(folder)
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(line(nimg)) + "\n" for nimg in (8, 16, 24)))
    run.stats = path

    def read() -> None:
        worse(read_metrics(path))
        read_times(path)
        trained_nimg(run)
        with as_before(path):
            cut_measurements(path, 8)
        cut_after(path, 8)

    return Attacked(path, read)


def tracked(folder: Path) -> Path:
    """A run of one step, as `progan track` reads it."""
    with open_run(folder / "run", tiny_config(), "hash", "") as (run, _):
        run.stats.write_text(json.dumps({"nimg": 8, "resolution": 4, "alpha": 1.0, "batch": 4, "loss": 0.5}) + "\n")
        run.timing.write_text(json.dumps({"nimg": 8, "seconds": 1.0, "img_per_s": 8.0}) + "\n")
        run.metrics.write_text(json.dumps(line(8)) + "\n")
    return run.path


def tracked_file(name: str) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        run, out = tracked(folder), folder / "out"

        def read() -> None:
            try:
                track(run, "tensorboard", out)
            finally:
                shutil.rmtree(out, ignore_errors=True)

        return Attacked(run / name, read)

    return make


for name in ("stats.jsonl", "timing.jsonl", "metrics.jsonl"):
    kind(f"{name}, tracked")(tracked_file(name))


@kind("what was tracked")
def track_record(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    run, out = tracked(folder), folder / "out"
    track(run, "tensorboard", out)
    return Attacked(out / "progan-track.json", lambda: track(run, "tensorboard", out))


@kind("statistics of reals")
def cache(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    kept = {"features": np.arange(6.0)}

    def read() -> list[float]:
        return list(cached({"metric": "m"}, lambda: kept, folder)["features"])

    read()
    (path,) = folder.iterdir()
    return Attacked(path, read, whole=True)


# ---------------------------------------------------------------------------------------------------------------------
# Data sets of our own


def data_set(file: str, *, whole: bool) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        data = write_data(folder / "data", count=3, labels=2)

        def read() -> str:
            pyramid = ImagePyramid.open(data.path)
            pyramid.verify()
            describe(pyramid)
            report_table(examine(data.path, workers=1, quiet=True))
            return pyramid.hash

        return Attacked(data.path / file, read, whole)

    return make


kind("dataset.json")(data_set("dataset.json", whole=False))
kind("images of a data set")(data_set("images-8x8.npy", whole=True))
kind("labels of a data set")(data_set("labels.npy", whole=True))


@kind("journal of a creation")
def journal(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    options: dict[str, Any] = {"resolution": 4, "channels": 1, "source": {}, "identity": {"kind": "test"}}
    image = {4: np.zeros((1, 4, 4), np.uint8)}

    def begin() -> PyramidWriter:
        return PyramidWriter(folder / "out", **options)

    with suppress(KeyboardInterrupt), begin() as writer:
        for _ in range(3):
            writer.append(image)
            writer.note({"bad": None, "counts": {"enlarged": 1}})
        raise KeyboardInterrupt
    path = writer.folder / "journal.jsonl"

    def read() -> None:
        with as_before(path), suppress(KeyboardInterrupt), begin():
            raise KeyboardInterrupt

    return Attacked(path, read)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures and archives of them


def encoded(kind: str, seed: int = 0, **options: Any) -> bytes:
    memory = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(memory, kind, **options)
    return memory.getvalue()


def picture(name: str, content: bytes) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        src = folder / "src"
        src.mkdir()
        (src / name).write_bytes(content)

        def read() -> str:
            report_table(examine(src, workers=1, quiet=True))
            return made(Folder(src=src, out=folder / "out", resolution=8, on_bad="fix", workers=1))

        return Attacked(src / name, read, whole=name.endswith(".png"))

    return make


for name, content in {
    "a.png": encoded("PNG"),
    "a.jpg": encoded("JPEG"),
    "b.jpg": encoded("JPEG", progressive=True),
    "a.gif": encoded("GIF", save_all=True, append_images=[Image.new("RGB", (16, 16), "red")]),
    "a.bmp": encoded("BMP"),
    "a.tif": encoded("TIFF"),
    "b.tif": encoded("TIFF", compression="tiff_lzw"),
    "a.webp": encoded("WEBP"),
    "a.ppm": encoded("PPM"),
    "a.tga": encoded("TGA", compression="tga_rle"),
    "a.ico": encoded("ICO"),
    "a.jp2": encoded("JPEG2000"),
}.items():
    kind(f"picture {name}")(picture(name, content))


FILES = {"a.png": encoded("PNG", 1), "b.png": encoded("PNG", 2), "c/c.png": encoded("PNG", 3)}
LABELS = json.dumps({"labels": [[name, i] for i, name in enumerate(FILES)], "label_names": ["x", "y", "z"]}).encode()


def archive(kind: str) -> bytes:
    """Three small pictures and a list of their classes."""
    memory = io.BytesIO()
    files = {**FILES, "dataset.json": LABELS}
    if kind == "zip":
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as pack:
            for name, data in files.items():
                pack.writestr(name, data)
    else:
        with tarfile.open(fileobj=memory, mode=f"w:{kind}") as pack:  # type: ignore[call-overload]
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                pack.addfile(info, io.BytesIO(data))
    return memory.getvalue()


def pictures_in(path: Path) -> dict[str, Any]:
    """Name and bytes of the pictures of a folder or an archive; what cannot be had is named and None."""
    found: dict[str, Any] = {}
    for file in open_tree(path).files():
        try:
            with file.open() as opened:
                found[file.name] = opened.read()
        except Exception:
            found[file.name] = None
    return found


def archived(kind: str) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        path = folder / ("a.zip" if kind == "zip" else f"a.tar.{kind}".rstrip("."))
        path.write_bytes(archive(kind))

        def read() -> str:
            return made(Folder(src=path, out=folder / "out", resolution=8, labels="json", workers=1))

        return Attacked(path, read, whole=bool(kind))

    return make


for packing in ("", "gz", "bz2", "xz", "zip"):
    kind("archive zip" if packing == "zip" else f"archive tar.{packing}".rstrip("."))(archived(packing))


@kind("dataset.json of StyleGAN")
def stylegan(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    src = folder / "src"
    for name, content in FILES.items():
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_bytes(content)
    (src / "dataset.json").write_bytes(LABELS)
    source = Folder(src=src, out=folder / "out", resolution=8, labels="json", workers=1)
    return Attacked(src / "dataset.json", lambda: made(source))


# ---------------------------------------------------------------------------------------------------------------------
# Data sets of others


def tfrecord(file: str, *, whole: bool) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        src = folder / "src"
        shutil.copytree(GOLDEN / "tfrecords", src)
        (name,) = (path.name for path in src.iterdir() if path.name.endswith(file))
        source = Tfrecords(src=src, out=folder / "out", workers=1)
        return Attacked(src / name, lambda: made(source), whole)

    return make


kind("tfrecords")(tfrecord("r03.tfrecords", whole=True))
kind("tfrecords, labels")(tfrecord("rxx.labels", whole=False))


@kind("hdf5")
def hdf5(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    pytest.importorskip("h5py")
    from tests.data.sources.test_hdf5 import write

    path = folder / "a.h5"
    write(path, np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8))
    source = Hdf5(src=path, out=folder / "out", workers=1)
    return Attacked(path, lambda: made(source))


@kind("mat")
def mat(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    scipy = pytest.importorskip("scipy.io")
    path = folder / "train_32x32.mat"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    scipy.savemat(path, {"X": pixels, "y": np.array([[1], [10]], np.uint8)}, do_compression=True)
    source = Svhn(src=folder, out=folder / "out")
    return Attacked(path, lambda: made(source))


@kind("lmdb")
def lmdb(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    pytest.importorskip("lmdb")
    from tests.data.sources.test_lsun import write_lmdb

    src = folder / "bedroom_train_lmdb"
    write_lmdb(src, [encoded("WEBP", seed) for seed in range(4)])
    source = Lsun(src=src, out=folder / "out", resolution=8, workers=1)
    return Attacked(src / "data.mdb", lambda: made(source))


def idx_file(gzipped: bool) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        end = ".gz" if gzipped else ""
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8), np.arange(3, dtype=np.uint8)
        for name, values in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
            content = idx(values)
            (folder / (name + end)).write_bytes(gzip.compress(content) if gzipped else content)
        source = Mnist(src=folder, out=folder / "out")
        return Attacked(folder / f"train-images-idx3-ubyte{end}", lambda: made(source), whole=gzipped)

    return make


kind("idx")(idx_file(False))
kind("idx.gz")(idx_file(True))


def cifar(name: str) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        src = folder / FOLDER10
        src.mkdir()
        for file, content in cifar10_files().items():
            (src / file).write_bytes(content)
        source = Cifar10(src=src, out=folder / "out", split="test")
        return Attacked(src / name, lambda: made(source))

    return make


kind("pickle of CIFAR-10")(cifar("test_batch"))
kind("names of CIFAR-10")(cifar("batches.meta"))


@kind("archive of CIFAR-10")
def cifar_archive(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    from tests.data.sources.test_cifar import archive

    path = archive(folder / "cifar-10-python.tar.gz", FOLDER10, cifar10_files())
    return Attacked(path, lambda: made(Cifar10(src=path, out=folder / "out", split="test")), whole=True)


@kind("official snapshot")
def official(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
    path = folder / "official.pkl"
    shutil.copy(GOLDEN / "official_a.pkl", path)
    return Attacked(path, lambda: read_official(path).lod)


def celeba(file: str, **options: Any) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        from tests.data.sources.test_celeba import jpeg

        src = folder / "img_align_celeba"
        src.mkdir()
        for number in (1, 2):
            (src / f"{number:06}.jpg").write_bytes(jpeg(number))
        (folder / "list_attr_celeba.txt").write_text("2\nMale Smiling \n000001.jpg -1  1\n000002.jpg  1 -1\n")
        (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 0\n")
        source = CelebA(src=src, out=folder / "out", workers=1, **options)
        return Attacked(folder / file, lambda: made(source))

    return make


kind("attributes of CelebA")(celeba("list_attr_celeba.txt", attribute="Smiling"))
kind("splits of CelebA")(celeba("list_eval_partition.txt", split="train"))


def celeba_hq(file: str, *, published: bool) -> Make:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Attacked:
        pytest.importorskip("scipy")
        pytest.importorskip("cryptography")
        patch.setattr(celebahq, "NATIVE", 64)
        src, deltas = folder / "celeba", folder / "deltas"
        for path in (src / "img_celeba", src / "Anno", deltas):
            path.mkdir(parents=True)
        memory = io.BytesIO()
        photo(0).save(memory, "JPEG", quality=95)
        (src / "img_celeba" / "000001.jpg").write_bytes(memory.getvalue())
        (src / "Anno" / "list_landmarks_celeba.txt").write_text(landmarks_text(["000001.jpg"]))
        delta = bz2.compress(np.zeros((3, 64, 64), np.uint8).tobytes())
        store(deltas, {0: encrypt(delta, memory.getvalue(), "000001.jpg")})
        digest = hashlib.md5(b"").hexdigest()
        (deltas / "image_list.txt").write_text(list_text([(0, "000001.jpg", digest, digest)]))
        source = CelebaHQ(
            src=src, out=folder / "out", deltas=deltas if published else None, resolution=16, on_bad="fail", workers=1
        )

        def read() -> str:
            with as_before(ratings):
                try:
                    return made(source)
                finally:
                    shutil.rmtree(folder / "out.partial", ignore_errors=True)

        ratings = folder / "out.ratings.jsonl"
        if not published:
            read()
        return Attacked(folder / file, read)

    return make


kind("landmarks of CelebA")(celeba_hq("celeba/Anno/list_landmarks_celeba.txt", published=True))
kind("photographs of CelebA")(celeba_hq("celeba/img_celeba/000001.jpg", published=False))
kind("list of CelebA-HQ")(celeba_hq("deltas/image_list.txt", published=True))
kind("deltas of CelebA-HQ")(celeba_hq("deltas/deltas00000.zip", published=True))
kind("ratings of CelebA-HQ")(celeba_hq("out.ratings.jsonl", published=False))


# ---------------------------------------------------------------------------------------------------------------------
# Pickles that want to be programs


def hostile(whole: bytes, canary: Path, seed: int, count: int = 100) -> list[bytes]:
    """The pickle with calls of os.system and their like put between two of its steps, or in place of the rest."""
    import pickletools

    rng = np.random.default_rng(seed)
    places = [place for _, _, place in pickletools.genops(whole) if place]
    touch = f"touch {canary}"
    calls = [
        f"cos\nsystem\n(V{touch}\ntR".encode(),
        f"cbuiltins\neval\n(V__import__('os').system({touch!r})\ntR".encode(),
        f"(V{touch}\nios\nsystem\n".encode(),
        f"(cos\nsystem\nV{touch}\no".encode(),
        b"\x8c\x05posix\x8c\x06system\x93" + pickle.dumps((touch,), 2)[2:-1] + b"R",
    ]
    made = []
    for _ in range(count):
        place, call = places[rng.integers(len(places))], calls[rng.integers(len(calls))]
        rest = whole[place:] if rng.integers(2) else b"."
        made.append(whole[:place] + call + rest)
    return made
