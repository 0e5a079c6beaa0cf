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
        n: columns, evenly along the ranking of the first 256 images.
    """
    batch = data.examples(256, split)
    strange = strangers(model, batch.get("y"))
    with undisturbed(model):
        scores = model.score(batch["x"].to(model.device, model.float_dtype)).cpu()
        order = scores.argsort()[torch.linspace(0, batch.n - 1, min(n, batch.n)).long()]
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
    notes = ["scores: " + ", ".join(f"{v:.3g}" for v in scores[order])]
    area = None
    if strange is not None:
        area = float(auroc(scores, strange))
        never = ", ".join(str(i + 1) for i, row in enumerate(order) if strange[row])
        notes.append(f"AUROC {area:.3f}; of classes never seen: columns {never or 'none'}")
    panel = Panel(cells, len(order), heading, DATA, [*rows])
    title = f"What {model.model_name} finds strange"
    return sheet(title, about(model, moment), [[panel]], [*notes, shades.note]), area


def strangers(model: Any, y: Tensor | None) -> Tensor | None:
    """Which rows are of a class that the model never saw, (N,) booleans; None where there are no
    classes, or rows of one kind alone.
    """
    seen = getattr(model, "seen", None)
    if seen is None or y is None or not len(seen):
        return None
    strange = ~seen.cpu()[y]
    return strange if strange.any() and not strange.all() else None
