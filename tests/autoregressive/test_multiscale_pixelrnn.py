"""Multi-scale PixelRNN is Multi-scale PixelRNN: an exact likelihood in two parts, a condition that
sees the future, copied pixels.
"""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support import Given, fit
from zoo.autoregressive.multiscale_pixelrnn import MultiScalePixelRNN
from zoo.autoregressive.pixelrnn import PixelRNN
from zoo.check import likelihoods
from zoo.check.likelihoods import (
    TINY,
    TINY_NAMES,
    coverage,
    dependence,
    every_image,
    leaks,
    sampler_distance,
    total_mass,
)
from zoo.core import Batch, DataSpec
from zoo.nn.pixel_lstm import VARIANTS

BINARY = DataSpec((1, 4, 4), 2)
both = pytest.mark.parametrize("variant", VARIANTS)


def multiscale(
    spec: DataSpec = BINARY, seed: int = 0, scale: float = 1.5, **options
) -> MultiScalePixelRNN:
    torch.manual_seed(seed)
    model = MultiScalePixelRNN(spec, **{"n": 1, "h": 4, "head": 6, "e": 3, **options})
    for p in model.parameters():
        p.data.mul_(scale)
    return model.double().eval()


def mass(model: MultiScalePixelRNN) -> float:
    with torch.no_grad():
        return sum(model.log_prob(x).exp().sum().item() for x in every_image(BINARY).split(8192))


@both
def test_probabilities_of_all_images_sum_to_one_if_the_small_image_is_copied(variant):
    model = multiscale(variant=variant)
    assert model.likelihood_kind == "exact_mass" and mass(model) == pytest.approx(1, abs=1e-8)


def test_they_sum_to_less_if_it_is_predicted_again():
    model = multiscale(constrained=False)
    assert model.likelihood_kind == "lower_bound" and 0.01 < mass(model) < 0.9


def test_joint_of_small_and_large_image_sums_to_one_if_it_is_predicted_again():
    model = multiscale(DataSpec((1, 2, 2), 3), constrained=False)
    small, large = every_image(DataSpec((1, 1, 1), 3)), every_image(model.spec)
    with torch.no_grad():
        total = sum(
            (model.log_small(s[None]) + model.log_cond(large, s.expand(81, 1, 1, 1))).exp().sum()
            for s in small
        )
    assert total.item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_probabilities_still_sum_to_one_after_training(spec):
    model = multiscale(spec).float().train()
    fit(model, Given(spec, every_image(spec)[::7].float()), 20)
    assert total_mass(model.double().eval().log_prob, spec) == pytest.approx(1, abs=1e-8)


@both
@pytest.mark.parametrize("spec", [*TINY, BINARY], ids=str)
def test_conditionals_depend_on_all_earlier_dimensions_of_the_order_and_no_other(variant, spec):
    depends = dependence(
        [multiscale(spec, seed, variant=variant, h=12, head=24, e=8) for seed in range(3)]
    )
    assert not depends.triu().any() and coverage(depends) == 1


@pytest.mark.parametrize("spec", [*TINY, DataSpec((3, 2, 2), 2)], ids=str)
def test_a_changed_level_changes_no_bit_of_earlier_conditionals(spec):
    assert leaks(multiscale(spec), every_image(spec)[::97]) == []


@both
def test_last_pixel_of_the_small_image_reaches_the_first_one_that_is_not_copied(variant):
    model, x = multiscale(variant=variant), every_image(BINARY)[[777]]
    s = model.subsample(x).clone()
    before = model.large_conditionals(x, s)
    s[..., -1, -1] = 1 - s[..., -1, -1]
    assert (model.large_conditionals(x, s)[0, 1] != before[0, 1]).all()


@both
def test_large_network_is_causal_in_the_large_image_given_the_small_one(variant):
    model, x = (
        multiscale(DataSpec((1, 3, 4), 2), variant=variant),
        torch.rand(1, 1, 3, 4, dtype=torch.float64),
    )
    s = model.subsample(x)
    jacobian = torch.func.jacrev(lambda v: model.large_conditionals(v, s)[0, :, 0])(x).view(12, 12)
    assert (jacobian.triu() == 0).all() and (jacobian != 0).sum() > 40


@both
def test_without_the_condition_it_is_a_pixelrnn_of_the_pixels_that_are_not_copied(variant):
    model, x = multiscale(variant=variant), every_image(BINARY)[::5000]
    plain = PixelRNN(BINARY, variant, n=1, h=4, head=6).double()
    plain.network.load_state_dict(
        {k: v for k, v in model.large.state_dict().items() if "condition" not in k}
    )
    for block in model.large.blocks:
        block.condition.weight.data.zero_()
    rest = [d for d in range(16) if d not in (0, 2, 8, 10)]
    expected = plain.log_conditionals(plain.conditionals(x), x.flatten(1))[:, rest].sum(1)
    torch.testing.assert_close(model.log_cond(x, model.subsample(x)), expected)
    small = PixelRNN(DataSpec((1, 2, 2), 2), variant, n=1, h=4, head=6).double()
    small.network.load_state_dict(model.small.state_dict())
    torch.testing.assert_close(model.log_prob(x), expected + small.log_prob(x[:, :, ::2, ::2]))


def test_the_two_networks_share_no_gradient():
    model, x = multiscale(), every_image(BINARY)[::9000]
    s = model.subsample(x)
    for value, name in ((model.log_small(s), "small"), (model.log_cond(x, s), "large")):
        grads = torch.autograd.grad(value.sum(), [*model.parameters()], allow_unused=True)
        used = {
            n.split(".")[0]
            for (n, _), g in zip(model.named_parameters(), grads, strict=True)
            if g is not None
        }
        assert used == ({"small"} if name == "small" else {"large", "upsampler"})


@pytest.mark.parametrize("spec", [DataSpec((1, 4, 4), 4), DataSpec((3, 5, 3), 3)], ids=str)
def test_enlarged_images_contain_the_small_one_and_follow_the_conditional(spec):
    model, g = multiscale(spec), torch.Generator().manual_seed(0)
    s = model.subsample(torch.randint(spec.levels, (7, *spec.shape)).double())
    x = model.translate(s, generator=g)
    assert torch.equal(model.subsample(x), s) and x.unique().numel() == spec.levels
    free = multiscale(spec, constrained=False)
    assert free.translate(s, generator=g).shape == x.shape
    with pytest.raises(ValueError, match="multiscale_pixelrnn enlarges"):
        model.translate(x)


def test_enlarged_images_have_the_probabilities_of_the_conditional():
    spec = DataSpec((1, 2, 2), 3)
    model, images = multiscale(spec, scale=2.5), every_image(spec)
    images = images[images[:, 0, 0, 0] == 2]
    p = model.log_cond(images, model.subsample(images)).exp()
    assert p.sum().item() == pytest.approx(1)
    drawn = model.translate(
        torch.full((20_000, 1, 1, 1), 2.0).double(), generator=torch.Generator().manual_seed(0)
    ).flatten(1)
    seen = (
        torch.bincount((drawn[:, 1:] @ torch.tensor([9.0, 3.0, 1.0]).double()).long(), minlength=27)
        / 20_000
    )
    assert 0.5 * (seen - p).abs().sum() < 0.03


@pytest.mark.parametrize("cache", [True, False])
def test_samples_follow_the_density(cache):
    assert sampler_distance(multiscale(TINY[1]), cache=cache) < 0.05


@both
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 4, 4), 4), DataSpec((1, 5, 3), 3)], ids=str
)
def test_cached_sampling_gives_the_integers_of_naive_sampling(variant, spec, constrained):
    model = multiscale(spec, variant=variant, constrained=constrained)
    for seed in (0, 1):
        fast, slow = (
            model.sample(8, generator=torch.Generator().manual_seed(seed), cache=c)
            for c in (True, False)
        )
        assert torch.equal(fast, slow)
    assert fast.unique().numel() == spec.levels


def test_cached_sampling_costs_one_forward_pass_of_both_networks():
    def flops(run) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    model = multiscale(h=8)
    one = flops(lambda: model.conditionals(torch.zeros(8, 1, 4, 4, dtype=torch.float64)))
    assert flops(lambda: model.sample(8)) <= one < flops(lambda: model.sample(8, cache=False)) / 8


def test_completion_keeps_what_is_known():
    model, known = (
        multiscale(DataSpec((1, 3, 4), 3)),
        torch.tensor([[True] * 4, [True] * 4, [False] * 4]),
    )
    x = torch.randint(3, (6, 1, 3, 4)).double()
    drawn = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, :, :2], x[:, :, :2]) and not torch.equal(drawn, x)


def test_bits_of_the_whole_are_the_bits_of_both_networks():
    model, x = multiscale(), every_image(BINARY)[::6000]
    bits, values = model.bits(x), model.evaluate(Batch({"x": x}))
    torch.testing.assert_close(
        16 * bits["bits_per_dim"], 4 * bits["bits_small"] + 12 * bits["bits_cond"]
    )
    torch.testing.assert_close(bits["bits_per_dim"], -model.log_prob(x) / (16 * math.log(2)))
    shuffled = model.log_cond(x, model.subsample(torch.cat([x[-1:], x[:-1]])))
    torch.testing.assert_close(
        values["bits_of_s"] + values["bits_cond"], -shuffled / (12 * math.log(2))
    )


def test_rows_do_not_talk():
    likelihoods.assert_rows_do_not_talk(multiscale().log_prob, every_image(BINARY)[::6000])


@pytest.mark.parametrize(
    ("spec", "factor", "message"),
    [
        (DataSpec((1, 1, 1), 2), 2, r"multiscale_pixelrnn .*; choose"),
        (BINARY, 1, "multiscale_pixelrnn: factor is at least 2, got 1"),
    ],
)
def test_what_cannot_be_subsampled_is_refused(spec, factor, message):
    with pytest.raises(ValueError, match=message):
        MultiScalePixelRNN(spec, factor)
