"""What a model makes, beside what it was told and the data."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as Picture
from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.draw import complete, draw, draw_fields, given, tell, undisturbed
from zoo.core.moment import Moment
from zoo.core.spec import Image, Label, Spec, Vector
from zoo.show.paint import DATA, DRAWN, MUTED, Shades, rgb
from zoo.show.points import scatter
from zoo.show.sheets import Panel, Word, about, sheet
from zoo.show.tiles import tile

ROWS = 12  # of a table of told, made and data
TILE = (900, 640)  # pixels of a tile at most


def sample_sheet(
    model: Any,
    data: Any,
    n: int = 64,
    seed: int = 0,
    real: bool = True,
    points: int = 2000,
    moment: Moment | None = None,
) -> Picture.Image:
    """What a model of any kind makes: of images a grid (of classes, where it is told them, one a
    row) beside the data, of vectors points over the data, of anything else a table whose rows are
    what was told | what was made | the data.

    Args:
        data: the data module, or None. n: images in one grid. real: show data too.
        points: samples in the plot of a model of vectors. moment: whose weights these are.
    """
    spec, only_x = model.spec, tuple(model.makes) == ("x",)
    told = [spec[name] for name in model.told]
    data = data if hasattr(data, "examples") else None
    beside = data is not None and real
    said = about(model, moment, f"seed {seed}")
    if only_x and spec.has(x=Vector) and all(isinstance(f, Label) for f in told):
        x = draw(model, points, seed)
        shown = data.examples(points)["x"] if beside else None
        return points_sheet(model, x, shown, said)
    if only_x and spec.has(x=Image) and not told:
        x = draw(model, n, seed)
        return images_sheet(model, x, data.examples(n)["x"] if beside else None, said)
    if only_x and spec.has(x=Image) and model.told == ("y",):
        y, columns = class_rows(n, spec.num_classes)
        x = draw(model, len(y), seed, told={"y": y})
        shown, missed = of_classes(data, y) if beside else (None, [])
        rows = [class_name(data, int(c)) for c in y[::columns]]
        left = f"the first {len(rows)} of {spec.num_classes} classes are shown"
        notes = [left] * (len(rows) < spec.num_classes)
        notes += [f"no image of {class_name(data, c)} was met: its row is black" for c in missed]
        return images_sheet(model, x, shown, said, rows, columns, notes)
    n = min(n, ROWS)
    return told_made_data(model, data, tell(model, n, data), n, seed, real, said)


def images_sheet(
    model: Any,
    x: Tensor,
    shown: Tensor | None,
    said: str,
    rows: list[str] | None = None,
    columns: int = 0,
    notes: list[str] | None = None,
    order: list[int | None] | None = None,
) -> Picture.Image:
    """Drawn images, left, and those of the data, right.

    Args:
        rows: labels of rows of ``columns`` images. order: which images, None for no image; all in
            turn by default.
    """
    shades = Shades(model.spec["x"], x if shown is None else shown)
    labels, pixels = rows or [], rgb(x, shades)
    cells = pixels if order is None else [None if i is None else pixels[i] for i in order]
    panels = [Panel(cells, columns, f"drawn by {model.model_name}", DRAWN, labels)]
    title = f"Samples of {model.model_name}"
    if shown is not None:
        heading = f"data: {model.spec.name} (training)"
        panels.append(Panel(rgb(shown, shades), columns, heading, DATA, labels))
        title += " beside the data"
    return sheet(title, said, [panels], [*(notes or []), shades.note])


def points_sheet(model: Any, x: Tensor, shown: Tensor | None, said: str) -> Picture.Image:
    """Drawn points over those of the data."""
    name, notes = model.model_name, []
    heading, title = f"drawn by {name}", f"Samples of {name}"
    if shown is not None:
        heading += f", over the data: {model.spec.name} (training)"
        title += " over the data"
    if x.shape[1] > 2:
        notes.append(f"the first two of {x.shape[1]} coordinates are shown")
    if lost := int((~x.isfinite().flatten(1).all(1)).sum()):
        notes.append(f"{lost:,} of {len(x):,} drawn points are not finite, and are left out")
    return sheet(title, said, [[Panel([scatter(x, shown)], 1, heading, DRAWN)]], notes)


def told_made_data(
    model: Any,
    data: Any,
    told: Batch,
    n: int,
    seed: int = 0,
    real: bool = True,
    said: str | None = None,
) -> Picture.Image:
    """A table of n rows: each field that was told, each that was made, and the same fields of the
    data (of the rows the told fields are from, where they are).
    """
    made = draw_fields(model, n, seed, told=told)
    rows = None
    if real and data is not None:
        rows = data.examples(n, "val")
        rows = rows.rows(torch.arange(n) % rows.n, n)
    said = about(model, None, f"seed {seed}") if said is None else said
    return tiles_table(model, told, made, rows, said, "validation")


def tiles_table(
    model: Any,
    told: Batch,
    made: Batch,
    real: Batch | None,
    said: str,
    split: str,
) -> Picture.Image:
    """Rows of told | made | data of a split, one tile a field."""
    spec, name = model.spec, model.model_name
    columns: dict[Word, list[Picture.Image]] = {}
    columns |= {(f"told: {k}", MUTED): _tiles(spec, k, v) for k, v in told.items()}
    columns |= {(f"made: {k}", DRAWN): _tiles(spec, k, v) for k, v in made.items()}
    if real is not None:
        for k in made:
            answer = f"oracle_{k}" in real  # what belongs to this row; the data's own does not
            title = f"wanted: {k}" if answer else f"data: {k}"
            columns[title, DATA] = _tiles(spec, k, real[f"oracle_{k}" if answer else k])
    cells = [cell for row in zip(*columns.values(), strict=True) for cell in row]
    heading = " | ".join(["what the model was told"] * bool(told) + [f"what {name} made"])
    heading += f" | data: {spec.name} ({split})" if real is not None else ""
    numbers = [str(i + 1) for i in range(made.n)]
    panel = Panel(cells, len(columns), heading, DRAWN, numbers, [*columns])
    return sheet(f"Samples of {name}, row by row", said, [[panel]])


def _tiles(spec: Spec, name: str, rows: Tensor) -> list[Picture.Image]:
    """A tile a row, within its room."""
    made = [tile(spec[name], row) for row in rows.detach().cpu()]
    for picture in made:
        picture.thumbnail(TILE)
    return made


def class_rows(n: int, classes: int) -> tuple[Tensor, int]:
    """Labels of about n images with one class a row, and the row's length; of many classes only the
    first √n.
    """
    shown = classes if classes <= n else max(int(n**0.5), 1)
    columns = max(n // shown, 1)
    return torch.arange(shown).repeat_interleave(columns), columns


def class_name(data: Any, label: int) -> str:
    """The name that the data have for a class, or its number."""
    names = getattr(data, "class_names", ())
    return names[label] if label < len(names) else f"class {label}"


def of_classes(data: Any, y: Tensor) -> tuple[Tensor, list[int]]:
    """For given labels the first training images of each class, as often as it is wanted; and the
    classes too rare to be met, whose images are zero.
    """
    batch = data.examples(min(20 * len(y), data.count("train")))
    rows, missed = [], []
    for label in y.unique_consecutive().tolist():
        of_class = (batch["y"] == label).nonzero()[:, 0]
        wanted = int((y == label).sum())
        if len(of_class) == 0:
            missed.append(label)
            shape = (wanted, *batch["x"].shape[1:])
            rows.append(torch.zeros(shape, dtype=batch["x"].dtype))
        else:
            rows.append(batch["x"][of_class[torch.arange(wanted) % len(of_class)]])
    return torch.cat(rows), missed


# -- beside their originals -----------------------------------------------------------------------
PARTS = ("bottom", "top", "left", "right", "centre")


def outside(part: str, height: int, width: int) -> Tensor:
    """What is known when a part of an image is hidden, booleans (1, H, W): False in its bottom,
    top, left or right half, or its centre.

    Raises:
        ValueError: there is no such part.
    """
    if part not in PARTS:
        raise ValueError(f"the part to complete is one of {', '.join(PARTS)}, got {part!r}")
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    middle = (
        (rows >= height // 4)
        & (rows < height - height // 4)
        & (columns >= width // 4)
        & (columns < width - width // 4)
    )
    hidden = {
        "bottom": rows >= height // 2,
        "top": rows < height // 2,
        "left": columns < width // 2,
        "right": columns >= width // 2,
    }
    return ~hidden.get(part, middle).expand(height, width)[None]


def completion_sheet(
    model: Any, data: Any, n: int = 8, seed: int = 0, moment: Moment | None = None
) -> Picture.Image:
    """Validation images, each above its upper half and two completions of it."""
    batch = data.examples(n, split="val")
    x, known = batch["x"], outside("bottom", *model.spec.shape[1:])
    drawn = [complete(model, x, known, seed=seed + i, told=batch).cpu() for i in range(2)]
    return completions(model, x, known, drawn, "bottom", "validation", seed, moment)


def completions(
    model: Any,
    x: Tensor,
    known: Tensor,
    completed: list[Tensor],
    part: str,
    split: str,
    seed: int = 0,
    moment: Moment | None = None,
) -> Picture.Image:
    """Images of a split, each above what was shown of it (the rest in the middle grey) and its
    completions.
    """
    spec, name = model.spec, model.model_name
    shades = Shades(spec["x"], x)
    grey = (spec.levels - 1) / 2 if spec.levels else (shades.low + shades.high) / 2
    rows: list[tuple[Word, Tensor]] = [
        (("original", DATA), x),
        (("shown", MUTED), torch.where(known, x, grey)),
        *(((f"completed {i + 1}", DRAWN), drawn) for i, drawn in enumerate(completed)),
    ]
    hidden = part if part == "centre" else f"{part} half"
    heading = f"data: {spec.name} ({split}); the {hidden} is hidden, and completed by {name}"
    panel = _interleaved(rows, min(16, len(x)), shades, heading)
    said = about(model, moment, f"seed {seed}")
    return sheet(f"Completions by {name}", said, [[panel]], [shades.note])


def reconstruction_sheet(
    model: Any,
    batch: Batch,
    seed: int = 0,
    moment: Moment | None = None,
    split: str = "validation",
) -> Picture.Image:
    """The images of a batch in rows, each above the row of their reconstructions."""
    spec, name = model.spec, model.model_name
    x = batch["x"]
    again = reconstructed(model, batch, seed)
    shades = Shades(spec["x"], x)
    rows: list[tuple[Word, Tensor]] = [
        (("original", DATA), x),
        (("reconstruction", DRAWN), again.to(x.dtype)),
    ]
    heading = f"data: {spec.name} ({split}), above what {name} makes of them"
    panel = _interleaved(rows, min(8, len(x)), shades, heading)
    said = about(model, moment, f"seed {seed}")
    return sheet(f"Reconstructions by {name}", said, [[panel]], [shades.note])


def reconstructed(model: Any, batch: Batch, seed: int = 0) -> Tensor:
    """The reconstructions of a batch's images, on the CPU."""
    x = batch["x"].to(model.device, model.float_dtype)
    with undisturbed(model):
        torch.manual_seed(seed)
        return model.reconstruct(x, **given(model, model.reconstruct, batch)).cpu()


def _interleaved(
    rows: list[tuple[Word, Tensor]], columns: int, shades: Shades, heading: str
) -> Panel:
    """Groups of rows, each of ``columns`` images and what became of them."""
    painted = [rgb(x, shades).split(columns) for _, x in rows]
    groups = [*zip(*painted, strict=True)]
    cells = [cell for group in groups for part in group for cell in _filled(part, columns)]
    labels = [word for word, _ in rows] * len(groups)
    return Panel(cells, columns, heading, DATA, labels, together=len(rows))


def _filled(row: Tensor, columns: int) -> list[Tensor | None]:
    return [*row, *[None] * (columns - len(row))]
