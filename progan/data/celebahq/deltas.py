"""The official deltas: what to add to a plainly aligned photograph to get its CelebA-HQ image.

A delta can be read only by someone who has the photograph: the key is derived from the JPEG file's bytes.
"""

import base64
import bz2
import hashlib
from pathlib import Path

import numpy as np

from progan.data.pictures.tree import open_zip
from progan.data.source import BadImageError
from progan.support.errors import printable

DELTAS_PER_ZIP = 1000
ROUNDS = 100_000  # of the key derivation
OFF = 16  # gray levels by which decoders and resizers of other versions differ at most


def zip_name(idx: int) -> str:
    """The zip that holds the delta of image `idx`."""
    return f"deltas{idx - idx % DELTAS_PER_ZIP:05d}.zip"


def delta_name(idx: int) -> str:
    """The delta of image `idx` inside its zip."""
    return f"delta{idx:05d}.dat"


def read_delta(folder: Path, idx: int, *, resolution: int = 1024) -> bytes:
    """The encrypted delta of image `idx` from the zips in `folder`.

    Raises BadImageError when the zip or the delta in it is missing, damaged, or larger than a delta can be.
    """
    name, member = zip_name(idx), delta_name(idx)
    try:
        archive = open_zip(folder / name)
        # Pixels that cannot be compressed grow by a third in Fernet's base64, and hardly in bz2.
        if archive.getinfo(member).file_size > 2 * 3 * resolution**2 + 4096:
            raise BadImageError(f"{member} in {name} is larger than a delta can be; download {name} again")
        return archive.read(member)
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError(f"{name} is missing; download it") from None
    except KeyError:
        raise BadImageError(f"{member} is not in {name}; download {name} again") from None
    except Exception as error:  # no zip, encrypted, an unknown compression, a wrong checksum: each has its own
        raise BadImageError(
            f"{member} cannot be read from {name} ({printable(error)}); download {name} again"
        ) from None


def decrypt_delta(token: bytes, photo: bytes, name: str, *, resolution: int = 1024) -> np.ndarray:
    """The delta as uint8 [3, resolution, resolution], to be added modulo 256.

    token: as `read_delta` returns it. photo: the original JPEG file's bytes, the password. name: that file's name in
    CelebA, the salt. Raises BadImageError when they do not belong together and when what comes out is no delta.
    """
    from cryptography.fernet import Fernet, InvalidToken

    key = hashlib.pbkdf2_hmac("sha256", photo, name.encode("ascii"), ROUNDS, 32)
    try:
        packed = Fernet(base64.urlsafe_b64encode(key)).decrypt(token)
    except InvalidToken:
        raise BadImageError(
            f"{name} is not the JPEG that its delta was encrypted with, or the delta is damaged"
        ) from None
    size = 3 * resolution**2
    try:
        pixels = bz2.BZ2Decompressor().decompress(packed, size + 1)  # never more, whatever a file says
    except (OSError, ValueError) as error:
        raise BadImageError(f"its delta is no bz2 data ({printable(error)})") from None
    if len(pixels) != size:
        size_told = f"more than {size:,}" if len(pixels) > size else f"{len(pixels):,}"
        raise BadImageError(f"its delta unpacks to {size_told} bytes instead of {size:,}")
    return np.frombuffer(pixels, np.uint8).reshape(3, resolution, resolution)


def add_delta(processed: np.ndarray, delta: np.ndarray, *, clip: bool = False) -> np.ndarray:
    """The image: the sum modulo 256; all uint8 [3, R, R].

    processed: the plainly aligned photograph. With `clip` a sum that passes the end of the range by no more than OFF
    is cut off there instead: where the photograph is off by a few gray levels, as every current decoder makes it,
    plain addition turns white to black and black to white.
    """
    if not clip:
        return processed + delta
    total = processed.astype(np.int16) + delta.astype(np.int8)
    near = (total >= -OFF) & (total <= 255 + OFF)
    return np.where(near, total.clip(0, 255), total % 256).astype(np.uint8)
