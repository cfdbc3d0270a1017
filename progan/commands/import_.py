"""`progan import`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from progan.support.terminal import say


@dataclass(frozen=True)
class Import:
    """Read an official TensorFlow snapshot (.pkl) without TensorFlow and without running anything in it."""

    snapshot: Positional[Path]
    """The official .pkl file with G, D and Gs."""
    out: Path
    """Folder for generator.safetensors (Gs), g.safetensors and d.safetensors."""
    overwrite: bool = False
    """Write over files of these names that are there."""

    def run(self) -> None:
        from progan.interop.official import read
        from progan.support.files import check_free, make_folder
        from progan.weights import save_network

        if not self.overwrite:
            check_free("--out", *(self.out / f"{name}.safetensors" for name in ("generator", "g", "d")))
        snapshot = read(self.snapshot)
        make_folder("--out", self.out)
        resolution = snapshot.g.config.resolution // 2 ** int(snapshot.lod)
        stage = {"nimg": 0, "resolution": resolution, "alpha": 1.0 - snapshot.lod % 1.0}
        for name, network in (("generator", snapshot.gs), ("g", snapshot.g), ("d", snapshot.d)):
            save_network(self.out / f"{name}.safetensors", network, **stage)
        say(f"generator.safetensors, g.safetensors and d.safetensors in {self.out}")
