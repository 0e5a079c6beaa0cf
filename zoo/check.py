"""The contract that every model keeps, as plain functions chosen by its metadata.
``python -m zoo.check NAME`` runs them.

    python -m zoo.check began            one model
    python -m zoo.check --all            every model
    python -m zoo.check --all --slow     also the gates of the default runs (minutes a model)

A check that does not apply to a model for a known reason stands in its ``waive=``; a waived check
that passes is a failure too.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import hashlib
import importlib
import logging
import math
import os
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn

from zoo import harness, registry
from zoo.config import folder, layer, merge
from zoo.core import (
    AdversarialModule,
    AutoregressiveModule,
    DataSpec,
    GenerativeModule,
    LikelihoodModule,
)
from zoo.core.module import Batch
from zoo.core.noise import Noise, generator
from zoo.core.processes import leave_group
from zoo.core.sampling import BLOCK, classes_in_turn, draw, undisturbed
from zoo.data.base import Split, ZooDataModule

CAPABILITIES = (
    "sample log_prob elbo encode decode reconstruct interpolate inpaint classify translate".split()
)
TINY = [
    DataSpec((1, 3, 3), 2, 3, "tiny"),
    DataSpec((1, 2, 4), 2, 3, "tiny"),
]  # the second for models that halve the sides


@dataclass
class Subject:
    """A registered model with its default data, as its config sets them."""

    entry: registry.Entry
    model_params: dict[str, Any]
    data_class: str
    data_params: dict[str, Any]
    trainer_params: dict[str, Any]

    @classmethod
    def of(cls, name: str, *options: str) -> Subject:
        """As ``python -m zoo.fit --model NAME OPTIONS`` would train it; of the options, those of
        the model and the data count.
        """
        layered = layer(["--model", name, *options])
        document = layered.document
        for option in layered.options:
            key, _, value = option.removeprefix("--").partition("=")
            section, *path = key.split(".")
            if section in ("model", "data"):
                change: Any = yaml.safe_load(value)
                for part in reversed(path):
                    change = {part: change}
                document[section] = merge(document[section], {"init_args": change})
        clip = {
            k: v
            for k, v in document["trainer"].items()
            if k in ("gradient_clip_val", "gradient_clip_algorithm")
        }
        model, data = document["model"], document["data"]
        return cls(
            registry.entry(name),
            model.get("init_args", {}),
            data["class_path"],
            data.get("init_args", {}),
            clip,
        )

    def data(self, **changes: Any) -> ZooDataModule:
        module, _, name = self.data_class.rpartition(".")
        return getattr(importlib.import_module(module), name)(**{**self.data_params, **changes})

    def model(self, spec: DataSpec | None = None, seed: int = 0) -> Any:
        seed_everything(seed, verbose=False)
        return registry.create(self.entry.name, spec or self.data().spec, **self.model_params)

    def fit(
        self, model: GenerativeModule, steps: int, data: ZooDataModule | None = None, **options: Any
    ) -> Trainer:
        return fit(model, data or self.data(), steps, **{**self.trainer_params, **options})

    def batch(self, n: int = 8) -> Batch:
        return self.data().examples(n)


def fit(model: Any, data: Any, steps: int, **options: Any) -> Trainer:
    """Train without logger, bar, validation or checkpoints for ``steps`` generator steps; returns
    the trainer.
    """
    ckpt_path = options.pop("ckpt_path", None)
    quiet = {
        "max_steps": steps,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "check_val_every_n_epoch": None,
        "val_check_interval": 10**9,
        "use_distributed_sampler": False,
    }
    trainer = Trainer(**{**quiet, **options})
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


# -- the checks ----------------------------------------------------------------------------------
Applies = Callable[[registry.Entry], bool]
CHECKS: dict[str, tuple[Callable[[Subject], None], Applies, str]] = {}


def check(applies: Applies = lambda entry: True, mark: str = ""):
    """Register a check; it raises AssertionError where the contract is broken. ``mark``: "slow" or
    "ddp".
    """

    def add(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        CHECKS[function.__name__.removeprefix("check_")] = (function, applies, mark)
        return function

    return add


def can(*capabilities: str) -> Applies:
    return lambda entry: set(capabilities) <= entry.can


def kind(*kinds: str) -> Applies:
    return lambda entry: entry.likelihood in kinds


@check()
def check_builds(subject: Subject) -> None:
    """From its defaults, from its config, and in the paper's size (on the meta device)."""
    name = subject.entry.name
    subject.model()
    own = folder() / subject.entry.family
    assert (own / f"{name}.yaml").is_file(), f"no config {own / name}.yaml"
    assert (own / f"{name}.paper.yaml").is_file(), f"no paper config {own / name}.paper.yaml"
    paper = Subject.of(name, "--preset", "paper")
    with torch.device("meta"):
        model = registry.create(name, _paper_spec(paper), **paper.model_params)
    assert sum(p.numel() for p in model.parameters()) > 0


def _paper_spec(subject: Subject) -> DataSpec:
    if subject.data_class.endswith(
        "ImageFolder"
    ):  # no files here: the shape its parameters promise
        size = subject.data_params.get("size", 32)
        return DataSpec((subject.data_params.get("channels", 3), size, size), 256)
    return subject.data().spec


@check()
def check_capabilities(subject: Subject) -> None:
    """It can do what it declares, and declares what it can do."""
    model, declared = subject.model(), subject.entry.can
    base = LikelihoodModule if isinstance(model, LikelihoodModule) else GenerativeModule
    has = {
        c
        for c in CAPABILITIES
        if callable(getattr(type(model), c, None))
        and getattr(type(model), c) is not getattr(base, c, None)
    }
    assert declared <= set(CAPABILITIES), (
        f"unknown capabilities {sorted(declared - set(CAPABILITIES))}"
    )
    assert has == declared, f"declares {sorted(declared)}, has methods {sorted(has)}"
    if subject.entry.likelihood == "none":
        assert not declared & {"log_prob", "elbo"}, (
            "likelihood is none, yet it has log_prob or elbo"
        )
    else:
        assert declared & {"log_prob", "elbo"}, (
            f"likelihood is {subject.entry.likelihood}, yet it has neither log_prob nor elbo"
        )


@check()
def check_refuses_other_data_clearly(subject: Subject) -> None:
    """Other shapes and levels are modelled, or refused with a message that names the model and the
    data.
    """
    for spec in (
        DataSpec((2,)),
        DataSpec((1, 8, 8), 2, 10),
        DataSpec((1, 16, 16), 17, 10),
        DataSpec((3, 32, 32), 256),
        DataSpec((1, 28, 20), 256),
    ):
        try:
            model = registry.create(subject.entry.name, spec)
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = ""
        if refusal:
            assert subject.entry.name in refusal and ";" in refusal, (
                f"on {spec}: no name or remedy in {refusal}"
            )
        elif "sample" in subject.entry.can:
            assert draw(model, 2).shape == (2, *spec.shape), f"wrong sample shape on {spec}"


@check()
def check_same_seed_same_weights(subject: Subject) -> None:
    a, b, c = subject.model(seed=1), subject.model(seed=1), subject.model(seed=2)
    assert all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    assert any(
        not torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), c.state_dict().values(), strict=True)
    )


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
    _resume(subject, 0)


def _resume(subject: Subject, workers: int, **options: Any) -> None:
    straight = subject.model()
    whole = subject.fit(straight, 9, subject.data(num_workers=workers), **options)
    with tempfile.TemporaryDirectory() as scratch:
        path = (
            Path(os.environ.get("ZOO_CHECK_FOLDER", scratch)) / "at4.ckpt"
        )  # one folder for all processes of a group
        subject.fit(
            subject.model(), 4, subject.data(num_workers=workers), **options
        ).save_checkpoint(path)
        resumed = subject.model(seed=5)  # another seed: everything must come from the checkpoint
        rest = subject.fit(resumed, 9, subject.data(num_workers=workers), ckpt_path=path, **options)
    differing = [
        n for n, v in straight.state_dict().items() if not torch.equal(v, resumed.state_dict()[n])
    ]
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
    """Evaluation and sampling change no weight, buffer, mode or random state."""
    model, batch = subject.model().train(), subject.batch()
    modes = [m.training for m in model.modules()]
    state, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    if "sample" in subject.entry.can:
        draw(model, 3, y=classes_in_turn(model, 3))
    with undisturbed(model):
        model.evaluate(batch, generator(0, "check"))
        for method in {"log_prob", "elbo"} & subject.entry.can:
            getattr(model, method)(batch["x"], batch.get("y"), generator=generator(0, "check"))
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in state.items()), (
        "evaluation changed the state"
    )
    assert torch.equal(rng, torch.get_rng_state()), "evaluation consumed the global random state"
    assert modes == [m.training for m in model.modules()], "evaluation changed a submodule's mode"
    if "sample" in subject.entry.can:
        model.eval()
        with torch.no_grad():
            model.sample(3, y=classes_in_turn(model, 3), generator=generator(0, "check"))
        assert torch.equal(rng, torch.get_rng_state()), (
            "sample consumed the global random state, not its generator's"
        )


@check(can("sample"))
def check_samples(subject: Subject) -> None:
    """Right shape and units, finite; seeds matter; a row is the same in every chunking; one
    generator says it all.
    """
    model = subject.model()
    subject.fit(model, 20)  # batch statistics need a few steps to leave their start
    spec, n = model.spec, BLOCK + 6
    y = classes_in_turn(model, n)
    whole = draw(model, n, seed=1, y=y)
    assert whole.shape == (n, *spec.shape) and torch.isfinite(whole).all()
    if spec.levels is not None:
        assert (
            whole.min() >= 0
            and whole.max() <= spec.levels - 1
            and torch.equal(whole, whole.round())
        ), "not integer levels"
    tail = draw(model, 6, seed=1, start=BLOCK, y=None if y is None else y[BLOCK:])
    assert torch.equal(whole[BLOCK:], tail), "rows depend on the chunking"
    assert torch.equal(whole[:1], draw(model, 1, seed=1, y=None if y is None else y[:1])), (
        "n=1 is not the first row of n"
    )
    assert not torch.equal(whole, draw(model, n, seed=2, y=y)), "the seed does not matter"
    torch.manual_seed(3)
    again = draw(model, n, seed=1, y=y)
    assert torch.equal(whole, again), "a sample depends on the global random state"


@check(can("sample"))
def check_condition_matters(subject: Subject) -> None:
    """A conditional model's samples depend on the label."""
    model = subject.model()
    if model.conditions_on != "class":
        return
    subject.fit(model, 3)
    zeros = torch.zeros(8, dtype=torch.long)
    assert not torch.equal(draw(model, 8, y=zeros), draw(model, 8, y=zeros + 1)), (
        "the label does not change the samples"
    )


@check(lambda e: bool(e.can & {"log_prob", "elbo"}))
def check_likelihood_form(subject: Subject) -> None:
    """Nats, one value an example, finite, the same alone and in a batch, repeatable from a
    generator.
    """
    model, batch = subject.model(), subject.batch(6)
    x, y = batch["x"], batch["y"] if model.conditions_on == "class" else None
    method = model.log_prob if "log_prob" in subject.entry.can else model.elbo

    def of(rows: Tensor, **options: Any) -> Tensor:
        return method(x[rows], None if y is None else y[rows], **options)

    everything, shuffled = torch.arange(6), torch.tensor([3, 1, 5, 0, 2, 4])
    with undisturbed(model):
        values = of(everything, generator=generator(1))
        assert values.shape == (6,) and torch.isfinite(values).all(), f"shape {tuple(values.shape)}"
        assert torch.equal(values, of(everything, generator=generator(1))), "not repeatable"
        plain = of(everything)  # without a generator a row's noise is its own
        torch.testing.assert_close(
            torch.cat([of(everything[:2]), of(everything[2:])]), plain, rtol=1e-5, atol=1e-4
        )
        torch.testing.assert_close(of(shuffled), plain[shuffled], rtol=1e-5, atol=1e-4)


@check(lambda e: "log_prob" in e.can and e.likelihood in ("exact_mass", "estimate"))
def check_mass_sums_to_one(subject: Subject) -> None:
    """Over all images of 1x3x3 (or 1x2x4) binary pixels, for each label, at random weights and
    after training.
    """
    model = _tiny(subject, *TINY)
    images, spec = harness.every_image(model.spec), model.spec
    labels = range(3) if model.conditions_on == "class" else [None]
    for steps in (0, 20):
        if steps:
            x = images[::7].float()
            fit(model, Given(spec, x, torch.arange(len(x)) % 3), steps)
        with undisturbed(model.double()):
            for label in labels:
                y = None if label is None else torch.full((len(images),), label)
                total = model.log_prob(images, y).exp().sum().item()
                assert abs(total - 1) < 1e-5, (
                    f"masses sum to {total} after {steps} steps (label {label})"
                )
        model.float()


def autoregressive(entry: registry.Entry) -> bool:
    return issubclass(registry.get(entry.name), AutoregressiveModule)


@check(autoregressive)
def check_is_causal(subject: Subject) -> None:
    """A dimension's conditional depends on none that comes later in the order, nor on itself: by
    autograd, and bit for bit.
    """
    models: list[Any] = []
    for seed in range(3):
        model = _stirred(subject, *TINY, seed=seed)
        if models:
            model.load_state_dict(
                dict(models[0].named_buffers()), strict=False
            )  # other weights, the same order
        models.append(model)
    condition = (
        {"y": torch.zeros(1, dtype=torch.long)} if models[0].conditions_on == "class" else {}
    )
    depends = harness.dependence(models, **condition)
    assert not depends.triu().any(), (
        f"{int(depends.triu().sum())} conditionals depend on what comes later"
    )
    assert harness.coverage(depends) > 0.8, (
        f"only {harness.coverage(depends):.0%} of the earlier dimensions are used"
    )
    x = harness.every_image(models[0].spec)[99:101]
    condition = {k: v.expand(2) for k, v in condition.items()}
    assert not harness.leaks(models[0], x, **condition), (
        "a conditional changed with a later dimension"
    )


@check(autoregressive)
def check_samples_have_the_models_probabilities(subject: Subject) -> None:
    """20,000 draws of 1x2x2 images of three levels against exp(log_prob): total variation below
    0.05 (0.025 is expected).
    """
    model = _stirred(subject, DataSpec((1, 2, 2), 3, 3, "tiny"), DataSpec((1, 1, 4), 3, 3, "tiny"))
    images = harness.every_image(model.spec)
    condition = [
        {"y": torch.ones(n, dtype=torch.long)} if model.conditions_on == "class" else {}
        for n in (20_000, len(images))
    ]
    with torch.no_grad():
        drawn = model.sample(20_000, generator=generator(0), **condition[0])
        expected = model.log_prob(images, **condition[1]).exp()
    distance = harness.total_variation(drawn, expected, model.spec)
    assert distance < 0.05, f"total variation {distance:.3f}"


@check(autoregressive)
def check_cache_changes_nothing(subject: Subject) -> None:
    """Sampling with the cache gives the integers of a full pass for each dimension, in float64,
    grey and in colour.
    """
    for spec in (DataSpec((1, 4, 4), 5, 3, "tiny"), DataSpec((3, 4, 4), 4, 3, "tiny")):
        try:
            model = _stirred(subject, spec)
        except ValueError:
            continue
        y = torch.arange(4) % 3 if model.conditions_on == "class" else None
        for seed in (0, 1):
            fast, slow = (
                model.sample(4, y=y, generator=generator(seed), cache=cache)
                for cache in (True, False)
            )
            assert torch.equal(fast, slow), (
                f"{int((fast != slow).sum())} of {fast.numel()} values differ on {spec}"
            )


@check(lambda e: "log_prob" in e.can and e.likelihood in ("exact_density", "dequantised_bound"))
def check_density_integrates_to_one(subject: Subject) -> None:
    """Over a grid of the plane, for models that take vectors."""
    spec = DataSpec((2,))
    try:
        model = _tiny(subject, spec)
    except ValueError:
        return  # a model of images only: its bound is checked by its own tests
    fit(model, Given(spec, torch.randn(256, 2, generator=generator(0))), 20)
    assert model.likelihood_kind == "exact_density", (
        f"on real-valued vectors its kind is {model.likelihood_kind}"
    )
    side = torch.linspace(-9, 9, 181)
    with undisturbed(model):
        density = model.log_prob(torch.cartesian_prod(side, side)).exp()
    total = density.sum().item() * (side[1] - side[0]).item() ** 2
    assert abs(total - 1) < 1e-2, f"the density integrates to {total}"


@check(lambda e: "log_prob" in e.can and e.likelihood == "dequantised_bound")
def check_bound_is_below_the_mass(subject: Subject) -> None:
    """On images the density over the unit cube integrates to at most one, and log_prob is below log
    P of the same images.
    """
    model = _tiny(
        subject, *(DataSpec(shape, 3, 3, "tiny") for shape in ((1, 1, 2), (1, 2, 2), (1, 4, 4)))
    ).double()
    spec, n = model.spec, 1 << 14
    x = torch.randint(3, (8, *spec.shape), generator=generator(0)).double()
    model.initialise_from(x)
    with undisturbed(model), torch.no_grad():
        density = model.log_density(
            torch.rand(n, *spec.shape, generator=generator(1), dtype=torch.float64)
        ).exp()
        u = torch.rand(8, 512, *spec.shape, generator=generator(2), dtype=torch.float64)
        each = torch.stack([model.bound(x, u[:, i]) for i in range(512)])
        bound = torch.stack([model.log_prob(x, generator=generator(i)) for i in range(32)]).mean(0)
    slack = 4 * density.std().item() / n**0.5
    assert density.mean().item() <= 1 + slack, (
        f"the density over the unit cube integrates to {density.mean():.3f}"
    )
    mass, error = each.logsumexp(0) - math.log(512), each.std(0) / 32**0.5
    assert (bound <= mass + 4 * error + 1e-6).all(), (
        f"the bound exceeds log P by {(bound - mass).max():.3f} nats"
    )


def _tiny(subject: Subject, *specs: DataSpec, seed: int = 0) -> Any:
    """The model with its defaults on the first of these that it takes."""
    for spec in specs:
        seed_everything(seed, verbose=False)
        try:
            return registry.create(subject.entry.name, spec)
        except ValueError as error:
            refusal = error
    raise refusal


def _stirred(subject: Subject, *specs: DataSpec, seed: int = 0) -> Any:
    """The same in float64 for evaluation, every weight random, those included that start at
    zero.
    """
    model = _tiny(subject, *specs, seed=seed).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


class Given(ZooDataModule):
    """A data module over given tensors; the same rows serve as train, val and test."""

    def __init__(
        self,
        spec: DataSpec,
        x: Tensor,
        y: Tensor | None = None,
        batch_size: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(batch_size, **options)
        self._spec, self._split = spec, {"x": x} if y is None else {"x": x, "y": y}

    @property
    def spec(self) -> DataSpec:
        return self._spec

    def load(self) -> dict[str, Split]:
        return dict.fromkeys(("train", "val", "test"), self._split)


@check(can("encode"))
def check_rows_do_not_talk(subject: Subject) -> None:
    """Codes and reconstructions of an image are the same whatever shares its batch."""
    model, x = subject.model(), subject.batch(4)["x"]
    with undisturbed(model):
        for method in {"encode", "reconstruct"} & subject.entry.can:
            alone, together = getattr(model, method)(x[:1]), getattr(model, method)(x)[:1]
            torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@check(lambda e: "elbo" in e.can)
def check_bound_is_below_importance_estimate(subject: Subject) -> None:
    model, batch = subject.model(), subject.batch(16)
    x, given = batch["x"], {"y": batch["y"]} if model.conditions_on == "class" else {}
    subject.fit(model, 30)
    with undisturbed(model):
        bound = torch.stack(
            [model.elbo(x, generator=generator(i), **given) for i in range(64)]
        ).mean()
        tighter = model.importance_bound(x, samples=64, generator=generator(0), **given).mean()
    assert bound < tighter, f"elbo {bound} is above the importance-weighted bound {tighter}"


@check(lambda e: e.family == "flow")
def check_flow_inverts(subject: Subject) -> None:
    """The inverse undoes the flow, and log|det| is that of the autograd Jacobian."""
    model = subject.model(DataSpec((1, 4, 4), 17)).double()
    nn.init.normal_(next(p for p in reversed([*model.parameters()]) if p.ndim > 1), std=0.1)
    y = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=generator(0)) * 2 - 1
    with undisturbed(model):
        z, log_det = model.forward_flow(y)
        back, _ = model.inverse_flow(z)
        torch.testing.assert_close(back, y, rtol=1e-6, atol=1e-6)
        jacobian = torch.func.jacrev(lambda v: model.forward_flow(v[None])[0].flatten())(y[0]).view(
            16, 16
        )
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[0], rtol=1e-6, atol=1e-6)


def plays(entry: registry.Entry) -> bool:
    return issubclass(registry.get(entry.name), AdversarialModule)


@check(plays)
def check_players_take_turns(subject: Subject) -> None:
    """Over two cycles the steps are those of ``phases``, each moving one player and leaving no
    gradients; the clock counts cycles; with k=2 the discriminator has two steps a cycle."""
    model = subject.model()
    expected = [p.player for step in range(2) for p in model.phases() for _ in range(p.times(step))]
    assert (seen := _turns(subject, model)) == expected, f"played {seen}, phases say {expected}"
    if "k" in subject.entry.parameters:
        doubled = Subject.of(subject.entry.name, "--model.k=2")
        if refusal := _refusal(doubled.model):
            assert "k=2" in refusal, f"k=2 is refused, not saying so: {refusal}"
        else:
            turns = _turns(doubled, doubled.model())
            assert turns.count("d") == 4 and turns.count("g") == seen.count("g"), (
                f"with k=2 two cycles are {turns}"
            )


def _refusal(attempt: Callable[[], Any]) -> str:
    """What the ValueError of an attempt says; empty where it goes through."""
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return ""


def _turns(subject: Subject, model: Any) -> list[str]:
    """Whose steps two cycles consist of."""
    seen: list[str] = []

    last = {n: p.detach().clone() for n, p in model.named_parameters()}
    after = model.after_step

    def watch(player: str) -> None:
        nonlocal last
        after(player)
        now = {n: p.detach().clone() for n, p in model.named_parameters()}
        own = {id(p) for p in model.parameters_of(player)}
        others = {n: p for n, p in model.named_parameters() if id(p) not in own}
        moved = [n for n in others if not torch.equal(now[n], last[n])]
        assert not moved, f"{player}'s step moved {', '.join(moved)}"
        assert all(p.grad is None for p in others.values()), (
            f"{player}'s phase left gradients in another player"
        )
        last = now
        seen.append(player)

    model.after_step = watch
    trainer = subject.fit(model, 2)
    assert trainer.global_step == 2, f"global_step is {trainer.global_step} after two cycles"
    return seen


@check(lambda e: e.family == "gan" and hasattr(registry.get(e.name), "draw_codes"))
def check_fresh_data_and_noise(subject: Subject) -> None:
    """No two steps of a cycle read the same training rows or the same codes."""
    model = subject.model()
    rows: list[list[int]] = []
    codes: list[list[Tensor]] = []
    phases, draw_codes = model.phases, model.draw_codes

    def watched(loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def read(batch: Any) -> Any:
            codes.append([])
            if isinstance(batch, dict):
                rows.append(batch["index"].tolist())
            return loss(batch)

        return read

    def drawn(n: int, source: Any) -> Tensor:
        z = draw_codes(n, source)
        codes[-1].append(z.detach().clone())
        return z

    model.phases = lambda: [dataclasses.replace(p, loss=watched(p.loss)) for p in phases()]
    model.draw_codes = drawn
    subject.fit(model, 1)
    flat = [i for step in rows for i in step]
    assert len(flat) == len(set(flat)), "two steps of a cycle read the same row"
    assert all(codes), (
        f"steps of a cycle without codes of their own: "
        f"{[i for i, of in enumerate(codes) if not of]}"
    )
    every = [z for of in codes for z in of]
    same = [
        (i, j)
        for i, a in enumerate(every)
        for j, b in enumerate(every[:i])
        if a.shape == b.shape and torch.equal(a, b)
    ]
    assert not same, f"draws {same} of a cycle are equal"


@check(plays)
def check_generator_gets_gradient(subject: Subject) -> None:
    """Every parameter of the generator has a non-zero gradient in its own phase."""
    model, batch = subject.model(), subject.batch(16)
    model.noise = Noise(1, "check")
    phase = next(p for p in model.phases() if p.player == "g")
    model.zero_grad()
    phase.loss(batch if phase.real else 16)["loss"].backward()
    names = {id(p): n for n, p in model.named_parameters()}
    none = [
        names[id(p)] for p in model.parameters_of("g") if p.grad is None or p.grad.abs().max() == 0
    ]
    assert not none, f"no gradient: {', '.join(none)}"


@check(plays)
def check_accumulation_equals_one_batch(subject: Subject) -> None:
    """Two micro-batches give the step of one batch."""
    if "loop" not in subject.entry.parameters:
        raise AssertionError("it takes no loop options")
    results = []
    for accumulate in (1, 2):
        model = subject.model().double()
        model.loop = dataclasses.replace(model.loop, accumulate=accumulate)
        subject.fit(model, 2, precision="64-true")
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert (results[0] - results[1]).abs().max() < 1e-9, (
        f"differs by {(results[0] - results[1]).abs().max():.2g}"
    )


@check(lambda e: bool(getattr(registry.get(e.name), "toolkit", ())))
def check_options_of_the_loop_work(subject: Subject) -> None:
    """Every option that the game takes changes three cycles and keeps them finite; every other one
    is refused. (What joint batches change needs batch norm in D; a test of dcgan has it.)"""
    options = {
        "label_smooth": 0.9,
        "label_flip": 0.3,
        "instance_noise": 0.5,
        "spectral_norm": True,
        "r1": 1.0,
        "replay": 16,
    }
    game: Any = registry.get(subject.entry.name)
    taken: frozenset[str] = game.toolkit

    def trained(**loop: Any) -> Tensor:
        seed_everything(0, verbose=False)
        given = {**subject.model_params, "loop": {**subject.model_params.get("loop", {}), **loop}}
        model = registry.create(subject.entry.name, subject.data().spec, **given)
        subject.fit(model, 3)
        return torch.cat(
            [p.detach().flatten() for name in model.players() for p in model.parameters_of(name)]
        )

    plain = trained()
    for name, value in options.items():
        if name in taken:
            with_it = trained(**{name: value})
            assert torch.isfinite(with_it).all(), (
                f"loop.{name}={value} gives weights that are not finite"
            )
            assert not torch.equal(with_it, plain), f"loop.{name}={value} changes nothing"
        else:
            refusal = _refusal(functools.partial(trained, **{name: value}))
            assert name in refusal and subject.entry.name in refusal, (
                f"loop.{name} is not in its toolkit; it says {refusal!r}"
            )


@check()
def check_fingerprint_is_its_own(subject: Subject) -> None:
    """No other model has the same weights after two steps on the same data: no name is a renamed
    copy.
    """
    mine = fingerprint(subject.entry.name)
    for other in registry.list():
        if other != subject.entry.name:
            assert fingerprint(other) != mine, f"trains exactly like {other}"


@functools.cache
def fingerprint(name: str) -> str:
    """Hash of the trainable values after two steps from seed 0 on the model's default data."""
    subject = Subject.of(name)
    model = subject.model()
    subject.fit(model, 2)
    values = torch.cat([p.detach().flatten() for p in model.parameters()])
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


@check(mark="ddp")
def check_ddp_equal(subject: Subject) -> None:
    """Two processes with half the batch each train as one process with all of it (float64, below
    1e-12), hold the same weights and buffers to the last bit, and validate to 1e-5."""
    names = together if subject.entry.name in together else (subject.entry.name,)
    found = ddp_differences(tuple(names))[subject.entry.name]
    assert not isinstance(found, str), f"two processes failed: {found}"
    assert found[0] < 1e-12, f"parameters differ by {found[0]:.2g}"
    assert found[1] < 1e-5, f"val/nll_nats or val/elbo differs by {found[1]:.2g}"


together: tuple[str, ...] = ()  # models whose two-process runs share one launch


@functools.cache
def ddp_differences(names: tuple[str, ...], steps: int = 4) -> dict[str, tuple[float, float] | str]:
    """For each model: the largest difference of a parameter or buffer between one process and two,
    and that of the likelihood.

    Args:
        names: registry names, each followed by options if need be: "gan --model.k=2".
    """
    with tempfile.TemporaryDirectory() as scratch:
        launch(_train_in_group, 2, names, steps, scratch)
        out: dict[str, tuple[float, float] | str] = {}
        for name in names:
            paths = [Path(scratch) / f"{name}.{rank}.pt" for rank in range(2)]
            two, other = (
                torch.load(path, weights_only=True) if path.is_file() else "no result"
                for path in paths
            )
            if isinstance(two, str) or isinstance(other, str):
                out[name] = str(two if isinstance(two, str) else other)
                continue
            if apart := [n for n, v in two.items() if not torch.equal(v, other[n])]:
                out[name] = f"the two processes hold different {', '.join(apart)}"
                continue
            one = _train_double(Subject.of(*name.split()), steps, 1)
            gaps = {
                n: (v.double() - two[n].double()).abs().max().item()
                for n, v in one.items()
                if v.numel()
            }
            out[name] = (
                max(v for n, v in gaps.items() if n not in LIKELIHOODS),
                max([0.0, *(gaps.get(n, 0.0) for n in LIKELIHOODS)]),
            )
    return out


LIKELIHOODS = ("val/nll_nats", "val/elbo")


def _train_double(subject: Subject, steps: int, world: int, **options: Any) -> dict[str, Tensor]:
    """The state after a few steps in float64, and the validation's likelihood."""
    batch = subject.data().batch_size // 2 * 2
    model = subject.model().double()
    if subject.entry.can & {"log_prob", "elbo"}:
        options |= {
            "callbacks": [importlib.import_module("callbacks.bits_per_dim").BitsPerDim()],
            "limit_val_batches": 3,
        }
    with tempfile.TemporaryDirectory() as scratch:
        options |= {"precision": "64-true", "default_root_dir": scratch}
        trainer = subject.fit(model, steps, subject.data(batch_size=batch // world), **options)
    said = {n: v for n, v in trainer.callback_metrics.items() if n in LIKELIHOODS}
    return {n: v.clone() for n, v in (model.state_dict() | said).items()}


def _train_in_group(names: tuple[str, ...], steps: int, scratch: str) -> None:
    for name in names:
        try:
            subject = Subject.of(*name.split())
            result: Any = _train_double(
                subject, steps, 2, devices=2, strategy=strategy_for(subject)
            )
        except Exception as error:  # reported as this model's failure
            result = f"{type(error).__name__}: {error}"
        torch.save(result, Path(scratch) / f"{name}.{os.environ['LOCAL_RANK']}.pt")


def resume_in_group(names: tuple[str, ...], scratch: str) -> None:
    """In each of two processes: resume every model; "equal", or what differs, goes to
    SCRATCH/NAME.
    """
    os.environ["ZOO_CHECK_FOLDER"] = scratch
    for name in names:
        subject = Subject.of(name)
        try:
            _resume(subject, 0, devices=2, strategy=strategy_for(subject))
            outcome = "equal"
        except Exception as error:  # reported as this model's failure
            outcome = f"{type(error).__name__}: {error}"
        if os.environ["LOCAL_RANK"] == "0":
            (Path(scratch) / name).write_text(outcome)


def strategy_for(subject: Subject) -> str:
    return "ddp_find_unused_parameters_true" if plays(subject.entry) else "ddp"


def launch(function: Callable[..., None], world: int, *args: Any) -> None:
    """Run a function in ``world`` new gloo processes that Lightning takes for its own."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torch.multiprocessing.spawn(_member, (function, world, port, args), nprocs=world)


def _member(
    rank: int, function: Callable[..., None], world: int, port: int, args: tuple[Any, ...]
) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(world),
    )
    torch.set_num_threads(1)
    _hush()
    try:
        function(*args)
    except BaseException:
        leave_group(together=False)
        raise
    leave_group()


@check(lambda e: bool(e.learns), mark="slow")
def check_learns(subject: Subject) -> None:
    """The default run reaches its gates."""
    from zoo import fit as command

    with tempfile.TemporaryDirectory() as scratch:
        options = [
            "--model",
            subject.entry.name,
            f"--run_dir={scratch}/run",
            "--wandb.mode=disabled",
            "--trainer.enable_progress_bar=false",
        ]
        assert command.main(options) == 0, "the default run failed"
        values = last_metrics(Path(scratch) / "run" / "metrics.csv")
    for metric, sign, threshold in subject.entry.learns:
        assert metric in values, f"{metric} was not logged; there are {sorted(values)}"
        good = values[metric] < threshold if sign == "<" else values[metric] > threshold
        assert good, f"{metric} is {values[metric]:.4g}, the gate is {sign} {threshold}"


def last_metrics(path: Path) -> dict[str, float]:
    """The last value of each column of a metrics.csv."""
    import csv

    out: dict[str, float] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            out |= {k: float(v) for k, v in row.items() if v}
    return out


# -- running them --------------------------------------------------------------------------------
@dataclass
class Result:
    name: str
    check: str
    outcome: str  # passed, failed, waived
    detail: str
    seconds: float


def applicable(name: str, marks: tuple[str, ...] = ("", "ddp")) -> list[str]:
    """The checks that apply to a model, of these marks."""
    entry = registry.entry(name)
    return [c for c, (_, applies, mark) in CHECKS.items() if mark in marks and applies(entry)]


def run_check(name: str, check_name: str) -> Result:
    """Run one check on one model; a waived check that passes has failed."""
    function, _, _ = CHECKS[check_name]
    waiver = registry.entry(name).waive.get(check_name)
    started = time.time()
    try:
        function(Subject.of(name))
        outcome, detail = (
            ("failed", f"waived ({waiver}) but it passes: remove the waiver")
            if waiver
            else ("passed", "")
        )
    except Exception as error:
        text = str(error) or traceback.format_exc().splitlines()[-1]
        outcome, detail = (
            ("waived", waiver)
            if waiver
            else (
                "failed",
                text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}",
            )
        )
    return Result(name, check_name, outcome, detail, time.time() - started)


def _hush() -> None:
    warnings.filterwarnings("ignore")
    for logger in (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.pytorch.utilities.rank_zero",
    ):
        logging.getLogger(logger).setLevel(logging.ERROR)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 1 if any check failed."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.check", description="Check that models keep the contract."
    )
    parser.add_argument("names", nargs="*", help="models")
    parser.add_argument("--all", action="store_true", help="every model")
    parser.add_argument("--slow", action="store_true", help="also the gates of the default runs")
    parser.add_argument("--only", help="one check, by name")
    args = parser.parse_args(arguments)
    names = registry.list() if args.all else args.names
    if not names:
        parser.error("name a model, or --all")
    try:
        for name in names:
            registry.entry(name)
    except registry.UnknownName as error:
        print(f"zoo.check: error: {error}", file=sys.stderr)
        return 2
    _hush()
    torch.set_num_threads(1)  # the nets are small, and processes share the cores
    global together
    together = tuple(names)
    failed = total = 0
    for name in names:
        for check_name in applicable(name, ("", "ddp", "slow") if args.slow else ("", "ddp")):
            if args.only in (None, check_name):
                result = run_check(name, check_name)
                total, failed = total + 1, failed + (result.outcome == "failed")
                sign = {"passed": "ok", "failed": "FAILED", "waived": "waived"}[result.outcome]
                print(
                    f"{sign:<7}{name:<20}{check_name:<38}{result.seconds:6.1f} s  {result.detail}",
                    flush=True,
                )
    print(f"\n{total - failed} of {total} checks hold")
    return int(failed > 0)


if __name__ == "__main__":
    # Spawned processes import this file under its own name, so run that copy here too.
    from zoo.check import main as _main

    sys.exit(_main())
