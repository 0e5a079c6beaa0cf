"""What every likelihood must satisfy, as plain functions over a model: enumeration, causality,
inversion, independence of rows.

Run them in float64 (``model.double().eval()``) on tiny data: 1x3x3 with 2 levels, 1x2x2 and 3x1x2
with 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.core import DataSpec, Spec

TINY = [DataSpec((1, 3, 3), 2), DataSpec((1, 2, 2), 3), DataSpec((3, 1, 2), 3)]
TINY_NAMES = ["1x3x3-2", "1x2x2-3", "3x1x2-3"]


def every_image(spec: Spec) -> Tensor:
    """All L^D images, (L^D, *shape), float64."""
    return torch.tensor(
        [*itertools.product(range(spec.levels or 0), repeat=spec.dim)], dtype=torch.float64
    ).view(-1, *spec.shape)


@torch.no_grad()
def total_mass(log_prob: Callable[[Tensor], Tensor], spec: Spec) -> float:
    """Σ_x P(x) over every image."""
    return sum(log_prob(x).exp().sum().item() for x in every_image(spec).split(1024))


@torch.no_grad()
def total_density(
    log_prob: Callable[[Tensor], Tensor], dim: int, half_width: float = 8.0, points: int = 401
) -> float:
    """∫ p(x) dx over [-half_width, half_width]^dim by the trapezoid rule, dim 1 or 2."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * dim).view(-1, dim)
    return log_prob(grid).exp().sum().item() * (axis[1] - axis[0]).item() ** dim


def dependence(models: list[Any], **condition: Any) -> Tensor:
    """M[a, b]: do the conditionals of the a-th dimension generated depend on the b-th? By autograd,
    over several initialisations of one architecture and order, since a dead unit hides a
    dependency."""
    found: Any = None
    for model in models:
        spec, order = model.spec, model.order
        x = (
            torch.rand(
                1, *spec.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
            )
            * (spec.levels or 2)
            - 0.5
        )
        jacobian = torch.func.jacrev(lambda v, m=model: m.conditionals(v, **condition)[0])(
            x
        )  # (D, P, 1, *shape)
        depends = (jacobian != 0).flatten(2).view(spec.dim, -1, spec.dim).any(1)[order][:, order]
        found = depends if found is None else found | depends
    return found


def coverage(depends: Tensor) -> float:
    """Dependencies found below the diagonal, as a share of D(D-1)/2."""
    d = len(depends)
    return depends.tril(-1).sum().item() / (d * (d - 1) / 2)


@torch.no_grad()
def leaks(model: Any, x: Tensor, **condition: Any) -> list[tuple[int, int]]:
    """Pairs (a, b), a <= b, where changing dimension order[b] of x changes, in any bit, the
    conditionals of order[a].
    """
    spec, order, found = model.spec, model.order.tolist(), []
    before = model.conditionals(x, **condition)
    for b, d in enumerate(order):
        for other in range(1, spec.levels):
            changed = x.flatten(1).clone()
            changed[:, d] = (changed[:, d] + other) % spec.levels
            after = model.conditionals(changed.view_as(x), **condition)
            found += [
                (a, b)
                for a in range(b + 1)
                if not torch.equal(after[:, order[a]], before[:, order[a]])
            ]
    return found


@torch.no_grad()
def sampler_distance(model: Any, n: int = 20_000, seed: int = 0, **condition: Any) -> float:
    """Total variation between n samples and exp(log_prob), over every image."""
    drawn = model.sample(n, generator=torch.Generator().manual_seed(seed), **condition)
    return total_variation(drawn, model.log_prob(every_image(model.spec)).exp(), model.spec)


def total_variation(drawn: Tensor, probabilities: Tensor, spec: Spec) -> float:
    """Between the frequencies of drawn images and their probabilities, given for every image in
    turn.
    """
    levels = spec.levels or 0
    power = levels ** torch.arange(spec.dim - 1, -1, -1, dtype=torch.float64)
    seen = torch.bincount(
        (drawn.double().flatten(1) @ power).long(), minlength=levels**spec.dim
    ) / len(drawn)
    return 0.5 * (seen - probabilities).abs().sum().item()


def assert_flow_inverts(
    forward: Callable[[Tensor], Any],
    inverse: Callable[[Tensor], Any],
    y: Tensor,
    tolerance: float = 1e-8,
) -> None:
    """inverse(forward(y)) = y and back, the log-determinants opposite and those of the autograd
    Jacobian; float64.
    """
    with torch.no_grad():
        z, log_det = forward(y)
        back, inverse_log_det = inverse(z)
        again, _ = forward(back)
    torch.testing.assert_close(back, y, rtol=0, atol=tolerance)
    torch.testing.assert_close(again, z, rtol=0, atol=tolerance)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=tolerance)
    for row, got in zip(y, log_det, strict=True):
        jacobian = torch.func.jacrev(lambda v: forward(v[None])[0].flatten())(row).reshape(
            row.numel(), row.numel()
        )
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], got, rtol=0, atol=tolerance)


@torch.no_grad()
def assert_rows_do_not_talk(value: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """value(x) has shape (B,); a row's value is the same in parts of the batch and in another
    order.
    """
    whole, order = value(x), torch.arange(len(x)).flip(0)
    assert whole.shape == (len(x),)
    torch.testing.assert_close(
        torch.cat([value(x[:1]), value(x[1:])]), whole, rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(value(x[order]), whole[order], rtol=1e-10, atol=1e-10)
