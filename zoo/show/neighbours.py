"""Samples beside their nearest training images."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo.metrics.extractors import choose
from zoo.metrics.neighbours import TrainingSet, pixel_features
from zoo.show.sheets import below, beside, captioned


def neighbours(data: Any, x: Tensor, far: Tensor, index: Tensor, title: str = "") -> Image.Image:
    """Each image of x (N, *shape) followed by its nearest training images with their distances, two
    images a row.

    Args:
        far, index: distances and row numbers, (N, k), as ``TrainingSet.search`` gives them.
    """
    near = data.evaluation_batch("train", index.flatten())["x"].unflatten(0, index.shape)
    rows = torch.cat([x[:, None].cpu().to(near.dtype), near], 1)
    captions = [["sample", *(f"{d:.2f}" for d in row)] for row in far.tolist()]
    half = -(-len(x) // 2)
    parts = []
    for part, heading in ((slice(0, half), title), (slice(half, None), " ")):
        if len(rows[part]):
            words = [text for row in captions[part] for text in row]
            images = rows[part].flatten(0, 1)
            parts.append(captioned(images, data.spec, rows.shape[1], words, heading))
    return beside(*parts)


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
    x: Tensor,
    spaces: dict[str, Any],
    data: Any,
    n: int,
    k: int = 5,
    rank: int = 0,
    world: int = 1,
) -> tuple[dict[str, dict[str, float]], Image.Image]:
    """Samples x (Q, *shape) against the training images: by space what
    ``zoo.metrics.neighbours.copying`` says of them, and the first n of them, each with its k
    nearest training images.
    """
    values, sheets = {}, []
    for name, features in spaces.items():
        training = TrainingSet(data, features, rank, world)
        values[name], far, index = training.search(x, k)
        title = f"nearest training images by {name}"
        sheets.append(neighbours(data, x[:n], far[:n], index[:n], title))
    return values, below(*sheets)
