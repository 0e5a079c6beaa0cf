"""StyleGAN is StyleGAN: styles by layer that mix and truncate, noise by plane, R1 at real images;
and its second version.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan import stylegan
from zoo.gan.stylegan import ModulatedLayer, StyledLayer, StyleGAN, crossed, path_lengths
from zoo.nn.equalised import EqualisedConv2d, EqualisedLinear, pixel_norm
from zoo.nn.prior import Draw

SPEC = DataSpec((1, 16, 16), 17)
F64 = torch.float64


def make(**options) -> StyleGAN:
    torch.manual_seed(0)
    small = {"latent": 5, "units": 6, "depth": 2, "width": 2, "widest": 4, "rate": 0.01, **options}
    model = StyleGAN(SPEC, **small).double()
    model.noise = Noise(3, "test", dtype=F64)
    return model


def images(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch({"x": torch.randint(0, 17, (n, 1, 16, 16), generator=g).double()})


def styles(n: int = 4, layers: int = 6) -> torch.Tensor:
    return torch.randn(n, layers, 6, dtype=F64)


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), dtype=F64)


def test_a_layer_ends_in_maps_of_the_styles_mean_and_deviation():
    layer, h, w = (
        StyledLayer(3, 4, 6, True).double(),
        torch.randn(5, 3, 4, 4, dtype=F64),
        styles(5)[:, 0],
    )
    out = layer(h, w, torch.zeros(5, 1, 8, 8, dtype=F64))
    y = w @ (layer.style.weight * (1 / 6) ** 0.5).T + layer.style.bias
    torch.testing.assert_close(out.mean((2, 3)), y[:, 4:])
    torch.testing.assert_close(
        out.std((2, 3), correction=0), (1 + y[:, :4]).abs(), rtol=1e-5, atol=1e-5
    )
    assert layer.style.bias.abs().max() == 0 and out.shape == (5, 4, 8, 8)


@pytest.mark.parametrize("v2", [False, True])
def test_noise_has_no_strength_at_first_then_one_plane_for_all_maps_and_none_in_the_styles(v2):
    model, w = make(v2=v2), styles()
    one, other = (model.noises(4, draw(seed)) for seed in (0, 1))
    assert [v.shape[1:] for v in one] == [(1, s, s) for s in (4, 4, 8, 8, 16, 16)][v2:]
    a, b = (model.g.synthesis(w, noise, 2) for noise in (one, other))
    assert torch.equal(a, b)
    for layer in model.g.synthesis.layers:
        layer.strength.data.fill_(0.5)
    c, d = (model.g.synthesis(w, noise, 2) for noise in (one, other))
    assert not torch.allclose(a, c) and not torch.allclose(c, d)


def test_a_layers_noise_is_scaled_by_map_before_the_rectifier_and_the_norm():
    layer, h, w = (
        StyledLayer(0, 3, 6, False).double(),
        torch.randn(2, 3, 4, 4, dtype=F64),
        styles(2)[:, 0],
    )
    plane = torch.randn(2, 1, 4, 4, dtype=F64)
    layer.strength.data[:, 0, 0] = torch.tensor([0.0, 1.0, -2.0])
    layer.bias.data[:, 0, 0] = torch.tensor([0.5, 0.0, 0.1])
    v = h + torch.cat([0 * plane + 0.5, plane, 0.1 - 2 * plane], 1)
    v = torch.where(v > 0, v, 0.2 * v)
    v = (v - v.mean((2, 3), keepdim=True)) / v.std((2, 3), correction=0, keepdim=True)
    y_s, y_b = layer.style(w)[:, :, None, None].chunk(2, 1)
    torch.testing.assert_close(layer(h, w, plane), (1 + y_s) * v + y_b, rtol=1e-5, atol=1e-5)


def test_styles_before_the_crossover_are_of_one_code_and_from_there_of_the_other():
    a, b = styles(3)[:, 0].requires_grad_(), styles(3)[:, 1].requires_grad_()
    out = crossed(a, b, torch.tensor([1, 4, 6]), 6)
    for row, cut in enumerate((1, 4, 6)):
        for layer in range(6):
            assert torch.equal(out[row, layer], (a if layer < cut else b)[row])
    of_a, of_b = torch.autograd.grad(out[:, 0].sum() + out[2].sum(), (a, b), allow_unused=True)
    assert of_a.abs().min() > 0 and (of_b is None or of_b.abs().max() == 0)


def test_a_share_of_the_images_is_mixed_at_every_layer_but_never_before_the_first():
    model = make(mixing=0.9)
    out, w = model.styles(4000)
    assert torch.equal(out[:, 0], w)
    same = (out == w[:, None]).all(2).sum(1)  # layers of the first code
    counts = torch.bincount(same, minlength=7)
    assert counts[0] == 0 and counts[6].item() / 4000 == pytest.approx(0.1, abs=0.02)
    assert (counts[1:6] / 4000 - 0.18).abs().max() < 0.03
    out, w = make(mixing=0.0).styles(9)
    assert torch.equal(out, w[:, None].expand(-1, 6, -1))
    z = Noise(3, "test", dtype=F64).normal(9, 5)
    torch.testing.assert_close(w, make().g.mapping(z))


def test_the_mapping_is_slow_normalised_and_leaky():
    f, z = make().g.mapping, torch.randn(4, 5, dtype=F64)
    torch.testing.assert_close(f(3 * z), f(z))
    h = pixel_norm(z)
    for layer in [*f][::2]:
        h = h @ (layer.weight * 0.01 * (2 / layer.in_features) ** 0.5).T + 0.01 * layer.bias
        h = torch.where(h > 0, h, 0.2 * h)
    torch.testing.assert_close(f(z), h)
    wide = StyleGAN(SPEC, units=200, depth=3, rate=0.01).g.mapping[2]
    assert wide.weight.std().item() == pytest.approx(100, rel=0.02)


def test_r1_is_half_gamma_times_the_squared_slope_at_real_images_alone():
    model = make(r1=6.0)
    a = torch.linspace(-1, 1, 256, dtype=F64)
    model.d.net.forward = lambda x, alpha: x.flatten(1) @ a
    terms = model.discriminator_loss(images())
    assert terms["r1"].item() == pytest.approx(3 * a.square().sum().item())
    torch.manual_seed(1)
    model = make(r1=6.0)
    terms, plain = model.discriminator_loss(images()), make(r1=0.0).discriminator_loss(images())
    x = SPEC.to_signed(images()["x"]).requires_grad_()
    (slope,) = torch.autograd.grad(model.d.net(x, 1.0).sum(), x)
    torch.testing.assert_close(terms["r1"], 3 * slope.square().sum((1, 2, 3)).mean())
    torch.testing.assert_close(terms["loss"], plain["loss"] + terms["r1"])
    assert "r1" not in plain


def test_losses_are_cross_entropies_of_logits_of_fresh_images_with_fresh_noise():
    model = make(r1=0.0)
    for layer in model.g.synthesis.layers:
        layer.strength.data.fill_(1.0)
    loss = model.discriminator_loss(images())["loss"]
    model.noise = Noise(3, "test", dtype=F64)
    maker = model.generator_loss(Batch({}, 8))["loss"]
    model.noise = noise = Noise(3, "test", dtype=F64)
    w, _ = model.styles(8)
    planes = [noise.normal(8, 1, s, s) for s in (4, 4, 8, 8, 16, 16)]
    s = model.d.net(SPEC.to_signed(images()["x"]))
    t = model.d.net(model.g.synthesis(w, planes, 2))
    torch.testing.assert_close(loss, -s.sigmoid().log().mean() - (1 - t.sigmoid()).log().mean())
    torch.testing.assert_close(maker, -t.sigmoid().log().mean())


def test_the_mean_style_follows_the_first_codes_of_the_generators_turns():
    model = make(average=0.75)
    model.w_avg.fill_(2.0)
    model.discriminator_loss(images())
    assert (model.w_avg == 2).all()
    model.noise = Noise(3, "test", dtype=F64)
    terms = model.generator_loss(Batch({}, 8))
    w = model.g.mapping(Noise(3, "test", dtype=F64).normal(8, 5))
    expected = 0.75 * 2 + 0.25 * w.mean(0)
    torch.testing.assert_close(model.w_avg, expected.detach())
    assert terms["w_norm"].item() == pytest.approx(expected.norm().item())


def test_truncation_zero_is_one_image_and_one_leaves_styles_alone():
    model = make().eval()
    model.w_avg.copy_(torch.randn(6))
    z, w = torch.randn(5, 5, dtype=F64), styles(5)[:, 0]
    torch.testing.assert_close(model.truncated(w, 1.0), w[:, None].expand(-1, 6, -1))
    half = model.truncated(w, 0.5)
    torch.testing.assert_close(half, (0.5 * (w + model.w_avg))[:, None].expand(-1, 6, -1))
    flat = model.sample(5, truncation=0.0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flat, flat[:1].expand_as(flat))
    for layer in model.g.synthesis.layers:
        layer.strength.data.fill_(0.7)
    whole = model.sample(5, generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 5, generator=(g := torch.Generator().manual_seed(0)), dtype=F64)
    planes = [torch.randn(5, 1, s, s, generator=g, dtype=F64) for s in (4, 4, 8, 8, 16, 16)]
    v = model.g.synthesis(model.g.mapping(z)[:, None].expand(-1, 6, -1), planes, 2)
    assert torch.equal(whole, SPEC.from_signed(v)) and len(whole.unique(dim=0)) == 5
    assert all(0 <= psi <= 1 for psi in StyleGAN.truncations)


def test_only_the_first_eight_layers_are_truncated():
    model = StyleGAN(DataSpec((1, 64, 64), 17), latent=5, units=6, width=1, widest=2)
    w = torch.randn(2, 6)
    out = model.truncated(w, 0.0)
    assert out.shape == (2, 10, 6) and out[:, :8].abs().max() == 0
    assert torch.equal(out[:, 8:], w[:, None].expand(-1, 2, -1))


def test_mixing_gives_chosen_layers_the_styles_of_a_and_the_others_those_of_b():
    model, (a, b) = make().eval(), torch.randn(2, 3, 5, dtype=F64)
    seen = []
    model.g.synthesis.register_forward_pre_hook(lambda net, given: seen.append(given))
    out = model.mix(a, b, [0, 4])
    w, noises = seen[0][:2]
    for layer in range(6):
        expected = model.g.mapping(a if layer in (0, 4) else b)
        torch.testing.assert_close(w[:, layer], expected)
    assert out.shape == (3, 1, 16, 16) and len(noises[0]) == 1
    assert torch.equal(model.mix(a, b, range(6)), model.from_codes(a))
    assert torch.equal(model.mix(a, b, []), model.from_codes(b))
    with pytest.raises(ValueError, match=r"layers 0 to 5, got \[6\]"):
        model.mix(a, b, [6])


def test_interpolation_is_a_line_of_styles():
    model, (a, b) = make().eval(), torch.randn(2, 3, 5, dtype=F64)
    seen = []
    model.g.synthesis.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    frames = model.interpolate(a, b, 5)
    w = seen[0].unflatten(0, (3, 5))
    start, end = model.g.mapping(a), model.g.mapping(b)
    torch.testing.assert_close(w[:, 1, 2], 0.75 * start + 0.25 * end)
    assert torch.equal(frames[:, 0], model.from_codes(a)) and frames.shape == (3, 5, 1, 16, 16)


def test_path_length_in_w_is_the_jacobians_along_the_line():
    model = make().eval()
    values = model.evaluate(images(3), torch.Generator().manual_seed(0))["ppl_w"]
    source = draw()
    a, b = (model.g.mapping(source.normal(3, 5)) for _ in range(2))
    t = source.uniform(3, 1)
    planes = [model.get_buffer(f"plane{i}") for i in range(6)]

    def along(t):
        w = a + t * (b - a)
        return model.g.synthesis(w[:, None].expand(-1, 6, -1), planes, 2)

    _, slope = torch.autograd.functional.jvp(along, t, torch.ones_like(t))
    torch.testing.assert_close(values, slope.square().sum((1, 2, 3)), rtol=2e-2, atol=1e-9)


def test_progressive_begins_at_the_second_level_and_fades_the_next_in():
    model = make(progressive=True, fade=40, steady=100)
    assert (model.level, model.alpha, model.layers) == (1, 1.0, 4)
    seen = []
    model.d.net.register_forward_pre_hook(
        lambda net, given: seen.append((given[0].shape[2], given[1]))
    )
    model.discriminator_loss(images())
    model.shown.fill_(110)
    model.discriminator_loss(images())
    assert set(seen) == {(8, 1.0), (16, 0.25)}
    w, planes = styles(), model.noises(4, draw())
    start, middle, end = (model.g.synthesis(w, planes, 2, alpha) for alpha in (0.0, 0.25, 1.0))
    old = model.g.synthesis(w, planes, 1)
    torch.testing.assert_close(start, old.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(middle, 0.75 * start + 0.25 * end)
    assert make().level == 2 and make().alpha == 1
    with pytest.raises(ValueError, match="v2 is trained at one size"):
        make(progressive=True, v2=True)


def test_modulation_is_a_convolution_with_scaled_and_renormed_weights():
    layer, h, w = (
        ModulatedLayer(3, 4, 6, False).double(),
        torch.randn(2, 3, 5, 5, dtype=F64),
        styles(2)[:, 0],
    )
    out = layer(h, w, torch.zeros(2, 1, 5, 5, dtype=F64))
    s = layer.conv.style(w)
    for row in range(2):
        kernel = layer.conv.conv.weight / 27**0.5 * s[row][None, :, None, None]
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        v = F.conv2d(h[row : row + 1], kernel, padding=1)
        torch.testing.assert_close(
            out[row : row + 1], math.sqrt(2) * torch.where(v > 0, v, 0.2 * v)
        )
    still = layer(h, torch.zeros_like(w), torch.zeros(2, 1, 5, 5, dtype=F64))
    torch.testing.assert_close(layer.conv.style(0 * w), torch.ones(2, 3, dtype=F64))
    assert still.isfinite().all()


def test_path_lengths_are_the_norms_of_the_jacobian_applied_to_y():
    A = torch.randn(16, 12, dtype=F64)
    w = torch.randn(3, 2, 6, dtype=F64, requires_grad=True)
    image = (w.flatten(1) @ A.T).view(3, 1, 4, 4)
    y = torch.randn(3, 1, 4, 4, dtype=F64)
    expected = ((y.flatten(1) @ A).view(3, 2, 6) ** 2).sum(2).mean(1).sqrt()
    torch.testing.assert_close(path_lengths(image, w, y), expected)


def due_terms(model: StyleGAN, step: int, monkeypatch, logs: bool = True):
    monkeypatch.setattr(type(model), "step", property(lambda self: step))
    model.logs = logs
    model.noise = Noise(3, "test", dtype=F64)
    return model.discriminator_loss(images()), model.generator_loss(Batch({}, 8))


def test_the_second_versions_penalties_come_every_so_often_with_so_much_more_weight(monkeypatch):
    model = make(v2=True)
    model.path_avg.fill_(0.3)
    d, g = due_terms(model, 16, monkeypatch)
    avg = model.path_avg.item()
    assert avg == pytest.approx(0.3 + 0.01 * (g["path"].item() - 0.3))
    d_off, g_off = due_terms(model, 17, monkeypatch)
    assert model.path_avg.item() == avg
    torch.testing.assert_close(d["loss"] - d_off["loss"], 16 * d["r1"])
    torch.testing.assert_close(g["loss"] - g_off["loss"], 16 * g["path_penalty"])
    torch.testing.assert_close(d_off["r1"], d["r1"])
    d_only, _ = due_terms(model, 24, monkeypatch, logs=False)
    assert "r1" not in d_only
    _, g_8 = due_terms(model, 24, monkeypatch)
    assert (g_8["loss"] - g_off["loss"]).abs() > 0
    assert "path" not in due_terms(make(), 16, monkeypatch)[1]


def test_the_second_versions_path_is_of_the_images_with_normal_ones_over_root_pixels():
    model = make(v2=True)
    model.path_avg.fill_(0.3)
    terms = model.generator_loss(Batch({}, 8))
    model.noise = noise = Noise(3, "test", dtype=F64)
    w, _ = model.styles(8)
    w = w.detach().requires_grad_()
    planes = model.noises(8, noise)
    y = noise.normal(8, 1, 16, 16) / 16
    (slope,) = torch.autograd.grad((model.g.synthesis(w, planes, 2) * y).sum(), w)
    lengths = slope.square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(terms["path"], lengths.mean())
    expected = (lengths - model.path_avg).square().mean()
    torch.testing.assert_close(terms["path_penalty"], expected)
    assert terms["path"] > 0


def test_lazy_penalties_correct_the_rates():
    model = make(v2=True, lr_d=0.02, lr_g=0.03)
    groups = {p: o.param_groups[0] for p, o in model.optimisers().items()}
    assert groups["d"]["lr"] == pytest.approx(0.02 * 16 / 17)
    assert groups["g"]["lr"] == pytest.approx(0.03 * 8 / 9)
    assert groups["d"]["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert make(lr_d=0.02).optimisers()["d"].param_groups[0]["lr"] == 0.02


def test_the_second_versions_images_are_a_sum_over_sizes_and_its_blocks_residual():
    model = make(v2=True)
    w, planes = styles(), model.noises(4, draw())
    whole = model.g.synthesis(w, planes, 2)
    for layer in model.g.synthesis.to_image[:2]:
        layer.conv.weight.data.zero_()
    finest = model.g.synthesis(w, planes, 2)
    model.g.synthesis.to_image[2].conv.weight.data.zero_()
    assert model.g.synthesis(w, planes, 2).abs().max() == 0
    assert not torch.allclose(whole, finest)
    h = torch.randn(2, 2, 16, 16, dtype=F64)
    net = model.d.net
    out = net.half(2, h)
    for conv in net.blocks[1]:
        conv.weight.data.zero_()
        conv.bias.data.zero_()
    assert not torch.allclose(net.half(2, h), out) and net.half(2, h).abs().max() > 0
    kinds = (EqualisedConv2d, EqualisedLinear)
    assert all(isinstance(m, kinds) for m in model.modules() if hasattr(m, "weight"))


@pytest.mark.parametrize("options", [{"v2": True}, {"progressive": True, "fade": 8, "steady": 8}])
def test_variants_train_and_stay_finite(options):
    model = make(**options)
    fit(model, Given(SPEC, images(96)["x"], batch_size=4), 8, precision="64-true")
    assert all(p.isfinite().all() for p in model.parameters())
    assert stylegan.R1_EVERY == 16


def test_options_without_meaning_are_refused():
    for option, value in {"replay": 8, "spectral_norm": True, "r1": 1.0}.items():
        with pytest.raises(ValueError, match=f"loop.{option}.*stylegan"):
            StyleGAN(SPEC, loop={option: value})
