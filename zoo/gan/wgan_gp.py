"""WGAN-GP: Wasserstein GAN with gradient penalty.

Paper      Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville. Improved Training of Wasserstein GANs.
           NIPS 2017. arXiv:1704.00028.
Model      x = G(z); a critic f kept near 1-Lipschitz by a penalty instead of clipping.
Objective  critic:  E f(x̃) - E f(x) + λ E (‖∇_x̂ f(x̂)‖₂ - 1)² (equation 3), where
                    x̃ = G(z_D) is detached,
                    x̂ = ε x + (1 - ε) x̃ with one ε ~ U(0, 1) for each example,
                    and the norm is over all dimensions of an example.
           G:       -E f(G(z_G)).
Training   Algorithm 1: k critic steps for one of G; Adam with β = (0, 0.9).
Logs       train/w_est and val/w_est = E f(x) - E f(G(z)); train/gp, the penalty with λ;
           train/grad_norm, the mean of ‖∇f(x̂)‖.
Sampling   z from the prior, G(z), quantised.
Notes      The penalty is of each example's own input, so batch norm in the critic is refused
           (section 4); layer norm is allowed. It is computed in single precision with autocast off.
           The critic's last layer has no bias, as no loss would move it. The default networks are
           MLPs for vectors and small convolutional nets for images; ``arch="resnet"`` is the
           CIFAR-10 network of appendix F. Not done here: its class-conditional variant with an
           auxiliary classifier, and its generator batches of twice the critic's size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive, Prior, Whole
from zoo.nn import small
from zoo.nn.penalties import squared_gradient_norm
from zoo.nn.prior import Draw
from zoo.registry import Paper, register


class ResidualBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice, beside a shortcut; "up" doubles the size before the
    convolution, "down" halves it after.

    ``first`` is the critic's first block: no activation before its first convolution, the shortcut
    pooled before its 1x1 convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, resample: str = "", norm: str = "none", first: bool = False
    ) -> None:
        super().__init__()
        norms: dict[str, Callable[[int], nn.Module]]
        norms = {
            "none": nn.Identity,
            "batch": nn.BatchNorm2d,
            "layer": lambda width: nn.GroupNorm(1, width),
        }
        self.norm1, self.norm2 = (
            nn.Identity() if first else norms[norm](inputs),
            norms[norm](outputs),
        )
        self.conv1, self.conv2 = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1) if resample or inputs != outputs else nn.Identity()
        )
        self.resample, self.first = resample, first
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else F.relu(self.norm1(x))
        if self.resample == "up":
            h, x = (F.interpolate(v, scale_factor=2, mode="nearest") for v in (h, x))
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)  # pooling and a 1x1 convolution commute
        return h + self.shortcut(x)


class ResNetGenerator(nn.Module):
    """Linear to the base grid, residual blocks of doubling size with batch norm, then norm, ReLU,
    3x3 convolution, tanh.
    """

    def __init__(self, latent: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        m = small.doublings(height, breadth)
        base = (width, height >> m, breadth >> m)
        blocks = [ResidualBlock(width, width, "up", "batch") for _ in range(m)]
        self.project = nn.Sequential(
            nn.Linear(latent, torch.Size(base).numel()), nn.Unflatten(1, base)
        )
        self.blocks = nn.Sequential(
            *blocks,
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.blocks(self.project(z))


class ResNetCritic(nn.Module):
    """Four residual blocks, the first two halving the size, ReLU, mean over pixels, one linear
    value, (B,).
    """

    def __init__(self, shape: tuple[int, ...], width: int, norm: str) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock(shape[0], width, "down", norm, first=True),
            ResidualBlock(width, width, "down", norm),
            ResidualBlock(width, width, "", norm),
            ResidualBlock(width, width, "", norm),
            nn.ReLU(),
        )
        self.end = nn.Linear(width, 1, bias=False)

    def features(self, x: Tensor) -> Tensor:
        """(B, width, H/4, W/4)."""
        return self.blocks(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.features(x).mean((2, 3))).squeeze(1)


def between(x: Tensor, fake: Tensor, eps: Tensor) -> Tensor:
    """x̂ = ε x + (1 - ε) x̃ with one ε, (B,), for all dimensions of an example."""
    eps = eps.view(-1, *[1] * (x.dim() - 1))
    return eps * x + (1 - eps) * fake


def penalty(norm: Tensor) -> Tensor:
    """(‖∇f(x̂)‖ - 1)², one value for each example."""
    return (norm - 1).square()


WASSERSTEIN = Loss(real=lambda f: -f, fake=lambda f: f, maker=lambda f: -f, targets=False)


@register(
    "wgan_gp",
    paper=Paper(
        "Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville",
        "Improved Training of Wasserstein GANs",
        2017,
        "1704.00028",
    ),
    about="a Wasserstein critic whose input gradient is drawn to norm one between data and samples",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 7.5), ("val/hq", ">", 0.4)),
)
class WGANGP(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        arch: "small", or "resnet" (images).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters of "small" (32) or of "resnet" (128).
        norm: of the critic, "none" or "layer".
        prior: "normal", "uniform" or "sphere". lam: weight λ of the penalty. k: critic steps per
            generator step.
        lr_d: learning rate of the critic. lr_g: of G. beta1, beta2: Adam's decays.
        decay_steps: generator steps over which both rates fall linearly to 0; 0 keeps them
            constant.
        loop: options of the adversarial loop.
    """

    watches = ("w_est", "gp")

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "resnet"] = "small",
        latent: Count | None = None,
        width: Count | None = None,
        norm: Norm = "none",
        prior: Prior = "normal",
        lam: NonNegative = 1.0,
        k: Count = 5,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.0,
        beta2: Decay = 0.9,
        decay_steps: Whole = 0,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if norm == "batch":
            raise ValueError(
                "wgan_gp penalises the critic's gradient at each example alone, and batch norm "
                "mixes them: norm is none or layer, got 'batch'; layer is the paper's"
            )
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, beta2),
        )
        self.lam, self.decay_steps = lam, decay_steps
        if arch == "small":
            self.g = small.generator(self.latent, spec.shape, width)
            critic = small.discriminator(spec.shape, width, norm=norm, bias=False)
        else:
            spec.require("wgan_gp with arch=resnet", x=Image)
            self.g = ResNetGenerator(self.latent, spec.shape, width or 128)
            critic = ResNetCritic(spec.shape, width or 128, norm)
        alone = {"separate_batches": "the critic has no batch statistics"}
        self.d = Adversary(self, critic, WASSERSTEIN, without=alone)

    @property
    def differentiates_twice(self) -> bool:
        return True

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.scaled(batch["x"])
        (fake,) = self.d.stored(self.g(self.codes(batch.n)))
        x, fake = self.d.noisy(real), self.d.noisy(fake)
        w = self.d(x).mean() - self.d(fake).mean()
        x_hat = between(x, fake, self.noise.uniform(batch.n))
        # 1e-12: a finite slope at a gradient of zero.
        norm = (squared_gradient_norm(self.d, x_hat) + 1e-12).sqrt()
        gp = self.lam * penalty(norm).mean()
        terms = {"loss": gp - w, "w_est": w, "gp": gp, "grad_norm": norm.mean()}
        return self.d.regularised(terms, real)

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """w_est: the critic's difference between each held-out example and one sample, (B,)."""
        z = self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype))
        return {"w_est": self.d(self.scaled(batch["x"])) - self.d(self.g(z))}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- optimisers -------------------------------------------------------------------------------
    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.decay_steps:
            return {}

        def falling(steps: int) -> Callable[[int], float]:
            return lambda n: max(0.0, 1 - n / (self.decay_steps * steps))

        return {p: LambdaLR(o, falling(self.steps_of(p))) for p, o in optimisers.items()}
