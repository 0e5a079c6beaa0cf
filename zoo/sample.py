"""``python -m zoo.sample``: draw from a trained model, or let it complete images.

    python -m zoo.sample --ckpt runs/began-.../checkpoints/last.ckpt --n 64 --seed 0 --out x.png
    python -m zoo.sample --ckpt PATH --n 50000 --out folder      one PNG an image, at its own size
    python -m zoo.sample --ckpt PATH --n 1000 --out x.npz        every field, in the data's units
    python -m zoo.sample --ckpt PATH --label 3 --label 5         of a model that is told the class:
                                                                 these in turn, in a .png one a row
    python -m zoo.sample --ckpt RUN --inpaint bottom --n 8       the first test images of the run,
                                                                 their upper halves, completions
    python -m zoo.sample --ckpt RUN --source FOLDER --out OUT    of a model that translates: every
                                                                 image, under its name

Row i of a seed is the same whatever n and the form of the output are. A model that is told anything
but the class is told what the first test rows of the run's data say; a .png then shows told | made
| data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from zoo.looking import data_of, look, model_of
from zoo.pipes import quietly

USUAL = 64  # samples


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    return look("sample", "Draw from a trained model.", arguments, _options, _draw)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, help=f"how many; {USUAL} by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("samples.png"),
        help="a .png grid, a .npz file, or a folder of PNGs",
    )
    parser.add_argument(
        "--label",
        type=int,
        action="append",
        help="class label, for models that are told it; repeat for several",
    )
    parser.add_argument(
        "--inpaint",
        metavar="PART",
        help="complete test images of which PART is hidden: bottom, top, left, right, centre",
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="translate an image, or every image of a folder",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="with --source: of the shorter side; 0 is as it is, the default as in training",
    )
    parser.add_argument(
        "--back", action="store_true", help="with --source: from domain b to domain a"
    )


def _draw(args: argparse.Namespace) -> None:
    from tqdm.auto import tqdm

    from zoo.core.batch import Batch
    from zoo.core.draw import BLOCK, draw_fields

    if args.source is not None and args.n is not None:
        raise ValueError("--source says how many are translated; leave --n out")
    args.n = USUAL if args.n is None else args.n
    if args.n < 1:
        raise ValueError(f"--n is at least 1, got {args.n}")
    if args.out.suffix not in ("", ".png", ".npz"):
        raise ValueError(f"--out is a .png, a .npz or a folder, got {args.out}")
    if args.source is None and (args.back or args.size is not None):
        raise ValueError("--back and --size are of images to translate; name them by --source")
    if args.source is not None and (args.label or args.inpaint):
        raise ValueError("--source says what is translated; leave --label and --inpaint out")
    if args.inpaint and args.label:
        raise ValueError("--inpaint completes images of the run's data; leave --label out")
    if args.size is not None and args.size < 0:
        raise ValueError(
            f"--size is a number of pixels, or 0 for that of the file, got {args.size}"
        )
    if args.out.is_dir() and (old := [*args.out.glob("**/*.png")]):
        raise ValueError(
            f"{args.out} holds {len(old)} images already; name another folder, or remove them first"
        )
    model = model_of(args)
    if args.source is not None:
        from zoo.translating import translate_files

        return translate_files(args, model)
    _check_memory(args.n, model)
    if args.inpaint:
        return _complete(args, model)
    if "sample" not in model.entry.can:
        raise ValueError(f"{model.model_name} cannot sample; it can {_can(model)}")
    told, data = _told(args, model)
    parts = []
    blocks = range(0, args.n, BLOCK)
    for start in tqdm(blocks, desc=model.model_name, disable=args.n <= BLOCK):
        size = min(BLOCK, args.n - start)
        rows = told.rows(slice(start, start + size), size)
        parts.append(draw_fields(model, size, args.seed, start=start, told=rows).to("cpu"))
    import torch

    made = Batch({k: torch.cat([part[k] for part in parts]) for k in parts[0]}, args.n)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Any] = {".npz": _numbers, ".png": _picture, "": _files}
    writers[args.out.suffix](model, made, told, data, args)
    print(f"{args.n} samples in {args.out}")


def _check_memory(n: int, model: Any) -> None:
    """Raise a ``ValueError`` if n samples do not fit into the memory that is free."""
    import math
    import os

    shapes = [getattr(model.spec[name], "shape", ()) for name in model.makes]
    wanted = 8 * n * sum(math.prod(shape) for shape in shapes)  # floats, and once more to write
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > free:
        raise ValueError(
            f"{n:,} samples take {wanted / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} are "
            "free; draw fewer, or several files of different --seed"
        )


def _can(model: Any) -> str:
    return ", ".join(sorted(model.entry.can))


def _told(args: argparse.Namespace, model: Any) -> tuple[Any, Any]:
    """What the model is told of each row, and the data where they were needed: the labels asked for
    in turn, every class in turn, or what the test rows say.
    """
    import torch

    from zoo.core import Batch, Label
    from zoo.core.draw import tell

    classes = [name for name in model.told if isinstance(model.spec[name], Label)]
    if args.label:
        if len(model.told) != 1 or not classes:
            raise ValueError(f"this {model.model_name} takes no labels; leave --label out")
        last = model.spec[classes[0]].words - 1
        for label in args.label:
            if not 0 <= label <= last:
                raise ValueError(f"--label is one of 0..{last}, got {label}")
        rows = torch.tensor(args.label).repeat(-(-args.n // len(args.label)))[: args.n]
        return Batch({classes[0]: rows}, args.n), None
    data = None if len(classes) == len(model.told) else data_of(args, model)
    return tell(model, args.n, data, "test"), data


def _complete(args: argparse.Namespace, model: Any) -> None:
    """Test images, what is shown of each, and four completions, one image a column; a .npz has x,
    known and completions.
    """
    import numpy as np
    import torch

    from zoo.core import Image
    from zoo.core.draw import complete
    from zoo.show.samples import completions, outside
    from zoo.show.sheets import save

    spec = model.spec
    if "inpaint" not in model.entry.can or not spec.has(x=Image):
        raise ValueError(
            f"this {model.model_name} cannot complete images; it can {_can(model)} {spec}"
        )
    known = outside(args.inpaint, *spec.shape[1:])
    if args.out.suffix == "":
        raise ValueError(f"--inpaint writes a .png or a .npz, got {args.out}")
    batch = data_of(args, model).examples(args.n, split="test")
    x = batch["x"]
    drawn = [complete(model, x, known, args.seed + i, batch).cpu() for i in range(4)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == ".npz":
        every = torch.stack(drawn, 1).numpy()
        np.savez_compressed(args.out, x=x.numpy(), known=known.numpy(), completions=every)
    else:
        picture = completions(model, x, known, drawn, args.inpaint, "test", args.seed)
        save(picture, args.out)
    print(f"4 completions each of {len(x)} test images in {args.out}")


def _numbers(model: Any, made: Any, told: Any, data: Any, args: argparse.Namespace) -> None:
    """Every field by name; levels as the smallest integers that hold them."""
    import numpy as np
    import torch

    arrays = {}
    for name, rows in {**told, **made}.items():
        levels = getattr(model.spec[name], "levels", None)
        if levels:
            rows = rows.to(torch.uint8 if levels <= 256 else torch.int32)
        arrays[name] = rows.numpy()
    np.savez_compressed(args.out, **arrays)


def _picture(model: Any, made: Any, told: Any, data: Any, args: argparse.Namespace) -> None:
    from zoo.core import Image, Label, Vector
    from zoo.show.samples import ROWS, images_sheet, points_sheet, tiles_table
    from zoo.show.sheets import about, save

    spec, said = model.spec, about(model, None, f"seed {args.seed}")
    labelled = all(isinstance(spec[name], Label) for name in told)
    if set(made) == {"x"} and labelled and spec.has(x=Vector):
        picture = points_sheet(model, made["x"], None, said)
    elif set(made) == {"x"} and labelled and spec.has(x=Image):
        order, columns, names = None, 0, None
        if told:
            order, columns, classes = _class_rows(next(iter(told.values())))
            names = _names(args, model, classes)
        picture = images_sheet(model, made["x"], None, said, names, columns, order=order)
    else:
        n = min(made.n, ROWS)
        if n < made.n:
            print(f"the picture shows the first {n} of {made.n} rows; a .npz has them all")
        real = data.examples(n, "test") if data is not None else None
        few = slice(n)
        told, made = told.rows(few, n), made.rows(few, n)
        picture = tiles_table(model, told, made, real, said, "test")
    save(picture, args.out)
    for note in picture.info["cut"]:
        print(f"{note}; a .npz has all rows")


def _files(model: Any, made: Any, told: Any, data: Any, args: argparse.Namespace) -> None:
    """One PNG a row: images at their own size, other kinds as they are drawn; of several fields a
    folder each.
    """
    from PIL import Image as Picture

    from zoo.core import Image, Vector
    from zoo.show.paint import to_bytes
    from zoo.show.tiles import tile

    for name, rows in made.items():
        field = model.spec[name]
        if isinstance(field, Vector):
            raise ValueError("a folder takes images; write these vectors to a .npz")
        folder = args.out if len(made) == 1 else args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, row in enumerate(rows):
            if isinstance(field, Image) and len(row) in (1, 3):
                image = to_bytes(row[None], field)[0]
                pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
                picture = Picture.fromarray(pixels.contiguous().numpy())
            else:
                picture = tile(field, row)
            picture.save(folder / f"{i:06d}.png")


def _class_rows(labels: Any) -> tuple[list[int | None], int, list[int]]:
    """Row numbers with one class a row, in the order of the labels' first appearance, None where a
    row is short; the row's length; and the classes.
    """
    rows: dict[int, list[int | None]] = {}
    for i, label in enumerate(labels.tolist()):
        rows.setdefault(label, []).append(i)
    columns = max(map(len, rows.values()))
    order = [i for row in rows.values() for i in (*row, *[None] * (columns - len(row)))]
    return order, columns, [*rows]


def _names(args: argparse.Namespace, model: Any, classes: list[int]) -> list[str]:
    """The names that the run's data have for classes, or their numbers."""
    from zoo.looking import MISTAKES
    from zoo.show.samples import class_name

    try:
        data = data_of(args, model)
    except MISTAKES:  # a lone checkpoint
        data = None
    return [class_name(data, label) for label in classes]


if __name__ == "__main__":
    sys.exit(quietly(main))
