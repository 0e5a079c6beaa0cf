"""What gradient penalties share: the gradient of a critic with respect to its input,
differentiable, in single precision or better where the critic's weights are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.nn.small import full


def squared_gradient_norm(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """‖∇_x f(x)‖² over all dimensions but the first, (B,); differentiable with respect to the
    critic's parameters.

    Args:
        critic: one value for each row, each of its own row only (no batch statistics). x: the
            points, taken as constants.

    >>> squared_gradient_norm(lambda v: v.square().sum(1), torch.tensor([[3.0, 4.0]]))  # |2v|²
    tensor([100.], grad_fn=<SumBackward1>)
    """
    mixed = torch.is_autocast_enabled(x.device.type)  # the weights are in single precision
    with torch.autocast(x.device.type, enabled=False), torch.enable_grad():
        x = (full(x.detach()) if mixed else x.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return full(gradient).flatten(1).square().sum(1)
