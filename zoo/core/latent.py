"""What a latent space holds, for every model that has one: interpolation, traversal, the manifold
of two dimensions, arithmetic.

``Codes(model)`` is the space: codes drawn from the prior, images encoded, codes decoded, as far as
the model can. The tools below return tensors of codes or images; the pictures stand in
``zoo.show.codes``, the command is ``python -m zoo.explore``.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.draw import given, undisturbed
from zoo.core.module import GenerativeModule
from zoo.core.noise import seeded
from zoo.core.spec import Label
from zoo.nn.prior import Draw, path

CHUNK = 256  # codes decoded together
KINDS = ("linear", "spherical")


class Codes:
    """A model's latent space. Every call leaves the model and the random state as they were.

    Attributes:
        draws: whether codes can be drawn from a prior. encodes: whether images have codes that can
            be decoded.
        uniform: whether the prior is U(-1, 1), so that paths are straight and codes stay within.

    Raises:
        ValueError: the model has no codes.
    """

    def __init__(self, model: GenerativeModule) -> None:
        methods = {m for m in ("encode", "decode") if hasattr(model, m)}
        can = methods if model.entry is None else model.entry.can
        self.model: Any = model
        self.draws = hasattr(model, "draw_codes")
        # Images may be encoded by search: the encoder's codes are then not the generator's.
        self.inverts = self.draws and hasattr(model, "invert")
        self.encodes = self.inverts or {"encode", "decode"} <= can
        self.uniform = self.draws and getattr(model, "prior", "") == "uniform"
        if not (self.draws or self.encodes):
            raise ValueError(
                f"{model.model_name} has no latent codes; python -m zoo.ls --can interpolate "
                "lists the models that have"
            )
        if not all(isinstance(model.spec[name], Label) for name in model.told):
            raise ValueError(
                f"{model.model_name} here is told {', '.join(model.told)}: its codes alone say no "
                "image; use inpaint, or look at samples/"
            )

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """n codes of the prior, (n, latent), the first n of the seed's."""
        self._need(self.draws, "prior from which codes could be drawn")
        source = Draw(
            seeded(seed, "codes", device=self.model.device),
            self.model.device,
            self.model.float_dtype,
        )
        with undisturbed(self.model):
            return torch.cat([self.model.draw_codes(1, source) for _ in range(n)])

    def encode(self, x: Tensor, told: Batch | None = None) -> Tensor:
        """Codes of images, (B, latent)."""
        self._need(self.encodes, "encoder whose codes could be decoded")
        method = self.model.invert if self.inverts else self.model.encode
        return self._chunks(method, x.to(self.model.device, self.model.float_dtype), told)

    def decode(self, z: Tensor, told: Batch | None = None) -> Tensor:
        """Examples in the units of ``spec``, on the CPU: (B, *shape) of codes (B, latent), (B, N,
        *shape) of (B, N, latent); what is told of a row goes with each of the N.
        """
        rows = z.flatten(0, -2)
        if told:
            told = told.rows(torch.arange(told.n).repeat_interleave(len(rows) // told.n))
        x = self._chunks(self.model.from_codes if self.draws else self.model.decode, rows, told)
        return x.cpu().unflatten(0, z.shape[:-1])

    def _chunks(self, method: Any, rows: Tensor, told: Batch | None) -> Tensor:
        parts = []
        with undisturbed(self.model):
            for start in range(0, len(rows), CHUNK):
                part = slice(start, start + CHUNK)
                own = given(self.model, method, told.rows(part)) if told else {}
                parts.append(method(rows[part], **own))
        return torch.cat(parts)

    def _need(self, there: bool, what: str) -> None:
        if not there:
            raise ValueError(f"{self.model.model_name} has no {what}")


def codes_of(model: GenerativeModule) -> Codes | None:
    """The model's latent space, None if it has none."""
    try:
        return Codes(model)
    except ValueError:
        return None


def between(a: Tensor, b: Tensor, frames: int = 10, kind: str = "linear") -> Tensor:
    """Codes from a to b, (B, frames, latent), ends included: along the straight line, or the great
    arc between them.

    Raises:
        ValueError: unknown kind, or two opposite codes, between which there are many arcs.
    """
    if kind not in KINDS:
        raise ValueError(f"a path is {' or '.join(KINDS)}, got {kind!r}")
    if kind == "spherical" and (torch.cosine_similarity(a, b) < -1 + 1e-6).any():
        raise ValueError(
            "two codes point in opposite directions: no arc between them is shorter than the "
            "others; use a linear path"
        )
    return path("uniform" if kind == "linear" else "normal", a, b, frames)


def traversal(z: Tensor, dims: Tensor | list[int], values: Tensor) -> Tensor:
    """Codes z, (B, latent), with one dimension after the other set to each value: (len(dims), B,
    len(values), latent).
    """
    codes = z[None, :, None].repeat(len(dims), 1, len(values), 1)
    for row, j in enumerate(dims):
        codes[row, :, :, int(j)] = values.to(z)
    return codes


def manifold(n: int = 20) -> Tensor:
    """Codes of a grid over N(0, I) in two dimensions, equally spaced in probability, (n, n, 2):
    z_ij = (Φ⁻¹(u_j), Φ⁻¹(u_i)) with u from 0.05 to 0.95, the second coordinate falling from row to
    row (Kingma and Welling 2014, appendix A)."""
    if n < 2:
        raise ValueError(f"the grid has at least 2 rows, got {n}")
    inverse = statistics.NormalDist().inv_cdf
    axis = torch.tensor([inverse(0.05 + 0.9 * i / (n - 1)) for i in range(n)], dtype=torch.float64)
    axis = (axis - axis.flip(0)) / 2  # symmetric to the last bit
    return torch.stack([axis.expand(n, n), axis.flip(0)[:, None].expand(n, n)], -1)


def arithmetic(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """mean(a) - mean(b) + mean(c) of three sets of codes, (latent,) (Radford et al. 2016, section
    6.3.2).
    """
    return a.mean(0) - b.mean(0) + c.mean(0)


def used(model: Any, x: Tensor, told: Batch | None = None) -> tuple[Tensor, str]:
    """How much of the images each latent dimension carries, (latent,), and what the number is: the
    mean KL(q(z_j | x) ‖ p(z_j)) in nats of a model that has it (``kl_of_each``), else the variance
    of the codes.
    """
    codes = Codes(model)
    if hasattr(model, "kl_of_each"):
        with undisturbed(model):
            rows = given(model, model.kl_of_each, told or {})
            kl = model.kl_of_each(x.to(model.device, model.float_dtype), **rows)
        if kl is not None:
            return kl.mean(0).cpu(), "KL"
    return codes.encode(x, told).var(0).cpu(), "variance"
