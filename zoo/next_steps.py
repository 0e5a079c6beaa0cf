"""What to paste when a run has ended."""

from __future__ import annotations

import shlex
from pathlib import Path

from zoo.registry import Entry


def next_steps(folder: Path, entry: Entry | None, module: str, steps: int) -> list[tuple[str, str]]:
    """What is done and its command, as far as the model can do it.

    Args:
        entry: the model's; None where it is not registered. module: that defines it, which a
            command imports where it is not the zoo's. steps: it was trained for.
    """
    at = shlex.quote(str(folder))
    own = "" if module.startswith("zoo.") or not module else f" --import {shlex.quote(module)}"
    look = f"--ckpt {at}{own}"
    can = entry.can if entry else frozenset()
    said = []
    if "sample" in can:
        said.append(("draw more", f"python -m zoo.sample {look} --n 64 --out samples.png"))
    if "inpaint" in can:
        said.append(("complete", f"python -m zoo.sample {look} --inpaint top --out completed.png"))
    if entry:
        said.append(("look inside", f"python -m zoo.explore {look}"))
        said.append(("probe codes", f"python -m zoo.probe {look}"))
    train = f"python -m zoo.fit --ckpt_path {at} --trainer.max_steps={2 * steps}{own}"
    return [*said, ("train on", train)]
