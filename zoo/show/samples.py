"""What a model makes, beside what it was told and the data."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as Picture
from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.draw import complete, draw, draw_fields, given, tell, undisturbed
from zoo.core.spec import Image, Label, Spec, Vector
from zoo.show.sheets import beside, completions, grid, outside, scatter
from zoo.show.tiles import table, tile

ROWS = 12  # of a table of told, made and data


def sample_sheet(
    model: Any, data: Any, n: int = 64, seed: int = 0, real: bool = True, points: int = 2000
) -> Picture.Image:
    """What a model of any kind makes: of images a grid (of classes, where it is told them, one a
    row) beside the data, of vectors points over the data, of anything else a table whose rows are
    what was told | what was made | the data.

    Args:
        data: the data module, or None. n: images in one grid. real: show data too.
        points: samples in the plot of a model of vectors.
    """
    spec, only_x = model.spec, tuple(model.makes) == ("x",)
    told = [spec[name] for name in model.told]
    data = data if hasattr(data, "examples") else None
    if only_x and spec.has(x=Vector) and all(isinstance(f, Label) for f in told):
        x = draw(model, points, seed)
        shown = data.examples(points)["x"] if data is not None and real else None
        return scatter(x, shown)
    if only_x and spec.has(x=Image) and not told:
        x = draw(model, n, seed)
        return _beside_data(x, data.examples(n)["x"] if data and real else None, spec)
    if only_x and spec.has(x=Image) and model.told == ("y",):
        y, columns = class_rows(n, spec.num_classes)
        x = draw(model, len(y), seed, told={"y": y})
        shown = of_classes(data, y) if data and real else None
        return _beside_data(x, shown, spec, columns)
    rows = min(n, ROWS)
    return told_made_data(model, data, tell(model, rows, data), rows, seed, real)


def told_made_data(
    model: Any, data: Any, told: Batch, n: int, seed: int = 0, real: bool = True
) -> Picture.Image:
    """A table of n rows: each field that was told, each that was made, and the same fields of the
    data (of the rows the told fields are from, where they are).
    """
    made = draw_fields(model, n, seed, told=told)
    rows = None
    if real and data is not None:
        rows = data.examples(n, "val")
        rows = rows.rows(torch.arange(n) % rows.n, n)
    return tiles_table(model.spec, told, made, rows)


def tiles_table(spec: Spec, told: Batch, made: Batch, real: Batch | None) -> Picture.Image:
    """Rows of told | made | data, one tile a field."""
    columns = {f"told: {k}": _tiles(spec, k, v) for k, v in told.items()}
    columns |= {f"made: {k}": _tiles(spec, k, v) for k, v in made.items()}
    if real is not None:
        columns |= {f"data: {k}": _tiles(spec, k, real[k]) for k in made}
    return table(columns)


def _tiles(spec: Spec, name: str, rows: Tensor) -> list[Picture.Image]:
    return [tile(spec[name], row) for row in rows.detach().cpu()]


def _beside_data(
    x: Tensor, shown: Tensor | None, spec: Spec, columns: int | None = None
) -> Picture.Image:
    made = grid(x, spec, columns)
    return made if shown is None else beside(made, grid(shown, spec, columns))


def class_rows(n: int, classes: int) -> tuple[Tensor, int]:
    """Labels of about n images with one class a row, and the row's length; of many classes only the
    first √n.
    """
    shown = classes if classes <= n else max(int(n**0.5), 1)
    columns = max(n // shown, 1)
    return torch.arange(shown).repeat_interleave(columns), columns


def of_classes(data: Any, y: Tensor) -> Tensor:
    """For given labels the first training images of each class, as often as it is wanted."""
    batch = data.examples(min(20 * len(y), data.count("train")))
    rows = []
    for label in y.unique_consecutive().tolist():
        of_class = (batch["y"] == label).nonzero()[:, 0]
        wanted = int((y == label).sum())
        if len(of_class) == 0:  # a class too rare to be met: an empty row
            shape = (wanted, *batch["x"].shape[1:])
            rows.append(torch.zeros(shape, dtype=batch["x"].dtype))
        else:
            rows.append(batch["x"][of_class[torch.arange(wanted) % len(of_class)]])
    return torch.cat(rows)


def completion_sheet(model: Any, data: Any, n: int = 8, seed: int = 0) -> Picture.Image:
    """Validation images, each above its upper half and two completions of it."""
    batch = data.examples(n, split="val")
    x, known = batch["x"], outside("bottom", *model.spec.shape[1:])
    drawn = [complete(model, x, known, seed=seed + i, told=batch).cpu() for i in range(2)]
    return completions(x, known, drawn, model.spec, len(x))


def reconstruction_sheet(model: Any, batch: Batch, seed: int = 0) -> Picture.Image:
    """The images of a batch in rows, each above the row of their reconstructions."""
    rows, columns = reconstructed(model, batch, seed)
    return grid(rows, model.spec, columns)


def reconstructed(model: Any, batch: Batch, seed: int = 0) -> tuple[Tensor, int]:
    """Rows of images, each followed by the row of their reconstructions, and the row's length."""
    x = batch["x"].to(model.device, model.float_dtype)
    with undisturbed(model):
        torch.manual_seed(seed)
        again = model.reconstruct(x, **given(model, model.reconstruct, batch))
    columns = min(8, len(x))
    pairs = zip(x.split(columns), again.split(columns), strict=True)
    rows = [part for pair in pairs for part in pair]
    if len(x) % columns:  # the last pair of rows is not full
        rows = rows[:-2]
    return torch.cat([r.to(x.dtype) for r in rows]), columns
