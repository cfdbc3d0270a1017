"""LMDB files, read without LMDB: its library maps the file and trusts it, so a damaged one ends the process.

A file is a row of pages of one size. The first two say which page is the root of the newest tree, each of every second
writing. Branch pages lead to other pages, leaf pages to records, in the order of the keys; a value that is too long
for a leaf has overflow pages to itself. All numbers are little-endian.
"""

import struct
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from progan.data.source import BadImageError
from progan.support.errors import DataError
from progan.support.plain_files import open_plain

HEADER_BYTES = 16  # of every page: its number, 2 bytes, flags, and where the free space in it begins and ends
MOST_VALUE_BYTES = 2**29
AGAIN = "unpack or download it again"

_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8  # flags of a page
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_DEEPEST = 32  # levels of a tree, as in LMDB
_META_FIELDS = struct.Struct("<IIQQ" + 2 * "IHHQQQQQ" + "QQ")
_ELSEWHERE = 1  # flag of a node: the value has pages to itself


class Tree(NamedTuple):
    """What a file says about its records. page_bytes: size of a page; root: number of the first, None if empty."""

    entries: int
    page_bytes: int
    root: int | None
    pages: int


class Record(NamedTuple):
    """Where a value lies: `length` bytes from byte `start` on; page: the first of its own, None for one in a leaf."""

    key: bytes
    start: int
    length: int
    page: int | None


def read_tree(path: Path) -> Tree:
    """The newest state of the file; raises DataError when it is no LMDB, cut short or of another kind."""
    try:
        with open_plain(path) as file:
            size = file.seek(0, 2)
            first = _read_meta(file, 0)
            if first is None:
                raise DataError(f"{path}: cannot be opened as an LMDB (MDB_INVALID: it does not begin as one); {AGAIN}")
            metas = [meta for meta in (first, _read_meta(file, first[1].page_bytes)) if meta is not None]
    except OSError as error:
        raise DataError(f"{path}: cannot be opened as an LMDB ({error.strerror}); {AGAIN}") from error
    tree = max(metas, key=itemgetter(0))[1]
    promised = tree.pages * tree.page_bytes
    if size < promised:
        raise DataError(f"{path}: {size:,} bytes, but it was written with {promised:,}; {AGAIN}")
    return tree


def records(path: Path, tree: Tree) -> Iterator[Record]:
    """Every record in the order of the keys, by the index alone; raises DataError where that is damaged."""
    left, before = tree.pages, None
    try:
        with open_plain(path) as file:
            stack = [] if tree.root is None else [iter((tree.root,))]
            while stack:
                number = next(stack[-1], None)
                if number is None:
                    stack.pop()
                    continue
                left -= 1
                if left < 0 or len(stack) > _DEEPEST:
                    raise ValueError("it leads in circles")
                page = _read_page(file, number, tree)
                if page.flags == _BRANCH:
                    stack.append(iter(_children(page)))
                    continue
                for record in _leaf_records(page, number * tree.page_bytes, tree):
                    if before is not None and record.key <= before:
                        raise ValueError("its keys are in no order")
                    before = record.key
                    yield record
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{path}: its index is damaged ({error}); {AGAIN}") from error


def read_value(path: Path, record: Record) -> bytes:
    """The value of a record. Raises BadImageError when it is not where the index says."""
    head = 0 if record.page is None else HEADER_BYTES
    if record.length > MOST_VALUE_BYTES:
        raise BadImageError(f"has {record.length:,} bytes, more than any picture")
    try:
        with open_plain(path) as file:
            file.seek(record.start - head)
            content = file.read(head + record.length)
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror})") from error
    if len(content) < head + record.length:
        raise BadImageError("the file was cut short")
    if record.page is not None and _page_header(content) != (record.page, _OVERFLOW):
        raise BadImageError("is not where the index says")
    return content[head:]


class _Page(NamedTuple):
    flags: int
    nodes: tuple[int, ...]  # where in the page each begins
    content: bytes


def _page_header(content: bytes) -> tuple[int, int]:
    number, _, flags = struct.unpack_from("<QHH", content)
    return number, flags


def _read_meta(file: BinaryIO, at: int) -> tuple[int, Tree] | None:
    """One of the two states: the number of its writing and what it says; None if it is damaged."""
    file.seek(at)
    content = file.read(HEADER_BYTES + _META_FIELDS.size)
    if len(content) < HEADER_BYTES + _META_FIELDS.size:
        return None
    fields = _META_FIELDS.unpack_from(content, HEADER_BYTES)
    magic, version, page_bytes = fields[0], fields[1], fields[4]
    flags, _, _, _, _, entries, root, last, writing = fields[13:22]
    sound = magic == _MAGIC and version == _VERSION and _page_header(content)[1] & _META
    if not sound or page_bytes not in (1 << power for power in range(8, 17)) or flags or entries > last * page_bytes:
        return None
    return writing, Tree(entries, page_bytes, None if root == 2**64 - 1 else root, last + 1)


def _read_page(file: BinaryIO, number: int, tree: Tree) -> _Page:
    if not 2 <= number < tree.pages:
        raise ValueError(f"there is no page {number}")
    file.seek(number * tree.page_bytes)
    content = file.read(tree.page_bytes)
    found, flags = _page_header(content)
    lower, upper = struct.unpack_from("<HH", content, 12)
    if found != number or flags not in (_BRANCH, _LEAF) or not HEADER_BYTES <= lower <= upper <= len(content):
        raise ValueError(f"page {number} is no page of an index")
    return _Page(flags, struct.unpack_from(f"<{(lower - HEADER_BYTES) // 2}H", content, HEADER_BYTES), content)


def _children(page: _Page) -> list[int]:
    numbers = []
    for at in page.nodes:
        low, middle, high = struct.unpack_from("<HHH", page.content, at)
        numbers.append(low | middle << 16 | high << 32)
    return numbers


def _leaf_records(page: _Page, start: int, tree: Tree) -> Iterator[Record]:
    for at in page.nodes:
        length, flags, key_bytes = struct.unpack_from("<IHH", page.content, at)
        value = at + 8 + key_bytes
        end = value + (8 if flags & _ELSEWHERE else length)
        if flags not in (0, _ELSEWHERE) or end > len(page.content):
            raise ValueError(f"a record at byte {start + at} makes no sense")
        key = page.content[at + 8 : value]
        if not flags:
            yield Record(key, start + value, length, None)
            continue
        (number,) = struct.unpack_from("<Q", page.content, value)
        if not number * tree.page_bytes + HEADER_BYTES + length <= tree.pages * tree.page_bytes:
            raise ValueError(f"a record at byte {start + at} lies outside the file")
        yield Record(key, number * tree.page_bytes + HEADER_BYTES, length, number)
