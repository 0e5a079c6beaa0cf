"""What a model finds strange, and where."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as Picture
from torch import Tensor

from zoo.core.draw import undisturbed
from zoo.core.moment import Moment
from zoo.metrics.auroc import auroc
from zoo.show.paint import DATA, DRAWN, MUTED, Shades, rgb
from zoo.show.sheets import Panel, Word, about, sheet


def ranked(
    model: Any, data: Any, n: int = 8, split: str = "test", moment: Moment | None = None
) -> tuple[Picture.Image, float | None]:
    """Images x of a split from the most familiar to the strangest, above the nearest that the model
    makes, G(z), and the residual |x - G(z)|; and the area under the ROC curve, where classes are
    known that the model never saw.

    Args:
        n: columns, evenly along the ranking of the first 256 images; where classes are known that
            the model never saw, half of them of these.
    """
    batch = data.examples(256, split)
    strange = strangers(model, batch.get("y"))
    with undisturbed(model):
        scores = model.score(batch["x"].to(model.device, model.float_dtype)).cpu()
        kinds = [torch.ones(batch.n).bool()] if strange is None else [~strange, strange]
        order = torch.cat([evenly(scores, kind, n // len(kinds)) for kind in kinds])
        order = order[scores[order].argsort()]
        x = batch["x"][order].to(model.device, model.float_dtype)
        made, apart = (v.cpu().float() for v in model.residual(x))
    shades = Shades(model.spec["x"], batch["x"])
    rows: dict[Word, Tensor] = {
        ("x", DATA): x.cpu().float(),
        ("G(z)", DRAWN): made,
        ("|x - G(z)|", MUTED): apart,
    }
    cells = torch.cat([rgb(v, shades) for v in rows.values()])
    heading = f"data: {model.spec.name} ({split}), the familiar left, the strange right"
    heads: list[Word] = [f"{v:.3g}" for v in scores[order]]
    notes, area = ["above each column its score"], None
    if strange is not None:
        area = float(auroc(scores, strange))
        heads = [
            (f"{v:.3g} unseen", DRAWN) if strange[i] else f"{v:.3g}"
            for v, i in zip(scores[order], order, strict=True)
        ]
        notes.append(f"unseen: of a class left out of training; AUROC {area:.3f}")
    panel = Panel(cells, len(order), heading, DATA, [*rows], heads)
    title = f"What {model.model_name} finds strange"
    return sheet(title, about(model, moment), [[panel]], [*notes, shades.note]), area


def evenly(scores: Tensor, kind: Tensor, n: int) -> Tensor:
    """n rows of a kind, (N,) booleans, evenly along the ranking of their scores.

    >>> evenly(torch.tensor([5.0, 1.0, 3.0, 2.0]), torch.tensor([True, True, True, False]), 2)
    tensor([1, 0])
    """
    rows = kind.nonzero()[:, 0]
    rows = rows[scores[rows].argsort()]
    return rows[torch.linspace(0, len(rows) - 1, min(max(n, 1), len(rows))).long()]


def strangers(model: Any, y: Tensor | None) -> Tensor | None:
    """Which rows are of a class that the model never saw, (N,) booleans; None where there are no
    classes, or rows of one kind alone.
    """
    seen = getattr(model, "seen", None)
    if seen is None or y is None or not len(seen):
        return None
    strange = ~seen.cpu()[y]
    return strange if strange.any() and not strange.all() else None
