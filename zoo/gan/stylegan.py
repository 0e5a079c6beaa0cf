"""StyleGAN: a generator of styles.

Paper      Karras, Laine, Aila. A Style-Based Generator Architecture for Generative Adversarial
           Networks. CVPR 2019. arXiv:1812.04948. With v2=True: Karras, Laine, Aittala, Hellsten,
           Lehtinen, Aila. Analyzing and Improving the Image Quality of StyleGAN. CVPR 2020.
           arXiv:1912.04958.
Model      A mapping w = f(z), and a synthesis x = g(w_1, ..., w_L, noise) that begins with a learnt
           constant. Two layers a resolution: (doubling and) 3x3 convolution, blur where doubled,
           + strength · noise (one plane a layer, a strength a map), + bias, leaky ReLU, and
           AdaIN: each map normalised, times 1 + y_s, plus y_b, with (y_s, y_b) = A(w_i). Equalised
           rates everywhere, 0.01 of the rate in f. D is that of progressive growing, with blur.
Objective  D:  E sp(-s(x)) + E sp(s(G)) + γ/2 E‖∇ s(x)‖², sp(t) = log(1 + e^t), G detached, the
               penalty at real images alone.
           G:  E sp(-s(G)).
           v2 besides, for G:  2 E (‖J_wᵀ y‖ - a)², y a normal image over √(pixels), a the running
               mean of that length.
Training   With probability ``mixing`` an image has two codes, w_1 before a layer drawn from
           1..L-1 and w_2 from there on. w_avg is the running mean of w in G's turns, over all
           processes, a buffer. Adam with β = (0, 0.99). ``progressive`` grows from the second level
           on, as ProGAN does.
Logs       train/r1; with v2 train/path and train/path_penalty; train/w_norm = ‖w_avg‖. val/ppl_w:
           E ‖G(w_t) - G(w_{t+ε})‖²/ε² along lines in W, ε = 1e-4, in D's units (no perceptual
           network).
Sampling   w' = w_avg + ψ (w - w_avg) for the first eight layers, fresh noise; ``truncation`` is ψ.
           ``mix`` and ``interpolate`` (a line in W) hold the noise at planes drawn once.
Notes      w_avg is of the weights in training, though their averages are evaluated. The crossover
           is drawn for each image. v2: demodulated convolutions in AdaIN's place, one strength a
           layer, G's image a sum over resolutions, D of residual blocks, R1 every 16th and the path
           length every 8th step, with the rates' correction for it; the path length is of the whole
           minibatch. The minibatch's deviation in D couples rows in groups of four. Defaults are
           for a short run: faster mapping and rates, a weaker R1 and less mixing than the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import Growing, GrowingModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Share, Whole
from zoo.nn.adain import adain
from zoo.nn.blur import blur, doubled, halved
from zoo.nn.equalised import EqualisedConv2d, EqualisedLinear, pixel_norm
from zoo.nn.growth import GrowingDiscriminator, Growth, blended, levels_of, maps_of
from zoo.nn.modulated import ModulatedConv2d
from zoo.nn.penalties import squared_gradient_norm
from zoo.nn.prior import Draw, Source, lerp
from zoo.registry import Paper, register

TRUNCATED = 8  # layers whose styles are truncated: of a 1024x1024 generator's 18
R1_EVERY, PATH_EVERY, PATH_WEIGHT = 16, 8, 2.0  # of v2
EPS = 1e-4  # of the path length in W


class Mapping(nn.Sequential):
    """f: z, (B, latent) -> w, (B, units)."""

    def __init__(self, latent: int, units: int, depth: int, rate: float) -> None:
        layers: list[nn.Module] = []
        for inputs in [latent, *[units] * (depth - 1)]:
            layers += [EqualisedLinear(inputs, units, rate=rate), nn.LeakyReLU(0.2)]
        super().__init__(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(pixel_norm(z))


class StyledLayer(nn.Module):
    """One layer of v1.

    Args:
        inputs: maps before the convolution, 0 for none of it. up: whether it doubles the size.
    """

    def __init__(self, inputs: int, outputs: int, units: int, up: bool) -> None:
        super().__init__()
        self.conv = EqualisedConv2d(inputs, outputs, 3, bias=False) if inputs else None
        self.up = up
        self.strength = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.style = EqualisedLinear(units, 2 * outputs, gain=1.0)

    def forward(self, h: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        if self.conv is not None:
            h = blur(self.conv(doubled(h))) if self.up else self.conv(h)
        h = F.leaky_relu(h + self.strength * noise + self.bias, 0.2)
        y_s, y_b = self.style(w).chunk(2, 1)
        return adain(h, 1 + y_s, y_b)


class ModulatedLayer(nn.Module):
    """One layer of v2: a modulated convolution in AdaIN's place."""

    def __init__(self, inputs: int, outputs: int, units: int, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, units)
        self.up = up
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, h: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        h = blur(self.conv(doubled(h), w)) if self.up else self.conv(h, w)
        return F.leaky_relu(h + self.strength * noise + self.bias, 0.2) * math.sqrt(2)


class Synthesis(nn.Module):
    """g: styles, (B, L, units), and a plane of noise for each layer -> images of a level.

    Args:
        first: the first level of which it makes images.
    """

    def __init__(self, shape: Sequence[int], maps: Sequence[int], units: int, first: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        m = len(maps) - 1
        self.const = nn.Parameter(torch.ones(maps[0], height >> m, breadth >> m))
        self.layers = nn.ModuleList([StyledLayer(0, maps[0], units, False)])
        self.layers.append(StyledLayer(maps[0], maps[0], units, False))
        for a, b in zip(maps[:-1], maps[1:], strict=True):
            self.layers.append(StyledLayer(a, b, units, True))
            self.layers.append(StyledLayer(b, b, units, False))
        self.to_image = nn.ModuleList(
            EqualisedConv2d(n, channels, 1, gain=1.0) if i >= first else nn.Identity()
            for i, n in enumerate(maps)
        )

    def forward(self, w: Tensor, noise: list[Tensor], level: int, alpha: float = 1.0) -> Tensor:
        h = before = self.const.expand(len(w), -1, -1, -1)
        for i in range(2 * (level + 1)):
            before = h if i % 2 == 0 else before  # the level before
            h = self.layers[i](h, w[:, i], noise[i])
        image = self.to_image[level](h)
        if alpha < 1:
            image = blended(image, doubled(self.to_image[level - 1](before)), alpha)
        return image


class SkipSynthesis(nn.Module):
    """g of v2: each resolution adds its image to the doubled one of the resolution before. Layer 0
    of the styles is the first convolution's; the last is the last image's. It has all levels.
    """

    def __init__(self, shape: Sequence[int], maps: Sequence[int], units: int, first: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        m = len(maps) - 1
        self.const = nn.Parameter(torch.randn(maps[0], height >> m, breadth >> m))
        self.layers = nn.ModuleList([ModulatedLayer(maps[0], maps[0], units, False)])
        for a, b in zip(maps[:-1], maps[1:], strict=True):
            self.layers.append(ModulatedLayer(a, b, units, True))
            self.layers.append(ModulatedLayer(b, b, units, False))
        self.to_image = nn.ModuleList(
            ModulatedConv2d(n, channels, 1, units, demodulate=False) for n in maps
        )

    def forward(self, w: Tensor, noise: list[Tensor], level: int, alpha: float = 1.0) -> Tensor:
        h = self.const.expand(len(w), -1, -1, -1)
        image = torch.zeros((), dtype=h.dtype, device=h.device)
        for i, layer in enumerate(self.layers):
            h = layer(h, w[:, i], noise[i])
            if i % 2 == 0:
                own = self.to_image[i // 2](h, w[:, i + 1])
                image = own if i == 0 else blur(doubled(image)) + own
        return image


class ResidualDiscriminator(GrowingDiscriminator):
    """D of v2: each level's two convolutions beside a 1x1 one, the sum over √2."""

    def __init__(self, shape: Sequence[int], maps: Sequence[int], *options: Any) -> None:
        super().__init__(shape, maps, *options)
        self.shortcuts = nn.ModuleList(
            EqualisedConv2d(m, n, 1, gain=1.0, bias=False)
            for n, m in zip(maps[:-1], maps[1:], strict=True)
        )

    def half(self, level: int, h: Tensor) -> Tensor:
        beside = halved(blur(self.shortcuts[level - 1](h)))
        return (super().half(level, h) + beside) / math.sqrt(2)


def crossed(a: Tensor, b: Tensor, cut: Tensor, layers: int) -> Tensor:
    """Styles of a, (B, units), before layer ``cut``, (B,), and of b from there on:
    (B, layers, units).
    """
    before = torch.arange(layers, device=a.device) < cut[:, None]
    return torch.where(before[..., None], a[:, None], b[:, None])


def path_lengths(image: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """‖J_wᵀ y‖ of each row, (B,): the root of the mean over layers of the squared norm."""
    (slope,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


# -log D(x), -log(1 - D(G)), and what G pays, -log D(G), from logits s.
NONSATURATING = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s))


@register(
    "stylegan",
    paper=Paper(
        "Karras, Laine, Aila",
        "A Style-Based Generator Architecture for Generative Adversarial Networks",
        2019,
        "1812.04948",
    ),
    about="a learnt constant becomes an image by styles, one for each layer, that can be mixed and "
    "truncated",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "mix"},
    data="digits",
    learns=(
        ("val/precision_pixels", ">", 0.28),
        ("val/fid_pixels", "<", 1.5),
        ("val/classes_pixels", ">", 6.5),
    ),
    waive={
        "every_parameter_learns": "the layers of levels to come have no gradient yet",
        "makers_get_gradients": "the layers of levels to come have no gradient yet",
        "accumulation_equals_one_batch": "the norm of the flat first constant magnifies rounding",
        "ddp_equal": "the minibatch's standard deviation is of rows of one process",
    },
)
class StyleGAN(GrowingModule):
    """See the module's docstring.

    Args:
        spec: images, height and width multiples of 4 and at least 8.
        v2: the networks and penalties of the second paper.
        progressive: grow from the second level on; not with v2. fade: images over which a level is
            faded in. steady: images for which it is trained then.
        latent: dimension of z. units: of w. depth: layers of f. rate: how much slower f's weights
            move.
        width: maps of the last level, twice as many at each one before. widest: at most so many.
        group: rows over which D takes the minibatch's standard deviation; 1 leaves it out.
        mixing: share of images with two codes. r1: γ. average: share of w_avg kept at each step.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G.
        beta1, beta2: Adam's decays. loop: options of the adversarial loop.
    """

    path_space = "w"  # in which ``interpolate`` goes
    truncations = (0.0, 0.25, 0.5, 0.7, 1.0)  # of a picture of their sweep
    watches = ("loss_d", "loss_g", "w_norm")
    accepts = {"x": Image}
    g: Any
    w_avg: Tensor
    path_avg: Tensor

    def __init__(
        self,
        spec: Spec,
        v2: bool = False,
        progressive: bool = False,
        latent: Count = 32,
        units: Count = 64,
        depth: Count = 4,
        rate: Positive = 0.1,
        width: Count = 8,
        widest: Count = 32,
        group: Count = 4,
        mixing: Share = 0.5,
        r1: NonNegative = 5.0,
        average: Decay = 0.995,
        fade: Whole = 3_000,
        steady: Whole = 18_000,
        k: Count = 1,
        lr_d: Positive = 4e-3,
        lr_g: Positive = 4e-3,
        beta1: Decay = 0.0,
        beta2: Decay = 0.99,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if v2 and progressive:
            raise ValueError(
                "stylegan: v2 is trained at one size, got progressive=True; leave one of them out"
            )
        super().__init__(spec, loop, latent=latent, k=k, lr_d=lr_d, lr_g=lr_g, betas=(beta1, beta2))
        self.v2, self.mixing, self.r1, self.average = v2, mixing, r1, average
        levels = levels_of(*spec.shape[1:])
        maps, first = maps_of(levels, width, widest), 1 if progressive else levels - 1
        self.grow(Growth(levels, fade, steady, first))
        synthesis = SkipSynthesis if v2 else Synthesis
        self.g = nn.Module()
        self.g.mapping = Mapping(latent, units, depth, rate)
        self.g.synthesis = synthesis(spec.shape, maps, units, first)
        discriminator = ResidualDiscriminator if v2 else GrowingDiscriminator
        net = discriminator(spec.shape, maps, group, True, first)
        alone = {
            "replay": "images of other levels have other sizes",
            "separate_batches": "no group of its minibatch statistics has rows of both kinds",
            "spectral_norm": "equalised rates scale D's weights",
            "r1": "its own penalty is r1",
        }
        self.d = Growing(self, net, NONSATURATING, without=alone)
        self.register_buffer("w_avg", torch.zeros(units))
        self.register_buffer("path_avg", torch.zeros(()))
        sizes = [self.size_of(level) for level in range(levels) for _ in range(2)]
        self.sizes = sizes[1:] if v2 else sizes  # v2 has one layer at the base grid
        for i, size in enumerate(self.sizes):
            self.register_buffer(f"plane{i}", torch.randn(1, 1, *size))

    @property
    def differentiates_twice(self) -> bool:
        return self.r1 > 0 or self.v2

    # -- styles and noise -------------------------------------------------------------------------
    @property
    def layers(self) -> int:
        """L of the level at hand."""
        return 2 * (self.level + 1)

    def noises(self, n: int, source: Source) -> list[Tensor]:
        """A plane of noise for each image and layer."""
        return [source.normal(n, 1, *size) for size in self.sizes[: self.layers]]

    def styles(self, n: int) -> tuple[Tensor, Tensor]:
        """The styles of a step's images, (n, L, units), a share of them of two codes; and w of the
        first code.
        """
        f, layers = self.g.mapping, self.layers
        w = f(self.codes(n))
        if not self.mixing:
            return w[:, None].expand(-1, layers, -1), w
        other = f(self.codes(n))
        mixed = self.noise.uniform(n) < self.mixing
        cut = torch.where(mixed, 1 + self.noise.integers(n, high=layers - 1), layers)
        return crossed(w, other, cut, layers), w

    def made(self, styles: Tensor) -> Tensor:
        """A step's images of the level at hand."""
        noises = self.noises(len(styles), self.noise)
        return self.g.synthesis(styles, noises, self.level, self.alpha)

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.at_level(self.scaled(batch["x"]))
        terms = self.d.loss((real,), (self.made(self.styles(batch.n)[0]),))
        every = R1_EVERY if self.v2 else 1
        due = (self.step or 0) % every == 0
        if self.r1 and (due or self.logs):
            terms["r1"] = self.r1 / 2 * squared_gradient_norm(self.d, real).mean()
            if due:
                terms["loss"] = terms["loss"] + every * terms["r1"]
        return terms

    def generator_loss(self, batch: Batch) -> Terms:
        styles, w = self.styles(batch.n)
        self.w_avg.lerp_(self.reduce(w.detach().mean(0)).to(self.w_avg), 1 - self.average)
        made = self.made(styles)
        terms = {"loss": self.d.fool(made), "w_norm": self.w_avg.norm()}
        due = (self.step or 0) % PATH_EVERY == 0
        if self.v2 and (due or self.logs):
            y = self.noise.normal_like(made) / math.sqrt(made[0, 0].numel())
            lengths = path_lengths(made, styles, y)
            if due:
                mean = self.reduce(lengths.detach().mean())
                self.path_avg.lerp_(mean.to(self.path_avg), 0.01)
            penalty = (lengths - self.path_avg).square().mean()
            terms |= {"path": lengths.mean(), "path_penalty": penalty}
            if due:
                terms["loss"] = terms["loss"] + PATH_EVERY * PATH_WEIGHT * penalty
        return terms

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def synthesised(self, styles: Tensor, noises: list[Tensor] | None = None) -> Tensor:
        """G of styles, (B, L, units), at its level, in D's units; noises: those drawn once."""
        held = [self.get_buffer(f"plane{i}") for i, _ in enumerate(self.sizes[: self.layers])]
        return self.g.synthesis(styles, noises or held, self.level, self.alpha)

    def image(self, styles: Tensor, noises: list[Tensor] | None = None) -> Tensor:
        """The same at the data's size in the units of ``spec``."""
        return self.quantised(self.full_size(self.synthesised(styles, noises)))

    def truncated(self, w: Tensor, psi: float = 1.0) -> Tensor:
        """w, (B, units), to styles, (B, L, units), those of the first layers drawn to w_avg."""
        near = self.w_avg + psi * (w - self.w_avg) if psi != 1 else w
        return crossed(near, w, torch.full((len(w),), TRUNCATED, device=w.device), self.layers)

    def from_codes(self, z: Tensor) -> Tensor:
        """G(f(z)), (B, *shape)."""
        return self.image(self.truncated(self.g.mapping(z)))

    @torch.no_grad()
    def sample(
        self, n: int, *, truncation: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Args: truncation: ψ; 0 is the mean style's images."""
        source = Draw(generator, self.device, self.float_dtype)
        w = self.g.mapping(self.draw_codes(n, source))
        return self.image(self.truncated(w, truncation), self.noises(n, source))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """Images along the line from f(a) to f(b): (B, frames, *shape)."""
        t = torch.linspace(0, 1, frames, device=a.device, dtype=a.dtype)[:, None]
        w = lerp(self.g.mapping(a)[:, None], self.g.mapping(b)[:, None], t)
        return self.image(self.truncated(w.flatten(0, 1))).unflatten(0, (len(a), frames))

    @torch.no_grad()
    def mix(self, a: Tensor, b: Tensor, layers: Sequence[int]) -> Tensor:
        """Images with the styles of codes a, (B, latent), in these layers, of b in the others."""
        if wrong := [i for i in layers if not 0 <= i < self.layers]:
            raise ValueError(
                f"stylegan has the layers 0 to {self.layers - 1}, got {wrong}; choose among them"
            )
        styles = self.truncated(self.g.mapping(b)).clone()
        styles[:, [*layers]] = self.g.mapping(a)[:, None]
        return self.image(styles)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """ppl_w: of one line between two styles for each row, (B,)."""
        source = Draw(generator, self.device, self.float_dtype)
        a, b = (self.g.mapping(self.draw_codes(batch.n, source)) for _ in range(2))
        t = source.uniform(batch.n, 1)
        near, far = (self.synthesised(self.truncated(lerp(a, b, at))) for at in (t, t + EPS))
        return {"ppl_w": (near - far).square().flatten(1).sum(1) / EPS**2}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        """Adam; of v2 with the rates that lazy penalties ask for (its appendix B)."""
        optimisers = super().optimisers()
        for player, every in (("d", R1_EVERY), ("g", PATH_EVERY)) if self.v2 else ():
            c = every / (every + 1)
            for group in optimisers[player].param_groups:
                group["lr"] *= c
                group["betas"] = tuple(beta**c for beta in group["betas"])
        return optimisers
