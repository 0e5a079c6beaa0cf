"""Files of images, translated one by one: ``python -m zoo.sample --source``."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

NAMED = 3  # files that stand for all that were skipped
MOST = 50_000_000  # pixels of an image


def translate_files(args: argparse.Namespace, model: Any) -> None:
    """Write what a model makes of an image, or of each image of a folder, under the source's name
    as a .png.

    Raises:
        ValueError: the model cannot, there are no images, or none can be translated.
    """
    from tqdm.auto import tqdm

    from zoo.core.because import because

    source, made, further = _ends(args, model)
    files = _files(args.source)
    if args.out.suffix == ".npz" or (args.out.suffix == ".png" and len(files) > 1):
        raise ValueError(f"--out of {len(files)} translated images is a folder, got {args.out}")
    targets = [args.out] if args.out.suffix else _names(files, args.out)
    if same := {p.resolve() for p in files} & {t.resolve() for t in targets}:
        raise ValueError(f"--out would write over the source {min(same)}; name another place")
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    skipped = []
    for path, target in zip(tqdm(files, disable=len(files) < 20), targets, strict=True):
        try:
            pixels = _translated(args, model, path, source, made, further)
        except Exception as error:  # whatever a damaged file makes a decoder raise
            skipped.append(f"{path.name} ({because(error)})")
            continue
        pixels.save(target)
    if len(skipped) == len(files):
        raise ValueError(f"none of {len(files)} images was translated: {skipped[0]}")
    print(f"{len(files) - len(skipped)} images translated in {args.out}")
    if not args.size:
        side = min(source.shape[1:])
        print(
            f"  read with {side} pixels to the shorter side, as in training; --size=N: with N, "
            "--size=0: as they are"
            if args.size is None
            else "  read at their own sizes"
        )
    if others := _others(args.source, files):
        print(f"  not read: {len(others)} others, {', '.join(others[:NAMED])}")
    if skipped:
        more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        print(f"skipped {len(skipped)}: {', '.join(skipped[:NAMED])}{more}")


def _ends(args: argparse.Namespace, model: Any) -> tuple[Any, Any, dict[str, str]]:
    """The fields that are read and made, and what else ``translate`` is given."""
    from zoo.core import Image

    told = [name for name in model.told if isinstance(model.spec[name], Image)]
    if "translate" not in model.entry.can or not told:
        can = ", ".join(sorted(model.entry.can))
        raise ValueError(f"{model.model_name} does not translate images; it can {can}")
    if len(model.told) != 1:
        raise ValueError(
            f"{model.model_name} is told {', '.join(model.told)} of every image, which one file "
            "does not hold; sample it on its own data (leave --source out)"
        )
    source, made = told[0], model.makes[0]
    further: dict[str, str] = {}
    if args.back:
        if (source, made) != ("a", "b"):
            raise ValueError(f"{model.model_name} knows no way back; leave --back out")
        source, made, further = made, source, {"to": "a"}
    channels = model.spec[source].shape[0]
    if channels not in (1, 3):
        raise ValueError(
            f"{model.model_name} was trained to read {channels} planes, which image files do not "
            f"have; sample it on its own data (leave --source out)"
        )
    return model.spec[source], model.spec[made], further


def _files(path: Path) -> list[Path]:
    from zoo.data.pictures.sides import images_in

    files = [path] if path.is_file() else images_in(path)
    if not files:
        raise ValueError(f"--source is an image or a folder of images, got {path}")
    return files


def _others(path: Path, files: list[Path]) -> list[str]:
    """Names of what else lies in a folder: other files, hidden ones, folders."""
    if path.is_file():
        return []
    return sorted(p.name for p in {*path.iterdir()} - {*files})


def _names(files: list[Path], out: Path) -> list[Path]:
    """Where each goes: NAME.png, or NAME.jpg.png where files differ by their endings alone."""
    stems = Counter(path.stem for path in files)
    return [out / f"{p.stem if stems[p.stem] == 1 else p.name}.png" for p in files]


def _translated(
    args: argparse.Namespace,
    model: Any,
    path: Path,
    source: Any,
    made: Any,
    further: dict[str, str],
) -> Any:
    """The picture that a model makes of a file."""
    from PIL import Image as Picture

    from zoo.core.draw import undisturbed
    from zoo.core.noise import seeded
    from zoo.data.pictures.decode import decode, read_file
    from zoo.show.paint import to_bytes

    size = min(source.shape[1:]) if args.size is None else args.size
    pixels, _ = decode(read_file(path, MOST), size, source.shape[0], "keep", MOST)
    grain = model.grain
    h, w = (side - side % grain for side in pixels.shape[1:])
    if not h or not w:
        raise ValueError(f"{w}x{h} pixels are fewer than {grain}; set --size")
    top, left = (pixels.shape[1] - h) // 2, (pixels.shape[2] - w) // 2
    pixels = pixels[:, top : top + h, left : left + w]
    x = (pixels.to(model.float_dtype) / 255 * (source.levels - 1)).round()[None].to(model.device)
    with undisturbed(model):
        g = seeded(args.seed, "translate", path.name, device=model.device)
        image = to_bytes(model.translate(x, generator=g, **further).cpu(), made)[0]
    flat = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    return Picture.fromarray(flat.contiguous().numpy())
