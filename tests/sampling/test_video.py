"""Videos: every picture there, in order, at its time, in its colours; and what cannot be written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from progan.cli import main
from progan.config import GeneratorConfig
from progan.networks import Generator
from progan.sampling.images import load_generator, sample, save_latent, seed_latents
from progan.sampling.video import write_video
from progan.support.errors import ConfigError
from progan.weights import save_network
from tests.command import refused

COLOURS = [(200, 30, 40), (30, 180, 60), (40, 60, 210), (250, 250, 250), (128, 128, 128), (0, 0, 0)]


def pictures(size: tuple[int, int] = (48, 32)) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in COLOURS]


def decoded(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The frames and the seconds at which each begins."""
    import av

    with av.open(path) as container:
        frames = [*container.decode(video=0)]
    # The names of the colours are the file's own, so they are not given here.
    return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames]


def test_an_mp4_holds_every_picture_at_its_time_in_its_colour(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "v.mp4", pictures(), fps=12.5)
    frames, times = decoded(tmp_path / "v.mp4")
    assert times == pytest.approx([i / 12.5 for i in range(6)])
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert frame.shape == (32, 48, 3)
        assert np.abs(frame.astype(int) - colour).max() <= 4


def test_an_mp4_says_which_colours_it_means(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_video(tmp_path / "v.mp4", pictures(), fps=25)
    with av.open(tmp_path / "v.mp4") as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)  # BT.709


@pytest.mark.parametrize(("suffix", "error"), [(".gif", 2), (".webp", 6), (".GIF", 2)])
def test_animations_hold_every_picture_and_repeat(tmp_path: Path, suffix: str, error: int) -> None:
    path = tmp_path / f"v{suffix}"
    write_video(path, pictures(), fps=30)
    with Image.open(path) as opened:
        assert opened.info["loop"] == 0
        frames, durations = [], []
        for frame in ImageSequence.Iterator(opened):
            frames.append(np.array(frame.convert("RGB")).astype(int))
            durations.append(frame.info["duration"])
    assert sum(durations) == 200  # 6 at 30 a second, though neither counts in thirtieths
    assert max(durations) - min(durations) <= (10 if suffix.lower() == ".gif" else 1)
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert np.abs(frame - colour).max() <= error


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("v.avi", 25, r"--out: v\.avi is no video; give it a name in \.mp4, \.gif, \.webp"),
        ("v.gif", 60, r"--fps: 60 is not allowed; use 1 to 50 pictures a second for \.gif"),
        ("v.webp", 0, r"--fps: 0 is not allowed; use 1 to 1000"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_made(
    tmp_path: Path, name: str, fps: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_video(tmp_path / name, iter(()), fps)
    assert not [*tmp_path.iterdir()]


def test_an_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("av")

    def broken():
        yield from pictures()
        raise KeyboardInterrupt

    for name in ("v.mp4", "v.webp"):
        with pytest.raises(KeyboardInterrupt):
            write_video(tmp_path / name, broken(), 25)
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a generator and two pictures of its growth."""
    folder = tmp_path / "run"
    folder.mkdir()
    g = Generator(GeneratorConfig(resolution=8, fmap_base=32, fmap_max=16))
    save_network(folder / "generator.safetensors", g, nimg=60, resolution=8, alpha=1.0)
    for i, colour in enumerate(("red", "blue")):
        Image.new("RGB", (16, 16), colour).save(folder / f"fakes-{i:09d}.png")
    return folder


def test_the_command_makes_a_walk(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.webp"
    flags = ["--seconds", "1", "--fps", "6", "--smoothing", "0", "--grid", "2x1", "--pixels", "32"]
    assert main(["video", str(run), "--out", str(out), *flags]) == 0
    assert "1 s of video" in capsys.readouterr().out
    with Image.open(out) as opened:
        assert (opened.size, opened.n_frames) == ((32, 16), 6)


def test_the_command_walks_between_latents(run: Path, tmp_path: Path) -> None:
    z = seed_latents([3, 7], 16)
    for name, point in zip("ab", z, strict=True):
        save_latent(tmp_path / f"{name}.npz", point, None)
    out, latents = tmp_path / "w.gif", f"{tmp_path / 'a.npz'},{tmp_path / 'b.npz'}"
    flags = ["--seconds", "1", "--fps", "4", "--pixels", "8"]
    assert main(["video", str(run), "--out", str(out), "--latents", latents, *flags]) == 0
    wanted = sample(load_generator(run)[0], z).transpose(0, 2, 3, 1).astype(int)
    with Image.open(out) as opened:
        shown = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
    assert np.abs(np.stack(shown)[[0, 2]] - wanted).mean() < 3  # of the GIF's colours


def test_the_command_shows_how_a_run_grew(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.gif"
    assert main(["video", str(run), "--growth", "--out", str(out), "--seconds", "1", "--fps", "4"]) == 0
    with Image.open(out) as opened:
        shown = [frame.convert("RGB").getpixel((0, 0)) for frame in ImageSequence.Iterator(opened)]
    assert (shown[0], shown[-1]) == ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
@pytest.mark.parametrize("sizes", [[(16, 16), (32, 24)], [(15, 9), (15, 9)], [(32, 32), (1, 1)]])
def test_growth_over_pictures_of_any_size(run: Path, tmp_path: Path, suffix: str, sizes: list[tuple[int, int]]) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av")
    for i, (size, colour) in enumerate(zip(sizes, ("red", "blue"), strict=True)):
        Image.new("RGB", size, colour).save(run / f"fakes-{i:09d}.png")
    out = tmp_path / f"w{suffix}"
    assert main(["video", str(run), "--growth", "--out", str(out), "--seconds", "1", "--fps", "4"]) == 0
    width, height = sizes[-1]
    if suffix == ".mp4":
        frames = decoded(out)[0]
        assert frames[0].shape == (height + height % 2, width + width % 2, 3)
        assert np.abs(frames[-1][0, 0].astype(int) - (0, 0, 255)).max() < 40
        return
    with Image.open(out) as opened:
        shown = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
    assert {frame.size for frame in shown} == {(width, height)}
    assert np.abs(np.subtract(shown[-1].getpixel((0, 0)), (0, 0, 255))).max() < 10


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "fakes-000000001.png: cannot be shown (not a picture that Pillow can read); delete it"),
        ((8193, 1), "fakes-000000001.png: 8193x1 is too large for a video; 8192 at most each way"),
    ],
)
def test_growth_over_a_picture_that_cannot_be_shown(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: tuple[int, int] | None, sentence: str
) -> None:
    path = run / "fakes-000000001.png"
    path.write_bytes(b"") if content is None else Image.new("RGB", content).save(path)
    assert sentence in refused(capsys, "video", run, "--growth", "--out", tmp_path / "w.webp")
    assert not (tmp_path / "w.webp").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seconds", "0"], "--seconds: 0 at 25 pictures a second is no video; use 0.08 to 3600"),
        (["--seconds", "nan"], "--seconds: nan at 25"),
        (["--seconds", "inf"], "--seconds: inf at 25"),
        (["--fps", "nan"], "--fps: nan is not allowed"),
        (["--smoothing", "-1"], "--smoothing: -1 is not allowed; use 0 to 3600"),
        (["--smoothing", "inf"], "--smoothing: inf is not allowed"),
        (["--pixels", "10000"], "--grid, --pixels: pictures of 10000x10000 are too large; 8192 at most each way"),
        (["--grid", "2000x1"], "--grid, --pixels: pictures of 16000x8 are too large"),
        (["--grid", "2by2"], "--grid: '2by2' is not COLUMNSxROWS"),
        (["--seeds", "3"], "--seeds: a round trip needs at least two images"),
        (["--growth", "--seeds", "3,4"], "--growth, --seeds: the run's own pictures have no seeds"),
        (["--latents", "a.npz", "--seeds", "3,4"], "--latents, --seeds, --growth: a video shows one of them"),
        (["--latents", "a.npz", "--growth"], "--latents, --seeds, --growth: a video shows one of them"),
        (["--latents", "no.npz,b.npz"], "no.npz: cannot be read as a latent (No such file or directory)"),
        (["--latents", ""], "cannot be read as a latent (it is a folder, no plain file)"),
        (["--out", "x.mov"], "--out: x.mov is no video"),
        (["--resolution", "64"], "resolution: 64 is not one of 4, 8"),
    ],
)
def test_mistakes_get_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert message in refused(capsys, "video", run, "--out", tmp_path / "w.webp", *flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_growth_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no fakes-*.png" in refused(capsys, "video", tmp_path, "--growth", "--out", tmp_path / "w.webp")
