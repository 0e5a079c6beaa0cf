"""What the tests of the models with a critic share."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from zoo.core import DataSpec


def assert_networks_and_codes_as_asked(kind: Any) -> None:
    """Options of the networks and of the prior arrive in both players."""
    spec = DataSpec((1, 16, 16), 17)
    model = kind(spec, norm="layer", init="dcgan", width=64, prior="uniform", latent=8)
    assert sum(isinstance(m, nn.GroupNorm) for m in model.d.net.modules()) == 1
    assert model.d.net.end.bias is None  # a constant would change no loss
    for net in (model.g, model.d.net):
        convolutions = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        stds = [m.weight.std().item() for m in convolutions if m.weight.numel() > 2000]
        assert stds and stds == pytest.approx([0.02] * len(stds), rel=0.1)
    assert model.codes(500).abs().max() <= 1
