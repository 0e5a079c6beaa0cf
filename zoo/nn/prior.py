"""Latent priors: drawing codes for training and for sampling with one meaning, and the path between
two codes.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

PRIORS = ("normal", "uniform", "sphere")


class Source(Protocol):
    """What codes are drawn from: a model's training noise, or ``Draw``."""

    def normal(self, n: int, *shape: int) -> Tensor: ...

    def uniform(self, n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor: ...


class Draw:
    """A ``torch.Generator`` (None: the global one) with the methods of training noise, for
    ``sample``.
    """

    def __init__(
        self,
        generator: torch.Generator | None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.generator, self.device, self.dtype = generator, device, dtype

    def normal(self, n: int, *shape: int) -> Tensor:
        """(n, *shape) standard normal."""
        return torch.randn(
            n, *shape, generator=self.generator, device=self.device, dtype=self.dtype
        )

    def uniform(self, n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(n, *shape) uniform on [low, high)."""
        return (
            torch.rand(n, *shape, generator=self.generator, device=self.device, dtype=self.dtype)
            * (high - low)
            + low
        )


def check_prior(kind: str) -> None:
    """A clear error for a prior that does not exist.

    >>> check_prior("cube")
    Traceback (most recent call last):
    ValueError: prior is one of normal, uniform, sphere, got 'cube'
    """
    if kind not in PRIORS:
        raise ValueError(f"prior is one of {', '.join(PRIORS)}, got {kind!r}")


def draw_prior(kind: str, n: int, dim: int, source: Source) -> Tensor:
    """(n, dim) codes: N(0, I); U(-1, 1)^dim; or uniform on the sphere of radius √dim.

    >>> z = draw_prior("sphere", 5, 4, Draw(torch.Generator()))
    >>> z.shape, z.norm(dim=1).mean()
    (torch.Size([5, 4]), tensor(2.))
    """
    check_prior(kind)
    if kind == "uniform":
        return source.uniform(n, dim, low=-1.0, high=1.0)
    z = source.normal(n, dim)
    return z if kind == "normal" else z * (dim**0.5 / z.norm(dim=1, keepdim=True))


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1 - t) a + t b.

    >>> lerp(torch.zeros(2), torch.ones(2), torch.tensor(0.25))
    tensor([0.2500, 0.2500])
    """
    return (1 - t) * a + t * b


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(sin((1-t)ω) a + sin(tω) b) / sin ω with ω the angle between a and b along the last
    dimension; lerp where they are parallel.

    On a great arc the norm stays that of the ends, as it does for almost every draw of a
    high-dimensional gaussian (White 2016).

    >>> a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> slerp(a, b, torch.tensor(0.5))
    tensor([0.7071, 0.7071])
    """
    cosine = torch.cosine_similarity(a, b, dim=-1)[..., None].clamp(-1, 1)
    omega = torch.acos(cosine)
    sine = torch.sin(omega)
    parallel = sine < 1e-4
    sine = torch.where(parallel, 1.0, sine)
    return torch.where(
        parallel, lerp(a, b, t), (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / sine
    )


def path(kind: str, a: Tensor, b: Tensor, frames: int) -> Tensor:
    """Codes from a to b, ends included, (B, frames, dim): straight for the uniform prior, along the
    arc for the others.

    >>> path("uniform", torch.zeros(1, 1), torch.ones(1, 1), 3).flatten()
    tensor([0.0000, 0.5000, 1.0000])
    """
    t = torch.linspace(0, 1, frames, device=a.device, dtype=a.dtype)[:, None]
    return (lerp if kind == "uniform" else slerp)(a[:, None], b[:, None], t)
