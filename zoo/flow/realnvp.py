"""RealNVP: real-valued non-volume-preserving transformations.

Paper      Dinh, Sohl-Dickstein, Bengio. Density estimation using Real NVP. ICLR 2017.
           arXiv:1605.08803.
Model      z = f(y), z ~ N(0, I), f a stack of affine couplings with a binary mask b (equation 9):
               z = b y + (1 - b) (y exp(s(b y)) + t(b y)),   log|det| = Σ (1 - b) s,
               s = γ tanh(r), γ learned for each channel.
           Images: v = logit(α + (1 - 2α) y) of dequantised y = (x + u)/L; a scale is 3 couplings
           with checkerboard masks, a squeeze (C, H, W) -> (4C, H/2, W/2), 3 with channel masks, and
           half of the channels leave for z; the last scale is 4 checkerboard couplings. Vectors:
           ``couplings`` couplings that keep the even and the odd coordinates in turn, no
           preprocessing.
Objective  -log p(y) = -log N(f(y); 0, I) - Σ log|det| - log|det logit|, in bits per dimension for
           images (Σ includes D ln L).
Sampling   z ~ N(0, T²), inverted; x = floor(L y).
Notes      The released code computes (y + t) exp(s); this is the paper's form. α + (1 - 2α) y is
           the released code's, because the printed α + (1 - α) y sends white to infinity. Half of
           the channels leave after a plain squeeze, as printed; the released code orders them so
           that the kept half is a smaller image. ``interpolate`` is the paper's arc z = cos φ z_a +
           sin φ z_b. The default coupling network is 3x3-1x1-3x3 convolutions; ``blocks`` > 0 gives
           the residual network with weight normalisation, and ``batch_norm`` the paper's
           normalisation in it and after every coupling: batch statistics in training (each process
           its own), running ones in evaluation and in the inverse. All couplings have ``width``
           maps; the released code doubles them after each squeeze.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from zoo.bases import FlowModule
from zoo.core import Batch, Image, Spec
from zoo.core.likelihood import inverse_logit_transform, logit_transform
from zoo.core.options import Count, NonNegative, Positive, Range, Whole
from zoo.registry import Paper, register


class ResidualNet(nn.Module):
    """Appendix's coupling network: normalised input as [relu(v), relu(-v), mask], weight-normalised
    blocks, summed skips.
    """

    def __init__(self, channels: int, width: int, blocks: int, batch_norm: bool) -> None:
        super().__init__()

        def norm(c: int) -> nn.Module:
            return nn.BatchNorm2d(c) if batch_norm else nn.Identity()

        def conv(a: int, b: int, size: int) -> nn.Module:
            return weight_norm(nn.Conv2d(a, b, size, padding=size // 2))

        self.normalise = norm(channels)
        self.first = conv(3 * channels, width, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                norm(width),
                nn.ReLU(),
                conv(width, width, 3),
                norm(width),
                nn.ReLU(),
                conv(width, width, 3),
            )
            for _ in range(blocks)
        )
        self.skips = nn.ModuleList(conv(width, width, 1) for _ in range(blocks + 1))
        self.last = nn.Sequential(norm(width), nn.ReLU(), zeroed(nn.Conv2d(width, 2 * channels, 1)))

    def forward(self, v: Tensor, mask: Tensor) -> Tensor:
        v = self.normalise(v) * mask
        h = self.first(torch.cat([F.relu(v), F.relu(-v), mask.expand_as(v)], 1))
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            h = h + block(h)
            total = total + skip(h)
        return self.last(total)


class PlainNet(nn.Sequential):
    """Layers with ReLU between them and a zero end, so that a coupling starts as the identity."""

    def __init__(self, layers: list[nn.Module]) -> None:
        steps: list[nn.Module] = []
        for layer in layers[:-1]:
            steps += [layer, nn.ReLU()]
        super().__init__(*steps, zeroed(layers[-1]))

    def forward(self, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(v)


def zeroed(layer: nn.Module) -> nn.Module:
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class Coupling(nn.Module):
    """Affine coupling: where the mask is 1 the input passes through and determines scale and shift
    of the rest.
    """

    mask: Tensor

    def __init__(self, net: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mask", mask[None], persistent=False)
        self.gamma = nn.Parameter(torch.ones(1, len(mask), *[1] * (mask.ndim - 1)))

    def scale_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """s and t, zero where the mask is 1."""
        t, r = self.net(kept, self.mask).chunk(2, 1)
        return (1 - self.mask) * self.gamma * torch.tanh(r), (1 - self.mask) * t

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.scale_shift(self.mask * y)
        return y * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.scale_shift(self.mask * z)
        return (z - t) * (-s).exp(), -s.flatten(1).sum(1)


class VectorCoupling(nn.Module):
    """The same of vectors, whose mask is 1 on their first (or last) part: only that part is read,
    only the rest computed.
    """

    def __init__(self, net: nn.Module, sizes: list[int], first: bool) -> None:
        super().__init__()
        self.net, self.sizes, self.first = net, sizes, first
        self.gamma = nn.Parameter(torch.ones(sizes[1] if first else sizes[0]))

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept and what moves."""
        a, b = y.split(self.sizes, 1)
        return (a, b) if self.first else (b, a)

    def join(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([kept, moved] if self.first else [moved, kept], 1)

    def scale_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        t, r = self.net(kept).chunk(2, 1)
        return self.gamma * torch.tanh(r), t

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = self.split(y)
        s, t = self.scale_shift(kept)
        return self.join(kept, torch.addcmul(t, moved, s.exp())), s.sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = self.split(z)
        s, t = self.scale_shift(kept)
        return self.join(kept, (moved - t) * (-s).exp()), -s.sum(1)


class FlowBatchNorm(nn.Module):
    """(y - μ)/sqrt(var + ε) for each channel over the positions a coupling transformed; log|det| =
    -½ Σ ln(var + ε) over them.
    """

    mean: Tensor
    var: Tensor
    moved: Tensor

    def __init__(self, mask: Tensor, eps: float = 1e-4, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.register_buffer("moved", 1 - mask[None], persistent=False)
        shape = (1, len(mask), *[1] * (mask.ndim - 1))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))

    def statistics(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the moved positions; gradients flow through them. Channels that did
        not move get 0 and 1.
        """
        over = (0, *range(2, y.ndim))
        count = (self.moved.sum(over, keepdim=True) * len(y)).clamp(min=1)
        mean = (y * self.moved).sum(over, keepdim=True) / count
        var = ((y - mean).square() * self.moved).sum(over, keepdim=True) / count
        return mean, torch.where(self.moved.amax(over, keepdim=True) > 0, var, 1.0)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = self.mean, self.var
        if self.training:
            mean, var = self.statistics(y)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.var.lerp_(var, self.momentum)
        half_log = 0.5 * (var + self.eps).log() * self.moved
        z = torch.where(self.moved > 0, (y - mean) * (-half_log).exp(), y)
        return z, -half_log.sum().expand(len(y))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        half_log = 0.5 * (self.var + self.eps).log() * self.moved
        y = torch.where(self.moved > 0, z * half_log.exp() + self.mean, z)
        return y, half_log.sum().expand(len(z))


class Squeeze(nn.Module):
    """(C, H, W) -> (4C, H/2, W/2): each 2x2 block becomes 4 channels."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(y, 2), y.new_zeros(len(y))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(z, 2), z.new_zeros(len(z))


def checkerboard(c: int, h: int, w: int, parity: int) -> Tensor:
    """1 where row + column has the given parity, (C, H, W)."""
    board = (torch.arange(h)[:, None] + torch.arange(w)) % 2 == parity
    return board.float().expand(c, h, w).clone()


def channel_mask(c: int, h: int, w: int, first: bool) -> Tensor:
    """1 on the first (or second) half of the channels, (C, H, W)."""
    return ((torch.arange(c) < c // 2) == first).float()[:, None, None].expand(c, h, w).clone()


@register(
    "realnvp",
    paper=Paper(
        "Dinh, Sohl-Dickstein, Bengio", "Density estimation using Real NVP", 2017, "1605.08803"
    ),
    about="a multi-scale stack of affine couplings with masks",
    taxonomy="explicit tractable",
    likelihood="dequantised_bound",
    can={"sample", "log_prob", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=("val/bits_per_dim", "<", 2.35),
)
class RealNVP(FlowModule):
    """Real NVP.

    Args:
        width: maps (images) or units (vectors) of the coupling networks.
        scales: multi-scale levels of images; each but the last halves the image and lets half of
            the dimensions go.
        couplings: couplings of vectors.
        blocks: residual blocks of a coupling network; 0 is the small one of three convolutions.
        batch_norm: normalise in the residual networks and after every coupling.
        alpha: the logit transform of images.
        l2: weight of the squared scales γ and weight-normalisation magnitudes in the loss.
        draws: draws of u in the evaluated bound.
        lr: Adam's learning rate.
    """

    scales: Any  # ModuleLists of couplings, normalisations and squeezes

    def __init__(
        self,
        spec: Spec,
        width: Count = 64,
        scales: Count = 2,
        couplings: Count = 8,
        blocks: Whole = 0,
        batch_norm: bool = False,
        alpha: Annotated[float, Range(0, 0.5, above=True, below=True)] = 0.05,
        l2: NonNegative = 0.0,
        draws: Count = 4,
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        self.need_levels_of_images()
        self.image = spec.has(x=Image)
        if spec.dim < 2:
            raise ValueError(
                f"realnvp's couplings need at least two dimensions, got {spec}; choose other data"
            )
        if self.image and any(side % 2 ** (scales - 1) for side in spec.shape[1:]):
            raise ValueError(
                f"realnvp with scales={scales} needs sides divisible by {2 ** (scales - 1)}, got "
                f"{spec}; lower scales, or resize"
            )
        self.width, self.blocks, self.batch_norm = width, blocks, batch_norm
        self.alpha, self.l2, self.draws, self.lr = alpha, l2, draws, lr
        if blocks and not self.image:
            raise ValueError(f"realnvp: blocks={blocks} is for images, got {spec}; leave it at 0")
        self.scales = nn.ModuleList()
        # Dimensions that leave after each scale, and the shape of those that remain.
        self.sizes, self.top = [], spec.shape
        if not self.image:
            self.scales.append(self._vector_steps(couplings))
            return
        c, h, w = spec.shape
        for i in range(scales):
            last = i == scales - 1
            parities = (0, 1, 0, 1) if last else (0, 1, 0)
            steps = self._steps([checkerboard(c, h, w, parity) for parity in parities])
            if not last:
                c, h, w = 4 * c, h // 2, w // 2
                steps.append(Squeeze())
                masks = [channel_mask(c, h, w, first) for first in (True, False, True)]
                steps.extend(self._steps(masks))
                c //= 2
                self.sizes.append(c * h * w)
            self.scales.append(steps)
        self.top = (c, h, w)

    def _steps(self, masks: list[Tensor]) -> nn.ModuleList:
        """A coupling for each mask, each followed by batch normalisation if there is any."""
        steps = nn.ModuleList()
        for mask in masks:
            steps.append(Coupling(self._net(len(mask)), mask))
            if self.batch_norm:
                steps.append(FlowBatchNorm(mask))
        return steps

    def _vector_steps(self, couplings: int) -> nn.ModuleList:
        """The two parts of a vector, its even and its odd dimensions, take turns."""
        n, steps = self.width, nn.ModuleList()
        sizes = [(self.spec.dim + 1) // 2, self.spec.dim // 2]
        for i in range(couplings):
            first = i % 2 == 0
            kept, moved = sizes if first else sizes[::-1]
            net = PlainNet([nn.Linear(kept, n), nn.Linear(n, n), nn.Linear(n, 2 * moved)])
            steps.append(VectorCoupling(net, sizes, first))
            if self.batch_norm:
                fixed = (torch.arange(self.spec.dim) < sizes[0]) == first
                steps.append(FlowBatchNorm(fixed.float()))
        return steps

    def _net(self, c: int) -> nn.Module:
        n = self.width
        if self.blocks:
            return ResidualNet(c, n, self.blocks, self.batch_norm)
        return PlainNet(
            [nn.Conv2d(c, n, 3, padding=1), nn.Conv2d(n, n, 1), nn.Conv2d(n, 2 * c, 3, padding=1)]
        )

    # -- the flow ---------------------------------------------------------------------------------
    def forward_flow(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(y), (B, D), and log|det dz/dy|, (B,); for images, y are logits."""
        h = y if self.image else torch.cat([y[:, ::2], y[:, 1::2]], 1)
        log_det = y.new_zeros(len(y))
        parts: list[Tensor] = []
        for i, scale in enumerate(self.scales):
            for step in scale:
                h, term = step(h)
                log_det = log_det + term
            if i < len(self.sizes):
                out, h = h.chunk(2, 1)
                parts.append(out.flatten(1))
        return torch.cat([*parts, h.flatten(1)], 1), log_det

    def inverse_flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """y = f⁻¹(z), (B, *shape), and log|det dy/dz|, (B,)."""
        *parts, top = z.split([*self.sizes, math.prod(self.top)], 1)
        h, log_det = top.reshape(len(z), *self.top), z.new_zeros(len(z))
        for i, scale in reversed([*enumerate(self.scales)]):
            if i < len(self.sizes):
                h = torch.cat([parts[i].reshape(h.shape), h], 1)
            for step in reversed(scale):
                h, term = step.inverse(h)
                log_det = log_det + term
        if self.image:
            return h, log_det
        y = torch.empty_like(h)
        y[:, ::2], y[:, 1::2] = h.split([(self.spec.dim + 1) // 2, self.spec.dim // 2], 1)
        return y, log_det

    def preprocess(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return logit_transform(y, self.alpha)

    def postprocess(self, v: Tensor) -> Tensor:
        return inverse_logit_transform(v, self.alpha)[0]

    # -- likelihood -------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().loss(batch)
        if self.l2:
            penalised = [
                p
                for name, p in self.named_parameters()
                if name.endswith(("gamma", "weight.original0"))
            ]
            terms["l2"] = sum((p.square().sum() for p in penalised), terms["loss"].new_zeros(()))
            terms["loss"] = terms["loss"] + self.l2 * terms["l2"]
        return terms

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)
