"""NADE is NADE: a running sum shared by all conditionals, an unbiased orderless loss, mixtures of
Gaussians for real values.
"""

import itertools
import math

import pytest
import torch
from scipy import integrate, stats
from torch.utils.flop_counter import FlopCounterMode

from tests.support import Given, fit
from zoo.autoregressive.nade import NADE
from zoo.check.likelihoods import (
    TINY,
    TINY_NAMES,
    assert_rows_do_not_talk,
    coverage,
    dependence,
    every_image,
    leaks,
    sampler_distance,
    total_density,
    total_mass,
)
from zoo.core import Batch, DataSpec

VARIANTS = {
    "shallow": {},
    "chunked": {"shuffled": True, "chunk": 2},
    "orderless": {"orderless": True, "orders": 1},
    "deep": {"orderless": True, "layers": 3, "orders": 4},
}


def nade(spec: DataSpec = TINY[0], seed: int = 0, **options) -> NADE:
    torch.manual_seed(seed)
    model = NADE(spec, **{"hidden": 12, **options})
    for p in model.parameters():
        p.data.normal_(0, 0.5)
    return model.double().eval()


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_probabilities_of_all_images_sum_to_one(spec, options):
    assert total_mass(nade(spec, **options).log_prob, spec) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("order", [None, "shuffled"])
def test_the_running_sum_is_the_hidden_layer_of_the_paper(order):
    model, x = nade(shuffled=order is not None), every_image(TINY[0])[::37]
    v, o = x.flatten(1), model.order.tolist()
    got = model.conditionals(x)[..., 0]
    for d, dim in enumerate(o):
        h = torch.sigmoid(model.c + v[:, o[:d]] @ model.W[o[:d]])
        torch.testing.assert_close(
            got[:, dim], h @ model.V[dim, 0] + model.b[dim, 0], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_conditionals_depend_on_every_earlier_dimension_and_no_other(options):
    models = [nade(**options) for _ in range(1)]
    for seed in (1, 2, 3):  # the same order, other weights
        models.append(nade(seed=seed, **options))
        models[-1].orders_of.copy_(models[0].orders_of)
    depends = dependence(models)
    assert not depends.triu().any() and coverage(depends) == 1
    assert not leaks(models[0], every_image(TINY[0])[77:79])


@pytest.mark.parametrize("orderless", [False, True])
def test_chunks_change_nothing(orderless):
    loop, parts = (nade(shuffled=True, orderless=orderless, chunk=chunk) for chunk in (1, 4))
    x = every_image(TINY[0])[::50]
    torch.testing.assert_close(loop.log_prob(x), parts.log_prob(x), rtol=0, atol=1e-12)


def test_the_orderless_loss_is_unbiased():
    model = nade(DataSpec((1, 2, 2), 2), orderless=True, orders=1, layers=2)
    x = every_image(model.spec)[[3, 9]]
    losses, exact = [], []
    for order in itertools.permutations(range(4)):
        rank = torch.tensor(order).argsort()
        losses += [model.orderless_loss(x, (rank < visible).expand(2, -1)) for visible in range(4)]
        params = model.conditionals_in(torch.tensor(order), x)
        exact.append(-model.log_conditionals(params, x.flatten(1)).sum(1))
    torch.testing.assert_close(
        torch.stack(losses).mean(0), torch.stack(exact).mean(0), rtol=0, atol=1e-10
    )


def test_each_example_has_its_own_mask_and_every_count_of_visible_dimensions_comes():
    model, seen = nade(orderless=True).train(), []
    model.orderless_loss = lambda x, visible: seen.append(visible) or visible.double().sum(1)
    model.loss(Batch({"x": torch.zeros(400, 1, 3, 3).double()}))
    counts = torch.bincount(seen[0].sum(1), minlength=10)
    assert counts[9] == 0 and (counts[:9] > 20).all()  # uniform on 0..D-1: 44 each, s.d. 6
    assert (seen[0].double().mean(0) - 4 / 9).abs().max() < 0.1


def test_the_ensemble_is_the_mean_of_probabilities_and_no_worse_than_its_orders_alone():
    model, x = nade(orderless=True, orders=5), every_image(TINY[0])[::9]
    each = torch.stack([model.log_prob_of(x, k) for k in range(5)])
    torch.testing.assert_close(model.log_prob(x).exp(), each.exp().mean(0))
    assert (-model.log_prob(x) <= model.evaluate(Batch({"x": x}))["nll_mean_order"] + 1e-12).all()


def test_it_learns_exclusive_or():
    x = torch.tensor([[a, b, a ^ b] for a in (0, 1) for b in (0, 1)] * 16).float()
    torch.manual_seed(0)
    model = NADE(DataSpec((3,), 2), hidden=16, init=0.5, lr=0.03)
    fit(model, Given(model.spec, x, batch_size=64), 300)
    assert (
        -model.log_prob(x).mean().item() < 1.5
    )  # 2 ln 2 = 1.386; without hidden units 3 ln 2 = 2.079


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_samples_have_the_probabilities_of_the_model(options):
    assert sampler_distance(nade(TINY[1], **options)) < 0.05


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        *(
            (spec, VARIANTS[v])
            for spec in (*TINY, DataSpec((3, 4, 4), 4))
            for v in ("shallow", "deep")
        ),
        (DataSpec((3,)), {}),
    ],
)
def test_cached_sampling_gives_the_values_of_naive_sampling(spec, options):
    model = nade(spec, **options)
    for seed in (0, 1):
        a, b = (
            model.sample(20, generator=torch.Generator().manual_seed(seed), cache=cache)
            for cache in (True, False)
        )
        torch.testing.assert_close(a, b, rtol=0 if spec.levels else 1e-9, atol=0)


def test_cached_sampling_is_linear_in_the_number_of_dimensions():
    def flops(side, cache):
        model = nade(DataSpec((1, side, side), 2))
        with FlopCounterMode(display=False) as counter:
            model.sample(4, cache=cache)
        return counter.get_total_flops()

    assert flops(8, True) / flops(4, True) == pytest.approx(4, rel=0.05)
    assert flops(8, False) / flops(4, False) > 14  # D full passes


def test_an_orderless_model_completes_any_set_exactly():
    model = nade(DataSpec((1, 2, 2), 3), orderless=True, orders=2)
    known = torch.tensor([[False, True], [True, False]])
    x = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]).double().expand(20_000, 1, 2, 2)
    again = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again[..., known], x[..., known])
    found = torch.bincount((3 * again[:, 0, 0, 0] + again[:, 0, 1, 1]).long(), minlength=9) / len(x)
    expected = torch.zeros(9).double()
    g = torch.Generator().manual_seed(0)
    torch.rand(4, 20_000, generator=g, dtype=torch.float64)
    order = torch.rand(4, generator=g).argsort()  # the model's own choice: 1 and 2 are known
    order = torch.cat(
        [
            order[torch.isin(order, torch.tensor([1, 2]))],
            order[torch.isin(order, torch.tensor([0, 3]))],
        ]
    )
    for image in every_image(model.spec):
        if image[0, 0, 1] == 2 and image[0, 1, 0] == 1:
            params = model.conditionals_in(order, image[None])
            log_p = model.log_conditionals(params, image.view(1, -1))[0, [0, 3]].sum()
            expected[int(3 * image[0, 0, 0] + image[0, 1, 1])] += log_p.exp().item()
    assert expected.sum() == pytest.approx(1)
    assert 0.5 * (found - expected).abs().sum() < 0.02


# -- RNADE ---------------------------------------------------------------------------------------
def rnade(dim: int, seed: int = 0) -> NADE:
    model = nade(DataSpec((dim,)), seed, components=3)
    model.b.data[:, 6:] = -0.5
    return model


@pytest.mark.parametrize("dim", [1, 2])
def test_the_density_of_real_vectors_integrates_to_one(dim):
    model = rnade(dim)
    assert model.likelihood_kind == "exact_density"
    assert total_density(model.log_prob, dim, 14.0, 701) == pytest.approx(1, abs=1e-3)


def test_the_first_conditional_is_a_mixture_of_gaussians():
    model = rnade(2)
    logits, mu, log_sigma = model.conditionals(torch.zeros(1, 2).double())[0, 0].detach().chunk(3)
    x = torch.linspace(-2, 2, 5).double()
    parts = zip(logits.softmax(0).numpy(), mu.numpy(), log_sigma.exp().numpy(), strict=True)
    expected = sum(p * stats.norm.pdf(x, m, s) for p, m, s in parts)
    params = torch.cat([logits, mu, log_sigma]).expand(5, -1)
    torch.testing.assert_close(model.log_conditionals(params, x).exp(), torch.as_tensor(expected))


def test_the_gradient_of_a_mean_is_multiplied_by_its_sigma():
    params = (
        torch.tensor([[0.3, -0.2, 0.5, -1.0, math.log(0.3), math.log(2.0)]])
        .double()
        .requires_grad_()
    )
    x = torch.tensor([0.2]).double()
    model = nade(DataSpec((1,)), components=2)
    (mine,) = torch.autograd.grad(model.log_conditionals(params, x).sum(), params)
    logits, mu, log_sigma = params.chunk(3, -1)
    mixture = (
        logits.log_softmax(-1)
        + torch.distributions.Normal(mu, log_sigma.exp()).log_prob(x[:, None])
    ).logsumexp(-1)
    (plain,) = torch.autograd.grad(mixture.sum(), params)
    expected = plain * torch.tensor([1, 1, 0.3, 2.0, 1, 1]).double()
    torch.testing.assert_close(mine, expected)


def test_samples_of_real_values_have_the_mixtures_distribution():
    model = rnade(1)
    x = model.sample(4000, generator=torch.Generator().manual_seed(0))[:, 0]

    def cdf(points):
        return [
            integrate.quad(
                lambda t: model.log_prob(torch.tensor([[t]]).double()).exp().item(),
                -14,
                p,
                limit=200,
            )[0]
            for p in points
        ]

    points = x.quantile(torch.linspace(0.1, 0.9, 5).double())
    empirical = [(x <= p).double().mean().item() for p in points]
    assert empirical == pytest.approx(cdf(points.tolist()), abs=0.03)  # 4 s.e.


def test_rows_do_not_talk():
    assert_rows_do_not_talk(nade(orderless=True).log_prob, every_image(TINY[0])[::50])


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (TINY[0], {"layers": 2}, r"layers=2 needs orderless"),
        (
            DataSpec((2,)),
            {"orderless": True},
            r"orderless=True is for data with levels, got .*; real",
        ),
        (DataSpec((1, 4, 4)), {}, r"nade models images with levels.*; choose"),
        (TINY[0], {"optimiser": "adamw"}, r"nade: optimiser is one of adam, sgd, got 'adamw'"),
    ],
)
def test_impossible_requests_are_refused(spec, options, message):
    with pytest.raises(ValueError, match=message):
        NADE(spec, **options)
