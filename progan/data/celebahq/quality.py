"""How sharp an image is, by its power spectrum: the rating that chooses the photographs of CelebA-HQ.

The paper (appendix C) ranks images by a metric on the power spectrum that favours spectra which are radially
symmetric and have high frequencies, and gives no formula. This one is ours. A sharp photograph's power falls with the
square of the frequency, in all directions alike; the rating is how much power is missing from that. Power that the
picture's noise accounts for, as far as it is white, and power that follows after a gap do not count.
"""

import numpy as np

OCTAVES = 3  # of frequency that are rated, up to the highest, R / 2 cycles per image
SECTORS = 12  # of 15 degrees each, into which an octave is divided
WORST = -16.0  # bits
_NOISE_FROM = 0.6  # cycles per pixel: the spectrum's corners, where photographs have next to nothing
_NOISE_MARGIN = 1.25  # the noise of an octave's sector may be this much above that of the corners
_ROUNDING = 1 / 12  # variance of rounding to uint8


def quality(image: np.ndarray) -> float:
    """Rate the sharpness of an image: 0 is as sharp as a photograph can be, -16 is no picture at all.

    image: uint8 [3, R, R], R at least 32. Returns the mean, over octaves and directions, of the power in bits (factors
    of two) relative to what the low frequencies promise. Blur, enlargement and motion blur lower it, white noise never
    raises it much; so does JPEG, except in pictures that are soft or noisy anyway. Brightness and mirroring make no
    difference. Compare images of one resolution only.
    """
    channels, size, width = image.shape
    if channels != 3 or width != size or size < 32:
        raise ValueError(f"image of shape {list(image.shape)}; the rating takes [3, R, R] with R of at least 32")
    power, down, across = _power(image)
    frequency = np.hypot(down, across)
    # No grid point lies on a border between sectors, so that mirroring maps sectors onto sectors.
    sector = np.rint(np.arctan2(down, across) * (SECTORS / np.pi)).astype(int) % SECTORS
    noise = _NOISE_MARGIN * power[frequency > _NOISE_FROM].mean()
    low = (frequency >= 1 / 64) & (frequency < 0.5 ** (OCTAVES + 1))
    if power[low].mean() <= noise:
        return WORST
    promised = (power * frequency**2)[low].mean()
    ratings: list[float] = []
    for octave in reversed(range(OCTAVES)):
        ring = (frequency >= 0.25 / 2**octave) & (frequency < 0.5 / 2**octave)
        count = np.bincount(sector[ring], minlength=SECTORS)
        mean = np.bincount(sector[ring], power[ring], minlength=SECTORS)[count > 0] / count[count > 0]
        present = np.maximum(mean - noise, 0) + _ROUNDING
        bits = np.log2(present * (frequency[ring] ** 2).mean() / promised)
        # More than the octave below has cannot come from the same scene.
        most = min([float(np.median(bits)), *ratings[-1:], 0.0])
        ratings.append(float(np.clip(bits, WORST, most).mean()))
    return float(np.mean(ratings))


def _power(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The luma's power, its mean being the luma's variance [R, R]; frequencies in cycles per pixel [R, 1], [1, R]."""
    size = image.shape[1]
    luma = np.tensordot([0.299, 0.587, 0.114], image.astype(np.float64), axes=1)  # [R, R]
    taper = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2  # opposite borders do not fit together
    luma = (luma - luma.mean()) * np.outer(taper, taper)
    power = np.abs(np.fft.fft2(luma)) ** 2 / (taper**2).sum() ** 2
    frequency = np.fft.fftfreq(size)
    return power + _ROUNDING, frequency[:, None], frequency[None, :]
