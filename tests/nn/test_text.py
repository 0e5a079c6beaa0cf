"""Captions and images in one space."""

import pytest
import torch

from zoo.nn.perceptual import Percep
from zoo.nn.text import JointEmbedding, WordGRU, structured_joint_loss


def test_padding_is_not_read_and_the_order_of_words_is():
    torch.manual_seed(0)
    net = WordGRU(9, 8)
    said = net(
        torch.tensor([[[3, 5, 0, 0, 0], [3, 5, 2, 0, 0]], [[5, 3, 0, 0, 0], [2, 2, 2, 2, 2]]])
    )
    alone = net(torch.tensor([[3, 5]]))
    assert said.shape == (2, 2, 8)
    torch.testing.assert_close(said[0, 0], alone[0])
    assert not torch.allclose(said[0, 0], said[1, 0]) and not torch.allclose(said[0, 0], said[0, 1])


def by_hand(v, t, y):
    """The two maxima, one image and one caption at a time."""
    pairs = [(c, label) for captions, label in zip(t, y, strict=True) for c in captions]
    total = 0.0
    for rows, others in (([*zip(v, y, strict=True)], pairs), (pairs, [*zip(v, y, strict=True)])):
        costs = []
        for row, label in rows:
            mean = {k: torch.stack([o @ row for o, z in others if z == k]).mean() for k in {*y}}
            costs.append(max((k != label) + mean[k] - mean[label] for k in {*y}))
        total += sum(costs) / len(costs)
    return float(total)


def test_the_loss_is_the_surrogate_with_expectations_over_the_minibatch():
    torch.manual_seed(1)
    v, t, y = torch.randn(6, 4), torch.randn(6, 3, 4), torch.tensor([7, 2, 7, 0, 2, 7])
    found = structured_joint_loss(v, t, y)
    assert float(found) == pytest.approx(by_hand(v, t, y.tolist()), rel=1e-5)


def test_the_loss_is_0_where_every_class_is_apart_by_its_margin_and_2_where_all_are_one():
    y = torch.tensor([0, 1, 2, 0])
    v = 2 * torch.eye(3)[y]
    assert structured_joint_loss(v, v[:, None].repeat(1, 2, 1), y) == 0
    same = torch.ones(4, 3)
    assert structured_joint_loss(same, same[:, None], y) == 2


def test_the_network_below_stays_and_what_it_sees_is_standardised():
    torch.manual_seed(0)
    below, x = Percep(5), torch.rand(40, 3, 16, 16)
    net = JointEmbedding(9, Percep(5), units=8)
    net.stand_on(below.state_dict(), x)
    assert all(
        torch.equal(p, q) for p, q in zip(below.parameters(), net.percep.parameters(), strict=True)
    )
    seen = (net.seen(x) - net.mean) / net.std
    alive = net.seen(x).std(0) > 1e-3
    assert seen.mean(0).abs().max() < 1e-4
    torch.testing.assert_close(seen.std(0)[alive], torch.ones(int(alive.sum())))
    said = net(x[:4], torch.randint(1, 9, (4, 2, 6)))
    assert said.shape == (4, 3, 8)
    said.square().sum().backward()
    assert all(p.grad is None for p in net.percep.parameters())
    assert all(p.grad is not None for m in (net.image, net.text) for p in m.parameters())
