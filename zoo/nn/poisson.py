"""The Gaussian-Poisson equation of image blending (Wu et al. 2019, section 3.3): an image whose
gradients are those of a composite and whose colours, smoothed, are those of another image.

With N = -Laplacian (5 points, no flow over the edges), v the wanted gradients, b = -div v, and Γ a
gaussian of 3x3 pixels with reflected edges, one of

    poisson         (N + β Γ) x = b + β x_l                    the authors' code
    least_squares   argmin ‖b - N x‖² + β ‖Γ x - x_l‖²         the paper's objective

for each channel of each image. The cosine transform (DCT-II) diagonalises N and Γ alike.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.small import full

Solver = Literal["poisson", "least_squares"]


# -- the cosine transform --------------------------------------------------------------------------
def dct(x: Tensor) -> Tensor:
    """DCT-II along the last dimension, orthonormal, by one FFT of the even values and the odd ones
    backwards (Makhoul 1980).

    >>> dct(torch.ones(4))
    tensor([2., 0., 0., 0.])
    """
    spectrum = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1))
    return (spectrum * _turns(x)).real * _scales(x)


def idct(y: Tensor) -> Tensor:
    """The inverse of ``dct``, its transpose.

    >>> idct(torch.tensor([2.0, 0.0, 0.0, 0.0]))
    tensor([1., 1., 1., 1.])
    """
    y = y / _scales(y)
    mirrored = torch.cat([torch.zeros_like(y[..., :1]), y[..., 1:].flip(-1)], -1)
    v = torch.fft.ifft(torch.complex(y, -mirrored) / _turns(y)).real
    even = (y.shape[-1] + 1) // 2
    x = torch.empty_like(y)
    x[..., ::2], x[..., 1::2] = v[..., :even], v[..., even:].flip(-1)
    return x


def _turns(x: Tensor) -> Tensor:
    angle = -math.pi / (2 * x.shape[-1]) * torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    return torch.polar(torch.ones_like(angle), angle)


def _scales(x: Tensor) -> Tensor:
    n = x.shape[-1]
    scales = torch.full((n,), math.sqrt(2 / n), device=x.device, dtype=x.dtype)
    scales[0] = math.sqrt(1 / n)
    return scales


def dct2(x: Tensor) -> Tensor:
    """DCT-II along both last dimensions."""
    return dct(dct(x).mT).mT


def idct2(y: Tensor) -> Tensor:
    """The inverse of ``dct2``."""
    return idct(idct(y).mT).mT


# -- gradients -------------------------------------------------------------------------------------
def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next row and to the next column; 0 in the last ones.

    >>> [g.tolist() for g in gradients(torch.tensor([[1.0, 3.0], [4.0, 8.0]]))]
    [[[3.0, 5.0], [0.0, 0.0]], [[2.0, 0.0], [4.0, 0.0]]]
    """
    return F.pad(x.diff(dim=-2), (0, 0, 0, 1)), F.pad(x.diff(dim=-1), (0, 1))


def outflow(down: Tensor, right: Tensor) -> Tensor:
    """b = -div v, the transposes of the differences of ``gradients``."""
    down, right = down[..., :-1, :], right[..., :-1]
    rows = F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))
    return rows + F.pad(right, (1, 0)) - F.pad(right, (0, 1))


def composite(source: Tensor, destination: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """v: the gradients of the source where the mask is 1, and of the destination elsewhere."""
    pairs = zip(gradients(source), gradients(destination), strict=True)
    down, right = (torch.where(mask > 0.5, s, d) for s, d in pairs)
    return down, right


# -- the equation ----------------------------------------------------------------------------------
def taps(sigma: float, reach: int) -> list[float]:
    """A gaussian at -reach, ..., reach, of sum 1."""
    found = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)]
    return [v / sum(found) for v in found]


def smoothed(x: Tensor, sigma: float, reach: int) -> Tensor:
    """Images, (B, C, H, W), under a gaussian of 2 reach + 1 pixels; beyond an edge its own pixels
    go on, which of 3 x 3 is a reflection.
    """
    wide = F.pad(x, (reach,) * 4, mode="replicate")
    for dim in (2, 3):
        n = x.shape[dim]
        parts = [w * wide.narrow(dim, i, n) for i, w in enumerate(taps(sigma, reach))]
        wide = sum(parts[1:], parts[0])
    return wide


def solve(
    low: Tensor, v: tuple[Tensor, Tensor], beta: float, solver: Solver, sigma: float = 0.5
) -> Tensor:
    """x of wanted colours x_l and gradients v, (B, C, H, W).

    >>> x = torch.rand(1, 1, 8, 8)
    >>> found = solve(smoothed(x, 0.5, 1), gradients(x), 1.0, "poisson")
    >>> torch.allclose(found, x, atol=1e-5)
    True
    """
    h, w = low.shape[-2:]
    rows, columns = (
        torch.cos(math.pi / n * torch.arange(n, device=low.device, dtype=low.dtype)) for n in (h, w)
    )
    side, middle, _ = taps(sigma, 1)
    lam = 4 - 2 * rows[:, None] - 2 * columns
    gamma = (middle + 2 * side * rows)[:, None] * (middle + 2 * side * columns)
    b, colours = dct2(outflow(*v)), dct2(low)
    if solver == "poisson":
        return idct2((b + beta * colours) / (lam + beta * gamma))
    return idct2((lam * b + beta * gamma * colours) / (lam.square() + beta * gamma.square()))


# -- any size --------------------------------------------------------------------------------------
def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bicubic", align_corners=False)


def sizes(height: int, breadth: int, size: int) -> list[tuple[int, int]]:
    """Of the levels of a pyramid: size x size, twice that, ..., and the image's own.

    >>> sizes(100, 64, 32), sizes(32, 32, 32)
    ([(32, 32), (64, 64), (100, 64)], [(32, 32)])
    """
    count = max(math.ceil(math.log2(max(height, breadth) / size)), 0)
    return [*((size << i, size << i) for i in range(count)), (height, breadth)]


def pyramid(x: Tensor, size: int) -> list[Tensor]:
    """An image at each of ``sizes``, smallest first: smoothed (σ = 1), resized, and again."""
    found = [full(x)]
    for shape in reversed(sizes(x.shape[2], x.shape[3], size)[:-1]):
        found.append(resized(smoothed(found[-1], 1.0, 4), shape))
    return found[::-1]


def blended(
    low: Tensor,
    source: Tensor,
    destination: Tensor,
    mask: Tensor,
    beta: float = 1.0,
    solver: Solver = "poisson",
) -> Tensor:
    """The source within the mask and the destination around it in the colours of a small square
    image, level by level: the equation is solved at each, what it gives is clipped to [0, 1] and,
    enlarged, is the colours of the next.

    Args:
        low: (B, C, size, size) in [0, 1]. source, destination: (B, C, H, W) in [0, 1]. mask:
            (B, 1, H, W), 1 where the source is wanted.
    """
    levels = zip(*(pyramid(v, low.shape[-1]) for v in (source, destination)), strict=True)
    x = full(low)
    for s, d in levels:
        shape = s.shape[2:]
        inside = F.interpolate(full(mask), shape, mode="nearest")
        x = solve(resized(x, shape), composite(s, d, inside), beta, solver).clamp(0, 1)
    return x
