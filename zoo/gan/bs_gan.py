"""BS-GAN: boundary-seeking GAN, for discrete data by importance weights, for continuous data by the
decision boundary.

Paper      Hjelm, Jacob, Che, Trischler, Cho, Bengio. Boundary-Seeking Generative Adversarial
           Networks. ICLR 2018. arXiv:1702.08431.
Model      continuous: x = G(z). discrete, multinomial: G gives the logits of g(x|z), independent
           Bernoulli or categorical pixels, and x ~ g(x|z). D sees samples of 0 and 1 (as -1 and 1),
           or one-hot levels; s is its logit.
Objective  D:  -E log D(x) - E log(1 - D(x̃)), so that w(x) = e^{s(x)} → p/q.
           G, importance (algorithm 1): for each z_i, M samples x_im ~ g(·|z_i) and weights w̃_im =
           softmax_m s(x_im), all without gradient;
               -1/B Σ_i Σ_m w̃_im log g(x_im|z_i), whose gradient is that of KL(w g/Z ‖ g) given
               z_i. D is not differentiated.
           G, reinforce (reversed KL): -1/(BM) Σ_im (s(x_im) - log Ẑ_i - 1) log g(x_im|z_i), log Ẑ_i
           = log mean_m e^{s(x_im)}. G, continuous: ½ E s(G(z))² = ½ E (log D - log(1 - D))²:
           samples are drawn to the boundary from both sides.
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

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.core import DataSpec, GeneratorModule, LoopOptions
from zoo.core.module import Batch
from zoo.nn import small
from zoo.nn.prior import Draw
from zoo.registry import Paper, register

MODES = ("discrete", "multinomial", "continuous")
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
        samples: M, draws for each z in G's step. log_z: see the module's docstring.
        arch: "small", or "conv" (discrete or multinomial images, height and width multiples of 4).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units (None is 128); filters of continuous images (32).
        prior: "normal", "uniform" or "sphere". k: discriminator steps per generator step.
        optimiser: "adam", or "rmsprop" with the constants of the authors' library.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    g_losses = ("importance", "reinforce")
    log_z: Tensor
    mean_image: Tensor

    def __init__(
        self,
        spec: DataSpec,
        mode: str = "discrete",
        g_loss: str = "importance",
        samples: int = 20,
        log_z: bool = False,
        arch: str = "small",
        latent: int | None = None,
        width: int | None = None,
        prior: str = "normal",
        k: int = 1,
        optimiser: str = "adam",
        lr_d: float = 1e-3,
        lr_g: float = 1e-3,
        beta1: float = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        for name, value, allowed in (
            ("mode", mode, MODES),
            ("arch", arch, ("small", "conv")),
            ("optimiser", optimiser, ("adam", "rmsprop")),
        ):
            if value not in allowed:
                raise ValueError(f"bs_gan: {name} is one of {', '.join(allowed)}, got {value!r}")
        if samples < 2:
            raise ValueError(
                f"bs_gan: samples are weighed against each other and at least 2, got {samples}"
            )
        if mode == "continuous" and arch == "conv":
            raise ValueError(
                "bs_gan: arch=conv gives the logits of levels, got mode=continuous; set arch=small"
            )
        if mode == "continuous" and g_loss != "importance":
            raise ValueError(
                f"bs_gan: g_loss is of data with levels and has no meaning with mode=continuous, "
                f"got {g_loss!r}; leave it out"
            )
        if mode != "continuous" and spec.levels is None:
            raise ValueError(
                f"bs_gan with mode={mode} models data with levels, got {spec}; set "
                f"--model.mode=continuous"
            )
        if mode == "discrete" and spec.levels != 2:
            remedy = "binarise it (--data.binarize=threshold), or set --model.mode=multinomial"
            raise ValueError(
                f"bs_gan with mode=discrete models data with 2 levels, got {spec}; {remedy}"
            )
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            g_loss=g_loss,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
        )
        self.mode, self.samples, self.running, self.optimiser = mode, samples, log_z, optimiser
        self.outputs = (
            1 if mode == "continuous" or spec.levels == 2 else spec.levels or 1
        )  # numbers that G gives a pixel
        if mode == "continuous":
            self.build(
                small.generator(self.latent, spec.shape, width),
                small.discriminator(spec.shape, width),
            )
        elif arch == "conv":
            spec.require("bs_gan with arch=conv", image=True)
            channels, height, breadth = spec.shape
            if height % 4 or breadth % 4:
                raise ValueError(
                    f"bs_gan's convolutions take images of multiples of 4 pixels, got {spec}; "
                    f"resize them, or set arch=small"
                )
            maps = channels * self.outputs
            self.build(
                ConvLogits(self.latent, maps, height, breadth), ConvJudge(maps, height, breadth)
            )
        else:
            dim = (spec.dim * self.outputs,)
            self.build(
                small.MLPGenerator(self.latent, dim, width or 128),
                small.MLPDiscriminator(dim, width or 128),
            )
        if self.loop.replay and self.outputs > 1:
            self.register_buffer(
                "replay_x",
                torch.zeros(self.loop.replay, self.outputs * spec.shape[0], *spec.shape[1:]),
            )
        self.register_buffer("log_z", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean_image", torch.zeros(spec.shape))  # in [0, 1]

    def initialise_from(self, x: Tensor) -> None:
        self.mean_image.copy_(self.spec.to_unit(x).mean(0))

    # -- discrete data ----------------------------------------------------------------------------
    def logits(self, z: Tensor) -> Tensor:
        """Logits of each level of each pixel, (B, D, L)."""
        out = (
            self.generator(z)
            .view(len(z), self.spec.shape[0], self.outputs, -1)
            .transpose(2, 3)
            .flatten(1, 2)
        )
        return out if self.outputs > 1 else torch.cat([torch.zeros_like(out), out], 2)

    def shown(self, levels: Tensor) -> Tensor:
        """Levels (..., D) as D sees them, (..., channels, H, W): signed, or one-hot."""
        x = levels.unflatten(-1, self.spec.shape)
        if self.outputs == 1:
            return self.spec.to_signed(x.to(self.float_dtype))
        at = len(levels.shape)  # the dimension after the channels
        one_hot = F.one_hot(x, self.outputs).to(self.float_dtype).movedim(-1, at)
        return one_hot.flatten(at - 1, at)

    def d_input(self, x: Tensor) -> Tensor:
        return super().d_input(x) if self.mode == "continuous" else self.shown(x.long().flatten(1))

    def make(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """G(z), or the most probable levels, as D sees them."""
        return (
            super().make(z) if self.mode == "continuous" else self.shown(self.logits(z).argmax(2))
        )

    def fakes(self, n: int, y: Tensor | None = None) -> Tensor:
        """n new samples, one for each code."""
        if self.mode == "continuous":
            return super().fakes(n, y)
        logits = self.logits(self.draw_codes(n, self.noise))
        return self.shown(draw_levels(logits, self.noise.uniform(n, 1, self.spec.dim))[:, 0])

    # -- losses -----------------------------------------------------------------------------------
    def price_generator(self, s: Tensor) -> Tensor:
        """Continuous: ½ (s - log Z)², log Z = 0 unless it is estimated."""
        return (s - self.log_z.to(s.dtype)).square() / 2

    def generator_loss(self, batch: int | Batch) -> dict[str, Tensor]:
        n = batch if isinstance(batch, int) else len(batch["x"])
        if self.mode == "continuous":
            s = self.judge(self.seen(self.fakes(n)))
            return {"loss": self.price_generator(s).mean(), **self.weights_of(s)}
        logits = self.logits(self.draw_codes(n, self.noise))
        with torch.no_grad():
            levels = draw_levels(logits, self.noise.uniform(n, self.samples, self.spec.dim))
            s = self.judge(self.seen(self.shown(levels)).flatten(0, 1)).view(n, -1)
            ess = 1 / s.softmax(1).square().sum(1)
        log_g = log_mass(levels, logits)
        if self.g_loss == "importance":
            loss = importance_loss(s, log_g)
        else:
            of_each = s.logsumexp(1, keepdim=True) - math.log(self.samples)
            loss = reinforce_loss(s, log_g, self.log_z.to(s.dtype) if self.running else of_each)
        return {"loss": loss.mean(), "ess": ess.mean(), **self.weights_of(s)}

    def weights_of(self, s: Tensor) -> dict[str, Tensor]:
        """What is logged of w = e^s."""
        s = s.detach()
        return {
            "w_mean": s.double().exp().mean(),
            "log_w_mean": s.mean(),
            "log_w_var": s.var(correction=0),
        }

    def after_cycle(self, terms: dict[str, Tensor]) -> None:
        if self.running:
            self.log_z.lerp_(self.reduce(terms["w_mean"]).log(), 1 - DECAY)

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """G(z), or the most probable levels, in the units of ``spec``, (B, *shape)."""
        if self.mode == "continuous":
            return super().from_codes(z)
        return self.logits(z).argmax(2).to(self.float_dtype).view(len(z), *self.spec.shape)

    def sample(
        self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
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
        return (
            (p @ torch.linspace(0, 1, p.shape[2], dtype=p.dtype, device=p.device))
            .mean(0)
            .view(self.spec.shape)
        )

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """pixel_mean_error: the same for each row, (B,); of data with levels."""
        if self.spec.levels is None:
            return {}
        z = self.draw_codes(CODES, Draw(generator, self.device, self.float_dtype))
        error = (self.mean_sample(z) - self.mean_image).abs().mean()
        return {"pixel_mean_error": error.expand(len(batch["x"]))}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        if self.optimiser == "adam":
            return super().optimisers()
        return self.one_each(
            torch.optim.RMSprop, alpha=0.9, eps=1e-3
        )  # Lasagne's, whose 1e-6 is added under the root
