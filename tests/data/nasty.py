"""A folder of everything that was ever called a picture, and what must become of each file.

The expected pixels are stated from the formats' specifications, not by reading the files back; most PNG, BMP and TIFF
files are written byte by byte, so that no library's idea of them comes in.
"""

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

SIDE = 16


@dataclass(frozen=True)
class Nasty:
    """A file. kinds: what the doctor must find. pixels: int [3, H, W] that it shows, None if it may not be used.

    tolerance: levels by which a pixel may be off, for lossy formats and rounding. ignored: not even looked at.
    """

    name: str
    kinds: frozenset[str] = frozenset()
    pixels: np.ndarray | None = None
    tolerance: int = 0
    ignored: bool = False


def build(folder: Path) -> list[Nasty]:
    """Fill the empty folder; the same files every time."""
    making = _Making(folder)
    for part in (_png, _tiff, _other_formats, _turned, _damaged, _sizes, _names, _copies, _no_files):
        part(making)
    return making.all


def quilt(seed: int, shape: tuple[int, ...] = (3,), highest: int = 255) -> np.ndarray:
    """16 patches of 4x4 pixels, each of a colour of its own: int [*shape, 16, 16], 0..highest."""
    patches = np.random.default_rng(seed).integers(0, highest + 1, (*shape, 4, 4))
    return patches.repeat(4, axis=-2).repeat(4, axis=-1)


def png_chunk(kind: bytes, data: bytes, checked: bytes | None = None) -> bytes:
    """`checked`: the data that the checksum is made of, if others than those written."""
    checksum = zlib.crc32(kind + (data if checked is None else checked))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(
    values: np.ndarray, colour: int, depth: int = 8, before: tuple[bytes, ...] = (), after: tuple[bytes, ...] = ()
) -> bytes:
    """Write int [C, H, W] with all the numbers of a pixel in `depth` bits; `before`, `after`: chunks around IDAT."""
    height, width = values.shape[1:]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", head), *before, png_chunk(b"IDAT", _packed(values, depth)), *after)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def tiff(
    values: np.ndarray, kind: str, photometric: int, order: str = "<", extra: dict[int, list[int]] | None = None
) -> bytes:
    """Write [C, H, W] as one strip of numbers of the NumPy type `kind`; `extra`: more tags, shorts."""
    channels, height, width = values.shape
    data = values.transpose(1, 2, 0).astype(order + kind).tobytes()
    return tiff_strip(data, width, height, [np.dtype(kind).itemsize * 8] * channels, photometric, order, extra)


def tiff_strip(
    data: bytes,
    width: int,
    height: int,
    bits: list[int],
    photometric: int,
    order: str = "<",
    extra: dict[int, list[int]] | None = None,
) -> bytes:
    tags: dict[int, list[int]] = {256: [width], 257: [height], 258: bits, 259: [1], 262: [photometric], 273: [0]}
    tags |= {277: [len(bits)], 278: [height], 279: [len(data)]} | (extra or {})
    at = 8 + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag in sorted(tags):
        long = tag in (273, 279)
        numbers = [at + sum(len(bits) * 2 for bits in tags.values() if len(bits) * 2 > 4)] if tag == 273 else tags[tag]
        packed = struct.pack(f"{order}{len(numbers)}{'I' if long else 'H'}", *numbers)
        if len(packed) > 4:
            tail += packed
            packed = struct.pack(order + "I", at + len(tail) - len(packed))
        entries += struct.pack(order + "HHI", tag, 4 if long else 3, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    return head + entries + bytes(4) + tail + data


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """colours: [3, H, W], alpha: [H, W], 0..255."""
    return np.rint(colours * (alpha / 255) + 255 * (1 - alpha / 255)).astype(int)


def turned(stored: np.ndarray, orientation: int) -> np.ndarray:
    """What is seen of [C, n, n] stored with an EXIF orientation: the standard says where row and column 0 are."""
    row_side, column_side = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    seen = np.zeros_like(stored)
    last = stored.shape[-1] - 1
    for row in range(last + 1):
        for column in range(last + 1):
            place = {row_side: row, column_side: column}
            y = place["top"] if "top" in place else last - place["bottom"]
            x = place["left"] if "left" in place else last - place["right"]
            seen[:, y, x] = stored[:, row, column]
    return seen


def rgb_of_lab(stored: np.ndarray) -> np.ndarray:
    """CIE L*a*b* with white D50, as TIFF stores it (L 0..255, a and b signed), -> sRGB, [3, H, W]."""
    lightness = stored[0] * 100 / 255
    a, b = ((stored[i] + 128) % 256 - 128 for i in (1, 2))
    y = (lightness + 16) / 116
    roots = np.stack([y + a / 500, y, y - b / 200])
    white = np.array([0.9642, 1.0, 0.8249])[:, None, None]
    xyz = white * np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    # sRGB's primaries, adapted from D65 to D50 by Bradford's method
    matrix = [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    linear = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), xyz).clip(0, 1)
    return np.rint(255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)).astype(int)


class _Making:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Nasty] = []
        self._seed = 0

    def quilt(self, *shape: int, highest: int = 255) -> np.ndarray:
        """One that no other file shows."""
        self._seed += 1
        return quilt(self._seed, shape or (3,), highest)

    def add(
        self,
        name: str,
        data: bytes,
        *kinds: str,
        pixels: np.ndarray | None = None,
        tolerance: int = 0,
        ignored: bool = False,
    ) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(data)
        self.told(name, *kinds, pixels=pixels, tolerance=tolerance, ignored=ignored)

    def told(self, name: str, *kinds: str, pixels: np.ndarray | None = None, tolerance=0, ignored=False) -> None:
        if pixels is not None and pixels.shape[0] == 1:
            pixels = pixels.repeat(3, axis=0)
        self.all.append(Nasty(name, frozenset(kinds), pixels, tolerance, ignored))


def _packed(values: np.ndarray, depth: int) -> bytes:
    """PNG's scan lines: a filter byte (none), then the numbers, the most significant bit first."""
    rows = []
    for row in values.transpose(1, 2, 0).reshape(values.shape[1], -1):
        bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows.append(b"\0" + np.packbits(bits.astype(np.uint8)).tobytes())
    return zlib.compress(b"".join(rows))


def _picture(values: np.ndarray, mode: str | None = None) -> Image.Image:
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0).astype(np.uint8))
    return Image.frombytes(mode or {1: "L", 3: "RGB", 4: "RGBA"}[len(values)], pixels.shape[1::-1], pixels.tobytes())


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def _png(making: _Making) -> None:
    for depth in (1, 2, 4, 8, 16):
        values = making.quilt(1, highest=2**depth - 1)
        kinds = ["mode"] if depth in (1, 16) else []
        seen = np.rint(values * 255 / (2**depth - 1)).astype(int)
        making.add(f"gray{depth}.png", png(values, 0, depth), *kinds, pixels=seen)
    for depth in (1, 2, 4, 8):
        indices = making.quilt(1, highest=2**depth - 1)
        palette = np.random.default_rng(depth).integers(0, 256, (2**depth, 3))
        colours = png_chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        seen = palette[indices[0]].transpose(2, 0, 1)
        making.add(f"palette{depth}.png", png(indices, 3, depth, (colours,)), "mode", pixels=seen)
        if depth == 8:
            alphas = np.random.default_rng(9).integers(0, 256, 256)
            clear = png_chunk(b"tRNS", alphas.astype(np.uint8).tobytes())
            seen = over_white(seen, alphas[indices[0]])
            data = png(indices, 3, depth, (colours, clear))
            making.add("palette_clear.png", data, "mode", "transparent", pixels=seen, tolerance=1)
    colours = making.quilt()
    making.add("rgb.png", png(colours, 2), pixels=colours)
    key = png_chunk(b"tRNS", struct.pack(">HHH", *colours[:, 0, 0]))
    seen = np.where((colours == colours[:, :1, :1]).all(axis=0), 255, colours)
    colours_key = png(colours, 2, before=(key,))
    making.add("rgb_key.png", colours_key, "transparent", pixels=seen)
    for name, channels, colour in (("gray_alpha", 2, 4), ("rgba", 4, 6)):
        for depth in (8, 16):
            values = making.quilt(channels, highest=2**depth - 1)
            values[-1, 8:] = 2**depth - 1
            eight = values * 255 / (2**depth - 1)
            kinds = ["transparent"] + ["mode"] * (depth == 16)
            seen = over_white(eight[:-1], eight[-1])
            making.add(f"{name}{depth}.png", png(values, colour, depth), *kinds, pixels=seen, tolerance=2)
    deep = making.quilt(highest=2**16 - 1)
    # Pillow keeps the upper byte of 16-bit colours: at most one level below what was rounded.
    making.add("rgb16.png", png(deep, 2, 16), "mode", pixels=np.rint(deep / 257).astype(int), tolerance=1)
    colours = making.quilt()
    gamma = png_chunk(b"gAMA", struct.pack(">I", 100_000))
    making.add("gamma.png", png(colours, 2, before=(gamma,)), "profile", pixels=colours)
    colours = making.quilt()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(lab))
    making.add("profile.png", png(colours, 2, before=(profile,)), "profile", pixels=colours)
    colours = making.quilt()
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(rgb))
    making.add("srgb.png", png(colours, 2, before=(profile,)), pixels=colours)
    first, second = making.quilt(), making.quilt()
    frame = struct.pack(">IIIIHHBB", SIDE, SIDE, 0, 0, 1, 10, 0, 0)
    before = (png_chunk(b"acTL", struct.pack(">II", 2, 0)), png_chunk(b"fcTL", bytes(4) + frame))
    after = (
        png_chunk(b"fcTL", struct.pack(">I", 1) + frame),
        png_chunk(b"fdAT", struct.pack(">I", 2) + _packed(second, 8)),
    )
    making.add("film.png", png(first, 2, before=before, after=after), "animated", pixels=first)


def _tiff(making: _Making) -> None:
    for order, name in (("<", "little"), (">", "big")):
        deep = making.quilt(1, highest=2**16 - 1)
        seen = np.rint(deep / 257).astype(int)
        making.add(f"gray16_{name}.tiff", tiff(deep, "u2", 1, order), "mode", pixels=seen)
        deep = making.quilt(highest=2**16 - 1)
        seen = np.rint(deep / 257).astype(int)
        making.add(f"rgb16_{name}.tiff", tiff(deep, "u2", 2, order), "mode", pixels=seen, tolerance=1)
    gray = making.quilt(1)
    making.add("white_is_zero.tiff", tiff(gray, "u1", 0), pixels=255 - gray)
    deep = making.quilt(1, highest=2**16 - 1)
    seen = 255 - np.rint(deep / 257).astype(int)
    making.add("white_is_zero16.tiff", tiff(deep, "u2", 0), "mode", pixels=seen)
    bits = making.quilt(1, highest=1)
    data = np.packbits(bits[0].astype(np.uint8), axis=1).tobytes()
    making.add("bits.tiff", tiff_strip(data, SIDE, SIDE, [1], 1), "mode", pixels=255 * bits)
    values = making.quilt(1, highest=4095)
    pairs = values.reshape(-1, 2)  # 3 bytes hold 2 numbers
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    data = tiff_strip(packed.astype(np.uint8).tobytes(), SIDE, SIDE, [12], 1)
    making.add("gray12.tiff", data, "mode", pixels=np.rint(values * 255 / 4095).astype(int))
    making.add("int32.tiff", tiff(making.quilt(1), "u4", 1), "unknown_mode")
    making.add("signed16.tiff", tiff(making.quilt(1), "i2", 1, extra={339: [2]}), "unknown_mode")
    making.add("float.tiff", tiff(making.quilt(1), "f4", 1, extra={339: [3]}), "unknown_mode")
    stored = making.quilt(highest=40) + np.array([130, 0, 0])[:, None, None]
    stored[1:] = (stored[1:] - 20) % 256  # around 0, signed
    making.add("lab.tiff", tiff(stored, "u1", 8), "mode", pixels=rgb_of_lab(stored), tolerance=2)
    inks = making.quilt(4)
    seen = np.rint((255 - inks[:3]) * (255 - inks[3]) / 255).astype(int)
    making.add("cmyk.tiff", tiff(inks, "u1", 5), "mode", pixels=seen, tolerance=1)
    indices, alpha = making.quilt(1), making.quilt(1)
    palette = np.random.default_rng(1).integers(0, 256, (3, 256))
    tags = {320: (palette * 257).ravel().tolist(), 338: [2]}
    seen = over_white(palette[:, indices[0]], alpha[0])
    data = tiff(np.concatenate([indices, alpha]), "u1", 3, extra=tags)
    making.add("palette_alpha.tiff", data, "mode", "transparent", pixels=seen, tolerance=1)
    alpha = making.quilt(1)
    ink = making.quilt() * alpha // 255  # stored multiplied by alpha
    seen = ink + 255 - alpha
    data = tiff(np.concatenate([ink, alpha]), "u1", 2, extra={338: [1]})
    making.add("multiplied.tiff", data, "transparent", pixels=seen, tolerance=2)
    pages = [making.quilt() for _ in range(2)]
    data = _saved(_picture(pages[0]), "TIFF", save_all=True, append_images=[_picture(pages[1])])
    making.add("pages.tiff", data, "animated", pixels=pages[0])
    colours = making.quilt()
    r, g, b = colours
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    ycc = np.rint(np.stack([luma, 128 + (b - luma) / 1.772, 128 + (r - luma) / 1.402])).clip(0, 255)
    data = _saved(_picture(ycc, "YCbCr"), "TIFF")
    making.add("ycbcr.tiff", data, "mode", pixels=colours, tolerance=3)


def _other_formats(making: _Making) -> None:
    fine = {"quality": 100, "subsampling": 0}
    for name, options in (("baseline", {}), ("progressive", {"progressive": True})):
        colours = making.quilt()
        data = _saved(_picture(colours), "JPEG", **fine, **options)
        making.add(f"{name}.jpg", data, pixels=colours, tolerance=4)
    colours = making.quilt()
    data = _saved(_picture(colours), "JPEG", **fine) + b"and more" * 99
    making.add("trailing.jpg", data, pixels=colours, tolerance=4)
    gray = making.quilt(1)
    making.add("gray.jpg", _saved(_picture(gray), "JPEG", **fine), pixels=gray, tolerance=4)
    inks = making.quilt(4)  # Pillow writes them inverted and with Adobe's marker, as Photoshop does
    seen = np.rint((255 - inks[:3]) * (255 - inks[3]) / 255).astype(int)
    data = _saved(_picture(inks, "CMYK"), "JPEG", quality=100)
    assert b"Adobe" in data
    making.add("cmyk_adobe.jpg", data, "mode", pixels=seen, tolerance=4)
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True})):
        frames = [_picture(making.quilt()).quantize(16).convert("RGB") for _ in range(2)]
        seen = np.asarray(frames[0]).astype(int).transpose(2, 0, 1)
        if kind == "GIF":
            frames = [frame.quantize(16) for frame in frames]
        data = _saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        kinds = ["animated"] + ["mode"] * (kind == "GIF")
        making.add(f"film.{kind.lower()}", data, *kinds, pixels=seen)
    colours = making.quilt()
    making.add("icon.ico", _saved(_picture(colours), "ICO", sizes=[(SIDE, SIDE)]), pixels=colours)
    for name, depth, height in (("bottom_up", 24, SIDE), ("top_down", 24, -SIDE), ("bits32", 32, SIDE)):
        colours = making.quilt()
        rows = colours[::-1].transpose(1, 2, 0)  # blue first
        if depth == 32:  # the fourth byte has no meaning
            rows = np.concatenate([rows, np.zeros_like(rows[..., :1])], axis=2)
        data = rows[:: -1 if height > 0 else 1].astype(np.uint8).tobytes()
        head = struct.pack("<IiiHHIIiiII", 40, SIDE, height, 1, depth, 0, len(data), 0, 0, 0, 0)
        data = b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + head + data
        making.add(f"{name}.bmp", data, pixels=colours)
    values = making.quilt(1, highest=1000)
    data = b"P5 16 16 1000\n" + values.astype(">u2").tobytes()
    making.add("thousand.pgm", data, "mode", pixels=np.rint(values * 255 / 1000).astype(int), tolerance=1)
    colours = making.quilt()
    making.add("lie.jpg", png(colours, 2), "extension", pixels=colours)
    making.add("page.png", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "unreadable")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("rgb.png", png(colours, 2))
    making.add("archive.png", archive.getvalue(), "unreadable")
    making.add("script.png", POSTSCRIPT, "unreadable")
    making.add("script.eps", POSTSCRIPT, ignored=True)
    making.add("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', ignored=True)
    making.add(".hidden.png", png(colours, 2), ignored=True)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def _turned(making: _Making) -> None:
    for orientation in range(1, 9):
        colours = making.quilt()
        exif = Image.Exif()
        exif[0x0112] = orientation
        seen = turned(colours, orientation)
        kinds = ["rotated"] * (orientation > 1)
        making.add(f"turned{orientation}.png", _saved(_picture(colours), "PNG", exif=exif), *kinds, pixels=seen)
    colours = making.quilt()
    exif[0x0112] = 6
    data = _saved(_picture(colours), "JPEG", quality=100, subsampling=0, exif=exif)
    making.add("turned.jpg", data, "rotated", pixels=turned(colours, 6), tolerance=4)


def _damaged(making: _Making) -> None:
    making.add("empty.png", b"", "unreadable")
    noise = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE))
    whole = png(noise, 2)
    making.add("cut_head.png", whole[:20], "unreadable")
    making.add("cut.png", whole[:500], "damaged")
    data = _saved(_picture(noise), "JPEG", quality=95)
    making.add("cut.jpg", data[: -len(data) // 4], "damaged")
    making.add("cut.gif", _saved(_picture(noise), "GIF")[:-80], "damaged")
    making.add("cut.tiff", tiff(noise, "u1", 2)[:-80], "damaged")
    making.add("cut.webp", _saved(_picture(noise), "WEBP")[:-80], "unreadable")
    other = making.quilt()
    # The stream of pixels is sound in itself, but not what was checked: only PNG's own checksum can tell.
    start = whole.index(b"IDAT") - 4
    swapped = png_chunk(b"IDAT", _packed(other, 8), checked=_packed(noise, 8))
    making.add("checksum.png", whole[:start] + swapped + png_chunk(b"IEND", b""), "damaged")


def _sizes(making: _Making) -> None:
    for name, side in (("bomb", 20_000), ("half_bomb", 12_000)):
        head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        data = zlib.compress(bytes(side * (1 + (side + 7) // 8)), 1)
        making.add(
            f"{name}.png", b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b""), "bomb"
        )
    making.add("dot.png", png(np.full((1, 1, 1), 7), 0), "tiny", "blank")
    making.add("line.png", png(np.arange(10_000).reshape(1, 1, -1) % 251, 0), "tiny")
    wide = making.quilt().repeat(2, axis=2)[:, :, 3:29]
    making.add("wide.png", png(wide, 2), "not_square", pixels=wide)
    tall = making.quilt().repeat(2, axis=1)[:, 5:, :]
    making.add("tall.png", png(tall, 2), "not_square", pixels=tall)
    small = making.quilt()[:, ::2, ::2]
    making.add("small.png", png(small, 2), "small", pixels=small)
    blank = np.full((3, SIDE, SIDE), 90)
    making.add("blank.png", png(blank, 2), "blank", pixels=blank)


def _names(making: _Making) -> None:
    for name in ("two words.png", "smile\N{GRINNING FACE}.png", "-rf.png", "[red]bold[/red].png", "a" * 251 + ".png"):
        colours = making.quilt()
        making.add(name, png(colours, 2), pixels=colours)
    for name in (
        "new\nline.png",
        os.fsdecode(b"latin\xe9.png"),
        "\N{RIGHT-TO-LEFT OVERRIDE}gnp.png",
        "\x1b[31mred.png",
    ):
        colours = making.quilt()
        making.add(name, png(colours, 2), "odd_name", pixels=colours)
    colours = making.quilt()
    making.add("folder.png/inside.PNG", png(colours, 2), pixels=colours)


def _copies(making: _Making) -> None:
    colours = making.quilt()
    making.add("twin.png", png(colours, 2), pixels=colours)
    making.add("twin_copy.png", png(colours, 2), "same_bytes", pixels=colours)
    making.add("twin_pixels.bmp", _saved(_picture(colours), "BMP"), "same_pixels", pixels=colours)
    near = (colours + 3).clip(0, 255)
    making.add("twin_near.png", png(near, 2), "near", pixels=near)
    (making.folder / "twin_link.png").symlink_to("twin.png")
    making.told("twin_link.png", "same_bytes", pixels=colours)


def _no_files(making: _Making) -> None:
    (making.folder / "circle").symlink_to(".")
    (making.folder / "nowhere.png").symlink_to("missing.png")
    making.told("nowhere.png", "unreadable")
    (making.folder / "itself.png").symlink_to("itself.png")
    making.told("itself.png", "unreadable")
    os.mkfifo(making.folder / "pipe.png")  # whoever opens it waits for ever
    making.told("pipe.png", ignored=True)
    if os.geteuid() != 0:  # root may read everything
        making.add("secret.png", png(making.quilt(), 2), "unreadable")
        (making.folder / "secret.png").chmod(0)
