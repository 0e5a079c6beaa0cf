"""What all models with an inference network share."""

import math

import pytest
import torch

from zoo.core import DataSpec
from zoo.variational.beta_vae import BetaVAE
from zoo.variational.vae import VAE


@pytest.mark.parametrize("kind", [VAE, BetaVAE])
def test_adagrads_sums_start_at_a_tenth(kind):
    """So that its first step is lr g / sqrt(0.1 + g²), not the whole rate for every weight."""
    torch.manual_seed(0)
    spec = DataSpec((1, 3, 3), 2)
    model = kind(spec, latent=2, width=8, optimiser="adagrad", lr=0.02)
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = model.configure_optimizers()
    for scale in (1.0, 3.0):
        for p in model.parameters():
            p.grad = torch.full_like(p, scale)
        optimiser.step()
    step = 0.02 * (1 / math.sqrt(1.1) + 3 / math.sqrt(10.1))
    for p, start in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(start - p, torch.full_like(p, step), atol=1e-5, rtol=0)
    plain = kind(spec, latent=2, width=8, lr=0.02).configure_optimizers()
    assert isinstance(plain, torch.optim.Adam) and plain.param_groups[0]["lr"] == 0.02
