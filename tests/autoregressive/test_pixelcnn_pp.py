"""PixelCNN++ is PixelCNN++: shifted streams at several resolutions, coupled mixtures of discretised
logistics, cached sampling.
"""

import itertools

import pytest
import torch
from scipy.special import expit
from torch.utils.flop_counter import FlopCounterMode

from tests.support import Given, fit
from zoo.autoregressive.pixelcnn_pp import GatedResnet, PixelCNNpp, mixture
from zoo.check.likelihoods import (
    assert_rows_do_not_talk,
    coverage,
    dependence,
    every_image,
    leaks,
    sampler_distance,
    total_mass,
)
from zoo.core import Batch, DataSpec
from zoo.nn.shifted_conv import Conv, PixelConv, RowConv

BINARY = DataSpec((1, 2, 4), 2)
COLOUR = DataSpec((3, 2, 2), 2)


def pp(spec: DataSpec = BINARY, seed: int = 0, **options) -> PixelCNNpp:
    torch.manual_seed(seed)
    model = PixelCNNpp(spec, **{"width": 6, "components": 3, **options})
    for p in model.parameters():
        p.data.normal_(0, 0.4)
    return model.double().eval()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [4, 17])
def test_the_mixture_of_one_pixel_sums_to_one_over_all_its_values(channels, levels):
    model = pp(DataSpec((channels, 2, 2), levels))
    pixels = torch.tensor([*itertools.product(range(levels), repeat=channels)]).double()
    params = (
        2
        * torch.randn(
            3 * (1 + 2 * channels + channels * (channels - 1) // 2),
            generator=torch.Generator().manual_seed(1),
        ).double()
    )
    log_pi, m, log_s = mixture(params.expand(len(pixels), -1), model.spec.to_signed(pixels))
    mass = (log_pi + model.head.log_mass(m, log_s, pixels[..., None]).sum(-2)).logsumexp(-1).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    "spec", [BINARY, DataSpec((1, 2, 2), 3), COLOUR], ids=["1x2x4-2", "1x2x2-3", "3x2x2-2"]
)
def test_probabilities_of_all_images_sum_to_one(spec):
    assert total_mass(pp(spec).log_prob, spec) == pytest.approx(1, abs=1e-9)


def test_probabilities_sum_to_one_for_each_label_and_after_training():
    model = PixelCNNpp(DataSpec((1, 2, 4), 2, 3), width=6, conditional=True)
    x = every_image(model.spec)[::3].float()
    fit(model, Given(model.spec, x, torch.arange(len(x)) % 3), 10)
    model.double().eval()
    for label in range(3):
        mass = total_mass(
            lambda x, label=label: model.log_prob(x, y=torch.full((len(x),), label)), model.spec
        )
        assert mass == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    "spec", [BINARY, COLOUR, DataSpec((1, 8, 8), 2)], ids=["1x2x4", "3x2x2", "1x8x8"]
)
def test_conditionals_depend_on_earlier_dimensions_only(spec):
    resolutions = 3 if spec.shape[1] == 8 else 2
    depends = dependence([pp(spec, seed, resolutions=resolutions) for seed in range(2)])
    assert not depends.triu().any() and coverage(depends) > 0.95
    if spec.dim < 20:
        assert coverage(depends) == 1 and not leaks(pp(spec), every_image(spec)[[7, 200]])


def test_the_joint_mixture_is_the_product_of_its_conditionals():
    model, x = pp(COLOUR), every_image(COLOUR)[::31]
    product = model.log_conditionals(model.conditionals(x), x.flatten(1)).sum(1)
    torch.testing.assert_close(model.log_prob(x), product, rtol=0, atol=1e-10)


def test_masses_are_differences_of_the_logistic_distribution_function():
    model = pp(DataSpec((1, 2, 2), 17))
    params = torch.tensor([0.2, -0.4, 0.5, 0.3, -0.6, 0.9, -1.5, -2.0, -0.5]).double()
    table = model.table(params, torch.zeros(1).double(), 0).exp().numpy()
    pi, m, s = params[:3].softmax(0).numpy(), params[3:6].numpy(), params[6:].exp().numpy()
    for level in range(17):
        v = 2 * level / 16 - 1
        above = 1.0 if level == 16 else expit((v - m + 1 / 16) / s)
        below = 0.0 if level == 0 else expit((v - m - 1 / 16) / s)
        assert table[level] == pytest.approx((pi * (above - below)).sum(), rel=1e-8)


def test_green_depends_on_red_only_through_the_mixture_unless_coupled():
    model = pp(
        DataSpec((3, 2, 2), 5), components=1
    )  # with one component the weights tell nothing either
    params = torch.randn(10, generator=torch.Generator().manual_seed(0)).double()
    red = [torch.tensor([value, 0.0, 0.0]).double() for value in (0, 4)]
    coupled = [model.table(params, pixel, 1) for pixel in red]
    assert not torch.allclose(*coupled)
    params[7:] = 0  # c0, c1, c2
    alone = [model.table(params, pixel, 1) for pixel in red]
    assert torch.equal(*alone)
    (_, free, _), (_, shifted, _) = (mixture(params, model.spec.to_signed(pixel)) for pixel in red)
    assert torch.equal(free, shifted)


def test_blue_moves_with_the_true_values_of_red_and_green():
    params = torch.tensor([0.0, 0.1, 0.2, 0.3, 0, 0, 0, 0.5, -0.7, 1.1]).double()
    x = torch.tensor([-0.6, 0.4, 0.9]).double()
    m = mixture(params, x)[1][:, 0]
    c = torch.tanh(params[7:])
    torch.testing.assert_close(
        m, torch.stack([params[1], params[2] + c[0] * x[0], params[3] + c[1] * x[0] + c[2] * x[1]])
    )


@pytest.mark.parametrize(("blocks", "resolutions"), [(1, 1), (2, 2), (1, 3)])
def test_every_skip_is_used_and_every_parameter_learns(blocks, resolutions):
    model = pp(DataSpec((1, 8, 8), 5), blocks=blocks, resolutions=resolutions)
    level, counts = model.net.level, []
    while level is not None:
        counts.append((len(level.up_u), len(level.down_u)))
        level = level.inner
    assert counts == [(blocks, blocks + 1)] * (resolutions - 1) + [
        (blocks, blocks)
    ]  # 5, 6, 6 from the coarsest in the paper
    model.loss(Batch({"x": torch.randint(5, (4, 1, 8, 8)).double()}))["loss"].backward()
    # the last level's u is read by ul; nothing else of u leaves the network
    silent = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert not silent


def test_the_gradient_is_finite_thirty_scales_from_the_mean():
    model = pp(DataSpec((1, 2, 2), 256), components=1)
    params = torch.tensor([0.0, 0.9, -5.0]).double().requires_grad_()
    log_pi, m, log_s = mixture(params, torch.tensor([-0.5]).double())
    value = (
        log_pi + model.head.log_mass(m, log_s, torch.tensor([[64.0]]).double()).sum(-2)
    ).logsumexp(-1)
    value.sum().backward()
    assert value.item() < -150 and torch.isfinite(params.grad).all() and params.grad[1].abs() > 1


def test_convolutions_start_with_unit_variance_on_the_data_the_second_of_a_block_with_a_tenth():
    torch.manual_seed(0)
    model, seen = PixelCNNpp(DataSpec((1, 8, 8), 17), dropout=0.5), {}
    x = torch.randint(17, (100, 1, 8, 8)).float()
    model.initialise_from(Batch({"x": x}))
    for name, conv in model.net.named_modules():
        if isinstance(conv, Conv):
            conv.register_forward_hook(lambda m, a, out, name=name: seen.__setitem__(name, out))
    model.eval().log_prob(x)
    assert len(seen) > 20
    for name, out in seen.items():
        scale = 0.1 if name.endswith(".second") else 1.0
        assert out.mean((0, 2, 3)).abs().max() < 1e-4
        torch.testing.assert_close(
            out.std((0, 2, 3)), torch.full((out.shape[1],), scale), rtol=1e-3, atol=1e-4
        )


def test_the_second_half_of_a_blocks_maps_is_the_gate_of_the_first():
    block = next(m for m in pp().modules() if isinstance(m, GatedResnet))
    x = torch.randn(2, 6, 3, 3).double()
    halves = torch.cat([torch.full_like(x, 2.0), torch.zeros_like(x)], 1)
    out = block(x, first=lambda c: c, second=lambda c: halves)
    torch.testing.assert_close(out, x + 1)  # 2 σ(0)


@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 3), DataSpec((3, 4, 4), 4), DataSpec((1, 8, 12), 5)], ids=str
)
@pytest.mark.parametrize("options", [{}, {"resolutions": 3, "blocks": 2}], ids=["two", "three"])
def test_cached_sampling_gives_the_integers_of_naive_sampling(spec, options):
    model = pp(spec, **options)
    for seed in (0, 1):
        a, b = (
            model.sample(3, generator=torch.Generator().manual_seed(seed), cache=cache)
            for cache in (True, False)
        )
        assert torch.equal(a, b)


def test_cached_conditionals_are_those_of_one_pass_in_single_precision():
    model = pp(DataSpec((3, 4, 4), 4)).float()
    x = torch.randint(4, (2, 3, 4, 4)).float()
    want, stream = model.conditionals(x), model.stream(2)
    with torch.no_grad():
        params = next(stream)
        for i, d in enumerate(model.order.tolist()):
            torch.testing.assert_close(params, want[:, d], rtol=0, atol=1e-5)
            if i + 1 < 48:
                params = stream.send(x.flatten(1)[:, d])


def test_cached_sampling_computes_each_hidden_value_once(monkeypatch):
    model, calls = pp(DataSpec((1, 8, 8), 2)), {}
    for kind in (RowConv, PixelConv):
        plain = kind.__call__

        def count(self, x, plain=plain):
            calls.setdefault(id(self), [0, self])[0] += x.shape[3]
            return plain(self, x)

        monkeypatch.setattr(kind, "__call__", count)
    model.sample(2)
    assert (
        max(n for n, _ in calls.values()) == 64 and min(n for n, _ in calls.values()) >= 16
    )  # positions of the two resolutions
    with FlopCounterMode(display=False) as counter:
        model.sample(2)
    cached = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.conditionals(torch.zeros(2, 1, 8, 8).double())
    assert cached < 1.5 * counter.get_total_flops()


@pytest.mark.parametrize(
    "spec", [DataSpec((1, 2, 2), 3), DataSpec((3, 2, 2), 2)], ids=["1x2x2-3", "3x2x2-2"]
)
def test_samples_have_the_probabilities_of_the_model(spec):
    assert sampler_distance(pp(spec)) < (
        0.05 if spec.dim == 4 else 0.2
    )  # of 4096 states 20,000 draws leave about 0.18


def test_averaged_evaluation_has_no_dropout():
    model, x = pp(dropout=0.5), every_image(BINARY)[::9]
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    assert_rows_do_not_talk(model.log_prob, x)


def test_the_rate_falls_by_its_factor_at_every_step_and_adam_has_its_betas():
    model = pp(lr=0.1, decay=0.5, betas=(0.8, 0.95))
    made = model.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(3):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.1, 0.05, 0.025])
    assert made["optimizer"].param_groups[0]["betas"] == (0.8, 0.95)
    assert isinstance(pp(decay=1.0).configure_optimizers(), torch.optim.Adam)


def test_no_logistic_is_narrower_than_exp_minus_seven():
    params = torch.tensor([0.0, 0.5, -30.0]).double()  # logit, mean and log-scale
    assert mixture(params, torch.zeros(1).double())[2].item() == -7.0


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (DataSpec((2,)), {}, r"pixelcnn_pp models images.*; choose"),
        (DataSpec((1, 4, 4)), {}, r"pixelcnn_pp models discrete data.*; choose"),
        (
            DataSpec((1, 6, 6), 2),
            {"resolutions": 3},
            r"pixelcnn_pp with resolutions=3 needs sides divisible by 4.*; lower it",
        ),
        (
            BINARY,
            {"conditional": True},
            r"conditional=true needs labels.*; choose labelled data such as digits",
        ),
    ],
)
def test_impossible_requests_are_refused(spec, options, message):
    with pytest.raises(ValueError, match=message):
        PixelCNNpp(spec, **options)
