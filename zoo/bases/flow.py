"""The mechanics of invertible models: densities through a bijection, samples and codes through its
inverse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.bases.likelihood import DensityModule
from zoo.core.batch import Batch
from zoo.core.likelihood import bits_per_dim, dequantise, quantise, row_noise
from zoo.nn.prior import Draw, Source


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (B,)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


class FlowModule(DensityModule):
    """Base of the models z = f(v), log p(v) = log p(z) + log|det dz/dv|. Subclasses define
    ``forward_flow`` and ``inverse_flow``.

    v are real-valued data as they are, or dequantised images y in [0, 1)^D after ``preprocess``.
    The base p(z) is N(0, I) unless ``log_base`` and ``draw_codes`` say otherwise.
    """

    def forward_flow(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(v), (B, D), and log|det dz/dv|, (B,), of v, (B, *shape)."""
        raise NotImplementedError

    def inverse_flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """v = f⁻¹(z), (B, *shape), and log|det dv/dz|, (B,)."""
        raise NotImplementedError

    def log_base(self, z: Tensor, **told: Tensor) -> Tensor:
        """log p(z), (B,), or its density given what the model is told."""
        return standard_normal(z)

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """(n, D) draws of z."""
        return source.normal(n, self.spec.dim)

    def preprocess(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """v and log|det dv/dy|, (B,), of dequantised images y."""
        return y, y.new_zeros(len(y))

    def postprocess(self, v: Tensor) -> Tensor:
        """y of v."""
        return v

    # -- likelihood -------------------------------------------------------------------------------
    def to_code(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z and log|det dz/dy| of y in [0, 1)^D for images, of the data themselves for vectors."""
        if self.spec.levels is None:
            return self.forward_flow(y)
        v, term = self.preprocess(y)
        z, log_det = self.forward_flow(v)
        return z, log_det + term

    def log_density(self, y: Tensor) -> Tensor:
        z, log_det = self.to_code(y)
        return self.log_base(z) + log_det

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """For images, bits per dimension in two parts: the base's, and the rest (log-determinants
        and dequantisation).
        """
        if self.spec.levels is None:
            return {}
        x, d, told = batch["x"], self.spec.dim, self.told_in(batch)
        u = row_noise(torch.rand, x, (self.draws, *self.spec.shape), generator)
        prior, rest = x.new_zeros(len(x)), x.new_zeros(len(x))
        for s in range(self.draws):
            y, constant = dequantise(x, self.spec.levels, u[:, s])
            z, log_det = self.to_code(y)
            prior = prior + self.log_base(z, **told) / self.draws
            rest = rest + (log_det + constant) / self.draws
        return {"prior_bpd": bits_per_dim(prior, d), "logdet_per_dim": bits_per_dim(rest, d)}

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """``temperature`` multiplies z."""
        z = self.draw_codes(n, Draw(generator, self.device, self.float_dtype))
        return self.decode(temperature * z)

    def encode(self, x: Tensor) -> Tensor:
        """z, (B, D); images are taken at the middle of their levels, u = 1/2."""
        y = x
        if self.spec.levels is not None:
            y, _ = dequantise(x, self.spec.levels, torch.full_like(x, 0.5))
        return self.to_code(y)[0]

    def decode(self, z: Tensor) -> Tensor:
        """Data in the units of ``spec`` from z."""
        v = self.inverse_flow(z)[0]
        return v if self.spec.levels is None else quantise(self.postprocess(v), self.spec.levels)

    def from_codes(self, z: Tensor) -> Tensor:
        """``decode``: every point has its code."""
        return self.decode(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """x itself, up to rounding: f is a bijection."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape) along z = cos φ z_a + sin φ z_b, φ from 0 to π/2."""
        za, zb = self.encode(a)[:, None], self.encode(b)[:, None]
        phi = torch.linspace(0, math.pi / 2, frames, device=za.device, dtype=za.dtype)[:, None]
        z = phi.cos() * za + phi.sin() * zb
        return self.decode(z.flatten(0, 1)).view(len(a), frames, *self.spec.shape)
