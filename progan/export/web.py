"""`progan export --to web`: a generator as one HTML file, which opens from the disk and asks for nothing else."""

import base64
import hashlib
import io
import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import torch

from progan.data.store.pyramid import ImagePyramid
from progan.export.inline import inlined
from progan.export.pack import page_bytes, page_layers, page_weights
from progan.export.plan import Activation, Dense, PixelNorm, Plan, plan, run_features
from progan.images import to_pil, to_uint8
from progan.networks import Generator
from progan.sampling.images import load_generator, one_hot, seed_latents
from progan.support.errors import ConfigError, RunError
from progan.support.files import write_text
from progan.support.rng import keyed_generator, latents
from progan.support.run_files import RunFolder
from progan.weights import load_network

PAGE = Path(__file__).parent / "page"
MARK = '<meta name="generator" content="progan export">'
LARGEST = 64 * 2**20  # bytes of weights that a phone's browser still opens
DIRECTIONS = 6
FEATURE_LATENTS = 10_000


def write_page(source: Path, out: Path, *, data: Path | None = None) -> int:
    """Write the page of a run folder or a weights file; returns its size in bytes.

    data: the data set that it learned from, for weights that do not say. A page that this function wrote is
    overwritten, any other file is not. Raises ConfigError for such a file, for a network too large for a browser and
    for a data set that the run did not learn from; RunError when there is no generator.
    """
    if out.suffix != ".html":
        raise ConfigError(f"--out: {out} is no page; give a name in .html")
    if out.exists() and not _is_page(out):
        raise ConfigError(f"--out: {out} exists and is no page of progan export; give another name")
    path = RunFolder(source).newest_generator() if source.is_dir() else source
    g, stage = load_generator(path)
    p = plan(g, stage["resolution"])
    if page_bytes(p) > LARGEST:
        raise ConfigError(
            f"{source}: the network makes a page of {page_bytes(p) / 2**20:.0f} MiB, too large for a browser;"
            f" {LARGEST >> 20} MiB at most"
        )
    text = page(g, p, stage, _facts(source, path, data))
    write_text(out, text)
    return len(text.encode())


def page(g: Generator, p: Plan, stage: dict[str, Any], facts: dict[str, Any] | None) -> str:
    """The page as text. facts: what the weights say of their data, if they say anything."""
    script, style = inlined(PAGE, "main"), (PAGE / "page.css").read_text(encoding="utf-8")
    size = stage["resolution"]
    names = (facts or {}).get("label_names") or [str(i) for i in range(g.config.label_dim)]
    directions = principal_directions(p)
    about = {
        "resolutions": p.resolutions,
        "stage": stage,
        "channels": g.config.channels,
        "tanh": p.tanh,
        "latentDim": g.config.z_dim,
        "classes": g.config.label_dim,
        "classNames": names if g.config.label_dim else [],
        "normalizeLatent": g.config.normalize_latent,
        "layers": page_layers(p),
        "directions": [[round(x, 5) for x in row] for row in directions.tolist()],
    }
    return Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        title=f"Grown from 4 × 4 to {size} × {size}",
        mark=MARK,
        icon=_icon(g, stage),
        provenance=_provenance(facts),
        about=json.dumps(about, ensure_ascii=False).replace("<", "\\u003c"),
        weights=page_weights(p),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


@torch.no_grad()
def principal_directions(p: Plan) -> torch.Tensor:
    """Where in latent space the first features vary most: float32 [directions, z_dim], each as long as latents / 8.

    The principal components of the first layer's features over 10,000 latents, carried back to the latents by
    regression (Härkönen et al. 2020, GANSpace).
    """
    dim, classes = p.config.z_dim, p.config.label_dim
    z = latents(0, "directions", 0, FEATURE_LATENTS, dim)
    labels = one_hot([i % classes for i in range(len(z))], classes) if classes else None
    end = 1 + next(i for i, op in enumerate(p.operations) if isinstance(op, Activation))
    first = Plan(p.config, p.operations[:end])
    assert all(isinstance(op, PixelNorm | Dense | Activation) for op in first.operations)
    features = run_features(first, z, labels).flatten(1)
    features = features - features.mean(dim=0)
    start = torch.randn(features.shape[1], DIRECTIONS + 4, generator=keyed_generator(0, "directions start"))
    basis = torch.linalg.qr(start[:, : min(start.shape)]).Q
    for _ in range(8):  # subspace iteration: the few largest of up to 8,192 components
        basis = torch.linalg.qr(features.T @ (features @ basis)).Q
    along = features @ basis
    order = torch.linalg.svd(along, full_matrices=False).Vh[: min(DIRECTIONS, dim)]
    found = (along @ order.T).T @ z  # [directions, dim]
    found *= found.gather(1, found.abs().argmax(dim=1, keepdim=True)).sign()
    return found / found.norm(dim=1, keepdim=True).clamp(min=1e-12) * dim**0.5 / 8


def _is_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(4096)
    except OSError:
        return False


def _facts(source: Path, path: Path, data: Path | None) -> dict[str, Any] | None:
    """What is known of the data: what the weights say, or else the data set that was named."""
    said: dict[str, Any] | None = load_network(path, "generator")[1].get("data")
    if data is None:
        return said
    given = ImagePyramid.open(data).about
    known = said and said.get("hash")
    config = RunFolder(source).config
    if not known and config.exists():
        try:
            known = json.loads(config.read_text()).get("data")
        except (OSError, ValueError, AttributeError):
            raise RunError(f"{config}: cannot be read; give the .safetensors file in place of the run") from None
    if known and known != given["hash"]:
        raise ConfigError(f"--data: {data} is not what this generator learned from; give that data set or leave it out")
    return given


def _provenance(facts: dict[str, Any] | None) -> str:
    """What the data was and its licence, as HTML; nothing that is not known."""
    if not facts:
        return "These weights do not say what pictures they learned from, nor under which licence."
    sentence = f"Learned from {facts['count']:,} pictures" if facts.get("count") else "Learned from pictures"
    credit = facts.get("attribution")
    if not isinstance(credit, dict) or not credit.get("licence"):
        return f"{sentence}; their data set states no licence."
    title = _link(credit.get("title") or "a work", credit.get("source"))
    creator = f" by {_link(credit['creator'], credit.get('creator_url'))}" if credit.get("creator") else ""
    licence = _link(credit["licence"], credit.get("licence_url"))
    changes = f" {escape(credit['changes'])}." if credit.get("changes") else ""
    return f"{sentence} made from {title}{creator}, licensed under {licence}.{changes}"


def _link(text: str, url: Any) -> str:
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        return escape(text)
    return f'<a href="{escape(url)}" rel="noreferrer">{escape(text)}</a>'


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _icon(g: Generator, stage: dict[str, Any]) -> str:
    """The first picture, small, as a data URL: no browser looks for an icon elsewhere."""
    resolution = min(32, stage["resolution"])
    labels = one_hot([0], g.config.label_dim)
    with torch.no_grad():
        image = to_uint8(g(seed_latents([0], g.config.z_dim), labels, resolution=resolution))[0].numpy()
    file = io.BytesIO()
    to_pil(image).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
