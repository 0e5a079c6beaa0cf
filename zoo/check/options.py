"""Every option of a constructor is heard."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from zoo.check.checks import check
from zoo.check.subject import Given, Subject
from zoo.core import DataSpec
from zoo.core.draw import draw_fields, tell, undisturbed

Options = dict[str, Any]
STEPS = 3
CHEAP, DEEP = 3, 6  # traces: of the steps, and of what is drawn and measured too
SPECS = [  # other data, where an option means nothing on a model's own
    DataSpec((3,)),
    DataSpec((1, 8, 8), 2, 10),
    DataSpec((1, 16, 16), 17, 10),
    DataSpec((3, 16, 16), 256, 10),
]


@check(mark="slow")
def check_every_option_is_heard(subject: Subject) -> None:
    """Each parameter, moved away from its default, alone or together with another one or on other
    data, changes what is built, trained, drawn or measured.
    """
    hearing = Hearing(subject)
    deaf = [name for name in hearing.values if not hearing.heard(name)]
    assert not deaf, f"no other value of {', '.join(deaf)} changes anything"


class Hearing:
    """What becomes of a model under changed options.

    Attributes:
        values: the value in the model's config, or the default, of each parameter with another one.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.known = subject, dict[str, _Memory]()
        constructor = subject.cls.__init__
        self.hints = typing.get_type_hints(constructor, include_extras=True)
        asked = {p.name: p.default for p in inspect.signature(constructor).parameters.values()}
        asked |= subject.model_params
        self.values = {k: asked[k] for k in subject.entry.parameters if self.others(k, asked[k])}

    def others(self, name: str, value: Any) -> list[Any]:
        return [*alternatives(self.hints.get(name), value)]

    def heard(self, name: str) -> bool:
        """Whether any other value changes anything: first in the model's own run, then together
        with another option, then on other data too; what is dear to look at comes last in each.
        """
        options = [k for k in self.values if k != name]
        changes = [{k: v} for k in options for v in self.others(k, self.values[k])]
        stages: list[list[tuple[DataSpec | None, Options]]] = [
            [(None, {})],
            [(None, change) for change in changes],
            [*itertools.product(SPECS, [{}, *changes])],
        ]
        return any(
            self.differs(context, {name: other}, spec, depth)
            for stage in stages
            for depth in (CHEAP, DEEP)
            for spec, context in stage
            for other in self.others(name, self.values[name])
        )

    def differs(self, context: Options, change: Options, spec: DataSpec | None, depth: int) -> bool:
        """Whether a change makes a difference in the first traces; not where it is refused."""
        before, after = self.of(context, spec), self.of(context | change, spec)
        i = 0
        while i < depth and (a := before(i)) is not None and (b := after(i)) is not None:
            if a != b:
                return True
            i += 1
        return False

    def of(self, changes: Options, spec: DataSpec | None) -> _Memory:
        key = repr((sorted(changes.items()), spec))
        return self.known.setdefault(key, _Memory(lambda: traces(self.subject, spec, changes)))


class _Memory:
    """The items of an iterator by their number, each made once; None after its end or an error."""

    def __init__(self, make: Callable[[], Iterator[str]]) -> None:
        self.made, self.rest = list[str](), make()

    def __call__(self, i: int) -> str | None:
        try:
            while len(self.made) <= i:
                self.made.append(next(self.rest))
        except (StopIteration, ValueError, TypeError):
            return None
        return self.made[i]


def alternatives(hint: Any, value: Any) -> Iterator[Any]:
    """Other values that a parameter may take, some of them."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        yield from alternatives(inside[0], value)
    elif origin is typing.Literal:
        yield from (v for v in inside if v != value)
    elif origin in (typing.Union, types.UnionType):
        for kind in inside:
            if kind is not type(None) and not (value is not None and kind is str):
                yield from alternatives(kind, value)
    elif origin in (tuple, list, Sequence):
        rows = [*value] if value else [4]
        yield from ([*rows[:-1], v] for v in alternatives(inside[0], rows[-1]))
    elif hint is bool:
        yield not value
    elif hint is int:
        n = value if isinstance(value, int) else 1
        yield from (v for v in dict.fromkeys((2 * n, 1, 2)) if v != value)
    elif hint is float:
        r = value if isinstance(value, int | float) else 1.0
        yield from (v for v in dict.fromkeys((r / 2, 0.9, 2.0 * r)) if v != value)


def traces(subject: Subject, spec: DataSpec | None, changes: Options) -> Iterator[str]:
    """Digests of what comes of a model with these options, the cheapest first: its state at the
    start, its optimisers and its state after some steps, what it draws, what it measures.
    """
    data = subject.data() if spec is None else Given(spec, *_rows(spec))
    seed_everything(0, verbose=False)
    model = subject.create(data.spec, **changes)
    yield digest(model.state_dict())
    trainer = subject.fit(model, STEPS, data)
    groups = [g for o in trainer.optimizers for g in o.param_groups]
    yield digest([{k: v for k, v in g.items() if k != "params"} for g in groups])
    yield digest(model.state_dict())
    batch = data.examples(4, "val")
    with undisturbed(model), torch.no_grad():
        if "sample" in model.entry.can:
            yield digest(draw_fields(model, 4, 0, told=tell(model, 4, data)))
        if hasattr(model, "evaluate"):
            yield digest(model.evaluate(batch, torch.Generator().manual_seed(0)))
    if "inpaint" in model.entry.can:
        known = torch.arange(batch["x"].numel()).view_as(batch["x"]) % 2 == 0
        g = torch.Generator().manual_seed(0)
        yield digest(model.eval().inpaint(batch["x"], known, generator=g, **model.told_in(batch)))


def _rows(spec: DataSpec, n: int = 32) -> tuple[Tensor, Tensor | None]:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % spec.num_classes if spec.num_classes else None
    if spec.levels is None:
        return torch.randn(n, *spec.shape, generator=g), y
    return torch.randint(spec.levels, (n, *spec.shape), generator=g).float(), y


def digest(content: Any) -> str:
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            found.update(
                repr(part.shape).encode() + part.detach().cpu().contiguous().numpy().tobytes()
            )
        elif isinstance(part, dict):
            add([*part.items()])
        elif isinstance(part, list | tuple):
            for one in part:
                add(one)
        else:
            found.update(repr(part).encode())

    add(content)
    return found.hexdigest()
