"""What makes GP-GAN itself: the critic's sign and schedule, the weight of the squared error, and
blends whose colours are G's and whose details are the images'.
"""

import numpy as np
import pytest
import torch

from zoo.core import Batch, Image, Spec
from zoo.core.noise import Noise
from zoo.nn.poisson import blended, composite, pyramid
from zoo.nn.prior import Draw
from zoo.translation.gp_gan import FIELDS, GPGAN, WASSERSTEIN, BlendingNetwork, seam

RGB = Image((3, 32, 32), 256)
SPEC = Spec("pairs", x=RGB, source=RGB, pasted=RGB, destination=RGB, mask=Image((1, 32, 32), 2))


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = GPGAN(spec, **{"size": 16, "width": 4, "bottleneck": 8, **options})
    made.noise = Noise(0, "check")
    return made


def batch(n=4):
    rows = SPEC.example(n, 1)
    mask = torch.zeros(n, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    source = torch.where(mask.bool(), rows["pasted"], rows["x"])
    return Batch({**rows, "source": source, "destination": rows["x"], "mask": mask}, n)


def told(rows):
    return {name: rows[name] for name in FIELDS}


def test_the_critic_is_high_on_images_and_g_raises_it():
    f = torch.tensor([-1.0, 0.5, 2.0])
    assert torch.equal(WASSERSTEIN.real(f), -f) and torch.equal(WASSERSTEIN.fake(f), f)
    assert torch.equal(WASSERSTEIN.maker(f), -f)
    m, rows = model(norm="none"), batch()
    m.d.net.forward = lambda v: v.flatten(1).mean(1)
    x, made = pyramid(m.scaled("x", rows["x"]), 16)[0], m.low(rows)
    terms = m.discriminator_loss(rows)
    assert terms["loss"].item() == pytest.approx((made.mean() - x.mean()).item(), abs=1e-6)
    assert terms["w_est"].item() == pytest.approx((x.mean() - made.mean()).item(), abs=1e-6)


@pytest.mark.parametrize("w", [0.999, 0.25])
def test_g_pays_w_of_the_mean_squared_error_and_the_rest_of_the_critics_view(w):
    m, rows = model(w=w, norm="none"), batch()
    x, s = (pyramid(m.scaled(k, rows[k]), 16)[0] for k in ("x", "source"))
    for p in m.g.parameters():
        torch.nn.init.normal_(p, 0, 0.2)  # an answer that depends on what it is shown
    made = m.g(s)
    assert (made - m.g(x)).abs().max() > 0.01
    mse = np.mean((made.detach().numpy() - x.numpy()) ** 2)
    terms = m.generator_loss(rows)
    assert terms["mse"].item() == pytest.approx(mse, rel=1e-5)
    wanted = -(1 - w) * m.d.net(made).mean().item() + w * mse
    assert terms["loss"].item() == pytest.approx(wanted, rel=1e-5)


def test_a_hundred_critic_steps_at_first_and_every_five_hundredth():
    steps = model(bursts=True, k=5).critic_steps
    assert {steps(i) for i in range(25)} == {100} == {steps(i) for i in (500, 1000)}
    assert {steps(i) for i in range(25, 500)} == {5} == {steps(501)}
    m = model(k=3)
    assert [p.times(0) for p in m.phases()] == [3, 1] and m.phases()[0].critic
    assert [p.times(0) for p in model(bursts=True).phases()] == [100, 1]


def test_after_the_critics_steps_alone_its_weights_are_within_the_clamp():
    m = model(c=0.003)
    before = [p.clone() for p in m.g.parameters()]
    m.after_step("g")
    assert max(p.abs().max() for p in m.d.parameters()) > 0.5
    m.after_step("d")
    largest = max(p.abs().max() for p in m.d.parameters()).item()
    assert largest == pytest.approx(0.003)
    assert all(torch.equal(p, q) for p, q in zip(m.g.parameters(), before, strict=True))


def test_gradients_stay_with_their_player():
    m, rows = model(), batch()
    m.discriminator_loss(rows)["loss"].backward()
    assert all(p.grad is None for p in m.g.parameters())
    assert any(p.grad is not None for p in m.d.parameters())


def test_a_blend_is_the_equation_of_gs_colours_and_the_images_gradients():
    for options, n in (({}, ("poisson", 1.0)), ({"solver": "least_squares", "beta": 0.2}, None)):
        m, rows = model(**options).eval(), batch()
        solver, beta = n or ("least_squares", 0.2)
        low = (m.g(pyramid(m.scaled("source", rows["source"]), 16)[0]) + 1) / 2
        images = (rows["pasted"] / 255, rows["destination"] / 255, rows["mask"])
        wanted = blended(low.clamp(0, 1), *images, beta, solver)
        made = m.sample(4, **told(rows))
        assert ((wanted.detach() * 255).round() - made).abs().max() <= 1
        given = {k: rows[k] for k in FIELDS[1:]}
        assert torch.equal(made, m.translate(rows["source"], **given))


def test_without_what_was_pasted_the_blend_is_gs_alone_enlarged():
    m, rows = model().eval(), batch()
    low = m.g(pyramid(m.scaled("source", rows["source"]), 16)[0]).detach()
    large = torch.nn.functional.interpolate(low, (32, 32), mode="bicubic")
    wanted = ((large + 1) * 127.5).round().clamp(0, 255)
    assert (m.translate(rows["source"]) - wanted).abs().max() <= 1


def test_images_of_any_size_are_blended():
    m = model().eval()
    g = torch.Generator().manual_seed(0)
    rows = {k: torch.randint(256, (2, 3, 40, 56), generator=g).float() for k in FIELDS[:3]}
    mask = torch.zeros(2, 1, 40, 56)
    mask[..., 10:30, 10:30] = 1
    made = m.translate(rows["source"], **{k: rows[k] for k in FIELDS[1:3]}, mask=mask)
    assert made.shape == (2, 3, 40, 56) and made.min() >= 0 and made.max() <= 255


def test_the_seam_is_how_far_differences_over_the_masks_edge_are_from_the_wanted_ones():
    rows = batch()
    x, s, d = (rows[k].double() / 255 for k in ("x", "pasted", "destination"))
    mask = rows["mask"].double()
    v = composite(s, d, mask)
    total, count = np.zeros(4), 0
    for i in range(8, 24):
        pairs = [((7, i), 0), ((23, i), 0), ((i, 7), 1), ((i, 23), 1)]
        for (r, c), axis in pairs:
            p, q = (r + 1, c) if axis == 0 else (r, c + 1)
            found = x[:, :, p, q] - x[:, :, r, c] - v[axis][:, :, r, c]
            total, count = total + found.abs().sum(1).numpy(), count + 3
    assert np.allclose(seam(x, s, d, mask).numpy(), total / count)
    assert seam(x, s, d, torch.zeros_like(mask)).tolist() == [0] * 4


def test_logged_are_gs_signal_to_noise_and_both_seams():
    m, rows = model().eval(), batch()
    terms = m.evaluate(rows)
    low = m.g(pyramid(m.scaled("source", rows["source"]), 16)[0]).detach()
    alone = torch.nn.functional.interpolate(low, (32, 32), mode="bicubic")
    alone = ((alone + 1) / 2).clamp(0, 1).numpy()
    error = ((alone - rows["x"].numpy() / 255) ** 2).mean((1, 2, 3))
    assert np.allclose(terms["psnr_gan"].detach().numpy(), -10 * np.log10(error), atol=1e-3)
    images = (rows["pasted"] / 255, rows["destination"] / 255, rows["mask"])
    assert torch.allclose(terms["seam_copy"], seam(rows["source"] / 255, *images), atol=1e-5)
    made = blended(((low + 1) / 2).clamp(0, 1), *images)
    assert torch.allclose(terms["seam"], seam(made, *images), atol=1e-4)
    assert terms["seam"].max() < terms["seam_copy"].min()


def test_a_code_of_so_many_numbers_is_all_that_g_knows():
    net = BlendingNetwork(3, 32, 4, 6, "batch")
    seen = []
    net.decoder.register_forward_hook(lambda d, inputs, out: seen.append(inputs[0]))
    v = torch.rand(5, 3, 32, 32)
    out = net(v)
    assert seen[0].shape == (5, 6) and out.shape == (5, 3, 32, 32) and out.abs().max() < 1
    h = net.encoder(v)
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(seen[0], torch.where(h > 0, h, 0.2 * h), atol=1e-4)


def test_without_supervision_g_makes_images_of_noise_and_z_is_sought_at_use():
    m, rows = model(supervised=False, search=30, lr_z=0.2), batch()
    assert [p.reads for p in m.phases()] == [("x",), ()]
    alone = Batch({}, 4)
    terms = m.generator_loss(alone)
    assert "mse" not in terms
    m.noise = Noise(0, "check")
    made = m.g(m.noise.normal(4, 8))
    assert terms["loss"].item() == pytest.approx(-m.d.net(made).mean().item(), abs=1e-5)
    m.discriminator_loss(rows.only(["x"]))
    m.eval()
    s, small = m.scaled("source", rows["source"]), pyramid(m.scaled("source", rows["source"]), 16)
    errors = []
    for search in (1, 100):
        m.search = search
        noise = Draw(torch.Generator().manual_seed(1))
        errors.append((m.made(s, noise) - small[0]).square().flatten(1).mean(1))
    assert (errors[1] < errors[0]).all()
    one, two = (
        m.translate(rows["source"], generator=torch.Generator().manual_seed(i)) for i in (1, 1)
    )
    assert torch.equal(one, two)
    first = m.translate(rows["source"][:1], generator=torch.Generator().manual_seed(1))
    assert (first - one[:1]).abs().max() <= 1


def test_weights_begin_small_and_options_reach_what_they_name():
    m = model(lr_d=3e-4, lr_g=5e-4, beta1=0.1, width=16)
    assert m.g.encoder.stages[1][0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert m.d.net.stages[0][0].weight.std().item() == pytest.approx(0.02, rel=0.2)
    rates = {k: o.param_groups[0] for k, o in m.optimisers().items()}
    assert rates["d"]["lr"] == 3e-4 and rates["g"]["lr"] == 5e-4
    assert rates["g"]["betas"] == (0.1, 0.999) and m.d.net.end.bias is None
    for norm, kind in (("batch", torch.nn.BatchNorm2d), ("layer", torch.nn.GroupNorm)):
        for net in (model(norm=norm).g, model(norm=norm).d):
            assert any(isinstance(n, kind) for n in net.modules())


def other(**fields):
    return Spec("pairs", **{**dict(SPEC.items()), **fields})


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        (other(pasted=Image((1, 32, 32), 256)), {}, "--data.kind=blend"),
        (other(mask=Image((3, 32, 32), 2)), {}, "mask of one channel"),
        (SPEC, {"size": 64}, "set model.size"),
        (SPEC, {"size": 18}, "a multiple of 4"),
    ],
)
def test_what_cannot_be_is_refused(spec, options, said):
    with pytest.raises(ValueError, match=said):
        model(spec, **options)
