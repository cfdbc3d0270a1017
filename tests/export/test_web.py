"""The exported page, in a browser: the pictures that PyTorch computes, and every widget as a person uses it."""

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import progan.export.web
from progan.export.web import bundle
from progan.images import to_uint8
from progan.networks import Generator
from progan.sampling.images import one_hot, seed_latents
from progan.studies.ablation.rows import ROWS, SCALES
from progan.studies.rows import row_config
from progan.support.config_io import to_json
from progan.weights import save_network
from tests.browser import chromium, visitor
from tests.command import refused, run
from tests.export.test_plan import VARIANTS, trained

# What is folded into the plan before a page has it is tried in test_plan.py; here is, at least once, whatever the
# engines do in two ways: norms, activations, outputs, latents and labels as they are or normalised, channels, widths.
MIXED: dict[str, dict[str, Any]] = {
    "classes, gray, tanh": {"label_dim": 3, "channels": 1, "output": "tanh", "norm": "batch", "activation": "relu"},
    "four channels, odd widths": {"channels": 4, "norm": "none", "fmap_base": 150, "fmap_max": 13, "latent_dim": 5},
}
PLAIN = {name: VARIANTS[name] for name in ("paper", "not fused", "labels, latent as it is", "gray and alpha")}
FIRST_ROWS = {f"row {row.name}": to_json(row_config(row, "small", SCALES, ROWS).g) for row in ROWS if row.name in "ad"}
NETWORKS = {**PLAIN, **MIXED, **FIRST_ROWS, "64x64": {"resolution": 64, "fmap_base": 512, "fmap_max": 16}}
HALF = ["paper", *MIXED]
CASES = [(name, engine) for name in NETWORKS for engine in ("webgl", "javascript")] + [(name, "half") for name in HALF]
CASES.remove(("64x64", "javascript"))  # a larger picture is nothing new to it
CREDIT = {"title": "Faces", "creator": "A. Painter", "licence": "CC BY 4.0", "source": "https://example.org/faces"}


def write_generator(path: Path, **fields: Any) -> Generator:
    """The weights of a generator, of 16x16 if nothing else is said, in which every number is random."""
    g = trained(**{"resolution": 16, **fields})
    data = {"hash": "0" * 64, "count": 12, "label_names": None, "attribution": CREDIT}
    save_network(path, g, resolution=g.config.resolution, alpha=1.0, nimg=1000, data=data)
    return g


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """visit(path, engine) -> a page opened from the disk; an error in it, or a request that leaves it, fails."""
    with visitor(browser, ("file:", "data:", "blob:")) as open_page:
        yield lambda path, engine="": open_page(path.as_uri() + (f"#{engine}" if engine else ""))


def shown(page: Any) -> np.ndarray:
    """What the large picture shows: uint8 [R, R, 4]."""
    url = page.evaluate("document.querySelector('#canvas').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))


def grow(page: Any, position: float) -> None:
    """Move the handle of the growth slider."""
    move = "(handle, at) => { handle.value = at; handle.dispatchEvent(new Event('input')); }"
    page.locator("#growth input").evaluate(move, position)


def expected(g: Generator, seed: int, resolution: int, alpha: float) -> np.ndarray:
    labels = one_hot([seed % g.config.label_dim], g.config.label_dim) if g.config.label_dim else None
    image = to_uint8(g(seed_latents([seed], g.config.z_dim), labels, resolution=resolution, alpha=alpha))[0].numpy()
    opaque = np.full_like(image[:1], 255)
    colours = image[:3] if len(image) > 2 else image[[0, 0, 0]]
    return np.concatenate([colours, image[-1:] if len(image) in (2, 4) else opaque]).transpose(1, 2, 0)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, of colours multiplied by their opacity: a canvas keeps no more of them."""
    assert a.shape == b.shape
    x, y = (i[..., :3] * (i[..., 3:] / 255) for i in (a, b))
    rounded = b[..., 3:] < 255  # once when they are kept, once when they are read back, by half each
    return max(float((np.abs(x - y) - rounded).max()), float(np.abs(a[..., 3].astype(int) - b[..., 3]).max()))


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_the_page_draws_what_pytorch_draws(
    name: str, engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], visit: Any
) -> None:
    g = write_generator(tmp_path / "g.safetensors", **NETWORKS[name])  # 16x16 but for one: it has every kind of block
    assert run(capsys, "export", tmp_path / "g.safetensors", "--to", "web", "--out", tmp_path / "p.html")[0] == 0
    page = visit(tmp_path / "p.html", engine)
    called = {"webgl": "WebGL2, ", "half": "WebGL2 with half floats, ", "javascript": "JavaScript, "}[engine]
    assert page.inner_text("#engine").startswith(called)
    seed = 4  # of the second class, where there are three
    page.locator("#wall button").nth(seed).click()
    for index, resolution in enumerate(g.config.resolutions):
        for alpha in (0.0001, 0.5, 1.0) if index else (1.0,):  # the handle at alpha 0 is the stage before
            grow(page, index - 1 + alpha if index else 0)
            want = expected(g, seed, resolution, alpha)
            assert want[..., :3].std() > 10
            for _ in range(200):  # on a busy machine the page draws it coarsely at first, whole when the hand rests
                if page.evaluate("document.querySelector('#canvas').width") == resolution:
                    break
                page.wait_for_timeout(50)
            # Half floats keep eleven bits, through every layer.
            assert distance(shown(page), want) <= (8 if engine == "half" else 2), (resolution, alpha)


@pytest.mark.parametrize(
    ("costs", "quick", "small"),
    [
        ({4: [1], 8: [3], 16: [8], 32: [20]}, 32, 32),
        ({4: [1], 8: [3], 16: [30], 32: [61]}, 16, 32),  # the wall waits, and has the colours of the newest layers
        ({4: [1], 8: [3], 16: [30], 32: [61], 64: [290], 128: [295]}, 16, 64),
        ({4: [1], 8: [1], 16: [1], 32: [1], 64: [2], 128: [50]}, 128, 64),
        ({4: [1], 8: [3], 16: [30], 32: [90, 70, 40]}, 32, 32),  # slow at first, as what is new to the browser may be
        ({4: [25], 8: [130], 16: [290], 32: [500]}, 16, 16),  # 4x4 would follow the hand better, and shows nothing
        ({4: [90], 8: [230], 16: [310]}, 8, 8),
        ({4: [900], 8: [2000]}, 4, 4),
    ],
)
def test_what_follows_the_hand_is_quick_but_never_coarser_than_need_be(
    costs: dict[int, list[int]], quick: int, small: int, browser: Any
) -> None:
    page = browser.new_page()
    found = page.evaluate(
        """([script, costs]) => {
            let now = 0;
            performance.now = () => now;
            const next = (costs) => costs.length > 1 ? costs.shift() : costs[0];
            const run = (z, label, resolution) => { now += next(costs[resolution]); };
            const {measured} = new Function(`${script}; return modules["engines.js"];`)();
            return measured({latentDim: 1, resolutions: Object.keys(costs).map(Number)}, {run});
        }""",
        [bundle("engines.js"), costs],
    )
    page.close()
    assert (found["quick"], found["ms"], found["small"]) == (quick, min(costs[quick]), small)


@pytest.fixture
def exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Generator, Path]:
    """A generator and its page."""
    g = write_generator(tmp_path / "g.safetensors")
    assert run(capsys, "export", tmp_path / "g.safetensors", "--to", "web", "--out", tmp_path / "p.html")[0] == 0
    return g, tmp_path / "p.html"


def test_a_visitor_grows_it_chooses_a_face_and_saves_it(exported: tuple[Generator, Path], visit: Any) -> None:
    g, path = exported
    page = visit(path)
    slider = page.locator("#growth input")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 4, box["y"] + box["height"] / 2)
    assert shown(page).shape == (4, 4, 4)
    slider.focus()
    page.keyboard.press("PageUp")
    assert page.locator("#growth output").inner_text() == "8 × 8"
    page.keyboard.press("ArrowRight")
    assert page.locator("#growth output").inner_text() == "16 × 16 at 5%"
    assert distance(shown(page), expected(g, 0, 16, 0.05)) <= 2
    page.keyboard.press("End")
    page.locator("#wall button").nth(5).click()
    assert page.inner_text("#title") == "Seed 5"
    assert distance(shown(page), expected(g, 5, 16, 1.0)) <= 2
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.inner_text("#title") == "Seed 6"
    with page.expect_download() as waiting:
        page.click("#save")
    assert waiting.value.suggested_filename == "seed0006.png"
    with Image.open(waiting.value.path()) as picture:
        assert distance(np.asarray(picture.convert("RGBA")), expected(g, 6, 16, 1.0)) <= 2


def test_a_visitor_enlarges_follows_directions_and_walks(exported: tuple[Generator, Path], visit: Any) -> None:
    g, path = exported
    page = visit(path)
    page.click("#enlarge")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.inner_text("#title") == "Seed 1"
    first = page.locator("#directions input").first
    first.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert distance(shown(page), expected(g, 1, 16, 1.0)) > 10
    page.locator("#directions button").click()
    assert distance(shown(page), expected(g, 1, 16, 1.0)) <= 2
    page.get_by_role("button", name="Play").click()
    deadline = time.monotonic() + 20
    while float(page.locator("#walk input").first.input_value()) < 0.02:  # the page's policy forbids wait_for_function
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    page.get_by_role("button", name="Pause").click()
    assert " to Seed " in page.inner_text("#title")
    still = page.locator("#walk input").first.input_value()
    page.wait_for_timeout(100)
    assert page.locator("#walk input").first.input_value() == still
    page.locator("#walk ol button").first.click()
    assert page.locator("#walk ol li").count() == 3
    page.get_by_role("button", name="Add this picture").click()
    assert page.locator("#walk ol li").count() == 4
    assert "A. Painter" in page.inner_text("footer")
    assert "CC BY 4.0" in page.inner_text("footer")


def test_a_visitor_chooses_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str], visit: Any) -> None:
    g = write_generator(tmp_path / "g.safetensors", label_dim=3)
    run(capsys, "export", tmp_path / "g.safetensors", "--to", "web", "--out", tmp_path / "p.html")
    page = visit(tmp_path / "p.html")
    page.select_option("#class", "2")
    want = to_uint8(g(seed_latents([0], g.config.z_dim), one_hot([2], 3)))[0].numpy().transpose(1, 2, 0)
    assert np.abs(shown(page)[..., :3].astype(int) - want).max() <= 2


def test_a_page_replaces_a_page_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_generator(tmp_path / "g.safetensors")
    command = ("export", tmp_path / "g.safetensors", "--to", "web", "--out")
    for _ in range(2):
        assert run(capsys, *command, tmp_path / "p.html")[0] == 0
    (tmp_path / "letter.html").write_text("dear")
    assert "exists and is no page" in refused(capsys, *command, tmp_path / "letter.html")
    assert (tmp_path / "letter.html").read_text() == "dear"
    assert "no folder" in refused(capsys, *command, tmp_path / "nowhere" / "p.html")


def test_what_is_no_generator_or_too_large_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_generator(tmp_path / "g.safetensors")
    monkeypatch.setattr(progan.export.web, "LARGEST_MB", 0.01)
    command = ("--to", "web", "--out", tmp_path / "p.html")
    assert "makes a page of" in refused(capsys, "export", tmp_path / "g.safetensors", *command)
    (tmp_path / "text.safetensors").write_text("text")
    assert "text.safetensors" in refused(capsys, "export", tmp_path / "text.safetensors", *command)
    assert not (tmp_path / "p.html").exists()


def test_the_script_holds_each_module_once_and_no_import() -> None:
    script = bundle()
    assert script.count('modules["dom.js"] =') == 1
    assert "\nimport " not in script
    assert "\nexport " not in script
