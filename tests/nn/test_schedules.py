"""The schedule of the first GANs' SGD."""

import pytest
import torch

from zoo.nn.schedules import DecayAndMomentum, goodfellow


def walk(schedule: DecayAndMomentum, steps: int) -> list[tuple[float, float]]:
    """Rate and momentum before each step and at the end."""
    group, seen = schedule.optimizer.param_groups[0], []
    for _ in range(steps):
        seen.append((group["lr"], group["momentum"]))
        schedule.optimizer.step()
        schedule.step()
    return [*seen, (group["lr"], group["momentum"])]


def make(steps: int = 4) -> DecayAndMomentum:
    return DecayAndMomentum(
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1),
        decay=2.0,
        first=0.5,
        last=0.7,
        steps=steps,
    )


def test_the_rate_falls_by_a_factor_to_a_floor_and_the_momentum_rises_to_its_end():
    seen = walk(make(), 25)
    assert [rate for rate, _ in seen] == pytest.approx([max(0.1 / 2**n, 1e-6) for n in range(26)])
    assert [momentum for _, momentum in seen] == pytest.approx([0.5, 0.55, 0.6, 0.65] + [0.7] * 22)


def test_without_steps_the_momentum_has_risen_after_the_first():
    assert [momentum for _, momentum in walk(make(steps=0), 2)] == pytest.approx([0.5, 0.7, 0.7])


def test_players_of_unequal_steps_have_the_same_momentum_at_the_end_of_every_cycle():
    steps = {"d": 3, "g": 1}
    sgd = {p: torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1) for p in steps}
    schedules = goodfellow(sgd, 1.5, (0.5, 0.7), cycles=4, steps_of=steps.__getitem__)
    momenta = {p: [m for _, m in walk(schedules[p], 5 * n)][::n] for p, n in steps.items()}
    assert momenta["d"] == pytest.approx(momenta["g"])
    assert momenta["g"] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.7])


def test_it_goes_on_where_a_checkpoint_stood():
    whole, first, rest = make(), make(), make()
    expected = walk(whole, 6)
    walk(first, 3)
    rest.optimizer.load_state_dict(first.optimizer.state_dict())
    rest.load_state_dict(first.state_dict())
    assert walk(rest, 3) == expected[3:]
