"""The viewer's pages in a browser, by mouse and by keyboard, while a run trains."""

import base64
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from progan.sampling.images import load_generator, one_hot, sample, seed_latents
from progan.view.runs import run_id
from tests.browser import chromium, visitor
from tests.view.conftest import viewing


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(params=["wide", "phone, dark"])
def visit(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Callable[[str], Any]]:
    """visit("#/run/x") -> the page, in a window of either kind."""
    how = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}
    with visitor(browser, (address, "blob:", "data:"), **(how if "phone" in request.param else {})) as open_page:
        yield lambda place: open_page(address + place)


def canvas(page: Any, selector: str) -> np.ndarray:
    url = page.evaluate(f"document.querySelector('{selector}').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def until(page: Any, condition: str) -> None:
    for _ in range(1200):  # Playwright's own way is eval, which the page's policy forbids
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def fits(page: Any) -> bool:
    """No page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_runs_are_chosen_and_compared(visit: Callable[[str], Any], folder: Path) -> None:
    page = visit("#/")
    assert page.locator(".card h2").all_inner_texts() == ["runs/two", "runs/one"]  # the newest first
    assert page.locator(".state.done").count() == 2
    assert page.get_by_role("link", name="study").is_visible()
    until(page, "document.querySelector('.card img').naturalWidth > 0")
    assert fits(page)
    for name in ("runs/one", "runs/two"):
        page.get_by_label(f"Choose {name} to compare").check()
    page.get_by_role("link", name="Compare 2 runs").click()
    until(
        page, "document.querySelectorAll('.pair img').length === 2 && document.querySelector('.pair img').naturalWidth"
    )
    assert "g.label_dim" in page.inner_text("table >> nth=-1")
    assert page.locator(".chart path.line").count() >= 8
    page.locator(".moment input").focus()
    page.keyboard.press("Home")
    assert [
        source.split("/")[-1] for source in page.locator(".pair img").evaluate_all("all => all.map(x => x.src)")
    ] == ["0", "0"]
    page.get_by_role("link", name="By hours").click()
    until(page, "document.querySelector('.moment output')?.textContent.endsWith(' s')")
    assert fits(page)


def test_one_slider_moves_all_of_a_run(visit: Callable[[str], Any], folder: Path) -> None:
    page = visit(f"#/run/{run_id(folder / 'runs' / 'one')}")
    source = "document.querySelector('.pair img').src.split('/').pop()"
    assert page.evaluate(source) == "96"
    values = page.locator(".legend b").all_inner_texts()
    page.locator(".moment input").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(source) == "80"
    assert page.locator(".legend b").all_inner_texts() != values
    assert "Generated after 0.1 kimg" in page.inner_text(".pair")
    page.locator(".chart svg").first.focus()
    for _ in range(25):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate(source) == "32"
    page.get_by_role("button", name="Play").click()
    until(page, f"{source} === '96'")
    box = page.locator(".timeline").bounding_box()
    page.mouse.click(box["x"] + 1, box["y"] + 5)
    assert page.evaluate(source) == "0"
    page.locator(".pair img").first.click()
    assert page.locator("dialog.zoom").is_visible()
    page.keyboard.press("+")
    page.keyboard.press("Escape")
    page.locator("summary").first.click()
    page.locator(".chart table tr").nth(2).wait_for()
    assert fits(page)


def test_a_snapshot_is_explored(visit: Callable[[str], Any], folder: Path) -> None:
    page = visit(f"#/explore/{run_id(folder / 'runs' / 'two')}/96")
    g, _ = load_generator(folder / "runs" / "two")

    def drawn(seed: int, resolution: int, alpha: float, label: int | None = None) -> list[Any]:
        classes = one_hot([seed % 3 if label is None else label], 3)
        image = sample(g, seed_latents([seed], g.config.z_dim), classes, resolution=resolution, alpha=alpha)[0]
        return image.transpose(1, 2, 0).tolist()  # type: ignore[no-any-return]

    def shows(wanted: list[Any], where: str = ".frame canvas") -> None:
        page.wait_for_timeout(50)
        for _ in range(200):
            if canvas(page, where).tolist() == wanted:
                return
            page.wait_for_timeout(50)
        raise AssertionError("another picture")

    shows(drawn(0, 16, 1.0))
    page.get_by_role("button", name="Next seed").click()
    shows(drawn(1, 16, 1.0))
    page.get_by_label("Growth").focus()
    page.keyboard.press("PageDown")
    shows(drawn(1, 8, 1.0))
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    shows(drawn(1, 16, 0.25))
    shows(drawn(1, 16, 0.25), ".branch.sum canvas")
    page.get_by_role("button", name="16 by 16 pixels").click()
    until(page, "[...document.querySelectorAll('.wall canvas')].every(x => x.width === 16)")
    page.get_by_role("button", name="Seed 5").click()
    shows(drawn(5, 16, 1.0))
    assert canvas(page, ".wall li:nth-child(6) canvas").tolist() == drawn(5, 16, 1.0)
    page.get_by_label("Class").select_option("2")
    shows(drawn(5, 16, 1.0, label=2))
    before = canvas(page, ".frame canvas").tolist()
    page.get_by_label("Direction 1").focus()
    page.keyboard.press("End")
    page.wait_for_timeout(500)
    assert canvas(page, ".frame canvas").tolist() != before
    page.get_by_role("button", name="Reset").click()
    shows(before)
    page.get_by_role("button", name="Play").click()
    until(page, "document.querySelector('h2').textContent === 'Seed 1 to Seed 2'")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Add this seed").click()
    assert page.locator(".strip span").all_inner_texts() == [f"Seed {number}" for number in (0, 1, 2, 3, 5)]
    page.get_by_label("Position").focus()
    page.keyboard.press("Home")
    shows(drawn(0, 16, 1.0, label=2))
    page.get_by_role("button", name="Look for them").click()
    until(page, "document.querySelectorAll('.near img').length === 8")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    assert download.value.suggested_filename.endswith("-16x16.png")
    assert fits(page)


def test_data_and_studies(visit: Callable[[str], Any], folder: Path) -> None:
    page = visit(f"#/data/{run_id(folder / 'data')}")
    until(page, "document.querySelector('img.sheet').naturalWidth > 100")
    assert "class2" in page.inner_text("main")
    assert "progan data doctor" in page.inner_text("main")
    assert fits(page)
    page = visit(f"#/study/{run_id(folder / 'study')}")
    assert page.locator("td strong").inner_text() == "a"
    until(page, "document.querySelector('.gallery img').naturalWidth === 8")
    page.get_by_role("link", name="Studies").click()
    until(page, "document.querySelectorAll('.card').length === 2")


def test_a_run_is_watched_from_nothing_to_its_end(browser: Any, folder: Path, tmp_path: Path) -> None:
    with viewing(tmp_path) as (address, _), visitor(browser, (address, "blob:")) as open_page:
        page = open_page(f"{address}#/")
        assert "There is no run in" in page.inner_text("main")
        shape = ["--resolution", "16", "--g.fmap-base", "32", "--d.fmap-base", "32", "--batch", "4", "--device", "cpu"]
        ways = [
            "--stable-kimg",
            "0.1",
            "--fade-kimg",
            "0.1",
            "--total-kimg",
            "0.8",
            "--tick-nimg",
            "50",
            "--snapshot-nimg",
            "200",
        ]
        command = [
            sys.executable,
            "-m",
            "progan",
            "train",
            "--data",
            str(folder / "data"),
            "--out",
            str(tmp_path / "new"),
        ]
        with subprocess.Popen(
            [*command, *shape, *ways],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # two would wait for each other where other tests run
        ) as run:
            page.locator(".card h2").wait_for(timeout=60_000)
            page.locator(".state.training").wait_for(timeout=60_000)
            page.locator(".card h2 a").click()
            until(page, "document.querySelector('.state.training')")
            first = page.inner_text(".page p.quiet")
            until(page, f"document.querySelector('.page p.quiet').textContent !== {first!r}")
            assert run.wait(timeout=300) == 0, run.stderr and run.stderr.read()
            until(page, "document.querySelector('.state.done')")
        until(page, "document.querySelector('.pair img').src.endsWith('/800')")
        until(page, "document.querySelectorAll('.pair img')[1].naturalWidth")


def test_a_run_that_is_moved_while_it_is_watched(browser: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs" / "one", tmp_path / "run")
    with viewing(tmp_path) as (address, _), visitor(browser, (address,), expected="404") as open_page:
        page = open_page(f"{address}#/run/{run_id(tmp_path / 'run')}")
        shutil.move(tmp_path / "run", tmp_path / "gone")
        until(page, "document.querySelector('.state.gone')")
        assert page.locator(".chart").count() > 3
        page.get_by_role("link", name="Runs").click()
        until(page, "document.querySelector('.card h2')?.textContent === 'gone'")


def test_the_viewer_is_missed(browser: Any, folder: Path) -> None:
    with viewing(folder) as (address, process), visitor(browser, (address,), expected="net::ERR_") as open_page:
        page = open_page(f"{address}#/")
        assert page.inner_text("#link") == ""
        process.terminate()
        process.wait(timeout=10)
        until(page, "document.querySelector('#link').textContent === 'The viewer does not answer'")
        page.close()
