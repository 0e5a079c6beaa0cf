"""The pictures of a run folder, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from zoo.page.run import Run, step_of

FRAMES = 40  # sample pictures, evenly over time
OTHERS = 40
LARGEST = (16 * 2**20, 8_000_000)  # bytes and pixels of a picture
QUALITY = 84  # of WebP, by its third quickest method: a third of the time, for a twentieth more


@dataclass(frozen=True)
class Shown:
    """A picture in a page: its data URI, its caption, what it shows in words, its file."""

    source: str
    title: str
    words: str
    file: str
    step: int
    width: int
    height: int


def frames(run: Run) -> tuple[list[Shown], str]:
    """The sample pictures in order of their steps, and what was left out."""
    paths = sorted(_files(run.folder / "samples", "step_*.png"), key=step_of)
    chosen = paths
    if len(paths) > FRAMES:
        at = sorted({round(i * (len(paths) - 1) / (FRAMES - 1)) for i in range(FRAMES)})
        chosen = [paths[i] for i in at]
    shown, note = _shown(run, chosen)
    if len(chosen) < len(paths):
        cut = f"{len(chosen)} of {len(paths)} pictures, evenly over time; all are in samples/"
        note = "; ".join(part for part in (cut, note) if part)
    return shown, note


def others(run: Run) -> tuple[list[Shown], str]:
    """The last of every other kind of picture, then those of ``zoo.explore``, and what was left
    out.
    """
    kinds: dict[str, Path] = {}
    earlier = 0
    for path in sorted(_files(run.folder / "samples", "*.png"), key=step_of):
        kind = re.sub(r"_\d+$", "", path.stem)
        if kind != "step":
            earlier += kind in kinds
            kinds[kind] = path
    explored = sorted(_files(run.folder / "explore", "*.png"))
    chosen = [*(kinds[k] for k in sorted(kinds)), *explored]
    shown, note = _shown(run, chosen[:OTHERS])
    notes = [note] if note else []
    if earlier:
        notes.append(f"the last of each kind; {earlier} of earlier steps are in samples/")
    if len(chosen) > OTHERS:
        notes.append(f"the first {OTHERS} of {len(chosen)}")
    return shown, "; ".join(notes)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Plain files inside the run folder: a link could lead anywhere."""
    if folder.is_symlink():
        return []
    return [p for p in folder.glob(pattern) if p.is_file() and not p.is_symlink()]


def _shown(run: Run, paths: list[Path]) -> tuple[list[Shown], str]:
    found, left = [], []
    for path in paths:
        try:
            found.append(_one(run, path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            left.append(f"{path.name} ({str(error)[:80]})")
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return found, f"left out: {', '.join(left[:3])}{more}" if left else ""


def _one(run: Run, path: Path) -> Shown:
    """Raises an OSError or ValueError for what is no picture, or too large."""
    if path.stat().st_size > LARGEST[0]:
        raise ValueError(f"larger than {LARGEST[0] >> 20} MiB")
    with Image.open(path, formats=["PNG"]) as picture:
        if picture.width * picture.height > LARGEST[1]:
            raise ValueError(f"more than {LARGEST[1]:,} pixels")
        words = {k: str(v)[:4000] for k, v in picture.info.items() if k in ("Title", "Description")}
        held = io.BytesIO()
        picture.convert("RGB").save(held, "WEBP", quality=QUALITY, method=2)
        size = picture.size
    step = step_of(path)
    title = words.get("Title") or path.stem.replace("_", " ")
    return Shown(
        "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode(),
        f"{title}, step {step:,}" if step else title,
        words.get("Description") or title,
        str(path.relative_to(run.folder)),
        step,
        *size,
    )
