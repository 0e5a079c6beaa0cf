"""``python -m zoo.sample``: draw from a trained model, or let it complete images.

    python -m zoo.sample --ckpt runs/began-.../checkpoints/last.ckpt --n 64 --seed 0 --out
    samples.png
    python -m zoo.sample --ckpt PATH --n 50000 --out folder            one PNG an image, at its own
    size
    python -m zoo.sample --ckpt PATH --n 1000 --out x.npz              x in the data's units, y the
    labels
    python -m zoo.sample --ckpt PATH --label 3 --label 5               of a conditional model: these
    classes in turn, in a .png one a row
    python -m zoo.sample --ckpt RUN_FOLDER --inpaint bottom --n 8      the first test images of the
    run, their upper halves, completions

Row i of a seed is the same image whatever n and the form of the output are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.sample", description="Draw from a trained model."
    )
    parser.add_argument(
        "--ckpt",
        required=True,
        type=Path,
        help="a checkpoint that zoo.fit wrote, or its run folder",
    )
    parser.add_argument("--n", type=int, default=64, help="how many")
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
        help="class label, for conditional models; repeat for several",
    )
    parser.add_argument(
        "--inpaint",
        metavar="PART",
        help="complete test images of which PART is hidden: bottom, top, left, right, centre",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="the raw weights even if the checkpoint has averaged ones",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    args = parser.parse_args(arguments)
    try:
        if args.n < 1:
            raise ValueError(f"--n is at least 1, got {args.n}")
        if args.out.suffix not in ("", ".png", ".npz"):
            raise ValueError(f"--out is a .png, a .npz or a folder, got {args.out}")
        _draw(args)
    except (
        ValueError,
        TypeError,
        KeyError,
        FileNotFoundError,
        NotImplementedError,
        ImportError,
    ) as error:
        print(f"zoo.sample: error: {error}", file=sys.stderr)
        return 2
    return 0


def _draw(args: argparse.Namespace) -> None:
    import torch
    from tqdm.auto import tqdm

    from zoo.core.sampling import BLOCK, draw
    from zoo.runs import model_of

    model = model_of(args.ckpt, args.raw, args.device)
    entry, spec = model.entry, model.spec
    if args.inpaint:
        return _complete(args, model)
    if "sample" not in entry.can:
        raise ValueError(f"{entry.name} cannot sample; it can {', '.join(sorted(entry.can))}")
    labels = _labels(args, model)
    parts = []
    for start in tqdm(range(0, args.n, BLOCK), desc=entry.name, disable=args.n <= BLOCK):
        size = min(BLOCK, args.n - start)
        y = None if labels is None else labels[start : start + size]
        parts.append(draw(model, size, args.seed, start=start, y=y).cpu())
    _write(torch.cat(parts), labels, spec, args.out)


def _complete(args: argparse.Namespace, model: Any) -> None:
    """Test images, what is shown of each, and four completions, one image a column; a .npz has x,
    known and completions.
    """
    import numpy as np
    import torch

    from zoo.core.pictures import completions, outside
    from zoo.core.sampling import complete
    from zoo.runs import data_of

    entry, spec = model.entry, model.spec
    if "inpaint" not in entry.can or not spec.is_image:
        raise ValueError(
            f"this {entry.name} cannot complete images; it can {', '.join(sorted(entry.can))} "
            f"{spec}"
        )
    known = outside(args.inpaint, *spec.shape[1:])
    if args.out.suffix == "":
        raise ValueError(f"--inpaint writes a .png or a .npz, got {args.out}")
    batch = data_of(args.ckpt).examples(args.n, split="test")
    x, y = batch["x"], batch.get("y")
    drawn = [complete(model, x, known, args.seed + i, y).cpu() for i in range(4)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == ".npz":
        np.savez_compressed(
            args.out, x=x.numpy(), known=known.numpy(), completions=torch.stack(drawn, 1).numpy()
        )
    else:
        completions(x, known, drawn, spec, min(len(x), 16)).save(args.out)
    print(f"4 completions each of {len(x)} test images in {args.out}")


def _labels(args: argparse.Namespace, model: Any) -> Any:
    """One label a row: those asked for in turn, or for a conditional model every class in turn."""
    import torch

    spec = model.spec
    if model.conditions_on != "class":
        if args.label:
            raise ValueError(f"this {model.entry.name} takes no labels; leave --label out")
        return None
    wanted = args.label or [*range(spec.num_classes)]
    for label in wanted:
        if not 0 <= label < spec.num_classes:
            raise ValueError(f"--label is one of 0..{spec.num_classes - 1}, got {label}")
    return torch.tensor(wanted).repeat(-(-args.n // len(wanted)))[: args.n]


def _write(x: Any, labels: Any, spec: Any, out: Path) -> None:
    import numpy as np
    import torch
    from PIL import Image

    from zoo.core.pictures import grid, scatter, to_bytes

    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        levels = x.to(torch.uint8 if spec.levels <= 256 else torch.int32) if spec.levels else x
        np.savez_compressed(
            out, x=levels.numpy(), **({"y": labels.numpy()} if labels is not None else {})
        )
    elif out.suffix == ".png":
        rows, columns = (x, None) if labels is None or not spec.is_image else _class_rows(x, labels)
        (grid(rows, spec, columns) if spec.is_image else scatter(x)).save(out)
    else:
        if not spec.is_image:
            raise ValueError("a folder takes images; write these vectors to a .npz")
        out.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(to_bytes(x, spec)):
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(out / f"{i:06d}.png")
    print(f"{len(x)} samples in {out}")


def _class_rows(x: Any, labels: Any) -> tuple[Any, int]:
    """Images in rows of one class each, in the order of the labels' first appearance, and the row's
    length; black where a row is short.
    """
    import torch

    groups = [x[labels == label] for label in dict.fromkeys(labels.tolist())]
    columns = max(len(group) for group in groups)
    blank = torch.zeros_like(x[:1])
    return torch.cat(
        [
            part
            for group in groups
            for part in (group, blank.expand(columns - len(group), *x.shape[1:]))
        ]
    ), columns


if __name__ == "__main__":
    sys.exit(main())
