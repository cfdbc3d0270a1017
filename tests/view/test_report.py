"""The report: everything of a run, exactly, in one file that asks for nothing, whatever the run's folder holds."""

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from progan.presets import PRESETS
from progan.support.config_io import to_json
from progan.view.report import MOST_BYTES, SIDES
from progan.view.run_facts import STRIP
from tests.browser import chromium, visitor
from tests.command import refused, run
from tests.view.conftest import lines

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>\x1b[31m"
VOID = ("meta", "link", "img", "br")


class Page(HTMLParser):
    """What a browser would make of a page: its pictures, links, words, tables of curves; checked as it is read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.values: dict[str, list[list[float]]] = {}
        self.caption = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "data" and self.caption:
            self.values[self.caption][-1].append(float(self.tags[-1][1]["value"] or ""))
        elif tag == "tr" and self.caption in self.values:
            self.values[self.caption].append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.caption = ""

    def handle_data(self, text: str) -> None:
        if "style" not in self.open:
            self.words.append(text)
        if self.open[-1:] == ["caption"]:
            self.caption = text.partition(":")[0].strip()
            self.values.setdefault(self.caption, [])

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """By what they are said to show."""
        return {image["alt"] or "": pixels(image["src"] or "") for image in self.all("img")}


def pixels(uri: str) -> np.ndarray:
    assert re.match("data:image/(png|webp);base64,", uri)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def check_harmless(page: Page) -> None:
    """Nothing runs, nothing is fetched, every picture has its size and its words."""
    names = {name for name, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "form", "base", "audio", "video", "use", "image"}
    for name, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "srcset", "background")], name
        for key in ("src", "href"):
            if key in attributes:
                allowed = ("https://", "http://") if name == "a" else ("data:image/",)
                assert (attributes[key] or "").startswith(allowed)
    for image in page.all("img"):
        height, width = pixels(image["src"] or "").shape[:2]
        assert (image["width"], image["height"]) == (str(width), str(height))
        assert image["alt"]
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert re.fullmatch(
        "default-src 'none'; style-src 'sha256-[^']+'; img-src data:; base-uri 'none'; form-action 'none'", policy
    )
    assert len(page.all("h1")) == len(page.all("title")) == len(page.all("main")) == 1


@pytest.fixture
def one(folder: Path, tmp_path: Path) -> Path:
    """A run that may be changed."""
    shutil.copytree(folder / "runs" / "one", tmp_path / "one")
    return tmp_path / "one"


Report = Callable[..., Page]


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Report:
    """report(paths and flags) -> the page, checked to be harmless."""

    def make(*words: object) -> Page:
        code, _, err = run(capsys, "report", *words, "--out", tmp_path / "report.html", "--overwrite")
        assert (code, err) == (0, ""), err
        text = (tmp_path / "report.html").read_text()
        assert len(text.encode()) < MOST_BYTES
        page = Page(text)
        check_harmless(page)
        return page

    return make


def test_the_same_run_gives_the_same_bytes(one: Path, report: Report, tmp_path: Path) -> None:
    report(one)
    first = (tmp_path / "report.html").read_bytes()
    for path in (one, *one.rglob("*")):
        os.utime(path, (1, 1))
    (tmp_path / "elsewhere").mkdir()
    one.rename(tmp_path / "elsewhere" / "one")
    report(tmp_path / "elsewhere" / "one")
    assert (tmp_path / "report.html").read_bytes() == first


def test_the_numbers_are_the_runs(folder: Path, report: Report) -> None:
    path = folder / "runs" / "two"
    page, stats, times = report(path), lines(path / "stats.jsonl"), lines(path / "timing.jsonl")
    for term in stats[0].keys() - {"nimg", "resolution", "alpha", "batch"}:
        title = term.replace("_", " ").capitalize()
        assert page.values[title][1:] == [[row[term]] for row in stats], term
    assert page.values["Images per second"][1:] == [[row["img_per_s"]] for row in times]
    svgs = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert sum(label.startswith("Wasserstein: from ") for label in svgs) == 1
    assert f"({times[-1]['seconds']:,.1f} s)" in page.text
    assert "0.096 of 0.096 kimg" in page.text


def test_what_was_measured_is_told_with_spread_and_floor(folder: Path, report: Report) -> None:
    path = folder / "runs" / "one"
    page, rows = report(path), lines(path / "metrics.jsonl")
    assert page.values["MS-SSIM"][1:] == [[row["values"][""]] for row in rows]
    last = rows[-1]
    value, spread, reals = (last[key][""] for key in ("values", "spread", "reals"))
    assert f"MS-SSIM16{value:.4g} ± {spread:.2g}0.096{reals:.4g}" in page.text
    (label,) = (svg["aria-label"] or "" for svg in page.all("svg") if (svg["aria-label"] or "").startswith("MS-SSIM"))
    assert label.endswith(f"reals {reals:.4g}")
    assert [path for path in page.all("path") if path.get("class") == "floor line0"]


def test_the_pictures_are_the_runs(folder: Path, report: Report) -> None:
    path = folder / "runs" / "one"
    pictures = report(path).pictures
    grids = {int(file.stem[6:]): np.asarray(Image.open(file)) for file in path.glob("fakes-*.png")}
    assert np.array_equal(pictures["64 generated images, 16×16 pixels, after 0.096 kimg"], grids[96])
    assert np.array_equal(pictures["64 real images of the data set"], np.asarray(Image.open(path / "reals.png")))
    strip = [(alt, picture) for alt, picture in pictures.items() if alt.startswith("6 images at ")]
    words = ["0 kimg, 4×4", "0.016 kimg, 4×4", "0.032 kimg, 8×8", "0.048 kimg, 8×8", "0.064 kimg, 16×16"]
    assert [alt.removeprefix("6 images at ") for alt, _ in strip][:5] == words
    for (_, picture), nimg in zip(strip, sorted(grids), strict=True):
        cells = [grids[nimg][:16, 16 * i : 16 * i + 16] for i in range(6)]
        assert np.array_equal(picture, np.concatenate(cells))


def test_what_it_was_made_of_and_how(folder: Path, report: Report) -> None:
    path = folder / "runs" / "two"
    page = report(path, "--data", folder / "data", "--title", "A <b>title</b>")
    manifest = json.loads((folder / "data" / "dataset.json").read_text())
    assert page.text.count("A <b>title</b>") == 2
    for words in (
        "trained on 40 images (test)",
        "of 3 classes",
        "schedule.total_nimg3600096",
        "beta20.990.9",
        f"progan train --preset demo --data {folder / 'data'} --out two --resolution 16 ",
        "--beta2 0.9 --seed 1",
        manifest["hash"][:12],
        "names no author",
        lines(path / "machines.jsonl")[0]["processor"],
    ):
        assert words in page.text, words


def test_the_data_named_must_be_the_runs(
    folder: Path, tmp_path: Path, make_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data("other")
    argv = ("report", folder / "runs" / "one", "--out", tmp_path / "r.html", "--data", tmp_path / "other")
    assert "other: is not the data set that" in refused(capsys, *argv)
    assert not (tmp_path / "r.html").exists()


def test_two_runs_stand_side_by_side(folder: Path, report: Report) -> None:
    one, two = (folder / "runs" / name for name in ("one", "two"))
    page = report(one, two)
    assert "one and two" in page.text
    assert len([alt for alt in page.pictures if alt.startswith("64 generated")]) == 1  # of equal words, two pictures
    assert len([image for image in page.all("img") if (image["alt"] or "").startswith("64 generated")]) == 2
    assert len([image for image in page.all("img") if "real images" in (image["alt"] or "")]) == 1
    stats = [lines(path / "stats.jsonl") for path in (one, two)]
    wanted = [[a["wasserstein"], b["wasserstein"]] for a, b in zip(*stats, strict=True)]
    assert page.values["Wasserstein"][1:] == wanted
    for words in ("beta20.990.9", "seed01", "g.label_dim03"):
        assert words in page.text, words
    assert (
        sum(label.startswith("Wasserstein: A: from") for label in (svg["aria-label"] or "" for svg in page.all("svg")))
        == 1
    )


def test_runs_of_one_name_are_told_apart(one: Path, folder: Path, report: Report) -> None:
    assert f"{one.parent.name}/one and runs/one" in report(one, folder / "runs" / "one").text


def test_nothing_that_a_folder_holds_is_markup(one: Path, report: Report) -> None:
    path = one.rename(one.parent / "<script>alert(2)<&lt;script>")
    stats = lines(path / "stats.jsonl")
    (path / "stats.jsonl").write_text("".join(json.dumps(row | {HOSTILE: 1.5}) + "\n" for row in stats))
    measured = lines(path / "metrics.jsonl")[-1]
    level = {key: {HOSTILE: 0.5} for key in ("values", "spread", "reals")}
    for images in ({"fakes": HOSTILE}, HOSTILE, None):
        about = {"metric": HOSTILE, "protocol": json.dumps(images), "images": images}
        with (path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(measured | level | about) + "\n")
    (path / "machines.jsonl").write_text(json.dumps({"processor": HOSTILE, "torch": [HOSTILE], "processes": HOSTILE}))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"init": HOSTILE, "data": [HOSTILE]}))
    for words in ((), (path,)):
        page = report(path, *words)
        shown = HOSTILE.replace("\x1b", "\\x1b")
        assert "<script>alert(2)<&lt;script>" in page.text
        assert page.text.count(shown) > 4
        assert "\x1b" not in page.text


HURT: dict[str, Callable[[Path], object]] = {
    "a half-written picture": lambda path: cut(path / "fakes-000000096.png"),
    "a picture of another size": lambda path: Image.new("RGB", (9, 9)).save(path / "fakes-000000096.png"),
    "a picture that is a link": lambda path: link(path / "fakes-000000096.png"),
    "a name that is not a run's": lambda path: Image.new("RGB", (9, 9)).save(path / "fakes-999.png"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere.png")
    path.symlink_to(path.parent.parent / "elsewhere.png")


@pytest.mark.parametrize("how", HURT)
def test_a_picture_that_cannot_be_read_is_left_out_and_named(one: Path, report: Report, how: str) -> None:
    HURT[how](one)
    page = report(one)
    newest = "0.096" if "name" in how else "0.08"
    assert f"64 generated images, 16×16 pixels, after {newest} kimg" in page.pictures
    name = "fakes-000000999.png" if "name" in how else "fakes-000000096.png"
    assert page.text.count(name) == 1
    assert "Left out" in page.text


def test_lines_that_are_damaged_are_passed_over(one: Path, report: Report) -> None:
    whole = lines(one / "stats.jsonl")
    for name in ("stats.jsonl", "timing.jsonl", "metrics.jsonl", "machines.jsonl"):
        text = (one / name).read_text()
        far = '{"nimg": -500, "seconds": NaN}\n'
        (one / name).write_text(far + "[1]\nnull\n" + text + far + '{"nimg": 90, "wass')
    values = report(one).values["Wasserstein"][1:]
    assert values == [[row["wasserstein"]] for row in whole]


def test_a_run_that_has_only_begun(one: Path, report: Report) -> None:
    for path in one.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = report(one)
    assert "of which no training has been written down yet" in page.text
    assert "No picture of generated images can be read" in page.text


def test_what_is_no_run_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "r.html")
    (tmp_path / "empty").mkdir()
    assert "holds no run and no study; a run comes to be by `progan train" in refused(
        capsys, "report", tmp_path / "empty", *out
    )
    assert "there is no such folder" in refused(capsys, "report", tmp_path / "nowhere", *out)
    assert "folder of 2 runs and studies; give one of them, such as" in refused(capsys, "report", folder / "runs", *out)
    for paths in ([folder / "study", folder / "runs" / "one"], [folder / "runs" / "one"] * 3):
        assert "RUN: give the folder of one run, of two runs, or of one study" in refused(
            capsys, "report", *paths, *out
        )
    study = ("report", folder / "study", "--data", folder / "data", *out)
    assert "--data: goes with runs" in refused(capsys, *study)
    assert not (tmp_path / "r.html").exists()


def test_no_file_is_written_over_unasked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.html").write_text("dear")
    argv = ("report", folder / "runs" / "one", "--out")
    assert "is there already; choose another name, or pass --overwrite" in refused(
        capsys, *argv, tmp_path / "letter.html"
    )
    assert "there is no folder" in refused(capsys, *argv, tmp_path / "nowhere" / "r.html")
    assert (tmp_path / "letter.html").read_text() == "dear"


@pytest.mark.slow
def test_a_large_run_is_a_small_page(tmp_path: Path, report: Report) -> None:
    """500 pictures of noise, which nothing makes small."""
    path = tmp_path / "large"
    path.mkdir()
    config = PRESETS["celebahq-1024-1gpu"].config
    config = replace(config, schedule=replace(config.schedule, total_nimg=10_000_000))
    (path / "config.json").write_text(json.dumps({"config": to_json(config), "data": "0", "init": ""}))
    noise = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path / "reals.png", compress_level=1)
    for i in range(501):
        os.link(path / "reals.png", path / f"fakes-{i * 20_000:09d}.png")
    row = {f"term {i}": 0.123456789 * i for i in range(8)}
    (path / "stats.jsonl").write_text("".join(json.dumps({"nimg": i * 1000} | row) + "\n" for i in range(10_001)))
    page = report(path)
    columns = [alt for alt in (image["alt"] or "" for image in page.all("img")) if alt.startswith("4 images at ")]
    assert len(columns) == STRIP
    sides = [int(alt.rpartition(" ")[2].partition("×")[0]) for alt in columns]
    assert sides == [4, 4, 8, 16, 32, 64, 128, 256, 512, 1024]  # the first, and the last of each
    assert page.pictures["4 images at 10,000 kimg, 1024×1024"].shape[1] in [cell for _, cell in SIDES]
    assert len(page.values["Term 3"]) <= 101
    assert page.values["Term 3"][-1] == [row["term 3"]]


@pytest.fixture
def study(folder: Path, tmp_path: Path) -> Path:
    """A study of two runs, with a table, a picture and curves."""
    path = tmp_path / "study"
    shutil.copytree(folder / "study", path)
    for name in ("one", "two"):
        shutil.copytree(folder / "runs" / name, path / "rows" / f"{name}-seed0")
    return path


def test_a_study_is_its_table_its_pictures_and_its_runs(study: Path, report: Report) -> None:
    with (study / "table.md").open("a") as file:
        file.write(f"\nSaid by `{HOSTILE}` and **bold** \\| words.\n")
    points = [{"nimg": 10, "seconds": 60.0, "values": {"ms_ssim": 0.4, "16": 3.0, "average": 2.0}}]
    points += [{"nimg": 20, "seconds": 120.0, "values": {"16": 1.5, "average": 1.0}, "spread": {"16": 0.5}}]
    found = {"curves": {"grown": points, "not grown": points[:1]}, "floor": {"average": 0.5}}
    (study / "time-to-quality.json").write_text(json.dumps(found))
    page = report(study)
    assert "Ablation: 2 runs; scale small." in page.text
    assert page.pictures["Images of each run, beside those of the data"].shape == (8, 8, 3)
    assert "rowSWD" in page.text
    assert "a12.5 ± 0.2" in page.text
    assert "`" not in page.text
    assert page.values["SWD x1e3, average, by images"][1:] == [[2.0, 2.0], [1.0]]
    assert page.values["SWD x1e3, 16×16, by time"][1:] == [[3.0, 3.0], [1.5]]
    assert page.values["MS-SSIM, by images"][1:] == [[0.4, 0.4]]
    for name in ("one-seed0", "two-seed0"):
        grid = np.asarray(Image.open(max((study / "rows" / name).glob("fakes-*.png"))))
        cells = [grid[i // 8 * 16 :, i % 8 * 16 :][:16, :16] for i in range(16)]
        wanted = np.concatenate([np.concatenate(cells[i : i + 4], 1) for i in range(0, 16, 4)])
        assert np.array_equal(page.pictures[f"generated images of {name}"], wanted)


def test_a_study_under_way(study: Path, report: Report) -> None:
    (study / "table.md").unlink()
    cut(study / "grid.png")
    cut(study / "rows" / "one-seed0" / "fakes-000000096.png")
    (study / "rows" / "two-seed0" / "config.json").write_text("{")
    page = report(study)
    assert "There is no table yet" in page.text
    assert "grid.png, one-seed0/fakes-000000096.png, rows/two-seed0" in page.text
    assert "generated images of one-seed0" in page.pictures


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("how", ["run", "two runs", "study"])
def test_in_a_browser_it_asks_for_nothing_and_prints(
    browser: Any, folder: Path, study: Path, report: Report, tmp_path: Path, how: str
) -> None:
    one, two = folder / "runs" / "one", folder / "runs" / "two"
    report(*{"run": (one,), "two runs": (one, two), "study": (study,)}[how])
    for window in ({"width": 1280, "height": 900}, {"width": 390, "height": 844}):
        with visitor(browser, ("file:", "data:"), ready="footer", viewport=window, java_script_enabled=False) as visit:
            page = visit((tmp_path / "report.html").as_uri())
            boxes = [image.bounding_box() for image in page.locator("img").all()]
            assert min(box["width"] for box in boxes) > 30
            page.locator("summary").first.click()
            assert page.locator("details table").first.is_visible()
            body = page.locator("body").bounding_box()
            assert body["width"] <= window["width"]
            assert max(box["x"] + box["width"] for box in boxes[:1]) <= window["width"]
            page.emulate_media(media="print")
            assert not page.locator("details").first.is_visible()
            assert page.pdf(format="A4").startswith(b"%PDF")
