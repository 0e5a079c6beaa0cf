"""PixelCNN is PixelCNN: masks without a leak, the blind spot, a categorical head, sampling with a
cache.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support import Given, fit
from zoo.autoregressive.pixelcnn import PixelCNN
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
from zoo.nn.masked_conv import MaskedConv2d


def pixelcnn(spec: DataSpec = TINY[0], seed: int = 0, scale: float = 1.5, **options) -> PixelCNN:
    torch.manual_seed(seed)
    model = PixelCNN(spec, **{"n": 2, "h": 6, "head": 8, **options})
    for p in model.parameters():
        p.data.mul_(scale)
    return model.double().eval()


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_probabilities_of_all_images_sum_to_one(spec):
    assert total_mass(pixelcnn(spec).log_prob, spec) == pytest.approx(1, abs=1e-8)


def test_probabilities_still_sum_to_one_after_training():
    model = pixelcnn(TINY[2]).float().train()
    fit(model, Given(TINY[2], every_image(TINY[2])[::3].float()), 20)
    assert total_mass(model.double().eval().log_prob, TINY[2]) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("spec", [*TINY, DataSpec((3, 2, 3), 3)], ids=str)
def test_conditionals_depend_on_all_earlier_dimensions_near_them_and_no_other(spec):
    depends = dependence([pixelcnn(spec, seed, h=12, head=12) for seed in range(3)])
    assert not depends.triu().any()
    assert (
        coverage(depends) == 1
    )  # so small an image has no blind spot, and R -> G -> B is complete


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_a_changed_level_changes_no_bit_of_earlier_conditionals(spec):
    assert leaks(pixelcnn(spec), every_image(spec)[::37]) == []


def test_the_blind_spot_of_the_paper_is_there():
    spec = DataSpec((1, 9, 9), 4)
    depends = dependence(
        [pixelcnn(spec, seed, n=8, scale=2.0) for seed in range(3)]
    )  # radius 3 + 8, more than the image
    assert (
        not depends[9, 4:9].any() and depends[9, :4].all()
    )  # (1, 0) sees (0, 0..3), which the 7x7 window holds
    assert (~depends).tril(-1).sum() == 245


def test_closed_taps_stay_closed_whatever_an_optimiser_does_to_their_weights():
    model = pixelcnn(TINY[2], n=3)
    convs = [m for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert len(convs) == 1 + 3 * 3 + 2 and [c.kind for c in convs].count("A") == 1
    optimiser, x = (
        torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.5),
        every_image(TINY[2])[::90],
    )
    model.loss(Batch({"x": x}))["loss"].backward()
    optimiser.step()
    before = model.log_prob(x)
    for c in convs:
        c.weight.data += 7 * (1 - c.mask)
    assert torch.equal(model.log_prob(x), before) and leaks(model, x) == []


def test_levels_have_no_order():
    model, permutation = pixelcnn(DataSpec((1, 2, 2), 5)), torch.tensor([3, 0, 4, 1, 2])
    x = every_image(model.spec)[::7]
    inputs = model.spec.to_signed(x)
    expected = model.log_prob(x)
    rename = permutation.argsort()  # level k is now called rename[k]
    model.logits.weight.data, model.logits.bias.data = (
        model.logits.weight.data[permutation],
        model.logits.bias.data[permutation],
    )
    model.spec.to_signed = lambda v: (
        2 * permutation[v.long()].double() / 4 - 1
    )  # the pictures are the same
    renamed = rename[x.long()].double()
    torch.testing.assert_close(model.spec.to_signed(renamed), inputs)
    torch.testing.assert_close(model.log_prob(renamed), expected)


@pytest.mark.parametrize("cache", [True, False])
def test_samples_follow_the_density(cache):
    assert sampler_distance(pixelcnn(TINY[1]), cache=cache) < 0.05


@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 4, 4), 5), DataSpec((2, 3, 5), 4)], ids=str
)
def test_cached_sampling_gives_the_integers_and_conditionals_of_naive_sampling(spec):
    model = pixelcnn(spec)
    for seed in (0, 1):
        fast, slow = (
            model.sample(16, generator=torch.Generator().manual_seed(seed), cache=c)
            for c in (True, False)
        )
        assert torch.equal(fast, slow)
    assert fast.unique().numel() == spec.levels
    model.float()
    with torch.no_grad():
        stream, whole = model.stream(16), model.conditionals(fast.float())
        params = next(stream)
        for step, d in enumerate(model.order.tolist()):
            torch.testing.assert_close(params, whole[:, d], rtol=1e-5, atol=1e-5)
            if step + 1 < spec.dim:
                params = stream.send(fast.float().flatten(1)[:, d])


@pytest.mark.parametrize("spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 4, 4), 5)], ids=str)
def test_cached_sampling_costs_one_forward_pass(spec):
    model = pixelcnn(spec)

    def flops(run) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    one = flops(lambda: model.conditionals(torch.zeros(8, *spec.shape, dtype=torch.float64)))
    assert flops(lambda: model.sample(8)) <= one
    assert flops(lambda: model.sample(8, cache=False)) == spec.dim * one


def test_completion_of_the_lower_half_keeps_the_upper_and_follows_the_conditional():
    model, known = pixelcnn(TINY[1]), torch.tensor([[True, True], [False, False]])
    x = torch.tensor([[2.0, 1.0], [0.0, 0.0]]).double().view(1, 1, 2, 2)
    images = every_image(TINY[1])
    given = (images[:, :, 0] == x[:, :, 0]).flatten(1).all(1)
    p = model.log_prob(images[given]).softmax(0)
    drawn = model.inpaint(
        x.expand(20_000, -1, -1, -1), known, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(drawn[:, :, 0], x[:, :, 0].expand(20_000, 1, 2))
    seen = (
        torch.bincount((drawn[:, 0, 1] @ torch.tensor([3.0, 1.0]).double()).long(), minlength=9)
        / 20_000
    )
    assert 0.5 * (seen - p).abs().sum() < 0.02


def test_label_reaches_every_conditional_of_a_conditional_model():
    spec = DataSpec((1, 2, 2), 3, 4)
    model, images = pixelcnn(spec, conditional=True), every_image(spec)
    at = [model.conditionals(images[:1], y=torch.tensor([label])) for label in range(4)]
    assert all((at[0] != other).any(-1).all() for other in at[1:])
    y = torch.tensor([2])
    assert total_mass(lambda x: model.log_prob(x, y=y.expand(len(x))), spec) == pytest.approx(
        1, abs=1e-8
    )
    fast, slow = (
        model.sample(9, y=y.expand(9), generator=torch.Generator().manual_seed(0), cache=c)
        for c in (True, False)
    )
    assert torch.equal(fast, slow)
    with pytest.raises(ValueError, match="labels"):
        model.log_prob(images)


def test_rows_do_not_talk():
    likelihoods.assert_rows_do_not_talk(pixelcnn().log_prob, every_image(TINY[0])[::60])


@pytest.mark.parametrize("options", [{"h": 2}, {"head": 2}])
def test_fewer_features_than_channels_are_refused(options):
    with pytest.raises(ValueError, match="pixelcnn needs a feature for each of 3 channels"):
        PixelCNN(DataSpec((3, 4, 4), 4), **options)
