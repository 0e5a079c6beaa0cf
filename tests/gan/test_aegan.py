"""AEGAN learns to invert a frozen generator from the images it makes, not from their codes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.module import FORMAT
from zoo.core.noise import Noise
from zoo.gan.aegan import AEGAN, pixel_error

SPEC = DataSpec((1, 8, 8), 17)


def model(**options) -> AEGAN:
    torch.manual_seed(0)
    made = AEGAN(SPEC, **{"latent": 3, "width": 4, **options})
    made.noise = Noise(0, "test")
    return made


def images(n: int = 6) -> Batch:
    return Batch({"x": SPEC["x"].example(n, torch.Generator().manual_seed(1))})


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def linear(latent: int, *, even: bool = False) -> tuple[AEGAN, torch.Tensor]:
    """G(z) = A z, or A |z|, as an image, and a linear E."""

    class Linear(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return ((z.abs() if even else z) @ a.T).reshape(-1, 1, 8, 8)

    a = torch.randn(64, latent, generator=torch.Generator().manual_seed(2))
    made = model(latent=latent, stage_steps=0)
    made.g = Linear()
    made.e = nn.Sequential(nn.Flatten(), nn.Linear(64, latent, bias=False))
    made.stage.fill_(2)
    return made, a


def learn(aegan: AEGAN, steps: int = 200) -> dict[str, torch.Tensor]:
    optimiser = torch.optim.Adam(aegan.e.parameters(), 0.02)
    terms = {}
    for _ in range(steps):
        optimiser.zero_grad()
        terms = aegan.maker_loss(Batch({}, 32))
        terms["loss"].backward()
        optimiser.step()
    return terms


# -- the two stages --------------------------------------------------------------------------------
def test_second_stage_leaves_generator_and_its_statistics_bit_for_bit_and_moves_the_encoder():
    aegan = model(stage_steps=0)
    g, d, e = state(aegan.g), state(aegan.d), state(aegan.e)
    assert any("running_mean" in name for name in g)
    fit(aegan, Given(SPEC, images(16)["x"]), 20)
    assert same(g, state(aegan.g)) and same(d, state(aegan.d)) and not same(e, state(aegan.e))
    assert aegan.stage == 2


def test_first_stage_is_a_gan_of_k_steps_and_leaves_the_encoder():
    aegan = model(stage_steps=5, k=2)
    g, d, e = state(aegan.g), state(aegan.d), state(aegan.e)
    fit(aegan, Given(SPEC, images(16)["x"]), 5)
    assert same(e, state(aegan.e)) and aegan.stage == 1
    assert not same(g, state(aegan.g)) and not same(d, state(aegan.d))
    assert [aegan.phases()[0].times(step) for step in (0, 4, 5, 6)] == [2, 2, 0, 0]


def test_stage_begins_after_its_steps_and_puts_the_frozen_pair_in_evaluation_mode():
    aegan = model(stage_steps=5).train()
    aegan.before_cycle(4)
    assert aegan.stage == 1 and aegan.g.training and aegan.d.training
    aegan.before_cycle(5)
    assert aegan.stage == 2 and not aegan.g.training and not aegan.d.training
    assert aegan.e.training


def test_first_stage_plays_the_non_saturating_game():
    aegan, batch = model(norm="layer"), images()
    d_loss = aegan.discriminator_loss(batch)["loss"]
    aegan.noise = Noise(0, "test")
    made = aegan.g(aegan.codes(6))
    s, t = aegan.d(aegan.scaled(batch["x"])), aegan.d(made)
    by_hand = -s.sigmoid().log().mean() - (1 - t.sigmoid()).log().mean()
    assert d_loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    aegan.noise = Noise(0, "test")
    g_loss = aegan.maker_loss(Batch({}, 6))["loss"]
    assert g_loss.item() == pytest.approx(-t.sigmoid().log().mean().item(), rel=1e-5)
    grads = torch.autograd.grad(d_loss, [*aegan.g.parameters()], allow_unused=True)
    assert all(g is None for g in grads)


# -- the inverse -----------------------------------------------------------------------------------
def test_with_a_generator_of_absolute_values_images_are_inverted_and_codes_are_not():
    aegan, _ = linear(1, even=True)
    terms = learn(aegan)
    assert terms["gen_mse"] < 1e-4
    # E finds |z| or -|z|: half of the codes have the other sign, E (2z)² / 2 = 2/3
    errors = torch.stack([aegan.maker_loss(Batch({}, 2000))["code_mse"] for _ in range(5)])
    assert errors.mean().item() == pytest.approx(2 / 3, rel=0.1)


def test_the_baseline_by_codes_fails_there_since_it_takes_their_mean():
    aegan, _ = linear(1, even=True)
    aegan.image, aegan.code = 0.0, 1.0
    terms = learn(aegan)
    assert terms["code_mse"].item() == pytest.approx(1 / 3, rel=0.2)  # that of E = 0
    assert terms["gen_mse"] > 0.05


def test_encoder_of_a_linear_generator_becomes_its_left_inverse():
    aegan, a = linear(3)
    learn(aegan, 300)
    product = aegan.e[1].weight @ a
    torch.testing.assert_close(product, torch.eye(3), atol=0.01, rtol=0)


def test_gradient_goes_through_the_generator_to_the_encoder_alone():
    aegan = model(norm="layer")
    z = aegan.codes(6)
    aegan.noise = Noise(0, "test")
    loss = aegan.inverse_loss(Batch({}, 6))["loss"]
    loss.backward()
    assert all(p.grad is None for net in (aegan.g, aegan.d) for p in net.parameters())
    target = aegan.g(z).detach()
    by_hand = 0.25 * F.mse_loss(aegan.g(aegan.e(target)), target)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    wanted = torch.autograd.grad(by_hand, [*aegan.e.parameters()])
    for p, g in zip(aegan.e.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, atol=1e-7, rtol=1e-4)


def test_second_stage_reads_no_example_unless_told_to():
    assert model().phases()[1].reads == () and model(real=1.0).phases()[1].reads == ("x",)
    aegan, batch = model(norm="layer", image=0.0, real=2.0), images()
    loss = aegan.inverse_loss(batch)["loss"]
    v = SPEC["x"].to_signed(batch["x"])
    wanted = 2 * 0.25 * F.mse_loss(aegan.g(aegan.e(v)), v)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_each_error_has_its_weight():
    def terms(**weights):
        return model(norm="layer", **weights).inverse_loss(Batch({}, 6))

    both = terms(image=2.0, code=3.0)
    wanted = 2 * both["gen_mse"] + 3 * both["code_mse"]
    assert both["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(ValueError, match="nothing to learn by"):
        model(image=0.0)


# -- a generator of another run --------------------------------------------------------------------
def checkpoint(path, aegan: AEGAN, **said):
    params = {"prior": "uniform", **said}
    zoo = {"format": FORMAT, "version": "0", "model": "dcgan", "params": params}
    kept = {k: v for k, v in aegan.state_dict().items() if not k.startswith("e.")}
    torch.save({"zoo": zoo | {"spec": SPEC.asdict()}, "state_dict": kept}, path)
    return str(path)


def test_generator_and_discriminator_of_a_checkpoint_are_taken_and_the_averages_first(tmp_path):
    torch.manual_seed(5)
    other = AEGAN(SPEC, latent=3, width=4)
    path = checkpoint(tmp_path / "a.ckpt", other)
    aegan = model(init_from=path, stage_steps=0)
    e = state(aegan.e)
    aegan.initialise_from(images())
    assert same(state(other.g), state(aegan.g)) and same(state(other.d), state(aegan.d))
    assert same(e, state(aegan.e))
    (tmp_path / "checkpoints").mkdir()
    checkpoint(tmp_path / "checkpoints" / "last.ckpt", other)  # the folder of a run stands for it
    again = model(init_from=str(tmp_path), stage_steps=0)
    again.initialise_from(images())
    assert same(state(other.g), state(again.g))
    held = torch.load(path)
    held["ema"] = {"g.net.1.weight": torch.ones_like(other.g.net[1].weight)}
    torch.save(held, path)
    aegan.initialise_from(images())
    assert (aegan.g.net[1].weight == 1).all()


def test_a_checkpoint_of_other_codes_or_widths_is_refused_with_a_remedy(tmp_path):
    path = checkpoint(tmp_path / "a.ckpt", model(), prior="normal")
    with pytest.raises(ValueError, match=r"model\.prior=normal"):
        model(init_from=path).initialise_from(images())
    path = checkpoint(tmp_path / "b.ckpt", model(width=8))
    with pytest.raises(ValueError, match=r"does not fit.*width"):
        model(init_from=path).initialise_from(images())
    with pytest.raises(FileNotFoundError):
        model(init_from=str(tmp_path / "none.ckpt")).initialise_from(images())


# -- use -------------------------------------------------------------------------------------------
def test_codes_stay_in_the_cube_of_a_uniform_prior_alone():
    v = 100 * torch.randn(50, 1, 8, 8)
    assert model().e(v).abs().max() <= 1 < model(prior="normal").e(v).abs().max()
    assert model(latent=1).e(v).shape == (50, 1)


def test_reconstruction_is_the_generators_of_the_code():
    aegan, x = model().eval(), images()["x"]
    z = aegan.e(SPEC["x"].to_signed(x))
    assert torch.equal(aegan.encode(x), z)
    assert torch.equal(aegan.reconstruct(x), SPEC["x"].from_signed(aegan.g(z)))
    assert torch.equal(aegan.decode(z), aegan.reconstruct(x))


def test_validation_compares_examples_and_samples_with_their_own_reconstructions():
    aegan, batch = model().eval(), images()
    with torch.no_grad():
        for p in (*aegan.g.parameters(), *aegan.e.parameters()):
            p.mul_(10)  # at first all images are nearly grey
    values = aegan.evaluate(batch, torch.Generator().manual_seed(3))
    z = 2 * torch.rand(6, 3, generator=torch.Generator().manual_seed(3)) - 1
    for name, v in (("recon", aegan.scaled(batch["x"])), ("gen", aegan.g(z))):
        code = aegan.e(v)
        unit, made = (v + 1) / 2, (aegan.g(code) + 1) / 2
        own = (made - unit).square().mean((1, 2, 3))
        other = (made[[5, 0, 1, 2, 3, 4]] - unit).square().mean((1, 2, 3))
        torch.testing.assert_close(values[f"{name}_mse"], own)
        torch.testing.assert_close(values[f"{name}_permuted"], other)
    torch.testing.assert_close(values["code_mse"], (code - z).square().mean(1))


def test_rates_are_each_networks_own():
    made = model(lr_d=0.1, lr_g=0.2, lr_e=0.3, beta1=0.4).optimisers()
    assert [g["lr"] for g in made["g"].param_groups] == [0.2, 0.3]
    assert [len(g["params"]) for g in made["g"].param_groups] == [
        len([*net.parameters()]) for net in (model().g, model().e)
    ]
    assert made["d"].defaults["lr"] == 0.1
    assert all(o.defaults["betas"] == (0.4, 0.999) for o in made.values())


def test_pixel_error_is_of_images_from_zero_to_one():
    black, white = torch.full((2, 1, 4, 4), -1.0), torch.ones(2, 1, 4, 4)
    assert pixel_error(black, white).tolist() == [1.0, 1.0]
