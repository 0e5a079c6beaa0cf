"""Attention, conditional norms and the projection head."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.nn.attention import SelfAttention
from zoo.nn.conditional import ConditionalBatchNorm, ProjectionHead

F64 = torch.float64


def test_attention_is_the_identity_at_first_and_its_rows_sum_to_one():
    layer, x = SelfAttention(16).double(), torch.randn(3, 16, 4, 6, dtype=F64)
    assert torch.equal(layer(x), x)
    weights = layer.weights(x)
    assert weights.shape == (3, 24, 6) and (weights > 0).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 24, dtype=F64))
    assert [m.out_channels for m in (layer.query, layer.key, layer.value, layer.out)] == [
        2,
        2,
        8,
        16,
    ]


def test_each_place_adds_the_weighted_mean_of_values_worked_out_by_loops():
    torch.manual_seed(0)
    layer, x = SelfAttention(8).double(), torch.randn(2, 8, 4, 4, dtype=F64)
    layer.gamma.data.fill_(0.7)
    out = layer(x)
    pooled_key, pooled_value = (F.max_pool2d(net(x), 2) for net in (layer.key, layer.value))
    for row, i, j in ((0, 0, 0), (1, 2, 3), (1, 3, 0)):
        q = layer.query(x)[row, :, i, j]
        scores = torch.stack([q @ pooled_key[row, :, a, b] for a in (0, 1) for b in (0, 1)])
        share = scores.exp() / scores.exp().sum()
        values = torch.stack([pooled_value[row, :, a, b] for a in (0, 1) for b in (0, 1)])
        o = layer.out.weight[:, :, 0, 0] @ (share[:, None] * values).sum(0)
        torch.testing.assert_close(out[row, :, i, j], x[row, :, i, j] + 0.7 * o)


def test_a_condition_of_zero_is_plain_batch_norm_and_others_scale_and_shift_each_row():
    norm, x = ConditionalBatchNorm(3, 4).double(), torch.randn(5, 3, 2, 2, dtype=F64)
    c = torch.randn(5, 4, dtype=F64)
    v = (x - x.mean((0, 2, 3), keepdim=True)) / (
        x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(norm(x, 0 * c), v)
    for row in range(5):
        gain, shift = norm.gain.weight @ c[row], norm.shift.weight @ c[row]
        expected = (1 + gain)[:, None, None] * v[row] + shift[:, None, None]
        torch.testing.assert_close(norm(x, c)[row], expected)
    assert norm.gain.bias is None and norm.shift.bias is None and norm.norm.weight is None


def test_the_projections_difference_between_two_classes_is_that_of_their_vectors_along_h():
    head, h = ProjectionHead(6, 4).double(), torch.randn(5, 6, dtype=F64)
    a, b = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 3, 2, 0, 2])
    v = head.classes.weight
    expected = ((v[a] - v[b]) * h).sum(1, keepdim=True)
    torch.testing.assert_close(head(h, a) - head(h, b), expected)
    nn.init.zeros_(head.classes.weight)
    torch.testing.assert_close(head(h, a), h @ head.linear.weight.T + head.linear.bias)
    assert head(h, a).shape == (5, 1) and expected[2].item() == pytest.approx(0)
