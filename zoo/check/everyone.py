"""Checks of every model: what it is made of, what it takes and makes, and that it learns and
resumes.

All of them run on the model's own data, whatever kind of field those have.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import registry
from zoo.check.checks import can, check
from zoo.check.subject import CAPABILITIES, Subject, found
from zoo.config import folder
from zoo.core import (
    Attributes,
    Batch,
    Boxes,
    DataSpec,
    Image,
    Label,
    Quantity,
    Series,
    Spec,
    Tokens,
    Video,
    Volume,
)
from zoo.core.draw import BLOCK, draw_fields, given, tell, undisturbed
from zoo.core.module import defines
from zoo.core.noise import seeded

OTHER_DATA = [  # what any model takes, or refuses clearly
    DataSpec((2,)),
    DataSpec((1, 8, 8), 2, 10),
    DataSpec((1, 16, 16), 17, 10),
    DataSpec((3, 32, 32), 256),
    DataSpec((1, 28, 20), 256),
    Spec("clips", x=Video((4, 1, 16, 16), 17)),
    Spec("voxels", x=Volume((1, 8, 8, 8), 2)),
    Spec("series", x=Series((12, 3))),
    Spec("words", x=Tokens((9,), 20)),
    Spec("unpaired", a=Image((1, 16, 16), 17), b=Image((3, 16, 16), 256)),
    Spec("graphs", x=Image((3, 16, 16), 256), objects=Tokens((5,), 7), boxes=Boxes(5)),
    Spec("showers", x=Image((3, 8, 8)), energy=Quantity(unit="GeV", low=1.0, high=100.0)),
    Spec("faces", x=Image((3, 16, 16), 256), attributes=Attributes((6,))),
]


@check()
def check_builds(subject: Subject) -> None:
    """From its defaults, and for the zoo's own from its config and in the paper's size (on the meta
    device).
    """
    assert sum(p.numel() for p in subject.model().parameters()) > 0
    if not subject.inside:
        return
    name, own = subject.name, folder() / subject.entry.family
    assert (own / f"{name}.yaml").is_file(), f"no config {own / name}.yaml"
    assert (own / f"{name}.paper.yaml").is_file(), f"no paper config {own / name}.paper.yaml"
    paper = Subject.of(name, "--preset", "paper")
    with torch.device("meta"):
        model = registry.create(name, paper_spec(paper), **paper.model_params)
    assert sum(p.numel() for p in model.parameters()) > 0


def paper_spec(subject: Subject) -> Spec:
    """The data's of a paper preset; of folders of one's own the shape that they are given."""
    needed = inspect.signature(found(subject.data_class)).parameters.values()
    missing = [p.name for p in needed if p.default is p.empty]
    if missing:
        size = subject.data_params.get("size", 32)
        image = Image((subject.data_params.get("channels", 3), size, size), 256)
        accepts = subject.cls.accepts.items()
        return Spec("data", **{k: Label(10) if of is Label else image for k, of in accepts})
    return subject.data().spec


@check()
def check_capabilities(subject: Subject) -> None:
    """It can do what it declares, and declares what it can do."""
    cls, declared = subject.cls, set(subject.entry.can)
    has = {c for c in CAPABILITIES if defines(cls, c)}
    unknown = sorted(declared - set(CAPABILITIES))
    assert not unknown, f"unknown capabilities {unknown}"
    assert has == declared, f"declares {sorted(declared)}, has methods {sorted(has)}"
    rates = declared & {"log_prob", "elbo"}
    if subject.entry.likelihood == "none":
        assert not rates, f"likelihood is none, yet it has {sorted(rates)}"
    else:
        assert rates, (
            f"likelihood is {subject.entry.likelihood}, yet it has neither log_prob nor elbo"
        )


@check()
def check_told_fields_are_its_arguments(subject: Subject) -> None:
    """What it is told and makes are fields of its data; of all methods the keyword-only arguments
    called like a field are told ones, and ``sample`` takes all of them.
    """
    model = subject.model()
    fields, told = set(model.spec), set(model.told)
    assert told <= fields, f"it is told {sorted(told - fields)}, which its data do not have"
    assert set(model.makes) <= fields, f"it makes {model.makes}, its data have {sorted(fields)}"
    for name in sorted(subject.entry.can):
        taken = inspect.signature(getattr(model, name)).parameters.values()
        asked = {p.name for p in taken if p.kind is p.KEYWORD_ONLY and p.name in fields}
        needed = {p.name for p in taken if p.name in asked and p.default is p.empty}
        assert needed <= told, f"{name} needs {sorted(needed - told)}, which it is not told"
        if name == "sample":
            anything = any(p.kind is p.VAR_KEYWORD for p in taken)
            assert anything or told <= asked, f"sample does not take {sorted(told - asked)}"


@check()
def check_refuses_other_data_clearly(subject: Subject) -> None:
    """Data of other shapes, levels and kinds are modelled, or refused with a message that names the
    model, the data and a remedy.
    """
    served = 0
    for spec in [*OTHER_DATA, subject.data().spec]:
        try:
            model = subject.cls(spec)
            model.check_told()
        except ValueError as error:
            said = str(error)
            named = subject.entry.name in said and spec.name in said
            assert named and ";" in said, f"on {spec}: no name, data or remedy in {said}"
            continue
        served += 1
        if "sample" in subject.entry.can:
            told = Batch({k: spec.example(2)[k] for k in model.told}, 2)
            for name, rows in draw_fields(model, 2, told=told).items():
                fault = spec[name].faults(rows)
                assert not fault, f"on {spec} its {name} has {fault}"
    assert served, "with its defaults it takes no data at all, not even its own"


@check()
def check_options_are_tested(subject: Subject) -> None:
    """A choice that does not exist and a number outside its range are refused, with the model's
    name, the option and the value.
    """
    spec = subject.data().spec
    for name, hint, value in _wrong_values(subject.cls):
        try:
            subject.create(spec, **{name: value})
        except ValueError as error:
            said = str(error)
            wanted = (subject.entry.name, name, repr(value))
            assert all(word in said for word in wanted), f"{name}={value!r}: it says {said!r}"
        else:
            raise AssertionError(f"{name}={value!r} is taken, although it is {hint}")


def _wrong_values(cls: Any) -> list[tuple[str, Any, Any]]:
    """Values outside for each option whose type has an outside."""
    import typing

    from zoo.core.options import fault

    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    return [
        (name, hints[name], value)
        for name in registry.parameters(cls)
        for value in ("no such choice", -1, 0, 2.0, math.nan)
        if name in hints and fault(hints[name], value)
    ]


@check()
def check_same_seed_same_weights(subject: Subject) -> None:
    """The seed decides the weights, and nothing else does."""
    a, b, c = (subject.model(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.values(), c.values(), strict=True))


@check()
def check_every_parameter_learns(subject: Subject) -> None:
    """Every parameter that can be trained moves within a few steps."""
    model = subject.model()
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    subject.fit(model, 4)
    still = [n for n, p in model.named_parameters() if n in before and torch.equal(before[n], p)]
    assert not still, f"never moved: {', '.join(still)}"


@check()
def check_losses_finite(subject: Subject) -> None:
    """Twenty steps give finite terms and finite weights."""
    model = subject.model()
    subject.fit(model, 20)
    for name, value in model.terms.items():
        assert torch.isfinite(value).all(), f"{name} is {value}"
    assert all(torch.isfinite(p).all() for p in model.parameters())


@check()
def check_resumes_bit_for_bit(subject: Subject) -> None:
    """Nine steps in one go equal four, a checkpoint, and five more: weights, buffers and
    optimisers.
    """
    resume(subject)


def resume(subject: Subject, workers: int = 0, **options: Any) -> None:
    """Raise an AssertionError unless a resumed run equals an uninterrupted one."""
    straight = subject.model()
    whole = subject.fit(straight, 9, subject.data(num_workers=workers), **options)
    with tempfile.TemporaryDirectory() as scratch:
        # One folder for all processes of a group.
        path = Path(os.environ.get("ZOO_CHECK_FOLDER", scratch)) / "at4.ckpt"
        first = subject.fit(subject.model(), 4, subject.data(num_workers=workers), **options)
        first.save_checkpoint(path)
        resumed = subject.model(seed=5)  # another seed: everything must come from the checkpoint
        data = subject.data(num_workers=workers)
        rest = subject.fit(resumed, 9, data, ckpt_path=path, **options)
    now = resumed.state_dict()
    differing = [n for n, v in straight.state_dict().items() if not torch.equal(v, now[n])]
    assert not differing, f"differs after resuming: {', '.join(differing)}"
    for a, b in zip(whole.optimizers, rest.optimizers, strict=True):
        for x, y in zip(_tensors(a.state_dict()), _tensors(b.state_dict()), strict=True):
            assert torch.equal(x, y), "an optimiser's state differs after resuming"


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [t for v in tree.values() for t in _tensors(v)]
    if isinstance(tree, (list, tuple)):
        return [t for v in tree for t in _tensors(v)]
    return [torch.tensor(tree)] if isinstance(tree, (int, float)) else []


@check()
def check_leaves_no_trace(subject: Subject) -> None:
    """Evaluation and sampling change no weight, buffer, mode or random state, and what is sampled
    carries no gradient.
    """
    data = subject.data()
    model, batch = subject.model().train(), data.examples(8)
    told = tell(model, 3, data)
    modes = [m.training for m in model.modules()]
    state, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    if "sample" in subject.entry.can:
        draw_fields(model, 3, told=told)
    with undisturbed(model):
        model.evaluate(batch, seeded(0, "check"))
        for name in sorted({"log_prob", "elbo"} & subject.entry.can):
            method = getattr(model, name)
            method(batch["x"], **given(model, method, batch), generator=seeded(0, "check"))
    changed = [n for n, v in state.items() if not torch.equal(v, model.state_dict()[n])]
    assert not changed, f"evaluation changed {', '.join(changed)}"
    assert torch.equal(rng, torch.get_rng_state()), "evaluation used the global random state"
    assert modes == [m.training for m in model.modules()], "evaluation changed a submodule's mode"
    if "sample" in subject.entry.can:
        rows = given(model, model.sample, told)
        made = model.eval().sample(3, **rows, generator=seeded(0, "check"))
        assert torch.equal(rng, torch.get_rng_state()), (
            "sample consumed the global random state, not its generator's"
        )
        made = [made] if isinstance(made, Tensor) else made.values()
        assert not any(v.requires_grad for v in made), "samples carry a gradient"


@check(can("sample"))
def check_samples(subject: Subject) -> None:
    """Valid rows of every field it makes; a row is the same in every chunking; one generator says
    it all.
    """
    data = subject.data()
    model = subject.model()
    subject.fit(model, 20)  # batch statistics need a few steps to leave their start
    n = BLOCK + 6
    told = tell(model, n, data)
    whole = draw_fields(model, n, seed=1, told=told)
    assert set(whole) == set(model.makes), f"it makes {sorted(whole)}, and says {model.makes}"
    for name, rows in whole.items():
        assert len(rows) == n, f"{len(rows)} rows of {name} where {n} were asked for"
        assert not (fault := model.spec[name].faults(rows)), f"{name} has {fault}"
    tail = draw_fields(model, 6, seed=1, start=BLOCK, told=told.rows(slice(BLOCK, None)))
    one = draw_fields(model, 1, seed=1, told=told.rows(slice(1)))
    torch.manual_seed(3)
    again = draw_fields(model, n, seed=1, told=told)
    for name, rows in whole.items():
        assert torch.equal(rows[BLOCK:], tail[name]), f"rows of {name} depend on the chunking"
        assert torch.equal(rows[:1], one[name]), f"n=1 is not the first row of n in {name}"
        assert torch.equal(rows, again[name]), f"{name} depends on the global random state"


@check(can("sample"))
def check_seed_matters(subject: Subject) -> None:
    """Another seed gives other samples."""
    data = subject.data()
    model = subject.model()
    subject.fit(model, 20)  # what is made at the start may be grey whatever the code
    told = tell(model, 8, data)
    one, other = (draw_fields(model, 8, seed=seed, told=told) for seed in (1, 2))
    assert any(not torch.equal(one[k], other[k]) for k in one), "the seed does not matter"


@check(can("sample"))
def check_condition_matters(subject: Subject) -> None:
    """Each field that a model is told changes its samples."""
    data = subject.data()
    model = subject.model()
    if not model.told:
        return
    subject.fit(model, 3)
    told = tell(model, 8, data)
    plain = draw_fields(model, 8, told=told)
    for name in model.told:
        moved = draw_fields(model, 8, told=Batch({**told, name: told[name].roll(1, 0)}, 8))
        if torch.equal(told[name], told[name].roll(1, 0)):
            continue
        same = all(torch.equal(plain[k], moved[k]) for k in plain)
        assert not same, f"{name} does not change the samples"


@check(can("encode"))
def check_rows_do_not_talk(subject: Subject) -> None:
    """Codes and reconstructions of an example are the same whatever shares its batch."""
    model, batch = subject.model(), subject.batch(4)
    x = batch["x"]
    with undisturbed(model):
        for name in sorted({"encode", "reconstruct"} & subject.entry.can):
            method = getattr(model, name)
            rows = given(model, method, batch)
            first = {k: v[:1] for k, v in rows.items()}
            alone, together = method(x[:1], **first), method(x, **rows)
            torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-4)


@check(can("score"))
def check_scores_are_each_rows_own(subject: Subject) -> None:
    """Scores are finite, one a row, the same whatever shares the batch, in every mode and every
    time; they leave weights, buffers, gradients, modes and the random state as they were.
    """
    model, x = subject.model().train(), subject.batch(4)["x"]
    state, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    scores = model.score(x)
    assert scores.shape == (4,) and scores.isfinite().all(), f"the scores of 4 rows are {scores}"
    assert not scores.requires_grad, "scores carry a gradient"
    assert model.training, "it left training mode"
    assert torch.equal(rng, torch.get_rng_state()), "it used the global random state"
    assert all(p.grad is None for p in model.parameters()), "it left gradients"
    changed = [n for n, v in state.items() if not torch.equal(v, model.state_dict()[n])]
    assert not changed, f"it changed {', '.join(changed)}"
    assert torch.equal(scores, model.eval().score(x)), "the mode, or the time, matters"
    model = model.double()
    together, alone = model.score(x.double()), model.score(x[:1].double())
    torch.testing.assert_close(alone, together[:1], rtol=1e-6, atol=1e-6)


@check()
def check_fingerprint_is_its_own(subject: Subject) -> None:
    """No other model has the same weights after two steps on the same data: no name is a renamed
    copy.
    """
    mine = fingerprint(*subject.command)
    for other in registry.list():
        if other not in (subject.name, subject.entry.name):
            assert fingerprint(other) != mine, f"trains exactly like {other}"


@functools.cache
def fingerprint(name: str) -> str:
    """Hash of the trainable values after two steps from seed 0 on the model's default data."""
    subject = Subject.of(name)
    model = subject.model()
    subject.fit(model, 2)
    values = torch.cat([p.detach().flatten() for p in model.parameters()])
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()
