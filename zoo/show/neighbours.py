"""Samples beside their nearest training images."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo.core.moment import Moment
from zoo.metrics.extractors import choose
from zoo.metrics.neighbours import TrainingSet, pixel_features
from zoo.show.paint import DATA, DRAWN, Shades, rgb
from zoo.show.sheets import Panel, Word, about, sheet


def neighbours(
    model_name: str, data: Any, x: Tensor, far: Tensor, index: Tensor, space: str
) -> list[Panel]:
    """Each image of x (N, *shape) followed by its nearest training images with their distances, in
    two panels of half the images each.

    Args:
        far, index: distances and row numbers, (N, k), as ``TrainingSet.search`` gives them.
        space: what the distances are of.
    """
    near = data.evaluation_batch("train", index.flatten())["x"].unflatten(0, index.shape)
    rows = torch.cat([x[:, None].cpu().to(near.dtype), near], 1)
    shades = Shades(data.spec["x"], near.flatten(0, 1))
    heads: list[Word] = [("sample", DRAWN), *[(f"near {i + 1}", DATA) for i in range(far.shape[1])]]
    half, panels = -(-len(x) // 2), []
    for first in range(0, len(x), half):
        part = slice(first, first + half)
        panels.append(
            Panel(
                rgb(rows[part].flatten(0, 1), shades),
                rows.shape[1],
                f"drawn by {model_name}, then the nearest training images by {space}",
                DATA,
                [str(first + i + 1) for i in range(len(rows[part]))],
                heads,
                [text for row in far[part].tolist() for text in ("", *(f"{d:.2f}" for d in row))],
            )
        )
    return panels


def spaces(
    extractor: str, data: Any, inception_weights: str | None = None, progress: bool = True
) -> dict[str, Any]:
    """Features of images by name: pixels, and unless that is "pixels" those of an extractor."""
    found: dict[str, Any] = {"pixels": pixel_features}
    if extractor != "pixels":
        net = choose(extractor, data, inception_weights=inception_weights, progress=progress)
        found[net.name] = lambda x, spec: net(x, spec)[0]
    return found


def panel(
    model: Any,
    x: Tensor,
    spaces: dict[str, Any],
    data: Any,
    n: int,
    k: int = 5,
    rank: int = 0,
    world: int = 1,
    moment: Moment | None = None,
) -> tuple[dict[str, dict[str, float]], Image.Image]:
    """Samples x (Q, *shape) against the training images: by space what
    ``zoo.metrics.neighbours.copying`` says of them, and the first n of them, each with its k
    nearest training images.
    """
    values, rows = {}, []
    for name, features in spaces.items():
        training = TrainingSet(data, features, rank, world)
        values[name], far, index = training.search(x, k)
        space = "pixels" if name == "pixels" else f"features ({name})"
        rows.append(neighbours(model.model_name, data, x[:n], far[:n], index[:n], space))
    title = f"Is it new? Samples of {model.model_name} beside their nearest training images"
    notes = [Shades(data.spec["x"], x[:n]).note, "below each its distance; a copy's is 0"]
    return values, sheet(title, about(model, moment), rows, notes)
