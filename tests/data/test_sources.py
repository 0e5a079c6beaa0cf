"""sources: mixtures whose truth is known."""

import pytest
import torch
from scipy import stats

from zoo.data.sources import KINDS, Sources


@pytest.mark.parametrize("kind", KINDS)
def test_unmixed_data_are_independent_and_of_their_kind(kind):
    data = Sources(kind, size=20_000)
    s = torch.linalg.solve(data.mixing, data.examples()["x"].T).T
    reference = {
        "laplace": stats.laplace,
        "logistic": stats.logistic,
        "uniform": stats.uniform(-1, 2),
        "gaussian": stats.norm,
    }[kind]
    assert min(stats.kstest(column.numpy(), reference.cdf).pvalue for column in s.T) > 1e-3
    assert (torch.corrcoef(s.abs().T) - torch.eye(4)).abs().max() < 0.03
    entropy = -reference.logpdf(s.clamp(-1, 1) if kind == "uniform" else s).sum(1).mean()
    assert data.entropy == pytest.approx(entropy, rel=0.02)


@pytest.mark.parametrize("seed", [0, 1])
def test_mixing_keeps_volume_and_follows_the_seed(seed):
    a = Sources(dim=6, seed=seed).mixing
    assert torch.linalg.slogdet(a)[1].item() == pytest.approx(0, abs=1e-5) and torch.linalg.cond(
        a
    ).item() == pytest.approx(4, rel=1e-4)
    assert torch.equal(a, Sources("uniform", dim=6, seed=seed).mixing) and not torch.equal(
        a, Sources(dim=6, seed=seed + 1).mixing
    )


def test_splits_are_drawn_apart_and_repeat():
    data = Sources(size=100)
    assert data.examples()["x"].shape == (100, 4) and data.spec.levels is None
    assert torch.equal(data.examples()["x"], Sources(size=100).examples()["x"])
    assert not torch.equal(data.examples(20)["x"], data.examples(20, split="val")["x"])
    with pytest.raises(ValueError, match="kind is one of"):
        Sources("cauchy")
