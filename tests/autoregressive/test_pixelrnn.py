"""PixelRNN is PixelRNN: both LSTMs without a leak, their fields of view, sampling with a cache."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support import Given, fit
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
from zoo.core import DataSpec
from zoo.nn.pixel_lstm import VARIANTS, Diagonal, DiagonalBiLSTM, PixelLSTM, RowLSTM, skew, unskew

both = pytest.mark.parametrize("variant", VARIANTS)


def pixelrnn(
    variant: str, spec: DataSpec = TINY[0], seed: int = 0, scale: float = 1.5, **options
) -> PixelRNN:
    torch.manual_seed(seed)
    model = PixelRNN(spec, variant, **{"n": 2, "h": 6, "head": 12, **options})
    for p in model.parameters():
        p.data.mul_(scale)
    return model.double().eval()


def sigmoid(a: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + (-a).exp())


def lstm(gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One example: o, f, i, g of (4h,), c of (h,)."""
    o, f, i, g = gates.view(4, -1)
    c = sigmoid(f) * c + sigmoid(i) * g.tanh()
    return sigmoid(o) * c.tanh(), c


@both
@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_probabilities_of_all_images_sum_to_one(variant, spec):
    assert total_mass(pixelrnn(variant, spec).log_prob, spec) == pytest.approx(1, abs=1e-8)


@both
def test_probabilities_still_sum_to_one_after_training(variant):
    model = pixelrnn(variant, TINY[2]).float().train()
    fit(model, Given(TINY[2], every_image(TINY[2])[::3].float()), 20)
    assert total_mass(model.double().eval().log_prob, TINY[2]) == pytest.approx(1, abs=1e-8)


@both
@pytest.mark.parametrize("spec", [*TINY, DataSpec((3, 3, 2), 2)], ids=str)
def test_conditionals_depend_on_all_earlier_dimensions_near_them_and_no_other(variant, spec):
    depends = dependence([pixelrnn(variant, spec, seed, h=12) for seed in range(3)])
    assert not depends.triu().any() and coverage(depends) == 1


@both
@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_a_changed_level_changes_no_bit_of_earlier_conditionals(variant, spec):
    assert leaks(pixelrnn(variant, spec), every_image(spec)[::37]) == []


def test_row_lstm_sees_a_triangle():
    depends = dependence(
        [pixelrnn("row_lstm", DataSpec((1, 9, 9), 2), seed, n=1) for seed in range(3)]
    )
    assert not depends.triu().any() and (~depends).tril(-1).sum() == 410


def test_diagonal_bilstm_misses_only_the_last_pixel_of_the_row_above():
    depends = dependence(
        [pixelrnn("diagonal_bilstm", DataSpec((1, 9, 9), 2), seed, n=1) for seed in range(3)]
    )
    missing = (~depends).tril(-1).nonzero().tolist()
    assert not depends.triu().any() and len(missing) == 40
    assert missing == sorted(
        [9 * r + c, 9 * r - 1] for r in range(1, 9) for c in range(5)
    )  # further than the 7x7 window


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (3, 4), (4, 3)])
def test_skewing_moves_each_row_right_by_its_number_and_is_undone(shape):
    x = torch.randn(2, 3, *shape)
    skewed = skew(x)
    for r in range(shape[0]):
        assert torch.equal(skewed[:, :, r, r : r + shape[1]], x[:, :, r])
    assert skewed.shape[3] == sum(shape) - 1 and (skewed != 0).sum() == (x != 0).sum()
    assert torch.equal(unskew(skewed, shape[1]), x)


def test_diagonal_pass_is_the_recurrence_over_left_and_upper_neighbours():
    torch.manual_seed(0)
    layer, x = Diagonal(4, 3, 1).double(), torch.randn(1, 4, 4, 5, dtype=torch.float64)
    zero, h, c = torch.zeros(3).double(), {}, {}
    for r in range(4):
        for j in range(5):
            gates = layer.input.weight[:, :, 0, 0] @ x[0, :, r, j] + layer.input.bias
            gates = (
                gates
                + layer.state.weight[:, :, 0] @ h.get((r - 1, j), zero)
                + layer.state.weight[:, :, 1] @ h.get((r, j - 1), zero)
            )
            h[r, j], c[r, j] = lstm(gates, c.get((r, j - 1), zero))
    expected = torch.stack([torch.stack([h[r, j] for j in range(5)], 1) for r in range(4)], 1)
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-10)


def test_right_pass_is_mirrored_and_one_row_lower():
    torch.manual_seed(0)
    layer, x = DiagonalBiLSTM(4, 3, 1).double(), torch.randn(2, 4, 4, 5, dtype=torch.float64)
    right = layer(x) - layer.left(x)
    assert (right[:, :, 0] == 0).all()
    torch.testing.assert_close(right[:, :, 1:].flip(3), layer.right(x.flip(3))[:, :, :-1])


def test_row_lstm_is_the_recurrence_over_the_row_above():
    torch.manual_seed(0)
    layer, x = RowLSTM(2, 3, 1).double(), torch.randn(1, 2, 3, 4, dtype=torch.float64)
    h, c = (torch.zeros(3, 6).double() for _ in range(2))  # with a border
    for r in range(3):
        above, h = h, torch.zeros(3, 6).double()
        for j in range(4):
            gates = layer.input.bias + layer.input.weight[:, :, 0, 1] @ x[0, :, r, j]
            if j:
                gates = gates + layer.input.weight[:, :, 0, 0] @ x[0, :, r, j - 1]
            gates = gates + torch.einsum("oik,ik->o", layer.state.weight, above[:, j : j + 3])
            h[:, j + 1], c[:, j + 1] = lstm(gates, c[:, j + 1].clone())
        torch.testing.assert_close(layer(x)[0, :, r], h[:, 1:5], rtol=0, atol=1e-10)


@both
def test_block_without_its_up_convolution_is_the_identity(variant):
    block, x = PixelLSTM(variant, 3, 6, 1, 6, 6).blocks[0], torch.randn(2, 12, 4, 4)
    assert not torch.equal(block(x), x)
    for p in block.up.parameters():
        p.data.zero_()
    assert torch.equal(block(x), x)


@both
def test_green_reaches_blue_of_its_own_pixel_and_nothing_else_there(variant):
    model, x = (
        pixelrnn(variant, DataSpec((3, 2, 2), 4), h=12, head=48),
        torch.zeros(1, 3, 2, 2).double(),
    )
    other = x.clone()
    other[0, 1, 0, 1] = 3
    before, after = (model.conditionals(v).view(3, 2, 2, 4) for v in (x, other))
    same = [(before[c, 0, 1] == after[c, 0, 1]).all().item() for c in range(3)]
    assert same == [True, True, False]
    assert (before[:, 1] != after[:, 1]).any(-1).all()


@both
def test_candidate_is_a_tanh_and_forget_bias_starts_at_one(variant):
    layer = (RowLSTM if variant == "row_lstm" else DiagonalBiLSTM)(4, 3, 1).double()
    with torch.no_grad():
        assert (
            layer(torch.randn(8, 4, 5, 5, dtype=torch.float64)).min() < -0.01
        )  # a sigmoid candidate could not
    conv = layer.input if variant == "row_lstm" else layer.right.input
    assert conv.bias.view(4, 3).mean(1).argmax() == 1 and conv.bias[3:6].min() > 0.4


@both
@pytest.mark.parametrize("cache", [True, False])
def test_samples_follow_the_density(variant, cache):
    assert sampler_distance(pixelrnn(variant, TINY[1]), cache=cache) < 0.05


@both
@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 4, 4), 5, 3), DataSpec((2, 3, 5), 4)], ids=str
)
def test_cached_sampling_gives_the_integers_and_conditionals_of_naive_sampling(variant, spec):
    model, y = (
        pixelrnn(variant, spec, conditional=spec.num_classes > 0),
        torch.arange(16) % 3 if spec.num_classes else None,
    )
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


@both
def test_stream_of_the_network_takes_a_condition_map(variant):
    torch.manual_seed(0)
    network = PixelLSTM(variant, 2, 6, 2, 4, 8, m=3).double()
    x, s = (
        torch.randn(2, 2, 4, 5, dtype=torch.float64),
        torch.randn(2, 3, 4, 5, dtype=torch.float64),
    )
    whole, stream = network(x, s), network.stream(2, (4, 5), s)
    out = next(stream)
    for p in range(20):
        for g in range(2):
            torch.testing.assert_close(
                out.T, whole.view(2, 2, 3, 20)[:, g, :, p], rtol=0, atol=1e-12
            )
            if (p, g) != (19, 1):
                out = stream.send(x.view(2, 2, 20)[:, g, p])


@both
@pytest.mark.parametrize("spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 4, 4), 5)], ids=str)
def test_cached_sampling_costs_one_forward_pass(variant, spec):
    model = pixelrnn(variant, spec)

    def flops(run) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    one = flops(lambda: model.conditionals(torch.zeros(8, *spec.shape, dtype=torch.float64)))
    assert flops(lambda: model.sample(8)) <= one
    assert flops(lambda: model.sample(8, cache=False)) == spec.dim * one


@both
def test_completion_of_the_lower_half_keeps_the_upper(variant):
    model, known = pixelrnn(variant), torch.tensor([[True] * 3, [True, True, False], [False] * 3])
    x = every_image(TINY[0])[::25]
    drawn = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, 0][:, known], x[:, 0][:, known]) and not torch.equal(drawn, x)


@both
def test_label_reaches_every_conditional_of_a_conditional_model(variant):
    spec = DataSpec((1, 2, 2), 3, 4)
    model, images = pixelrnn(variant, spec, conditional=True), every_image(spec)
    at = [model.conditionals(images[:1], y=torch.tensor([label])) for label in range(4)]
    assert all((at[0] != other).any(-1).all() for other in at[1:])
    assert total_mass(
        lambda x: model.log_prob(x, y=torch.full((len(x),), 2)), spec
    ) == pytest.approx(1, abs=1e-8)


@both
def test_rows_do_not_talk(variant):
    likelihoods.assert_rows_do_not_talk(pixelrnn(variant).log_prob, every_image(TINY[0])[::60])
