"""What a generator does with parts of its code, with less of it, or under a brush: styles mixed,
paths through two spaces, truncation swept, the levels of a pyramid, edits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo.core.draw import tell, undisturbed
from zoo.core.latent import Codes, between
from zoo.core.moment import Moment
from zoo.core.noise import seeded
from zoo.show.paint import DATA, DRAWN, MUTED, Shades, rgb
from zoo.show.sheets import Cell, Panel, Word, about, sheet

BANDS = ("coarse", "middle", "fine")


def pictures(
    model: Any,
    data: Any,
    n: int = 8,
    seed: int = 0,
    moment: Moment | None = None,
    only: str = "",
) -> Iterator[tuple[str, Image.Image]]:
    """What this model can show of these, by name; ``only`` one of ``TOOLS``, or all of them."""
    for tool, (needed, name, picture) in TOOLS.items():
        if only in ("", tool) and hasattr(model, needed):
            yield name, picture(model, data, n, seed, moment)


def mixing(
    model: Any, data: Any, n: int = 5, seed: int = 0, moment: Moment | None = None
) -> Image.Image:
    """Styles mixed (Karras et al. 2019, figure 3): every row keeps its own code but for a third of
    the layers, which take the styles of the column's; coarse, middle and fine layers in turn.
    """
    codes, layers, n = Codes(model), [*range(model.layers)], min(n, 6)
    own, others = codes.draw(2 * n, seed).chunk(2)
    a, b = others.repeat(n, 1), own.repeat_interleave(n, 0)  # column by column in each row
    thirds = [len(layers) * i // 3 for i in range(4)]
    with undisturbed(model):
        ends = codes.decode(torch.cat([own, others])).chunk(2)
        mixed = [
            model.mix(a, b, layers[i:j]).cpu().float().unflatten(0, (n, n))
            for i, j in zip(thirds[:-1], thirds[1:], strict=True)
        ]
    shades = Shades(model.spec["x"], torch.cat(ends))
    rows, columns = (rgb(x, shades) for x in ends)
    panels = []
    for band, i, j, made in zip(BANDS, thirds[:-1], thirds[1:], mixed, strict=True):
        cells: list[Cell] = [None, *columns]
        for k in range(n):
            cells += [rows[k], *rgb(made[k], shades)]
        named = f"layers {i + 1} to {j}" if j - i > 1 else f"layer {j}"
        heading = f"{band} styles ({named}) from the first row, all others from the first column"
        panels.append(Panel(cells, n + 1, heading, DRAWN))
    title = f"Styles mixed by {model.model_name}"
    return sheet(title, about(model, moment, f"seed {seed}"), [panels], [shades.note])


def spaces(
    model: Any, data: Any, n: int = 4, seed: int = 0, moment: Moment | None = None, frames: int = 9
) -> Image.Image:
    """The way between two codes through the codes' space, on the great arc, above that through
    ``model.path_space``, on a straight line (Karras et al. 2019, section 4.1); each with its
    length: the sum over its steps of the root mean squared difference, in [0, 1].
    """
    codes, n, field = Codes(model), min(n, 4), model.spec["x"]
    a, b = codes.draw(2 * n, seed).chunk(2)
    arcs = codes.decode(between(a, b, frames, "spherical"))
    with undisturbed(model):
        lines = model.interpolate(a, b, frames=frames).cpu().float()
    shades, rows, cells = Shades(field, arcs), [], []
    for i in range(n):
        for name, path in (("codes", arcs[i]), (model.path_space, lines[i])):
            steps = field.to_unit(path).diff(dim=0)
            length = float(steps.square().flatten(1).mean(1).sqrt().sum())
            rows.append((f"{i + 1} by {name}, length {length:.2f}", DRAWN))
            cells.append(rgb(path, shades))
    heading = f"the same two ends, through the codes and through {model.path_space}"
    panel = Panel(torch.cat(cells), frames, heading, DRAWN, rows, path="across", together=2)
    title = f"Ways through the two spaces of {model.model_name}"
    return sheet(title, about(model, moment, f"seed {seed}"), [[panel]], [shades.note])


def truncations(
    model: Any, data: Any, n: int = 10, seed: int = 0, moment: Moment | None = None
) -> Image.Image:
    """The same draws at every truncation of ``model.truncations``, one a row."""
    told = tell(model, n, data)
    rows = {}
    with undisturbed(model):
        for value in model.truncations:
            source = seeded(seed, "truncation", device=model.device)
            own = dict(told.to(model.device, model.float_dtype))
            x = model.sample(n, truncation=value, generator=source, **own)
            rows[f"truncation {value:g}"] = x.cpu().float()
    x = torch.cat([*rows.values()])
    shades = Shades(model.spec["x"], x)
    labels: list[Word] = [(words, DRAWN) for words in rows]
    heading = "the same draws in each column, by how much their codes are truncated"
    panel = Panel(rgb(x, shades), n, heading, DRAWN, labels, path="across")
    title = f"Truncation of {model.model_name}"
    return sheet(title, about(model, moment, f"seed {seed}"), [[panel]], [shades.note])


def pyramid(
    model: Any, data: Any, n: int = 8, seed: int = 0, moment: Moment | None = None
) -> Image.Image:
    """Samples level by level, the coarsest first; each level's pixels as large as they are."""
    told = dict(tell(model, n, data).to(model.device, model.float_dtype))
    with undisturbed(model):
        source = seeded(seed, "pyramid", device=model.device)
        levels = [x.cpu().float() for x in model.pyramid(n, generator=source, **told)]
    side = levels[-1].shape[-1]
    shades = Shades(model.spec["x"], levels[-1])
    cells = torch.cat([rgb(_magnified(x, side), shades) for x in levels])
    rows: list[Word] = [(f"{x.shape[-2]}x{x.shape[-1]}", MUTED) for x in levels]
    heading = "a sample a column, from its coarsest level to the finest"
    panel = Panel(cells, n, heading, DRAWN, rows)
    title = f"The pyramid of {model.model_name}"
    return sheet(title, about(model, moment, f"seed {seed}"), [[panel]], [shades.note])


def strokes(
    model: Any, data: Any, n: int = 8, seed: int = 0, moment: Moment | None = None
) -> Image.Image:
    """Validation images under the brush: a dark and a bright stroke through their middle, and what
    the model makes of each.
    """
    x = data.examples(n, "val")["x"]
    height, width = x.shape[-2:]
    field = model.spec["x"]
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, height // 4 : height - height // 4, width // 2 - 1 : width // 2 + 1] = True
    shades = Shades(field, x)
    rows: dict[Word, Tensor] = {("original", DATA): x}
    with undisturbed(model):
        for name, value in (("dark", 0.0), ("bright", 1.0)):
            colour = field.from_unit(torch.full((x.shape[1],), value))
            torch.manual_seed(seed)
            images = x.to(model.device, model.float_dtype)
            edited = model.edit(images, mask.to(model.device), colour.to(images))
            painted = torch.where(mask, colour.to(x.dtype)[:, None, None], x)
            rows[f"{name} stroke", MUTED] = painted
            rows[f"edited ({name})", DRAWN] = edited.cpu().to(x.dtype)
    cells = torch.cat([rgb(v, shades) for v in rows.values()])
    heading = f"data: {model.spec.name} (validation), the stroke, and what the model makes of both"
    panel = Panel(cells, n, heading, DATA, [*rows])
    title = f"Strokes of the brush through images of {model.model_name}"
    return sheet(title, about(model, moment, f"seed {seed}"), [[panel]], [shades.note])


def _magnified(x: Tensor, side: int) -> Tensor:
    times = side // x.shape[-1]
    return x.repeat_interleave(times, -2).repeat_interleave(times, -1)


# What a model must have for it, the picture's name, and what draws it.
TOOLS = {
    "mix": ("mix", "mixing", mixing),
    "spaces": ("path_space", "spaces", spaces),
    "truncate": ("truncations", "truncations", truncations),
    "pyramid": ("pyramid", "pyramid", pyramid),
    "brush": ("edit", "strokes", strokes),
}
