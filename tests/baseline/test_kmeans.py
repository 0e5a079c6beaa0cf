"""k-means is Lloyd's: J falls, centroids are means, seeds lie far apart."""

import itertools

import pytest
import torch

from tests.support import Given, fit
from zoo.baseline.kmeans import KMeans, squared_distances
from zoo.core import Batch, DataSpec
from zoo.data.digits import Digits

PLANE = DataSpec((2,))


def kmeans(spec: DataSpec = PLANE, seed: int = 0, **options) -> KMeans:
    torch.manual_seed(seed)
    return KMeans(spec, **options).double()


def digits():
    data = Digits()
    batch = data.examples()
    return data.spec, batch["x"].flatten(1).double() / 16, batch["y"]


def brute_force_inertia(rows, centroids):
    return (rows[:, None] - centroids).square().sum(2).min(1).values.mean()


def test_inertia_never_rises_and_is_that_of_the_centroids_reached():
    spec, rows, _ = digits()
    model = kmeans(spec)
    model.centroids.data.copy_(rows[:10])
    values = []
    for _ in range(30):
        terms = model.iterate(rows)
        assert terms["reseeds"] == 0
        values.append(terms["inertia"])
    assert (
        all(b <= a + 1e-12 for a, b in itertools.pairwise(values)) and values[-1] < 0.9 * values[0]
    )
    torch.testing.assert_close(values[-1], brute_force_inertia(rows, model.centroids.detach()))


def test_eight_points_are_split_as_the_best_of_all_partitions():
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(3)).double()
    best = min(
        sum((g - g.mean(0)).square().sum() for g in (x[mask], x[~mask])) / 8
        for mask in (
            torch.tensor(bits, dtype=torch.bool)
            for bits in itertools.product([False, True], repeat=8)
        )
        if 0 < mask.sum() < 8
    )
    model = kmeans(clusters=2, restarts=10)
    model.start(x)
    for _ in range(10):
        terms = model.iterate(x)
    assert terms["inertia"] == pytest.approx(best.item(), abs=1e-12)


def test_at_convergence_centroids_are_exact_means_and_every_point_is_with_its_nearest():
    spec, rows, y = digits()
    model = kmeans(spec)
    model.start(rows, y)
    for _ in range(60):
        model.iterate(rows, y)
    nearest = (rows[:, None] - model.centroids.detach()).square().sum(2).argmin(1)
    for k in range(10):
        torch.testing.assert_close(
            model.centroids[k].detach(), rows[nearest == k].mean(0), rtol=0, atol=1e-12
        )
        assert model.counts[k] == (nearest == k).sum()
        own = (rows[nearest == k] - rows[nearest == k].mean(0)).square().mean()
        torch.testing.assert_close(model.variance[k], own, rtol=0, atol=1e-12)
        assert torch.equal(
            model.label_counts[k], torch.bincount(y[nearest == k], minlength=10).double()
        )


def test_result_is_as_good_as_scikit_learns():
    from sklearn.cluster import KMeans as Reference

    spec, rows, _ = digits()
    reference = Reference(10, n_init=10, random_state=0).fit(rows.numpy()).inertia_ / len(rows)
    model = kmeans(spec)
    model.start(rows)
    for _ in range(50):
        terms = model.iterate(rows)
    assert terms["inertia"] < 1.01 * reference


def test_seeds_are_far_apart():
    blobs = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double()
    blobs[:50] += 20
    model = kmeans(clusters=2)
    both = [(model.seeds(blobs, trial)[:, 0] > 10).sum() == 1 for trial in range(200)]
    assert sum(both) > 190


def test_the_best_of_the_seedings_is_kept_and_each_is_another(monkeypatch):
    corners = torch.tensor([[0.0, 0], [0, 1], [10, 0], [10, 1]]).double()
    tried = [corners[[0, 2]], torch.tensor([[5.0, 0], [5, 1]]).double()]  # the second gets stuck
    for seedings in (tried, tried[::-1]):
        model = kmeans(clusters=2, restarts=2)
        monkeypatch.setattr(model, "seeds", lambda rows, restart, s=seedings: s[restart])
        model.start(corners)
        assert sorted(model.centroids[:, 0].tolist()) == [0, 10]
    _, rows, _ = digits()
    model = kmeans(DataSpec((64,)))
    assert not torch.equal(model.seeds(rows, 0), model.seeds(rows, 1))


def test_codes_are_distances_and_inertia_is_told_beside_the_datas_variance():
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double() + 100
    model = kmeans(clusters=3)
    model.start(x)
    terms = model.iterate(x)
    assert terms["inertia_ratio"] == pytest.approx(terms["inertia"] / x.numpy().var(0).sum())
    torch.testing.assert_close(model.encode(x), torch.cdist(x, model.centroids.detach()))
    told = model.evaluate(Batch({"x": x}))
    assert told["inertia_ratio"].mean().item() == pytest.approx(terms["inertia_ratio"].item())


def test_samples_without_spread_are_the_centroids():
    model = kmeans(clusters=2, spread=False)
    model.variance.fill_(1.0)
    x = model.sample(50, generator=torch.Generator().manual_seed(0))
    assert {tuple(row) for row in x.tolist()} == {tuple(c) for c in model.centroids.tolist()}


def test_an_empty_cluster_moves_to_the_farthest_point_and_is_counted():
    x = torch.tensor([[0.0, 0], [1, 0], [2, 0], [30, 0]]).double()
    model = kmeans(clusters=2)
    model.centroids.data.copy_(torch.tensor([[5.0, 0], [500, 500]]))
    terms = model.iterate(x)
    assert terms["reseeds"] == 1 and model.centroids[1].tolist() == [30, 0]
    model.iterate(x)
    assert sorted(model.centroids[:, 0].tolist()) == [1, 30]


def test_distances_of_near_points_are_not_lost_far_from_the_origin():
    x = torch.tensor([[1000.0, 1000.0]])
    assert squared_distances(x + 2**-10, x).item() == pytest.approx(2 * 2**-20, rel=1e-3)


def test_samples_have_the_clusters_shares_and_spread():
    model = kmeans(clusters=2)
    model.centroids.data.copy_(torch.tensor([[-10.0, 0], [10, 0]]))
    model.counts.copy_(torch.tensor([30.0, 10]))
    model.variance.copy_(torch.tensor([0.25, 4]))
    x = model.sample(20_000, generator=torch.Generator().manual_seed(0))
    left = x[x[:, 0] < 0]
    assert abs(len(left) / 20_000 - 0.75) < 0.01
    assert left.var(0).mean().item() == pytest.approx(0.25, rel=0.05)
    assert x[x[:, 0] > 0].var(0).mean().item() == pytest.approx(4, rel=0.05)


def test_labels_of_a_cluster_classify_its_members():
    x = torch.cat([torch.zeros(6, 2), torch.ones(4, 2)])
    y = torch.tensor([2] * 6 + [0] * 3 + [1])
    spec = DataSpec((2,), num_classes=3)
    model = KMeans(spec, clusters=2)
    fit(model, Given(spec, x, y), 2)
    assert model.classify(x).argmax(1).tolist() == [2] * 6 + [0] * 4
    torch.testing.assert_close(model.classify(x[-1:]), torch.tensor([[4.0, 2, 1]]) / 7)
    assert model.evaluate(Batch({"x": x, "y": y}))["purity"].mean() == pytest.approx(0.9)
    with pytest.raises(ValueError, match="labels"):
        kmeans().classify(x)


def test_more_clusters_than_examples_are_refused():
    with pytest.raises(ValueError, match="10 clusters for 3 examples; lower"):
        kmeans().start(torch.rand(3, 2).double())
