"""TFRecord files of images as the official TensorFlow tools write them, read and written without TensorFlow.

A file is a row of records; each is its length (uint64), the checksum of that length, its data and the checksum of
the data, all little-endian. The data are a `tf.train.Example`, a protobuf message with two features: `shape`, three
int64 C, H, W, and `data`, the pixels as uint8 in that order.
"""

import math
import os
from array import array
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import count
from pathlib import Path

import numpy as np

from progan.data.source import BadImageError
from progan.support.errors import DataError
from progan.support.plain_files import open_plain

MOST_BAD = 1000  # in a row: what follows is no row of records
HEADER_BYTES, FOOTER_BYTES = 12, 4  # around the data of every record

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bit-reversed
# CRC-32C starts from a register of ones. Starting from zeros and reading these four bytes first comes to the same.
_START = bytes.fromhex("54641f64")


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720) of `data`, 0 <= crc < 2**32.

    The checksum is linear, so pairs of words are combined, then pairs of pairs: the left half of each pair is moved
    over the zeros that its right half's place takes, for all pairs at once.
    """
    words = np.frombuffer(bytes(-len(data) % 4) + _START + data, "<u4")  # zeros in front change nothing
    for level in count():
        if len(words) == 1:
            break
        if len(words) % 2:
            words = np.concatenate((np.zeros(1, np.uint32), words))
        words = _move(words[0::2], _over_zeros(level)) ^ words[1::2]
    return int(_move(words, _over_zeros(0))[0]) ^ 0xFFFFFFFF


def _move(registers: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Apply a linear map, given by what it makes of each byte ([4, 256]), to every register (uint32)."""
    octets = np.ascontiguousarray(registers).view(np.uint8).reshape(*registers.shape, 4)
    moved: np.ndarray = (
        table[0][octets[..., 0]] ^ table[1][octets[..., 1]] ^ table[2][octets[..., 2]] ^ table[3][octets[..., 3]]
    )
    return moved


@cache
def _over_zeros(level: int) -> np.ndarray:
    """The map that reads 4 * 2**level zero bytes: uint32 [4, 256], from byte k of the register and its value."""
    if level > 0:
        half = _over_zeros(level - 1)
        return _move(half, half)
    table = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)  # [4, 256]
    for _ in range(32):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


def _checksum(data: bytes) -> bytes:
    """CRC-32C as the format stores it: rotated and shifted, since checksums of checksums are weak."""
    crc = crc32c(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


_length_checksum = lru_cache(maxsize=256)(_checksum)  # records of one file are mostly of one length


def encode_record(data: bytes) -> bytes:
    """One record as it stands in a file."""
    length = len(data).to_bytes(8, "little")
    return b"".join((length, _length_checksum(length), data, _checksum(data)))


def record_offsets(path: Path, *, longest: int, first: int | None = None) -> "array[int]":
    """Where every record of a file starts and, as the last entry, where the last one ends, by the lengths alone.

    Only the `first` records are looked for, all by default. A length with a wrong checksum is taken to be that of
    the record before it, since images of one shape are records of one length; `read_record` will report it.
    Raises DataError for a file that is compressed, empty, cut short or no TFRecord file, for a record of more than
    `longest` bytes, and where MOST_BAD lengths in a row are wrong.
    """
    offsets = array("q", [0])
    length, bad = -1, 0
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            while offsets[-1] < size and (first is None or len(offsets) <= first):
                where = f"{path}: record {len(offsets) - 1} at byte {offsets[-1]:,}"
                file.seek(offsets[-1])
                header = file.read(HEADER_BYTES)
                if len(header) == HEADER_BYTES and _length_checksum(header[:8]) == header[8:]:
                    length, bad = int.from_bytes(header[:8], "little"), 0
                elif length < 0:
                    raise DataError(_no_records(path, header))
                elif (bad := bad + 1) == MOST_BAD:
                    raise DataError(f"{where} is one of {bad} in a row that are damaged; copy or download it again")
                if length > longest:
                    raise DataError(f"{where} takes {length:,} bytes, more than an image of this file may have")
                offsets.append(offsets[-1] + HEADER_BYTES + length + FOOTER_BYTES)
                if offsets[-1] > size:
                    raise DataError(f"{where} is cut short, the file ends at byte {size:,}; copy or download it again")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); mend its permissions or copy it again") from error
    if size == 0:
        raise DataError(f"{path}: is empty; copy or download it again")
    return offsets


def read_record(path: Path, start: int, end: int) -> bytes:
    """The data of the record that lies at bytes start..end. Raises BadImageError when a checksum is wrong."""
    try:
        with open_plain(path) as file:
            file.seek(start)
            record = file.read(end - start)
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror})") from error
    length, length_checksum, data = record[:8], record[8:HEADER_BYTES], record[HEADER_BYTES:-FOOTER_BYTES]
    if len(record) != end - start:
        raise BadImageError("the file was cut short")
    if _length_checksum(length) != length_checksum or int.from_bytes(length, "little") != len(data):
        raise BadImageError("the checksum of its length is wrong")
    if _checksum(data) != record[-FOOTER_BYTES:]:
        raise BadImageError("the checksum of its data is wrong")
    return data


def encode_example(image: np.ndarray) -> bytes:
    """The `tf.train.Example` of an image, uint8 [C, H, W]; byte for byte what the official tool makes."""
    shape = _field(1, b"".join(map(_varint, image.shape)))  # Int64List, packed
    data = _field(1, image.tobytes())  # BytesList
    return _field(1, _feature(b"shape", _field(3, shape)) + _feature(b"data", _field(1, data)))


def decode_example(record: bytes) -> np.ndarray:
    """The image, uint8 [C, H, W], of a `tf.train.Example`. Raises BadImageError if it holds none."""
    features: dict[bytes, memoryview] = {}
    for part in _messages(memoryview(record), 1):
        for entry in _messages(part, 1):
            features |= {bytes(name): feature for name in _messages(entry, 1) for feature in _messages(entry, 2)}
    if not {b"shape", b"data"} <= features.keys():
        raise BadImageError("it has no features shape and data, so the official tools did not write it")
    shape = [number for numbers in _messages(features[b"shape"], 3) for number in _integers(numbers)]
    data = b"".join(value for values in _messages(features[b"data"], 1) for value in _messages(values, 1))
    if len(shape) != 3 or math.prod(shape) != len(data) or not data:
        raise BadImageError(f"its shape {shape[:4]} is not that of its {len(data):,} bytes of data")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _no_records(path: Path, header: bytes) -> str:
    if header[:2] == b"\x1f\x8b":
        return f"{path}: is compressed; unpack it with gunzip first"
    return f"{path}: is no TFRecord file, the checksum at its start is wrong; copy or download it again"


def _feature(name: bytes, value: bytes) -> bytes:
    """One entry of the map from names to features."""
    return _field(1, _field(1, name) + _field(2, value))


def _field(number: int, value: bytes) -> bytes:
    """A protobuf field that holds bytes, a string or a message (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    """Seven bits per byte, the lowest first; the top bit says that more follow."""
    head = bytearray()
    while number > 127:
        head.append(number & 127 | 128)
        number >>= 7
    return bytes([*head, number])


def _messages(message: memoryview, number: int) -> list[memoryview]:
    """What the fields of this number hold, those that hold bytes."""
    return [value for found, value in _fields(message) if found == number and isinstance(value, memoryview)]


def _integers(message: memoryview) -> Iterator[int]:
    """The numbers of an Int64List, packed or one by one."""
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            yield value
        elif number == 1 and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                integer, at = _read_varint(value, at)
                yield integer


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field; fixed-size ones (wire types 1 and 5) are passed over."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            yield key >> 3, value
        elif kind == 2:
            size, at = _read_varint(message, at)
            if size > len(message) - at:
                raise BadImageError("it is no tf.train.Example (a field is longer than its message)")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise BadImageError(f"it is no tf.train.Example (wire type {kind})")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at byte `at`, and where the next thing starts."""
    number = 0
    for index, byte in enumerate(message[at : at + 10]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, at + index + 1
    raise BadImageError("it is no tf.train.Example (a number does not end)")
