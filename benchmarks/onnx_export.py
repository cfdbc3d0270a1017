"""Does the 1024x1024 generator run as well in ONNX Runtime as in PyTorch? One image; random weights; prints JSON.

    python benchmarks/onnx_export.py

Each runs in a process of its own, so that its peak of resident memory (after loading, and while it runs) is its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progan.config import GeneratorConfig
from progan.export.onnx_file import write_onnx
from progan.networks import Generator
from progan.weights import load_network, save_network

REPEATS = 5


def measure(engine: str, folder: Path) -> dict[str, Any]:
    """Seconds to load, of each image after the first, and peak memory; the image goes to a file."""
    z = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    if engine == "torch":
        g, _ = load_network(folder / "g.safetensors", "generator")
        run = torch.no_grad()(lambda: g(z, resolution=1024).numpy())
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "g.onnx"), providers=["CPUExecutionProvider"])
        run = lambda: session.run(["rgb1024"], {"z": z.numpy()})[0]  # noqa: E731
    loaded = time.perf_counter() - start
    image, times = run(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    np.save(folder / f"{engine}.npy", image)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"load_s": loaded, "image_s": times, "peak_mb": peak / 1024}


def main() -> None:
    """Write both files, measure both engines, compare their images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        g = Generator(GeneratorConfig(resolution=1024)).eval().requires_grad_(False)
        save_network(folder / "g.safetensors", g)
        start = time.perf_counter()
        write_onnx(g, {}, folder / "g.onnx")
        result: dict[str, Any] = {"export_s": time.perf_counter() - start}
        result["file_mb"] = (folder / "g.onnx").stat().st_size / 1e6
        for engine in ("torch", "onnxruntime"):
            command = [sys.executable, __file__, engine, name]
            result[engine] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        images = [np.load(folder / f"{engine}.npy") for engine in ("torch", "onnxruntime")]
        result["largest_difference"] = float(np.abs(images[0] - images[1]).max())
        result["deviation_of_the_image"] = float(images[0].std())
        result["threads"] = torch.get_num_threads()
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
