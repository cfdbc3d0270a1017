import gzip
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from progan.data.formats.tfrecord import (
    crc32c,
    decode_example,
    encode_example,
    encode_record,
    read_record,
    record_offsets,
)
from progan.data.source import BadImageError
from progan.support.errors import DataError

GOLDEN = Path(__file__).parents[2] / "golden" / "tfrecords"


def slow_crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def message(number: int, *parts: bytes) -> bytes:
    """A short protobuf field that holds bytes."""
    value = b"".join(parts)
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def example(shape: bytes, data: bytes, names: tuple[bytes, bytes] = (b"shape", b"data")) -> bytes:
    """shape: a message Int64List; data: the pixels."""
    first = message(1, message(1, names[0]), message(2, message(3, shape)))
    second = message(1, message(1, names[1]), message(2, message(1, message(1, data))))
    return message(1, first, second)


def all_records(path: Path, **options) -> list[bytes]:
    offsets = record_offsets(path, **{"longest": 10**6, **options})
    return [read_record(path, start, end) for start, end in pairwise(offsets)]


@pytest.mark.parametrize(
    ("data", "crc"),  # RFC 3720, B.4, and the catalogue's check value
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_of_the_standard(data, crc):
    assert crc32c(data) == crc


def test_crc32c_of_every_length():
    data = np.random.default_rng(0).bytes(1000)
    for length in [*range(70), 255, 256, 257, 999, 1000]:
        assert crc32c(data[:length]) == slow_crc32c(data[:length]), length


@pytest.mark.parametrize("power", [2, 3, 4, 5])
def test_official_files_are_read_and_written_byte_for_byte(power):
    path = GOLDEN / f"faces-r0{power}.tfrecords"
    images = [decode_example(record) for record in all_records(path)]
    originals = np.load(GOLDEN.parent / "tfrecords_expected.npz")["images"]
    assert [image.shape for image in images] == [(3, 2**power, 2**power)] * 24
    if power == 5:
        assert np.array_equal(np.stack(images), originals)
    assert b"".join(encode_record(encode_example(image)) for image in images) == path.read_bytes()


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 128, 128), (1, 512, 512), (3, 1024, 1024)])
def test_any_size_comes_back(shape, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    (tmp_path / "f").write_bytes(encode_record(encode_example(image)))
    [record] = all_records(tmp_path / "f", longest=2**22)
    assert np.array_equal(decode_example(record), image)


def test_a_flipped_bit_in_any_byte_is_found_in_its_record(tmp_path):
    raw = (GOLDEN / "faces-r02.tfrecords").read_bytes()[: 98 * 3]
    path = tmp_path / "f"
    for position in range(98, 2 * 98):  # of the second of three records
        spoilt = bytearray(raw)
        spoilt[position] ^= 1 << position % 8
        path.write_bytes(spoilt)
        offsets = record_offsets(path, longest=1000)
        assert offsets.tolist() == [0, 98, 196, 294]
        region = "length" if position < 98 + 12 else "data"
        with pytest.raises(BadImageError, match=f"the checksum of its {region} is wrong"):
            read_record(path, 98, 196)
        assert read_record(path, 0, 98) == raw[12:94]
        assert read_record(path, 196, 294) == raw[208:290]


def test_only_as_many_records_as_asked_for(tmp_path):
    path = tmp_path / "f"
    path.write_bytes((GOLDEN / "faces-r02.tfrecords").read_bytes()[: 98 * 3 + 50])  # the fourth is cut short
    assert record_offsets(path, longest=1000, first=2).tolist() == [0, 98, 196]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n and so on", "is no TFRecord file"),
        (b"short", "is no TFRecord file"),
        (gzip.compress(b"anything at all", mtime=0), "unpack it with gunzip"),
        (
            encode_record(b"a" * 10) + encode_record(b"b" * 10)[:-1],
            "record 1 at byte 26 is cut short, .* ends at byte 51",
        ),
        (encode_record(b"a" * 10) + b"abc", "record 1 at byte 26 is cut short"),
        (encode_record(bytes(2000)), "record 0 at byte 0 takes 2,000 bytes, more than"),
        ((2**63).to_bytes(8, "little") + bytes.fromhex("00000000"), "is no TFRecord file"),
    ],
)
def test_files_that_are_not_whole(tmp_path, content, reason):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        record_offsets(tmp_path / "f", longest=1000)
    assert str(caught.value).startswith(str(tmp_path / "f"))


def test_a_length_beyond_all_files(tmp_path):
    header = (2**63 - 1).to_bytes(8, "little")
    crc = slow_crc32c(header)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    (tmp_path / "f").write_bytes(header + masked.to_bytes(4, "little") + bytes(4))
    with pytest.raises(DataError, match="more than an image of this file may have"):
        record_offsets(tmp_path / "f", longest=1000)


def test_a_file_that_shrinks_meanwhile(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(encode_record(b"a" * 10))
    with pytest.raises(BadImageError, match="cut short"):
        read_record(path, 0, 27)
    path.unlink()
    with pytest.raises(BadImageError, match="No such file"):
        read_record(path, 0, 26)
    with pytest.raises(DataError, match="No such file"):
        record_offsets(path, longest=10)


def test_examples_of_other_writers():
    """Unpacked numbers, features in any order, others beside them, unknown fields: all as protobuf allows."""
    pixels = bytes(range(4))
    packed, unpacked = message(1, b"\x01\x02\x02"), b"\x08\x01\x08\x02\x08\x02"
    swapped = message(
        1,
        message(1, message(2, message(1, message(1, pixels))), message(1, b"data")),
        message(1, message(1, b"label"), message(2, message(3, message(1, b"\x07")))),
        message(1, message(1, b"shape"), message(2, message(3, unpacked))),
    )
    unknown = b"\x78\x05" + message(9, b"abc") + b"\x4d1234" + b"\x4912345678"
    for record in (example(packed, pixels), example(unpacked, pixels), swapped, unknown + example(packed, pixels)):
        image = decode_example(record)
        assert image.shape == (1, 2, 2)
        assert image.tobytes() == pixels


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "no features shape and data"),
        (example(message(1, b"\x01\x02\x02"), bytes(4), (b"shape", b"image")), "no features shape and data"),
        (example(message(1, b"\x01\x02\x02"), bytes(5)), r"its shape \[1, 2, 2\] is not that of its 5 bytes"),
        (example(message(1, b"\x02\x02"), bytes(4)), r"its shape \[2, 2\]"),
        (example(message(1, b"\x01\x00\x00"), b""), "0 bytes of data"),
        (example(message(1, b"\xff" * 9 + b"\x01\x02\x02"), bytes(4)), "its shape"),  # -1
        (example(message(1, b"\x01\x02\x82"), bytes(4)), "a number does not end"),
        (b"\x0a\x7f" + bytes(5), "a field is longer than its message"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 20, "a number does not end"),
    ],
)
def test_records_that_hold_no_image(record, reason):
    with pytest.raises(BadImageError, match=reason):
        decode_example(record)


def test_no_bytes_at_all_lead_to_anything_but_an_image_or_a_reason():
    rng = np.random.default_rng(0)
    whole = example(message(1, b"\x01\x02\x02"), bytes(4))
    for _ in range(3000):
        record = bytearray(whole)
        for position in rng.integers(0, len(record), rng.integers(1, 4)):
            record[position] = rng.integers(0, 256)
        with suppress(BadImageError):
            assert decode_example(bytes(record[: rng.integers(1, len(record) + 1)])).ndim == 3
