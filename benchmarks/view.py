"""What does the viewer cost, and how quickly does it answer? Prints JSON.

training: images per second with the viewer open on the run, over without, interleaved; a ratio of 1 is no cost.
open: seconds until the list of 200 runs with 500 pictures each is there. slider: milliseconds from asking for a picture
to having it, of the demo's network and of a 1024x1024 one.

    python benchmarks/view.py [--rounds 5]
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from progan.config import GeneratorConfig
from progan.data.store.pyramid import box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.networks import Generator
from progan.presets import PRESETS
from progan.support.config_io import to_json
from progan.support.files import write_json
from progan.view.runs import run_id
from progan.weights import save_network

DEMO = PRESETS["demo"].config


@contextmanager
def viewing(folder: Path) -> Iterator[str]:
    """The address of a viewer of its own process."""
    command = [sys.executable, "-u", "-m", "progan", "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def ask(address: str, path: str, until: bytes = b"") -> bytes:
    """The content of an answer, or as much of it as ends with `until`."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 0, timeout=120)
    connection.request("GET", where.path + path)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    if not until:
        return answer.read()
    content = b""
    while until not in content:
        content += answer.read1(65536)
    connection.close()
    return content


def listen(address: str, stop: threading.Event) -> None:
    """What an open page does: hears the news, and fetches the run at each."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 0)
    connection.request("GET", where.path + "events")
    answer = connection.getresponse()
    before = b""
    while not stop.is_set():
        line = answer.readline()
        if line.startswith(b"data: ") and line != before:
            before = line
            for run in json.loads(line[6:])["runs"]:
                if run["state"] != "unreadable":
                    ask(address, f"runs/{run['id']}")
                    if run["picture"] is not None:
                        ask(address, f"runs/{run['id']}/fakes/{run['picture']}")
    connection.close()


def trained(data: Path, out: Path, kimg: float) -> float:
    """Images per second of a run of its own process, by its own clock."""
    flags = ["--stable-kimg", "0.1", "--fade-kimg", "0.1", "--total-kimg", str(kimg), "--tick-nimg", "250"]
    command = [sys.executable, "-m", "progan", "train", "--data", str(data), "--out", str(out), *flags]
    subprocess.run(command, check=True, capture_output=True)
    last = json.loads((out / "timing.jsonl").read_text().splitlines()[-1])
    return float(last["nimg"] / last["seconds"])


def cost(folder: Path, rounds: int) -> dict[str, Any]:
    """Training with and without somebody who watches."""
    rng = np.random.default_rng(0)
    with PyramidWriter(folder / "data", resolution=32, channels=3, source={"kind": "noise"}) as writer:
        for _ in range(200):
            writer.append(box_pyramid(rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)), None)
    ratios = []
    for turn in range(rounds):
        speeds = {}
        for watched in (turn % 2 == 0, turn % 2 == 1):
            runs = folder / f"runs-{turn}-{watched}"
            runs.mkdir()
            if not watched:
                speeds[watched] = trained(folder / "data", runs / "run", 2.5)
                continue
            with viewing(runs) as address:
                stop = threading.Event()
                watcher = threading.Thread(target=listen, args=(address, stop), daemon=True)
                watcher.start()
                speeds[watched] = trained(folder / "data", runs / "run", 2.5)
                stop.set()
        ratios.append(speeds[True] / speeds[False])
    return {"watched_over_alone": round(statistics.median(ratios), 3), "rounds": [round(r, 3) for r in ratios]}


def opening(folder: Path) -> dict[str, Any]:
    """The first news of a folder with many runs."""
    for i in range(200):
        run = folder / f"run{i:03d}"
        run.mkdir(parents=True)
        write_json(run / "config.json", {"config": to_json(DEMO), "data": "", "init": ""})
        line = {"seconds": 1.0, "img_per_s": 100.0}
        (run / "timing.jsonl").write_text("".join(json.dumps({"nimg": 1000 * k, **line}) + "\n" for k in range(1, 37)))
        for k in range(500):
            (run / f"fakes-{72 * k:09d}.png").touch()
    with viewing(folder) as address:
        start = time.perf_counter()
        first = ask(address, "events", until=b"\n\n")
        took = time.perf_counter() - start
        assert first.count(b'"picture": 35928') == 200
    return {"runs": 200, "pictures_each": 500, "seconds": round(took, 3)}


def slider(folder: Path) -> dict[str, Any]:
    """Every picture of a hand that moves the growth slider once along its way."""
    found: dict[str, Any] = {}
    for name, config in (("demo", DEMO.g), ("1024", GeneratorConfig(resolution=1024))):
        run = folder / name
        (run / "snapshots").mkdir(parents=True)
        write_json(run / "config.json", {"config": to_json(DEMO), "data": "", "init": ""})
        torch.manual_seed(0)
        path = run / "snapshots" / "generator-000000001.safetensors"
        save_network(path, Generator(config), resolution=config.resolution, alpha=1.0, nimg=1)
    with viewing(folder) as address:
        for name, config in (("demo", DEMO.g), ("1024", GeneratorConfig(resolution=1024))):
            base = f"runs/{run_id(folder / name)}/generators/1/picture?points=0"
            ask(address, base)  # the network is read, and its directions found
            times = []
            for alpha in np.linspace(0.1, 1, 20 if name == "demo" else 5):
                start = time.perf_counter()
                ask(address, f"{base}&resolution={config.resolution}&alpha={alpha:.3f}")
                times.append(1000 * (time.perf_counter() - start))
            found[name] = {"median_ms": round(statistics.median(times), 1), "worst_ms": round(max(times), 1)}
    return found


def main() -> None:
    """All three questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        answers = {"slider": slider(folder / "slider"), "open": opening(folder / "many")}
        answers["training"] = cost(folder, arguments.rounds)
    print(json.dumps(answers, indent=2))


if __name__ == "__main__":
    main()
