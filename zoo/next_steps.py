"""What to paste when a run has ended."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.registry import Entry


def next_steps(
    folder: Path,
    entry: Entry | None,
    config: Mapping[str, Any],
    steps: int,
    images: bool = True,
    features: bool = True,
) -> list[tuple[str, str]]:
    """What is done and its command, as far as the model can do it.

    Args:
        entry: the model's; None where it is not registered. config: of the run, whose classes a
            command imports where they are not the zoo's. steps: it was trained for. images: whether
            x are images. features: whether there are some, and classes to tell by them.
    """
    at, own = shlex.quote(str(folder)), "".join(f" --import {m}" for m in modules(config))
    look = f"--ckpt {at}{own}"
    can = entry.can if entry else frozenset()
    said = []
    if "sample" in can:
        said.append(("draw more", f"python -m zoo.sample {look} --n 64 --out samples.png"))
    if "inpaint" in can and images:
        said.append(("complete", f"python -m zoo.sample {look} --inpaint top --out completed.png"))
    if entry and images:
        said.append(("look inside", f"python -m zoo.explore {look}"))
    if entry and features:
        said.append(("probe codes", f"python -m zoo.probe {look}"))
    train = f"python -m zoo.fit --ckpt_path {at} --trainer.max_steps={2 * steps}{own}"
    return [*said, ("train on", train + _script(config))]


def modules(config: Mapping[str, Any]) -> list[str]:
    """The modules of a run's model and data that are not the zoo's, for a shell."""
    paths = [class_path(config, section) for section in ("model", "data")]
    found = [path.rpartition(".")[0] for path in paths if not path.startswith("zoo.")]
    return [shlex.quote(module) for module in dict.fromkeys(found) if module]


def class_path(config: Mapping[str, Any], section: str) -> str:
    """Of a section of a config; "" where there is none."""
    inside = config.get(section)
    path = inside.get("class_path") if isinstance(inside, Mapping) else inside
    return path if isinstance(path, str) else ""


def _script(config: Mapping[str, Any]) -> str:
    """The option that a run with a TorchScript module is resumed with."""
    inside = config.get("model")
    args = inside.get("init_args") if isinstance(inside, Mapping) else None
    look = args.get("look") if isinstance(args, Mapping) else None
    if not isinstance(look, Mapping) or look.get("kind") != "jit":
        return ""
    return f" --model.look.weights={shlex.quote(str(look.get('weights')))}"
