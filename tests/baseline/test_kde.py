"""The kernel estimate is a density; its bandwidth comes from examples that do not see
themselves.
"""

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

import zoo.baseline.kde as module
from tests.support import Given, fit
from zoo.baseline.kde import KDE
from zoo.check.likelihoods import assert_rows_do_not_talk, total_density
from zoo.core import Batch, DataSpec, checkpoint
from zoo.data.digits import Digits
from zoo.data.toy2d import Toy2D

PLANE = DataSpec((2,))


def kde(points: torch.Tensor, h: float = 0.5, **options) -> KDE:
    model = KDE(DataSpec((points.shape[1],)), **options).double().eval()
    model.points, model.point_labels = points, torch.zeros(len(points), dtype=torch.long)
    model.h.data.fill_(h)
    model.std.copy_(points.std())
    return model


def cloud(n: int = 200, d: int = 2) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("dim", [1, 2])
def test_density_integrates_to_one(dim):
    assert total_density(
        kde(cloud(50, dim)).log_prob, dim, half_width=8, points=801
    ) == pytest.approx(1, abs=1e-6)


def test_one_point_gives_the_gaussian():
    x = cloud()
    oracle = MultivariateNormal(x[0], 0.25 * torch.eye(2).double()).log_prob(x)
    torch.testing.assert_close(kde(x[:1]).log_prob(x).detach(), oracle, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dim", "h"), [(2, 0.3), (64, 0.9)])
def test_it_equals_scikit_learn(dim, h):
    from sklearn.neighbors import KernelDensity

    points, x = cloud(300, dim), cloud(400, dim)[300:]
    # One leaf for all points: in many dimensions its trees are off by tens of nats.
    reference = (
        KernelDensity(bandwidth=h, leaf_size=1000).fit(points.numpy()).score_samples(x.numpy())
    )
    torch.testing.assert_close(
        kde(points, h).log_prob(x).detach(), torch.from_numpy(reference), rtol=0, atol=1e-8
    )


def test_bandwidth_cannot_be_chosen_on_examples_that_see_themselves():
    model, grid = kde(cloud()), torch.logspace(-2, 0, 20).tolist()
    own, others = [], []
    for h in grid:
        model.h.data.fill_(h)
        own.append(model.log_prob(model.points).mean().item())
        others.append(model.leave_one_out().mean().item())
    assert own.index(max(own)) == 0 and own[0] > own[5] > own[10]
    assert 0 < others.index(max(others)) < 19


def test_leaving_one_out_is_the_density_of_the_others():
    model, points = kde(cloud(30)), cloud(30)
    for n in (0, 7, 29):
        rest = kde(torch.cat([points[:n], points[n + 1 :]]))
        torch.testing.assert_close(model.leave_one_out()[n], rest.log_prob(points[n : n + 1])[0])


@pytest.mark.parametrize("bandwidth", ["loo", "cv"])
def test_em_raises_the_score_to_the_best_of_a_fine_grid(bandwidth):
    model = KDE(PLANE, bandwidth=bandwidth).double()
    model.start(cloud())
    queries = model.points[:20]
    rest = kde(model.points[20:])

    def score(h: float) -> float:
        model.h.data.fill_(h)
        rest.h.data.fill_(h)
        return (
            (model.leave_one_out() if bandwidth == "loo" else rest.log_prob(queries)).mean().item()
        )

    path = [model.h[0].item()]
    for _ in range(150):
        model.iterate(cloud())
        path.append(model.h[0].item())
    scores = [score(h) for h in path]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(scores)) and scores[-1] > scores[0]
    assert scores[-1] >= max(score(h) for h in torch.logspace(-2, 0, 200).tolist()) - 1e-5


def test_silvermans_rule_in_each_dimension():
    x = cloud() * torch.tensor([1.0, 5.0])
    model = KDE(PLANE, bandwidth="silverman").double()
    model.start(x)
    expected = x.std(0) * (4 / (4 * 200)) ** (1 / 6)
    torch.testing.assert_close(model.h.detach(), expected)
    model.iterate(x)
    torch.testing.assert_close(model.h.detach(), expected)


def test_chunks_do_not_change_the_result(monkeypatch):
    model, x = kde(cloud()), cloud(100) + 0.1
    whole = model.log_prob(x).detach(), model.leave_one_out(), model._squared_distance()
    monkeypatch.setattr(module, "CHUNK", 7)
    for a, b in zip(
        whole,
        (model.log_prob(x).detach(), model.leave_one_out(), model._squared_distance()),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert_rows_do_not_talk(model.log_prob, x[:9])


def test_ring_of_eight_gaussians():
    data = Toy2D(std=0.2, size=2000)
    model = KDE(data.spec)
    fit(model, data, 30)
    assert len(model.points) == 2000 and 0.05 < model.h[0] < 0.2
    assert -model.log_prob(data.examples(split="val")["x"]).mean() < 1.85


def test_points_come_back_from_a_checkpoint_whatever_their_number(tmp_path):
    data = Given(PLANE, cloud(40).float())
    model = KDE(PLANE, max_points=25)
    trainer = fit(model, data, 2)
    assert model.points.shape == (25, 2)
    rows = {tuple(r) for r in cloud(40).float().tolist()}
    assert (
        len({tuple(r) for r in model.points.tolist()} & rows) == 25
    )  # a subset without repetition
    trainer.save_checkpoint(tmp_path / "kde.ckpt")
    again = checkpoint.load(tmp_path / "kde.ckpt")
    x = cloud(10).float()
    assert torch.equal(again.log_prob(x), model.log_prob(x)) and torch.equal(
        again.point_labels, model.point_labels
    )


def test_samples_are_training_points_plus_noise():
    points = 100 * cloud(5)
    model = kde(points, 0.5)
    x = model.sample(20_000, generator=torch.Generator().manual_seed(0)).detach()
    nearest = torch.cdist(x, points).argmin(1)
    assert (torch.bincount(nearest, minlength=5) / 20_000 - 0.2).abs().max() < 0.02
    assert (x - points[nearest]).std().item() == pytest.approx(0.5, rel=0.02)


def test_inpainting_follows_the_conditional_density():
    model = kde(cloud(20), 0.4)
    row, known = torch.tensor([[0.5, 0.0]]).double(), torch.tensor([[True, False]])
    drawn = model.inpaint(
        row.expand(40_000, 2), known, generator=torch.Generator().manual_seed(0)
    ).detach()
    axis = torch.linspace(-5, 5, 1001).double()
    density = model.log_prob(torch.stack([row[0, 0].expand_as(axis), axis], 1)).exp().detach()
    cdf = density.cumsum(0) / density.sum()
    assert torch.equal(drawn[:, 0], row[:, 0].expand(40_000))
    empirical = (drawn[:, 1][None] <= axis[::50, None]).double().mean(1)
    assert (empirical - cdf[::50]).abs().max() < 0.02


def test_classes_share_the_density():
    model = KDE(DataSpec((2,), num_classes=2)).double()
    model.points, model.point_labels = cloud(30), torch.arange(30) % 2
    model.h.data.fill_(0.5)
    x = cloud(40)[30:]
    per_class = [kde(model.points[model.point_labels == c]).log_prob(x) for c in (0, 1)]
    torch.testing.assert_close(model.classify(x), torch.stack(per_class, 1).softmax(1))


def test_every_point_keeps_its_own_label_however_points_are_ordered():
    x = torch.arange(60.0)[:, None] * 10  # so far apart that each has a kernel of its own
    y = torch.arange(60) % 7
    spec = DataSpec((1,), num_classes=7)
    for kept in (60, 20):
        model = KDE(spec, max_points=kept).double()
        model.start(x.double(), y)
        model.h.data.fill_(0.5)
        assert len(model.points) == kept
        at = (model.points[:, 0] / 10).long()
        assert torch.equal(model.classify(model.points).argmax(1), y[at])


def test_what_is_logged_is_the_distance_to_the_nearest_point_and_the_share_of_right_classes():
    x = torch.tensor([[0.0], [10.0], [20.0]]).double()
    model = KDE(DataSpec((1,), num_classes=3)).double()
    model.points, model.point_labels = x, torch.tensor([0, 1, 2])
    model.h.data.fill_(0.5)
    said = model.evaluate(Batch({"x": x + 1, "y": torch.tensor([0, 1, 1])}))
    assert said["nearest"].tolist() == [1.0, 1.0, 1.0]
    assert said["accuracy"].tolist() == [1.0, 1.0, 0.0]
    assert said["bandwidth"].tolist() == [0.5] * 3


def test_in_64_dimensions_it_loses_to_one_gaussian():
    data = Digits()
    model = KDE(data.spec)
    fit(model, data, 10)
    rows, val = model.prepared(data.examples()["x"]), data.examples(split="val")["x"]
    gaussian = MultivariateNormal(rows.mean(0), torch.cov(rows.T))
    y = (
        val.flatten(1).double()
        + torch.rand(val.flatten(1).shape, generator=torch.Generator().manual_seed(0))
    ) / 17
    assert model.log_prob(val).mean() < gaussian.log_prob(y).mean() - 64 * math.log(17)
