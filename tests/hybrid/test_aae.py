"""AAE is AAE: three turns, two roles of one encoder, priors of any shape, labels where a mode takes
them.
"""

import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.hybrid.aae import AAE, COMPONENTS, draw_labels, draw_of, mmd
from zoo.nn.prior import Draw

SPEC = DataSpec((1, 4, 4), 17, 10)
SERVED = [
    {"label_smooth": 0.8},
    {"label_flip": 0.4},
    {"instance_noise": 0.5},
    {"spectral_norm": True},
    {"r1": 5.0},
    {"replay": 8},
]
MODES = [
    {},
    {"mode": "label_reg", "prior": "mixture", "latent": 2},
    {"mode": "sup"},
    {"mode": "semi", "labels": 9},
    {"mode": "cluster"},
]


def batch(n: int = 12) -> Batch:
    g = torch.Generator().manual_seed(1)
    y = torch.randint(0, 10, (n,), generator=g)
    x = torch.randint(0, 17, (n, 1, 4, 4), generator=g).float()
    return Batch({"x": x, "y": y, "index": torch.arange(n)})


@pytest.fixture(params=MODES, ids=lambda p: p.get("mode", "unsup"))
def model(request) -> AAE:
    torch.manual_seed(0)
    return AAE(SPEC, width=16, **{"latent": 4, **request.param})


def source(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def test_each_phase_moves_its_own_networks_only(model):
    nets = {"enc": model.encoder, "dec": model.decoder, "d": nn.ModuleList(model.players()["d"])}

    def weights():
        return {
            n: torch.cat([p.detach().flatten().clone() for p in net.parameters()])
            for n, net in nets.items()
        }

    moved, last = [], [weights()]

    def watch(player):
        last.append(weights())
        moved.append((player, {n for n in nets if not torch.equal(last[-1][n], last[-2][n])}))

    model.after_step = watch
    rows = batch(64)
    fit(model, Given(SPEC, rows["x"], rows["y"]), 2)
    turns = [
        ("ae", {"enc", "dec"}),
        ("d", {"d"}),
        ("g", {"enc"}),
        *([("c", {"enc"})] if model.mode == "semi" else []),
    ]
    assert moved == turns * 2


def test_the_encoder_has_an_optimisers_state_for_each_role(model):
    rows = batch(64)
    trainer = fit(model, Given(SPEC, rows["x"], rows["y"]), 3)
    weight = model.encoder[0].weight
    states = [o.state[weight]["exp_avg_sq"] for o in trainer.optimizers if weight in o.state]
    assert len(states) == (3 if model.mode == "semi" else 2)
    assert all(not torch.equal(a, b) for a, b in zip(states[:-1], states[1:], strict=True))


def test_codes_carry_no_gradient_into_the_discriminators_phase(model):
    model.noise = Noise(0, "test")
    model.discriminator_loss(batch())["loss"].backward()
    assert all(p.grad is None for net in (model.encoder, model.decoder) for p in net.parameters())
    assert all(p.grad.abs().max() > 0 for p in model.parameters_of("d"))


def test_losses_at_an_indifferent_discriminator_are_those_of_a_coin():
    model = AAE(SPEC, width=8)
    for p in model.d.net.parameters():
        nn.init.zeros_(p)
    assert model.discriminator_loss(batch())["loss"].item() == pytest.approx(2 * math.log(2))
    assert model.generator_loss(batch())["loss"].item() == pytest.approx(math.log(2))
    # sure of a generated code: -log D has slope -1, log(1 - D) would have none
    nn.init.constant_(model.d.net.net[-1].bias, -20.0)
    assert model.generator_loss(batch())["loss"].item() == pytest.approx(20.0, rel=1e-4)


def test_the_mixture_has_ten_elongated_components_where_they_should_be():
    k = torch.arange(COMPONENTS).repeat_interleave(4000)
    z = draw_of("mixture", len(k), 2, source(), k).view(COMPONENTS, 4000, 2)
    for i in range(COMPONENTS):
        out = torch.tensor([math.cos(2 * math.pi * i / 10), math.sin(2 * math.pi * i / 10)])
        across = torch.stack([-out[1], out[0]])
        torch.testing.assert_close(z[i].mean(0), 2 * out, atol=0.04, rtol=0)
        assert (z[i] @ out).std().item() == pytest.approx(0.5, rel=0.05) and (
            z[i] @ across
        ).std().item() == pytest.approx(0.1, rel=0.05)
    free = draw_of("mixture", 40000, 2, source(1))
    nearest = torch.cdist(free, z.mean(1)).argmin(1).bincount(minlength=10) / 40000
    assert (nearest - 0.1).abs().max() < 0.01


def test_the_swiss_roll_spirals_and_its_components_follow_one_another():
    z = draw_of("swiss_roll", 10000, 2, source(), torch.arange(10).repeat_interleave(1000))
    radius = 5 * z.norm(dim=1)
    low, high = radius.view(10, 1000).aminmax(dim=1)
    edges = 1.5 * math.pi * (1 + 2 * torch.arange(11) / 10)
    torch.testing.assert_close(
        torch.stack([low, high]), torch.stack([edges[:-1], edges[1:]]), atol=0.02, rtol=0
    )
    torch.testing.assert_close(
        z, torch.stack([radius.cos(), radius.sin()], 1) * radius[:, None] / 5, atol=1e-3, rtol=0
    )


def test_label_reg_gives_a_label_its_own_component_and_the_unlabelled_the_whole_prior():
    model = AAE(SPEC, mode="label_reg", prior="mixture", latent=2, labels=500, width=8)
    x, y = torch.zeros(1000, 1, 4, 4), torch.full((1000,), 3)
    rows = Batch({"x": x, "y": y, "index": torch.arange(1000)})
    seen = []
    model.d.forward = lambda z, tag: seen.append((z, tag)) or z.sum(1) * 0
    model.discriminator_loss(rows)
    real, tag = seen[0]
    centres = torch.stack(
        [2 * torch.tensor([math.cos(a), math.sin(a)]) for a in torch.arange(10) * 2 * math.pi / 10]
    )
    component = torch.cdist(real, centres).argmin(1)
    assert (component[:500] == 3).float().mean() > 0.98 and component[
        500:
    ].unique().tolist() == list(range(10))
    assert (
        (tag.argmax(1)[:500] == 3).all()
        and (tag.argmax(1)[500:] == 10).all()
        and (tag.sum(1) == 1).all()
    )
    drawn = model.prior_codes(500, source(), torch.full((500,), 7))
    assert (torch.cdist(drawn, centres).argmin(1) == 7).float().mean() > 0.98


@pytest.mark.slow
def test_a_linear_encoder_learns_to_whiten_a_gaussian():
    torch.manual_seed(0)
    spec = DataSpec((2,))
    x = torch.randn(4096, 2) @ torch.tensor([[1.2, 0.6], [0.0, 0.8]]) + torch.tensor([1.0, -1.0])
    model = AAE(spec, latent=2, width=64, decay_every=1000)
    model.encoder = nn.Linear(2, 2)
    model.rates |= {"d": 2e-2, "g": 1e-2}
    model.phases = lambda: AAE.phases(model)[1:]  # reconstruction off
    fit(model, Given(spec, x, batch_size=64), 1500)
    z = model.encode(x).detach()
    assert z.mean(0).abs().max() < 0.15, z.mean(0)
    assert (z.T.cov() - torch.eye(2)).abs().max() < 0.25, z.T.cov()


def test_semi_the_decoder_sees_probabilities_and_the_second_discriminator_one_hot_draws():
    model = AAE(SPEC, mode="semi", latent=3, width=8)
    seen = {}
    model.decoder.register_forward_hook(lambda net, args, out: seen.update(dec=args[0]))
    judged = []
    model.d_label.register_forward_hook(lambda net, args, out: judged.append(args[0]))
    rows = batch()
    model.autoencoder_loss(rows)
    z, logits = model.coded(rows["x"], None)
    torch.testing.assert_close(
        seen["dec"], torch.cat([z, logits.exp() / logits.exp().sum(1, keepdim=True)], 1)
    )
    torch.testing.assert_close(model.probabilities(rows["x"]).sum(1), torch.ones(12))
    model.discriminator_loss(rows)
    assert set(judged[0].unique().tolist()) == {0.0, 1.0} and (judged[0].sum(1) == 1).all()
    torch.testing.assert_close(judged[1], logits.softmax(1))


def test_only_labelled_rows_reach_the_label_loss_and_stand_for_all():
    model, rows = AAE(SPEC, mode="semi", labels=4, width=8), batch()
    model.initialise_from(rows)
    logits = model.coded(rows["x"], None)[1]
    expected = -logits.log_softmax(1)[torch.arange(4), rows["y"][:4]].mean()
    torch.testing.assert_close(model.label_loss(rows)["loss"], expected)
    other = Batch(rows | {"y": torch.where(rows["index"] < 4, rows["y"], 0)})
    assert model.label_loss(other)["loss"] == model.label_loss(rows)["loss"]


def test_q_is_deterministic_gaussian_or_a_function_of_noise():
    x = batch()["x"]
    for q, noisy in (("point", False), ("gaussian", True), ("noise", True)):
        model = AAE(SPEC, latent=4, width=8, q=q)
        a, b = (model.coded(x, source(seed))[0] for seed in (0, 1))
        assert torch.equal(a, b) != noisy and a.shape == (12, 4)
        assert torch.equal(model.encode(x), model.encode(x))


def test_mmd_is_zero_on_average_for_equal_distributions_and_positive_for_others():
    g = torch.Generator().manual_seed(0)
    same = torch.stack(
        [mmd(torch.randn(64, 2, generator=g), torch.randn(64, 2, generator=g)) for _ in range(200)]
    )
    assert same.mean().abs() < 3 * same.std() / 200**0.5
    assert (
        mmd(torch.randn(64, 2, generator=g), 1 + torch.randn(64, 2, generator=g)) > 5 * same.std()
    )


def test_labels_choose_what_is_drawn_and_modes_without_them_say_so(model):
    def drawn(y: torch.Tensor) -> torch.Tensor:
        return model.sample(6, y=y, generator=torch.Generator().manual_seed(0))

    y = torch.arange(6) % 10
    if model.mode == "unsup":
        with pytest.raises(ValueError, match="knows no class; leave y out"):
            drawn(y)
    else:
        first, other = drawn(y), drawn(y + 1)
        assert first.shape == (6, 1, 4, 4) and not torch.equal(first, other)
    if model.mode == "cluster":  # it draws the category itself
        one = source()
        y = draw_labels(6, model.classes, one)
        made = model.sample(6, generator=torch.Generator().manual_seed(0))
        assert torch.equal(made, model.decode(model.prior_codes(6, one), y=y))
    if model.told:
        with pytest.raises(ValueError, match="pass y"):
            model.sample(6)
    assert model.told == (() if model.mode in ("unsup", "cluster") else ("y",))
    x = batch()["x"]
    if model.categorical or model.mode == "sup":
        with pytest.raises(ValueError, match="pass y"):
            model.decode(model.encode(x))
    if not model.categorical:
        with pytest.raises(ValueError, match="gives no ŷ"):
            model.probabilities(x)
    y = {"y": batch()["y"]} if model.mode == "sup" else {}
    frames = model.interpolate(x, x.flip(0), 5, **y)
    assert torch.equal(frames[:, 0], model.reconstruct(x, **y)) and frames.shape == (12, 5, 1, 4, 4)


def test_labels_are_uniform():
    counts = draw_labels(10000, 4, source()).bincount(minlength=4)
    assert len(counts) == 4 and (counts - 2500).abs().max() < 200


def test_rates_are_a_players_own_and_a_tenth_after_every_interval(model):
    model.rates = dict(zip(model.rates, (0.8, 0.4, 0.2, 0.1), strict=False))
    model.decay_every = 3
    made = model.optimisers()
    schedules = model.schedulers(made)
    for player, rate in model.rates.items():
        for _ in range(6):
            made[player].step()
            schedules[player].step()
        assert made[player].param_groups[0]["lr"] == pytest.approx(rate / 100)
    model.decay_every = 0
    assert model.schedulers(made) == {}


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_the_optimiser_that_is_asked_for_has_little_momentum_in_the_game(optimiser):
    rates = {"lr": 0.3, "lr_adv": 0.2, "lr_label": 0.1}
    made = AAE(SPEC, mode="semi", width=8, optimiser=optimiser, **rates).optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {
        "ae": 0.3,
        "d": 0.2,
        "g": 0.2,
        "c": 0.1,
    }
    if optimiser == "sgd":
        expected = {"ae": 0.9, "d": 0.1, "g": 0.1, "c": 0.9}
        assert all(type(o) is torch.optim.SGD for o in made.values())
        assert {p: o.defaults["momentum"] for p, o in made.items()} == expected
    else:
        expected = {"ae": 0.9, "d": 0.5, "g": 0.5, "c": 0.9}
        assert {p: o.defaults["betas"] for p, o in made.items()} == {
            p: (first, 0.999) for p, first in expected.items()
        }


@pytest.mark.parametrize(
    "options", [{}, {"prior": "mixture", "latent": 2}, {"prior": "swiss_roll", "latent": 2}]
)
def test_the_scale_of_the_prior_is_that_of_its_draws(options):
    one, wide = (AAE(SPEC, width=8, std=std, **options) for std in (1.0, 3.0))
    drawn = [m.prior_codes(50, source()) for m in (one, wide)]
    torch.testing.assert_close(drawn[1], 3 * drawn[0])
    assert drawn[0].std() > 0.5
    for m in (one, wide):
        codes = m.prior_codes(20, source())
        assert torch.equal(
            m.sample(20, generator=torch.Generator().manual_seed(0)), m.decode(codes)
        )


@pytest.mark.parametrize("recon", ["l2", "bce"])
def test_reconstruction_is_a_negative_log_likelihood_of_the_whole_image(recon):
    model, v = AAE(SPEC, width=8, recon=recon), (batch()["x"] / 16).flatten(1)
    terms = model.autoencoder_loss(batch())
    p = model.decoder(model.encode(batch()["x"])).sigmoid()
    if recon == "l2":
        unit = torch.distributions.Normal(p, 1.0)
        cost = -(unit.log_prob(v) - unit.log_prob(unit.mean)).sum(1)
    else:
        cost = -(v * p.log() + (1 - v) * (1 - p).log()).sum(1)
    torch.testing.assert_close(terms["loss"], cost.mean())
    torch.testing.assert_close(terms["mse"], (p - v).square().mean())


def test_semi_the_encoder_is_to_fool_both_discriminators():
    model = AAE(SPEC, mode="semi", latent=3, width=8)
    z, logits = model.coded(batch()["x"], None)
    said = model.d.net(z), model.d_label.net(logits.softmax(1))
    expected = sum(-s.sigmoid().log().mean() for s in said)
    torch.testing.assert_close(model.generator_loss(batch())["loss"], expected)


def test_the_discriminator_is_right_where_it_tells_draws_from_codes():
    model = AAE(SPEC, width=8)
    real, code = torch.tensor([1.0, -2.0, 3.0, 4.0]), torch.tensor([-1.0, 2.0, 3.0, 4.0])
    model.d.both = lambda drawn, codes: (real, code)
    rows = batch(4)
    assert model.discriminator_loss(rows)["d_acc"] == (3 / 4 + 1 / 4) / 2


def test_held_out_values_are_of_codes_in_units_of_the_prior_and_of_images_in_the_unit_interval():
    rows = batch(40)
    model = AAE(SPEC, mode="semi", latent=3, width=8, std=2.0, labels=40)
    model.initialise_from(rows)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.0)  # so that its opinions differ
    values, x = model.evaluate(rows, torch.Generator().manual_seed(0)), rows["x"] / 16
    mse = (model.reconstruct(rows["x"]) / 16 - x).square().mean((1, 2, 3))  # of rounded levels
    torch.testing.assert_close(values["mse"], mse, atol=0.01, rtol=0)
    plain = (x - x.mean(0)).square().mean()
    torch.testing.assert_close(values["mse_ratio"], values["mse"] / plain)
    right = model.probabilities(rows["x"]).max(1).indices == rows["y"]
    assert torch.equal(values["accuracy"], right.float()) and 0 < right.sum() < 40
    z = model.encode(rows["x"]).detach().numpy() / 2
    found = {name: values[f"code_{name}"][0].item() for name in ("std_min", "std_max", "mean_max")}
    assert found["std_min"] == pytest.approx(z.std(0, ddof=1).min(), rel=1e-4)
    assert found["std_max"] == pytest.approx(z.std(0, ddof=1).max(), rel=1e-4)
    assert found["mean_max"] == pytest.approx(abs(z.mean(0)).max(), rel=1e-4)
    drawn = 2 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(values["code_mmd"][0], mmd(model.encode(rows["x"]), drawn))


def test_label_reg_samples_are_decoded_from_the_component_of_the_label():
    model = AAE(SPEC, mode="label_reg", prior="mixture", latent=2, width=8)
    codes = []
    model.decoder.register_forward_pre_hook(lambda _, args: codes.append(args[0]))
    model.sample(300, y=torch.full((300,), 7), generator=torch.Generator().manual_seed(0))
    angle = torch.atan2(codes[0][:, 1], codes[0][:, 0]) % (2 * math.pi)
    assert (angle / (2 * math.pi / 10) - 7).abs().mean() < 0.2


@pytest.mark.parametrize("loop", SERVED, ids=str)
@pytest.mark.parametrize("options", [MODES[0], MODES[1], MODES[3]], ids=lambda o: o.get("mode", ""))
def test_the_loops_options_change_training_and_stay_finite(options, loop):
    def trained(**more) -> torch.Tensor:
        torch.manual_seed(0)
        model, rows = AAE(SPEC, width=16, **{"latent": 4, **options}, **more), batch(24)
        fit(model, Given(SPEC, rows["x"], rows["y"], batch_size=6), 3)
        assert all(v.isfinite() for v in model.terms.values())
        nets = [model.encoder, *model.players()["d"]]
        return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])

    plain, other = trained(), trained(loop=loop)
    assert other.isfinite().all() and not torch.equal(other, plain)


def test_r1_is_taken_of_both_discriminators_at_the_draws_of_their_priors():
    model, seen = AAE(SPEC, mode="semi", labels=4, width=16, loop={"r1": 3.0}), {}
    parts, inner = {"d": model.d, "d_label": model.d_label}, {}
    for name, part in parts.items():  # what each is shown first: draws of its prior
        inner[name] = part.forward
        part.forward = lambda v, name=name: seen.setdefault(name, v) is None or inner[name](v)
    terms, expected = model.discriminator_loss(batch()), 0.0
    for name, rows in seen.items():
        at = rows.clone().requires_grad_()
        (slope,) = torch.autograd.grad(parts[name].net(at).sum(), at)
        expected += 1.5 * slope.square().sum(1).mean()
    assert len(seen) == 2 and ((seen["d_label"] == 0) | (seen["d_label"] == 1)).all()
    torch.testing.assert_close(terms["r1"], expected)


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "gan"},
        {"prior": "mixture"},
        {"mode": "label_reg"},
        {"recon": "l1"},
        {"classes": 5},
        {"q": "flow"},
        {"optimiser": "lion"},
    ],
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        AAE(SPEC, **bad)
