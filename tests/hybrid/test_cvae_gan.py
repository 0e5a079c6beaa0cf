"""CVAE-GAN is CVAE-GAN: mean feature matching in place of the adversarial loss, who learns from
what, the running class means.
"""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.digits import Digits
from zoo.hybrid.cvae_gan import CVAEGAN
from zoo.nn.prior import Draw

SPEC = DataSpec((1, 8, 8), 17, 3)
SERVED = [
    {"label_smooth": 0.8},
    {"label_flip": 0.4},
    {"instance_noise": 0.5},
    {"spectral_norm": True},
    {"r1": 5.0},
    {"replay": 8},
]


def batch(n: int = 9) -> Batch:
    x = torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    return Batch({"x": x, "y": torch.arange(n) % 3})


def make(**options) -> CVAEGAN:
    torch.manual_seed(0)
    return CVAEGAN(SPEC, **{"latent": 4, "width": 4, **options})


def gradients(model: CVAEGAN, loss: str) -> dict[str, torch.Tensor | None]:
    """Each network's gradient of one loss with nothing frozen; None where the loss does not reach
    it.
    """
    model.zero_grad()
    model.noise = Noise(3, "test")
    getattr(model, loss)(batch())["loss"].backward()
    out = {}
    for player, net in model.players().items():
        grads = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        out[player] = torch.cat(grads) if grads else None
    return out


def test_equal_mean_features_cost_nothing_however_samples_differ():
    model = make()
    real = torch.randn(8, 5)
    made = (real.mean(0) + (real - real.mean(0)).flip(0) * 3).requires_grad_()
    loss = model.mean_matching(real, made)
    assert loss < 1e-10 and torch.autograd.grad(loss, made)[0].abs().max() < 1e-6
    away = model.mean_matching(real, real + 2.0)
    torch.testing.assert_close(away, torch.tensor(0.5 * 5 * 4.0))


def test_the_generators_adversarial_gradient_is_that_of_the_mean_features():
    model = make(lambda_g=0.0, lambda_gc=0.0, lambda_gd=1.0)
    whole = gradients(model, "generator_loss")["g"]
    noise, rows = Noise(3, "test"), batch()
    noise.normal(9, 4)  # of x_f
    x_p = model.generate(noise.normal(9, 4), model.one_hot(rows["y"]))
    real, made = (model.f_d(v).mean(0) for v in (SPEC.to_signed(rows["x"]), x_p))
    grads = torch.autograd.grad(made, [*model.g.parameters()], (made - real).detach())
    torch.testing.assert_close(whole, torch.cat([g.flatten() for g in grads]), rtol=1e-4, atol=1e-7)
    assert torch.equal(
        gradients(make(lambda_g=0.0, lambda_gc=0.0, lambda_gd=0.0), "generator_loss")["g"],
        torch.zeros_like(whole),
    )


def test_the_pairwise_loss_reaches_the_encoder_and_the_mean_features_do_not():
    model = make()
    model.fc_seen.fill_(True)
    assert gradients(model, "generator_loss")["e"] is None
    found = gradients(model, "encoder_loss")["e"]
    assert found.abs().max() > 0
    model.lambda_gd = model.lambda_gc = 1e6
    assert torch.equal(gradients(model, "encoder_loss")["e"], found)
    model.lambda_g = 0.0
    assert not torch.allclose(gradients(model, "encoder_loss")["e"], found)


def test_the_classifier_learns_from_real_images_only():
    model, rows = make(), batch()
    found = gradients(model, "classifier_loss")
    assert all(found[p] is None for p in ("d", "g", "e"))
    logits = model.classifier(SPEC.to_signed(rows["x"]))
    grads = torch.autograd.grad(
        F.cross_entropy(logits, rows["y"]), [*model.classifier.parameters()]
    )
    torch.testing.assert_close(found["c"], torch.cat([g.flatten() for g in grads]))
    assert gradients(model, "discriminator_loss")["c"] is None


def test_every_loss_moves_its_own_network_only():
    model, rows, moved = make(), batch(96), []
    last = [{n: p.detach().clone() for n, p in model.named_parameters()}]

    def watch(player):
        now = {n: p.detach().clone() for n, p in model.named_parameters()}
        moved.append(
            (player, {n.split(".")[0] for n in now if not torch.equal(now[n], last[-1][n])})
        )
        last.append(now)

    model.after_step = watch
    fit(model, Given(SPEC, rows["x"], rows["y"]), 2)
    assert (
        moved
        == [
            ("c", {"classifier"}),
            ("d", {"d"}),
            ("g", {"g"}),
            ("e", {"encoder"}),
        ]
        * 2
    )


def test_the_discriminators_images_of_the_generator_carry_no_gradient():
    found = gradients(make(), "discriminator_loss")
    assert found["g"] is None and found["e"] is None and found["d"].abs().max() > 0


def test_running_class_means_start_at_the_first_and_absent_classes_stay():
    model, size = make(), make().fc_mean.shape[1]
    first, then = torch.full((4, size), 2.0), torch.full((4, size), 5.0)
    zero, mixed = (
        model.one_hot(torch.zeros(4, dtype=torch.long)),
        model.one_hot(torch.tensor([0, 0, 1, 1])),
    )
    model.remember(first, zero)
    assert (
        model.fc_seen.tolist() == [True, False, False]
        and (model.fc_mean[0] == 2).all()
        and (model.fc_mean[1:] == 0).all()
    )
    for n in range(1, 6):
        model.remember(then, mixed)
        torch.testing.assert_close(model.fc_mean[0], torch.full((size,), 5 - 3 * 0.9**n))
        assert (model.fc_mean[1] == 5).all() and (model.fc_mean[2] == 0).all()
    assert {"fc_mean", "fc_seen"} <= set(model.state_dict())


def test_class_matching_is_the_sum_over_classes_present_of_squared_differences_of_means():
    model, f = make(), torch.randn(6, make().fc_mean.shape[1])
    model.fc_mean.normal_()
    model.fc_seen[:] = torch.tensor([True, True, False])
    y = torch.tensor(
        [0, 0, 0, 2, 2, 2]
    )  # class 1 is not in the batch, of class 2 no real image was seen
    expected = 0.5 * (f[:3].mean(0) - model.fc_mean[0]).square().sum()
    torch.testing.assert_close(model.class_matching(f, model.one_hot(y)), expected)


def test_without_its_weights_the_mean_features_leave_the_pairwise_loss_with_both_networks():
    model, noise = make(lambda_gd=0.0, lambda_gc=0.0), Noise(3, "test")
    model.fc_seen.fill_(True)
    v, c = SPEC.to_signed(batch()["x"]), model.one_hot(batch()["y"])
    mu, log_var = (t.detach() for t in model.posterior(v, c))
    made = model.generate(mu + (0.5 * log_var).exp() * noise.normal(9, 4), c)
    grads = torch.autograd.grad(model.pairwise(v, made).mean(), [*model.g.parameters()])
    plain = gradients(model, "generator_loss")["g"]
    torch.testing.assert_close(plain, torch.cat([g.flatten() for g in grads]), rtol=1e-4, atol=1e-5)
    for net in (model.d.net, model.classifier):
        with torch.no_grad():
            net.stages[0][0].weight.mul_(3.0)
        changed = gradients(model, "generator_loss")["g"]
        assert not torch.allclose(changed, plain)
        plain = changed


def test_the_pairwise_loss_is_half_the_squared_distance_in_pixels_and_both_features():
    model, v = make(), SPEC.to_signed(batch()["x"])
    other = v.flip(0)
    expected = sum(
        0.5 * torch.cdist(f(v).flatten(1)[:, None], f(other).flatten(1)[:, None]).flatten() ** 2
        for f in (lambda u: u, model.d.net.features, model.classifier.features)
    )
    torch.testing.assert_close(model.pairwise(v, other), expected, rtol=1e-4, atol=1e-4)


def made_of(model: CVAEGAN, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """G(z, c) in [-1, 1]."""
    return model.g(torch.cat([z, torch.eye(3)[y]], 1))


def test_the_discriminator_sees_data_reconstructions_of_drawn_codes_and_draws_of_the_prior():
    model, seen = make(), []
    handle = model.d.net.register_forward_hook(lambda net, args, out: seen.append(args[0]))
    whole = gradients(model, "discriminator_loss")["d"]
    handle.remove()
    v, y, noise = SPEC.to_signed(batch()["x"]), batch()["y"], Noise(3, "test")
    mu, log_var = model.posterior(v, torch.eye(3)[y])
    x_f = made_of(model, mu + log_var.exp().sqrt() * noise.normal(9, 4), y)
    x_p = made_of(model, noise.normal(9, 4), y)
    for shown, expected in zip(seen, (v, x_f, x_p), strict=True):
        torch.testing.assert_close(shown, expected)
    d = model.d.net
    loss = -d(v).sigmoid().log().mean()
    loss = loss - sum((1 - d(x.detach()).sigmoid()).log().mean() for x in (x_f, x_p))
    grads = torch.autograd.grad(loss, [*d.parameters()])
    torch.testing.assert_close(whole, torch.cat([g.flatten() for g in grads]), rtol=1e-4, atol=1e-6)


def test_the_encoders_loss_weighs_the_divergence_and_the_likeness_of_a_drawn_code():
    model = make(lambda_kl=0.3, lambda_g=2.0)
    model.noise = Noise(3, "test")
    terms = model.encoder_loss(batch())
    v, y = SPEC.to_signed(batch()["x"]), batch()["y"]
    mu, log_var = model.posterior(v, torch.eye(3)[y])
    q = Normal(mu, log_var.exp().sqrt())
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()
    x_f = made_of(model, q.mean + q.stddev * Noise(3, "test").normal(9, 4), y)
    views = (lambda u: u, model.d.net.features, model.classifier.features)
    pair = sum(0.5 * (f(v) - f(x_f)).square().sum() / 9 for f in views)
    torch.testing.assert_close(terms["kl"], kl)
    torch.testing.assert_close(terms["l_g"], pair)
    torch.testing.assert_close(terms["loss"], 0.3 * kl + 2 * pair)


def test_each_part_of_the_generators_loss_has_its_own_weight():
    weights = {"lambda_g": 0.5, "lambda_gd": 0.2, "lambda_gc": 0.7}
    model, parts = make(**weights), {}
    model.fc_seen.fill_(True)
    for name, weight in weights.items():
        model.noise = Noise(3, "test")
        whole = model.generator_loss(batch())
        setattr(model, name, 0.0)
        model.noise = Noise(3, "test")
        parts[name] = (whole["loss"] - model.generator_loss(batch())["loss"]) / weight
        setattr(model, name, weight)
    torch.testing.assert_close(parts["lambda_gd"], whole["l_gd"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(parts["lambda_gc"], whole["l_gc"], rtol=1e-3, atol=1e-4)
    total = sum(weights[name] * part for name, part in parts.items())
    torch.testing.assert_close(whole["loss"], total, rtol=1e-3, atol=1e-4)
    assert all(part > 1e-3 for part in parts.values())


def test_held_out_values_are_of_images_in_the_unit_interval_and_of_draws_of_the_prior():
    model, rows = make().eval(), batch(60)
    model.mean_image.fill_(0.25)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0)  # so that its images and its opinions differ
    values = model.evaluate(rows, torch.Generator().manual_seed(1))
    x, y, source = rows["x"] / 16, rows["y"], Draw(torch.Generator().manual_seed(1))
    first, other = (made_of(model, source.normal(60, 4), y) for _ in range(2))
    recon = made_of(model, model.encode(rows["x"], y=y), y)
    unit = {name: (v + 1) / 2 for name, v in (("a", first), ("b", other), ("r", recon))}
    mse = (unit["r"] - x).square().mean((1, 2, 3))
    torch.testing.assert_close(values["mse"], mse)
    torch.testing.assert_close(
        values["mse_ratio"], mse / (1.25 / 2 - x).square().mean((1, 2, 3)), rtol=1e-4, atol=1e-6
    )
    apart = (unit["a"] - unit["b"]).square().mean((1, 2, 3))
    torch.testing.assert_close(values["diversity"], apart)
    shares = {
        "c_consistency": model.classifier(first).argmax(1) == y,
        "c_accuracy": model.classify(rows["x"]).argmax(1) == y,
        "d_acc_real": model.d.net(SPEC.to_signed(rows["x"])) > 0,
        "d_acc_prior": model.d.net(first) < 0,
    }
    for name, share in shares.items():
        assert torch.equal(values[name], share.float()), name
    assert not torch.equal(model.classifier(recon).argmax(1), model.classifier(first).argmax(1))


def test_samples_are_the_generators_of_draws_of_the_prior_and_the_class_that_is_asked():
    model, y = make().eval(), torch.tensor([2, 1, 0, 2, 2])
    drawn = model.sample(5, y=y, generator=torch.Generator().manual_seed(4))
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    assert torch.equal(drawn, SPEC.from_signed(made_of(model, z, y)))
    assert not torch.equal(drawn, SPEC.from_signed(made_of(model, z, y * 0)))


def test_every_network_has_its_adam_with_the_rate_and_the_decay_that_are_asked():
    made = make(lr=0.02, beta1=0.3).optimisers()
    assert [*made] == ["c", "d", "g", "e"]
    for optimiser in made.values():
        assert optimiser.defaults["lr"] == 0.02 and optimiser.defaults["betas"] == (0.3, 0.999)


@pytest.mark.parametrize("rounds", [1, 4])
def test_inpainting_encodes_what_it_has_completed_in_each_of_its_rounds(rounds):
    model, x, seen = make().eval(), batch()["x"], []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, :1]))
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[:, :4] = True
    model.inpaint(x, known, generator=torch.Generator().manual_seed(0), rounds=rounds)
    assert len(seen) == rounds
    assert all(torch.equal(v[:, :, :4], SPEC.to_signed(x)[:, :, :4]) for v in seen)
    assert len({v[:, :, 4:].sum().item() for v in seen}) == rounds


def test_inpainting_keeps_what_is_known_and_draws_the_rest():
    model, x = make(), batch()["x"]
    known = torch.ones(1, 8, 8, dtype=torch.bool)
    known[:, 4:] = False
    a, b = (model.inpaint(x, known, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert torch.equal(a[:, :, :4], x[:, :, :4]) and not torch.equal(a, b)
    told = [
        model.inpaint(x, known, y=y, generator=torch.Generator().manual_seed(0))
        for y in (batch()["y"], batch()["y"].flip(0))
    ]
    assert not torch.equal(*told)
    assert a.min() >= 0 and a.max() <= 16 and torch.equal(a, a.round())


def test_a_label_that_is_not_given_is_the_classifiers():
    model, x = make(), batch()["x"]
    y = model.classify(x).argmax(1)
    assert torch.equal(model.encode(x), model.encode(x, y=y)) and torch.equal(
        model.reconstruct(x), model.decode(model.encode(x, y=y), y=y)
    )
    torch.testing.assert_close(model.classify(x).sum(1), torch.ones(9))


def test_shares_of_a_step_are_of_draws_of_the_prior_and_of_the_likeliest_class():
    model, rows = make(), batch(4)
    out = [torch.tensor(v) for v in ([1.0, -1, 2, 3], [-1.0, -2, 3, -4], [1.0, -2, 3, 4])]
    model.d.judged = lambda *groups: out
    terms = model.discriminator_loss(rows)
    assert (terms["d_acc_real"], terms["d_acc_fake"]) == (0.75, 0.25)
    said = torch.tensor([[2.0, 1, 0], [2, 1, 0], [0, 1, 2], [0, 2, 1]])  # of classes 0, 1, 2, 0
    model.classifier.end.forward = lambda f: said[:, :, None, None]
    assert model.classifier_loss(rows)["c_acc"] == 0.5


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_running_means_have_the_momentum_that_is_asked_for(momentum):
    model, zero = make(momentum=momentum), torch.eye(3)[torch.zeros(4, dtype=torch.long)]
    size = model.fc_mean.shape[1]
    for value in (2.0, 5.0):
        model.remember(torch.full((4, size), value), zero)
    torch.testing.assert_close(model.fc_mean[0], torch.full((size,), 5 - 3 * momentum))


def test_a_path_runs_between_codes_and_between_classes():
    model, x = make().eval(), batch()["x"]
    seen = []
    model.g.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.interpolate(x, x.flip(0), 5)
    y = model.classify(x).argmax(1)
    ends = torch.cat([model.encode(x, y=y), torch.eye(3)[y]], 1)
    path = seen[0].unflatten(0, (9, 5))
    for i in range(5):
        expected = (1 - i / 4) * ends + i / 4 * ends.flip(0)
        torch.testing.assert_close(path[:, i], expected)
    model.classify = lambda v: torch.eye(3)[(v.flatten(1).sum(1) % 3).long()]  # of several classes
    seen.clear()
    model.interpolate(x, x.flip(0), 3)
    classes = seen[0].unflatten(0, (9, 3))[..., 4:]
    found = torch.eye(3)[(x.flatten(1).sum(1) % 3).long()]
    assert torch.equal(classes[:, 0], found) and torch.equal(classes[:, -1], found.flip(0))
    assert not torch.equal(found, found.flip(0))


@pytest.mark.parametrize("loop", [*SERVED, {"separate_batches": False}], ids=str)
def test_the_loops_options_change_training_and_stay_finite(loop):
    def trained(**options) -> torch.Tensor:
        model, rows = make(norm="batch", **options), batch(24)
        fit(model, Given(SPEC, rows["x"], rows["y"], batch_size=6), 3)
        assert all(v.isfinite() for v in model.terms.values())
        nets = (model.d, model.g, model.encoder)
        return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])

    plain, other = trained(), trained(loop=loop)
    assert other.isfinite().all() and not torch.equal(other, plain)


def test_all_that_the_discriminator_sees_in_any_step_has_the_instance_noise():
    model, seen = make(), []
    model.d.noisy = lambda v: v + 100
    model.d.net.stages[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for loss, views in (("discriminator", 3), ("generator", 4), ("encoder", 2)):
        seen.clear()
        getattr(model, f"{loss}_loss")(batch())
        assert len(seen) == views and all(v.min() > 50 for v in seen)


@pytest.mark.slow
def test_the_label_decides_which_class_is_drawn():
    data = Digits(size=16, batch_size=32)
    torch.manual_seed(0)
    model = CVAEGAN(data.spec)
    fit(model, data, 600)
    y = torch.arange(200) % 10
    for shift in (0, 3):
        drawn = model.sample(200, y=(y + shift) % 10, generator=torch.Generator().manual_seed(0))
        assert (model.classify(drawn).argmax(1) == (y + shift) % 10).float().mean() > 0.6


def test_unlabelled_data_are_refused():
    with pytest.raises(ValueError, match="labelled"):
        CVAEGAN(DataSpec((1, 8, 8), 17))
