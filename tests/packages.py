"""Data that a distribution ships as a package: taken from where it is installed, or fetched once and kept."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def fashion_mnist() -> Path:
    """The folder of Fashion-MNIST's four files, from Debian's package; skips the test when it cannot be had."""
    installed = Path("/usr/share/datasets/fashion-mnist")
    if installed.is_dir():
        return installed
    return _unpacked("dataset-fashion-mnist") / installed.relative_to("/")


def _unpacked(package: str) -> Path:
    """The root of a Debian package's files, fetched into PROGAN_TEST_CACHE (default ~/.cache/progan-tests)."""
    cache = Path(os.environ.get("PROGAN_TEST_CACHE") or Path.home() / ".cache/progan-tests").absolute()
    root = cache / package
    if root.is_dir():
        return root
    partial = cache / f"{package}.partial-{os.getpid()}"
    try:
        (partial / "root").mkdir(parents=True)
        subprocess.run(["apt-get", "download", package], cwd=partial, check=True, capture_output=True, timeout=300)
        (archive,) = partial.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, partial / "root"], check=True, capture_output=True, timeout=300)
        (partial / "root").replace(root)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        if root.is_dir():  # another process was faster
            return root
        reason = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip() or error
        pytest.skip(f"needs Debian's package {package}, which cannot be fetched: {reason}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root
