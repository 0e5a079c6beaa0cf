"""A network that learns the classes of a run's own images, for models that look through it."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.cache import digest, folder, kept
from zoo.core.processes import from_rank_zero
from zoo.core.taught import taught

STEPS, BATCH, RATE = 1000, 64, 1e-3


def recogniser(name: str, net: nn.Module, x: Tensor, y: Tensor, progress: bool = True) -> None:
    """Give a network, (B, C, H, W) -> (B, D), weights of which a linear layer tells the classes of
    these images: the first process's, kept in the cache under a name that says images and classes.

    Args:
        name: of the network. x: images as it sees them. y: their classes, (N,).

    Raises:
        ValueError: all images are of one class.
    """
    x, y = x.detach().float().cpu().clone(), y.detach().long().cpu().clone()
    if (y == y[:1]).all():
        raise ValueError(f"{name}: all {len(y)} images are of one class; there is nothing to tell")
    code = inspect.getsource(type(net))
    shapes = " ".join(f"{k} {[*v.shape]}" for k, v in net.state_dict().items())
    of = digest(f"{name} {STEPS} {RATE} {shapes}", code, x, y)

    def made() -> dict[str, Tensor]:
        path, train = folder() / f"{name}-{of}.pt", partial(_trained, name, net, x, y, progress)
        return kept(path, of, train, name, "is trained", net.load_state_dict)

    net.load_state_dict(from_rank_zero(made))


def _trained(name: str, net: nn.Module, x: Tensor, y: Tensor, progress: bool) -> dict[str, Tensor]:
    with torch.random.fork_rng([]), torch.inference_mode(False), torch.enable_grad():
        torch.random.default_generator.manual_seed(0)
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)):
                module.reset_parameters()
        with torch.no_grad():
            dim = net(x[:2]).shape[1]
        head = nn.Linear(dim, int(y.max()) + 1)
        before = [p.requires_grad for p in net.parameters()]
        net.requires_grad_(True)
        nn.Module.train(net)

        def loss(rows: Tensor, g: torch.Generator) -> Tensor:
            return F.cross_entropy(head(net(x[rows])), y[rows])

        how: dict[str, Any] = {"steps": STEPS, "batch": BATCH, "progress": progress}
        both = [*net.parameters(), *head.parameters()]
        taught(both, loss, len(x), f"training {name}", rate=RATE, **how)
        for p, own in zip(net.parameters(), before, strict=True):
            p.requires_grad_(own)
        net.eval()
    return {k: v.detach().clone() for k, v in net.state_dict().items()}
