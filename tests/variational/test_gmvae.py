"""The mixture VAE: its prior is the mixture it says, its exact bound marginalises the cluster, and
digits fall into clusters.
"""

import math

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from tests.support import Given, fit
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import RowNoise
from zoo.core.noise import Noise
from zoo.data.digits import Digits
from zoo.nn.gaussian import log_normal
from zoo.nn.prior import Draw
from zoo.variational.gmvae import GMVAE
from zoo.variational.vae import VAE

PRIORS = ("mog", "gmvae", "vamp")

SPEC = DataSpec((1, 2, 3), 2)
IMAGES = likelihoods.every_image(SPEC)


def gmvae(prior: str = "mog", seed: int = 0, **options) -> GMVAE:
    torch.manual_seed(seed)
    model = (
        GMVAE(
            SPEC,
            prior=prior,
            **{"components": 4, "latent": 2, "noise_latent": 2, "width": 16, **options},
        )
        .double()
        .eval()
    )
    for p in model.parameters():
        p.data.mul_(1.7)
    if prior == "mog":
        model.weights.data.normal_()
        model.log_vars.data.normal_()
    return model


@pytest.mark.parametrize("prior", PRIORS)
def test_every_component_gives_the_same_marginal(prior):
    model = gmvae(prior)
    z, w = torch.randn(50, 2).double(), torch.randn(50, model.noise_latent).double()
    log_pi, mu, log_var = model.mixture(w)
    normal = Independent(Normal(mu, (log_var / 2).exp()), 1)
    joint = log_pi + normal.log_prob(z[:, None])
    posterior = Categorical(logits=joint).probs
    want = MixtureSameFamily(
        Categorical(logits=log_pi.expand(50, -1)), normal.expand((50, 4))
    ).log_prob(z)
    for k in range(4):
        torch.testing.assert_close(joint[:, k] - posterior[:, k].log(), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.log_joint(z, w).logsumexp(1), want)


@pytest.mark.parametrize("prior", PRIORS)
def test_responsibilities_are_bayes_rule(prior):
    model = gmvae(prior)
    z, w = model.split(model.both(IMAGES)[0])
    log_pi, mu, log_var = model.mixture(w)
    density = (
        log_pi.exp() * Independent(Normal(mu, (log_var / 2).exp()), 1).log_prob(z[:, None]).exp()
    )
    torch.testing.assert_close(
        model.responsibilities(IMAGES), density / density.sum(1, keepdim=True)
    )


def test_one_standard_component_is_the_vae_with_a_sampled_kl():
    model = gmvae(components=1)
    vae = VAE(SPEC, latent=2, width=16, kl_mc=True).double()
    vae.load_state_dict({k: v for k, v in model.state_dict().items() if k in vae.state_dict()})
    for p in (model.weights, model.means, model.log_vars):
        p.data.zero_()
    losses = []
    for m in (model, vae):
        m.noise = Noise(3, dtype=torch.float64)
        losses.append(m.loss(Batch({"x": IMAGES}))["loss"])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(model.importance_bound(IMAGES, 20), vae.importance_bound(IMAGES, 20))


@pytest.mark.parametrize("prior", ["mog", "gmvae"])
def test_split_objective_becomes_the_exact_one_for_a_sharp_posterior(prior):
    exact, split = gmvae(prior), gmvae(prior, objective="split", lam=0.0)
    gaps = []
    for variance in (1e-1, 1e-8):
        losses = []
        for model in (exact, split):
            inner = model.both
            model.both = lambda x, inner=inner, v=variance: (
                inner(x)[0],
                torch.full_like(inner(x)[1], math.log(v)),
            )
            # at ε = ±1 log q(z | x) is exactly minus the entropy of q
            model.noise.normal = lambda *shape: torch.where(
                torch.arange(math.prod(shape)).view(shape) % 3 > 0, 1.0, -1.0
            ).double()
            losses.append(model.loss(Batch({"x": IMAGES}))["loss"])
            model.both = inner
        gaps.append((losses[0] - losses[1]).abs().item())
    assert gaps[1] < 1e-4 and gaps[0] > 100 * gaps[1]


def test_clusters_cost_nothing_below_the_free_nats():
    def gradient(lam):
        model = gmvae(objective="split", lam=lam)
        model.noise = Noise(3, dtype=torch.float64)
        terms = model.loss(Batch({"x": IMAGES}))
        cost = terms["loss"] + terms["recon"] - terms["kl_within"]
        return terms, cost, torch.autograd.grad(cost, model.weights, retain_graph=True)[0]

    terms, cost, free = gradient(50.0)
    assert cost.item() == pytest.approx(50) and free.abs().max() < 1e-12
    terms, cost, paid = gradient(0.0)
    assert cost.item() == pytest.approx(terms["kl_clusters"].item()) and paid.abs().max() > 1e-4


def test_a_pseudo_input_equal_to_the_image_makes_prior_and_posterior_equal():
    model = gmvae("vamp", components=1)
    model.inputs.data = IMAGES[20:21].clone()
    z = torch.randn(30, 2).double()
    q = model.posterior(IMAGES[20:21])
    torch.testing.assert_close(model.log_joint(z, z[:, :0]).logsumexp(1), log_normal(z, *q).sum(1))
    ratio = model.weigh(IMAGES[20:21], 9, RowNoise(IMAGES[20:21]))[1]
    assert ratio.abs().max() < 1e-12


def test_gradient_reaches_pseudo_inputs_and_through_the_prior_the_encoder():
    model = gmvae("vamp")
    model.inputs.data.clamp_(0.1, 0.9)
    log_p = (
        model.log_joint(torch.randn(5, 2).double(), torch.empty(5, 0).double()).logsumexp(1).sum()
    )
    for g in torch.autograd.grad(log_p, [model.inputs, *model.encoder.parameters()]):
        assert g.abs().max() > 0


def test_pseudo_inputs_start_as_training_images_and_stay_images():
    spec = DataSpec((1, 8, 8), 17)
    model, x = GMVAE(spec, prior="vamp", components=3, width=8), Digits().examples(40)["x"]
    with torch.no_grad():
        model.initialise_from(Batch({"x": x}))
    assert all((x / 16 == u).flatten(1).all(1).any() for u in model.inputs.detach())
    assert len(model.inputs.unique(dim=0)) > 1
    of_images = model.posterior(16 * model.inputs.detach())
    torch.testing.assert_close(model.mixture(torch.empty(0))[1:], of_images)
    model.inputs.data[0] = 7.0
    clipped = model.mixture(torch.empty(0))[1][0]
    model.inputs.data[0] = 1.0
    torch.testing.assert_close(clipped, model.mixture(torch.empty(0))[1][0])


@pytest.mark.parametrize("prior", PRIORS)
def test_codes_are_draws_of_the_mixture(prior):
    model = gmvae(prior)
    g = torch.Generator().manual_seed(0)
    z = model.draw_codes(40_000, Draw(g, dtype=torch.float64)).detach()
    w = (
        torch.randn(4000, model.noise_latent, generator=g, dtype=torch.float64)
        if prior == "gmvae"
        else torch.empty(1, 0).double()
    )
    log_pi, mu, log_var = model.mixture(w)
    p, mu, second = log_pi.exp()[:, None], mu.detach(), (log_var.exp() + mu.square()).detach()
    n = 4000 if prior == "gmvae" else 40_000
    for value, want in ((z, (p * mu).sum(-2)), (z.square(), (p * second).sum(-2))):
        error = value.std(0) / math.sqrt(n) * 1.5
        assert ((value.mean(0) - want.reshape(-1, 2).mean(0)).abs() < 4.5 * error).all()


def test_a_component_gives_its_own_samples():
    model = gmvae()
    model.means.data = 10 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    model.log_vars.data.zero_()
    model.weights.data.zero_()
    for k in range(4):
        z = model.draw_codes(
            1000, Draw(torch.Generator().manual_seed(k), dtype=torch.float64), component=k
        )
        assert (model.log_joint(z, z[:, :0]).argmax(1) == k).double().mean() >= 0.99
    assert model.sample_component(2, 5).shape == (5, 1, 2, 3)
    with pytest.raises(ValueError, match=r"0..3, got 4"):
        model.sample_component(4, 1)


@pytest.mark.parametrize("prior", PRIORS)
def test_bounds_lie_below_the_likelihood_of_codes_drawn_from_the_prior(prior):
    model = gmvae(prior)
    if prior == "mog":
        model.log_vars.data.fill_(
            -1.5
        )  # a prior wider than q would leave the weights without a variance
        model.means.data.mul_(0.4)
    with torch.no_grad():
        z = model.draw_codes(20_000, Draw(torch.Generator().manual_seed(0), dtype=torch.float64))
        exact = torch.stack(
            [model.log_likelihood(x.expand(len(z), 1, 2, 3), z).exp().mean() for x in IMAGES[::5]]
        ).log()
        bound = torch.stack(
            [
                model.elbo(IMAGES[::5], generator=torch.Generator().manual_seed(s))
                for s in range(300)
            ]
        ).mean(0)
        tight = torch.stack(
            [
                model.importance_bound(IMAGES[::5], 2000, torch.Generator().manual_seed(s))
                for s in range(10)
            ]
        )
    assert (bound < exact - 0.01).all() and (bound < tight.mean(0)).all()
    torch.testing.assert_close(tight.exp().mean(0).log(), exact, atol=0.1, rtol=0)


def test_warmup_weighs_the_prior_and_not_the_logged_bound():
    model, seen = GMVAE(SPEC, latent=2, width=8, warmup_steps=4), []
    inner = model.loss
    model.loss = lambda batch: seen.append(inner(batch)) or seen[-1]
    fit(model, Given(SPEC, IMAGES.float()), 6)
    for beta, terms in zip((0, 0.25, 0.5, 0.75, 1, 1), seen, strict=True):
        torch.testing.assert_close(terms["loss"], beta * terms["kl"] - terms["recon"])
        torch.testing.assert_close(terms["nelbo"], terms["kl"] - terms["recon"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "flow"}, "prior is one of mog, gmvae, vamp, got 'flow'"),
        ({"components": 0}, "components is at least 1, got 0"),
        ({"objective": "both"}, "objective is one of exact, split, got 'both'"),
        ({"prior": "vamp", "objective": "split"}, "prior=mog"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"gmvae: .*{message}"):
        GMVAE(SPEC, **options)


@pytest.mark.parametrize("prior", PRIORS)
def test_rows_do_not_talk(prior):
    likelihoods.assert_rows_do_not_talk(gmvae(prior).importance_bound, IMAGES[:9])


@pytest.mark.slow
def test_digits_fall_into_clusters_without_their_labels():
    data = Digits(binarize="threshold", batch_size=64)
    model = GMVAE(data.spec)
    fit(model, data, 2250)
    batch = data.examples(split="val")
    with torch.no_grad():
        p = model.eval().responsibilities(batch["x"])
    assert (p.mean(0) > 0.01).sum() >= 8  # 9 or 10 on three seeds
    assert normalized_mutual_info_score(batch["y"], p.argmax(1)) > 0.40  # .54 to .64 on three seeds


def test_the_logged_bound_has_the_cost_of_both_codes():
    model = gmvae("gmvae")
    model.noise = Noise(0, "test", dtype=torch.float64)
    terms = model.loss(Batch({"x": IMAGES[:8]}))
    torch.testing.assert_close(terms["nelbo"], terms["kl"] - terms["recon"])


def test_the_entropy_of_use_is_that_of_the_whole_minibatch():
    model = gmvae()
    model.log_joint = lambda z, w: 50 * torch.eye(4).double()
    terms = model.loss(Batch({"x": IMAGES[:4]}))
    assert terms["mix_entropy"].item() == pytest.approx(math.log(4))


def test_means_start_apart():
    means = GMVAE(SPEC, components=200, latent=3, width=8).means
    assert means.mean().abs() < 0.17 and abs(means.std() - 1) < 0.12  # 4 deviations of 600 draws


def test_a_components_samples_are_draws_of_the_pixels():
    model = gmvae()
    for p in model.decoder.parameters():
        p.data.zero_()
    model.decoder[-2].bias.data.fill_(math.log(0.3 / 0.7))
    drawn = model.sample_component(1, 500, torch.Generator().manual_seed(0))
    assert abs(drawn.mean().item() - 0.3) < 0.035  # 4 deviations of 3,000 bits


def test_the_clusters_cost_their_divergence_from_the_weights():
    """What is logged has no free nats."""
    model, joint = gmvae(objective="split", lam=50.0), 3 * torch.randn(5, 4).double()
    model.log_joint = lambda z, w: joint
    terms = model.loss(Batch({"x": IMAGES[:5]}))
    weights = Categorical(logits=model.weights.detach())
    want = torch.distributions.kl_divergence(Categorical(logits=joint), weights).mean()
    torch.testing.assert_close(terms["kl_clusters"].detach(), want)
    cost = terms["loss"] + terms["recon"] - terms["kl_within"]
    assert cost.item() == pytest.approx(50)
