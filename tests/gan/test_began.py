"""BEGAN is BEGAN: the controller, the two loss paths, the auto-encoding discriminator."""

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo import fit as command
from zoo.check.gates import last_metrics
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.began import BEGAN, control, convergence, reconstruction_loss

SPEC = DataSpec((1, 8, 8), 17)
SERVED = [{"instance_noise": 0.5}, {"spectral_norm": True}, {"r1": 5.0}, {"replay": 8}]
ARCHITECTURES = [
    {"arch": "mlp", "width": 16},
    {"arch": "conv", "width": 3},
    {"arch": "conv", "width": 3, "skip": True},
]


def images(n: int) -> torch.Tensor:
    return torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float()


@pytest.fixture(params=ARCHITECTURES, ids=lambda p: "-".join(map(str, p.values())))
def model(request) -> BEGAN:
    return BEGAN(SPEC, latent=4, code=4, **request.param)


def test_controller_follows_the_clipped_recursion_through_both_saturations():
    g = torch.Generator().manual_seed(0)
    a = torch.rand(1000, generator=g, dtype=torch.float64)
    b = torch.rand(1000, generator=g, dtype=torch.float64) * torch.linspace(
        0, 1, 1000, dtype=torch.float64
    )
    k, expected, seen = torch.zeros((), dtype=torch.float64), 0.0, []
    for real, fake in zip(a.tolist(), b.tolist(), strict=True):
        k = control(
            k,
            torch.tensor(real, dtype=torch.float64),
            torch.tensor(fake, dtype=torch.float64),
            0.5,
            0.1,
        )
        expected = min(max(expected + 0.1 * (0.5 * real - fake), 0.0), 1.0)
        assert k.item() == pytest.approx(expected, abs=1e-14)
        seen.append(expected)
    assert max(seen) == 1.0 and min(seen[500:]) == 0.0


def test_k_rises_when_generated_images_are_reconstructed_too_well():
    assert control(torch.tensor(0.3), torch.tensor(1.0), torch.tensor(0.2), 0.5, 0.1) > 0.3


def test_discriminator_gradient_is_an_autoencoders_at_k_zero_and_the_difference_at_k_one(
    model,
):
    x = images(6)
    signed = SPEC.to_signed(x)

    def gradients(loss):
        return torch.autograd.grad(loss, [*model.parameters_of("d")])

    def noisy():
        model.noise = Noise(3, "test")
        return model.discriminator_loss(Batch({"x": x}))["loss"]

    plain = gradients((signed - model.d.reconstruct(signed)).abs().mean())
    for got, want in zip(gradients(noisy()), plain, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-7)
    with torch.no_grad():
        fake = model.g(Noise(3, "test").uniform(6, 4, low=-1, high=1))
    against = gradients((fake - model.d.reconstruct(fake)).abs().mean())
    model.k_t.fill_(1.0)
    for got, a, b in zip(gradients(noisy()), plain, against, strict=True):
        torch.testing.assert_close(got, a - b, rtol=1e-4, atol=1e-7)


def test_generator_is_differentiated_through_the_target_as_well(model):
    c, image = 0.25, torch.randn(5, 1, 8, 8, requires_grad=True)
    reconstruction_loss(image, torch.full_like(image, c), 1).mean().backward()
    torch.testing.assert_close(image.grad, (image.detach() - c).sign() / image.numel())
    loss = reconstruction_loss(image, image, 1).mean()
    assert loss == 0 and torch.autograd.grad(loss, image)[0].abs().max() == 0
    # the model's own loss: freezing the target instead gives another gradient
    z = model.noise.uniform(5, 4, low=-1, high=1)
    fake = model.g(z)
    full = torch.autograd.grad(model.d(fake).sum(), fake, retain_graph=True)[0]
    detached = torch.autograd.grad(
        (fake.detach() - model.d.reconstruct(fake)).abs().flatten(1).mean(1).sum(), fake
    )[0]
    assert (full - detached).abs().max() > 1e-3
    torch.testing.assert_close(
        full - detached, (fake - model.d.reconstruct(fake)).sign().detach() / 64, atol=1e-6, rtol=0
    )


def test_each_player_moves_only_in_its_own_phase(model):
    moved = {"d": [], "g": []}

    def watch(player):
        now = {
            name: torch.cat([p.detach().flatten() for p in model.parameters_of(name)])
            for name in ("d", "g")
        }
        if watch.before:
            moved[player].append(
                {name: not torch.equal(now[name], watch.before[name]) for name in now}
            )
        watch.before = now

    watch.before = {
        name: torch.cat([p.detach().flatten().clone() for p in model.parameters_of(name)])
        for name in ("d", "g")
    }
    model.after_step = watch
    fit(model, Given(SPEC, images(64)), 3)
    assert moved["d"] == [{"d": True, "g": False}] * 3
    assert moved["g"] == [{"d": False, "g": True}] * 3


def test_controller_state_survives_a_checkpoint_and_is_required(tmp_path):
    def began():
        torch.manual_seed(0)
        return BEGAN(SPEC, latent=4, code=4, width=16, interval=2, lambda_k=0.05)

    data = Given(SPEC, images(64))
    straight = began()
    fit(straight, data, 12)
    first = began()
    trainer = fit(first, data, 7)
    first.k_t.fill_(0.37)
    trainer.save_checkpoint(tmp_path / "k.ckpt")
    saved = torch.load(tmp_path / "k.ckpt", weights_only=True)["state_dict"]
    assert saved["k_t"] == 0.37 and {"m_ema", "m_best", "stalled"} <= set(saved)
    del saved["k_t"]
    with pytest.raises(RuntimeError, match="k_t"):
        began().load_state_dict(saved)

    again = began()
    fit(again, data, 7).save_checkpoint(tmp_path / "7.ckpt")
    resumed = began()
    fit(resumed, data, 12, ckpt_path=tmp_path / "7.ckpt")
    for key, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_plateau_halves_both_rates_after_two_stalled_intervals():
    model = BEGAN(SPEC, latent=4, code=4, width=16, interval=1, lr_d=0.1, lr_g=0.2)
    optimisers = [*model.optimisers().values()]
    model.optimizers = lambda: optimisers
    for m in (1.0, 0.5, 0.499, 0.498):
        model.m_ema.fill_(m)
        model._plateau()
    assert [o.param_groups[0]["lr"] for o in optimisers] == [0.05, 0.1] and model.stalled == 0
    for _ in range(80):
        model._plateau()
    assert [o.param_groups[0]["lr"] for o in optimisers] == [1e-6, 1e-6]  # and no lower


def test_architecture_is_the_papers():
    model = BEGAN(DataSpec((3, 32, 32), 256), arch="conv", width=5, base=8, latent=6, code=7)
    encoder = [m for m in model.d.net.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in encoder if c.stride == (1, 1)] == [
        5,
        5,
        5,
        10,
        10,
        15,
        15,
    ]  # n, then n, 2n, 3n twice each
    assert [c.out_channels for c in encoder if c.stride == (2, 2)] == [5, 10]
    forbidden = (
        nn.BatchNorm2d,
        nn.Dropout,
        nn.ConvTranspose2d,
        nn.Tanh,
        nn.Sigmoid,
        nn.LayerNorm,
        nn.GroupNorm,
    )
    assert not any(isinstance(m, forbidden) for m in model.modules())
    assert (
        isinstance([*model.d.net.encoder.modules()][-1], nn.Linear)
        and model.d.net.encoder.code.out_features == 7
    )
    wide = model.g(1e4 * torch.ones(1, 6))
    assert wide.abs().max() > 10  # a linear end: nothing bounds the image
    x = torch.randint(0, 256, (2, 3, 32, 32)).float()
    assert torch.equal(model.decode(model.encode(x)), model.reconstruct(x))


@pytest.mark.parametrize("loop", SERVED, ids=str)
@pytest.mark.parametrize("options", ARCHITECTURES[:2], ids=["mlp", "conv"])
def test_the_loops_options_change_training_and_stay_finite(options, loop):
    def trained(**more) -> torch.Tensor:
        torch.manual_seed(0)
        model = BEGAN(SPEC, latent=4, code=4, vanishing_residual=5, **options, **more)
        model.k_t.fill_(0.5)  # as of a game that has gone on for a while
        fit(model, Given(SPEC, images(24), batch_size=4), 3)
        assert all(v.isfinite() for v in model.terms.values())
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    plain, other = trained(), trained(loop=loop)
    assert other.isfinite().all() and not torch.equal(other, plain)


def test_convergence_measure_is_at_least_the_real_loss_with_equality_in_balance():
    a, b = torch.rand(100, dtype=torch.float64), torch.rand(100, dtype=torch.float64)
    assert (convergence(a, b, 0.5) >= a).all()
    assert torch.equal(convergence(a, 0.5 * a, 0.5), a)


def test_inversion_finds_an_image_the_generator_can_make():
    model = BEGAN(SPEC, latent=2, code=4, width=32)
    target = model.sample(3, generator=torch.Generator().manual_seed(5))
    z = model.invert(target, steps=400, lr=0.05)
    start = model.invert(target, steps=0)
    error = [(SPEC.to_signed(target) - model.g(v)).abs().mean().item() for v in (start, z)]
    assert error[1] < 0.3 * error[0] + 1 / 16
    far = model.invert(torch.full_like(target, 16), steps=60, lr=0.5)  # an image it cannot make
    assert far.abs().max() == 1


def test_both_rates_are_halved_after_as_many_cycles_however_many_steps_a_player_takes():
    model = BEGAN(SPEC, latent=4, code=4, width=8, k=3, halve_every=4, lr_d=0.1, lr_g=0.2)
    optimisers = model.optimisers()
    schedules = model.schedulers(optimisers)
    for cycle in range(1, 9):
        for player in ("d", "d", "d", "g"):
            optimisers[player].step()
            schedules[player].step()
        rates = [optimisers[p].param_groups[0]["lr"] for p in ("d", "g")]
        assert rates == [pytest.approx(r * 0.5 ** (cycle // 4)) for r in (0.1, 0.2)]
    assert BEGAN(SPEC, halve_every=0).schedulers(optimisers) == {}


def test_what_a_cycle_logs_is_the_balance_the_convergence_measure_and_the_controllers_next_value():
    options = {"latent": 4, "code": 4, "width": 8, "gamma": 0.6, "lambda_k": 0.3}
    model, seen = BEGAN(SPEC, **options), []
    after = model.after_cycle

    def watch(terms):
        after(terms)
        seen.append({name: v.item() for name, v in terms.items()} | {"m": model.m_ema.item()})

    model.after_cycle = watch
    fit(model, Given(SPEC, images(64)), 3)
    k, mean = 0.0, None
    for terms in seen:
        real, fake = terms["recon_real"], terms["recon_fake"]
        balance = 0.6 * real - fake
        k = min(max(k + 0.3 * balance, 0), 1)
        measure = real + abs(balance)
        mean = measure if mean is None else 0.99 * mean + 0.01 * measure
        found = [terms[name] for name in ("balance", "k_t", "m_global", "m")]
        assert found == pytest.approx([balance, k, measure, mean], rel=1e-5, abs=1e-7)
    assert len(seen) == 3


@pytest.mark.parametrize("eta", [1, 2])
def test_energy_is_the_mean_error_to_the_power_that_is_asked(eta):
    model = BEGAN(SPEC, latent=4, code=4, width=8, eta=eta)
    v = SPEC.to_signed(images(5))
    error = (v - model.d.net.decoder(model.d.net.encoder(v))).flatten(1)
    expected = error.abs().mean(1) if eta == 1 else (error * error).mean(1)
    torch.testing.assert_close(model.d(v), expected)


def test_the_vanishing_residual_carries_the_input_at_first_and_nothing_in_the_end():
    model = BEGAN(SPEC, arch="conv", width=3, latent=4, code=4, vanishing_residual=4)
    seen, inner = [], model.before_cycle
    model.before_cycle = lambda step: (inner(step), seen.append(model.carry))
    fit(model, Given(SPEC, images(64)), 6)
    assert seen == [1, 0.75, 0.5, 0.25, 0, 0]
    z = torch.randn(2, 4)
    code = model.g.code(z).view(2, 3, 4, 4)
    up = nn.functional.interpolate(code, scale_factor=2, mode="nearest")
    torch.testing.assert_close(model.g(z, 1.0), model.g.image(up))  # no convolution but the last
    plain = code
    for i, pair in enumerate(model.g.pairs):
        plain = nn.functional.interpolate(plain, scale_factor=2, mode="nearest") if i else plain
        for conv in pair:
            plain = nn.functional.elu(conv(plain))
    torch.testing.assert_close(model.g(z, 0.0), model.g.image(plain))


def test_skip_connections_bring_the_first_maps_to_every_stage():
    model = BEGAN(DataSpec((1, 16, 16), 17), arch="conv", width=3, latent=4, code=4, skip=True)
    seen = []
    for pair in list(model.g.pairs)[1:]:
        pair[0].register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 3:]))
    z = torch.randn(2, 4)
    model.g(z)
    first = model.g.code(z).view(2, 3, 4, 4)
    assert len(seen) == 2
    for times, maps in zip((2, 4), seen, strict=True):
        assert torch.equal(maps, first.repeat_interleave(times, 2).repeat_interleave(times, 3))


def test_codes_fill_the_cube_and_samples_are_the_generators_of_them(model):
    z = model.codes(500)
    assert z.abs().max() <= 1 and z.var().item() == pytest.approx(1 / 3, rel=0.1)
    drawn = model.eval().sample(4, generator=torch.Generator().manual_seed(2))
    u = torch.rand(4, 4, generator=torch.Generator().manual_seed(2))
    assert torch.equal(drawn, SPEC.from_signed(model.g(2 * u - 1)))


@pytest.mark.slow
def test_digits_have_a_default_run_of_their_own_that_reaches_every_class(tmp_path):
    options = [f"--run_dir={tmp_path}/run", "--wandb.mode=disabled"]
    options += ["--trainer.enable_progress_bar=false"]
    assert command.main(["--model=began", "--data=digits", *options]) == 0
    values = last_metrics(tmp_path / "run" / "metrics.csv")
    assert values["val/classes_pixels"] > 9.5
    assert values["val/precision_pixels"] > 0.45 and values["val/recall_pixels"] > 0.2
