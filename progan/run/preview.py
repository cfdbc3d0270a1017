"""The pictures of a run while it trains."""

from PIL import Image

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.images import make_grid
from progan.run.state import TrainState
from progan.sampling.images import one_hot, sample
from progan.support.rng import data_order, latents


class Preview:
    """The pictures of a run: reals, and the moving average's images for latents that never change."""

    def __init__(self, config: TrainConfig, data: ImagePyramid) -> None:
        self.data = data
        self.resolution = config.g.resolution
        self.columns = max(1, min(8, 2048 // self.resolution))
        count = self.columns**2
        self.z = latents(config.seed, "preview", 0, count, config.g.z_dim)
        classes = [i % max(1, config.g.label_dim) for i in range(count)]
        self.labels = one_hot(classes, config.g.label_dim)
        self.indices = data_order(config.seed, 0, count, len(data))

    def reals(self) -> Image.Image:
        """Real images at full resolution."""
        return make_grid(self.data.read(self.indices, self.resolution), self.columns, self.columns)

    def fakes(self, state: TrainState) -> Image.Image:
        """Images at the resolution and alpha of the moment, pixels repeated up to the full resolution."""
        at = state.stage()
        images = sample(
            state.g_ema, self.z, self.labels, resolution=at["resolution"], alpha=at["alpha"], full_size=True
        )
        return make_grid(images, self.columns, self.columns)
