"""Maxout is the largest of its linear maps."""

import torch
from torch.nn import functional as F

from zoo.nn.maxout import Maxout


def test_maxout_is_the_largest_linear_map_and_teaches_only_the_winner():
    layer = Maxout(6, 4, pieces=5)
    x = torch.randn(7, 6, requires_grad=True)
    w, b = layer.linear.weight.view(4, 5, 6), layer.linear.bias.view(4, 5)
    maps = torch.einsum("upi,bi->bup", w, x) + b
    torch.testing.assert_close(layer(x), maps.max(2).values)
    (gradient,) = torch.autograd.grad(layer(x)[0, 2], layer.linear.bias)
    assert torch.equal(gradient, F.one_hot(2 * 5 + maps[0, 2].argmax(), 20).float())
