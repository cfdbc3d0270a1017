import base64
import bz2
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from progan.data.celebahq.deltas import add_delta, decrypt_delta, delta_name, read_delta, zip_name
from progan.data.source import BadImageError

pytest.importorskip("cryptography", reason="decrypts deltas")

PHOTO, NAME = b"\xff\xd8 the bytes of a JPEG", "000123.jpg"


def noise(resolution: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, resolution, resolution), dtype=np.uint8)


def encrypt(packed: bytes, photo: bytes = PHOTO, name: str = NAME) -> bytes:
    """As the deltas were published, by the key derivation of another library than the one under test."""
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    key = PBKDF2HMAC(algorithm=SHA256(), length=32, salt=name.encode("ascii"), iterations=100_000).derive(photo)
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(packed)


def store(folder: Path, tokens: dict[int, bytes]) -> None:
    for idx, token in tokens.items():
        with zipfile.ZipFile(folder / zip_name(idx), "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(delta_name(idx), token)


def test_names_are_the_published_ones():
    assert [zip_name(idx) for idx in (0, 999, 1000, 29_999)] == [
        "deltas00000.zip",
        "deltas00000.zip",
        "deltas01000.zip",
        "deltas29000.zip",
    ]
    assert [delta_name(idx) for idx in (0, 29_999)] == ["delta00000.dat", "delta29999.dat"]


@pytest.mark.parametrize("resolution", [64, 1024])
def test_a_delta_in_the_published_format(tmp_path, resolution):
    delta = noise(resolution)
    store(tmp_path, {1007: encrypt(bz2.compress(delta.tobytes())), 1008: b"another"})
    token = read_delta(tmp_path, 1007, resolution=resolution)
    assert np.array_equal(decrypt_delta(token, PHOTO, NAME, resolution=resolution), delta)


def test_photo_and_name_are_the_key():
    token = encrypt(bz2.compress(noise(4).tobytes()))
    assert np.array_equal(decrypt_delta(token, PHOTO, NAME, resolution=4), noise(4))
    for photo, name in ((PHOTO + b"!", NAME), (PHOTO, "000124.jpg"), (b"", NAME)):
        with pytest.raises(BadImageError, match=f"{name} is not the JPEG that its delta was encrypted with"):
            decrypt_delta(token, photo, name, resolution=4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda token: token[:-40],
        lambda token: token[:50] + (b"B" if token[50:51] == b"A" else b"A") + token[51:],  # never what stood there
        lambda token: b"",
        lambda token: b"\xff",
    ],
)
def test_a_damaged_token(damage):
    token = damage(encrypt(bz2.compress(noise(4).tobytes())))
    with pytest.raises(BadImageError, match="or the delta is damaged"):
        decrypt_delta(token, PHOTO, NAME, resolution=4)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"not packed at all", "is no bz2 data"),
        (b"", "unpacks to 0 bytes instead of 48"),
        (bz2.compress(bytes(47)), "unpacks to 47 bytes instead of 48"),
        (bz2.compress(bytes(49)), "unpacks to more than 48 bytes instead of 48"),
        (bz2.compress(noise(4).tobytes())[:-20], "unpacks to 0 bytes instead of 48"),
    ],
)
def test_a_token_that_holds_no_delta(packed, reason):
    with pytest.raises(BadImageError, match=reason):
        decrypt_delta(encrypt(packed), PHOTO, NAME, resolution=4)


def test_a_bomb_is_not_unpacked():
    token = encrypt(bz2.compress(bytes(10**8)))
    tracemalloc.start()
    try:
        with pytest.raises(BadImageError, match="unpacks to more than 48 bytes instead of 48"):
            decrypt_delta(token, PHOTO, NAME, resolution=4)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_deltas_that_cannot_be_read(tmp_path):
    store(tmp_path, {0: b"first", 1000: b"A" * 5000, 2000: b"flipped" * 20, 3000: b""})
    whole = bytearray((tmp_path / zip_name(2000)).read_bytes())
    whole[len("delta02000.dat") + 30 + 3] ^= 0xFF  # in the packed bytes, behind the header of 30 bytes and the name
    (tmp_path / zip_name(2000)).write_bytes(whole)
    (tmp_path / zip_name(3000)).write_bytes(b"<html>too many downloads</html>")
    (tmp_path / zip_name(4000)).mkdir()
    reasons = {
        1: r"delta00001\.dat is not in deltas00000\.zip; download deltas00000\.zip again",
        1000: r"delta01000\.dat in deltas01000\.zip is larger than a delta can be",
        2000: r"delta02000\.dat cannot be read from deltas02000\.zip \(.*\); download deltas02000\.zip again",
        3000: r"cannot be read from deltas03000\.zip \(File is not a zip file\)",
        4000: r"cannot be read from deltas04000\.zip",
        5000: r"deltas05000\.zip is missing; download it",
    }
    assert read_delta(tmp_path, 0, resolution=4) == b"first"
    for idx, reason in reasons.items():
        with pytest.raises(BadImageError, match=reason):
            read_delta(tmp_path, idx, resolution=4)


def test_the_largest_delta_there_can_be_is_read(tmp_path):
    token = encrypt(bz2.compress(noise(64).tobytes()))
    assert len(token) > 1.3 * 3 * 64**2
    store(tmp_path, {0: token})
    assert read_delta(tmp_path, 0, resolution=64) == token


@pytest.fixture
def published() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A processed photograph with much black and white, its delta and the image they make."""
    rng = np.random.default_rng(0)
    processed = (rng.integers(-80, 336, (3, 64, 64))).clip(0, 255)
    image = (processed + rng.integers(-60, 60, processed.shape)).clip(0, 255)
    image[0, 0, :2], processed[0, 0, :2] = (220, 30), (20, 200)  # differences beyond a signed byte
    return processed.astype(np.uint8), ((image - processed) % 256).astype(np.uint8), image


def test_the_very_photograph_gives_the_very_image(published):
    processed, delta, image = published
    assert np.array_equal(add_delta(processed, delta, clip=False), image)
    assert np.array_equal(add_delta(processed, delta, clip=True), image)


def test_a_photograph_decoded_a_little_differently_turns_no_white_to_black(published):
    processed, delta, image = published
    off = (processed + np.random.default_rng(1).integers(-4, 5, processed.shape)).clip(0, 255).astype(np.uint8)
    assert np.abs(add_delta(off, delta, clip=True).astype(int) - image).max() <= 4
    assert np.abs(add_delta(off, delta, clip=False).astype(int) - image).max() > 200  # what plain addition does
