"""EBGAN is EBGAN: energies with a margin for each sample, a generator that learns through both
ends, codes that are pulled apart.
"""

import pytest
import torch
from torch import nn

from zoo.check.processes import ddp_differences
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.ebgan import EBGAN, pulling_away

SPEC = DataSpec((1, 8, 8), 17)


def tiny(**options) -> EBGAN:
    model = EBGAN(SPEC, **{"latent": 4, "code": 6, "width": 4, "width_g": 4, **options})
    model.noise = Noise(0, "test")
    return model


def images(n: int) -> torch.Tensor:
    return torch.randint(0, 17, (n, 1, 8, 8)).float()


def test_best_energy_is_zero_or_the_margin_and_its_loss_the_margin_times_the_overlap():
    p, q = torch.randn(2, 8, dtype=torch.float64).softmax(1)
    model = tiny(margin=0.7)
    energy = torch.linspace(0, 2, 2001, dtype=torch.float64)[:, None]
    costs = p * model.d.price.real(energy) + q * model.d.price.fake(
        energy
    )  # of each energy at each of 8 points
    least, where = costs.min(0)
    torch.testing.assert_close(energy[where, 0], 0.7 * (p < q).double(), atol=1e-9, rtol=0)
    assert least.sum().item() == pytest.approx(0.7 * (1 - (p - q).abs().sum().item() / 2), abs=1e-9)
    equal = (p * model.d.price.real(energy) + p * model.d.price.fake(energy)).min(0).values.sum()
    assert equal.item() == pytest.approx(0.7, abs=1e-9)


def test_hinge_is_that_of_each_sample_and_those_above_the_margin_teach_nothing():
    model, fake = tiny(), torch.rand(16, 1, 8, 8) * torch.linspace(0.1, 2, 16).view(-1, 1, 1, 1)
    energy = model.d(fake).detach()
    model.margin = energy.median().item() + 1e-6
    above = energy >= model.margin
    assert 0 < above.sum() < 16
    parameters = [*model.parameters_of("d")]

    def gradients(rows):
        return torch.autograd.grad(model.d.price.fake(model.d(fake[rows])).sum(), parameters)

    assert all((g == 0).all() for g in gradients(above))
    for everyone, below in zip(gradients(slice(None)), gradients(~above), strict=True):
        torch.testing.assert_close(everyone, below, atol=1e-6, rtol=1e-4)
    assert model.d.watch(energy, energy)["hinge_active"].item() == pytest.approx(
        1 - above.float().mean().item()
    )


@pytest.mark.parametrize("error", ["mse", "l2"])
def test_energy_is_the_error_of_the_reconstruction(error):
    model, v = tiny(error=error), torch.rand(5, 1, 8, 8) * 2 - 1
    difference = (model.d.net(v) - v).flatten(1)
    torch.testing.assert_close(
        model.d(v), difference.pow(2).mean(1) if error == "mse" else difference.norm(dim=1)
    )
    at_zero = v.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.d.distance(at_zero, v).sum(), at_zero)
    assert torch.isfinite(slope).all()


def test_pulling_away_is_the_mean_squared_cosine_of_pairs():
    s = torch.randn(5, 3, dtype=torch.float64)
    pairs = [
        torch.cosine_similarity(s[i], s[j], 0) ** 2 for i in range(5) for j in range(5) if i != j
    ]
    assert pulling_away(s).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-12)
    assert pulling_away(torch.eye(4)).item() == pytest.approx(0, abs=1e-9)
    assert pulling_away(torch.ones(4, 3)).item() == pytest.approx(1, abs=1e-6)
    scaled = s * torch.tensor(
        [[3.0], [-1.0], [0.2], [-7.0], [1.0]]
    )  # signs too: anti-parallel codes are no variety
    assert pulling_away(scaled).item() == pytest.approx(pulling_away(s).item(), abs=1e-12)
    with pytest.raises(ValueError, match="needs two"):
        pulling_away(s[:1])


def test_energies_and_the_pulling_away_term_are_taken_in_single_precision_under_autocast():
    model, v, codes = tiny(), torch.rand(5, 1, 8, 8) * 2 - 1, torch.randn(5, 30)
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction, energy, term = model.d.net(v), model.d(v), pulling_away(codes)
        assert pulling_away(codes.bfloat16()).dtype == torch.float32
    assert (reconstruction.dtype, energy.dtype, term.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    torch.testing.assert_close(energy, (reconstruction.float() - v).square().flatten(1).mean(1))
    assert torch.equal(term, pulling_away(codes))
    assert model.double().d(v.double()).dtype == torch.float64


def test_energies_are_compared_with_the_error_of_the_mean_training_image():
    model, x = tiny(), images(2500)  # more than one part
    model.initialise_from(Batch({"x": x}))
    v = SPEC.to_signed(x)
    assert model.mean_error.item() == pytest.approx(v.var(0, correction=0).mean().item(), rel=1e-5)


def test_pulling_away_is_in_the_generators_loss_only():
    with_term, without = tiny(pt=0.5), tiny(pt=0.0)
    without.load_state_dict(with_term.state_dict())
    batch = Batch({"x": images(8)})
    losses = [model.discriminator_loss(batch)["loss"] for model in (with_term, without)]
    assert torch.equal(*losses)
    terms, plain = with_term.generator_loss(Batch({}, 8)), without.generator_loss(Batch({}, 8))
    torch.testing.assert_close(terms["loss"], plain["loss"] + 0.5 * terms["pt"])
    with_term.noise.draws = 1
    codes = with_term.d.net.encoder(with_term.g(with_term.codes(8)))
    torch.testing.assert_close(terms["pt"], pulling_away(codes))


def test_what_is_logged_of_energies_is_of_the_rows_it_names():
    model = tiny(margin=0.5)
    real, fake = torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.6, 0.7, 0.9])
    terms = model.d.watch(real, fake)
    assert terms["energy_real"].item() == pytest.approx(0.2)
    assert terms["energy_fake"].item() == pytest.approx(0.6)
    assert terms["hinge_active"] == 0.25


def test_held_out_energies_are_over_the_mean_images_and_below_those_of_noise_in_the_whole_cube():
    model, x = tiny(), images(6)
    model.mean_error.fill_(0.25)
    values = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(3))
    energy = (SPEC.to_signed(x) - model.d.net(SPEC.to_signed(x))).square().mean((1, 2, 3))
    torch.testing.assert_close(values["energy_ratio"], energy / 0.25)
    u = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    of_noise = model.d(2 * u - 1)
    expected = [sum((e > own).item() for e in of_noise) / 6 for own in energy]
    assert values["noise_auc"].tolist() == pytest.approx(expected)


def test_r1_is_of_the_energy_itself():
    model, x = tiny(loop={"r1": 3.0}), images(6)
    r1 = model.discriminator_loss(Batch({"x": x}))["r1"]
    v = SPEC.to_signed(x).requires_grad_()
    target = (v - model.d.net(v)).square().mean((1, 2, 3))
    (slope,) = torch.autograd.grad(target.sum(), v)
    torch.testing.assert_close(r1, 1.5 * slope.square().sum((1, 2, 3)).mean())


def test_the_networks_and_the_game_are_those_that_are_asked_for():
    model = tiny(norm="batch", norm_g="layer", k=3, lr_d=0.2, lr_g=0.1, beta1=0.3, prior="uniform")
    kinds = (nn.BatchNorm2d, nn.GroupNorm)
    assert {type(m) for m in model.g.modules() if isinstance(m, kinds)} == {nn.GroupNorm}
    wide = EBGAN(DataSpec((1, 16, 16), 17), norm="batch")
    assert any(isinstance(m, nn.BatchNorm2d) for m in wide.d.net.modules())
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]
    assert model.codes(500).abs().max() <= 1


def test_generator_learns_through_the_energys_input_and_its_target():
    model, fake = tiny(), (torch.rand(5, 1, 8, 8) * 2 - 1).requires_grad_()
    (full,) = torch.autograd.grad(model.d(fake).sum(), fake)
    (through_input,) = torch.autograd.grad(
        (model.d.net(fake) - fake.detach()).square().flatten(1).mean(1).sum(), fake
    )
    reconstruction = model.d.net(fake).detach()
    torch.testing.assert_close(
        full - through_input, 2 * (fake.detach() - reconstruction) / 64, atol=1e-6, rtol=1e-4
    )


def test_margin_falls_linearly_to_zero():
    model = tiny(margin=0.4, margin_steps=10)
    for step, expected in ((0, 0.4), (5, 0.2), (10, 0.0), (20, 0.0)):
        model._trainer = type("Clock", (), {"global_step": step})()
        assert model.d.price.fake(torch.zeros(1)).item() == pytest.approx(expected)


def test_codes_and_reconstructions_are_the_discriminators():
    model, x = tiny(), images(3)
    code = model.encode(x)
    assert code.shape == (3, 6)
    torch.testing.assert_close(model.reconstruct(x), SPEC.from_signed(model.d.net.decoder(code)))
    energy = (SPEC.to_signed(x) - model.d.net.decoder(code)).square().flatten(1).mean(1)
    torch.testing.assert_close(model.evaluate(Batch({"x": x}))["energy"], energy)


def test_noise_auc_is_the_share_of_pairs_in_which_noise_has_more_energy():
    model, x = tiny(), images(6)
    g = torch.Generator().manual_seed(3)
    auc = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(3))["noise_auc"].mean()
    noise = torch.rand(6, 1, 8, 8, generator=g) * 2 - 1
    of_data, of_noise = model.d(SPEC.to_signed(x)), model.d(noise)
    assert auc.item() == pytest.approx(sum((b > a).item() for a in of_data for b in of_noise) / 36)


def test_paper_networks_are_the_papers():
    with torch.device("meta"):
        model = EBGAN(
            DataSpec((3, 64, 64), 256),
            latent=100,
            code=0,
            width=64,
            stages=3,
            width_g=128,
            norm="batch",
            norm_g="batch",
        )
    down = [m.out_channels for m in model.d.net.encoder.modules() if isinstance(m, nn.Conv2d)]
    up = [
        m.out_channels for m in model.d.net.decoder.modules() if isinstance(m, nn.ConvTranspose2d)
    ]
    assert (down, up) == ([64, 128, 256], [128, 64, 3])
    assert [m.out_channels for m in model.g.modules() if isinstance(m, nn.ConvTranspose2d)] == [
        1024,
        512,
        256,
        128,
        3,
    ]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.d.net.modules()) == 4
    x = torch.zeros(2, 3, 64, 64, device="meta")
    assert model.d.net.encoder(x).shape == (2, 256, 8, 8) and model.d.net(x).shape == x.shape


@pytest.mark.parametrize(
    "options",
    [
        {"error": "l1"},
        {"cross_rank": "all"},
        {"margin": -1.0},
        {"pt": -0.5},
        {"norm": "layer"},
        {"stages": 4},
        {"stages": 0},
        {"stages": -1},
    ],
)
def test_settings_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        tiny(**options)


@pytest.mark.ddp
def test_pulling_away_of_two_processes_is_that_of_all_their_samples_unless_local():
    gather, local = (
        f"ebgan --model.pt=1 --model.cross_rank={name}" for name in ("gather", "local")
    )
    found = ddp_differences((gather, local), steps=2)
    assert not isinstance(found[gather], str) and not isinstance(found[local], str), found
    assert found[gather][0] < 1e-12 < 1e-6 < found[local][0]
