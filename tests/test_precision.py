"""Every model trains, is evaluated and drawn in half, mixed and double precision; what half
precision cannot do (linear algebra, distances, controllers) is done in single or better.
"""

import warnings

import pytest
import torch

from callbacks import (
    BitsPerDim,
    Fidelity,
    LatentSpace,
    Memorisation,
    ModeCoverage,
    NaNGuard,
    SampleGrid,
)
from zoo import registry
from zoo.check import Subject
from zoo.core import DataSpec
from zoo.core.draw import draw_fields, given, tell, undisturbed
from zoo.metrics import extractors
from zoo.nn.gaussian import given_known, log_marginal
from zoo.nn.minibatch import MinibatchDiscrimination
from zoo.nn.penalties import squared_gradient_norm

OPTIONS = {  # of models whose options meet other linear algebra, penalties or controllers
    "glow": ["--model.lu=true", "--model.coupling=additive"],
    "ica": ["--model.layers=1", "--model.optimiser=natural_gradient"],
    "bs_gan": ["--model.g_loss=reinforce --model.log_z=true"],
    "improved_gan": ["--model.kernels=3"],
    "gan": ["--model.loop.r1=1", "--model.loop.spectral_norm=true"],
    "gmm": ["--model.covariance=full"],
    "pca": ["--model.algorithm=em"],
}
CASES = [
    *registry.list(),
    *(f"{name} {option}" for name, options in OPTIONS.items() for option in options),
]


def evaluations():
    return [
        NaNGuard(),
        BitsPerDim(),
        Fidelity(extractor="datanet", n_fake=8, n_real=16, precision_recall_n=8, parzen=True),
        Memorisation(n=2, n_fake=4, k=2),
        ModeCoverage(n=8),
        LatentSpace(),
        SampleGrid(n=4, points=20),
    ]


def test_the_cases_are_the_models_of_the_zoo():
    assert {case.split()[0] for case in CASES} == {*registry.list()}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("case", CASES)
def test_every_model_trains_and_is_evaluated(case, precision, monkeypatch, caplog):
    monkeypatch.setattr(extractors, "STEPS", 2)
    subject = Subject.of(*case.split())
    data = subject.data()
    model = subject.model(data.spec)
    seen = evaluations() if precision == "bf16-true" else [NaNGuard()]
    few = {"limit_val_batches": 1, "val_check_interval": 2} if precision == "bf16-true" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = subject.fit(model, 2, data, precision=precision, callbacks=seen, **few)
    assert trainer.global_step == 2
    assert not [r for r in caplog.messages if "training goes on" in r]
    assert all(p.isfinite().all() for p in model.parameters())
    wanted = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert model.float_dtype == wanted
    values = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    can = subject.entry.can
    if precision == "bf16-true":
        rated = {"val/nll_nats", "val/elbo"} & {*values}
        assert bool(rated) == bool(can & {"log_prob", "elbo"}) and all(
            v.isfinite() for k, v in values.items() if k in rated
        )
    if "sample" in can:
        made = draw_fields(model, 3, told=tell(model, 3, data))
        assert all(not model.spec[k].faults(v) for k, v in made.items())
    if "inpaint" in can:
        batch = data.examples(2).to("cpu", model.float_dtype)
        known = torch.zeros(batch["x"].shape, dtype=torch.bool)
        known[..., :1] = True
        with undisturbed(model):
            whole = model.inpaint(batch["x"], known, **given(model, model.inpaint, batch))
        assert whole.isfinite().all() and torch.equal(whole[known], batch["x"][known].to(whole))


def test_controllers_keep_their_small_steps_in_half_precision():
    spec = DataSpec((1, 8, 8), 17, 10)
    model = registry.create("began", spec, width=4)
    assert model.k_t.dtype == torch.float64
    model.k_t.fill_(1 / 3)
    model.to(torch.bfloat16)
    assert model.k_t.dtype == torch.float64 and model.k_t.item() == 1 / 3
    assert model.float_dtype == torch.bfloat16
    moved = model.to(torch.float32)  # single precision is as it was
    assert moved.k_t.dtype == torch.float32 and moved.noise_seed.dtype == torch.int64


def test_linear_algebra_of_half_precision_is_that_of_single_precision():
    g = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=g).bfloat16()
    cov, mu = (root @ root.T + 5 * torch.eye(5).bfloat16()), torch.randn(5, generator=g).bfloat16()
    y, s = torch.randn(2, 3, 5, generator=g).bfloat16()
    known = torch.tensor([[True, True, False, False, True]])
    single = [v.float() for v in (y, mu, cov, s)]
    at = known[0]
    expected = torch.distributions.MultivariateNormal(single[1][at], single[2][at][:, at])
    found = log_marginal(y, known, mu, cov)
    torch.testing.assert_close(found, expected.log_prob(single[0][:, at]))
    filled = given_known(s, y, known, cov)
    assert filled.dtype == y.dtype and torch.equal(filled[:, at], y[:, at])
    torch.testing.assert_close(
        filled.float(), given_known(single[3], single[0], known, single[2]), atol=0.05, rtol=0.02
    )


def test_penalties_and_distances_of_half_precision_are_near_those_of_single():
    g = torch.Generator().manual_seed(0)
    net, x = torch.nn.Linear(6, 1), torch.randn(4, 6, generator=g)
    expected = net.weight.detach().square().sum().expand(4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(squared_gradient_norm(net, x).detach(), expected)
    net.to(torch.bfloat16)
    found = squared_gradient_norm(net, x.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.detach(), expected, rtol=0.02, atol=0)
    found.sum().backward()
    assert net.weight.grad.isfinite().all() and net.weight.grad.any()
    layer = MinibatchDiscrimination(6, 3, 2)
    expected = layer(x).detach()
    found = layer.to(torch.bfloat16)(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.detach().float(), expected, rtol=0.2, atol=0.05)
