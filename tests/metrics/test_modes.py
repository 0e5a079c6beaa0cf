"""Mode coverage counts components and near samples as stated."""

import pytest
import torch

from zoo.data.toy2d import Toy2D
from zoo.metrics import mode_coverage

CENTRES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])


def test_a_component_counts_from_twenty_near_samples_on():
    x = torch.cat(
        [
            CENTRES[:1].expand(50, 2),
            CENTRES[1:2].expand(20, 2),
            CENTRES[2:].expand(19, 2),
            torch.full((11, 2), 9.0),
        ]
    )
    found = mode_coverage(x, CENTRES, std=0.1)
    assert found["modes"] == 2 and found["hq"] == 0.89 and found["hq_strict"] == 0.89


def test_near_is_the_radius_and_strict_is_three_standard_deviations():
    x = torch.tensor([[0.05, 0.0], [0.2, 0.0], [0.29, 0.0], [0.31, 0.0]])
    found = mode_coverage(x, CENTRES, std=0.05)
    assert found["hq"] == 0.75 and found["hq_strict"] == 0.25


def test_the_data_themselves_reach_all_modes():
    data = Toy2D(size=2500)
    found = mode_coverage(data.examples(2500)["x"], data.centres, data.std)
    assert found["modes"] == 8 and found["hq"] == 1
    assert found["hq_strict"].item() == pytest.approx(
        1 - 2.718281828 ** (-4.5), abs=0.01
    )  # Rayleigh: P(r <= 3σ)
