"""Noise is a function of (seed, purpose, step, draw, row): nothing to save, the same rows for any
number of processes.
"""

import pytest
import torch

from zoo.core.noise import Noise, mix, seeded


def test_equal_keys_draw_the_same_and_every_part_of_the_key_matters():
    draws = {
        key: Noise(*key).normal(4, 3)
        for key in ((1, "a", 2), (1, "a", 3), (1, "b", 2), (2, "a", 2))
    }
    assert torch.equal(draws[1, "a", 2], Noise(1, "a", 2).normal(4, 3))
    values = [d.flatten()[0].item() for d in draws.values()]
    assert len(set(values)) == 4


def test_successive_draws_differ():
    noise = Noise(1, "a", 2)
    assert not torch.equal(noise.normal(8, 3), noise.normal(8, 3))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_out_the_rows_of_one(world):
    whole = Noise(7, "x").uniform(8, 5)
    parts = [Noise(7, "x", rank=r, world=world).uniform(8 // world, 5) for r in range(world)]
    for rank, part in enumerate(parts):
        assert torch.equal(part, whole[rank::world])


def test_micro_batches_share_out_the_rows_of_a_batch_on_every_process():
    for rank in range(2):
        whole = Noise(7, "x", rank=rank, world=2).normal(6, 2)
        parts = [Noise(7, "x", rank=rank, world=2, part=p, parts=3).normal(2, 2) for p in range(3)]
        assert torch.equal(torch.cat(parts), whole)


def test_distributions():
    noise = Noise(0, dtype=torch.float64)
    u, n = noise.uniform(20000, low=-1, high=3), noise.normal(20000)
    assert u.min() >= -1
    assert u.max() < 3
    assert u.mean() == pytest.approx(1, abs=0.03)
    assert n.std() == pytest.approx(1, abs=0.03)
    assert noise.bernoulli(torch.full((20000,), 0.3)).mean() == pytest.approx(0.3, abs=0.02)
    assert set(noise.integers(1000, high=4).tolist()) == {0, 1, 2, 3}


def test_seeds_do_not_depend_on_the_interpreter():
    assert (
        mix(1, "train", 2) == 4483975581300712632
    )  # frozen: another value would move every published number
    assert 0 <= mix("a") < 2**63
    assert mix(0, 1) != mix(1, 0)
    assert torch.equal(torch.rand(3, generator=seeded(5)), torch.rand(3, generator=seeded(5)))
