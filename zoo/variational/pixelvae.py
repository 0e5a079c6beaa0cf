"""PixelVAE: a VAE whose decoder is autoregressive, so that z holds the global structure and the
decoder the detail.

Paper      Gulrajani, Kumar, Ahmed, Taiga, Visin, Vazquez, Courville. PixelVAE: A Latent Variable
           Model for Natural Images. ICLR 2017. arXiv:1611.05013.
Model      z ~ N(0, I), P(x | z) = Π_d P(x_d | x_<d, z), q(z | x) = N(μ(x), σ²(x)). Masked
           convolutions over the true image give all conditionals in one pass; z reaches them
           without a mask. By ``decoder`` "small": a 7x7 convolution with mask A to p features, z's
           share added, n residual 3x3 layers with mask B, 1x1 to the logits; "gated": the two
           stacks of Gated PixelCNN, z's share in every gate (no blind spot), n layers after the
           first. By ``condition`` that share is 1x1 of z itself ("bias", equal everywhere) or of
           maps that a network makes of z ("maps").
Objective  -E_q log P(x | z) + α KL(q(z | x) ‖ N(0, I)), one draw of z, summed over dimensions; α
           rises linearly from 0 to 1 over ``warmup_steps``. Logged and evaluated bounds have α = 1.
Sampling   z ~ N(0, I), then the dimensions in raster order, each by the inverse distribution
           function at a uniform number of its own; with the cache one forward pass in total.
Use        ``decode`` takes 1/2 for every uniform number: each dimension is the median given z and
           those before it (the likelier value of a binary pixel). So equal codes give equal images,
           and along an interpolation only z moves. ``reconstruct`` is decode(μ(x)): what z says of
           x, its detail made up by the decoder and never copied. ``decode`` takes other uniform
           numbers, ``reconstruct`` and ``interpolate`` a generator for them, the same in every
           frame.
Evaluated  val/kl_fraction = KL / (KL - log P(x | z)), the mean over images: the share of the code
           length that z carries; 0 where the decoder ignores it. val/no_z_nll = -log P(x | z = 0):
           what the same decoder says without the code.
Notes      In the authors' "upsample_z_conv" decoder the maps are concatenated with the image and
           come from deconvolutions; here they come from an MLP and enter by 1x1 convolutions, in
           every gate. Their two output layers are gated; here one has ReLU. No weight
           normalisation, no embedding of the levels (they are scaled to [-1, 1]), and one level of
           latents: the two-level model of LSUN and ImageNet is not here. The small decoder has a
           blind spot up and to the right, the gated one none. Maps also tell positions apart, which
           masked convolutions alone hardly do: to see what the code is worth, compare with the same
           decoder trained at z = 0 (17.8 nats on 8x8 digits, 17.4 and a tighter bound of 16.6 with
           z), not with one without maps (18.9).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import AutoregressiveModule, VariationalModule
from zoo.bases.autoregressive import Stream
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Positive, Whole
from zoo.nn.coders import Net, mlp
from zoo.nn.gated_conv import GatedStacks
from zoo.nn.masked_conv import ColumnConv, MaskedConv2d, by_dimension, check_width
from zoo.nn.prior import Draw, Source, path
from zoo.registry import Paper, register


class MaskedStack(nn.Module):
    """The small decoder, in [-1, 1] units: maps of the image and the condition to the logits.
    Arguments as ``GatedStacks`` has them.
    """

    layers: Any  # a ModuleList of MaskedConv2d

    def __init__(self, c: int, outputs: int, n: int, p: int, k: int, m: int, inner: int) -> None:
        super().__init__()
        self.c = c
        self.first = MaskedConv2d("A", c, p, k, c)
        self.share = nn.Conv2d(m, p, 1, bias=False)
        self.layers = nn.ModuleList(MaskedConv2d("B", p, p, inner, c) for _ in range(n))
        self.logits = MaskedConv2d("B", p, outputs, 1, c)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """(B, C, H, W) and the condition (B, m, 1 or H, 1 or W) to (B, outputs, H, W)."""
        a = self.first(x) + self.share(s)
        for layer in self.layers:
            a = a + layer(F.relu(a))
        return self.logits(F.relu(a))

    def stream(self, n: int, size: tuple[int, int], s: Tensor) -> Generator[Tensor, Tensor, None]:
        """``forward`` one channel of one pixel at a time: yields its outputs (outputs/C, n), and is
        sent its value (n,).
        """
        first, *layers, logits = (
            ColumnConv(conv, size, n) for conv in (self.first, *self.layers, self.logits)
        )
        plus = (self.share(s) + self.first.bias[:, None, None]).expand(-1, -1, *size)
        plus = plus.flatten(2).permute(2, 1, 0)  # (H·W, p, n)
        for p in range(size[0] * size[1]):
            for g in range(self.c):
                a = first.get(p, g, plus[p, first.outputs[g]])
                for layer in layers:
                    a = a + layer.step(p, g, a.relu())
                value = yield logits.step(p, g, a.relu())
                first.put(p, g, value)


class PixelDecoder(AutoregressiveModule):
    """P(x | z), an autoregressive model that is told the code, z=(B, latent), in all methods."""

    network: MaskedStack | GatedStacks

    def __init__(
        self,
        spec: Spec,
        latent: int,
        kind: str,
        condition: str,
        maps: int,
        width: int,
        n: int,
        p: int,
        k: int,
        kernel: int,
    ) -> None:
        super().__init__(spec)
        (c, h, w), levels = spec.shape, spec.levels or 0
        if condition == "maps":
            self.condition = nn.Sequential(
                *mlp(latent, maps * h * w, width, 1), nn.Unflatten(1, (maps, h, w))
            )
        else:
            self.condition = nn.Sequential(nn.Unflatten(1, (latent, 1, 1)))
        outputs, m = c * (1 if levels == 2 else levels), maps if condition == "maps" else latent
        if kind == "small":
            self.network = MaskedStack(c, outputs, n, p, k, m, kernel)
        else:
            self.network = GatedStacks(c, outputs, n + 1, p, k, p, m, kernel)

    def conditionals(self, x: Tensor, *, z: Tensor) -> Tensor:
        """Logits of all D conditionals in one pass, (B, D, P), from levels."""
        out = self.network(self.spec.to_signed(x), self.condition(z))
        return by_dimension(out, self.spec.shape[0])

    def stream(self, n: int, *, z: Tensor) -> Stream:
        _, height, width = self.spec.shape
        network = self.network.stream(n, (height, width), self.condition(z))
        out = next(network)
        while True:
            value = yield out.T
            out = network.send(self.spec.to_signed(value))


def conv_encoder(shape: tuple[int, ...], code: int, width: int) -> nn.Sequential:
    """The authors' encoder of MNIST: eight 3x3 convolutions, three of them of stride 2, and a
    linear layer.
    """
    c, h, w = shape
    steps: list[nn.Module] = []
    for factor, stride in ((1, 1), (1, 2), (1, 1), (2, 2), (2, 1), (2, 2), (2, 1), (2, 1)):
        steps += [nn.Conv2d(c, factor * width, 3, stride, 1), nn.ReLU()]
        c = factor * width
    return nn.Sequential(*steps, nn.Flatten(), nn.Linear(c * -(-h // 8) * -(-w // 8), code))


@register(
    "pixelvae",
    paper=Paper(
        "Gulrajani, Kumar, Ahmed, Taiga, Visin, Vazquez, Courville",
        "PixelVAE: A Latent Variable Model for Natural Images",
        2017,
        "1611.05013",
    ),
    about="a VAE with an autoregressive decoder: the code says what, masked convolutions add the "
    "detail",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(("val/elbo", ">", -17.8), ("val/iw_nll", "<", 17.1), ("val/kl", ">", 1.0)),
)
class PixelVAE(VariationalModule):
    """VAE with an autoregressive decoder.

    Args:
        latent: dimensions of z.
        net: encoder, "mlp" or "conv". width: its hidden units, or maps of its first convolution;
            also hidden units of the network of the maps. layers: hidden layers ("mlp").
        decoder: "small" or "gated". condition: "maps" or "bias". maps: how many are made of z
            ("maps").
        n: masked layers after the first. p: features of each. k: kernel of the first, odd,
            ``kernel`` that of the others.
        warmup_steps: steps over which the KL's weight rises from 0 to 1.
        draws: of z in the evaluated importance bound.
        lr: learning rate.
    """

    watches = ("nelbo", "kl")
    accepts = {"x": Image}
    decoder: PixelDecoder

    def __init__(
        self,
        spec: Spec,
        latent: Count = 4,
        net: Net = "mlp",
        width: Count = 200,
        layers: Count = 2,
        decoder: Literal["small", "gated"] = "small",
        condition: Literal["maps", "bias"] = "maps",
        maps: Count = 8,
        n: Whole = 2,
        p: Count = 32,
        k: Count = 7,
        kernel: Count = 3,
        warmup_steps: Whole = 500,
        draws: Count = 50,
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        spec.require("pixelvae", levels=True)
        if min(k, kernel) < 3 or k % 2 == 0 or kernel % 2 == 0:
            raise ValueError(f"pixelvae: k and kernel are odd and at least 3, got {k} and {kernel}")
        check_width("pixelvae", "p", p, spec.shape[0])
        self.latent, self.draws, self.warmup_steps, self.lr = latent, draws, warmup_steps, lr
        if net == "conv":
            self.encoder = conv_encoder(spec.shape, 2 * latent, width)
        else:
            self.encoder = nn.Sequential(nn.Flatten(), *mlp(spec.dim, 2 * latent, width, layers))
        self.decoder = PixelDecoder(spec, latent, decoder, condition, maps, width, n, p, k, kernel)

    # -- likelihood -------------------------------------------------------------------------------
    def log_likelihood(self, x: Tensor, z: Tensor, u: Tensor | None = None) -> Tensor:
        return self.decoder.log_prob(x, z=z)

    def evaluation_noise(self, x: Tensor, k: int, source: Source) -> tuple[Tensor, Tensor | None]:
        return source.normal(len(x), k, self.latent).transpose(0, 1), None

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        found, x = super().evaluate(batch, generator), batch["x"]
        without = -self.decoder.log_prob(x, z=x.new_zeros(len(x), self.latent))
        return {
            **found,
            "kl_fraction": found["kl"] / (found["kl"] - found["recon"]),
            "no_z_nll": without,
        }

    # -- loss -------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        recon, kl = (term.mean() for term in self.bound_terms(batch["x"], self.noise))
        return {
            "loss": self.ramp(self.warmup_steps) * kl - recon,
            "nelbo": kl - recon,
            "recon": recon,
            "kl": kl,
        }

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        mean_only: bool = False,
        cache: bool = True,
    ) -> Tensor:
        """z ~ N(0, I), x ~ P(x | z), (n, *shape); with ``mean_only`` x = decode(z). Without the
        cache by a full pass a dimension.
        """
        z = self.draw_codes(n, Draw(generator, self.device, self.float_dtype))
        if mean_only:
            return self.decode(z)
        return self.decoder.sample(n, z=z, generator=generator, cache=cache)

    def details(self, n: int, generator: torch.Generator | None) -> Tensor:
        """The numbers that the detail of n images is drawn by, (D, n): 1/2 without a generator."""
        if generator is None:
            return torch.full((self.spec.dim, n), 0.5, device=self.device, dtype=self.float_dtype)
        return self.decoder.draw_uniforms(n, generator)

    @torch.no_grad()
    def decode(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """x of codes and of uniform numbers u (D, B), 1/2 without them: each dimension the median
        given z and those before.
        """
        x, _ = self.decoder.generate(self.details(len(z), None) if u is None else u, {"z": z})
        return x.view(-1, *self.spec.shape)

    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``decode`` of μ(x); the generator draws the detail."""
        return self.decode(self.encode(x), self.details(len(x), generator))

    @torch.no_grad()
    def interpolate(
        self, a: Tensor, b: Tensor, frames: int = 10, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, frames, *shape), decoded along the line from the code of a to that of b, by the same
        uniform numbers in each frame.
        """
        z = path("uniform", self.encode(a), self.encode(b), frames)
        u = self.details(len(a), generator).repeat_interleave(frames, 1)
        return self.decode(z.flatten(0, 1), u).unflatten(0, (len(a), frames))
