"""The β-VAE is a VAE at β = 1, presses the code and not the decoder, and holds the KL at its
capacity.
"""

import pytest
import torch

from tests.support import Given, fit
from zoo import check
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.factor_grid import FactorGrid
from zoo.variational.beta_vae import BetaVAE
from zoo.variational.vae import VAE

SPEC = DataSpec((1, 2, 3), 2)


def beta_vae(**options) -> BetaVAE:
    torch.manual_seed(0)
    return BetaVAE(SPEC, **{"latent": 3, "width": 16, **options})


def gradients(model, x, names=("encoder", "decoder")):
    model.noise = Noise(3, "test", dtype=x.dtype)
    loss = model.loss(Batch({"x": x}))["loss"]
    return [
        loss,
        *torch.autograd.grad(
            loss, [p for name in names for p in getattr(model, name).parameters()]
        ),
    ]


def test_beta_one_is_the_vae_bit_for_bit():
    x = likelihoods.every_image(SPEC)[:20].float()
    torch.manual_seed(0)
    vae = VAE(SPEC, latent=3, width=16)
    for a, b in zip(gradients(vae, x), gradients(beta_vae(beta=1.0), x), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(gradients(vae, x)[0], gradients(beta_vae(beta=1.5), x)[0])


def test_beta_touches_the_encoder_alone_and_linearly():
    x = likelihoods.every_image(SPEC)[:20]
    decoder = [gradients(beta_vae(beta=b).double(), x, ["decoder"])[1:] for b in (0.0, 1.0, 5.0)]
    encoder = [gradients(beta_vae(beta=b).double(), x, ["encoder"])[1:] for b in (0.0, 1.0, 5.0)]
    for a, b, c in zip(*decoder, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    for zero, one, five in zip(*encoder, strict=True):
        torch.testing.assert_close(five, zero + 5 * (one - zero))
        assert (one - zero).abs().max() > 0


@pytest.mark.parametrize(("capacity", "sign"), [(0.0, 1), (50.0, -1)])
def test_the_kl_is_pulled_to_its_capacity_from_either_side(capacity, sign):
    x = likelihoods.every_image(SPEC)[:20]
    held = gradients(beta_vae(mode="capacity", gamma=7.0, capacity=capacity).double(), x)
    pressed = gradients(beta_vae(beta=sign * 7.0 if sign > 0 else 0.0).double(), x)
    if sign > 0:
        for a, b in zip(held, pressed, strict=True):
            torch.testing.assert_close(a, b)
    else:  # -γ KL: as far from β = 0 as β = γ is, on the other side
        against = gradients(beta_vae(beta=7.0).double(), x)
        for a, zero, b in zip(held[1:], pressed[1:], against[1:], strict=True):
            torch.testing.assert_close(a, 2 * zero - b)


def test_the_absolute_value_is_taken_of_the_mean_over_the_batch():
    model, x = beta_vae(mode="capacity", gamma=1.0).double(), likelihoods.every_image(SPEC)[[0, 63]]
    kl = model.kl(model.posterior(x)).sum(1)
    model.capacity = kl.mean().item()  # one row above, one below
    model.noise = Noise(3, dtype=torch.float64)
    terms = model.loss(Batch({"x": x}))
    assert (kl - kl.mean()).abs().min() > 1e-4
    torch.testing.assert_close(terms["loss"], -terms["recon"])


def test_capacity_rises_linearly_and_continues_after_a_resume(tmp_path):
    data = Given(SPEC, likelihoods.every_image(SPEC).float())

    def run(steps, **options):
        model, seen = beta_vae(mode="capacity", capacity=12.0, capacity_steps=8), []
        model.after_step = lambda: seen.append(model.terms["capacity"].item())
        return model, seen, fit(model, data, steps, **options)

    straight, whole, _ = run(11)
    assert whole == [12 * min(t / 8, 1) for t in range(11)]
    run(4)[2].save_checkpoint(tmp_path / "4.ckpt")
    resumed, rest, _ = run(11, ckpt_path=tmp_path / "4.ckpt")
    assert rest == whole[4:]
    assert all(
        torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True)
    )


def test_a_huge_beta_empties_the_code_and_leaves_the_mean_image():
    x = likelihoods.every_image(SPEC)[[7, 7, 7, 15, 31, 63]].float()
    model = beta_vae(beta=1000.0, lr=3e-3)
    fit(model, Given(SPEC, x, batch_size=6), 300)
    with torch.no_grad():
        assert model.kl(model.posterior(x)).mean(0).max() < 0.05
        shown = torch.sigmoid(model.decoder(model.encode(x))[:, 0])
    assert shown.std(0).max() < 1e-3  # the same for every image
    torch.testing.assert_close(shown, x.mean(0).expand_as(shown), rtol=0, atol=0.08)


def test_the_evaluated_bound_is_that_of_beta_one():
    x = likelihoods.every_image(SPEC)[:9].float()
    torch.manual_seed(0)
    vae = VAE(SPEC, latent=3, width=16)
    for options in ({"beta": 9.0}, {"mode": "capacity"}):
        assert torch.equal(beta_vae(**options).elbo(x), vae.elbo(x))


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="beta_vae: mode is one of beta, capacity, got 'annealed'"):
        BetaVAE(SPEC, mode="annealed")
    with pytest.raises(ValueError, match="beta_vae: capacity_steps is at least 1, got 0"):
        BetaVAE(SPEC, capacity_steps=0)


@pytest.mark.slow
def test_a_larger_beta_carries_less_information_and_reconstructs_worse():
    x = FactorGrid(
        size=16, shapes=["square"], scales=[0.16, 0.22, 0.28], rotations=1, x=7, y=7
    ).grid()[0]
    data, terms = Given(DataSpec((1, 16, 16), 2), x, batch_size=64), {}
    for beta in (1.0, 4.0):
        torch.manual_seed(0)
        model = BetaVAE(data.spec, beta=beta)
        fit(model, data, 1000)
        terms[beta] = {k: v.mean() for k, v in model.evaluate(Batch({"x": x})).items()}
    assert terms[4.0]["kl"] < 0.7 * terms[1.0]["kl"] and terms[4.0]["recon"] < terms[1.0]["recon"]


def test_the_logged_bound_is_the_vaes_whatever_beta():
    x = likelihoods.every_image(SPEC)[:20].float()
    torch.manual_seed(0)
    vae, model = VAE(SPEC, latent=3, width=16), beta_vae(beta=4.0)
    logged = []
    for m in (vae, model):
        m.noise = Noise(3, "test")
        logged.append(m.loss(Batch({"x": x}))["nelbo"])
    assert torch.equal(*logged)


def test_the_kl_that_is_held_is_that_of_all_processes():
    model = beta_vae(mode="capacity", gamma=3.0, capacity=1.0)
    model.shared_mean = lambda kl: kl + 7
    terms = model.loss(Batch({"x": likelihoods.every_image(SPEC)[:20].float()}))
    held = (terms["loss"] + terms["recon"]).item()
    assert held == pytest.approx(3 * abs(terms["kl"].item() + 7 - 1), rel=1e-5)


def test_the_likelihood_is_the_one_that_is_asked_for():
    grey = DataSpec((1, 2, 3), 17)
    heads = [BetaVAE(grey, likelihood=name).head for name in ("auto", "gaussian")]
    assert [type(head).__name__ for head in heads] == ["DiscretisedLogistic", "Gaussian"]


@pytest.mark.slow
def test_the_default_run_on_digits_has_a_code():
    """Three seeds: 4.8 nats in four or five dimensions. With β = 4 it is 1.2 nats, in two."""
    subject = check.Subject.of("beta_vae", "--data", "digits")
    data, model = subject.data(), subject.model()
    subject.fit(model, 700, data)
    with torch.no_grad():
        kl = model.kl_of_each(data.examples(split="val")["x"]).mean(0)
    assert kl.sum() > 3.5 and (kl > 0.3).sum() >= 4
