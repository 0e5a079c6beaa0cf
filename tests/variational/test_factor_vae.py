"""FactorVAE's discriminator measures the total correlation, and the encoder is pushed against
it.
"""

import copy
import functools
import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.check import likelihoods as harness
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.factor_grid import FactorGrid
from zoo.variational.factor_vae import FactorVAE, permute_dims
from zoo.variational.vae import VAE

SPEC = DataSpec((1, 2, 3), 2)
SERVED = [
    {"label_smooth": 0.8},
    {"label_flip": 0.4},
    {"instance_noise": 0.5},
    {"spectral_norm": True},
    {"r1": 5.0},
    {"replay": 8},
]


def factor_vae(**options) -> FactorVAE:
    torch.manual_seed(0)
    return FactorVAE(SPEC, **{"latent": 3, "width": 16, "width_d": 16, **options})


def correlated(n: int, rho: float, seed: int) -> torch.Tensor:
    a, b = torch.randn(2, n, generator=torch.Generator().manual_seed(seed))
    return torch.stack([a, rho * a + math.sqrt(1 - rho**2) * b], 1)


@functools.cache
def with_trained_discriminator(rho: float) -> FactorVAE:
    """Codes are the data, normal with correlation ρ; only D has been trained, with its own loss."""
    torch.manual_seed(0)
    model = FactorVAE(DataSpec((2,)), latent=2, width_d=32)
    model.encoder = nn.Linear(2, 4)
    model.encoder.weight.data.copy_(torch.eye(4, 2))
    model.encoder.bias.data.copy_(torch.tensor([0.0, 0.0, -20.0, -20.0]))
    optimiser = model.optimisers()["d"]
    for step in range(800):
        model.noise = Noise(0, step)
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 - step / 800)
        optimiser.zero_grad()
        model.discriminator_loss(Batch({"x": correlated(400, rho, step)}))["loss"].backward()
        optimiser.step()
    return model


def test_each_dimension_is_shuffled_by_itself():
    z, u = torch.randn(50, 3), torch.rand(50, 3)
    shuffled = permute_dims(z, u)
    assert torch.equal(shuffled.sort(0)[0], z.sort(0)[0])
    order = [(z[:, j] == shuffled[:, j, None]).int().argmax(1) for j in range(3)]
    assert not torch.equal(order[0], order[1]) and not torch.equal(order[1], order[2])
    assert torch.equal(permute_dims(z[:1], u[:1]), z[:1])


def test_shuffled_codes_are_those_of_other_examples():
    model, x, seen = factor_vae(), harness.every_image(SPEC)[:10].float(), []
    model.d.register_forward_pre_hook(lambda d, given: seen.append(given[0]))
    model.posterior = lambda x: (
        x.flatten(1)[:, 3:] + 10 * torch.arange(len(x))[:, None],
        torch.full((len(x), 3), -80.0),
    )
    model.noise = Noise(3, "test")
    model.discriminator_loss(Batch({"x": x}))
    codes = model.posterior(x)[0]
    torch.testing.assert_close(seen[0], codes[:5])
    torch.testing.assert_close(seen[1].sort(0)[0], codes[5:].sort(0)[0])
    assert not torch.equal(seen[1], codes[5:]) and not seen[0].requires_grad


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_the_discriminator_alone_finds_the_total_correlation_of_a_gaussian(rho):
    model, z = with_trained_discriminator(rho), correlated(50_000, rho, -1)
    with torch.no_grad():
        found = model.d(z).mean().item()
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), rel=0.15, abs=0.05)


def test_the_encoder_goes_against_the_total_correlation():
    x, exact = correlated(5000, 0.9, -2), []
    for labels in (1, -1, 0):  # as trained, with the classes of D swapped, and without a step
        model = copy.deepcopy(with_trained_discriminator(0.9))
        model.d.forward = lambda z, net=model.d.net, sign=labels: sign * net(z)
        weight, gradients = model.encoder.weight, []
        for gamma in (1.0, 0.0):
            model.gamma, model.noise = gamma, Noise(0, "test")
            gradients.append(
                torch.autograd.grad(model.generator_loss(Batch({"x": x}))["loss"], weight)[0]
            )
        weight.data -= 0.05 * (gradients[0] - gradients[1])
        rho = torch.corrcoef(model.encode(x).detach().T)[0, 1]
        exact.append(-0.5 * math.log(1 - rho**2))
    assert exact[0] < exact[2] - 0.01 and exact[1] > exact[2] + 0.01


def test_gamma_zero_is_the_vae_bit_for_bit():
    x, found = harness.every_image(SPEC)[:20].float(), []
    torch.manual_seed(0)
    vae = VAE(SPEC, latent=3, width=16)
    for model, loss in ((vae, vae.loss), (m := factor_vae(gamma=0.0), m.generator_loss)):
        model.noise = Noise(3, "test")
        value = loss(Batch({"x": x}))["loss"]
        nets = [*model.encoder.parameters(), *model.decoder.parameters()]
        found.append([value, *torch.autograd.grad(value, nets), model.elbo(x)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_total_correlation_reaches_the_encoder_and_not_the_decoder():
    x, found = harness.every_image(SPEC)[:20].float(), []
    for gamma in (0.0, 10.0):
        model = factor_vae(gamma=gamma)
        model.noise = Noise(3, "test")
        loss = model.generator_loss(Batch({"x": x}))["loss"]
        found.append(
            [
                torch.autograd.grad(loss, [*net.parameters()], retain_graph=True)
                for net in (model.encoder, model.decoder)
            ]
        )
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))


def test_each_player_moves_only_in_its_own_phase():
    model, moved = factor_vae(), []

    def weights():
        return {
            p: torch.cat([q.detach().flatten().clone() for q in model.parameters_of(p)])
            for p in ("d", "g")
        }

    def watch(player):
        now = weights()
        moved.append((player, [p for p in now if not torch.equal(now[p], watch.before[p])]))
        assert all(p.grad is None for p in model.parameters())
        watch.before = now

    watch.before, model.after_step = weights(), watch
    fit(model, Given(SPEC, harness.every_image(SPEC).float(), batch_size=8), 2)
    assert moved == [("d", ["d"]), ("g", ["g"])] * 2


@pytest.mark.parametrize("loop", SERVED, ids=str)
def test_the_loops_options_change_training_and_stay_finite(loop):
    def trained(**options) -> torch.Tensor:
        model = factor_vae(**options)
        fit(model, Given(SPEC, harness.every_image(SPEC).float(), batch_size=8), 3)
        assert all(v.isfinite() for v in model.terms.values())
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    plain, other = trained(), trained(loop=loop)
    assert other.isfinite().all() and not torch.equal(other, plain)


@pytest.mark.slow
def test_gamma_lowers_the_exact_total_correlation():
    x, tc, recon = (
        FactorGrid(
            size=16, shapes=["square"], scales=[0.16, 0.22, 0.28], rotations=1, x=7, y=7
        ).grid()[0],
        {},
        {},
    )
    for gamma in (0.0, 10.0):
        for seed in range(3):
            torch.manual_seed(seed)
            model = FactorVAE(DataSpec((1, 16, 16), 2), gamma=gamma)
            fit(model, Given(model.spec, x, batch_size=64), 1000)
            tc[gamma] = tc.get(gamma, 0) + model.aggregate(x)[1].mean().item()
            recon[gamma] = (
                recon.get(gamma, 0) - model.evaluate(Batch({"x": x}))["recon"].mean().item()
            )
    assert tc[10.0] < 0.95 * tc[0.0] and recon[10.0] < 2 * recon[0.0]


def plain(**options) -> FactorVAE:
    """Codes are N(0, I) whatever x."""
    torch.manual_seed(0)
    model = FactorVAE(DataSpec((1, 2, 3), 2), **{"latent": 3, "width": 8, **options})
    model.posterior = lambda x: (torch.zeros(len(x), 3), torch.zeros(len(x), 3))
    return model


def images(n: int) -> Batch:
    return Batch({"x": torch.randint(2, (n, 1, 2, 3)).float()})


def test_each_player_has_the_papers_adam_at_its_own_rate():
    d, g = (plain(lr=1e-3, lr_d=2e-4).optimisers()[p].defaults for p in ("d", "g"))
    assert (d["betas"], d["lr"]) == ((0.5, 0.9), 2e-4)
    assert (g["betas"], g["lr"]) == ((0.9, 0.999), 1e-3)


def test_the_discriminator_has_its_own_width_and_depth():
    shapes = [tuple(p.shape) for p in plain(width_d=5, layers_d=1).d.parameters() if p.ndim > 1]
    assert shapes == [(5, 3), (1, 5)]


def test_the_logged_total_correlation_is_what_the_discriminator_says():
    model = plain(gamma=50.0)
    model.d.forward = lambda z: z.new_full((len(z),), 0.25)
    terms = model.generator_loss(images(8))
    assert terms["tc"].item() == 0.25
    assert (terms["loss"] - terms["nelbo"]).item() == pytest.approx(50 * 0.25)


def test_a_discriminator_that_knows_nothing_pays_ln_2():
    model = plain()
    for p in model.d.parameters():
        p.data.zero_()
    assert model.discriminator_loss(images(8))["loss"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("joint", "product", "right"), [(1, -1, 1), (1, 1, 0.5), (-1, 1, 0)])
def test_accuracy_counts_codes_above_nought_and_shuffled_ones_below(joint, product, right):
    model = plain()
    model.d.both = lambda real, made: (
        torch.full((len(real[0]),), float(joint)),
        torch.full((len(made[0]),), float(product)),
    )
    assert model.discriminator_loss(images(8))["accuracy"].item() == right


def test_the_discriminator_is_shown_draws_and_shuffles_of_all_processes():
    model, shown = plain(), []
    both = model.d.both
    model.d.both = lambda real, made: shown.append((real[0], made[0])) or both(real, made)
    model.discriminator_loss(images(800))
    for codes in shown[0]:
        assert codes.shape == (400, 3) and (codes.std(0) - 1).abs().max() < 0.15
    model.everyone = lambda rows: torch.cat([rows, rows + 50])
    model.discriminator_loss(images(40))
    assert len(shown[1][1]) == 40 and (shown[1][1] > 25).sum() == 20 * 3


def test_the_bound_that_is_logged_knows_no_gamma_and_the_validated_correlation_is_of_draws():
    logged = []
    for gamma in (0.0, 50.0):
        model = plain(gamma=gamma)
        model.noise = Noise(3, "test")
        logged.append(model.generator_loss(images(1) | {"x": torch.ones(6, 1, 2, 3)})["nelbo"])
    assert torch.equal(*logged)

    class Length(torch.nn.Module):
        def forward(self, z):
            return z.square().sum(1)

    model.d.net = Length()
    tc = model.evaluate(images(2000))["tc"].mean().item()
    assert abs(tc - 3) < 0.25  # of chi² with 3 degrees of freedom, 4.5 deviations
