"""InfoGAN is InfoGAN: a bound on information that is never too large, learned in both turns by the
right networks, without labels.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.infogan import InfoGAN
from zoo.nn.prior import Draw
from zoo.nn.votes import Votes

SPEC = DataSpec((1, 8, 8), 17, 3)


def images(n: int = 12) -> Batch:
    x = torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).double()
    return Batch({"x": x, "y": torch.arange(n) % 3})


def make(**options) -> InfoGAN:
    torch.manual_seed(0)
    model = InfoGAN(SPEC, **{"noise": 4, "width": 4, "categories": 5, **options}).double()
    model.noise = Noise(3, "test", dtype=torch.float64)
    return model


def gradient(loss: torch.Tensor, net: torch.nn.Module) -> torch.Tensor:
    grads = torch.autograd.grad(loss, [*net.parameters()], allow_unused=True, retain_graph=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(grads, net.parameters(), strict=True)
        ]
    )


def codes_of(model: InfoGAN, n: int = 2000) -> torch.Tensor:
    return model.draw_codes(n, Noise(0, "codes", dtype=torch.float64))


def test_codes_are_noise_a_uniform_category_and_continuous_ones_in_minus_one_to_one():
    model = make()
    codes = codes_of(model, 20_000)
    category, continuous = model.parts(codes)
    assert codes.shape == (20_000, 4 + 5 + 2) == (20_000, model.latent)
    assert set(category.unique().tolist()) == {0, 1} and (category.sum(1) == 1).all()
    assert (category.mean(0) - 0.2).abs().max() < 0.02
    assert continuous.abs().max() <= 1 and continuous.var().item() == pytest.approx(1 / 3, rel=0.03)
    assert codes[:, :4].var().item() == pytest.approx(1, rel=0.03)


def test_information_of_the_category_is_at_most_its_entropy_and_zero_for_the_prior():
    model = make()
    codes, outputs = codes_of(model), 5 + 4
    for scale in (0.5, 3.0, 30.0):
        q = scale * torch.randn(2000, outputs, dtype=torch.float64)
        assert model.information(q, codes)[0].max() <= math.log(5) + 1e-12
    assert model.information(torch.zeros(2000, outputs), codes)[0].abs().max() < 1e-6
    right = torch.cat([1e3 * model.parts(codes)[0], torch.zeros(2000, 4)], 1)
    torch.testing.assert_close(
        model.information(right, codes)[0], torch.full((2000,), math.log(5)), check_dtype=False
    )


@pytest.mark.parametrize("fixed", [True, False])
def test_continuous_part_is_a_gaussian_log_density_above_the_uniforms(fixed):
    model = make(fixed_std=fixed)
    codes = codes_of(model, 50)
    mu, log_var = torch.randn(2, 50, 2, dtype=torch.float64)
    std = (
        torch.ones_like(mu) if fixed else (5 * (log_var / 10).tanh()).exp()
    )  # bounded softly by ±10
    q = torch.cat([torch.zeros(50, 5), mu, *([] if fixed else [log_var])], 1)
    expected = torch.distributions.Normal(mu, std).log_prob(model.parts(codes)[1]).sum(
        1
    ) - 2 * math.log(1 / 2)
    torch.testing.assert_close(model.information(q, codes)[1], expected)
    if fixed:
        assert (expected < 0).all()


def test_a_channel_that_keeps_the_category_gives_all_its_entropy_once_q_is_fitted():
    model, q = make(), torch.nn.Linear(5, 9).double()
    codes = codes_of(model, 500)
    x = model.parts(codes)[0][:, torch.randperm(5)]  # a one-to-one map of the category
    optimiser = torch.optim.Adam(q.parameters(), 0.1)
    for _ in range(300):
        optimiser.zero_grad()
        (-model.information(q(x), codes)[0].mean()).backward()
        optimiser.step()
    assert model.information(q(x), codes)[0].mean().item() == pytest.approx(math.log(5), abs=0.01)


def test_both_losses_subtract_the_weighted_information_of_the_same_generated_rows():
    for player, arguments in (("discriminator", images()), ("generator", Batch({}, 12))):
        losses = {
            lam: getattr(make(lam_cat=lam, lam_cont=2 * lam), f"{player}_loss")(arguments)["loss"]
            for lam in (0.0, 1.0)
        }
        model = make()
        codes = model.draw_codes(12, Noise(3, "test", dtype=torch.float64))
        category, continuous = (
            v.mean() for v in model.information(model.d(model.g(codes))[:, 1:], codes)
        )
        torch.testing.assert_close(losses[0.0] - losses[1.0], category + 2 * continuous)


def test_both_parts_of_the_information_teach_whose_turn_it_is():
    model = make()
    codes = model.draw_codes(12, Noise(3, "test", dtype=torch.float64))
    category, continuous = (
        v.mean() for v in model.information(model.d(model.g(codes))[:, 1:], codes)
    )
    for player, arguments, name in (
        ("discriminator", images(), "d.net.q"),
        ("discriminator", images(), "d.net.trunk"),
        ("generator", Batch({}, 12), "g"),
    ):
        game, whole = (
            gradient(getattr(m, f"{player}_loss")(arguments)["loss"], m.get_submodule(name))
            for m in (make(lam_cat=0.0, lam_cont=0.0), make(lam_cat=1.0, lam_cont=2.0))
        )
        parts = [gradient(part, model.get_submodule(name)) for part in (category, 2 * continuous)]
        torch.testing.assert_close(game - whole, sum(parts))
        assert all(part.any() for part in parts)


def test_without_information_the_losses_are_those_of_the_game():
    model, x = make(lam_cat=0.0, lam_cont=0.0), images()["x"]
    loss = model.discriminator_loss(images())["loss"]
    codes = model.draw_codes(12, Noise(3, "test", dtype=torch.float64))
    real, fake = (model.d(v)[:, 0] for v in (SPEC.to_signed(x), model.g(codes)))
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(
        loss, bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
    )


def test_q_and_the_trunk_learn_the_information_in_ds_turn_and_the_generator_in_its_own():
    model = make()
    codes = codes_of(model, 12)
    known = sum(v.mean() for v in model.information(model.d(model.g(codes))[:, 1:], codes))
    assert all(
        gradient(known, net).abs().max() > 0 for net in (model.d.net.q, model.d.net.trunk, model.g)
    )
    assert gradient(known, model.d.net.source).abs().max() == 0
    assert gradient(model.discriminator_loss(images())["loss"], model.g).abs().max() == 0
    assert set(map(id, model.d.net.q.parameters())) <= set(map(id, model.parameters_of("d")))
    without = make(lam_cat=0.0, lam_cont=0.0)
    assert gradient(without.discriminator_loss(images())["loss"], without.d.net.q).abs().max() == 0


def test_no_label_reaches_the_weights():
    weights = []
    for shift in (0, 1):
        torch.manual_seed(0)
        model, rows = InfoGAN(SPEC, noise=4, width=4), images(48)
        fit(model, Given(SPEC, rows["x"].float(), (rows["y"] + shift) % 3, batch_size=8), 4)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_q_shares_the_trunk_and_adds_less_than_a_twentieth_of_the_parameters():
    for model in (
        InfoGAN(DataSpec((1, 16, 16), 17, 10)),
        InfoGAN(DataSpec((1, 28, 28), 256, 10), arch="paper", noise=62),
    ):
        q, total = (sum(p.numel() for p in net.parameters()) for net in (model.d.net.q, model))
        assert q < 0.05 * total
        calls = []
        model.d.net.trunk.register_forward_hook(lambda *args, calls=calls: calls.append(1))
        model.d(torch.randn(2, *model.spec.shape))
        assert len(calls) == 1


def test_paper_networks_are_those_of_the_appendix():
    with torch.device("meta"):
        model = InfoGAN(DataSpec((1, 28, 28), 256, 10), arch="paper", noise=62, fixed_std=True)
    linear = [
        (m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear)
    ]
    assert linear == [
        (74, 1024),
        (1024, 7 * 7 * 128),
        (7 * 7 * 128, 1024),
        (1024, 1),
        (1024, 128),
        (128, 12),
    ]
    convs = [
        m.out_channels
        for m in model.modules()
        if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))
    ]
    assert convs == [64, 1, 64, 128] and model.g(torch.zeros(2, 74, device="meta")).shape == (
        2,
        1,
        28,
        28,
    )


def test_switching_changes_one_variable_and_spans_its_range():
    model = make()
    z = codes_of(model, 3)
    for variable in range(model.variables):
        codes = model.switched(z, variable)
        assert codes.shape == (3, 5, 11)
        changed = (codes != z[:, None]).any(0).any(0).nonzero().flatten().tolist()
        assert set(changed) <= (set(range(4, 9)) if variable == 0 else {9 + variable - 1})
    assert model.switched(z, 0)[0, :, 4:9].equal(torch.eye(5, dtype=z.dtype))
    assert model.switched(z, 2)[1, :, 10].tolist() == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize("prior", ["normal", "sphere", "uniform"])
def test_a_path_keeps_the_noise_typical_the_category_in_the_simplex_and_the_rest_straight(prior):
    model, n = make(noise=200, prior=prior).eval(), 7
    a, b = codes_of(model, 20).chunk(2)
    seen = []
    model.g.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    frames = model.interpolate(a, b, n)
    path = seen[0].unflatten(0, (10, n))
    torch.testing.assert_close(path[:, 0], a)
    torch.testing.assert_close(path[:, -1], b)
    assert frames.shape == (10, n, 1, 8, 8) and torch.equal(
        frames[:, 0], model.from_codes(path[:, 0])
    )
    t = torch.linspace(0, 1, n, dtype=a.dtype)[:, None]
    torch.testing.assert_close(path[..., 200:], (1 - t) * a[:, None, 200:] + t * b[:, None, 200:])
    torch.testing.assert_close(path[..., 200:205].sum(2), torch.ones(10, n, dtype=a.dtype))
    shrunk = path[:, n // 2, :200].norm(dim=1) / a[:, :200].norm(dim=1)
    assert (shrunk - (0.5**0.5 if prior == "uniform" else 1.0)).abs().max() < 0.15
    assert make(noise=0).eval().interpolate(a[:, 200:], b[:, 200:], n).shape == frames.shape


def test_encode_gives_probabilities_and_means():
    model = make().eval()
    found = model.encode(images()["x"])
    assert found.shape == (12, 7)
    torch.testing.assert_close(found[:, :5].sum(1), torch.ones(12, dtype=torch.float64))


def test_categories_are_named_by_the_training_rows_and_held_out_ones_have_no_say():
    model, rows = make().eval(), images(60)
    category = model.encode(rows["x"])[:, :5].argmax(1)
    model.votes.counts.zero_()
    model.votes.counts[:, 1] = 1  # every category is called 1
    assert model.evaluate(rows, torch.Generator().manual_seed(0))[
        "cluster_acc"
    ].mean().item() == pytest.approx(1 / 3)
    assert len(category.unique()) > 1


def test_votes_fade_and_their_mutual_information_is_that_of_the_table():
    votes = Votes(3, 2, memory=0.5)
    for y in ([0, 0, 1, 1], [0, 0, 1, 1]):
        votes.add(torch.tensor([0, 0, 1, 2]), torch.tensor(y), lambda v: v)
    assert votes.counts.tolist() == [
        [0.75, 0],
        [0, 0.375],
        [0, 0.375],
    ] and votes.names().tolist() == [0, 1, 1]
    labels, categories = math.log(2), -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert votes.nmi().item() == pytest.approx(labels / (0.5 * (labels + categories)), abs=1e-5)


def test_votes_fade_by_the_share_of_rows_that_vote():
    category, y, everyone = (
        torch.tensor([0, 1, 1, 2]),
        torch.tensor([0, 1, 1, 0]),
        torch.ones(4, dtype=torch.bool),
    )
    before = torch.rand(3, 2)

    def voted(among: torch.Tensor | None, reduce=lambda v: v) -> torch.Tensor:
        votes = Votes(3, 2)
        votes.counts.copy_(before)
        votes.add(category, y, reduce, among)
        return votes.counts

    table = torch.tensor([[0.25, 0], [0, 0.5], [0.25, 0]])
    assert torch.equal(voted(~everyone), before)  # where nobody votes, nobody is forgotten
    assert torch.equal(voted(None), 0.95 * before + table) and torch.equal(
        voted(everyone), 0.95 * before + table
    )
    torch.testing.assert_close(
        voted(torch.arange(4) == 3), 0.95**0.25 * before + torch.tensor([[0, 0], [0, 0], [0.25, 0]])
    )
    torch.testing.assert_close(
        voted(everyone, lambda v: v / 2), 0.95**0.5 * before + table / 2
    )  # the other process has no votes


def test_what_makes_no_sense_is_refused():
    message = "infogan takes 2 categories or more, got 1; set categories, e.g. to 10"
    for spec, categories in ((SPEC, 1), (DataSpec((1, 8, 8), 17, 1), 0)):
        with pytest.raises(ValueError, match=message):
            InfoGAN(spec, categories=categories)
        assert InfoGAN(spec, categories=10).categories == 10
    with pytest.raises(ValueError, match="replay"):
        InfoGAN(SPEC, loop=LoopOptions(replay=8))


def test_what_is_logged_is_the_information_in_nats_whatever_its_weights():
    model = make(lam_cat=0.3, lam_cont=0.7)
    terms = model.discriminator_loss(images())
    codes = model.draw_codes(12, Noise(3, "test", dtype=torch.float64))
    q = model.d.net(model.g(codes))[:, 1:]
    p = q[:, :5].softmax(1)
    of_category = p[codes[:, 4:9] == 1].log().mean() + math.log(5)
    std = (5 * (q[:, 7:] / 10).tanh()).exp()  # bounded softly
    density = torch.distributions.Normal(q[:, 5:7], std).log_prob(codes[:, 9:]).sum(1)
    of_continuous = density.mean() + 2 * math.log(2)
    torch.testing.assert_close(terms["mi_cat"], of_category)
    torch.testing.assert_close(terms["mi_cont"], of_continuous)
    values = model.eval().evaluate(images(), torch.Generator().manual_seed(0))
    source = Draw(torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = model.draw_codes(12, source)
    said = model.d.net(model.g(codes))[:, 1:6].softmax(1)
    expected = said[codes[:, 4:9] == 1].log() + math.log(5)
    torch.testing.assert_close(values["mi_cat"], expected)
    assert set(values) == {"mi_cat", "mi_cont", "cluster_acc"}
    assert not torch.allclose(values["mi_cat"], values["mi_cont"])


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_the_generators_loss_is_the_one_that_is_asked_less_the_information(g_loss):
    model = make(g_loss=g_loss, lam_cat=0.3, lam_cont=0.0)
    loss = model.generator_loss(Batch({}, 12))["loss"]
    codes = model.draw_codes(12, Noise(3, "test", dtype=torch.float64))
    out = model.d.net(model.g(codes))
    real = out[:, 0].sigmoid()
    game = -real.log().mean() if g_loss == "nonsat" else (1 - real).log().mean()
    known = out[:, 1:6].softmax(1)[codes[:, 4:9] == 1].log().mean() + math.log(5)
    torch.testing.assert_close(loss, game - 0.3 * known)


def test_r1_is_of_the_logit_of_the_source_alone():
    model = make(loop=LoopOptions(r1=3.0))
    r1 = model.discriminator_loss(images())["r1"]
    x = SPEC.to_signed(images()["x"]).requires_grad_()
    (slope,) = torch.autograd.grad(model.d.net(x)[:, 0].sum(), x)
    torch.testing.assert_close(r1, 1.5 * slope.square().sum((1, 2, 3)).mean())


def test_paper_networks_see_and_make_pixels_in_the_unit_interval():
    model, seen = InfoGAN(SPEC, arch="paper", width=4, noise=4), []
    model.d.net.trunk.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    rows = Batch({"x": images()["x"].float(), "y": images()["y"]})
    model.discriminator_loss(rows)
    assert torch.equal(seen[0], rows["x"] / 16)
    assert 0 <= seen[1].min() < seen[1].max() <= 1
    slopes = {m.negative_slope for m in model.d.modules() if isinstance(m, torch.nn.LeakyReLU)}
    assert slopes == {0.1}
