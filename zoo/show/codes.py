"""Pictures of a latent space: paths between codes, one dimension at a time, the manifold of two
dimensions, vector arithmetic.

Each tool is a function of a trained model (and its data) that returns a picture;
``python -m zoo.explore`` calls them on a checkpoint, a callback at the end of a run. A model is
asked what it can do: one that has no encoder shows paths between samples only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.draw import tell
from zoo.core.latent import Codes, arithmetic, between, manifold, traversal, used
from zoo.core.moment import Moment
from zoo.show.filters import filters_picture
from zoo.show.paint import DATA, DRAWN, Shades, rgb
from zoo.show.samples import class_name
from zoo.show.sheets import Panel, Word, about, sheet

COLLAPSED = 0.05  # nats: a dimension below carries nothing
PATHS = {"linear": "a straight line", "spherical": "the great arc"}


def interpolation(
    model: Any,
    data: Any,
    of: str = "samples",
    kind: str = "linear",
    n: int = 8,
    frames: int = 10,
    seed: int = 0,
    moment: Moment | None = None,
) -> Image.Image:
    """n paths, one a row, of ``frames`` examples: between drawn codes (``of`` = "samples") or the
    codes of validation images ("images", which stand at the two ends)."""
    codes, name = Codes(model), model.model_name
    inner: list[Word] = [("start", DRAWN), *[""] * (frames - 2), ("end", DRAWN)]
    way = f"decoded along {PATHS[kind]}"
    if of == "samples":
        told = tell(model, n)
        a, b = codes.draw(2 * n, seed).chunk(2)
        rows = codes.decode(between(a, b, frames, kind), told)
        what, heads = "drawn codes", inner
        shades = Shades(model.spec["x"], rows)
    else:
        batch = data.examples(2 * n, "val")
        first, last = batch["x"].chunk(2)
        a, b = codes.encode(batch["x"], batch).chunk(2)
        told = batch.only(model.told).rows(slice(len(a)))
        path = codes.decode(between(a, b, frames, kind), told)
        rows = torch.cat([t.to(path.dtype) for t in (first[:, None], path, last[:, None])], 1)
        what = "the codes of validation images, which stand at the ends"
        heads = [("image", DATA), *inner, ("image", DATA)]
        shades = Shades(model.spec["x"], batch["x"])
    cells = rgb(rows.flatten(0, 1), shades)
    labels = [f"path {i + 1}" + _told_class(model, told, i, data) for i in range(len(rows))]
    panel = Panel(cells, len(heads), f"{way} between {what}", DRAWN, labels, heads, path="across")
    title = f"Interpolations of {name}: {kind}, between {of}"
    return sheet(title, about(model, moment, f"seed {seed}"), [[panel]], [shades.note])


def traversals(
    model: Any,
    data: Any,
    n: int = 3,
    dims: int = 10,
    steps: int = 9,
    seed: int = 0,
    moment: Moment | None = None,
) -> Image.Image:
    """One dimension a row, from -3 to 3 standard deviations (-1 to 1 of a uniform prior), the
    others as in n base codes, side by side: codes of validation images where there is an encoder,
    the dimensions that carry most first, else drawn codes. Of discrete variables a row has all
    values."""
    codes = Codes(model)
    names: list[str] = []
    told = tell(model, n)
    if codes.encodes:
        batch = data.examples(256, "val")
        told = batch.only(model.told).rows(slice(n))
        z = codes.encode(batch["x"][:n], told)
    else:
        z = codes.draw(n, seed)
    if hasattr(model, "switched"):
        chosen = list(range(min(dims, model.variables)))
        moved = torch.stack([model.switched(z, j) for j in chosen])
        values = [f"{i}" for i in range(moved.shape[2])]
        said = "all values of one variable"
    else:
        scale, chosen = 1.0, list(range(min(dims, z.shape[1])))
        if codes.encodes and not codes.inverts:
            carried, what = used(model, batch["x"], batch)
            chosen = carried.argsort(descending=True)[:dims].tolist()
            names = [
                f"z{j} · {what} {carried[j]:.2f}"
                + (", unused" if what == "KL" and carried[j] < COLLAPSED else "")
                for j in chosen
            ]
            # Without a prior what is carried is the variance.
            scale = 1.0 if codes.draws else float(carried.sqrt().mean())
        limit = 1.0 if codes.uniform else 3 * scale
        values = [f"{v:.3g}".replace("-", "−") for v in torch.linspace(-limit, limit, steps)]
        moved = traversal(z, chosen, torch.linspace(-limit, limit, steps))
        said = f"one dimension from {values[0]} to {values[-1]}"
    every = told.rows(torch.arange(told.n).repeat(len(chosen)))
    images = codes.decode(moved.flatten(0, 1), every).unflatten(0, moved.shape[:2])
    shades = Shades(model.spec["x"], images)
    labels = names or [f"z{j}" for j in chosen]
    base = "validation image" if codes.encodes else "drawn code"
    panels = [
        Panel(
            rgb(images[:, i].flatten(0, 1), shades),
            images.shape[2],
            f"decoded from {base} {i + 1}" + _told_class(model, told, i, data),
            DRAWN,
            labels if i == 0 else (),
            values,
            path="across",
        )
        for i in range(images.shape[1])
    ]
    notes = [f"a row moves {said}, the others stay as in the {base}'s code", shades.note]
    if names:
        carries = {"KL": "nats it carries, KL(q ‖ p)", "variance": "variance of its codes"}[what]
        notes[0] += f"; the dimensions that carry most come first, each with the {carries}"
    title = f"Traversals of {model.model_name}: one latent dimension a row"
    return sheet(title, about(model, moment), [panels], notes)


def manifold_picture(model: Any, n: int = 20, moment: Moment | None = None) -> Image.Image:
    """The decoded grid over a two-dimensional latent space, equally spaced in probability."""
    codes = Codes(model)
    latent = getattr(model, "latent", None)
    if latent != 2 or not codes.draws:
        raise ValueError(
            f"the manifold needs a prior over 2 latent dimensions, this model has {latent}; train "
            f"one with --model.latent=2"
        )
    z = manifold(n).to(model.device, model.float_dtype)
    if codes.uniform:
        z = 2 * torch.special.ndtr(z) - 1
    first = tell(model, 1).rows(torch.zeros(n, dtype=torch.long))  # the first class throughout
    x = codes.decode(z, first).flatten(0, 1)
    shades = Shades(model.spec["x"], x)
    across = [f"{v:.1f}".replace("-", "−") for v in z[0, :, 0].tolist()]
    down = [f"{v:.1f}".replace("-", "−") for v in z[:, 0, 1].tolist()]
    heading = "decoded codes: z0 to the right, z1 upwards, equally spaced in probability"
    panel = Panel(rgb(x, shades), n, heading, DRAWN, down, across, path="both")
    title = f"The manifold of {model.model_name}: its two latent dimensions"
    return sheet(title, about(model, moment), [[panel]], [shades.note])


def arithmetic_picture(
    model: Any,
    groups: dict[str, tuple[Tensor, Tensor]],
    seed: int = 0,
    spread: float = 0.25,
    ink: str = DATA,
    moment: Moment | None = None,
) -> Image.Image:
    """A - B + C: a row of exemplars of each group and what its mean code decodes to, then the
    result and eight codes near it; beside them, images of B with α (mean A - mean B) added, α = 0,
    ½, 1, 1½.

    Args:
        groups: by name, three of them: the images to show, (N, *shape), and the codes to average,
            (M, latent).
        spread: half-width of the uniform noise around the result. ink: of the exemplars, which are
            data, or drawn.
    """
    codes, spec = Codes(model), model.spec
    names, (a, b, c) = list(groups), (z for _, z in groups.values())
    result = arithmetic(a, b, c)
    noise = (
        torch.rand(8, len(result), generator=torch.Generator().manual_seed(seed)).to(result)
        * 2
        * spread
        - spread
    )
    near = codes.decode(torch.cat([result[None], result + noise])).float()
    shades = Shades(spec["x"], near)
    cells: list[Tensor | None] = []
    most = min(max(len(shown) for shown, _ in groups.values()), 8)
    for shown, z in groups.values():
        exemplars = rgb(shown[:8].cpu().float(), shades)
        mean = codes.decode(z.mean(0, keepdim=True)).float()
        cells += [*rgb(mean, shades), *exemplars, *[None] * (most - len(exemplars))]
    equation = f"{names[0]} − {names[1]} + {names[2]}"
    heads: list[Word] = [("mean", DRAWN), *[(str(i + 1), ink) for i in range(most)]]
    signs = [f"{sign} {name}" for sign, name in zip("+−+", names, strict=True)]
    whose = "training images" if ink == DATA else f"samples of {model.model_name}"
    alphas = torch.tensor([0, 0.5, 1, 1.5]).to(result)
    moved = b[:8, None] + alphas[:, None] * (a.mean(0) - b.mean(0))
    bent = codes.decode(moved.transpose(0, 1)).flatten(0, 1).float()
    turned = f"codes of {names[1]}, with α times ({names[0]} − {names[1]}) added"
    panels = [
        [Panel(cells, 1 + most, f"{whose}, and what their mean code gives", ink, signs, heads)],
        [
            Panel(
                rgb(near, shades),
                9,
                f"the result, {equation}, and eight codes near it",
                DRAWN,
                [("=", DRAWN)],
                [("result", DRAWN), *["near"] * 8],
            )
        ],
        [
            Panel(
                rgb(bent, shades),
                moved.shape[0],
                turned,
                DRAWN,
                [f"α = {v:g}" for v in alphas.tolist()],
            )
        ],
    ]
    title = f"Arithmetic with codes of {model.model_name}: {equation}"
    return sheet(title, about(model, moment, f"seed {seed}"), panels, [shades.note])


def numbered(model: Any, x: Tensor, moment: Moment | None = None) -> Image.Image:
    """Samples by number, to choose from."""
    shades = Shades(model.spec["x"], x)
    words = [str(i) for i in range(len(x))]
    panel = Panel(rgb(x, shades), 0, f"drawn by {model.model_name}", DRAWN, captions=words)
    title = f"Samples of {model.model_name} by number"
    return sheet(title, about(model, moment), [[panel]], [shades.note])


def interpolations(
    model: Any,
    data: Any,
    n: int = 8,
    frames: int = 10,
    seed: int = 0,
    moment: Moment | None = None,
) -> Iterator[tuple[str, Image.Image]]:
    """Every kind of path this model has, by name; codes of a uniform prior are joined by straight
    lines only.
    """
    codes = Codes(model)
    for of in ("samples",) * codes.draws + ("images",) * codes.encodes:
        for kind in ("linear",) if codes.uniform else ("linear", "spherical"):
            yield (
                f"interpolation_{of}_{kind}",
                interpolation(model, data, of, kind, n, frames, seed, moment),
            )


def every_picture(
    model: Any,
    data: Any,
    n: int = 8,
    frames: int = 10,
    seed: int = 0,
    moment: Moment | None = None,
) -> Iterator[tuple[str, Image.Image]]:
    """What this model can show of its latent space, by name."""
    codes = Codes(model)
    yield from interpolations(model, data, n, frames, seed, moment)
    yield "traversals", traversals(model, data, min(n, 3), seed=seed, moment=moment)
    if codes.draws and getattr(model, "latent", None) == 2:
        yield "manifold", manifold_picture(model, moment=moment)
    if hasattr(model, "filters"):
        yield "filters", filters_picture(model, moment)


def _told_class(model: Any, told: Batch, i: int, data: Any) -> str:
    """The classes that a model was told of row i."""
    return "".join(f", {class_name(data, int(told[name][i]))}" for name in model.told)
