"""What D's logits say of the divergence and of how often it is right."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from zoo.nn.adversarial_losses import accuracy, divergence

P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])  # of real and of made rows


def rows(p: np.ndarray, logits: np.ndarray) -> torch.Tensor:
    """Logits of ten rows, as often as each value is drawn."""
    return torch.from_numpy(logits).repeat_interleave(torch.from_numpy((10 * p).round()).long())


def test_the_bound_of_the_best_discriminator_is_the_divergence_and_of_another_less():
    best = np.log(P / Q)
    exact = jensenshannon(P, Q) ** 2  # nats
    found = [divergence(rows(P, v), rows(Q, v))["jsd_bound"] for v in (best, 0.5 * best, best + 1)]
    assert found[0].item() == pytest.approx(exact) and max(found[1:]) < exact
    sure = torch.full((4,), 50.0)
    assert divergence(sure, -sure)["jsd_bound"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("middle", [0.0, 0.5])
def test_accuracy_counts_real_rows_above_the_middle_and_made_rows_below(middle):
    real = middle + torch.tensor([2.0, 0.1, 3.0, -1.0])
    fake = middle + torch.tensor([-2.0, 0.1, 3.0, 1.0, 0.2])
    said = accuracy(real, fake, middle)
    assert said["d_acc_real"].item() == 0.75 and said["d_acc_fake"].item() == pytest.approx(0.2)
