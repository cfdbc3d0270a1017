"""The model card of a generator, written from what its run knows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from progan.config import GeneratorConfig
from progan.evaluation.meter import number
from progan.metrics.suite import value_title

COLOURS = {1: "gray", 2: "gray and alpha", 3: "RGB", 4: "RGBA"}
CREDIT = {
    "title": "",
    "creator": "by",
    "source": "from",
    "licence": "licence:",
    "licence_url": "",
    "changes": "changes:",
}


def model_card(
    name: str,
    config: GeneratorConfig,
    about: Mapping[str, Any],
    *,
    parameters: int,
    seeds: int,
    metrics: Sequence[Mapping[str, Any]],
) -> str:
    """Markdown with the header that the hub reads.

    name: OWNER/NAME; about: what the weights file says beside its config; seeds: images in grid.png, from seed 0 on;
    metrics: the run's newest measurements, lines of metrics.jsonl.
    """
    return "\n".join(
        [
            "---",
            "library_name: progan",
            "pipeline_tag: unconditional-image-generation",
            "tags: [gan, progressive-growing, image-generation, safetensors]",
            "---",
            "",
            f"# {name}",
            "",
            *_what(config, about, parameters, seeds),
            "## Data",
            "",
            *_data(about.get("data")),
            "## Metrics",
            "",
            *_metrics(metrics),
            "## How to load it",
            "",
            *_loading(name, config),
            "## What it cannot do",
            "",
            *_limits(config, about),
        ]
    )


def _what(config: GeneratorConfig, about: Mapping[str, Any], parameters: int, seeds: int) -> Iterator[str]:
    size = about.get("resolution", config.resolution)
    classes = f", of {config.label_dim} classes" if config.label_dim else ""
    shown = f" Training showed {about['nimg']:,} real images." if about.get("nimg") else ""
    yield (
        f"A generator of {COLOURS[config.channels]} images of {size}x{size} pixels{classes}, trained with progan:"
        " [progressive growing of GANs](https://arxiv.org/abs/1710.10196) (Karras et al., ICLR 2018) in PyTorch."
        f"{shown} {parameters:,} parameters; these are their moving average."
    )
    yield from ("", f"![{seeds} generated images](grid.png)", "", f"*Seeds 0 to {seeds - 1}, not chosen.*", "")


def _data(data: Mapping[str, Any] | None) -> Iterator[str]:
    if not data:
        yield from ("The weights do not say what they were trained on, nor under which licence that is.", "")
        return
    kind = (data.get("source") or {}).get("kind")
    made = f", made by `progan data create {kind}`" if kind else ""
    yield f"{data['count']:,} images{made}; sha256 {data['hash']}."
    if names := data.get("label_names"):
        yield f"Classes: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
    yield ""
    credit = data.get("attribution") or {}
    if credit:
        yield "; ".join(f"{word} {credit[key]}".strip() for key, word in CREDIT.items() if credit.get(key)) + "."
        yield from (["", str(credit["text"])] if credit.get("text") else [])
    if not credit.get("licence"):
        yield "The licence of the data is not known."
    yield from ("", "The licence of these weights is for who publishes them to say; the data's is a part of it.", "")


def _metrics(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        yield from ("Not measured.", "")
        return
    yield from ("| metric | images | value | ± | reals |", "|---|---|---|---|---|")
    for row in rows:
        floor = row.get("floor", row.get("reals", {}))
        for level, value in row["values"].items():
            cells = (number(value), number(row["spread"].get(level)), number(floor.get(level)))
            images = row.get("images", {}).get("fakes", 0)
            yield f"| {value_title(row['metric'], level)} | {images:,} | {' | '.join(cells)} |"
    yield ""
    yield (
        f"Measured against the training data when {rows[0]['nimg']:,} images had been shown. Reals: what real images"
        " reach against other real images, or among themselves. Values from other numbers of images or other data do"
        " not compare."
    )
    yield ""


def _loading(name: str, config: GeneratorConfig) -> Iterator[str]:
    labels = ", labels" if config.label_dim else ""
    yield from ("```", 'pip install "progan[hub]"', f"progan generate hf://{name} --seeds 0-63 --grid 8x8 --out images")
    yield from ("```", "", "```python", "import progan")
    if config.label_dim:
        yield "import torch"
    yield from (
        "",
        f'g, stage = progan.load_generator("hf://{name}")',
        "z = progan.seed_latents(range(8), g.config.z_dim)",
    )
    if config.label_dim:
        yield "labels = torch.eye(g.config.label_dim)[[0] * 8]  # eight of the first class"
    yield f"images = progan.sample(g, z{labels}, **stage)  # uint8 [8, {config.channels}, R, R]"
    yield from ("```", "", "Weights and config are one safetensors file; nothing in it is executed.", "")


def _limits(config: GeneratorConfig, about: Mapping[str, Any]) -> Iterator[str]:
    size, alpha = about.get("resolution", config.resolution), about.get("alpha", 1.0)
    if size < config.resolution or alpha < 1.0:
        yield (
            f"- It has not grown up: of {config.resolution}x{config.resolution} pixels it makes {size}x{size}, with the"
            f" newest block at weight {alpha:g}."
        )
    steers = "their class and their seed" if config.label_dim else "their seed"
    yield f"- It makes images like those that it learned from and no others; nothing but {steers} chooses which."
    yield "- It does not find the seed of a given picture, and changes no picture."
    yield "- What was rare in its data, or missing, is so in its images; what was skewed there is skewed here."
    yield "- An image may come close to a training image; `progan evaluate --metrics neighbours` looks for the nearest."
    yield ""
