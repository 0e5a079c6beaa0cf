"""The GSN is a GSN: the order of its updates, walkback, the chain's stationary distribution, its
conservative score.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.markov.gsn import GSN, Drawn, conservative_log_likelihood, corrupt

PAIR = DataSpec((1, 1, 2), 2)
SPEC = DataSpec((1, 3, 3), 2)


def gsn(spec: DataSpec = SPEC, scale: float = 0.5, **options) -> GSN:
    torch.manual_seed(0)
    model = GSN(spec, **{"width": 6, "sigma": 0.0, **options}).double().eval()
    for p in model.parameters():
        p.data.normal_(0, scale)
    model.noise = Noise(1, "test", dtype=torch.float64)
    return model


def binary(n: int, d: int = 9) -> torch.Tensor:
    return torch.randint(2, (n, d), generator=torch.Generator().manual_seed(0)).double()


def test_one_step_updates_odd_layers_from_old_even_ones_then_even_layers_from_new_odd_ones():
    model, x = gsn(layers=3), binary(4)
    h1, h2, h3 = (
        torch.randn(4, 6, generator=torch.Generator().manual_seed(i)).double() for i in range(3)
    )
    (w0, w1, w2), (b0, b1, b2, b3) = model.W, model.b
    new1 = torch.tanh(x @ w0 + h2 @ w1.T + b1)
    new3 = torch.tanh(h2 @ w2 + b3)
    new2 = torch.tanh(new1 @ w1 + new3 @ w2.T + b2)
    logits, h = model.transition(x, [h1, h2, h3], None)
    torch.testing.assert_close(logits, new1 @ w0.T + b0)
    for got, want in zip(h, (new1, new2, new3), strict=True):
        torch.testing.assert_close(got, want)


def test_noise_enters_before_and_after_tanh_but_not_in_the_first_layer():
    class Ones:
        def normal_like(self, x):
            return torch.ones_like(x)

    model, x = gsn(sigma=0.7), binary(4)
    _, (h1, h2) = model.transition(x, model.rest(x), Ones())
    torch.testing.assert_close(h1, torch.tanh(x @ model.W[0] + model.b[1]))
    torch.testing.assert_close(h2, torch.tanh(h1 @ model.W[1] + model.b[2] + 0.7) + 0.7)
    model.noiseless_h1 = False
    _, (h1, _) = model.transition(x, model.rest(x), Ones())
    torch.testing.assert_close(h1, torch.tanh(x @ model.W[0] + model.b[1] + 0.7) + 0.7)


def watched(model: GSN) -> list[torch.Tensor]:
    """What each step of the model reads, filled as it runs."""
    read, step = [], model.transition

    def spy(x, h, noise):
        read.append(x)
        return step(x, h, noise)

    model.transition = spy
    return read


def test_walkback_reads_three_corrupted_inputs_and_compares_each_with_the_clean_one():
    model, x = gsn(steps=3, corruption=0.3), binary(50)
    read = watched(model)
    terms = model.loss(Batch({"x": x.view(-1, 1, 3, 3)}))
    assert len(read) == 3 and not any(
        torch.equal(a, b) for a, b in ((read[0], read[1]), (read[1], read[2]), (read[0], x))
    )
    h, expected = model.rest(x), []
    for seen in read[
        :3
    ]:  # the inputs as constants: the only way for gradients is through the hidden layers
        logits, h = type(model).transition(model, seen.detach(), h, None)
        expected.append(-(x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).mean())
    torch.testing.assert_close(terms["loss"], sum(expected) / 3)
    parameters = [*model.parameters()]
    for a, b in zip(
        torch.autograd.grad(terms["loss"], parameters),
        torch.autograd.grad(sum(expected) / 3, parameters, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    through_hidden = torch.autograd.grad(expected[2], model.W[1])[0]
    assert through_hidden.abs().max() > 1e-6 and all(not seen.requires_grad for seen in read)


def test_walkback_feeds_back_draws_of_its_own_and_without_it_the_example():
    x = torch.ones(200, 9).double()
    for walkback, bright in ((True, False), (False, True)):
        model = gsn(steps=3, corruption=0.0, walkback=walkback)
        model.b[0].data.fill_(-20.0)  # whatever it reads, it draws black
        read = watched(model)
        model.walk(x, model.noise)
        assert torch.equal(read[0], x) and set(read[1].unique().tolist()) <= {0.0, 1.0}
        assert bool(read[1].all()) == bright


def test_corruption_changes_half_of_q_of_binary_pixels():
    x = binary(2000, 100)
    changed = (corrupt(x, 0.4, Drawn(torch.Generator().manual_seed(0))) != x).double().mean().item()
    assert changed == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 200_000))
    assert torch.equal(corrupt(x, 0.0, Drawn(None)), x)


def one_pixel() -> tuple[GSN, float]:
    """A chain of one pixel and the analytic probability of 1 in its stationary distribution."""
    model = gsn(DataSpec((1, 1, 1), 2), scale=1.0, layers=1, corruption=0.4, burn_in=20)
    with torch.no_grad():
        p0, p1 = (
            torch.sigmoid(
                model.transition(
                    torch.full((1, 1), v).double(), model.rest(torch.zeros(1, 1)), None
                )[0]
            ).item()
            for v in (0.0, 1.0)
        )
    up, stay = 0.8 * p0 + 0.2 * p1, 0.8 * p1 + 0.2 * p0  # P(1 | 0) and P(1 | 1), the coin included
    return model, up / (up + 1 - stay)


def test_one_pixel_chain_has_its_analytic_stationary_distribution():
    model, exact = one_pixel()
    assert 0.1 < exact < 0.9 and abs(exact - 0.5) > 0.05
    ones = model.sample(20_000, generator=torch.Generator().manual_seed(0)).mean().item()
    assert ones == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


def test_conservative_score_of_the_one_pixel_chain_reaches_its_log_probability_from_below():
    model, exact = one_pixel()
    x = torch.tensor([[[[0.0]]], [[[1.0]]]]).double()
    score = -model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(0))["csl_nats"]
    log_p = torch.tensor([math.log(1 - exact), math.log(exact)]).double()
    torch.testing.assert_close(score, log_p, rtol=0, atol=0.02)
    few = torch.stack(
        [
            conservative_log_likelihood(x.view(2, 1), model.states()[i : i + 2])
            for i in range(0, 5000, 2)
        ]
    ).mean(0)
    assert (few < log_p + 0.01).all()


def test_conservative_score_is_the_mean_of_products_of_clamped_probabilities():
    x, p = binary(5), torch.rand(7, 9, generator=torch.Generator().manual_seed(1)).double()
    p[0] = 0
    q = p.clamp(1e-3, 1 - 1e-3)
    products = torch.where(x[:, None] > 0, q, 1 - q).prod(2).mean(1)
    torch.testing.assert_close(conservative_log_likelihood(x, p), products.log())


def test_scored_states_are_kept_until_the_weights_change_and_never_see_the_example():
    model = gsn(score_samples=50, score_chains=7, burn_in=3)
    first = model.states()
    assert first.shape == (50, 9)
    model.evaluate(Batch({"x": binary(4).view(-1, 1, 3, 3)}))
    assert model.states() is first
    with torch.no_grad():
        model.b[0].add_(1)
    assert not torch.equal(model.states(), first)


def test_chain_trained_on_two_patterns_visits_both_and_seldom_a_mixture():
    x = torch.tensor([[0.0, 0], [1, 1]]).view(2, 1, 1, 2).repeat(32, 1, 1, 1)
    torch.manual_seed(0)
    model = GSN(PAIR, width=20, corruption=0.2, lr=0.01, decay_steps=600)
    fit(model, Given(PAIR, x, batch_size=32), 600)
    noise = Drawn(torch.Generator().manual_seed(0))
    v = noise.bernoulli(torch.full((20, 2), 0.5))
    h, seen = model.rest(v), []
    for _ in range(500):
        v, _, h = model.chain(v, h, 1, noise)
        seen.append(v)
    share = (
        torch.bincount((torch.stack(seen) @ torch.tensor([2.0, 1])).long().flatten(), minlength=4)
        / 10_000
    )
    assert share[0] > 0.2 and share[3] > 0.2 and share[1] + share[2] < 0.25
    each = torch.stack(seen).sum(2)  # every single chain crosses between the patterns
    assert ((each == 0).any(0) & (each == 2).any(0)).float().mean() > 0.9


def test_reconstruction_has_no_noise():
    model, x = gsn(sigma=2.0, corruption=0.4), binary(5).view(-1, 1, 3, 3)
    torch.manual_seed(0)
    a = model.reconstruct(x)
    torch.manual_seed(1)
    assert torch.equal(a, model.reconstruct(x))
    torch.testing.assert_close(model.reconstruct(x[:1]), a[:1])


def test_inpainting_holds_the_known_pixels_and_corrupts_only_the_others():
    model, x = gsn(corruption=0.9, burn_in=5), torch.ones(30, 1, 3, 3).double()
    known = torch.zeros(1, 3, 3, dtype=torch.bool)
    known[0, 0] = True
    read = watched(model)
    filled = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled[:, known], x[:, known]) and not filled[:, ~known].all()
    assert len(read) == 5 and all(v[:, :3].all() and not v[:, 3:].all() for v in read)


def test_samples_are_draws_if_binary_and_probabilities_in_levels_if_grey():
    assert set(gsn().sample(50).unique().tolist()) == {0.0, 1.0}
    grey = gsn(DataSpec((1, 3, 3), 17)).sample(50)
    assert torch.equal(grey, grey.round()) and len(grey.unique()) > 5 and grey.max() <= 16
    assert "csl_nats" not in gsn(DataSpec((1, 3, 3), 17)).evaluate(Batch({"x": grey}))


def test_chains_begin_at_the_means_of_the_data():
    model = gsn(burn_in=1)
    model.initialise_from(
        Batch({"x": torch.tensor([0.0] * 3 + [1.0] * 6).double().expand(10, 9).view(10, 1, 3, 3)})
    )
    read = watched(model)
    model.corruption = 0.0
    model.sample(5)
    model.states()
    assert all(torch.equal(v, model.means.expand(len(v), -1)) for v in read[:2])


def test_rate_falls_by_a_factor_or_in_a_line():
    for options, expected in (
        ({"decay_steps": 4}, [0.1, 0.075, 0.05, 0.025, 0.0]),
        ({"decay_steps": 0, "gamma": 0.5}, [0.1, 0.05, 0.025, 0.0125, 0.00625]),
    ):
        made = gsn(optimiser="sgd", lr=0.1, **options).configure_optimizers()
        rates = []
        for _ in range(5):
            rates.append(made["optimizer"].param_groups[0]["lr"])
            made["optimizer"].step()
            made["lr_scheduler"]["scheduler"].step()
        assert rates == pytest.approx(expected)


def test_the_parzen_score_is_a_mixture_of_gaussians_on_the_scored_states():
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    model, x = gsn(score_samples=40, score_chains=5, burn_in=2, parzen_sigma=0.35), binary(6)
    windows = Independent(Normal(model.states(), torch.tensor(0.35).double()), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(40).double()), windows)
    said = model.evaluate(Batch({"x": x.view(-1, 1, 3, 3)}))["parzen_nats"]
    torch.testing.assert_close(said, mixture.log_prob(x))


def test_what_is_logged_of_walkback_is_nats_an_image():
    model, x = gsn(steps=2, corruption=0.0), binary(20)
    terms = model.loss(Batch({"x": x.view(-1, 1, 3, 3)}))
    model.noise = Noise(1, "test", dtype=torch.float64)
    walked = torch.stack([torch.sigmoid(a) for a in model.walk(x, model.noise)])
    each = -torch.where(x > 0, walked, 1 - walked).log().sum(2).mean(1)
    said = torch.stack([terms["walkback_bce_1"], terms["walkback_bce_2"]])
    torch.testing.assert_close(said, each)
    torch.testing.assert_close(terms["walkback_bce"], each.mean())


def test_sgd_has_its_momentum():
    made = gsn(optimiser="sgd", momentum=0.3).configure_optimizers()["optimizer"]
    assert type(made) is torch.optim.SGD and made.param_groups[0]["momentum"] == 0.3
    assert type(gsn().configure_optimizers()["optimizer"]) is torch.optim.Adam


def test_scores_rest_on_chains_that_have_burnt_in():
    model = gsn(score_samples=6, score_chains=3, burn_in=4, corruption=0.0)
    read = watched(model)
    model.states()
    assert len(read) == 4 + 2  # two states of each of three chains


def test_fewer_steps_than_layers_are_refused():
    with pytest.raises(ValueError, match=r"steps is at least layers.*steps=2, layers=3"):
        GSN(SPEC, layers=3, steps=2)
