"""How large is an exported page, and how long does a browser take from a drag to the picture? Prints JSON.

    python benchmarks/page.py RUN [--data DIR] [--drags 20]

Headless Chromium with software WebGL. A drag moves a direction, so the network runs; "drag_pixels" is what it draws
while the hand moves, "whole_ms" the picture in full. Beside RUN's network that of paper-128 with random weights.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from train_step import cpu_name

from progan.export.web import export_page
from progan.networks import Generator
from progan.presets import PRESETS
from progan.weights import save_network

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
DRAG = """drags => {
  const input = document.querySelector("#directions input");
  const time = (act) => { const start = performance.now(); act(); return performance.now() - start; };
  const drag = (i) => { input.value = (i % 50) / 10; input.dispatchEvent(new Event("input")); };
  for (let i = 0; i < 3; i++) drag(i);
  const times = Array.from({length: drags}, (_, i) => time(() => drag(i))).sort((a, b) => a - b);
  const whole = time(() => document.querySelector("#save").click());
  return {drag_ms: times[drags >> 1], drag_ms_slowest: times.at(-1), save: whole};
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--drags", type=int, default=20)
    args = parser.parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        torch.manual_seed(0)
        save_network(folder / "paper-128.safetensors", Generator(PRESETS["paper-128"].config.g))
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        result["machine"] = (
            f"{cpu_name()}, Chromium {browser.version}, software WebGL, load average {os.getloadavg()[0]:.1f}"
        )
        for source, data in ((args.run, args.data), (folder / "paper-128.safetensors", None)):
            size = export_page(source, folder / "page.html", data=data, title="benchmark")
            rows: dict[str, object] = {"page_mb": round(size / 1e6, 2)}
            for engine in ("chosen", "webgl", "half", "javascript"):
                page = browser.new_page()
                page.goto((folder / "page.html").as_uri() + ("" if engine == "chosen" else f"#{engine}"))
                page.wait_for_selector("html.ready", timeout=120_000)
                page.wait_for_timeout(3000)  # the wall is drawn
                about = page.inner_text("#engine")
                times = page.evaluate(DRAG, args.drags)
                pixels = int(about.split()[-2])
                whole = times["save"] if pixels < int(page.get_attribute("#canvas", "width") or 0) else times["drag_ms"]
                rows[engine] = {
                    "engine": about.split(",")[0],
                    "drag_pixels": pixels,
                    "drag_ms": round(times["drag_ms"], 1),
                    "drag_ms_slowest": round(times["drag_ms_slowest"], 1),
                    "whole_ms": round(whole, 1),
                }
                page.close()
            result[source.stem] = rows
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
