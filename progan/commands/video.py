"""`progan video`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tyro.conf import Positional

from progan.commands.generate import parse_grid, parse_numbers
from progan.support.errors import ConfigError, RunError
from progan.support.terminal import say

LONGEST = 3600  # seconds


@dataclass(frozen=True)
class Video:
    """Make a video: a walk through the images that a generator can make, or how a run grew.

    Without --seeds the walk is random, and its end meets its beginning. With them, or with --latents, it goes from
    image to image and back.
    """

    source: Positional[Path]
    """Run folder, a .safetensors file, or hf://OWNER/NAME."""
    out: Path
    """The video: a name in .mp4 (pip install "progan[video]"), .gif or .webp."""
    seconds: float = 20.0
    """Length."""
    fps: float = 25.0
    """Pictures a second; 50 at most for .gif."""
    seeds: str | None = None
    """A round trip through these images: 3,7,12-15."""
    latents: str | None = None
    """A round trip through latents of progan project in place of seeds: a.npz,b.npz."""
    seed: int = 0
    """Of the random walk."""
    smoothing: float = 1.0
    """Seconds over which the random walk is smoothed: more is slower."""
    grid: str = "1x1"
    """COLUMNSxROWS walks side by side, as 4x2."""
    pixels: int = 512
    """Smaller pictures are enlarged by a whole factor to at least this width."""
    growth: bool = False
    """In place of a walk, the pictures that the run made while it trained, in turn."""
    resolution: int | None = None
    """Pixels of an image; by default as far as the network has grown."""
    alpha: float | None = None
    """Weight of the newest block, 0 to 1; by default as far as it has faded in."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    overwrite: bool = False
    """Write over a video that is there."""

    def run(self) -> None:
        from progan.sampling.video import check_video, write_video
        from progan.support.files import check_free
        from progan.support.progress import with_progress

        check_video(self.out, self.fps)
        if not self.overwrite:
            check_free("--out", self.out)
        frames = round(self.seconds * self.fps) if 0 < self.seconds <= LONGEST else 0
        if frames < 2:
            raise ConfigError(
                f"--seconds: {self.seconds:g} at {self.fps:g} pictures a second is no video; use {2 / self.fps:g} to"
                f" {LONGEST}"
            )
        if not 0 <= self.smoothing <= LONGEST:
            raise ConfigError(f"--smoothing: {self.smoothing:g} is not allowed; use 0 to {LONGEST} seconds")
        if self.growth and self.seeds is not None:
            raise ConfigError("--growth, --seeds: the run's own pictures have no seeds; leave one of the two out")
        if self.latents is not None and (self.growth or self.seeds is not None):
            raise ConfigError("--latents, --seeds, --growth: a video shows one of them; leave the others out")
        pictures = self._growth(frames) if self.growth else self._walk(frames)
        write_video(self.out, with_progress(pictures, frames, "pictures"), self.fps)
        say(f"{self.seconds:g} s of video: {self.out}")

    def _growth(self, frames: int) -> Iterator[Image.Image]:
        from progan.sampling.walk import growth_frames
        from progan.support.run_files import RunFolder

        pictures = RunFolder(self.source).fakes()
        if not pictures:
            raise RunError(f"{self.source}: holds no fakes-*.png; give a run folder of progan train for --growth")
        return growth_frames(pictures, frames)

    def _walk(self, frames: int) -> Iterator[Image.Image]:
        import torch

        from progan.sampling.images import load_generator, read_latent
        from progan.sampling.walk import walk_frames

        g, stage = load_generator(self.source, resolution=self.resolution, alpha=self.alpha)
        points = None
        if self.latents is not None:
            found = [read_latent(Path(name), g.config) for name in self.latents.split(",")]
            points = torch.stack([z for z, _ in found]), [label or 0 for _, label in found]
        return walk_frames(
            g,
            frames=frames,
            smoothing=self.smoothing * self.fps,
            seed=self.seed,
            seeds=None if self.seeds is None else parse_numbers("--seeds", self.seeds),
            points=points,
            grid=parse_grid(self.grid),
            pixels=self.pixels,
            **stage,
            device=self.device,
        )
