"""Pictures that move: .mp4, .gif and .webp files."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from progan.support.errors import ConfigError
from progan.support.files import write_whole

ENDLESS = 0  # how often GIF and WebP files repeat


def write_video(path: Path, pictures: Iterable[Image.Image], fps: float) -> None:
    """Write pictures as a video, whole or not at all; the name says the format: .mp4, .gif or .webp.

    pictures: of one size. MP4 is H.264 at nearly no visible loss, in the colours of HD television (BT.709), and needs
    the package av; it has even sides alone, so a line of an odd one is repeated. GIF has 256 colours per picture and at
    most 50 pictures a second. GIF and WebP repeat for ever, and are put together in memory. Raises ConfigError for
    another name and for a missing package.
    """
    check_video(path, fps)
    write_whole(path, lambda file: _WRITERS[path.suffix.lower()](file, pictures, fps))


def check_video(path: Path, fps: float) -> None:
    """Raises ConfigError when a video of this name and speed cannot be written here."""
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ConfigError(f"--out: {path.name} is no video; give it a name in {', '.join(_WRITERS)}")
    fastest = 50 if suffix == ".gif" else 1000
    if not 1 <= fps <= fastest:
        raise ConfigError(f"--fps: {fps:g} is not allowed; use 1 to {fastest} pictures a second for {suffix}")
    if suffix == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise ConfigError('--out: .mp4 needs the package av; pip install "progan[video]", or take .webp') from None


def _mp4(file: BinaryIO, pictures: Iterable[Image.Image], fps: float) -> None:
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "14"})
        stream.pix_fmt = "yuv420p"  # the one kind that every player shows
        codec = stream.codec_context  # without these names players guess, and most guess wrong for small pictures
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for i, picture in enumerate(pictures):
            width, height = (side + side % 2 for side in picture.size)
            if i == 0:
                stream.width, stream.height = width, height
            frame = av.VideoFrame.from_image(picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST))
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _animation(kind: str, unit: int, **options: object) -> Callable[[BinaryIO, Iterable[Image.Image], float], None]:
    """Writes through Pillow; unit: milliseconds in which the format counts."""

    def write(file: BinaryIO, pictures: Iterable[Image.Image], fps: float) -> None:
        first, *others = list(pictures)
        ends = [unit * round(1000 / unit * i / fps) for i in range(len(others) + 2)]
        durations = [end - start for start, end in pairwise(ends)]  # rounded so that their sum stays true
        first.save(file, format=kind, save_all=True, append_images=others, duration=durations, loop=ENDLESS, **options)

    return write


_WRITERS = {
    ".mp4": _mp4,
    ".gif": _animation("GIF", 10),
    ".webp": _animation("WEBP", 1, quality=90),
}
