"""The training of a small network that is no model: features, recognisers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Loss = Callable[[Tensor, torch.Generator], Tensor]  # of row numbers, (B,), and what draws noise


def taught(
    parameters: Iterable[torch.nn.Parameter],
    loss: Loss,
    rows: int,
    says: str,
    *,
    steps: int,
    batch: int,
    rate: float,
    progress: bool = True,
) -> None:
    """Adam, its rate falling linearly to 0, on minibatches drawn with replacement by a generator of
    its own, of seed 0.

    Args:
        loss: of a minibatch. rows: of the data. says: beside the bar. rate: Adam's at the start.
    """
    from tqdm import tqdm

    g = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(parameters, rate)
    for step in tqdm(range(steps), desc=says, disable=not progress, leave=False):
        value = loss(torch.randint(rows, (batch,), generator=g), g)
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
