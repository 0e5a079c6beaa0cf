"""Bayesian GAN is Bayesian GAN: potentials of all data with the prior counted once, chains that
meet in D alone, and samples of the posterior that are kept.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tests.support import Given, fit
from zoo import check
from zoo.check.everyone import resume
from zoo.check.processes import ddp_differences
from zoo.core import Batch, DataSpec
from zoo.core.draw import draw
from zoo.core.noise import Noise
from zoo.gan.bayesian_gan import BayesianGAN, log_prior, realness

PLANE = DataSpec((2,))
CLASSES = DataSpec((2,), None, 3)
N = 40


def make(spec=PLANE, **options) -> BayesianGAN:
    torch.manual_seed(0)
    small = {"generators": 2, "chains": 2, "width": 6, "warm_up": 0}
    model = BayesianGAN(spec, **{**small, **options}).double()
    model.size.fill_(N)
    restart(model)
    return model


def restart(model) -> None:
    model.noise = Noise(1, "test", dtype=torch.float64)


def batch(n=8) -> Batch:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(n, 2, generator=g).double()
    return Batch({"x": x, "y": torch.arange(n) % 3, "index": torch.arange(n)})


def plane(n=N, spec=PLANE, **options) -> Given:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    y = torch.arange(n) % 3 if spec.num_classes else None
    return Given(spec, x, y, batch_size=8, **options)


def test_potential_of_d_is_of_all_data_and_of_the_mean_over_all_chains():
    model, rows = make(sigma=0.5), batch()
    z = model.draw_codes(8, model.noise)
    restart(model)
    loss = model.discriminator_loss(rows)["loss"]
    real = -model.d(rows["x"]).sigmoid().log().mean()
    fakes = [-(1 - model.d(g(z[:, c])).sigmoid()).log().mean() for c, g in enumerate(model.g)]
    normal = torch.distributions.Normal(0.0, 0.5)
    weights = parameters_to_vector(model.d.net.parameters())
    prior = (normal.log_prob(weights) - normal.log_prob(torch.zeros(()))).sum()
    assert len(fakes) == 4
    torch.testing.assert_close(loss, N * (real + sum(fakes) / 4) - prior)


def test_potential_of_g_is_the_sum_of_each_chains_own():
    model = make(sigma=0.5)
    z = model.draw_codes(8, model.noise)
    restart(model)
    loss = model.generator_loss(Batch({}, 8))["loss"]
    own = [
        -N * model.d(g(z[:, c])).sigmoid().log().mean()
        + parameters_to_vector(g.parameters()).square().sum() / (2 * 0.25)
        for c, g in enumerate(model.g)
    ]
    torch.testing.assert_close(loss, sum(own))
    for g, potential in zip(model.g, own, strict=True):  # a chain's gradient is its own potential's
        mine = [*g.parameters()]
        for a, b in zip(
            torch.autograd.grad(loss, mine, retain_graph=True),
            torch.autograd.grad(potential, mine, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_priors_gradient_is_counted_once_whatever_the_batch():
    model = make(sigma=0.3)
    model.size.fill_(0)  # no data: the prior alone
    for n in (4, 8):
        for loss, net in (
            (model.discriminator_loss(batch(n))["loss"], model.d.net),
            (model.generator_loss(Batch({}, n))["loss"], model.g),
        ):
            mine = [*net.parameters()]
            for p, g in zip(mine, torch.autograd.grad(loss, mine), strict=True):
                torch.testing.assert_close(g, p / 0.09)
    assert log_prior(model.d.net, 1.0) < 0


def test_minibatches_give_the_potential_of_all_data_in_expectation():
    model, rows = make(), batch()
    model.size.fill_(8)
    real = lambda b: model.d.price.real(model.d(b["x"])).mean() * 8  # noqa: E731
    parts = [real(rows.rows(slice(i, i + 2))) for i in range(0, 8, 2)]
    torch.testing.assert_close(sum(parts) / 4, model.d.price.real(model.d(rows["x"])).sum())


def test_d_step_leaves_g_alone_and_codes_are_each_chains_own():
    model = make()
    loss = model.discriminator_loss(batch())["loss"]
    found = torch.autograd.grad(loss, [*model.g.parameters()], allow_unused=True)
    assert all(g is None for g in found)
    z = model.draw_codes(50, model.noise)
    assert z.shape == (50, 4, 2) and len(z.flatten(0, 1).unique(dim=0)) == 200


def weights(model):
    return torch.stack([parameters_to_vector(g.parameters()) for g in model.g]).detach()


def test_chains_from_one_start_part_after_one_step():
    model = make().float()
    start = parameters_to_vector(model.g[0].parameters()).detach()
    for g in model.g:
        vector_to_parameters(start.clone(), g.parameters())
    fit(model, plane(), 1)
    moved = weights(model)
    assert all((a - b).abs().max() > 0 for i, a in enumerate(moved) for b in moved[:i])


def test_noise_and_rate_of_a_chain_are_those_of_the_options(monkeypatch):
    """With the gradient taken away one step moves each weight by N(0, 2 α (rate/N) T)."""
    model = make(width=100, alpha=0.4, temperature=0.5, rate=0.2)
    for player, optimiser in model.optimisers().items():
        before = parameters_to_vector(model.parameters_of(player)).detach().clone()
        for p in model.parameters_of(player):
            p.grad = torch.zeros_like(p)
        optimiser.step()
        moved = parameters_to_vector(model.parameters_of(player)).detach() - before
        assert moved.var().item() == pytest.approx(2 * 0.4 * 0.2 / N * 0.5, rel=0.06)


def test_players_have_noise_of_their_own_and_d_warms_up_k_times_as_long():
    model = make(warm_up=5, k=3, lr_d=0.1, lr_g=0.2, beta1=0.3)
    d, g = model.optimisers()["d"], model.optimisers()["g"]
    assert (d.warm_up, g.warm_up) == (15, 5) and d.betas == (0.3, 0.999)
    assert (d.param_groups[0]["lr"], g.param_groups[0]["lr"]) == (0.1, 0.2)
    drawn = [torch.rand(3, generator=o.source(s)).tolist() for o in (d, g) for s in (0, 1)]
    assert len({tuple(v) for v in drawn}) == 4


def test_samples_of_the_posterior_are_kept_after_the_warm_up_and_the_oldest_goes():
    model, seen = make(warm_up=2, collect_every=3, keep=2).float(), {}
    before = model.before_cycle

    def noted(step):
        seen[step] = weights(model), parameters_to_vector(model.d.net.parameters()).detach()
        before(step)

    model.before_cycle = noted
    fit(model, plane(), 12)
    assert model.kept == 3  # before cycles 5, 8 and 11
    for slot, step in ((0, 11), (1, 8)):
        assert torch.equal(model.past_g[slot], seen[step][0])
        assert torch.equal(model.past_d[slot], seen[step][1])


def test_each_sample_is_of_a_kept_chain_all_alike_likely():
    model = make(keep=3)
    model.past_g.copy_(torch.randn_like(model.past_g))
    for kept, slots in ((0, [-1]), (2, [0, 1]), (7, [0, 1, 2])):
        model.kept.fill_(kept)
        wanted = []
        for slot in slots:
            for c, g in enumerate(model.g):
                other = make().g[c]
                chosen = parameters_to_vector(g.parameters()) if slot < 0 else model.past_g[slot, c]
                vector_to_parameters(chosen, other.parameters())
                wanted.append(other)
        torch.manual_seed(5)
        made = model.sample(2000)
        torch.manual_seed(5)
        z = torch.randn(2000, 2, dtype=torch.float64)
        with torch.no_grad():
            every = torch.stack([g(z) for g in wanted])
        apart = (every - made).abs().amax(2)
        which = apart.argmin(0)
        assert apart.amin(0).max() < 1e-12
        share = which.bincount(minlength=len(wanted)) / 2000
        assert (share - 1 / len(wanted)).abs().max() < 0.05
    assert draw(model.float(), 5).shape == (5, 2)


def test_spread_of_the_chains_is_their_mean_distance_at_one_code():
    model, rows = make(), batch()
    found = model.evaluate(rows)["chain_div"]
    for g in model.g[1:]:
        g.load_state_dict(model.g[0].state_dict())
    assert model.evaluate(rows)["chain_div"].abs().max() < 1e-6
    with torch.no_grad():
        model.g[1].net[-2].bias += torch.tensor([3.0, 4.0]).double()  # one of four is 5 away
    torch.testing.assert_close(
        model.evaluate(rows)["chain_div"], torch.full((8,), 5 * 6 / 12).double()
    )
    assert (found > 0).all()


def test_logit_of_being_real_is_of_all_classes_against_made():
    out = torch.randn(5, 4).double()
    p = 1 - out.softmax(1)[:, 0]
    torch.testing.assert_close(realness(out).sigmoid(), p)
    assert torch.equal(realness(out[:, 0]), out[:, 0])


def test_labels_count_as_class_y_of_k_plus_one_in_ds_potential():
    model, rows = make(CLASSES, mode="semi", labels=3), batch(9)
    model.initialise_from(rows)
    model.size.fill_(N)
    terms = model.discriminator_loss(rows)
    p = model.d(rows["x"]).softmax(1)
    ce = -p[torch.arange(3), rows["y"][:3] + 1].log().sum() / 9 * N / 3
    torch.testing.assert_close(terms["ce"], ce)
    other = Batch({**rows, "y": rows["y"].clone()}, 9)
    other["y"][:3] = other["y"][:3].roll(1)
    restart(model)
    again = model.discriminator_loss(rows)
    restart(model)
    moved = model.discriminator_loss(other)
    gap = again["loss"] - moved["loss"]
    torch.testing.assert_close(gap, N * (again["ce"] - moved["ce"]))
    assert [p.reads for p in model.phases()] == [("x", "y"), ()]


def test_classes_are_averaged_over_the_kept_samples_of_d():
    model, rows = make(CLASSES, mode="semi", keep=3), batch()
    torch.testing.assert_close(model.classify(rows["x"]), model.d(rows["x"])[:, 1:].softmax(1))
    model.past_d.copy_(torch.randn_like(model.past_d))
    model.kept.fill_(2)
    said = []
    for slot in range(2):
        other = make(CLASSES, mode="semi").d.net
        vector_to_parameters(model.past_d[slot], other.parameters())
        out = other(rows["x"])
        said.append(out[:, 1:].exp() / out[:, 1:].exp().sum(1, keepdim=True))
    torch.testing.assert_close(model.classify(rows["x"]), sum(said) / 2)
    right = model.evaluate(rows)["acc"]
    assert right.tolist() == (model.classify(rows["x"]).argmax(1) == rows["y"]).double().tolist()
    with pytest.raises(ValueError, match="classifies in mode semi alone"):
        make().classify(rows["x"])
    with pytest.raises(ValueError, match="mode semi needs labels"):
        make(mode="semi")


def test_images_and_classes_train():
    spec = DataSpec((1, 8, 8), 17, 3)
    rows = spec.example(24)
    model = BayesianGAN(spec, 2, 1, width=4, mode="semi", warm_up=1, collect_every=1, labels=6)
    fit(model, Given(spec, rows["x"], rows["y"], batch_size=8), 4)
    assert all(v.isfinite() for v in model.terms.values()) and model.kept == 2
    assert spec["x"].faults(draw(model, 3)) == ""
    assert torch.allclose(F.relu(model.classify(rows["x"])).sum(1), torch.ones(24))


def test_a_chain_resumes_to_the_last_bit():
    subject = check.Subject.of("bayesian_gan", "--model.warm_up=2", "--model.collect_every=2")
    assert subject.model_params["warm_up"] == 2
    resume(subject)


@pytest.mark.ddp
def test_chains_are_the_same_on_two_processes():
    case = "bayesian_gan --model.warm_up=1 --model.collect_every=1 --model.k=2"
    found = ddp_differences((case,), steps=5)[case]
    assert not isinstance(found, str), found
    assert found[0] < 1e-12
