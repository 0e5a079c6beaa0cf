"""The CVAE is a likelihood of what is not observed, with a prior that is learned from what is."""

import math

import pytest
import torch

from tests.support import Given, fit
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import RowNoise
from zoo.core.noise import Noise
from zoo.data.digits import Digits
from zoo.nn.gaussian import log_normal
from zoo.variational.cvae import CVAE, quadrants

SPEC = DataSpec((1, 2, 2), 2, 3)
LABELS = torch.arange(16) % 3


def cvae(spec: DataSpec = SPEC, scale: float = 0.7, **options) -> CVAE:
    torch.manual_seed(0)
    model = CVAE(spec, **{"task": "quadrant", "latent": 2, "width": 16, **options}).double().eval()
    for p in model.parameters():
        p.data.mul_(1 + scale)
    return model


def exact(model: CVAE, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """log p(r | c) by quadrature over z ~ p(z | c), on a grid of ±7 standard deviations."""
    axis = torch.linspace(-7, 7, 141).double()
    eps, h = torch.cartesian_prod(axis, axis), model.context(model.condition(x, y))
    mu, log_var = model.code_prior(h)
    z = mu + (0.5 * log_var).exp() * eps[:, None]
    return (
        model.log_rest(x, h, z) + (log_normal(eps).sum(1) + 2 * math.log(0.1))[:, None]
    ).logsumexp(0)


@pytest.mark.parametrize("options", [{}, {"task": "label"}], ids=str)
def test_the_bounds_lie_below_the_true_conditional_and_close_in_on_it(options):
    model, x = cvae(**options), likelihoods.every_image(SPEC)
    y = LABELS if model.task == "label" else None
    with torch.no_grad():
        log_p = exact(model, x, y)
        draws = torch.stack(
            [model.elbo(x, y=y, generator=torch.Generator().manual_seed(s)) for s in range(300)]
        )
        bounds = {
            k: torch.stack(
                [
                    model.importance_bound(x, k, torch.Generator().manual_seed(s), y=y)
                    for s in range(100)
                ]
            )
            for k in (5, 50)
        }
        mc = model.from_prior(x, 20_000, RowNoise(x), y=y).logsumexp(0) - math.log(20_000)
    assert (draws.mean(0) < log_p + 4 * draws.std(0) / math.sqrt(300)).all()
    assert draws.mean() < bounds[5].mean() < bounds[50].mean() < log_p.mean() + 1e-3
    torch.testing.assert_close(model.importance_bound(x, 5000, y=y), log_p, rtol=0, atol=0.05)
    torch.testing.assert_close(mc, log_p, rtol=0, atol=0.05)


def test_probabilities_of_the_rest_sum_to_one_for_every_observation():
    model, x = cvae(), likelihoods.every_image(SPEC)
    mass = exact(model, x).exp()
    for value in (0, 1):  # of the one observed pixel
        assert mass[x[:, 0, 1, 0] == value].sum().item() == pytest.approx(1, abs=1e-4)


def test_a_recognition_network_that_equals_the_prior_network_costs_nothing():
    model, x = cvae(), likelihoods.every_image(SPEC)
    model.recognise = lambda x, h: model.code_prior(h)
    terms = [
        model.bound_terms(x, RowNoise(x, torch.Generator().manual_seed(s))) for s in range(500)
    ]
    assert all((kl == 0).all() for _, kl in terms)
    torch.testing.assert_close(
        torch.stack([r for r, _ in terms]).mean(0),
        model.from_prior(x, 20_000, RowNoise(x)).mean(0),
        rtol=0,
        atol=0.04,
    )


def test_the_prior_is_learned_by_the_kl_from_q_to_p():
    model, x = cvae(), likelihoods.every_image(SPEC)
    h = model.context(model.condition(x, None))
    q, p = (
        torch.distributions.Normal(mu, (0.5 * log_var).exp())
        for mu, log_var in (model.recognise(x, h), model.code_prior(h))
    )
    weights = [*model.prior_net.parameters()]
    torch.testing.assert_close(
        model.bound_terms(x, RowNoise(x))[1], torch.distributions.kl_divergence(q, p).sum(1)
    )
    model.noise = Noise(0, dtype=torch.float64)
    got = torch.autograd.grad(model.loss(Batch({"x": x}))["loss"], weights)
    want = torch.autograd.grad(
        torch.distributions.kl_divergence(q, p).sum(1).mean(), weights, retain_graph=True
    )
    swapped = torch.autograd.grad(torch.distributions.kl_divergence(p, q).sum(1).mean(), weights)
    for a, b, c in zip(got, want, swapped, strict=True):
        torch.testing.assert_close(a, b)
        assert (a - c).abs().max() > 1e-4


def test_the_guess_is_trained_by_its_own_term_alone_and_for_its_own_time():
    model, x = cvae(), likelihoods.every_image(SPEC)
    model.noise = Noise(0, dtype=torch.float64)
    got = torch.autograd.grad(model.loss(Batch({"x": x}))["loss"], [*model.baseline.parameters()])
    want = torch.autograd.grad(
        -model.log_baseline(x, RowNoise(x)).mean(), [*model.baseline.parameters()]
    )
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    model, seen = cvae(baseline_steps=3).float(), []
    model.after_step = lambda: seen.append(
        [
            p.detach().flatten()[:].clone()
            for p in (model.baseline[0].weight, model.generation[0].weight)
        ]
    )
    fit(model, Given(SPEC, x.float(), LABELS), 6)
    moved = [
        [not torch.equal(a, b) for a, b in zip(*pair, strict=True)]
        for pair in zip(seen, seen[1:], strict=False)
    ]
    assert moved == [[True, True]] * 2 + [[False, True]] * 3


def test_the_hybrid_mixes_both_objectives():
    x, found = likelihoods.every_image(SPEC), {}
    for alpha in (1.0, 0.5, 0.0):
        model = cvae(alpha=alpha)
        model.noise = Noise(0, dtype=torch.float64)
        model.noise.normal = lambda *shape: torch.full(shape, 0.3, dtype=torch.float64)
        found[alpha] = model.loss(Batch({"x": x}))["loss"]
    torch.testing.assert_close(found[0.5], (found[0.0] + found[1.0]) / 2)
    torch.testing.assert_close(
        found[0.0],
        -model.from_prior(x, 1, model.noise).mean() - model.log_baseline(x, RowNoise(x)).mean(),
    )
    assert abs(found[1.0] - found[0.0]) > 1e-3


def test_quadrants_are_the_papers():
    drawn = {n: quadrants((1, 4, 4), n)[0].int().tolist() for n in (1, 2, 3)}
    left, right, none = [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]
    assert drawn == {1: [none, none, left, left], 2: [left] * 4, 3: [left, left, right, right]}


@pytest.mark.parametrize("observed", [1, 2, 3])
def test_observed_pixels_are_never_reconstructed_and_pasted_unchanged(observed):
    spec = DataSpec((2, 4, 4), 5)
    model, g = cvae(spec, observed=observed), torch.Generator().manual_seed(0)
    x, known = torch.randint(5, (6, 2, 4, 4), generator=g).double(), quadrants(spec.shape, observed)
    h, z = (
        model.context(model.condition(x, None)),
        torch.randn(1, 6, 2, generator=g, dtype=torch.float64),
    )
    other = torch.where(known, (x + 2) % 5, x)
    assert torch.equal(model.log_rest(x, h, z), model.log_rest(other, h, z))  # at a given condition
    assert model.generate(h, z).shape == (1, 6, 2, 32 - known.sum())
    for filled in (
        model.inpaint(x, known, generator=g),
        model.predict(x),
        model.reconstruct(x),
        model.interpolate(x, other)[:, 0],
    ):
        assert filled.shape == x.shape and torch.equal(filled[:, known], x[:, known])
    hidden = torch.where(known, x, 0)
    assert torch.equal(
        model.predict(x), model.predict(hidden)
    )  # nothing of the rest leaks into the prediction
    assert not torch.equal(model.predict(x), model.predict(other))


def test_two_modes_are_both_drawn_and_the_baseline_sees_neither():
    spec = DataSpec((1, 4, 4), 2)
    known, x = quadrants(spec.shape, 1), torch.zeros(64, 1, 4, 4)
    x[32:][:, ~known] = 1
    torch.manual_seed(0)
    model = CVAE(spec, task="quadrant", latent=2, width=32, lr=3e-3)
    fit(model, Given(spec, x, batch_size=32), 400)
    with torch.no_grad():
        ends = model.inpaint(
            x[:1].expand(400, -1, -1, -1), known, generator=torch.Generator().manual_seed(0)
        )[:, ~known].mean(1)
        terms = {k: v.mean().item() for k, v in model.evaluate(Batch({"x": x})).items()}
    assert (ends < 0.1).float().mean() >= 0.25 and (ends > 0.9).float().mean() >= 0.25
    assert terms["baseline_nll"] == pytest.approx(12 * math.log(2), rel=0.03)
    assert math.log(2) - 0.02 < terms["iw_nll"] < 1.3  # ln 2 and the draws between the modes


def test_further_known_pixels_choose_among_the_draws():
    model, x = cvae(task="label", prior="standard", draws=300), likelihoods.every_image(SPEC)
    model.generate = lambda h, z: (3 * z[..., None, :1]).expand(
        *z.shape[:-1], 1, 4
    )  # z makes all pixels black or white
    y, known = torch.ones(2000, dtype=torch.long), torch.tensor([[[True, False], [False, True]]])
    with torch.no_grad():
        p = exact(model, x, y[:16]).exp()
        filled = model.inpaint(
            x[6].expand(2000, -1, -1, -1), known, y=y, generator=torch.Generator().manual_seed(0)
        )
    agrees = ((x == x[6]) | ~known).flatten(1).all(1)
    assert likelihoods.total_variation(filled, agrees * p / p[agrees].sum(), SPEC) < 0.04
    blind = torch.stack(
        [p[((x == row) | known).flatten(1).all(1)].sum() for row in x]
    )  # p of the unknown pixels alone
    assert likelihoods.total_variation(filled, agrees * blind, SPEC) > 0.1


def test_labels_are_found_by_bayes_rule():
    model, x = cvae(task="label", draws=1000, scale=1.0), likelihoods.every_image(SPEC)[3:9]
    log_p = torch.stack([exact(model, x, torch.full((6,), label)) for label in range(3)], 1)
    torch.testing.assert_close(model.classify(x), log_p.log_softmax(1), rtol=0, atol=0.05)
    likeliest = model.classify(x).argmax(1)
    assert torch.equal(model.encode(x), model.encode(x, y=likeliest)) and torch.equal(
        model.reconstruct(x), model.reconstruct(x, y=likeliest)
    )


def test_what_the_condition_needs_is_asked_for():
    quadrant, label, x = cvae(), cvae(task="label"), likelihoods.every_image(SPEC)[:2]
    assert (quadrant.told, label.told) == (("x",), ("y",))
    with pytest.raises(ValueError, match="pass images"):
        quadrant.sample(2)
    with pytest.raises(ValueError, match="pass the labels"):
        label.sample(2)
    with pytest.raises(ValueError, match="observed quadrants are known"):
        quadrant.inpaint(x, torch.tensor([[[True, True], [False, True]]]))
    with pytest.raises(ValueError, match="pass the labels"):
        label.elbo(x)
    with pytest.raises(ValueError, match="pass images"):
        quadrant.decode(torch.zeros(2, 2).double())
    with pytest.raises(ValueError, match="prior is learned, got standard"):
        cvae(prior="standard")
    with pytest.raises(ValueError, match="observed is one of 1, 2, 3, got 4"):
        cvae(observed=4)
    with pytest.raises(ValueError, match=r"task=label needs labels.*labelled data"):
        CVAE(DataSpec((1, 2, 2), 2))


def test_samples_of_the_quadrants_keep_what_they_are_told_and_draw_the_rest():
    model, x = cvae(), likelihoods.every_image(SPEC)
    told = x[5].expand(20_000, -1, -1, -1)
    drawn = model.sample(20_000, x=told, generator=torch.Generator().manual_seed(0))
    agrees = (x == x[5]).flatten(1)[:, model.mask].all(1)
    p = agrees * exact(model, x).exp()
    assert (drawn == told).flatten(1)[:, model.mask].all()
    assert likelihoods.total_variation(drawn, p, SPEC) < 0.03


def test_a_standard_prior_ignores_the_label():
    model = cvae(task="label", prior="standard")
    assert all(
        (v == 0).all() for v in model.code_prior(model.context(model.condition(None, LABELS)))
    )


def test_codes_are_in_units_of_the_prior():
    model, x = cvae(), likelihoods.every_image(SPEC)
    mu, log_var = model.code_prior(model.context(model.condition(x, None)))
    model.recognise = lambda x, h: (mu + 1.5 * (0.5 * log_var).exp(), log_var)
    torch.testing.assert_close(model.encode(x), torch.full((16, 2), 1.5).double())
    assert torch.equal(model.decode(torch.zeros(16, 2).double(), x=x), model.predict(x))


@pytest.mark.slow
def test_the_code_explains_more_of_the_hidden_pixels_than_the_guess():
    data = Digits(binarize="threshold")
    torch.manual_seed(0)
    model = CVAE(data.spec, task="quadrant")
    fit(model, data, 1200)
    batch = data.examples(split="val")
    terms = model.evaluate(batch)
    assert -model.elbo(batch["x"]).mean() < 0.92 * terms["baseline_nll"].mean()


def test_the_priors_estimate_of_a_code_that_says_nothing_is_the_pixels_entropy():
    """Whatever the number of draws: every draw gives the pixels the same."""
    model = cvae(task="label", draws=7)
    for p in model.parameters():
        p.data.zero_()
    x = torch.randint(2, (5, 1, 2, 2)).double()
    told = model.evaluate(Batch({"x": x, "y": LABELS[:5]}))
    want = torch.full((5,), 4 * math.log(2)).double()
    for name in ("mc_nll", "iw_nll", "baseline_nll"):
        torch.testing.assert_close(told[name], want)


def test_the_condition_is_the_label_that_is_told():
    y = torch.tensor([2, 0, 1, 1])
    model = cvae(task="label")
    assert torch.equal(model.condition(None, y), torch.eye(3)[y].to(model.float_dtype))


def test_accuracy_is_that_of_the_likeliest_label():
    model, y = cvae(task="label"), torch.tensor([2, 0, 1, 1])
    model.classify = lambda x: 2.0 * torch.eye(3)[torch.tensor([2, 0, 1, 0])]
    told = model.evaluate(Batch({"x": torch.zeros(4, 1, 2, 2).double(), "y": y}))
    assert told["bayes_accuracy"].tolist() == [1, 1, 1, 0]


def test_the_others_read_the_condition_and_the_guessed_pixels():
    model, x = cvae(), likelihoods.every_image(SPEC)
    c = model.condition(x, None)
    guess = 2 * torch.sigmoid(model.baseline(c)) - 1  # of black and white, -1 and 1
    torch.testing.assert_close(model.context(c), torch.cat([c, guess], 1))


def test_reconstructions_and_interpolations_are_of_the_labels_and_codes_of_both_ends():
    spec = DataSpec((1, 2, 2), 65, 3)
    model, y = cvae(spec, task="label", scale=2.0), torch.tensor([0, 1, 2, 1])
    x = torch.randint(65, (4, 1, 2, 2), generator=torch.Generator().manual_seed(0)).double()
    told = model.reconstruct(x, y=y)
    assert torch.equal(told, model.decode(model.encode(x, y=y), y=y))
    assert not torch.equal(told, model.reconstruct(x, y=(y + 1) % 3))
    model.classify = lambda x: torch.eye(3)[y[:2] if torch.equal(x, x0) else y[2:]]
    x0, x1 = x[:2], x[2:]
    path = model.interpolate(x0, x1, frames=3)
    assert torch.equal(path[:, 0], told[:2]) and torch.equal(path[:, 2], told[2:])
    assert not torch.equal(told[:2], told[2:])


def test_what_inpainting_fills_in_is_drawn():
    model, x = cvae(task="label"), torch.zeros(500, 1, 2, 2).double()
    for p in model.generation.parameters():
        p.data.zero_()
    model.generation[-1].bias.data.fill_(math.log(0.3 / 0.7))
    y, known = torch.zeros(500, dtype=torch.long), torch.tensor([[[True, False], [False, False]]])
    filled = model.inpaint(x, known, y=y, generator=torch.Generator().manual_seed(0))
    assert abs(filled[:, ~known].mean().item() - 0.3) < 0.05  # 4 deviations of 1,500 bits


def test_the_logged_bound_is_without_the_guess():
    model, y = cvae(task="label"), torch.tensor([0, 1, 2, 1])
    x = torch.ones(4, 1, 2, 2).double()
    terms = model.loss(Batch({"x": x, "y": y}))
    torch.testing.assert_close(terms["nelbo"], terms["kl"] - terms["recon"])
    torch.testing.assert_close(terms["loss"], terms["nelbo"] + terms["baseline_nll"])
