"""Drawing from a model without leaving a trace, and the same rows whatever the number, the chunking
or the processes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zoo.core.module import GenerativeModule
from zoo.core.noise import generator

BLOCK = 64  # rows drawn together from one generator


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule's mode and the global random
    state are as before.
    """
    modes = [(m, m.training) for m in module.modules()]
    devices = [p.device for p in module.parameters() if p.device.type == "cuda"][:1]
    module.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training


def classes_in_turn(model: GenerativeModule, n: int) -> Tensor | None:
    """Labels 0, 1, ..., over and over, (n,), for samples of a model that is conditioned on the
    class; None for any other.
    """
    return (
        torch.arange(n) % model.spec.num_classes
        if getattr(model, "conditions_on", "") == "class"
        else None
    )


def draw(
    model: GenerativeModule, n: int, seed: int = 0, *, start: int = 0, y: Tensor | None = None
) -> Tensor:
    """Rows start..start+n-1 of the model's endless sequence of samples for this seed, (n, *shape),
    in the units of ``spec``.

    Rows are drawn in blocks of 64, each from its own generator, so row i is the same whatever n and
    start are.

    Args:
        y: class labels of these n rows, (n,), for a conditional model.
    """
    if n < 1:
        raise ValueError(f"n is at least 1, got {n}")
    parts = []
    with undisturbed(model):
        for block in range(start // BLOCK, (start + n - 1) // BLOCK + 1):
            first = block * BLOCK
            lo, hi = max(start - first, 0), min(start + n - first, BLOCK)
            labels = None
            if y is not None:
                labels = torch.zeros(BLOCK, dtype=torch.long, device=model.device)
                labels[lo:hi] = y[first + lo - start : first + hi - start].to(model.device)
            rows = model.sample(
                BLOCK, y=labels, generator=generator(seed, "sample", block, device=model.device)
            )
            parts.append(rows[lo:hi])
    return torch.cat(parts)


def given(
    model: GenerativeModule, method: Callable[..., Tensor], y: Tensor | None
) -> dict[str, Tensor]:
    """``y=`` for one of the model's methods, on its device, if the model is conditioned on the
    class and the method takes labels.
    """
    wants = (
        y is not None
        and model.conditions_on == "class"
        and "y" in inspect.signature(method).parameters
    )
    return {"y": y.to(model.device)} if wants and y is not None else {}


def complete(
    model: GenerativeModule, x: Tensor, known: Tensor, seed: int = 0, y: Tensor | None = None
) -> Tensor:
    """The model's completion of images x (N, *shape) where ``known`` (booleans that broadcast to x)
    is False, on the model's device.

    Args:
        y: class labels, (N,), read by conditional models only.
    """
    given = {"y": y.to(model.device)} if y is not None and model.conditions_on == "class" else {}
    with undisturbed(model):
        source = generator(seed, "complete", device=model.device)
        return model.inpaint(
            x.to(model.device, model.float_dtype), known.to(model.device), generator=source, **given
        )
