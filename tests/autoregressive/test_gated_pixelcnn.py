"""Gated PixelCNN is Gated PixelCNN: two stacks without a blind spot, conditioning, Bayes' rule,
sampling with a cache.
"""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support import Given, fit
from zoo.autoregressive.gated_pixelcnn import GatedPixelCNN
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
from zoo.nn.gated_conv import GatedStacks, Layer, gate

LABELLED = DataSpec((1, 2, 2), 3, 4)


def gated(spec: DataSpec = TINY[0], seed: int = 0, scale: float = 1.5, **options) -> GatedPixelCNN:
    torch.manual_seed(seed)
    model = GatedPixelCNN(spec, **{"n": 2, "p": 6, "head": 8, **options})
    for p in model.parameters():
        p.data.mul_(scale)
    return model.double().eval()


def changed(value, x, i) -> torch.Tensor:
    """Where value(x) changes when x[..., i] of the flattened image does."""
    other = x.clone()
    other.flatten(1)[:, i] += 0.5
    return (value(other) != value(x))[0]


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_probabilities_of_all_images_sum_to_one(spec):
    assert total_mass(gated(spec).log_prob, spec) == pytest.approx(1, abs=1e-8)


def test_probabilities_sum_to_one_for_each_label_and_for_their_mixture_after_training():
    model, images = gated(LABELLED).float().train(), every_image(LABELLED)
    fit(model, Given(LABELLED, images.float(), torch.arange(81) % 4), 20)
    model = model.double().eval()
    for label in range(4):
        assert total_mass(
            lambda x, label=label: model.log_prob(x, y=torch.full((len(x),), label)), LABELLED
        ) == pytest.approx(1, abs=1e-8)
    assert total_mass(model.log_prob, LABELLED) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_a_changed_level_changes_no_bit_of_earlier_conditionals(spec):
    assert leaks(gated(spec), every_image(spec)[::37]) == []


@pytest.mark.parametrize(
    ("spec", "n"), [(DataSpec((3, 5, 5), 2), 5), (DataSpec((1, 9, 9), 2), 6)], ids=str
)
def test_there_is_no_blind_spot(spec, n):
    depends = dependence([gated(spec, seed, n=n, p=12, head=12) for seed in range(2)])
    assert not depends.triu().any() and coverage(depends) == 1


def test_one_layer_less_misses_only_what_its_radius_misses():
    depends = dependence(
        [gated(DataSpec((1, 9, 9), 2), seed, n=5, p=12, head=12) for seed in range(2)]
    )
    assert (~depends).tril(-1).sum() == 81  # 3 + 4 < 8


@pytest.mark.parametrize("first", [True, False])
def test_horizontal_stack_sees_of_the_vertical_one_only_the_rows_above(first):
    torch.manual_seed(0)
    layer = Layer(4, 4, 3, 2, 0, first, False).double()
    v, u = torch.randn(2, 1, 4, 4, 4, dtype=torch.float64).unbind()
    for i in range(64):
        row = i % 16 // 4
        rows = changed(lambda a: layer(a, u, None)[1], v, i).any(0).any(1)
        assert rows.tolist() == [
            row < r <= row + 2 for r in range(4)
        ]  # a 3x3 kernel of rows r-1 and r, shifted down by one


def test_each_half_of_a_gate_sees_of_its_pixel_only_its_own_and_earlier_groups():
    torch.manual_seed(0)
    layer = Layer(6, 9, 3, 3, 0, False, False).double()
    u = torch.randn(1, 6, 1, 1, dtype=torch.float64)
    for i in range(6):
        seen = changed(layer.horizontal, u, i).view(2, 3, 3)  # halves, groups, features
        assert (
            seen.all(-1).tolist() == seen.any(-1).tolist() == [[g >= i // 2 for g in range(3)]] * 2
        )


def test_gate_is_tanh_times_sigmoid():
    a = torch.randn(2, 6, 1, 1)
    torch.testing.assert_close(gate(a), a[:, :3].tanh() / (1 + (-a[:, 3:]).exp()))


def test_labels_act_through_their_weights_alone():
    model, x = gated(LABELLED), every_image(LABELLED)
    zero, one = (torch.full((len(x),), label) for label in (0, 1))
    a, b = model.log_prob(x, y=zero), model.log_prob(x, y=one)
    assert (a != b).all()
    weights = [p for name, p in model.named_parameters() if "condition" in name]
    assert len(weights) == 3  # both stacks of the first layer, the horizontal one of the last
    for w in weights:
        w.data = w.data[:, [1, 0, 2, 3]]
    torch.testing.assert_close(model.log_prob(x, y=zero), b)
    torch.testing.assert_close(model.log_prob(x, y=one), a)
    for w in weights:
        w.data.zero_()
    assert torch.equal(model.log_prob(x, y=zero), model.log_prob(x, y=one))


def test_first_pixel_already_depends_on_the_label():
    model = gated(LABELLED)
    at = [
        model.conditionals(torch.zeros(1, 1, 2, 2).double(), y=torch.tensor([label]))[0, 0]
        for label in range(4)
    ]
    assert all((at[0] != other).all() for other in at[1:])


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 4, 5)], ids=["vector", "map"])
def test_network_takes_any_condition_and_its_stream_too(shape):
    torch.manual_seed(0)
    network = GatedStacks(2, 6, 3, 6, 5, 8, m=3).double()
    x, s = torch.randn(2, 2, 4, 5, dtype=torch.float64), torch.randn(2, *shape, dtype=torch.float64)
    whole = network(x, s)
    assert (network(x, s + 0.1) != whole).all()
    stream = network.stream(2, (4, 5), s)
    out = next(stream)
    for p in range(20):
        for g in range(2):
            torch.testing.assert_close(
                out.T, whole.view(2, 2, 3, 20)[:, g, :, p], rtol=0, atol=1e-12
            )
            if (p, g) != (19, 1):
                out = stream.send(x.view(2, 2, 20)[:, g, p])


def test_condition_map_may_hold_the_future_but_the_image_stays_causal():
    torch.manual_seed(0)
    network, x, s = (
        GatedStacks(1, 2, 2, 6, 3, 8, m=1).double(),
        torch.randn(1, 1, 3, 3).double(),
        torch.randn(1, 1, 3, 3).double(),
    )
    for i in range(9):
        by_image, by_map = (
            changed(lambda a: network(a, s), x, i),
            changed(lambda a: network(x, a), s, i),
        )
        assert not by_image.flatten(1)[:, : i + 1].any()
        assert by_map.flatten(1)[:, i].all()


def test_classify_is_bayes_rule_with_a_uniform_prior():
    model, x = gated(LABELLED), every_image(LABELLED)[:7]
    joint = torch.stack(
        [model.log_prob(x, y=torch.full((7,), label)).exp() / 4 for label in range(4)], 1
    )
    torch.testing.assert_close(model.classify(x).exp(), joint / joint.sum(1, keepdim=True))
    torch.testing.assert_close(model.log_prob(x).exp(), joint.sum(1))
    y = torch.arange(7) % 4
    assert torch.equal(
        model.evaluate(Batch({"x": x, "y": y}))["bayes_accuracy"], (joint.argmax(1) == y).float()
    )


def test_without_labels_there_is_nothing_to_classify():
    model = gated(LABELLED, conditional=False)
    assert (
        model.told == ()
        and model.evaluate(Batch({"x": every_image(LABELLED)[:2], "y": torch.tensor([0, 1])})) == {}
    )
    with pytest.raises(ValueError, match=r"gated_pixelcnn classifies.*conditional=True"):
        model.classify(every_image(LABELLED)[:1])


@pytest.mark.parametrize("y", [None, 2])
def test_samples_follow_the_density_of_a_label_and_of_the_mixture(y):
    model, images = gated(LABELLED), every_image(LABELLED)
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (20_000,), generator=g) if y is None else torch.full((20_000,), y)
    drawn = model.sample(20_000, y=labels, generator=torch.Generator().manual_seed(0)).flatten(1)
    p = model.log_prob(images, y=None if y is None else torch.full((81,), y)).exp()
    seen = (
        torch.bincount((drawn @ torch.tensor([27.0, 9.0, 3.0, 1.0]).double()).long(), minlength=81)
        / 20_000
    )
    assert 0.5 * (seen - p).abs().sum() < 0.05


def test_naive_samples_follow_the_density():
    assert sampler_distance(gated(TINY[1]), cache=False) < 0.05


@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 2, 3), DataSpec((3, 4, 4), 5), DataSpec((2, 3, 5), 4, 3)], ids=str
)
def test_cached_sampling_gives_the_integers_and_conditionals_of_naive_sampling(spec):
    model, y = gated(spec, n=3), torch.arange(16) % 3 if spec.num_classes else None
    for seed in (0, 1):
        fast, slow = (
            model.sample(16, y=y, generator=torch.Generator().manual_seed(seed), cache=c)
            for c in (True, False)
        )
        assert torch.equal(fast, slow)
    assert fast.unique().numel() == spec.levels
    model.float()
    with torch.no_grad():
        stream, whole = model.stream(16, y=y), model.conditionals(fast.float(), y=y)
        params = next(stream)
        for step, d in enumerate(model.order.tolist()):
            torch.testing.assert_close(params, whole[:, d], rtol=1e-5, atol=1e-5)
            if step + 1 < spec.dim:
                params = stream.send(fast.float().flatten(1)[:, d])


@pytest.mark.parametrize("spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 4, 4), 5)], ids=str)
def test_cached_sampling_costs_one_forward_pass(spec):
    model = gated(spec, n=3)

    def flops(run) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    one = flops(lambda: model.conditionals(torch.zeros(8, *spec.shape, dtype=torch.float64)))
    assert flops(lambda: model.sample(8)) <= one
    assert flops(lambda: model.sample(8, cache=False)) == spec.dim * one


def test_completions_need_the_label_of_a_conditional_model():
    model, known = gated(LABELLED), torch.tensor([[True, True], [False, False]])
    x = every_image(LABELLED)[:5]
    drawn = model.inpaint(x, known, y=torch.arange(5) % 4)
    assert torch.equal(drawn[:, :, 0], x[:, :, 0])
    with pytest.raises(ValueError, match="labels"):
        model.inpaint(x, known)


def test_rows_do_not_talk():
    likelihoods.assert_rows_do_not_talk(gated().log_prob, every_image(TINY[0])[::60])


def test_untrained_zero_network_is_the_uniform_distribution():
    model = gated(LABELLED, scale=0.0)
    assert model.log_prob(torch.zeros(1, 1, 2, 2).double()).item() == pytest.approx(
        -4 * math.log(3)
    )
