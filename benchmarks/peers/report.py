"""What benchmarks/peers.py found: peers.json, tables in peers.md, faces side by side in peers.png."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from progan.images import make_grid, write_png
from progan.studies.tables import markdown_table, plus_minus
from progan.support.files import write_json, write_text

COLUMNS, ROWS, SCALE = 8, 4, 2
GAP, LETTER = 16, 18
NAMES = {
    "progan": "progan",
    "peer-own": "peer, its own settings",
    "peer-ours": "peer, progan's settings",
    "progan-fp32": "progan fp32",
    "progan-bf16": "progan bf16",
    "peer-fp32": "peer fp32",
}


def write_report(out: Path, found: dict[str, Any], reals: np.ndarray) -> None:
    """reals: uint8 [32, 3, R, R], to be shown beside the fakes."""
    write_json(out / "peers.json", found)
    parts = [head(found)]
    if "speed" in found:
        parts.append(speed_part(found["speed"]))
    if "quality" in found:
        parts.append(quality_part(found["quality"]))
        write_png(out / "peers.png", picture(out, found["quality"]["contenders"], reals))
    text = "\n".join([*parts, mends_part(found)])
    write_text(out / "peers.md", text)
    print(text)


def head(found: dict[str, Any]) -> str:
    """What was compared, and where."""
    machine = found["machine"]
    return (
        f"# progan beside {found['peer']}\n\nCommit {found['commit'][:12]} of {found['peer']}, on"
        f" {machine['processor']}, threads: {machine['threads']}, torch {machine['torch']}.\n"
    )


def speed_part(rows: list[dict[str, Any]]) -> str:
    """Steps: images per second, and how many of ours go into one of the peer's."""
    forms = [*rows[0]["peer_seconds_over_progan"]]
    names = [*rows[0]["contenders"]]
    heads = [
        "pixels",
        *(f"{NAMES[name]}, img/s" for name in names),
        *(f"peer's seconds over progan's, {f}" for f in forms),
    ]
    lines = []
    for row in rows:
        ratios = (row["peer_seconds_over_progan"][form] for form in forms)
        lines.append(
            [
                str(row["pixels"]),
                *(f"{row['contenders'][name]['img_per_s']:.3g}" for name in names),
                *(f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" for ratio in ratios),
            ]
        )
    about = (
        f"A training step of the full network, `fmap_base` {rows[0]['fmap_base']}, `fmap_max` {rows[0]['fmap_max']},"
        f" minibatch of {rows[0]['minibatch']}, {len(rows[0]['contenders'][names[0]]['seconds'])} rounds in turn."
    )
    bf16 = "" if "bf16" not in forms else " The peer has no bf16."
    return f"## Speed\n\n{about}{bf16}\n\n{markdown_table(heads, lines, words=0)}"


def quality_part(found: dict[str, Any]) -> str:
    """What `progan evaluate` says of each after the same seconds."""
    heads = ("", "kimg", "SWD x1e3", "MS-SSIM", "parameters of G, D", "format", "rate", "drawn from")
    lines = []
    for name, row in found["contenders"].items():
        swd, ssim = row["swd"], row["ms_ssim"]
        lines.append(
            (
                NAMES[name],
                f"{row['nimg'] / 1000:.1f}",
                plus_minus(swd["values"]["average"], swd["spread"].get("average"), ".2f"),
                plus_minus(ssim["values"][""], ssim["spread"].get(""), ".3f"),
                f"{row['parameters']['g']:,}, {row['parameters']['d']:,}",
                row["precision"],
                f"{row['settings']['lr']:g}",
                row["drawn_from"],
            )
        )
    lines.append(("reals", "", f"{swd['reals']['average']:.2f}", f"{ssim['reals']['']:.3f}", "", "", "", ""))
    scale = found["contenders"]["progan"]["schedule_over_preset"]
    about = (
        f"{found['seconds']:g} seconds of training each, in turns of {found['slice']:g}, at"
        f" {found['resolution']}x{found['resolution']}, `fmap_base` {found['fmap_base']}, `fmap_max`"
        f" {found['fmap_max']}, minibatch of {found['minibatch']}; {found['images']:,} images of each measured by"
        f" `progan evaluate`. progan's schedule is the demo's times {scale}. kimg: images that D learned from. Latents"
        " have as many components as progan's, and images are not mirrored. One seed."
    )
    return f"## Quality in equal seconds\n\n{about}\n\n{markdown_table(heads, lines, words=1)}"


def mends_part(found: dict[str, Any]) -> str:
    """What keeps the peer from running here, and was mended at run time."""
    of_all = [row["contenders"].values() for row in found.get("speed", [])]
    of_all += [found["quality"]["contenders"].values()] if "quality" in found else []
    mends = {mend["what"]: mend["why"] for rows in of_all for row in rows for mend in row.get("mends", [])}
    lines = "".join(f"- {what}: {why}\n" for what, why in mends.items())
    return f"## Mended at run time\n\n{lines or 'Nothing.' + chr(10)}"


def picture(out: Path, contenders: dict[str, Any], reals: np.ndarray) -> Image.Image:
    """8x4 faces by each, two blocks across, each under its name."""
    blocks = [("reals", reals)]
    for name, row in contenders.items():
        files = sorted((out / "fakes" / name).glob("*.png"))[: COLUMNS * ROWS]
        images = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files])
        blocks.append((f"{NAMES[name]}: SWD {row['swd']['values']['average']:.1f}", images))
    grids = [(name, make_grid(images, COLUMNS, ROWS, SCALE)) for name, images in blocks]
    width, height = grids[0][1].size
    cell = (width + GAP, height + GAP + LETTER + 8)
    down = (len(grids) + 1) // 2
    sheet = Image.new("RGB", (GAP + 2 * cell[0], GAP + down * cell[1]), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTER)
    for i, (name, grid) in enumerate(grids):
        x, y = GAP + i % 2 * cell[0], GAP + i // 2 * cell[1]
        pen.text((x, y), name, fill="#111111", font=font)
        sheet.paste(grid, (x, y + LETTER + 8))
    return sheet
