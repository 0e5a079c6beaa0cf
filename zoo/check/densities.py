"""Checks of models with a likelihood, by enumeration, quadrature and autograd."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from zoo.check import likelihoods
from zoo.check.checks import autoregressive, can, check, likelihood
from zoo.check.subject import Given, Subject, fit
from zoo.core import Batch, DataSpec, Spec
from zoo.core.draw import given, undisturbed
from zoo.core.noise import seeded

# The second is for models that halve the sides.
TINY = [DataSpec((1, 3, 3), 2, 3, "tiny"), DataSpec((1, 2, 4), 2, 3, "tiny")]


@check(lambda cls, entry: bool(entry.can & {"log_prob", "elbo"}))
def check_likelihood_form(subject: Subject) -> None:
    """Nats, one value an example, finite, the same alone and in a batch, repeatable from a
    generator.
    """
    model, batch = subject.model(), subject.batch(6)
    method = model.log_prob if "log_prob" in subject.entry.can else model.elbo
    told = Batch(given(model, method, batch), batch.n)

    def of(rows: Tensor, **options: Any) -> Tensor:
        return method(batch["x"][rows], **told.rows(rows), **options)

    everything, shuffled = torch.arange(6), torch.tensor([3, 1, 5, 0, 2, 4])
    with undisturbed(model):
        values = of(everything, generator=seeded(1))
        assert values.shape == (6,) and torch.isfinite(values).all(), f"shape {tuple(values.shape)}"
        assert torch.equal(values, of(everything, generator=seeded(1))), "not repeatable"
        plain = of(everything)  # without a generator a row's noise is its own
        parts = torch.cat([of(everything[:2]), of(everything[2:])])
        torch.testing.assert_close(parts, plain, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(of(shuffled), plain[shuffled], rtol=1e-5, atol=1e-4)


@check(likelihood("exact_mass", "estimate"))
def check_mass_sums_to_one(subject: Subject) -> None:
    """Over all images of 1x3x3 (or 1x2x4) binary pixels, for each label, at random weights and
    after training.
    """
    model = tiny(subject, *TINY)
    images, spec = likelihoods.every_image(model.spec), model.spec
    for steps in (0, 20):
        if steps:
            x = images[::7].float()
            fit(model, Given(spec, x, torch.arange(len(x)) % 3), steps)
        with undisturbed(model.double()):
            for label in range(3) if model.told else [None]:
                told = {} if label is None else {"y": torch.full((len(images),), label)}
                total = model.log_prob(images, **told).exp().sum().item()
                said = f"masses sum to {total} after {steps} steps (label {label})"
                assert abs(total - 1) < 1e-5, said
        model.float()


@check(autoregressive)
def check_is_causal(subject: Subject) -> None:
    """A dimension's conditional depends on none that comes later in the order, nor on itself: by
    autograd, and bit for bit.
    """
    models: list[Any] = []
    for seed in range(3):
        model = _stirred(subject, *TINY, seed=seed)
        if models:  # other weights, the same order
            model.load_state_dict(dict(models[0].named_buffers()), strict=False)
        models.append(model)
    told = {"y": torch.zeros(1, dtype=torch.long)} if models[0].told else {}
    depends = likelihoods.dependence(models, **told)
    later = int(depends.triu().sum())
    assert not later, f"{later} conditionals depend on what comes later"
    share = likelihoods.coverage(depends)
    assert share > 0.8, f"only {share:.0%} of the earlier dimensions are used"
    x = likelihoods.every_image(models[0].spec)[99:101]
    told = {k: v.expand(2) for k, v in told.items()}
    leaks = likelihoods.leaks(models[0], x, **told)
    assert not leaks, "a conditional changed with a later dimension"


@check(autoregressive)
def check_samples_have_the_models_probabilities(subject: Subject) -> None:
    """20,000 draws of 1x2x2 images of three levels against exp(log_prob): total variation below
    0.05 (0.025 is expected).
    """
    specs = DataSpec((1, 2, 2), 3, 3, "tiny"), DataSpec((1, 1, 4), 3, 3, "tiny")
    model = _stirred(subject, *specs)
    images = likelihoods.every_image(model.spec)
    one, every = (
        {"y": torch.ones(n, dtype=torch.long)} if model.told else {} for n in (20_000, len(images))
    )
    with torch.no_grad():
        drawn = model.sample(20_000, generator=seeded(0), **one)
        expected = model.log_prob(images, **every).exp()
    distance = likelihoods.total_variation(drawn, expected, model.spec)
    assert distance < 0.05, f"total variation {distance:.3f}"


@check(autoregressive)
def check_cache_changes_nothing(subject: Subject) -> None:
    """Sampling with the cache gives the integers of a full pass for each dimension, in float64,
    grey and in colour.
    """
    served = 0
    for spec in (DataSpec((1, 4, 4), 5, 3, "tiny"), DataSpec((3, 4, 4), 4, 3, "tiny")):
        try:
            model = _stirred(subject, spec)
        except ValueError:
            continue
        served += 1
        told = {"y": torch.arange(4) % 3} if model.told else {}
        for seed in (0, 1):
            fast, slow = (
                model.sample(4, generator=seeded(seed), cache=cache, **told)
                for cache in (True, False)
            )
            differ = int((fast != slow).sum())
            assert not differ, f"{differ} of {fast.numel()} values differ on {spec}"
    binary = refused_levels(subject)
    assert served or binary, "it takes neither of the images this is tested on"


def refused_levels(subject: Subject) -> bool:
    """Whether the model takes binary images only, whose cache is tested by enumeration."""
    try:
        tiny(subject, DataSpec((1, 4, 4), 5, 3, "tiny"))
    except ValueError:
        return True
    return False


@check(likelihood("exact_density", "dequantised_bound"))
def check_density_integrates_to_one(subject: Subject) -> None:
    """Over a grid of the plane, for models that take vectors."""
    spec = DataSpec((2,))
    try:
        model = tiny(subject, spec)
    except ValueError:
        return  # a model of images only: its bound is checked by its own tests
    fit(model, Given(spec, torch.randn(256, 2, generator=seeded(0))), 20)
    said = model.likelihood_kind
    assert said == "exact_density", f"on real-valued vectors its kind is {said}"
    side = torch.linspace(-9, 9, 181)
    with undisturbed(model):
        density = model.log_prob(torch.cartesian_prod(side, side)).exp()
    total = density.sum().item() * (side[1] - side[0]).item() ** 2
    assert abs(total - 1) < 1e-2, f"the density integrates to {total}"


@check(likelihood("dequantised_bound"))
def check_bound_is_below_the_mass(subject: Subject) -> None:
    """On images the density over the unit cube integrates to at most one, and log_prob is below
    log P of the same images.
    """
    shapes = ((1, 1, 2), (1, 2, 2), (1, 4, 4))
    model = tiny(subject, *(DataSpec(shape, 3, 3, "tiny") for shape in shapes)).double()
    spec, n = model.spec, 1 << 14
    x = torch.randint(3, (8, *spec.shape), generator=seeded(0)).double()
    model.initialise_from(Batch({"x": x, "y": torch.arange(8) % 3}))
    with undisturbed(model):
        points = torch.rand(n, *spec.shape, generator=seeded(1), dtype=torch.float64)
        density = model.log_density(points).exp()
        u = torch.rand(8, 512, *spec.shape, generator=seeded(2), dtype=torch.float64)
        each = torch.stack([model.bound(x, u[:, i]) for i in range(512)])
        bound = torch.stack([model.log_prob(x, generator=seeded(i)) for i in range(32)]).mean(0)
    mean, slack = density.mean().item(), 4 * density.std().item() / n**0.5
    assert mean <= 1 + slack, f"the density over the unit cube integrates to {mean:.3f}"
    mass, error = each.logsumexp(0) - math.log(512), each.std(0) / 32**0.5
    over = (bound - mass).max()
    assert (bound <= mass + 4 * error + 1e-6).all(), f"the bound exceeds log P by {over:.3f} nats"


@check(can("elbo"))
def check_bound_is_below_importance_estimate(subject: Subject) -> None:
    """The mean elbo is below the importance-weighted bound."""
    model, batch = subject.model(), subject.batch(16)
    x, told = batch["x"], model.told_in(batch)
    subject.fit(model, 30)
    with undisturbed(model):
        bounds = [model.elbo(x, generator=seeded(i), **told) for i in range(64)]
        tighter = model.importance_bound(x, samples=64, generator=seeded(0), **told).mean()
    bound = torch.stack(bounds).mean()
    assert bound < tighter, f"elbo {bound} is above the importance-weighted bound {tighter}"


@check(lambda cls, entry: entry.family == "flow")
def check_flow_inverts(subject: Subject) -> None:
    """The inverse undoes the flow, and log|det| is that of the autograd Jacobian."""
    model = subject.model(DataSpec((1, 4, 4), 17)).double()
    last = next(p for p in reversed([*model.parameters()]) if p.ndim > 1)
    nn.init.normal_(last, std=0.1)
    y = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=seeded(0)) * 2 - 1
    with undisturbed(model):
        z, log_det = model.forward_flow(y)
        back, _ = model.inverse_flow(z)
        torch.testing.assert_close(back, y, rtol=1e-6, atol=1e-6)
        flat = torch.func.jacrev(lambda v: model.forward_flow(v[None])[0].flatten())(y[0])
    slogdet = torch.linalg.slogdet(flat.view(16, 16))[1]
    torch.testing.assert_close(slogdet, log_det[0], rtol=1e-6, atol=1e-6)


def tiny(subject: Subject, *specs: Spec, seed: int = 0) -> Any:
    """The model with its defaults on the first of these that it takes."""
    error = None
    for spec in specs:
        seed_everything(seed, verbose=False)
        try:
            return subject.cls(spec)
        except ValueError as refused:
            error = refused
    assert error is not None
    raise error


def _stirred(subject: Subject, *specs: Spec, seed: int = 0) -> Any:
    """In float64 for evaluation, every weight random, those included that start at zero."""
    model = tiny(subject, *specs, seed=seed).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model
