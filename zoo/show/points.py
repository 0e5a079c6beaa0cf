"""Points of the plane, and of the line."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image as Picture
from torch import Tensor

from zoo.show.paint import DATA, DRAWN, FRAME, INK, MUTED

SIDE = 640  # pixels
SUBSCRIPTS = "₁₂"


def scatter(x: Tensor, real: Tensor | None = None, side: int = SIDE) -> Picture.Image:
    """Points (N, 2) over the data as a square plot, or a histogram for (N, 1); the first two
    coordinates of longer vectors. Points that are not finite are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side / 100, side / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    flat = x.shape[1] == 1
    groups = [("data", DATA, real), ("drawn", DRAWN, x)]
    finite = [(name, ink, _finite(points)) for name, ink, points in groups if points is not None]
    shown = [group for group in finite if len(group[2])]
    edges = np.histogram_bin_edges(np.concatenate([np.zeros(0), *(p[:, 0] for *_, p in shown)]), 80)
    for name, ink, points in shown:
        label = f"{name}, {len(points):,} points"
        if flat:
            axes.hist(points[:, 0], edges.tolist(), density=True, alpha=0.5, color=ink, label=label)
        else:
            size = 5 if len(points) > 500 else 12
            style: Any = {"s": size, "color": ink, "alpha": 0.55, "linewidths": 0}
            axes.scatter(points[:, 0], points[:, 1], label=label, **style)
    axes.set_xlabel("x" if flat else f"x{SUBSCRIPTS[0]}", color=MUTED)
    axes.set_ylabel("density" if flat else f"x{SUBSCRIPTS[1]}", color=MUTED)
    if not flat:
        axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(colors=MUTED)
    for spine in axes.spines.values():
        spine.set_color(FRAME)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, labelcolor=INK, markerscale=3)
    canvas.draw()
    return Picture.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _finite(points: Tensor) -> np.ndarray:
    """The first two coordinates of the points that have them."""
    points = points.detach().float().cpu()[:, :2]
    return points[points.isfinite().all(1)].numpy()
