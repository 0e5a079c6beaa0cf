"""One picture of the whole zoo: what the default run of every model draws, a row a family.

    python benchmarks/family_sheet.py runs/defaults --out docs/img/zoo.png

The folder holds a run folder for each model, by its name. A model of images shows nine samples (of
classes in turn where it is told them), one of points of the plane where they lie, one that cannot
sample its reconstructions of nine images. A model without a run is left out, and said.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Picture
from torch import Tensor

from zoo import registry
from zoo.core import Image, checkpoint
from zoo.core.draw import draw, given, tell, undisturbed
from zoo.looking import data_in
from zoo.show.paint import Shades, enlarged, rgb
from zoo.show.sheets import Panel, save, sheet

SIDE, SHOWN, POINTS = 96, 3, 4000  # pixels of a cell, images along its side, points in one
COLUMNS = 10


def cell(folder: Path) -> Picture.Image:
    """What one run's model draws."""
    model = checkpoint.load(folder / "checkpoints" / "last.ckpt")
    module = data_in(folder)
    if "sample" not in model.entry.can:
        batch = module.examples(SHOWN**2, "val")
        with undisturbed(model):
            return mosaic(
                model, model.reconstruct(batch["x"], **given(model, model.reconstruct, batch))
            )
    if model.spec.has(x=Image):
        n = SHOWN**2
        return mosaic(model, draw(model, n, told=tell(model, n, module)))
    return plane(
        draw(model, POINTS, told=tell(model, POINTS, module)), module.examples(POINTS)["x"]
    )


def mosaic(model: Any, x: Tensor) -> Picture.Image:
    pixels = rgb(x, Shades(model.spec["x"], x))
    side = SIDE // SHOWN
    page = Picture.new("RGB", (SIDE, SIDE), "white")
    for i, image in enumerate(pixels):
        page.paste(enlarged(image, side - 1), (i % SHOWN * side, i // SHOWN * side))
    return page


def plane(x: Tensor, real: Tensor) -> Picture.Image:
    """Where points lie, within the square of the data; of one dimension, their histogram."""
    low, high = real[:, :2].min(), real[:, :2].max()
    at = ((x[:, :2].cpu() - low) / (high - low) * (SIDE - 8) + 4).long()
    counts = torch.zeros(SIDE, SIDE)
    at = at[((at >= 0) & (at < SIDE)).all(1)]
    if at.shape[1] == 1:
        bars = at[:, 0].bincount(minlength=SIDE).float()
        counts = (torch.arange(SIDE)[:, None] >= SIDE - bars / bars.max() * (SIDE - 4)).float()
    else:
        counts.index_put_((SIDE - 1 - at[:, 1], at[:, 0]), torch.ones(len(at)), accumulate=True)
    crowded = counts[counts > 0].quantile(0.98)  # many points dark, a stray one pale
    shade = (255 * (1 - 0.9 * (counts / crowded).clamp(max=1).sqrt())).byte()
    return Picture.fromarray(shade.numpy()).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path, help="folder of run folders by model")
    parser.add_argument("--out", type=Path, default=Path("docs/img/zoo.png"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, missing = [], []
    for family in registry.FAMILIES:
        cells, names = [], []
        for name in registry.list(family=family):
            if not (args.runs / name / "checkpoints" / "last.ckpt").is_file():
                missing.append(name)
                continue
            cells.append(cell(args.runs / name))
            names.append(name)
            print(name, end=" ", flush=True)
        if cells:
            rows.append([Panel(cells, min(COLUMNS, len(cells)), family, captions=names)])
    print(f"\nleft out, without a run: {', '.join(missing)}" if missing else "", file=sys.stderr)
    said = "nine samples of each default run (points of the plane where the data are those)"
    high = 200 + sum(math.ceil(len(r[0].cells) / COLUMNS) * (SIDE + 60) + 60 for r in rows)
    picture = sheet("The zoo, by family", said, rows, size=(1400, high))
    with open(args.out, "wb") as file:
        save(picture, file)
    print(f"{args.out}  {picture.width}x{picture.height}")


if __name__ == "__main__":
    main()
