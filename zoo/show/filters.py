"""What the units of a model look for in an image: of any model that has ``filters``."""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image as Picture
from torch import Tensor

from zoo.core.moment import Moment
from zoo.core.spec import Image
from zoo.show.paint import DRAWN, rgb
from zoo.show.sheets import Panel, about, sheet

MOST = 144  # of each kind that are drawn


def scaled(filters: Tensor) -> Tensor:
    """Filters (K, C, H, W) as images in [0, 1]: 0 becomes ½, the largest absolute value of each 0
    or 1.
    """
    largest = filters.abs().amax((1, 2, 3), keepdim=True)
    return 0.5 + 0.5 * filters / largest.clamp(min=torch.finfo(filters.dtype).tiny)


def filters_picture(model: Any, moment: Moment | None = None, most: int = MOST) -> Picture.Image:
    """The first ``most`` filters of each kind, kinds side by side, in the model's own order.

    Args:
        model: has ``filters() -> dict[str, Tensor]``: by what they are, (K, C, H, W) each. moment:
            whose weights these are.

    Raises:
        ValueError: it has none.
    """
    if not hasattr(model, "filters"):
        raise ValueError(
            f"{model.model_name} has no filters to show; ica and pca have: python -m zoo.fit "
            "--model ica --data patches"
        )
    panels = []
    for name, filters in model.filters().items():
        pixels = rgb(scaled(filters[:most].cpu()), Image(model.spec.shape))
        cut = f" (the first {most} of {len(filters)})" if len(filters) > most else ""
        panels.append(Panel(pixels, math.ceil(math.sqrt(len(pixels))), f"{name}{cut}", DRAWN))
    notes = ["grey is 0; each filter has its own scale"]
    return sheet(f"Filters of {model.model_name}", about(model, moment), [panels], notes)
