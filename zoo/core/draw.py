"""Drawing from a model without leaving a trace, and the same rows whatever the number, the chunking
or the processes. The one way by which callbacks and commands sample.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.asked import check_rows, number
from zoo.core.batch import Batch
from zoo.core.module import GenerativeModule
from zoo.core.noise import seeded
from zoo.core.spec import Label

BLOCK = 64  # rows drawn together from one generator
Told = Mapping[str, Tensor]


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


def tell(model: GenerativeModule, n: int, data: Any = None, split: str = "val") -> Batch:
    """What to tell a model for n samples: every class in turn for labels, and for anything else the
    fields of the first rows of a split of the data, over and over. Empty for a model that is told
    nothing.

    Args:
        data: a data module; needed where something else than labels is told.

    Raises:
        ValueError: there are no data to take the fields from.
    """
    kinds = {name: model.spec[name] for name in model.told}
    labels = {k: torch.arange(n) % f.words for k, f in kinds.items() if isinstance(f, Label)}
    others = [name for name in kinds if name not in labels]
    if not others:
        return Batch(labels, n)
    if not hasattr(data, "examples"):
        raise ValueError(
            f"{model.model_name} is told {', '.join(others)}, which only data can say; give a "
            f"data module"
        )
    rows = data.examples(n, split)  # labels too, so that what is told belongs together
    at = torch.arange(n) % rows.n
    return Batch({name: rows[name][at] for name in kinds}, n)


def draw_fields(
    model: GenerativeModule,
    n: int,
    seed: int = 0,
    *,
    start: int = 0,
    told: Told | None = None,
) -> Batch:
    """Rows start..start+n-1 of the model's endless sequence of samples for this seed, in the units
    of ``spec``, by field.

    Rows are drawn in blocks of 64, each from its own generator, so row i is the same whatever n and
    start are. Floating values of 16 bits come in float32, as pictures and metrics need them.

    Args:
        told: what the model is told of these n rows, (n, ...) by name, of any type; for labels it
            may be left out, and is every class in turn by row number.

    Raises:
        ValueError: n is not positive, or a field that the model is told is missing or of other
            rows.
    """
    n = number(model, n)
    given = _told(model, n, start, told)
    parts: list[Any] = []
    with undisturbed(model):
        for block in range(start // BLOCK, (start + n - 1) // BLOCK + 1):
            first = block * BLOCK
            lo, hi = max(start - first, 0), min(start + n - first, BLOCK)
            rows = {}
            for name, value in given.items():
                own = value[first + lo - start : first + hi - start]
                padded = own[:1].expand(BLOCK, *own.shape[1:]).clone()  # rows of which none is kept
                padded[lo:hi] = own
                rows[name] = padded
            source = seeded(seed, "sample", block, device=model.device)
            rows = Batch(rows, BLOCK).to(model.device, model.float_dtype)
            made: Any = model.sample(BLOCK, generator=source, **rows)
            made = {model.makes[0]: made} if isinstance(made, Tensor) else made
            parts.append({name: readable(v[lo:hi]) for name, v in made.items()})
    return Batch({name: torch.cat([p[name] for p in parts]) for name in parts[0]}, n)


def draw(
    model: GenerativeModule,
    n: int,
    seed: int = 0,
    *,
    start: int = 0,
    told: Told | None = None,
) -> Tensor:
    """``draw_fields`` of a model that makes one field: (n, *shape)."""
    return draw_fields(model, n, seed, start=start, told=told)[model.makes[0]]


def given(model: GenerativeModule, method: Callable[..., Any], told: Told) -> dict[str, Any]:
    """Those of the fields that the model is told which one of its methods takes, on its device."""
    taken = inspect.signature(method).parameters.values()
    names = {p.name for p in taken if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in taken):
        names |= set(model.told)
    rows = Batch({k: told[k] for k in model.told if k in names and k in told})
    return dict(rows.to(model.device, model.float_dtype))


def complete(
    model: GenerativeModule, x: Tensor, known: Tensor, seed: int = 0, told: Told | None = None
) -> Tensor:
    """The model's completion of examples x (N, *shape) where ``known`` (booleans that broadcast to
    x) is False, on the model's device.

    Args:
        told: fields of these rows, (N, ...) by name; those that the model is told are read.
    """
    with undisturbed(model):
        source = seeded(seed, "complete", device=model.device)
        x = x.to(model.device, model.float_dtype)
        rows = given(model, model.inpaint, told or {})
        return readable(model.inpaint(x, known.to(model.device), generator=source, **rows))


def readable(values: Tensor) -> Tensor:
    """Floating values of 16 bits in float32; all others as they are."""
    return values.float() if values.is_floating_point() and values.itemsize == 2 else values


def _told(model: GenerativeModule, n: int, start: int, told: Told | None) -> dict[str, Tensor]:
    """What the model is told, tested."""
    found = {}
    for name in model.told:
        field = model.spec[name]
        if told is not None and name in told:
            value = told[name]
        elif isinstance(field, Label):
            value = (torch.arange(n) + start) % field.words
        else:
            raise ValueError(
                f"{model.model_name} is told {name} ({field}); give "
                f"told={{{name!r}: (n, ...) rows}}"
            )
        check_rows(model, name, value, n)
        found[name] = value
    return found
