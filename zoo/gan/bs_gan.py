"""BS-GAN: boundary-seeking GAN, for discrete data by importance weights, for continuous data by the
decision boundary.

Paper      Hjelm, Jacob, Che, Trischler, Cho, Bengio. Boundary-Seeking Generative Adversarial
           Networks. ICLR 2018. arXiv:1702.08431.
Model      continuous: x = G(z). discrete, multinomial: G gives the logits of g(x|z), independent
           Bernoulli or categorical pixels, and x ~ g(x|z). D sees samples of 0 and 1 (as -1 and 1),
           or one-hot levels; s is its logit.
Objective  D:  -E log D(x) - E log(1 - D(x̃)), so that w(x) = e^{s(x)} → p/q.
           G, importance (algorithm 1): for each z_i, M samples x_im ~ g(·|z_i) and weights
               w̃_im = softmax_m s(x_im), all without gradient;
               -1/B Σ_i Σ_m w̃_im log g(x_im|z_i),
               whose gradient is that of KL(w g/Z ‖ g) given z_i. D is not differentiated.
           G, reinforce (reversed KL), log Ẑ_i = log mean_m e^{s(x_im)}:
               -1/(BM) Σ_im (s(x_im) - log Ẑ_i - 1) log g(x_im|z_i).
           G, continuous: samples are drawn to the boundary from both sides,
               ½ E s(G(z))² = ½ E (log D - log(1 - D))².
Running Z  log_z=True keeps log Z, a running mean (decay 0.995) of log E_q w over generator steps,
           in a buffer: continuous pulls to s = log Z, and reinforce takes it in place of each log
           Ẑ_i. Importance weights are normalised for each z and need none.
Logs       train/ess = 1/Σ_m w̃², of M; train/w_mean = E_q w (1 for the true ratio);
           train/log_w_mean, train/log_w_var; train/jsd_bound, train/d_acc_real, train/d_acc_fake;
           val/pixel_mean_error: mean over pixels of |E x̃ - E x|, in [0, 1], against the training
           set.
Sampling   z from the prior; G(z) quantised, or a draw from g(x|z). ``interpolate`` shows the most
           probable levels.
Notes      The default networks are MLPs for discrete data, and those of the other GANs for
           continuous data; ``arch="conv"`` is the paper's for binarised MNIST, which the authors
           train by RMSProp. The square's ½ is the paper's; the authors' code leaves it out. Many
           levels are hard for few samples: on 17-level digits D soon tells every draw, and the
           effective sample size falls to 2 or 3 of 20.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Positive, Prior, Range
from zoo.nn import small
from zoo.nn.adversarial_losses import divergence
from zoo.nn.prior import Draw
from zoo.registry import Paper, register

DECAY = 0.995  # of log Z
CODES = 512  # behind val/pixel_mean_error


class ConvLogits(nn.Module):
    """z -> 1024 -> 128 maps of a quarter of the size -> two 5x5 transposed convolutions, (B,
    channels, H, W); batch norm and ReLU.
    """

    def __init__(self, latent: int, channels: int, height: int, breadth: int) -> None:
        super().__init__()
        grid = (128, height // 4, breadth // 4)
        size = math.prod(grid)
        self.net = nn.Sequential(
            nn.Linear(latent, 1024),
            nn.BatchNorm1d(1024),
            nn.ReLU(),
            nn.Linear(1024, size),
            nn.BatchNorm1d(size),
            nn.ReLU(),
            nn.Unflatten(1, grid),
            nn.ConvTranspose2d(128, 64, 5, 2, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, channels, 5, 2, 2, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class ConvJudge(nn.Module):
    """5x5 convolutions of stride 2, 64 and 128, then 1024 and a logit, (B,); batch norm and leaky
    ReLU after each but the last.
    """

    def __init__(self, channels: int, height: int, breadth: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, 64, 5, 2, 2),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 5, 2, 2),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(128 * (height // 4) * (breadth // 4), 1024),
            nn.BatchNorm1d(1024),
            nn.LeakyReLU(0.2),
            nn.Linear(1024, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return small.logits(self.net(x))


def draw_levels(logits: Tensor, u: Tensor) -> Tensor:
    """Levels (B, M, D) by inversion from uniform u, (B, M, D), and logits (B, D, L) of each
    level.
    """
    below = logits.softmax(-1).cumsum(-1)[:, None, :, :-1]
    return (u[..., None] >= below).sum(-1)


def log_mass(levels: Tensor, logits: Tensor) -> Tensor:
    """log g(x|z), (B, M), of levels (B, M, D) under logits (B, D, L)."""
    each = logits.log_softmax(-1)[:, None].expand(-1, levels.shape[1], -1, -1)
    return each.gather(-1, levels[..., None]).squeeze(-1).sum(-1)


def importance_loss(s: Tensor, log_g: Tensor) -> Tensor:
    """-Σ_m w̃_m log g(x_m|z) with w̃ = softmax_m s, (B,), from logits and log masses (B, M)."""
    return -(s.detach().softmax(1) * log_g).sum(1)


def reinforce_loss(s: Tensor, log_g: Tensor, log_z: Tensor) -> Tensor:
    """-1/M Σ_m (s_m - log Z - 1) log g(x_m|z), (B,); log Z a number, or (B, 1)."""
    return -((s - log_z - 1).detach() * log_g).mean(1)


@register(
    "bs_gan",
    paper=Paper(
        "Hjelm, Jacob, Che, Trischler, Cho, Bengio",
        "Boundary-Seeking Generative Adversarial Networks",
        2018,
        "1702.08431",
    ),
    about="the discriminator's density ratio weighs the generator's samples, so that discrete "
    "data need no relaxation",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="digits",
    learns=(
        ("val/pixel_mean_error", "<", 0.05),
        ("val/is_pixels", ">", 4.0),
        ("val/classes_pixels", ">", 8.5),
        ("val/recall_pixels", ">", 0.35),
        ("train/ess", ">", 5.0),
    ),
)
class BSGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: two levels (discrete), any number of levels (multinomial), or any data (continuous).
        mode: "discrete", "multinomial" or "continuous". g_loss: "importance" or "reinforce", of
            data with levels.
        samples: M, draws for each z in G's step. samples_d: draws for each z that D is shown.
        log_z: see the module's docstring.
        arch: "small", or "conv" (discrete or multinomial images, height and width multiples of 4).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units (None is 128); filters of continuous images (32).
        prior: "normal", "uniform" or "sphere". k: discriminator steps per generator step.
        optimiser: "adam", or "rmsprop" with the constants of the authors' library.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("jsd_bound",)
    log_z: Tensor
    mean_image: Tensor

    def __init__(
        self,
        spec: Spec,
        mode: Literal["discrete", "multinomial", "continuous"] = "discrete",
        g_loss: Literal["importance", "reinforce"] = "importance",
        samples: Annotated[int, Range(2)] = 20,
        samples_d: Count = 1,
        log_z: bool = False,
        arch: Literal["small", "conv"] = "small",
        latent: Count | None = None,
        width: Count | None = None,
        prior: Prior = "normal",
        k: Count = 1,
        optimiser: Literal["adam", "rmsprop"] = "adam",
        lr_d: Positive = 1e-3,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if mode == "continuous" and arch == "conv":
            raise ValueError(
                "bs_gan: arch=conv gives the logits of levels, got mode=continuous; set arch=small"
            )
        if mode == "continuous" and samples_d > 1:
            raise ValueError(
                "bs_gan: samples_d is of data with levels, got samples_d="
                f"{samples_d} with mode=continuous; leave it out"
            )
        if mode == "continuous" and g_loss != "importance":
            raise ValueError(
                "bs_gan: g_loss is of data with levels and has no meaning with mode=continuous, "
                f"got {g_loss!r}; leave it out"
            )
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
        )
        if mode != "continuous" and spec.levels is None:
            raise ValueError(
                f"bs_gan with mode={mode} models data with levels, got {spec}; set "
                "--model.mode=continuous"
            )
        if mode == "discrete" and spec.levels != 2:
            remedy = "binarise it (--data.binarize=threshold), or set --model.mode=multinomial"
            raise ValueError(
                f"bs_gan with mode=discrete models data with 2 levels, got {spec}; {remedy}"
            )
        self.mode, self.g_loss, self.samples, self.samples_d = mode, g_loss, samples, samples_d
        self.running, self.optimiser = log_z, optimiser
        # numbers that G gives a pixel
        self.outputs = 1 if mode == "continuous" or spec.levels == 2 else spec.levels or 1
        d: nn.Module
        if mode == "continuous":
            self.g = small.generator(self.latent, spec.shape, width)
            d = small.discriminator(spec.shape, width)
        elif arch == "conv":
            spec.require("bs_gan with arch=conv", x=Image)
            channels, height, breadth = spec.shape
            if height % 4 or breadth % 4:
                raise ValueError(
                    f"bs_gan's convolutions take images of multiples of 4 pixels, got {spec}; "
                    "resize them, or set arch=small"
                )
            maps = channels * self.outputs
            self.g = ConvLogits(self.latent, maps, height, breadth)
            d = ConvJudge(maps, height, breadth)
        else:
            dim = (spec.dim * self.outputs,)
            self.g = small.MLPGenerator(self.latent, dim, width or 128)
            d = small.MLPDiscriminator(dim, width or 128)
        # -log D(x), -log(1 - D(x̃)), and in the continuous mode ½ (s - log Z)² for G.
        boundary = Loss(
            real=lambda s: F.softplus(-s),
            fake=F.softplus,
            maker=lambda s: (s - self.log_z.to(s.dtype)).square() / 2,
        )
        seen = [(self.outputs * spec.shape[0], *spec.shape[1:])]
        self.d = Adversary(self, d, boundary, inputs=seen, watch=divergence)
        self.register_buffer("log_z", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean_image", torch.zeros(spec.shape))  # in [0, 1]

    def initialise_from(self, batch: Batch) -> None:
        self.mean_image.copy_(self.spec.to_unit(batch["x"]).mean(0))

    # -- discrete data ----------------------------------------------------------------------------
    def logits(self, z: Tensor) -> Tensor:
        """Logits of each level of each pixel, (B, D, L)."""
        out = self.g(z).view(len(z), self.spec.shape[0], self.outputs, -1)
        out = out.transpose(2, 3).flatten(1, 2)
        return out if self.outputs > 1 else torch.cat([torch.zeros_like(out), out], 2)

    def shown(self, levels: Tensor) -> Tensor:
        """Levels (..., D) as D sees them, (..., channels, H, W): signed, or one-hot."""
        x = levels.unflatten(-1, self.spec.shape)
        if self.outputs == 1:
            return self.spec.to_signed(x.to(self.float_dtype))
        at = len(levels.shape)  # the dimension after the channels
        one_hot = F.one_hot(x, self.outputs).to(self.float_dtype).movedim(-1, at)
        return one_hot.flatten(at - 1, at)

    def scaled(self, x: Tensor) -> Tensor:
        return super().scaled(x) if self.mode == "continuous" else self.shown(x.long().flatten(1))

    def made(self, n: int) -> Tensor:
        """New samples of n codes, ``samples_d`` of each, as D sees them."""
        z = self.codes(n)
        if self.mode == "continuous":
            return self.g(z)
        u = self.noise.uniform(n, self.samples_d, self.spec.dim)
        return self.shown(draw_levels(self.logits(z), u).flatten(0, 1))

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]),), (self.made(batch.n),))

    def generator_loss(self, batch: Batch) -> Terms:
        if self.mode == "continuous":
            s = self.d.see(self.made(batch.n))
            return {"loss": self.d.price.maker(s).mean(), **self.weights_of(s)}
        logits = self.logits(self.codes(batch.n))
        with torch.no_grad():
            u = self.noise.uniform(batch.n, self.samples, self.spec.dim)
            levels = draw_levels(logits, u)
            s = self.d(self.d.noisy(self.shown(levels)).flatten(0, 1)).view(batch.n, -1)
            ess = 1 / s.softmax(1).square().sum(1)
        log_g = log_mass(levels, logits)
        if self.g_loss == "importance":
            loss = importance_loss(s, log_g)
        else:
            of_each = s.logsumexp(1, keepdim=True) - math.log(self.samples)
            log_z = self.log_z.to(s.dtype) if self.running else of_each
            loss = reinforce_loss(s, log_g, log_z)
        return {"loss": loss.mean(), "ess": ess.mean(), **self.weights_of(s)}

    def weights_of(self, s: Tensor) -> Terms:
        """What is logged of w = e^s."""
        s = s.detach()
        return {
            "w_mean": s.double().exp().mean(),
            "log_w_mean": s.mean(),
            "log_w_var": s.var(correction=0),
        }

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    def after_cycle(self, terms: dict[str, Tensor]) -> None:
        if self.running:
            self.log_z.lerp_(self.reduce(terms["w_mean"]).log(), 1 - DECAY)

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor) -> Tensor:
        """G(z), or the most probable levels, in the units of ``spec``, (B, *shape)."""
        if self.mode == "continuous":
            return super().from_codes(z)
        return self.logits(z).argmax(2).to(self.float_dtype).view(len(z), *self.spec.shape)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        z = self.draw_codes(n, source)
        if self.mode == "continuous":
            return self.from_codes(z)
        levels = draw_levels(self.logits(z), source.uniform(n, 1, self.spec.dim))
        return levels.to(self.float_dtype).view(n, *self.spec.shape)

    def mean_sample(self, z: Tensor) -> Tensor:
        """The expectation of x̃ in [0, 1] over these codes, (*shape)."""
        if self.mode == "continuous":
            return self.spec.to_unit(self.from_codes(z)).mean(0)
        p = self.logits(z).softmax(2)
        of_level = torch.linspace(0, 1, p.shape[2], dtype=p.dtype, device=p.device)
        return (p @ of_level).mean(0).view(self.spec.shape)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """pixel_mean_error: the same for each row, (B,); of data with levels."""
        if self.spec.levels is None:
            return {}
        z = self.draw_codes(CODES, Draw(generator, self.device, self.float_dtype))
        error = (self.mean_sample(z) - self.mean_image).abs().mean()
        return {"pixel_mean_error": error.expand(batch.n)}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        if self.optimiser == "adam":
            return super().optimisers()
        # Lasagne's, whose 1e-6 is added under the root
        return self.one_each(torch.optim.RMSprop, alpha=0.9, eps=1e-3)
