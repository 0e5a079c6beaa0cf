"""The search finds what is there, each row by itself, and keeps the best of its starts."""

import torch
from torch import nn

from zoo.nn.latent_search import latent_search


def starts(restarts: int, rows: int, dim: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(restarts, rows, dim, generator=g, dtype=torch.float64)


def test_a_rows_code_does_not_depend_on_its_companions():
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    target, z = torch.randn(4, 5).double(), starts(2, 4, 3)
    whole = latent_search(lambda c: (net(c) - target).abs().sum(1), z, 30, 0.1)
    for i in range(4):
        one = latent_search(
            lambda c, i=i: (net(c) - target[i : i + 1]).abs().sum(1), z[:, i : i + 1], 30, 0.1
        )
        torch.testing.assert_close(one[0], whole[0][i : i + 1], rtol=1e-9, atol=1e-9)


def test_each_row_keeps_the_start_that_ended_best_and_its_cost():
    # Two wells, at 2 of depth 1 and at -2 of depth 3, mirrored for the second row.
    side = torch.tensor([1.0, -1.0]).double()

    def cost(z):
        v = z[:, 0] * side
        return torch.minimum((v - 2).square() - 1, (v + 2).square() - 3)

    z = torch.tensor([[[1.5], [1.5]], [[-1.5], [-1.5]]]).double()
    codes, costs = latent_search(cost, z, 300, 0.05)
    torch.testing.assert_close(codes[:, 0], -2 * side, rtol=0, atol=1e-3)
    torch.testing.assert_close(costs, cost(codes))


def test_steps_are_adams_of_the_given_rate_on_the_sum_over_rows():
    z = starts(1, 3, 2)
    codes, _ = latent_search(lambda c: 1e3 * c.sum(1), z, 5, 0.01)
    torch.testing.assert_close(codes, z[0] - 0.05)  # Adam's steps are its rate where slopes stay
    eps = 1e-8  # what its division spares: a mean over 3 rows would move by a third of this ratio
    codes, _ = latent_search(lambda c: eps * c.sum(1), z, 1, 0.01)
    torch.testing.assert_close(codes, z[0] - 0.005)


def test_nothing_but_the_codes_gets_a_gradient_even_where_gradients_are_off():
    net, z = nn.Linear(2, 1).double(), starts(1, 3, 2)
    with torch.no_grad():
        codes, costs = latent_search(lambda c: net(c)[:, 0].square(), z, 40, 0.1)
    assert all(p.grad is None for p in net.parameters())
    assert not codes.requires_grad and not costs.requires_grad
    assert (costs < net(z[0])[:, 0].square()).all()
