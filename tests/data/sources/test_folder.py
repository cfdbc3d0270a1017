import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.data.create import create
from progan.data.pictures.decode import load_image
from progan.data.source import BadImageError
from progan.data.sources.folder import Folder
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError


def noise(width: int = 16, height: int = 16, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels_of(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).transpose(2, 0, 1)


def make(src: Path, out: Path, *, quiet: bool = True, **options) -> ImagePyramid:
    return create(Folder(src=Path(src), out=Path(out), **{"workers": 1, **options}), quiet=quiet)


def everything(data: ImagePyramid) -> np.ndarray:
    return data.read(np.arange(len(data)), data.resolution)


@pytest.fixture
def src(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_order_is_that_of_the_paths_whatever_the_workers(src, out, tmp_path):
    names = ["b/2.png", "b/10.png", "a.png", "B.png", "b/c/d.bmp", "é.png", "z.PNG"]
    for index, name in enumerate(names):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        noise(seed=index).save(src / name)
    data = make(src, out)
    order = [names.index(name) for name in ["B.png", "a.png", "b/10.png", "b/2.png", "b/c/d.bmp", "z.PNG", "é.png"]]
    assert np.array_equal(everything(data), np.stack([pixels_of(noise(seed=index)) for index in order]))
    assert make(src, tmp_path / "pooled", workers=2).hash == data.hash


def test_hidden_and_other_files_are_counted_and_left_out(src, out):
    noise().save(src / "a.png")
    (src / ".hidden.png").write_bytes(b"x")
    (src / ".git").mkdir()
    (src / ".git/b.png").write_bytes(b"x")
    for name in ("notes.txt", "data.h5", "film.mpg", "no_extension"):
        (src / name).write_bytes(b"x")
    os.mkfifo(src / "pipe.png")  # opening it would wait for ever
    source = make(src, out).manifest["source"]
    assert (source["found"], source["ignored_hidden"], source["ignored_other"]) == (1, 2, 5)
    assert source["folder"] == "src"
    assert source["left_out"] == []


def test_links_are_followed_but_not_in_circles(src, out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    noise(seed=1).save(elsewhere / "b.png")
    noise(seed=0).save(src / "a.png")
    (src / "linked").symlink_to(elsewhere)
    (src / "loop").symlink_to(src)
    (elsewhere / "back").symlink_to(src)
    assert np.array_equal(everything(make(src, out)), np.stack([pixels_of(noise(seed=s)) for s in (0, 1)]))


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "webp", "tiff", "ppm", "tga", "pcx", "jp2", "ico", "dds", "qoi"])
def test_formats_that_lose_nothing(src, kind):
    flat = Image.new("RGB", (16, 16), (200, 30, 90))
    flat.paste((10, 220, 130), (0, 0, 8, 16))
    options = {"lossless": True} if kind == "webp" else {"sizes": [(16, 16)]} if kind == "ico" else {}
    flat.save(src / f"a.{kind}", **options)
    assert np.array_equal(load_image(src / f"a.{kind}", resolution=16), pixels_of(flat))


def test_exif_orientation_is_applied(src):
    flat = Image.new("RGB", (16, 16), "white")
    flat.paste("black", (0, 0, 16, 4))  # the top
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    flat.save(src / "a.png", exif=exif)
    turned = load_image(src / "a.png", resolution=16)[0]
    assert (turned[:, 12:] == 0).all()
    assert (turned[:, :12] == 255).all()


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_16_bit_gray_keeps_its_range(src, kind):
    values = np.array([0, 128, 129, 257, 12_850, 32_768, 65_000, 65_535], np.uint16)
    Image.fromarray(np.tile(values, (8, 1))).save(src / f"a.{kind}")
    rows = load_image(src / f"a.{kind}", resolution=8, channels=1)[0]
    assert rows[0].tolist() == [0, 0, 1, 1, 50, 128, 253, 255]  # value / 257, rounded


def test_big_endian_16_bit_gray(src):
    values = np.full((8, 8), 12_850, ">u2")
    header = struct.pack(">2sHI", b"MM", 42, 8)
    tags = [
        (256, 3, 8),
        (257, 3, 8),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1),
        (278, 3, 8),
        (279, 4, 128),
    ]
    body = b"".join(
        struct.pack(">HHIHH", tag, 3, 1, value, 0) if kind == 3 else struct.pack(">HHII", tag, 4, 1, value)
        for tag, kind, value in tags
    )
    (src / "a.tif").write_bytes(header + struct.pack(">H", len(tags)) + body + bytes(4) + values.tobytes())
    assert (load_image(src / "a.tif", resolution=8) == 50).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_per_pixel_are_refused_by_name(src, mode):
    Image.new(mode, (8, 8), 7).save(src / "a.tiff")
    with pytest.raises(BadImageError, match=f"mode {mode} .32 bits per pixel"):
        load_image(src / "a.tiff", resolution=8)


def test_transparency_shows_white(src):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 4, 8))
    clear.save(src / "rgba.png")
    clear.convert("LA").save(src / "la.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (0, 0, 4, 8))
    palette.save(src / "p.png", transparency=0)
    palette.save(src / "p.gif", transparency=0)
    key = Image.new("RGB", (8, 8), (255, 0, 0))
    key.paste((0, 0, 255), (0, 0, 4, 8))
    key.save(src / "key.png", transparency=(255, 0, 0))
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(src / "half.png")
    for name in ("rgba.png", "p.png", "p.gif", "key.png"):
        loaded = load_image(src / name, resolution=8)
        assert loaded[:, 0, 0].tolist() == [0, 0, 255], name
        assert loaded[:, 0, 7].tolist() == [255] * 3, name
    assert load_image(src / "la.png", resolution=8)[:, 0, 7].tolist() == [255] * 3
    assert load_image(src / "half.png", resolution=8)[0, 0, 0] == 127


def test_palettes_bits_and_first_frames(src):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(src / "p.png")
    Image.new("1", (8, 8), 1).save(src / "bits.png")
    Image.new("L", (8, 8), 77).save(src / "gray.png")
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    red.save(src / "film.gif", save_all=True, append_images=[blue])
    red.save(src / "pages.tiff", save_all=True, append_images=[blue])
    expected = {
        "p.png": [10, 20, 30],
        "bits.png": [255] * 3,
        "gray.png": [77] * 3,
        "film.gif": [255, 0, 0],
        "pages.tiff": [255, 0, 0],
    }
    for name, colour in expected.items():
        assert (load_image(src / name, resolution=8) == np.array(colour)[:, None, None]).all(), name


def test_cmyk_and_ycck_become_rgb(src):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(src / "a.tiff")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(src / "a.jpg", quality=100)
    Image.new("YCbCr", (8, 8), (76, 85, 255)).save(src / "b.tiff")
    for name in ("a.tiff", "a.jpg", "b.tiff"):
        red = load_image(src / name, resolution=8)[:, 4, 4].astype(int)
        assert abs(red - [255, 0, 0]).max() <= 3, name


def test_gray_on_request(src, out):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(src / "a.png")
    data = make(src, out, channels=1)
    assert everything(data).shape == (1, 1, 8, 8)
    assert (everything(data) == 76).all()


def bomb(path: Path, side: int) -> None:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = part(b"IHDR", head) + part(b"IDAT", zlib.compress(b"")) + part(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def spoil(src: Path) -> dict[str, str]:
    """Five good pictures and every kind of bad one; returns name -> reason of the bad."""
    for index in range(5):
        noise(32, 32, seed=index).save(src / f"good{index}.png")
    noise(64, 48).save(src / "wide.png")
    noise(8, 8).save(src / "small.png")
    bomb(src / "bomb.png", 60_000)
    bomb(src / "warning.png", 12_000)
    (src / "empty.png").write_bytes(b"")
    (src / "text.jpg").write_text("hello")
    (src / "nowhere.png").symlink_to(src / "missing")
    (src / "itself.png").symlink_to(src / "itself.png")
    return {
        "wide.png": "64x48 is not square; pass --crop center or --pad",
        "small.png": "8x8 is smaller than",
        "bomb.png": "pixels that are safe to decode",
        "warning.png": "pixels that are safe to decode",
        "empty.png": "not a picture",
        "text.jpg": "not a picture",
        "nowhere.png": "No such file",
        "itself.png": "Too many levels",
    }


def spoil_pixels(src: Path) -> dict[str, str]:
    """Headers that promise pixels which do not come."""
    noise(32, 32).save(src / "whole.jpg", quality=95)
    whole = (src / "whole.jpg").read_bytes()
    (src / "cut.jpg").write_bytes(whole[: -len(whole) // 3])
    noise(32, 32).save(src / "cut.png")
    os.truncate(src / "cut.png", (src / "cut.png").stat().st_size - 900)
    Image.new("F", (32, 32)).save(src / "float.tiff")
    return {"cut.jpg": "truncated", "cut.png": "truncated", "float.tiff": "mode F"}


@pytest.mark.parametrize("spoiler", [spoil, spoil_pixels])
@pytest.mark.filterwarnings("error")
def test_all_bad_pictures_are_told_and_nothing_is_written(src, out, spoiler):
    reasons = spoiler(src)
    with pytest.raises(DataError) as caught:
        make(src, out, resolution=32)
    first, *lines = str(caught.value).splitlines()
    total = len(list(src.iterdir()))
    told = f"{src}: {len(reasons)} of {total} pictures cannot be used, the first being {min(reasons)}: "
    assert first.startswith(told)
    assert first.endswith("mend them, or pass --on-bad skip to leave them out")
    for name, reason in reasons.items():
        assert any(line.startswith(f"  {name}: ") and reason in line for line in lines), name
    assert [path.name for path in out.parent.iterdir()] == ["src"]


@pytest.mark.filterwarnings("error")
def test_bad_pictures_left_out_are_named(src, out, capsys):
    reasons = spoil(src) | spoil_pixels(src)
    data = make(src, out, resolution=32, on_bad="skip", quiet=False)
    assert len(data) == 6
    assert np.array_equal(everything(data)[0], pixels_of(noise(32, 32, seed=0)))
    left_out = {bad["file"]: bad["reason"] for bad in data.manifest["source"]["left_out"]}
    assert left_out.keys() == reasons.keys()
    assert all(reasons[name] in reason for name, reason in left_out.items())
    assert "warning: left out 11 of 17 pictures:" in capsys.readouterr().err


def test_several_processes_close_the_gaps_that_bad_pictures_leave(src, out, tmp_path):
    for index in range(40):
        noise(seed=index).save(src / f"{index:02}.png")
    for index in (0, 7, 8, 9, 23, 39):
        os.truncate(src / f"{index:02}.png", 400)
    alone, pooled = (
        make(src, path, resolution=16, on_bad="skip", workers=n) for path, n in ((out, 1), (tmp_path / "b", 2))
    )
    pooled.verify()
    assert len(pooled) == 34
    assert pooled.hash == alone.hash
    assert np.array_equal(everything(pooled)[[0, -1]], [pixels_of(noise(seed=1)), pixels_of(noise(seed=38))])
    assert {path.stat().st_size for path in out.iterdir()} >= {
        path.stat().st_size for path in pooled.path.glob("*.npy")
    }


def test_a_long_list_is_cut(src, out):
    for index in range(14):
        (src / f"{index:02}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        make(src, out)
    message = str(caught.value)
    assert "14 of 14 pictures cannot be used" in message
    assert "09.png" in message
    assert "10.png" not in message
    assert message.endswith("and 4 more")


def test_nothing_good_left_over_is_an_error_also_when_skipping(src, out):
    spoil_pixels(src)
    (src / "whole.jpg").unlink()
    with pytest.raises(DataError, match="3 of 3 pictures cannot be used"):
        make(src, out, on_bad="skip")
    assert not out.exists()


def test_names_no_terminal_can_show(src, out):
    noise().save(src / "a.png")
    (src / os.fsdecode(b"b\xff\n.png")).write_bytes(b"")
    data = make(src, out, on_bad="skip", quiet=False)
    assert data.manifest["source"]["left_out"][0]["file"] == "b??.png"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no such folder"),
        ("file.png", "is a file, not a folder"),
        ("empty", "holds no pictures"),
    ],
)
def test_sources_that_are_no_folder_of_pictures(tmp_path, out, name, message):
    noise().save(tmp_path / "file.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        make(tmp_path / name, out)
    assert not out.exists()


def test_resolution_by_default_is_what_the_smallest_picture_fills(src, out):
    noise(40, 40, seed=0).save(src / "a.png")
    noise(100, 100, seed=1).save(src / "b.png")
    noise(3, 3).save(src / "dot.png")  # too small for anything, so it has no say
    stream = Folder(src=src, out=out).open()
    assert stream.resolution == 32
    assert stream.notes == ["resolution 32, set by the smallest picture (a.png)"]
    assert [(bad.name, bad.reason) for bad in stream.bad] == [
        ("dot.png", "3x3 is smaller than --resolution 32; pass a smaller --resolution")
    ]
    assert make(src, out, on_bad="skip").resolution == 32


def test_powers_of_two_shrink_by_the_papers_boxes_and_others_by_lanczos(src):
    noise(64, 64).save(src / "a.png")
    noise(60, 60).save(src / "b.png")
    assert np.array_equal(load_image(src / "a.png", resolution=16), box_pyramid(pixels_of(noise(64, 64)))[16])
    expected = noise(60, 60).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(load_image(src / "b.png", resolution=16), pixels_of(expected))


def test_crop_and_pad(src, out, tmp_path):
    noise(24, 16).save(src / "wide.png")
    noise(16, 24).save(src / "tall.png")
    cropped = everything(make(src, out, crop="center"))
    assert np.array_equal(cropped[0], pixels_of(noise(16, 24))[:, 4:20, :])
    assert np.array_equal(cropped[1], pixels_of(noise(24, 16))[:, :, 4:20])
    shutil.rmtree(out)
    padded = load_image(src / "wide.png", resolution=16, pad=True)  # 24x24, so by Lanczos
    square = Image.new("RGB", (24, 24))
    square.paste(noise(24, 16), (0, 4))
    assert np.array_equal(padded, pixels_of(square.resize((16, 16), Image.Resampling.LANCZOS)))
    with pytest.raises(DataError, match="exclude each other"):
        make(src, out, crop="center", pad=True)


def test_folders_as_labels(src, out):
    for index, name in enumerate(["dog/1.png", "cat/x/2.png", "cat/1.png", "emu/1.png"]):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        noise(seed=index).save(src / name)
    data = make(src, out, labels="folders")
    assert data.label_names == ["cat", "dog", "emu"]
    assert data.label_counts() == [2, 1, 1]
    assert np.array_equal(everything(data)[2], pixels_of(noise(seed=0)))
    assert data.read_labels(np.arange(4)).argmax(1).tolist() == [0, 0, 1, 2]
    noise().save(src / "loose.png")
    with pytest.raises(DataError, match=r"pictures outside all class folders: 1, the first being loose\.png"):
        make(src, out.with_name("again"), labels="folders")


def test_labels_stay_with_their_pictures_when_some_are_left_out(src, out):
    for index, name in enumerate(["a/1.png", "a/2.png", "b/1.png"]):
        (src / name).parent.mkdir(exist_ok=True)
        noise(32, 32, seed=index).save(src / name)
    os.truncate(src / "a/1.png", 1000)
    data = make(src, out, labels="folders", on_bad="skip")
    assert data.read_labels(np.arange(2)).argmax(1).tolist() == [0, 1]
    assert np.array_equal(everything(data)[1], pixels_of(noise(32, 32, seed=2)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resolution": 48}, "48 is not a power of two"),
        ({"resolution": 0}, "too small"),
        ({"channels": 2}, "2 channels"),
    ],
)
def test_wrong_arguments(src, out, wrong, message):
    noise().save(src / "a.png")
    with pytest.raises(DataError, match=message):
        make(src, out, **wrong)
    assert not out.exists()


@pytest.mark.parametrize(("scans", "side"), [(1, 2048), (600, 16), (600, 2048)])
def test_a_jpeg_of_too_many_scans_is_not_decoded(tmp_path, scans, side):
    file = io.BytesIO()
    Image.new("L", (side, side), 100).save(file, "JPEG", progressive=True)
    start, mark, last = file.getvalue().rpartition(b"\xff\xda")
    path = tmp_path / "a.jpg"
    path.write_bytes(start + (mark + last[:-2]) * scans + last[-2:])
    if scans * side**2 < 2**31:
        assert (load_image(path, resolution=16) == 100).all()
        return
    with pytest.raises(BadImageError, match="its 605 scans of 2048x2048 pixels take too long to decode"):
        load_image(path, resolution=16)
