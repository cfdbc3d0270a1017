"""Pictures that look alike: a hash of the coarse shapes finds candidates, a small thumbnail decides."""

from collections import defaultdict

import numpy as np
from PIL import Image

HASH_DISTANCE = 3  # of the 64 bits
THUMB_SIDE = 8
THUMB_DISTANCE = 8.0  # RMS over the thumbnail's pixels and channels, of 255
MAX_COMPARED = 64  # pictures of the same hash, or of hashes within the distance

_BANDS = HASH_DISTANCE + 1  # so that of two hashes within the distance at least one band is equal
_BAND_BITS = 64 // _BANDS


def shapes_and_thumb(picture: Image.Image) -> tuple[int, bytes]:
    """A 64-bit perceptual hash and a thumbnail (uint8 [8, 8, 3]) of a picture of mode L or RGB.

    Bit by bit the hash says where the gray picture, at 9x8 pixels, grows brighter to the right; scaling and
    recompression turn over few of them or none.
    """
    gray = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BILINEAR))
    bits = np.packbits(gray[:, 1:] > gray[:, :-1])  # [8, 8]
    thumb = picture.convert("RGB").resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    return int.from_bytes(bits.tobytes(), "big"), thumb.tobytes()


def near_groups(hashes: np.ndarray, thumbs: np.ndarray) -> np.ndarray:
    """Which pictures look alike: for each the index of the first of its group, its own if it is alone or the first.

    hashes: uint64 [n]; thumbs: uint8 [n, k]. Two pictures are alike when at most 3 bits of their hashes and, on
    average, 8 of 255 levels of their thumbnails differ; a group holds all that are linked by such pairs. Pairs are
    sought only among hashes that share 16 of their bits, and of very many alike a picture is compared with some, so
    that the time is near-linear in n.
    """
    parents = list(range(len(hashes)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    def join(i: int, others: np.ndarray) -> None:
        for other in others[_alike(thumbs[i], thumbs[others])].tolist():
            first, second = sorted((root(i), root(other)))
            parents[second] = first

    same: dict[int, list[int]] = defaultdict(list)  # hash -> the first pictures that have it
    for i, code in enumerate(hashes.tolist()):
        join(i, np.array(same[code], np.int64))
        if len(same[code]) < MAX_COMPARED:
            same[code].append(i)
    kept = np.array(sorted(i for some in same.values() for i in some), np.int64)
    for band in range(_BANDS):
        keys = hashes[kept] >> np.uint64(band * _BAND_BITS) & np.uint64(2**_BAND_BITS - 1)
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(kept[order], np.flatnonzero(np.diff(keys[order])) + 1):
            codes = hashes[bucket]
            for place in range(len(bucket) - 1):
                bits = np.bitwise_count(codes[place + 1 :] ^ codes[place])
                close = np.flatnonzero((bits > 0) & (bits <= HASH_DISTANCE))[:MAX_COMPARED]
                if len(close):
                    join(int(bucket[place]), bucket[place + 1 + close])
    return np.array([root(i) for i in range(len(hashes))], np.int64)


def _alike(thumb: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Indices of the `others` (uint8 [m, k]) that differ little from `thumb` (uint8 [k])."""
    differences = others.astype(np.float32) - thumb
    return np.flatnonzero(np.square(differences).mean(axis=1) <= THUMB_DISTANCE**2)
