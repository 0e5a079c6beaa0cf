"""AdaGAN is AdaGAN: the optimal weights, a mixture of frozen generators, rows drawn by their
weights, stages that resume.
"""

import math
import runpy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from zoo.check import Given, fit
from zoo.check.processes import launch
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.adagan import AdaGAN, mixture_weights, theory_dagger, theory_star, topk

PLANE = DataSpec((2,))


def data(batch_size: int = 8, n: int = 96) -> Given:
    return Given(
        PLANE, torch.randn(n, 2, generator=torch.Generator().manual_seed(0)), batch_size=batch_size
    )


def small(seed: int = 0, **options) -> AdaGAN:
    torch.manual_seed(seed)
    return AdaGAN(PLANE, **{"width": 8, "stages": 3, "stage_steps": 3, "mix_steps": 5, **options})


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    m = (p + q) / 2
    return (torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m)).sum() / 2


def least_divergence(p: torch.Tensor, g: torch.Tensor, beta: float) -> float:
    """The smallest JSD((1 - β) g + β q, p) over distributions q, by descent from several starts."""
    best = math.inf
    for seed in range(4):
        logits = torch.randn(
            len(p), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        ).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [logits],
            max_iter=2000,
            tolerance_grad=1e-12,
            tolerance_change=1e-15,
            line_search_fn="strong_wolfe",
        )

        def closure(logits=logits, optimiser=optimiser):
            optimiser.zero_grad()
            value = jensen_shannon((1 - beta) * g + beta * logits.softmax(0), p)
            value.backward()
            return value

        optimiser.step(closure)
        best = min(best, closure().item())
    return best


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.8])
def test_star_weights_are_a_distribution_and_minimise_the_divergence_of_the_new_mixture(beta):
    rows = torch.tensor([1, 2, 4, 5, 6, 7, 8, 3])  # how many of the 36 examples are of each kind
    p = rows.double() / rows.sum()
    g = torch.tensor([8, 7, 1, 0, 2, 6, 3, 9], dtype=torch.float64) / 36
    kind = torch.arange(8).repeat_interleave(rows)
    w = theory_star((g / p)[kind], beta)
    q = torch.zeros(8, dtype=torch.float64).index_add_(0, kind, w)
    assert q.sum().item() == pytest.approx(1, abs=1e-12) and q.min() >= 0
    reached = jensen_shannon((1 - beta) * g + beta * q, p).item()
    best = least_divergence(p, g, beta)
    assert (
        reached == pytest.approx(best, abs=1e-5)
        and reached < jensen_shannon((1 - beta) * g + beta * p, p).item() - 1e-3
    )
    lam = ((beta * q + (1 - beta) * g) / p)[
        q > 1e-12
    ]  # on the support the new mixture is λ times the data
    torch.testing.assert_close(lam, lam[0].expand_as(lam))
    assert ((1 - beta) * g / p)[q <= 1e-12].gt(lam[0] - 1e-9).all()


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.8])
def test_dagger_weights_solve_their_equation(beta):
    h = (
        torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64).mul(4).exp()
        / 10
    )
    w = theory_dagger(h, beta)
    assert w.sum().item() == pytest.approx(1, abs=1e-12) and w.min() >= 0
    used = w > 0
    lam = (1 - 50 * beta * w[used]) / ((1 - beta) * h[used])
    torch.testing.assert_close(lam, lam[0].expand_as(lam))
    assert (lam[0] * (1 - beta) * h[~used] >= 1 - 1e-9).all()


@pytest.mark.parametrize("rule", [theory_star, theory_dagger])
def test_what_is_covered_gets_nothing_and_what_is_missed_the_most(rule):
    h = torch.tensor([0.0, 1.0, 50.0, 0.5, 0.0], dtype=torch.float64)
    w = rule(h, 0.25)
    assert w[2] == 0 and (w[[0, 4]] == w.max()).all() and w[3] >= w[1] and w[0] > w[1]
    torch.testing.assert_close(
        rule(torch.ones(7, dtype=torch.float64), 0.25), torch.full((7,), 1 / 7, dtype=torch.float64)
    )


def test_where_more_than_the_new_share_is_missed_altogether_it_shares_the_weight():
    h = torch.tensor([0.0, 0.0, 3.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(
        theory_dagger(h, 0.25), torch.tensor([1, 1, 0, 1, 0], dtype=torch.float64) / 3
    )
    missed = torch.arange(100).lt(60).double()
    torch.testing.assert_close(theory_dagger(1 - missed, 0.25), missed / 60)


def test_topk_is_uniform_on_the_smallest_ratios():
    assert topk(torch.tensor([3.0, 0.1, 2.0, 0.2]), 0.5).tolist() == [0, 0.5, 0, 0.5]
    assert topk(torch.tensor([3.0, 0.1, 2.0, 0.2]), 0.01).tolist() == [0, 1, 0, 0]


def test_mixture_weights_are_uniform_for_one_over_t_and_geometric_for_a_constant():
    for stages in (1, 2, 5):
        assert mixture_weights([1 / t for t in range(1, stages + 1)]) == pytest.approx(
            [1 / stages] * stages
        )
    assert mixture_weights([1, 0.25, 0.25]) == pytest.approx([0.75**2, 0.25 * 0.75, 0.25])
    assert [small(beta="constant", beta_constant=0.3).beta_of(t) for t in (1, 2, 3)] == [
        1,
        0.3,
        0.3,
    ]


def test_each_sample_is_of_one_generator_and_each_generator_has_its_share():
    model = small(beta="constant", beta_constant=0.3).eval()
    model.stage.fill_(3)
    for i, net in enumerate((*(past.g for past in model.past), model.g)):
        for p in net.parameters():
            p.data.zero_()
        net.net[-2].bias.data.fill_(float(i))
    x = model.sample(40_000, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.7**2, 0.3 * 0.7, 0.3])
    found = torch.stack([(x == i).all(1).double().mean() for i in range(3)])
    assert found.sum() == 1
    assert ((found - shares).abs() < 4 * (shares * (1 - shares) / 40_000).sqrt()).all()
    assert set(model.draw_from(500, 2, torch.Generator().manual_seed(0)).unique().tolist()) == {
        0.0,
        1.0,
    }


def test_earlier_generators_never_move_and_new_ones_share_nothing_with_them():
    model, begun = small(), []
    inner = model.begin_stage
    model.begin_stage = lambda: (
        inner(),
        begun.append([p.detach().clone() for p in model.g.parameters()]),
    )
    fit(model, data(), 8)
    after = [[p.clone() for p in net.g.parameters()] for net in model.past]
    first = [p.clone() for p in small().g.parameters()]
    assert len(begun) == 2
    for a, b in ((first, begun[0]), (begun[0], begun[1]), (after[0], begun[0])):
        assert all(not torch.equal(u, v) for u, v in zip(a, b, strict=True) if u.ndim > 1)
    model = small()
    fit(model, data(), 7)
    assert all(
        torch.equal(u, v)
        for net, old in zip(model.past, after, strict=True)
        for u, v in zip(net.g.parameters(), old, strict=True)
    )


def test_rows_of_a_discriminators_minibatch_come_with_their_weights():
    model, n = small(stage_steps=2), 96
    fit(model, data(n=n), 3)
    model.w = F.normalize(torch.rand(n, dtype=torch.float64), p=1, dim=0)
    model.w[:10] = 0
    model.w /= model.w.sum()
    model.noise = Noise(5, "test")
    drawn = model.drawn(Batch({"x": torch.zeros(100_000, 2)}))
    shares = torch.bincount(drawn["index"], minlength=n).double() / 100_000
    assert (shares[:10] == 0).all()
    assert ((shares - model.w).abs() <= 4 * (model.w / 100_000).sqrt()).all()
    assert torch.equal(drawn["x"], data(n=n).examples()["x"][drawn["index"]])


def test_the_discriminator_is_shown_the_rows_that_are_drawn():
    model, seen = small(stage_steps=2), []
    fit(model, data(), 3)
    model.w = torch.zeros_like(model.w)
    model.w[7] = 1
    model.d.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.discriminator_loss(Batch({"x": torch.zeros(5, 2)}))
    assert torch.equal(seen[0][:5], data().examples()["x"][7].expand(5, 2))


def test_the_first_stage_takes_its_minibatches_from_the_loader():
    model, x = small(), torch.randn(4, 2)
    assert model.drawn(Batch({"x": x}))["x"] is x


@pytest.mark.parametrize("loop", [{}, {"spectral_norm": True}], ids=["plain", "spectral"])
def test_the_ratio_is_the_mixtures_density_over_the_datas(loop):
    model = small(width=64, mix_steps=600, lr_mix=3e-3, loop=loop).eval()
    torch.nn.init.zeros_(model.g.net[-2].weight)
    torch.nn.init.zeros_(model.g.net[-2].bias)
    offset = torch.tensor([1.0, 0.0])
    model.g.forward = lambda z: z + offset  # samples of N((1, 0), I), data of N(0, I)
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(3))
    h = model.ratio(x, 1)
    truth = x[:, 0] - 0.5  # its logarithm
    near = x.norm(dim=1) < 1.5
    assert (h.log() - truth)[near].abs().mean() < 0.15
    assert torch.corrcoef(torch.stack([h.log()[near], truth[near].double()]))[0, 1] > 0.98


@pytest.mark.parametrize("rule", ["theory_star", "theory_dagger", "topk"])
def test_a_stage_begins_with_the_weights_of_the_rule_and_the_share_that_are_asked_for(rule):
    model, h = small(rule=rule, top=0.25, beta="constant", beta_constant=0.3), []
    inner = model.ratio
    model.ratio = lambda x, stages: h.append(inner(x, stages)) or h[-1]
    fit(model, data(), 4)
    (h,) = h
    order = h.argsort()
    if rule == "topk":
        expected = torch.zeros(96, dtype=torch.float64)
        expected[order[:24]] = 1 / 24
    else:
        low, high = 0.0, 1e6  # λ by bisection
        for _ in range(200):
            lam = (low + high) / 2
            w = lam - 0.7 * h if rule == "theory_star" else 1 - lam * 0.7 * h
            expected = w.clamp(min=0) / (96 * 0.3)
            above = (expected.sum() > 1) == (rule == "theory_star")
            low, high = (low, lam) if above else (lam, high)
    torch.testing.assert_close(model.w, expected, atol=1e-6, rtol=1e-6)


def test_effective_share_and_unused_are_shares_of_the_examples():
    model, terms = small(), {}
    model.w = torch.tensor([0.5, 0.25, 0.25, 0, 0, 0, 0, 0], dtype=torch.float64)
    model.after_cycle(terms)
    assert terms["ess"].item() == pytest.approx(1 / (8 * (0.25 + 2 / 16)))
    assert terms["unused"].item() == 5 / 8
    model.w = torch.full((8,), 1 / 8, dtype=torch.float64)
    model.after_cycle(terms)
    assert terms["ess"].item() == pytest.approx(1) and terms["unused"] == 0


def test_the_classifier_tells_data_from_the_whole_mixture_at_its_own_rate(monkeypatch):
    model, asked, rates = small(lr_mix=0.007, lr_d=0.2), [], []
    model.stage.fill_(3)
    inner, adam = model.draw_from, torch.optim.Adam
    model.draw_from = lambda n, stages, g=None: asked.append(stages) or inner(n, stages, g)
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr: rates.append(lr) or adam(p, lr))
    model.ratio(torch.randn(20, 2), 2)
    assert asked == [2] * 5 and rates == [0.007]


def test_a_stage_begins_with_new_networks_for_both_players():
    model, pairs = small(), []
    inner = model.begin_stage

    def begin():
        before = [p.detach().clone() for part in (model.g, model.d.net) for p in part.parameters()]
        inner()
        after = [p.detach().clone() for part in (model.g, model.d.net) for p in part.parameters()]
        pairs.append((before, after))

    model.begin_stage = begin
    fit(model, data(), 7)
    assert len(pairs) == 2
    for before, after in pairs:
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_the_generators_loss_is_the_one_that_is_asked_for(g_loss):
    model = small(g_loss=g_loss)
    model.noise = Noise(3, "test")
    loss = model.generator_loss(Batch({}, 9))["loss"]
    p = model.d.net(model.g(Noise(3, "test").normal(9, 2))).sigmoid()
    expected = -p.log().mean() if g_loss == "nonsat" else (1 - p).log().mean()
    torch.testing.assert_close(loss, expected)


def test_which_generator_makes_a_sample_does_not_hang_on_its_code():
    model = small(latent=1).eval()
    model.stage.fill_(2)
    codes = {1: [], 2: []}
    for stage in (1, 2):
        net = model.of_stage(stage)
        net.register_forward_pre_hook(lambda _, args, stage=stage: codes[stage].append(args[0]))
    model.sample(4000, generator=torch.Generator().manual_seed(0))
    for drawn in codes.values():
        assert drawn[0].mean().abs() < 0.1 and drawn[0].std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "options",
    [{}, {"rule": "theory_dagger"}, {"rule": "topk", "beta": "constant"}],
    ids=["star", "dagger", "topk"],
)
def test_it_resumes_bit_for_bit_in_the_middle_of_the_second_stage(options, tmp_path):
    straight, first, rest = small(**options), small(**options), small(seed=1, **options)
    fit(straight, data(), 8)
    fit(first, data(), 4).save_checkpoint(tmp_path / "at4.ckpt")
    fit(rest, data(), 8, ckpt_path=tmp_path / "at4.ckpt")
    assert rest.w.shape == (96,) and not torch.equal(rest.w, torch.full_like(rest.w, 1 / 96))
    assert all(torch.equal(v, rest.state_dict()[n]) for n, v in straight.state_dict().items())


def test_a_checkpoint_of_other_data_loads_with_its_own_number_of_weights():
    model, other = small(), small(seed=1)
    fit(model, data(n=60), 5)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.w, model.w) and len(other.w) == 60


def test_r1_is_taken_at_the_rows_that_are_drawn():
    model, seen = small(stage_steps=2, loop={"r1": 1.0}), []
    inner = model.drawn
    model.drawn = lambda batch: seen.append(inner(batch)) or seen[-1]
    at = []
    penalise = model.d.regularised
    model.d.regularised = lambda terms, x: at.append(x) or penalise(terms, x)
    fit(model, data(), 3)
    assert len(at) == len(seen) == 3
    assert all(torch.equal(x, rows["x"]) for x, rows in zip(at, seen, strict=True))


@pytest.mark.slow
def test_boosting_finds_modes_that_the_first_generator_missed():
    from zoo.core.draw import undisturbed
    from zoo.data.toy2d import Toy2D
    from zoo.metrics.modes import mode_coverage

    ring = Toy2D()
    torch.manual_seed(1)
    model = AdaGAN(
        ring.spec, latent=1, stages=4, stage_steps=700
    )  # a curve cannot keep eight modes apart
    fit(model, ring, 2800)
    with undisturbed(model):
        found = [
            mode_coverage(
                model.draw_from(2500, t, torch.Generator().manual_seed(0)), ring.centres, 0.05
            )["modes"]
            for t in (1, 4)
        ]
    assert found[1] >= 5 and found[1] > found[0]


@pytest.mark.ddp
def test_two_processes_train_all_stages_as_one_does(tmp_path):
    launch(runpy.run_path, 2, __file__, {"folder": str(tmp_path)}, "__member__")
    two, one = torch.load(tmp_path / "two.pt", weights_only=True), small().double()
    fit(one, data(8), 8, precision="64-true")
    assert int(two["stage"]) == 3 and two["w"].min() < two["w"].max()
    assert all((value - two[name]).abs().max() < 1e-11 for name, value in one.state_dict().items())


def test_data_whose_rows_cannot_be_asked_for_are_refused_before_training():
    loader = torch.utils.data.DataLoader(
        [{"x": torch.zeros(2), "index": i} for i in range(8)], batch_size=8
    )
    model = small()
    with pytest.raises(ValueError, match="adagan reads training examples by their weights"):
        fit(model, loader, 1)
    assert model.terms == {}


def test_options_without_a_meaning_are_refused():
    for bad in (
        {"rule": "best"},
        {"beta": "linear"},
        {"beta_constant": 1.0},
        {"top": 0.0},
        {"mix_steps": 0},
        {"stage_steps": 0},
    ):
        with pytest.raises(ValueError, match="got"):
            AdaGAN(PLANE, **bad)


if __name__ == "__member__":
    pair = small().double()
    if fit(
        pair, data(4), 8, precision="64-true", devices=2, strategy="ddp_find_unused_parameters_true"
    ).is_global_zero:
        torch.save(pair.state_dict(), Path(folder) / "two.pt")  # noqa: F821  given by the launcher
