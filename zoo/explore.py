"""``python -m zoo.explore``: look into a trained model. Writes PNGs.

    python -m zoo.explore --ckpt runs/vae-...                           everything the model can
    show, in RUN/explore
    python -m zoo.explore --ckpt PATH interpolate --frames 12           between samples, and between
    encoded images
    python -m zoo.explore --ckpt PATH arithmetic --a class:8 --b class:3 --c class:5
    python -m zoo.explore --ckpt PATH arithmetic --a 3,17,20 --b 4,5,9 --c 0,2,31    exemplars by
    number (samples.png shows them)
    python -m zoo.explore --ckpt PATH manifold | traverse | reconstruct | neighbours
    python -m zoo.explore --ckpt PATH mix | spaces | truncate | pyramid | brush    where a
    generator has styles, a truncation, levels, an editor
    python -m zoo.explore --ckpt PATH score    the familiar and the strange, and the residuals

A group of exemplars is ``class:K`` or numbers. Models with an encoder average the codes of all
training images of a class, or of the training images with these numbers; others take the codes of
samples, a class's being the three of 512 that a small classifier trained on the data is surest of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.looking import data_of, folder_of, look, model_of
from zoo.pipes import quietly

TOOLS = (
    "all",
    "interpolate",
    "arithmetic",
    "manifold",
    "traverse",
    "reconstruct",
    "filters",
    "mix",
    "spaces",
    "truncate",
    "pyramid",
    "brush",
    "score",
    "neighbours",
)
ONE_PICTURE = ("arithmetic", "manifold", "reconstruct", "filters")  # of a size of its own
USES = {  # options that some tools have a use for
    "n": tuple(t for t in TOOLS[1:] if t not in ONE_PICTURE),
    "frames": ("interpolate",),
    **dict.fromkeys("abc", ("arithmetic",)),
}
USUAL = {"n": 8, "frames": 10}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    return look("explore", "Look into a trained model.", arguments, _options, _explore)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tool", nargs="?", default="all", choices=TOOLS, help="what to draw; everything by default"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the pictures; explore/ in the run folder by default"
    )
    parser.add_argument("--n", type=int, help="paths, base codes or samples shown; 8 by default")
    parser.add_argument(
        "--frames", type=int, help="examples on a path, ends included; 10 by default"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    for group, text in (("a", "plus"), ("b", "minus"), ("c", "plus")):
        parser.add_argument(
            f"--{group}",
            metavar="GROUP",
            help=f"exemplars for arithmetic ({text}): class:K or numbers 3,17,20",
        )


def _explore(args: argparse.Namespace) -> None:
    from zoo.core import Image
    from zoo.show.sheets import save

    for option, tools in USES.items():
        if getattr(args, option) is not None and args.tool not in ("all", *tools):
            raise ValueError(
                f"--{option} does nothing for {args.tool}; it is of {', '.join(tools)}"
            )
    for option, usual in USUAL.items():
        given = getattr(args, option)
        setattr(args, option, usual if given is None else given)
    if args.n < 1 or args.frames < 2:
        raise ValueError(
            f"--n is at least 1 and --frames at least 2, got {args.n} and {args.frames}"
        )
    model = model_of(args)
    if not model.spec.has(x=Image):
        raise ValueError(
            f"zoo.explore shows models of images, this {model.model_name} has {model.spec}"
        )
    folder = args.out or folder_of(args) / "explore"
    data, drawn = data_of(args, model), 0
    for name, picture in _pictures(args, model, data):
        folder.mkdir(parents=True, exist_ok=True)
        save(picture, folder / f"{name}.png")
        drawn += 1
        print(f"{folder / name}.png  {picture.width}x{picture.height}")
    if not drawn:
        raise ValueError(
            f"{model.model_name} has nothing to show here; it can "
            f"{', '.join(sorted(model.entry.can))}"
        )


def _pictures(args: argparse.Namespace, model: Any, data: Any) -> Iterator[tuple[str, Any]]:
    from zoo.core.latent import codes_of
    from zoo.show import codes as show
    from zoo.show import styles
    from zoo.show.filters import filters_picture
    from zoo.show.samples import reconstruction_sheet

    tool, everything = args.tool, args.tool == "all"
    has_codes = codes_of(model) is not None
    if everything and has_codes:
        yield from show.every_picture(model, data, args.n, args.frames, args.seed)
    if tool == "interpolate":
        yield from show.interpolations(model, data, args.n, args.frames, args.seed)
    if tool == "traverse":
        yield "traversals", show.traversals(model, data, min(args.n, 4), seed=args.seed)
    if tool == "manifold":
        yield "manifold", show.manifold_picture(model)
    if tool == "filters" or (everything and not has_codes and hasattr(model, "filters")):
        yield "filters", filters_picture(model)
    if tool == "reconstruct" or (everything and "reconstruct" in model.entry.can):
        _need(model, "reconstruct")
        batch = data.examples(32, "test")
        yield "reconstructions", reconstruction_sheet(model, batch, split="test")
    if everything or tool in styles.TOOLS:
        yield from styles.pictures(model, data, args.n, args.seed, only="" if everything else tool)
    if tool == "arithmetic" or (
        everything and has_codes and not model.told and (data.spec.num_classes >= 3 or args.a)
    ):
        yield from _arithmetic(args, model, data)
    if tool == "score" or (everything and "score" in model.entry.can):
        yield "anomalies", _anomalies(args, model, data)
    if tool == "neighbours" or (everything and "sample" in model.entry.can):
        yield "neighbours", _neighbours(args, model, data)


def _need(model: Any, capability: str) -> None:
    if capability not in model.entry.can:
        can = ", ".join(sorted(model.entry.can))
        raise ValueError(f"{model.entry.name} cannot {capability}; it can {can}")


def _arithmetic(args: argparse.Namespace, model: Any, data: Any) -> Iterator[tuple[str, Any]]:
    from zoo.core.latent import Codes
    from zoo.show.codes import arithmetic_picture, numbered
    from zoo.show.paint import DATA, DRAWN

    codes, given = Codes(model), [args.a, args.b, args.c]
    if model.told:
        raise ValueError(
            f"{model.entry.name} is told the class, so its codes say nothing of it; there is "
            f"nothing to add and subtract"
        )
    if not codes.encodes:
        z = codes.draw(64, args.seed)
        yield "samples", numbered(model, codes.decode(z))
    if not any(given):
        if data.spec.num_classes < 3:
            raise ValueError(
                "say what to add and subtract: --a 3,17,20 --b 4,5,9 --c 0,2,31, numbers of "
                "images (samples.png shows samples)"
            )
        given = ["class:0", "class:1", "class:2"]
    if not all(given):
        raise ValueError("arithmetic takes three groups of exemplars, --a, --b and --c")
    named = [_named(text, data, codes) for text in given]
    groups = {k: _group(v, args.seed, codes, data) for k, v in zip(named, given, strict=True)}
    if len(groups) < 3:
        raise ValueError(f"--a, --b and --c are three different groups, got {', '.join(given)}")
    ink = DATA if codes.encodes else DRAWN
    yield "arithmetic", arithmetic_picture(model, groups, args.seed, ink=ink)


def _named(text: str, data: Any, codes: Any) -> str:
    """A group's name on the picture."""
    from zoo.show.samples import class_name

    kind, _, label = text.rpartition(":")
    if kind == "class" and label.isdigit():
        return class_name(data, int(label))
    return f"{'image' if codes.encodes else 'sample'} {label}"


def _group(text: str, seed: int, codes: Any, data: Any) -> tuple[Any, Any]:
    """Images to show, and codes to average, of ``class:K`` or of numbers."""
    import torch

    kind, _, label = text.rpartition(":")
    numbers = label.split(",")
    if (
        kind not in ("", "class")
        or not all(v.strip().isdigit() for v in numbers)
        or (kind and len(numbers) > 1)
    ):
        raise ValueError(f"a group is class:K or numbers such as 3,17,20, got {text!r}")
    if kind:
        if not 0 <= int(label) < data.spec.num_classes:
            raise ValueError(f"{text}: {data.spec.name} has classes 0..{data.spec.num_classes - 1}")
        if not codes.encodes:
            return _sure(int(label), seed, codes, data)
        rows = (data.split("train")["y"] == int(label)).nonzero()[:, 0]
    else:
        rows = torch.tensor([int(v) for v in numbers])
        size = data.count("train") if codes.encodes else 64
        if rows.max() >= size:
            raise ValueError(f"{text}: numbers are 0..{size - 1}")
        if not codes.encodes:
            z = codes.draw(64, seed)[rows]
            return codes.decode(z), z
    batch = data.evaluation_batch("train", rows)
    return batch["x"], codes.encode(batch["x"], batch)


def _sure(label: int, seed: int, codes: Any, data: Any) -> tuple[Any, Any]:
    """Three of 512 samples that the classifier of the data is surest of."""
    from zoo.metrics import choose

    z = codes.draw(512, seed)
    x = codes.decode(z)
    _, p = choose("datanet", data)(x, data.spec)
    assert p is not None
    rows = p[:, label].topk(3).indices.to(z.device)
    return x[rows.cpu()], z[rows]


def _anomalies(args: argparse.Namespace, model: Any, data: Any) -> Any:
    from zoo.show.anomalies import ranked

    _need(model, "score")
    picture, area = ranked(model, data, args.n)
    if area is None:
        print("no test image is of a class that it never saw (train with --data.left_out=[0])")
    else:
        print(f"AUROC {area:.3f}: how often a class it never saw scores higher")
    return picture


def _neighbours(args: argparse.Namespace, model: Any, data: Any) -> Any:
    from zoo.core.draw import draw, tell
    from zoo.show.neighbours import panel, spaces

    found, picture = panel(
        model,
        draw(model, 256, args.seed, told=tell(model, 256, data)).cpu(),
        spaces("auto", data),
        data,
        args.n,
    )
    for name, values in found.items():
        far_as = f"{values['ratio']:.2f} times as far as validation images"
        print(
            f"{name}: nearest training images {far_as}, {values['rate']:.1%} within their 1st "
            f"percentile, AUC {values['auc']:.2f}"
        )
    return picture


if __name__ == "__main__":
    sys.exit(quietly(main))
