"""Two layers of binary units with energy E(v, h) = -b·v - c·h - v·Wh: free energy, log Z exact and
annealed, from below and above.

The visible layer may also be gaussian, E(v, h) = ½|v - b|² - c·h - v·Wh. A deep machine is one of
these too: its layers of odd number are ``v`` together, those of even number ``h`` (Salakhutdinov
and Hinton 2009, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

ENUMERABLE = 20  # units of a layer whose 2^n states are summed


def bernoulli(p: Tensor, generator: torch.Generator | None) -> Tensor:
    """0/1 draws of these probabilities.

    >>> bernoulli(torch.tensor([0.0, 1.0]), None)
    tensor([0., 1.])
    """
    return (torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype) < p).to(
        p.dtype
    )


def free_energy(v: Tensor, weight: Tensor, b: Tensor, c: Tensor, gaussian: bool = False) -> Tensor:
    """F(v) = -log Σ_h exp(-E(v, h)), (B,).

    >>> free_energy(torch.zeros(1, 2), torch.zeros(2, 3), torch.zeros(2), torch.zeros(3))  # -3 ln 2
    tensor([-2.0794])
    """
    visible = 0.5 * (v - b).square().sum(1) if gaussian else -(v @ b)
    return visible - F.softplus(c + v @ weight).sum(1)


def all_states(start: int, stop: int, n: int, like: Tensor) -> Tensor:
    """The binary vectors of the numbers start..stop-1, (stop - start, n).

    >>> all_states(0, 4, 2, torch.zeros(())).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    numbers = torch.arange(start, stop, device=like.device)
    return (numbers[:, None] >> torch.arange(n, device=like.device) & 1).to(like.dtype)


def enumerable(visible: int, hidden: int, gaussian: bool = False) -> bool:
    """Whether ``exact_log_z`` is to be had.

    >>> enumerable(64, 20), enumerable(64, 32)
    (True, False)
    """
    return hidden <= ENUMERABLE or (not gaussian and visible <= ENUMERABLE)


def exact_log_z(weight: Tensor, b: Tensor, c: Tensor, gaussian: bool = False) -> Tensor:
    """log Z, a scalar, by enumeration of the smaller binary layer.

    >>> exact_log_z(torch.zeros(2, 3), torch.zeros(2), torch.zeros(3)).exp()  # 2^5 states
    tensor(32.)
    """
    n = len(c) if gaussian else min(len(b), len(c))
    parts = []
    for start in range(0, 2**n, 2**14):
        s = all_states(start, min(start + 2**14, 2**n), n, weight)
        if gaussian:  # ∫ exp(-½|v - b|² + v·m) dv = (2π)^(D/2) exp(b·m + ½|m|²), m = Wh
            m = s @ weight.T
            parts.append(
                s @ c + m @ b + 0.5 * m.square().sum(1) + 0.5 * len(b) * math.log(2 * math.pi)
            )
        elif n == len(c):
            parts.append(s @ c + F.softplus(b + s @ weight.T).sum(1))
        else:
            parts.append(-free_energy(s, weight, b, c))
    return torch.cat(parts).logsumexp(0)


def ais_log_z(
    weight: Tensor,
    b: Tensor,
    c: Tensor,
    base: Tensor,
    temperatures: int,
    chains: int,
    generator: torch.Generator,
    gaussian: bool = False,
) -> tuple[Tensor, Tensor]:
    """log Z and the standard error of its logarithm, by annealed importance sampling (Salakhutdinov
    and Murray 2008, section 4.1).

    Z is estimated without bias, so the expectation of its logarithm is at most log Z.

    Args:
        base: visible biases of the machine with W = 0, c = 0 from which t runs to 1.

    >>> w, b, c = torch.zeros(2, 3), torch.zeros(2), torch.zeros(3)
    >>> log_z, error = ais_log_z(w, b, c, b, 10, 5, torch.Generator())  # nothing to anneal
    >>> round(log_z.exp().item(), 3), error.item()
    (32.0, 0.0)
    """
    v = _draw_visible(base.expand(chains, -1), generator, gaussian)
    steps = torch.linspace(0, 1, temperatures + 1).tolist()
    w = _anneal(v, steps, weight, b, c, base, generator, gaussian)
    return _log_z_base(base, c, gaussian) + w.logsumexp(0) - math.log(chains), _error(w)


def reverse_ais_log_z(
    weight: Tensor,
    b: Tensor,
    c: Tensor,
    base: Tensor,
    temperatures: int,
    v: Tensor,
    generator: torch.Generator,
    gaussian: bool = False,
) -> tuple[Tensor, Tensor]:
    """log Z from above and the standard error of its logarithm: the same path run back from the
    machine to the base.

    From exact samples 1/Z is estimated without bias, so the expectation of -log(1/Z) is at least
    log Z (Burda, Grosse, Salakhutdinov 2015; Grosse, Ghahramani, Adams 2015). From the states of a
    long run it is a bound only as far as the run has mixed.

    Args:
        v: samples of the machine, one for each chain, (chains, D).

    >>> w, b, c = torch.zeros(2, 3), torch.zeros(2), torch.zeros(3)
    >>> log_z, _ = reverse_ais_log_z(w, b, c, b, 10, torch.zeros(5, 2), torch.Generator())
    >>> round(log_z.exp().item(), 3)
    32.0
    """
    steps = torch.linspace(1, 0, temperatures + 1).tolist()
    w = _anneal(v, steps, weight, b, c, base, generator, gaussian)
    return _log_z_base(base, c, gaussian) - w.logsumexp(0) + math.log(len(v)), _error(w)


def _anneal(
    v: Tensor,
    steps: list[float],
    weight: Tensor,
    b: Tensor,
    c: Tensor,
    base: Tensor,
    generator: torch.Generator,
    gaussian: bool,
) -> Tensor:
    """The chains' log weights, (chains,), along log p_t(v) = (1 - t) base·v + t b·v + Σ_j
    softplus(t (c_j + v·W_j)).
    """

    def log_p(v: Tensor, t: float) -> Tensor:
        hidden = F.softplus(t * (c + v @ weight)).sum(1)
        if gaussian:
            return hidden - 0.5 * ((1 - t) * (v - base).square() + t * (v - b).square()).sum(1)
        return hidden + v @ ((1 - t) * base + t * b)

    w = v.new_zeros(len(v))
    for before, t in zip(steps[:-1], steps[1:], strict=True):
        w += log_p(v, t) - log_p(v, before)
        h = bernoulli(torch.sigmoid(t * (c + v @ weight)), generator)
        v = _draw_visible((1 - t) * base + t * (b + h @ weight.T), generator, gaussian)
    return w


def _draw_visible(a: Tensor, generator: torch.Generator, gaussian: bool) -> Tensor:
    if gaussian:
        return a + torch.randn(a.shape, generator=generator, device=a.device, dtype=a.dtype)
    return bernoulli(torch.sigmoid(a), generator)


def _log_z_base(base: Tensor, c: Tensor, gaussian: bool) -> Tensor:
    visible = (
        0.5 * base.new_tensor(len(base) * math.log(2 * math.pi))
        if gaussian
        else F.softplus(base).sum()
    )
    return visible + len(c) * math.log(2)


def _error(w: Tensor) -> Tensor:
    """Standard error of log mean exp w."""
    ratio = (w - w.max()).exp()
    return ratio.std() / ratio.mean() / math.sqrt(len(w))


def log_z_bounds(
    weight: Tensor,
    b: Tensor,
    c: Tensor,
    base: Tensor,
    temperatures: int,
    chains: int,
    long_run: Callable[[int, torch.Generator], Tensor],
    gaussian: bool = False,
) -> dict[str, Tensor]:
    """Scalars, always the same for the same machine: "log_z", "log_z_error" (0 where it is exact)
    and, where it is not, "log_z_upper".

    Args:
        long_run: so many states of the visible layer after a long Gibbs run, (n, D).

    >>> w, b, c = torch.zeros(2, 3), torch.zeros(2), torch.zeros(3)
    >>> {k: round(v.item(), 4) for k, v in log_z_bounds(w, b, c, b, 10, 5, lambda n, g: b).items()}
    {'log_z': 3.4657, 'log_z_error': 0.0}
    """
    if enumerable(len(b), len(c), gaussian):
        return {"log_z": exact_log_z(weight, b, c, gaussian), "log_z_error": c.new_zeros(())}
    g = torch.Generator(device=weight.device).manual_seed(0)
    lower, error = ais_log_z(weight, b, c, base, temperatures, chains, g, gaussian)
    upper, _ = reverse_ais_log_z(weight, b, c, base, temperatures, long_run(chains, g), g, gaussian)
    return {"log_z": lower, "log_z_error": error, "log_z_upper": upper}
