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

from zoo.core.draw import tell
from zoo.core.latent import Codes, arithmetic, between, manifold, traversal, used
from zoo.show.filters import filters_picture
from zoo.show.sheets import below, beside, captioned, grid

COLLAPSED = 0.05  # nats: a dimension below carries nothing


def interpolation(
    model: Any,
    data: Any,
    of: str = "samples",
    kind: str = "linear",
    n: int = 8,
    frames: int = 10,
    seed: int = 0,
) -> Image.Image:
    """n paths, one a row, of ``frames`` examples: between drawn codes (``of`` = "samples") or the
    codes of validation images ("images", which stand at the two ends)."""
    codes = Codes(model)
    if of == "samples":
        a, b = codes.draw(2 * n, seed).chunk(2)
        path = codes.decode(between(a, b, frames, kind), tell(model, n))
        return grid(path.flatten(0, 1), model.spec, frames)
    batch = data.examples(2 * n, "val")
    first, last = batch["x"].chunk(2)
    a, b = codes.encode(batch["x"], batch).chunk(2)
    path = codes.decode(between(a, b, frames, kind), batch.only(model.told).rows(slice(len(a))))
    rows = torch.cat([t.to(path.dtype) for t in (first[:, None], path, last[:, None])], 1)
    return grid(rows.flatten(0, 1), model.spec, frames + 2)


def traversals(
    model: Any, data: Any, n: int = 3, dims: int = 10, steps: int = 9, seed: int = 0
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
    else:
        scale, chosen = 1.0, list(range(min(dims, z.shape[1])))
        if codes.encodes and not codes.inverts:
            carried, what = used(model, batch["x"], batch)
            chosen = carried.argsort(descending=True)[:dims].tolist()
            names = [
                f"z{j}: {what} {carried[j]:.2f}"
                + (", unused" if what == "KL" and carried[j] < COLLAPSED else "")
                for j in chosen
            ]
            # Without a prior what is carried is the variance.
            scale = 1.0 if codes.draws else float(carried.sqrt().mean())
        limit = 1.0 if codes.uniform else 3 * scale
        moved = traversal(z, chosen, torch.linspace(-limit, limit, steps))
    every = told.rows(torch.arange(told.n).repeat(len(chosen)))
    images = codes.decode(moved.flatten(0, 1), every).unflatten(0, moved.shape[:2])
    captions = [
        text
        for name in names or [f"z{j}" for j in chosen]
        for text in (name, *[""] * (images.shape[2] - 1))
    ]
    return beside(
        *(
            captioned(images[:, i].flatten(0, 1), model.spec, images.shape[2], captions, cell=32)
            for i in range(images.shape[1])
        )
    )


def manifold_picture(model: Any, n: int = 20) -> Image.Image:
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
    return grid(codes.decode(z, first).flatten(0, 1), model.spec, n)


def arithmetic_picture(
    model: Any, groups: dict[str, tuple[Tensor, Tensor]], seed: int = 0, spread: float = 0.25
) -> Image.Image:
    """A - B + C: a row of exemplars of each group and what its mean code decodes to, then the
    result and eight codes near it; below, images of B with α (mean A - mean B) added, α = 0, ½, 1,
    1½.

    Args:
        groups: by name, three of them: the images to show, (N, *shape), and the codes to average,
            (M, latent).
        spread: half-width of the uniform noise around the result.
    """
    codes, spec = Codes(model), model.spec
    names, (a, b, c) = list(groups), (z for _, z in groups.values())
    rows, captions = [], []
    for (shown, z), name in zip(groups.values(), names, strict=True):
        blank = torch.full(
            (max(8 - len(shown), 0), *spec.shape), (spec.levels or 2) - 1.0
        )  # as white as the page
        rows.append(
            torch.cat(
                [shown[:8].cpu().float(), blank, codes.decode(z.mean(0, keepdim=True)).float()]
            )
        )
        captions += [name, *[""] * 7, "mean"]
    result = arithmetic(a, b, c)
    noise = (
        torch.rand(8, len(result), generator=torch.Generator().manual_seed(seed)).to(result)
        * 2
        * spread
        - spread
    )
    rows.append(codes.decode(torch.cat([result[None], result + noise])).float())
    captions += [f"{names[0]} - {names[1]} + {names[2]}"[:24], "", "", *[""] * 6]
    equation = captioned(
        torch.cat(rows),
        spec,
        9,
        captions,
        f"{names[0]} - {names[1]} + {names[2]}, and codes near it",
    )
    alphas = torch.tensor([0, 0.5, 1, 1.5]).to(result)
    moved = b[:8, None] + alphas[:, None] * (a.mean(0) - b.mean(0))
    text = [f"alpha = {v:g}" for _ in moved for v in alphas.tolist()]
    return below(
        equation,
        captioned(
            codes.decode(moved).flatten(0, 1).float(),
            spec,
            4,
            text,
            f"{names[1]} + alpha ({names[0]} - {names[1]})",
        ),
    )


def interpolations(
    model: Any, data: Any, n: int = 8, frames: int = 10, seed: int = 0
) -> Iterator[tuple[str, Image.Image]]:
    """Every kind of path this model has, by name; codes of a uniform prior are joined by straight
    lines only.
    """
    codes = Codes(model)
    for of in ("samples",) * codes.draws + ("images",) * codes.encodes:
        for kind in ("linear",) if codes.uniform else ("linear", "spherical"):
            yield (
                f"interpolation_{of}_{kind}",
                interpolation(model, data, of, kind, n, frames, seed),
            )


def every_picture(
    model: Any, data: Any, n: int = 8, frames: int = 10, seed: int = 0
) -> Iterator[tuple[str, Image.Image]]:
    """What this model can show of its latent space, by name."""
    codes = Codes(model)
    yield from interpolations(model, data, n, frames, seed)
    yield "traversals", traversals(model, data, min(n, 3), seed=seed)
    if codes.draws and getattr(model, "latent", None) == 2:
        yield "manifold", manifold_picture(model)
    if hasattr(model, "filters"):
        yield "filters", filters_picture(model)
