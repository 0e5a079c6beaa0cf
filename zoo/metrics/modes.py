"""Mode coverage on mixtures whose components are known."""

from __future__ import annotations

import torch
from torch import Tensor


def mode_coverage(
    x: Tensor, centres: Tensor, std: float, radius: float = 0.3, least: int = 20
) -> dict[str, Tensor]:
    """How many components of a mixture of equal gaussians the samples reach, and how many samples
    are near one.

    Args:
        x: samples, (n, D). centres: component means, (K, D). std: standard deviation of a
            component. radius: what is near.
        least: samples near its centre that a component must receive to count as reached; 20 is
            meant for 2,500 samples.

    Returns:
        ``modes``, the number of components reached; ``hq``, the share of samples within ``radius``
        of a centre; ``hq_strict``, the share within three standard deviations. float64 scalars.

    >>> centres = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    >>> x = torch.tensor([[0.1, 0.0]] * 20 + [[9.0, 9.0]] * 20)
    >>> {k: float(v) for k, v in mode_coverage(x, centres, std=0.05).items()}
    {'modes': 1.0, 'hq': 0.5, 'hq_strict': 0.5}
    """
    distance, nearest = torch.cdist(x.double(), centres.to(x.device).double()).min(1)
    near = distance <= radius
    counts = torch.bincount(nearest[near], minlength=len(centres))
    return {
        "modes": (counts >= least).sum().double(),
        "hq": near.double().mean(),
        "hq_strict": (distance <= 3 * std).double().mean(),
    }
