"""Headless Chromium for tests of pages: every error in one, and every request that leaves it, fails the test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--enable-unsafe-swiftshader",
    "--use-angle=swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test is skipped, with a reason, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'progan[dev]'")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)


@contextmanager
def visitor(
    browser: Any, allowed: tuple[str, ...], *, expected: str = "", ready: str = "html.ready", **how: Any
) -> Iterator[Any]:
    """A fresh window's `open(url) -> page`, waiting until it is ready; what goes wrong there is raised at the end.

    allowed: what the addresses of its requests begin with; expected: an error that says this is none; ready: what is
    in the page when it is.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
    wrong: list[str] = []

    def heard(message: Any) -> None:
        # A software driver says on a busy machine that reading pixels waits for them, which is what reading is.
        waits = "GL Driver Message (OpenGL, Performance" in message.text and "ReadPixels" in message.text
        if message.type in ("error", "warning") and not waits and not (expected and expected in message.text):
            wrong.append(message.text)

    def open_page(url: str) -> Any:
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda sent: None if sent.url.startswith(allowed) else wrong.append(sent.url))
        page.goto(url)
        page.wait_for_selector(ready)
        return page

    yield open_page
    context.close()
    assert not wrong, wrong
