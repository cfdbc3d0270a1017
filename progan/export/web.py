"""A generator as one HTML page that computes its pictures itself, without server or network."""

import base64
import hashlib
import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

import progan
from progan.data.store.manifest import read_manifest
from progan.export.directions import directions
from progan.export.pack import page_bytes, page_layers, page_weights
from progan.export.plan import plan
from progan.networks import parameter_count
from progan.run.folder import read_config
from progan.sampling.images import class_names, load_generator
from progan.support.errors import ConfigError, DataError, RunError, printable
from progan.support.files import write_text
from progan.support.hub import weights_file
from progan.support.plain_files import open_plain
from progan.support.run_files import RunFolder
from progan.weights import load_network

MARK = "progan export"
LARGEST_MB = 128  # of weights: a browser holds them as text, as bytes and as numbers
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([a-z_]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:function|const) (\w+))", re.MULTILINE)


def export_page(source: Path, out: Path, *, data: Path | None = None, title: str) -> int:
    """Write the page of a run folder, a weights file or hf://OWNER/NAME; returns its size in bytes.

    It grows as far as the network had. data: the data set it was trained on, whose author and licence the page names;
    needed only for weights that do not say them. Replaces a page that this function wrote and no other file. Raises
    ConfigError for an `out` that it may not write and a network too large for a browser, RunError for a source that is
    no generator, and DataError for a data set that is none, or not the one of the run.
    """
    check_out(out)
    path = weights_file(source)
    g, stage = load_generator(path)
    about = load_network(path, "generator")[1]
    p = plan(g, stage["resolution"])
    size = page_bytes(p) / 1e6
    if size > LARGEST_MB:
        raise ConfigError(
            f"{source}: this network makes a page of {size:.0f} MB, and browsers open at most {LARGEST_MB} MB; "
            "train one with a smaller fmap_max"
        )
    try:
        weights = page_weights(p)
    except ValueError as error:
        raise RunError(f"{source}: {error}; export another moment of the run") from None
    manifest = about.get("data") or {} if data is None else _manifest(source, about, data)
    names = class_names(manifest.get("label_names"), g.config.label_dim)
    if len(names) != g.config.label_dim:
        raise DataError(f"{data}: {len(names)} classes, but the network has {g.config.label_dim}; give its own data")
    network = {
        "layers": page_layers(p),
        "resolutions": p.resolutions,
        "stage": stage,
        "channels": g.config.channels,
        "latentDim": g.config.z_dim,
        "classes": g.config.label_dim,
        "classNames": names,
        "normalizeLatent": g.config.normalize_latent,
        "tanh": p.tanh,
        "directions": [[round(x, 5) for x in row] for row in directions(p).tolist()],
    }
    page = _render(
        network=_json(network),
        weights=weights,
        title=title,
        parameters=parameter_count(g),
        resolution=stage["resolution"],
        latent_dim=g.config.z_dim,
        class_names=names,
        nimg=about.get("nimg", 0),  # how many pictures it had been shown
        count=manifest.get("count"),
        data=bool(manifest),
        credit=manifest.get("attribution") or {},
    )
    write_text(out, page)
    return len(page.encode())


def check_out(out: Path) -> None:
    """Raises ConfigError when `out` is in a folder that is missing, or is anything but a page of this program."""
    if not out.parent.is_dir():
        raise ConfigError(f"--out: there is no folder {out.parent}; make it first or choose another")
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; give the name of a file such as {out / 'page.html'}")
    if out.exists():
        try:
            with open_plain(out) as file:
                start = file.read(2048)
        except OSError as error:
            raise ConfigError(f"--out: {out} cannot be read ({printable(error)}); choose another name") from None
        if f'<meta name="generator" content="{MARK} '.encode() not in start:
            raise ConfigError(f"--out: {out} exists and is no page of progan export; choose another name")


def bundle(entry: str = "app.js") -> str:
    """The modules of progan/export/page as one script, each in a function of its own, after those it imports.

    The convention that makes this a matter of text: an import is one line, `import {a, b} from "./name.js";`, and an
    export stands before `function` or `const` at the start of a line.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        for _, other in _IMPORT.findall(_page_file(name)):
            if other not in order:
                visit(other)
        if name not in order:
            order.append(name)

    visit(entry)
    return '"use strict";\nconst modules = {};\n' + "\n".join(map(_module, order))


def _module(name: str) -> str:
    text = _page_file(name)
    exports = ", ".join(match[1] for match in _EXPORT.finditer(text))
    body = _EXPORT.sub("", _IMPORT.sub(r'const \1 = modules["\2"];', text))
    return f'modules["{name}"] = (() => {{\n{body}return {{{exports}}};\n}})();'


@cache
def _page_file(name: str) -> str:
    return resources.files("progan.export").joinpath("page", name).read_text("utf-8")


def _render(**facts: Any) -> str:
    style, script = _page_file("page.css"), bundle()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_page_file("page.html")).render(
        **facts,
        style=Markup(style),
        style_hash=_csp_hash(style),
        script=Markup(script),
        script_hash=_csp_hash(script),
        mark=f"{MARK} {progan.__version__}",
    )


def _csp_hash(text: str) -> str:
    """By which the page's policy knows its own script and style from any other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> Markup:
    """JSON that cannot end the element it stands in."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def _manifest(source: Path, about: dict[str, Any], data: Path) -> dict[str, Any]:
    """What the data set says about itself; the weights or the run folder know which one is their own."""
    manifest = read_manifest(data)
    if (about.get("data") or manifest)["hash"] != manifest["hash"]:
        raise DataError(f"{data}: is not the data set that {source} was trained on; give that one, or none")
    run = RunFolder(source)
    if run.config.is_file():
        own = read_config(run, "leave --data out")[1]["data"]
        if own != manifest["hash"]:
            raise DataError(f"{data}: is not the data set that {source} was trained on; give that one, or none")
    return manifest
