"""`progan project`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from tyro.conf import Positional

from progan.support.errors import ConfigError, DataError, printable
from progan.support.files import write_json
from progan.support.terminal import say

if TYPE_CHECKING:
    import numpy as np

    from progan.data.store.pyramid import ImagePyramid
    from progan.networks import Generator
    from progan.sampling.project import Projection

MOST = 100_000  # starts or steps
MOST_PIXELS = 2**29  # of project.png
SHOWN = 128  # pixels to which a smaller image is enlarged in it
KINDS = ("-picture.png", "-reconstruction.png", "-difference.png", ".npz")
LONGEST_NAME = 40  # letters of a picture's name that are kept: a file's name holds 255 bytes, a letter up to 4
REFERENCES = 8  # generated images, and training images, beside whose distances those of the pictures are shown


@dataclass(frozen=True)
class Project:
    """Find the latent whose image comes nearest to a picture: what of it this generator can draw.

    From the best of many random latents it descends, coarse to fine, through the resolutions of the network's growth.
    An image of this generator is found again. A picture like the training images comes out similar, seldom the same;
    one of anything else ends in the nearest thing that the generator can draw, which may be far off.

    Writes, for each picture, NAME-picture.png (the centre, as the network sees it), NAME-reconstruction.png,
    NAME-difference.png (black where they agree) and NAME.npz, the latent for progan video --latents; project.png, a row
    of the three for each; project.json, the distances: root mean squares over pixels and channels, of 255. Beside them
    stand those of 8 generated images and, with --data, of 8 training images, projected in the same way.
    """

    source: Positional[Path]
    """Run folder, a .safetensors file, or hf://OWNER/NAME; it is taken as far as it has grown."""
    images: Positional[tuple[Path, ...]]
    """Pictures of any format and size; the largest centred square of each is taken."""
    out: Path
    """Folder for what is written."""
    data: Path | None = None
    """Data set of the run, for the distances of training images."""
    label: int | None = None
    """The class, for a network with labels; by default all are tried."""
    starts: int = 1024
    """Random latents to begin with the best of."""
    steps: int = 300
    """Of the descent at full size; a quarter more come before, coarse to fine."""
    seed: int = 0
    """Of the random latents, and of the images beside which distances are shown."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    overwrite: bool = False
    """Write over files that are there."""

    def run(self) -> None:
        import numpy as np

        from progan.data.store.pyramid import ImagePyramid
        from progan.sampling.images import load_generator
        from progan.sampling.project import project
        from progan.support.device import pick_device
        from progan.support.files import check_free, make_folder
        from progan.support.malloc import keep_freed_memory
        from progan.support.progress import duration, progress_bar

        start = time.monotonic()
        for flag, value in (("--starts", self.starts), ("--steps", self.steps)):
            if not 1 <= value <= MOST:
                raise ConfigError(f"{flag}: {printable(value, 30)} is not allowed; use 1 to {MOST:,}")
        if not self.images:
            raise ConfigError("IMAGES: there are none; give at least one picture")
        g, stage = load_generator(self.source)
        self._check_network(g)
        names = _names(self.images)
        if 3 * len(names) * max(SHOWN, stage["resolution"]) ** 2 > MOST_PIXELS:
            raise ConfigError(f"IMAGES: project.png has no room for {len(names):,}; give fewer at a time")
        if not self.overwrite:
            files = ["config.json", "study.json", "dataset.json", "project.png", "project.json"]
            files += [name + kind for name in names for kind in KINDS]
            check_free("--out", *(self.out / file for file in files))
        data = None if self.data is None else ImagePyramid.open(self.data)
        pictures = np.stack([_read(path, stage["resolution"], g.config.channels) for path in self.images])
        device = pick_device(self.device)
        if device.type == "cpu":
            keep_freed_memory()
        g.to(device)
        groups = {"picture": pictures, **self._references(g, stage, data)}
        make_folder("--out", self.out)
        with progress_bar("projecting", "{task.percentage:.0f}%") as bar:
            task = bar.add_task("", total=1.0)
            found = project(
                g,
                np.concatenate([*groups.values()]),
                **stage,
                label=self.label,
                starts=self.starts,
                steps=self.steps,
                seed=self.seed,
                progress=lambda share: bar.advance(task, share),
            )
        labels = found.classes.tolist() if g.config.label_dim else [None] * len(found.distances)
        _write(self.out, names, pictures, found, labels)
        kinds = [kind for kind, images in groups.items() for _ in images]
        rows = [
            {
                "image": names[i] if i < len(names) else "",
                "kind": kind,
                "class": labels[i],
                "distance": float(found.distances[i]),
                "start_distance": float(found.start_distances[i]),
            }
            for i, kind in enumerate(kinds)
        ]
        write_json(self.out / "project.json", rows)
        say(_table(rows))
        say(
            f"root mean squares of 255; {duration(time.monotonic() - start)}; written to {self.out}, all in project.png"
        )

    def _check_network(self, g: "Generator") -> None:
        """Raise ConfigError for a network that draws no pictures, and for a class that it does not have."""
        classes = g.config.label_dim
        if g.config.channels not in (1, 3):
            raise ConfigError(
                f"{self.source}: makes images of {g.config.channels} channels; give a network of gray or RGB images"
            )
        if self.label is not None and not classes:
            raise ConfigError("--label: this network has no labels; leave the option out")
        if self.label is not None and not 0 <= self.label < classes:
            label = printable(self.label, 30)
            raise ConfigError(f"--label: {label} is not a class of this network; use 0 to {classes - 1}")

    def _references(
        self, g: "Generator", stage: dict[str, Any], data: "ImagePyramid | None"
    ) -> dict[str, "np.ndarray"]:
        """Generated and training images, whose distances are shown beside those of the pictures."""
        from progan.sampling.images import one_hot, sample
        from progan.support.rng import data_order, latents

        z = latents(self.seed, "generated to project", 0, REFERENCES, g.config.z_dim)
        classes = [i % max(1, g.config.label_dim) if self.label is None else self.label for i in range(REFERENCES)]
        found = {"generated": sample(g, z, one_hot(classes, g.config.label_dim), **stage)}
        if data is not None:
            side = stage["resolution"]
            if data.channels != g.config.channels or side not in data.resolutions:
                raise DataError(
                    f"{data.path}: holds no images of {side}x{side} pixels and {g.config.channels} channels, as the"
                    " network makes; give the data set that it was trained on"
                )
            found["training"] = data.read(data_order(self.seed, 0, min(REFERENCES, len(data)), len(data)), side)
        return found


def _names(paths: tuple[Path, ...]) -> list[str]:
    """What the files of each picture begin with: its own name, numbered where two have the same."""
    names: dict[str, str] = {}  # by what a file system that knows no capitals makes of them
    for path in paths:
        name, count = path.stem[:LONGEST_NAME], 1
        while name.casefold() in names:
            count += 1
            name = f"{path.stem[:LONGEST_NAME]}-{count}"
        names[name.casefold()] = name
    return [*names.values()]


def _read(path: Path, resolution: int, channels: int) -> "np.ndarray":
    from progan.data.pictures.decode import load_image
    from progan.data.pictures.tree import PictureFile
    from progan.data.source import BadImageError

    try:
        with PictureFile(path.name, path).open() as file:
            return load_image(file, resolution=resolution, channels=channels, crop="center", enlarge=True)
    except BadImageError as error:
        raise DataError(f"{path}: cannot be read as a picture ({printable(error)}); leave it out") from None


def _write(out: Path, names: list[str], pictures: "np.ndarray", found: "Projection", labels: list[int | None]) -> None:
    """The files of each picture, and all in one."""
    import numpy as np

    from progan.images import make_grid, to_pil, write_png
    from progan.sampling.images import save_latent

    images = found.images[: len(pictures)]
    differences = np.abs(images.astype(np.int16) - pictures).astype(np.uint8)
    rows = np.stack([pictures, images, differences], axis=1)  # [N, 3, C, R, R]
    for name, row, z, label in zip(names, rows, found.z, labels, strict=False):
        for kind, image in zip(KINDS, row, strict=False):
            write_png(out / f"{name}{kind}", to_pil(image))
        save_latent(out / f"{name}.npz", z, label)
    scale = max(1, SHOWN // pictures.shape[-1])
    write_png(out / "project.png", make_grid(rows.reshape(-1, *rows.shape[2:]), 3, len(rows), scale))


def _table(rows: list[dict[str, Any]]) -> Table:
    """The distances of each picture, and the means of those of the images beside them."""
    classes = any(row["class"] is not None for row in rows)
    table = Table("image", *(["class"] if classes else []), box=None, pad_edge=False)
    for head in ("distance", "of the best start"):
        table.add_column(head, justify="right")
    for row in rows:
        if row["kind"] == "picture":
            label = [str(row["class"])] if classes else []
            table.add_row(row["image"], *label, f"{row['distance']:.2f}", f"{row['start_distance']:.2f}")
    for kind in ("generated", "training"):
        of = [row for row in rows if row["kind"] == kind]
        if of:
            means = (f"{sum(row[name] for row in of) / len(of):.2f}" for name in ("distance", "start_distance"))
            table.add_row(f"mean of {len(of)} {kind} images", *([""] if classes else []), *means)
    return table
