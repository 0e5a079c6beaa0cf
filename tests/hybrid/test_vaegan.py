"""VAE/GAN is VAE/GAN: which loss reaches which network, likeness in the discriminator's features,
the balance of play.
"""

import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.hybrid.vaegan import LOSSES, VAEGAN, llike, who_skips

SPEC = DataSpec((1, 8, 8), 17)
SERVED = [
    {"label_smooth": 0.8},
    {"label_flip": 0.4},
    {"instance_noise": 0.5},
    {"spectral_norm": True},
    {"r1": 5.0},
    {"replay": 8},
]


def images(n: int = 6) -> torch.Tensor:
    return torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float()


def make(**options) -> VAEGAN:
    torch.manual_seed(0)
    return VAEGAN(
        SPEC,
        **{
            "latent": 4,
            "enc": (6,),
            "dec": (6,),
            "dis": (4, 6),
            "enc_hidden": 8,
            "dis_hidden": 8,
            **options,
        },
    )


def gradients(model: VAEGAN, loss: str, noise: int = 3) -> dict[str, torch.Tensor | None]:
    """Each network's gradient of one loss with nothing frozen: None where the loss does not reach
    it.
    """
    model.zero_grad()
    model.noise = Noise(noise, "test")
    getattr(model, loss)({"x": images()})["loss"].backward()
    out = {}
    for player, net in model.players().items():
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        out[player] = torch.cat([g.flatten() for g in grads]) if grads else None
    return out


def test_the_gan_loss_does_not_reach_the_encoder():
    found = gradients(make(gamma=0.0), "decoder_loss")
    assert found["e"] is None and found["g"].abs().max() > 0
    found = gradients(make(), "discriminator_loss")
    assert found["e"] is None and found["g"] is None and found["d"].abs().max() > 0


def test_the_encoders_loss_is_free_of_the_discriminators_verdict():
    model = make()
    before = gradients(model, "encoder_loss")["e"]
    for p in model.d.net.verdict.parameters():
        nn.init.normal_(p)
    assert torch.equal(gradients(model, "encoder_loss")["e"], before)
    for p in model.d.net.to_features.parameters():
        nn.init.normal_(p, std=0.1)
    assert not torch.allclose(gradients(model, "encoder_loss")["e"], before)


def test_likeness_moves_decoder_and_encoder_but_leaves_no_gradient_in_the_discriminator():
    model, touched = make(), []
    for player, net in model.players().items():
        for p in net.parameters():
            p.register_hook(lambda grad, player=player: touched.append(player))
    model.phases = lambda: VAEGAN.phases(model)[1:]
    before = {name: p.clone() for name, p in model.named_parameters()}
    fit(model, Given(SPEC, images(64)), 1)
    assert set(touched) == {"g", "e"}
    moved = {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if not torch.equal(p, before[name])
    }
    assert moved == {"decoder", "encoder"}


def test_likeness_in_features_has_another_gradient_than_likeness_in_pixels():
    model, v = make(), SPEC.to_signed(images())
    recon = model.decoder(model.posterior(v)[0])
    in_features = llike(model.d.net.features(v), model.d.net.features(recon)).sum()
    in_pixels = 0.5 * (v - recon).square().sum()
    for net in (model.encoder, model.decoder):
        flat = [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        loss, [*net.parameters()], retain_graph=True, allow_unused=True
                    )
                ]
            )
            for loss in (in_features, in_pixels)
        ]
        assert flat[0].abs().max() > 0 and torch.cosine_similarity(*flat, dim=0) < 0.9


def test_decoders_loss_is_gamma_likeness_plus_the_log_probability_of_being_found_out():
    parts = {gamma: gradients(make(gamma=gamma), "decoder_loss")["g"] for gamma in (0.0, 1.0, 3.0)}
    model, v, noise = make(), SPEC.to_signed(images()), Noise(3, "test")
    mu, log_var = (t.detach() for t in model.posterior(v))
    recon = model.decoder(mu + log_var.exp().sqrt() * noise.normal(6, 4))
    features = model.d.net.features
    like = 0.5 * (features(v).detach() - features(recon)).square().sum() / 6
    grads = torch.autograd.grad(like, [*model.decoder.parameters()])
    alone = torch.cat([g.flatten() for g in grads])
    assert alone.abs().max() > 1e-3
    for gamma in (1.0, 3.0):
        torch.testing.assert_close(parts[gamma] - parts[0.0], gamma * alone, rtol=1e-3, atol=1e-5)
    model.noise = Noise(3, "test")
    gan = model.decoder_loss(Batch({"x": images()}))["gan"]
    made = (recon, model.decoder(noise.normal(6, 4)))
    found_out = [(1 - model.d.net(u).sigmoid()).log().mean() for u in made]
    torch.testing.assert_close(gan, sum(found_out))
    assert (found_out[0] - found_out[1]).abs() > 1e-4
    model = make()
    for p in model.d.net.verdict[-1].parameters():
        nn.init.zeros_(p)
    model.noise = Noise(0, "test")
    rows = Batch({"x": images()})
    assert model.decoder_loss(rows)["gan"].item() == pytest.approx(-2 * math.log(2))
    # found out: the decoder wants the logit up, whichever the form
    nn.init.constant_(model.d.net.verdict[-1].bias, -5.0)
    slopes = {}
    for form, loss in LOSSES.items():
        model.d.price = loss
        model.zero_grad()
        model.decoder_loss(rows)["loss"].backward()
        slopes[form] = model.d.net.verdict[-1].bias.grad.item()
        assert slopes[form] < 0
    assert slopes["nonsat"] < 100 * slopes["minimax"]  # of two made images: about -2, and -2 e^-5


def test_the_discriminator_sees_three_kinds_of_images():
    model = make()
    seen = []
    handle = model.d.net.register_forward_hook(lambda net, args, out: seen.append(args[0]))
    whole = gradients(model, "discriminator_loss")["d"]
    handle.remove()
    v = SPEC.to_signed(images())
    assert len(seen) == 3 and torch.equal(seen[0], v)
    model.noise = Noise(3, "test")
    mu, log_var = model.posterior(v)
    z, z_p = (model.noise.normal(6, 4) for _ in range(2))  # of two draws of noise
    torch.testing.assert_close(seen[1], model.decoder(mu + log_var.exp().sqrt() * z))
    assert torch.equal(seen[2], model.decoder(z_p))
    d = model.d.net
    terms = [
        -d(seen[0]).sigmoid().log().mean(),
        -(1 - d(seen[1]).sigmoid()).log().mean(),
        -(1 - d(seen[2]).sigmoid()).log().mean(),
    ]
    flat = [
        torch.cat([g.flatten() for g in torch.autograd.grad(t, [*d.parameters()])]) for t in terms
    ]
    torch.testing.assert_close(whole, flat[0] + flat[1] + flat[2], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(whole, flat[0] + flat[1], atol=1e-4)


def test_the_discriminators_cost_weighs_its_images_and_the_controller_is_told_both_kinds():
    model = make(real_weight=0.3)
    model.noise = Noise(3, "test")
    terms, noise = model.discriminator_loss(Batch({"x": images()})), Noise(3, "test")
    v = SPEC.to_signed(images())
    mu, log_var = model.posterior(v)
    codes = (mu + log_var.exp().sqrt() * noise.normal(6, 4), noise.normal(6, 4))
    recon, prior = (model.d.net(model.decoder(z)).sigmoid() for z in codes)
    real = model.d.net(v).sigmoid()
    on_fake = [-(1 - p).log().mean() for p in (recon, prior)]
    torch.testing.assert_close(terms["cost_real"], -real.log().mean())
    torch.testing.assert_close(terms["cost_fake"], sum(on_fake) / 2)
    torch.testing.assert_close(terms["loss"], -0.3 * real.log().mean() + sum(on_fake))
    for name, p in (("d_real", real), ("d_recon", recon), ("d_prior", prior)):
        torch.testing.assert_close(terms[name], p.mean())


def test_held_out_errors_are_of_the_mean_code_over_those_of_the_mean_image():
    model, x = make().eval(), images(40)
    model.mean_image.fill_(0.25)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.0)
        z = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
        drawn = model.decoder(z)
        model.d.net.verdict[-1].bias -= model.d.net(drawn).median()  # so that its opinions differ
    values = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(1))
    v, plain = SPEC.to_signed(x), torch.full((1, 1, 8, 8), 0.25)
    recon = model.decoder(model.encode(x))
    mse = ((recon - v) / 2).square().mean((1, 2, 3))  # of images in [0, 1]
    torch.testing.assert_close(values["mse"], mse)
    over = ((plain - v) / 2).square().mean((1, 2, 3))
    torch.testing.assert_close(values["mse_ratio"], mse / over)
    f = [model.d.net.features(u) for u in (v, recon, plain)]
    like, least = (0.5 * (f[0] - u).square().sum((1, 2, 3)) for u in f[1:])
    torch.testing.assert_close(values["llike"], like)
    torch.testing.assert_close(values["llike_ratio"], like / least)
    right = [model.d.net(v) > 0, model.d.net(recon) <= 0, model.d.net(drawn) <= 0]
    for name, share in zip(("real", "recon", "prior"), right, strict=True):
        assert torch.equal(values[f"d_acc_{name}"], share.float())
    assert torch.equal(values["d_acc"], (right[0].float() + right[2].float()) / 2)
    assert not torch.equal(right[1], right[2])


def test_the_logged_error_of_a_step_is_of_images_in_the_unit_interval():
    model = make()
    model.noise = Noise(3, "test")
    mse = model.encoder_loss(Batch({"x": images()}))["mse"]
    mu, log_var = model.posterior(SPEC.to_signed(images()))
    recon = model.decoder(mu + log_var.exp().sqrt() * Noise(3, "test").normal(6, 4))
    torch.testing.assert_close(mse, ((recon + 1) / 2 - images() / 16).square().mean())


def test_samples_are_decoded_from_draws_of_the_prior():
    model = make().eval()
    drawn = model.sample(5, generator=torch.Generator().manual_seed(4))
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    assert torch.equal(drawn, SPEC.from_signed(model.decoder(z)))
    assert len(model.decoder(z).detach().unique(dim=0)) == 5


def test_the_optimiser_that_is_asked_for_trains_every_network_at_a_falling_rate():
    adam = make(lr=0.02, beta1=0.3).optimisers()
    assert [*adam] == ["d", "g", "e"]
    assert all(type(o) is torch.optim.Adam for o in adam.values())
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in adam.values())
    model = make(optimiser="rmsprop", lr=0.02, decay=0.75, decay_every=4)
    made = model.optimisers()
    assert all(type(o) is torch.optim.RMSprop for o in made.values())
    schedules = model.schedulers(made)
    for player, optimiser in made.items():
        for _ in range(8):
            optimiser.step()
            schedules[player].step()
        assert optimiser.param_groups[0]["lr"] == pytest.approx(0.02 * 0.75**2)
    assert make().schedulers(adam) == {}


@pytest.mark.parametrize(
    ("costs", "skips"),
    [
        ((0.2, 0.7), (True, False)),
        ((1.2, 0.7), (False, True)),
        ((0.2, 1.2), (False, False)),
        ((0.7, 0.7), (False, False)),
    ],
)
def test_the_margin_skips_the_stronger_player_and_neither_if_both(costs, skips):
    assert tuple(who_skips(*map(torch.tensor, costs), 0.68, 0.35).tolist()) == skips


def test_a_skipped_player_stays_put_for_a_cycle_and_is_counted():
    model, moved = make(margin=0.35), []
    model.after_step = moved.append
    costs = iter([(0.2, 0.7), (1.2, 0.7), (0.7, 0.7), (0.7, 0.7)])
    after = model.after_cycle

    def given(terms):
        terms["cost_real"], terms["cost_fake"] = (torch.tensor(c) for c in next(costs))
        after(terms)

    model.after_cycle = given
    trainer = fit(model, Given(SPEC, images(64)), 4)
    assert moved == ["d", "g", "e", "g", "e", "d", "e", "d", "g", "e"] and trainer.global_step == 4
    assert model.skipped.tolist() == [1, 1] and model.terms["skipped_d"] == 1


def test_the_controller_has_the_equilibrium_that_is_asked_for_and_counts_each_player():
    model = make(margin=0.1, equilibrium=2.0)
    for costs, skips in (((1.0, 2.0), [True, False]), ((2.0, 2.0), [False, False])):
        terms = {
            name: torch.tensor(v) for name, v in zip(("cost_real", "cost_fake"), costs, strict=True)
        }
        model.after_cycle(terms)
        assert model.skips.tolist() == skips
    assert (terms["skipped_d"], terms["skipped_g"]) == (1, 0)


def test_the_mean_image_is_that_of_the_data_as_networks_see_them():
    model, x = make(), images(20)
    model.initialise_from(Batch({"x": x}))
    torch.testing.assert_close(model.mean_image, x.mean(0) / 8 - 1)


def test_the_features_of_the_data_are_a_target_without_gradient():
    model = make()
    x = SPEC.to_signed(images()).requires_grad_()
    recon = SPEC.to_signed(images().flip(0)).requires_grad_()
    llike(model.d.net.features(x), model.d.net.features(recon)).sum().backward()
    assert x.grad is None and recon.grad.abs().max() > 0


def test_with_the_identity_for_features_it_is_a_vae_with_squared_error():
    model = make()
    model.d.net.to_features = nn.Identity()
    model.noise = Noise(5, "test")
    terms = model.encoder_loss(Batch({"x": images()}))
    v = SPEC.to_signed(images())
    mu, log_var = model.posterior(v)
    q, p = (
        torch.distributions.Normal(mu, (0.5 * log_var).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    recon = model.decoder(mu + (0.5 * log_var).exp() * Noise(5, "test").normal(6, 4))
    square = -torch.distributions.Normal(recon, 1.0).log_prob(v).sum((1, 2, 3)) - 32 * math.log(
        2 * math.pi
    )
    expected = torch.distributions.kl_divergence(q, p).sum(1) + square
    torch.testing.assert_close(terms["loss"], expected.mean())


def test_networks_are_the_papers():
    options = {
        "enc": (64, 128, 256),
        "dec": (256, 128, 32),
        "dis": (32, 128, 256, 256),
        "enc_hidden": 1024,
        "dis_hidden": 512,
    }
    with torch.device("meta"):
        model = VAEGAN(DataSpec((3, 64, 64), 256), latent=128, norm="batch", **options)
    shapes = {
        p: [tuple(q.shape) for q in net.parameters() if q.ndim > 1]
        for p, net in model.players().items()
    }
    assert shapes["e"] == [
        (64, 3, 5, 5),
        (128, 64, 5, 5),
        (256, 128, 5, 5),
        (1024, 256 * 64),
        (256, 1024),
    ]
    assert shapes["g"] == [
        (256 * 64, 128),
        (256, 256, 5, 5),
        (256, 128, 5, 5),
        (128, 32, 5, 5),
        (3, 32, 5, 5),
    ]
    assert shapes["d"] == [
        (32, 3, 5, 5),
        (128, 32, 5, 5),
        (256, 128, 5, 5),
        (256, 256, 5, 5),
        (512, 256 * 64),
        (1, 512),
    ]
    x = torch.empty(2, 3, 64, 64, device="meta")
    assert (
        model.d.net.features(x).shape == (2, 256, 8, 8)
        and model.decoder(torch.empty(2, 128, device="meta")).shape == x.shape
    )
    assert (
        sum(isinstance(m, nn.BatchNorm2d) for m in model.d.net.to_features.modules()) == 2
    )  # Dis_l is before its own norm


def test_an_attribute_is_a_difference_of_mean_codes():
    model, x = make(), images(8)
    codes = model.encode(x)
    torch.testing.assert_close(model.attribute(x[:3], x[3:]), codes[:3].mean(0) - codes[3:].mean(0))


@pytest.mark.parametrize("loop", [*SERVED, {"separate_batches": False}], ids=str)
def test_the_loops_options_change_training_and_stay_finite(loop):
    def trained(**options) -> torch.Tensor:
        model = make(norm="batch", **options)
        fit(model, Given(SPEC, images(24), batch_size=4), 3)
        assert all(v.isfinite() for v in model.terms.values())
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    plain, other = trained(), trained(loop=loop)
    assert other.isfinite().all() and not torch.equal(other, plain)


def test_all_that_the_discriminator_sees_in_any_step_has_the_instance_noise():
    model, seen = make(), []
    model.d.noisy = lambda v: v + 100
    model.d.net.to_features.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for loss, views in (("discriminator", 3), ("decoder", 4), ("encoder", 2)):
        seen.clear()
        getattr(model, f"{loss}_loss")(Batch({"x": images()}))
        assert len(seen) == views and all(v.min() > 50 for v in seen)


def test_half_of_both_kinds_of_made_images_are_of_the_past():
    model, seen = make(loop={"replay": 100}), []
    model.d.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    old = torch.full((100, 1, 8, 8), 7.0)
    model.d.pool.past0.copy_(old)
    model.d.pool.seen.fill_(100)
    model.discriminator_loss(Batch({"x": images()}))
    real, recon, prior = seen
    assert torch.equal(real, SPEC.to_signed(images()))
    assert (recon[:3] == 7).all() and not (recon[3:] == 7).any()
    # the reconstructions are in the store by now, as its first rows, and the draws after them
    store = model.d.pool.past0
    past = torch.cat([store[:6], store[12:]])
    found = [any(torch.equal(v, w) for w in past) for v in prior]
    assert found == [True] * 3 + [False] * 3 and model.d.pool.seen == 112


@pytest.mark.parametrize(
    "bad", [{"norm": "group"}, {"enc": (6, 6)}, {"margin": -1.0}, {"g_loss": "hinge"}]
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError):
        make(**bad)
