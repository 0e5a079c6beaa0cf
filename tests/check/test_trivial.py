"""What knows next to nothing: samplers and densities that gates are held against."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.support import Given
from zoo.check import Subject
from zoo.check import trivial as module
from zoo.check.gates import check_gates_refuse_trivial_rows
from zoo.check.likelihoods import every_image
from zoo.check.trivial import Trivial, passes
from zoo.core import DataSpec

TINY = DataSpec((1, 2, 2), 3)


def trivial(kind: str, spec: DataSpec = TINY, n: int = 400) -> Trivial:
    g = torch.Generator().manual_seed(0)
    if spec.levels is None:
        x = torch.randn(n, *spec.shape, generator=g) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]) + 3
    else:
        x = torch.randint(spec.levels, (n, *spec.shape), generator=g).float()
        x[..., 0, 0] = x[..., 1, 1]  # two pixels that are always alike
    return Trivial(spec, kind, Given(spec, x))


@pytest.mark.parametrize("kind", ["uniform", "independent"])
def test_masses_sum_to_one(kind):
    p = (-trivial(kind).nats(every_image(TINY).float())).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_gaussian_is_scipys_and_its_samples_have_its_moments():
    model = trivial("gaussian", DataSpec((2,)))
    rows = model.rows.double().numpy()
    normal = stats.multivariate_normal(rows.mean(0), np.cov(rows.T))
    x = torch.randn(5, 2) + 3
    np.testing.assert_allclose(-model.nats(x).numpy(), normal.logpdf(x.double().numpy()), rtol=1e-6)
    drawn = model.sample(40_000, generator=torch.Generator().manual_seed(0)).double()
    np.testing.assert_allclose(np.cov(drawn.T.numpy()), np.cov(rows.T), atol=0.1)
    np.testing.assert_allclose(drawn.mean(0).numpy(), rows.mean(0), atol=0.05)


def test_the_dequantised_bound_is_below_the_mass_of_its_own_density():
    model = trivial("gaussian")
    g = torch.Generator().manual_seed(1)
    x = every_image(TINY).float()[::9]
    y = (x[:, None] + torch.rand(len(x), 4000, 1, 2, 2, generator=g)) / 3
    cov = model.cov + torch.eye(4).double() / 108
    normal = torch.distributions.MultivariateNormal(model.mu, cov)
    mass = normal.log_prob(y.flatten(2).double()).logsumexp(1) - math.log(4000) - 4 * math.log(3)
    bounds = torch.stack([-model.nats(x + 1e-6 * i) for i in range(300)])  # the noise is the row's
    assert (bounds.mean(0) < mass).all()


def test_independent_pixels_keep_their_shares_and_lose_what_they_have_in_common():
    model = trivial("independent")
    x = model.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    rows = model.rows.flatten(1)
    for level in range(3):
        wanted = (rows == level).float().mean(0)
        torch.testing.assert_close((x == level).float().mean(0), wanted, rtol=0, atol=0.02)
    assert (rows[:, 0] == rows[:, 3]).all() and (x[:, 0] == x[:, 3]).float().mean() < 0.4


def test_the_other_rows_are_what_they_are_called():
    g = torch.Generator().manual_seed(0)
    mean = trivial("mean").sample(3, generator=g)
    assert torch.equal(mean, trivial("mean").rows.mean(0).round().expand_as(mean))
    circle = trivial("circle", DataSpec((2,)))
    radius = circle.rows.norm(dim=1).mean()
    torch.testing.assert_close(circle.sample(50, generator=g).norm(dim=1), radius.expand(50))
    uniform = trivial("uniform").sample(9000, generator=g)
    shares = torch.bincount(uniform.long().flatten()) / uniform.numel()
    assert (shares - 1 / 3).abs().max() < 0.01
    held_out = trivial("held_out")
    known = {tuple(row) for row in held_out.other.flatten(1).tolist()}
    assert {tuple(row) for row in held_out.sample(900, generator=g).flatten(1).tolist()} <= known


def test_gates_are_passed_by_all_that_they_speak_of():
    gates = (("val/a", ">", 1.0), ("val/b", "<", 2.0), ("val/c", ">", 0.0))
    assert passes(gates, {"val/a": 2.0, "val/b": 1.0}) is True
    assert passes(gates, {"val/a": 2.0, "val/b": 3.0}) is False
    assert passes(gates, {"val/x": 2.0}) is None


def test_a_model_of_two_domains_is_held_against_the_first():
    from zoo.data.unpaired import Unpaired

    data = Unpaired(kind="edges")
    alone = module.Field(data, "a")
    for split in ("train", "val", "test"):
        rows, whole = alone.examples(split=split), data.examples(split=split)
        assert torch.equal(rows["x"], whole["a"]) and torch.equal(rows["y"], whole["y"])
    assert Trivial(alone.spec, "mean", alone).sample(3).shape == (3, 1, 8, 8)


def test_models_that_share_data_are_held_against_the_same_rows(monkeypatch):
    """The rows are measured once: no check may take anything out of them."""
    good, bad = {"val/modes": 25.0, "val/hq": 0.9, "val/hq_strict": 0.9}, {"val/modes": 3.0}
    rows = {"held_out": good, "uniform": bad}
    monkeypatch.setattr(module, "_measured", lambda key: rows)
    subject = Subject.of("adagan")
    for _ in range(2):
        check_gates_refuse_trivial_rows(subject)
    rows["uniform"] = good
    with pytest.raises(AssertionError, match=r"a trivial row \(uniform\) passes"):
        check_gates_refuse_trivial_rows(subject)
