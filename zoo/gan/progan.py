"""ProGAN: progressive growing of GANs.

Paper      Karras, Aila, Laine, Lehtinen. Progressive Growing of GANs for Improved Quality,
           Stability, and Variation. ICLR 2018. arXiv:1710.10196.
Model      x = G(z), z a point of the sphere. G and D begin with small images and grow a level, a
           doubling of the size, at a time. A new level is faded in: with α rising from 0 to 1
           G's image is α rgb_l(h_l) + (1 - α) up(rgb_{l-1}(h_{l-1})), D's maps are
           α block_l(maps_l(x)) + (1 - α) maps_{l-1}(down(x)), and real images are mixed alike,
           α x + (1 - α) up(down(x)). Equalised rates in every layer, pixel norm after each of G's
           convolutions, the minibatch's standard deviation in D, no other norm, G's end linear.
Objective  WGAN-GP with a target γ for the slope, and a drift term:
           D:  E D(x̃) - E D(x) + λ/γ² E (‖∇ D(x̂)‖ - γ)² + ε E D(x)²,
               x̃ = G(z_D) detached, x̂ between x and x̃ by one u ~ U(0, 1) an image; the drift is
               of real images alone.
           G:  -E D(G(z_G)).
Training   The level and α are functions of the images shown to D over all processes: the first
           level for ``steady`` images, each further one faded in over ``fade`` and steady again,
           the last for the rest. Adam with β = (0, 0.99); where the level changes its state is
           forgotten. Averages of G's weights are evaluated (``ema`` in the config); they hold the
           layers of every level from the start.
Logs       train/w_est and val/w_est, D's mean on data above that on samples; train/gp with its
           weight; train/drift = ε E D(x)²; train/level, train/alpha.
Sampling   z ~ N(0, I), brought to the sphere by G; G's image of the level at hand, doubled to the
           size of the data, quantised.
Notes      Sides need not be powers of two: the base grid of 28x28 is 7x7. The minibatch has one
           size at all levels. Its standard deviation couples rows in groups of four that follow one
           another, also under the gradient penalty, as in the authors' code. The default has λ = 1
           and three times the paper's rates, for a short run. Not here: minibatches of another
           size at each level, and the auxiliary classifier of the runs on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Growing, GrowingModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Whole
from zoo.nn.blur import doubled
from zoo.nn.equalised import EqualisedConv2d, EqualisedLinear, pixel_norm
from zoo.nn.growth import GrowingDiscriminator, Growth, blended, levels_of, maps_of
from zoo.nn.penalties import squared_gradient_norm
from zoo.nn.prior import Draw
from zoo.registry import Paper, register


class Generator(nn.Module):
    """z, (B, latent) -> images of a level, (B, C, h, w), without bounds.

    Args:
        shape: of the last level's images. maps: of each level, the base grid's first.
    """

    def __init__(self, latent: int, shape: Sequence[int], maps: Sequence[int]) -> None:
        super().__init__()
        channels, height, breadth = shape
        base = (maps[0], height >> (len(maps) - 1), breadth >> (len(maps) - 1))
        self.dense = nn.Sequential(
            EqualisedLinear(latent, torch.Size(base).numel(), gain=2**0.5 / 4),
            nn.Unflatten(1, base),
        )
        self.first = EqualisedConv2d(maps[0], maps[0], 3)
        self.blocks = nn.ModuleList(
            nn.ModuleList([EqualisedConv2d(m, n, 3), EqualisedConv2d(n, n, 3)])
            for m, n in zip(maps[:-1], maps[1:], strict=True)
        )
        self.to_image = nn.ModuleList(EqualisedConv2d(m, channels, 1, gain=1.0) for m in maps)

    def forward(self, z: Tensor, level: int, alpha: float = 1.0) -> Tensor:
        h = self.normed(self.dense(pixel_norm(z)))
        h = before = self.normed(self.first(h))
        for block in self.blocks[:level]:
            before, h = h, doubled(h)
            for conv in block.children():
                h = self.normed(conv(h))
        image = self.to_image[level](h)
        if alpha < 1 and level:
            image = blended(image, doubled(self.to_image[level - 1](before)), alpha)
        return image

    @staticmethod
    def normed(h: Tensor) -> Tensor:
        return pixel_norm(F.leaky_relu(h, 0.2))


def between(x: Tensor, made: Tensor, u: Tensor) -> Tensor:
    """x̂ = x̃ + u (x - x̃), one u, (B,), for all of an image."""
    return made + u.view(-1, 1, 1, 1) * (x - made)


def penalty(norm: Tensor, gamma: float) -> Tensor:
    """(‖∇D(x̂)‖ - γ)² / γ², (B,)."""
    return (norm / gamma - 1).square()


WASSERSTEIN = Loss(real=lambda s: -s, fake=lambda s: s, maker=lambda s: -s, targets=False)


@register(
    "progan",
    paper=Paper(
        "Karras, Aila, Laine, Lehtinen",
        "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
        2018,
        "1710.10196",
    ),
    about="generator and discriminator grow together, from 4x4 pixels to the data's size, each new "
    "level faded in",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="digits",
    learns=(
        ("val/is_pixels", ">", 3.0),
        ("val/fid_pixels", "<", 0.6),
        ("val/precision_pixels", ">", 0.28),
        ("val/coverage_pixels", ">", 0.15),
    ),
    waive={
        "every_parameter_learns": "the layers of levels to come have no gradient yet",
        "makers_get_gradients": "the layers of levels to come have no gradient yet",
        "ddp_equal": "the minibatch's standard deviation is of rows of one process",
    },
)
class ProGAN(GrowingModule):
    """See the module's docstring.

    Args:
        spec: images, height and width multiples of 4 and at least 8.
        latent: dimension of z. width: maps of the last level, twice as many at each one before.
            widest: at most so many.
        group: rows over which D takes the minibatch's standard deviation; 1 leaves it out.
        fade: images over which a level is faded in. steady: images for which it is trained then.
        lam: weight λ of the penalty. gamma: γ, the slope that is wanted. drift: ε.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G.
        beta1, beta2: Adam's decays. loop: options of the adversarial loop.
    """

    watches = ("w_est", "level")
    accepts = {"x": Image}

    def __init__(
        self,
        spec: Spec,
        latent: Count = 32,
        width: Count = 8,
        widest: Count = 32,
        group: Count = 4,
        fade: Whole = 5_000,
        steady: Whole = 10_000,
        lam: NonNegative = 1.0,
        gamma: Positive = 1.0,
        drift: NonNegative = 1e-3,
        k: Count = 1,
        lr_d: Positive = 3e-3,
        lr_g: Positive = 3e-3,
        beta1: Decay = 0.0,
        beta2: Decay = 0.99,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop, latent=latent, k=k, lr_d=lr_d, lr_g=lr_g, betas=(beta1, beta2))
        self.lam, self.gamma, self.drift = lam, gamma, drift
        levels = levels_of(*spec.shape[1:])
        maps = maps_of(levels, width, widest)
        self.grow(Growth(levels, fade, steady))
        self.g = Generator(latent, spec.shape, maps)
        alone = {
            "replay": "images of other levels have other sizes",
            "separate_batches": "no group of its minibatch statistics has rows of both kinds",
            "spectral_norm": "equalised rates scale D's weights",
        }
        net = GrowingDiscriminator(spec.shape, maps, group)
        self.d = Growing(self, net, WASSERSTEIN, without=alone)

    @property
    def differentiates_twice(self) -> bool:
        return True

    # -- losses -----------------------------------------------------------------------------------
    def made(self, z: Tensor) -> Tensor:
        """G(z) of the level at hand."""
        return self.g(z, self.level, self.alpha)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.at_level(self.scaled(batch["x"]))
        x, made = self.d.noisy(real), self.d.noisy(self.made(self.codes(batch.n)).detach())
        s_real, s_made = self.d(x), self.d(made)
        x_hat = between(x, made, self.noise.uniform(batch.n))
        # 1e-12: a finite slope at a gradient of zero.
        norm = (squared_gradient_norm(self.d, x_hat) + 1e-12).sqrt()
        w = s_real.mean() - s_made.mean()
        gp = self.lam * penalty(norm, self.gamma).mean()
        drift = self.drift * s_real.square().mean()
        terms = {
            "loss": gp + drift - w,
            "w_est": w,
            "gp": gp,
            "drift": drift,
            "level": w.new_tensor(self.level),
            "alpha": w.new_tensor(self.alpha),
        }
        return self.d.regularised(terms, real)

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.made(self.codes(batch.n)))}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """w_est: D's difference between each held-out image and one sample, (B,)."""
        z = self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype))
        return {"w_est": self.d(self.at_level(self.scaled(batch["x"]))) - self.d(self.made(z))}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor) -> Tensor:
        """G(z) of the level at hand, at the data's size, in the units of ``spec``, (B, *shape)."""
        return self.quantised(self.full_size(self.made(z)))
