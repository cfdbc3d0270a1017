"""The report of mode recovery: table and picture of the modes found (paper appendix E)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from progan.images import make_grid
from progan.studies.modes.classifier import MODES
from progan.studies.tables import markdown_table, not_there, plus_minus
from progan.support.progress import duration

NOISE = (MODES - 1) / 2  # over the number of images: the KL divergence that even draws are expected to have
TITLE = 20  # pixels
MISSING = np.array([200, 0, 0])[:, None, None]  # red


def markdown(table: Mapping[str, Any]) -> str:
    """The table of `modes.study.recover_modes` for people."""
    reals, classifier = table["reals"], table["classifier"]
    lines = []
    seeds = max(len(row["modes"]["seeds"]) for row in table["rows"])
    for row in table["rows"]:
        modes = plus_minus(row["modes"]["mean"], row["modes"]["std"], ".1f" if seeds > 1 else ".0f")
        kl = plus_minus(row["kl"]["mean"], row["kl"]["std"], ".3f")
        parameters = f"{row['parameters']['g']:,}, {row['parameters']['d']:,}"
        lines.append([f"1/{row['divisor']}", row["title"], modes, kl, duration(row["seconds"]["mean"]), parameters])
    lines.append(["", f"{reals['images']:,} reals", str(reals["modes"]), f"{reals['kl']:.3f}", "", ""])
    heads = ["D", "variant", "modes", "KL", "training", "parameters of G, D"]
    return "\n".join(
        [
            "# Modes found with small discriminators (paper appendix E)",
            "",
            f"Scale `{table['scale']}`: {table['nimg'] / 1000:,g} kimg on {table['data']['images']:,} images"
            f" ({table['data']['hash'][:12]}), {table['images']:,} generated images, {seeds} seed{'s' * (seeds > 1)}.",
            f"Each + adds to the variant before. The digit classifier names {classifier['accuracy']:.2%} of"
            f" {classifier['held_out']:,} held-out digits rightly.",
            "",
            markdown_table(heads, lines, words=2, tight=True),
            "±: standard deviation over seeds (n - 1). KL: divergence from an even distribution, in nats. The draw of"
            f" {table['images']:,} images alone gives {NOISE / table['images']:.3f}, that of the reals"
            f" {NOISE / reals['images']:.3f}; the rest of theirs is uneven digits and errors of the classifier.",
            "modes.png: a strip per run, a square per red digit; down green, across blue; missing modes are red."
            " grid.png: images of each run, and of the data.",
            *filter(None, [not_there(table["missing"])]),
            "",
        ]
    )


def modes_picture(counts: Mapping[str, Sequence[int]]) -> Image.Image:
    """A titled strip for each run's 1,000 counts: ten squares, red digit 0 to 9, of 10 x 10 modes, green down.

    A mode is as bright as its share, white from twice the even share up; one that is missing is red.
    """
    strips = []
    for values in counts.values():
        share = np.asarray(values, dtype=float).reshape(10, 10, 10) * MODES / max(1, sum(values))
        modes = np.where(share[:, None] > 0, 55 + 100 * share[:, None].clip(0, 2), MISSING)  # [10, 3, 10, 10]
        squares = np.pad(modes.astype(np.uint8), ((0, 0), (0, 0), (1, 1), (1, 1)))
        strips.append(make_grid(squares, 10, 1, scale=6))
    height = strips[0].height + TITLE
    picture = Image.new("RGB", (strips[0].width, height * len(strips)), "white")
    for i, (name, strip) in enumerate(zip(counts, strips, strict=True)):
        ImageDraw.Draw(picture).text((6, i * height + 4), name, fill="black")
        picture.paste(strip, (0, i * height + TITLE))
    return picture
