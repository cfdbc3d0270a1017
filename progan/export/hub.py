"""A generator on the Hugging Face hub: `progan push`."""

import io
import json
from operator import methodcaller
from pathlib import Path

from progan.config import GeneratorConfig
from progan.export.card import model_card
from progan.images import make_grid
from progan.networks import Generator, parameter_count
from progan.run.metrics_log import read_metrics
from progan.sampling.images import one_hot, sample, seed_latents
from progan.support.config_io import to_json
from progan.support.errors import ConfigError
from progan.support.files import make_folder, write_whole
from progan.support.hub import WEIGHTS, Repository, hub_errors, hub_package, weights_file
from progan.support.run_files import RunFolder
from progan.weights import load_network


def push(source: Path, name: str, *, private: bool = False) -> str:
    """Put the files of a generator into the repository `name` as one commit, made if it is not there; returns its URL.

    The hub's own package finds the token: HF_TOKEN, or what `hf auth login` keeps. Raises ConfigError for a name that
    is none, RunError when there is no generator or the hub refuses, UserError when it cannot be reached.
    """
    repository = _repository(name)
    hub = hub_package(str(repository))
    files = hub_files(source, name)
    with hub_errors(str(repository)):
        api = hub.HfApi()
        url = api.create_repo(repository.name, private=private or None, exist_ok=True)
        adds = [hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files.items()]
        api.create_commit(repository.name, adds, commit_message="A generator by progan push")
    return str(url)


def write_files(source: Path, name: str, out: Path) -> None:
    """Write what `push` would send into the folder `out`; raises ConfigError when that is not empty."""
    _repository(name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} is there already and not empty; name a new folder")
    files = hub_files(source, name)
    make_folder("--out", out)
    for path, data in files.items():
        write_whole(out / path, methodcaller("write", data))


def hub_files(source: Path, name: str) -> dict[str, bytes]:
    """Weights, config, pictures and model card of a run's newest generator or of a weights file, by file name."""
    path = weights_file(source)
    g, about = load_network(path, "generator")
    data = (about.get("data") or {}).get("hash")
    rows = read_metrics(RunFolder(source).metrics) if source.is_dir() else []
    rows = [row for row in rows if row["data"] == data]  # others measured it against what it did not learn from
    newest = [row for row in rows if row["nimg"] == rows[-1]["nimg"]]
    columns = max(1, min(8, 2048 // g.config.resolution))
    config = {"config": to_json(g.config), **about}
    card = model_card(name, g.config, about, parameters=parameter_count(g), seeds=columns**2, metrics=newest)
    return {
        WEIGHTS: path.read_bytes(),
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "grid.png": _grid(g.requires_grad_(False), about, columns),
        "README.md": card.encode(),
    }


def _grid(g: Generator, about: dict[str, object], columns: int) -> bytes:
    config: GeneratorConfig = g.config
    seeds = range(columns**2)
    labels = one_hot([seed % config.label_dim if config.label_dim else 0 for seed in seeds], config.label_dim)
    stage = {"resolution": about.get("resolution"), "alpha": about.get("alpha", 1.0)}
    images = sample(g, seed_latents(seeds, config.z_dim), labels, **stage)
    buffer = io.BytesIO()
    make_grid(images, columns, columns).save(buffer, format="PNG")
    return buffer.getvalue()


def _repository(name: str) -> Repository:
    repository = Repository.parse(name)
    if repository.revision is not None:
        raise ConfigError(f"{name}: what is pushed becomes the newest revision; leave @{repository.revision} out")
    return repository
