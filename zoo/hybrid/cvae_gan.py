"""CVAE-GAN: a conditional variational auto-encoder and GAN, trained asymmetrically by matching mean
features.

Paper      Bao, Chen, Wen, Li, Hua. CVAE-GAN: Fine-Grained Image Generation through Asymmetric
           Training. ICCV 2017. arXiv:1703.10155.
Model      x = G(z, c), z ~ N(0, I), c a class; q(z | x, c) = N(μ, σ²) by E; D tells real from made,
           C tells classes. f_D, f_C are their last hidden activations. x_r, c_r: data; x_f = G(z,
           c_r), z ~ q(z | x_r, c_r); x_p = G(z_p, c_p), z_p ~ N(0, I), c_p the labels of the
           minibatch.
Objective  In this order, each with its own minibatch:
           C:  L_C = -log P(c_r | x_r), real images only.
           D:  L_D = -log D(x_r) - log(1 - D(x_f)) - log(1 - D(x_p)), x_f and x_p without gradient.
           G:  λ2 L_G + λ3 L_GD + λ4 L_GC.
           E:  λ1 L_KL + λ2 L_G.
           L_KL = KL(q(z | x_r, c_r) ‖ N(0, I)).
           L_G  = ½ (‖x_r - x_f‖² + ‖f_D(x_r) - f_D(x_f)‖² + ‖f_C(x_r) - f_C(x_f)‖²), of each image.
           L_GD = ½ ‖mean f_D(x_r) - mean f_D(x_p)‖².
           L_GC = ½ Σ_c ‖mean f_C(x_r | c) - mean f_C(x_p | c)‖².
           Features of real images are targets without gradient; G never sees -log D, which is the
           asymmetry.
Sampling   z ~ N(0, I), G(z, c) quantised, c given.
Notes      A minibatch lacks classes, so L_GC's means of real images are running ones (``fc_mean``,
           momentum 0.9, a class's first mean taken as it is), kept where C is trained, and its sum
           is over the classes that the minibatch holds. Means are over all processes' rows. Where
           ``encode`` and the methods that use it are given no label, it is C's. ``inpaint``
           completes with G(z, c), z ~ q(z | x, c) of the image completed so far, a few times over.
           Networks are those of zoo.nn.small with layer norm, and λ3 and λ4 larger than the paper's
           0.001, with which 400 steps on digits leave half of the draws to other classes.
           val/mse_ratio is the reconstruction's error over the mean image's; val/c_consistency the
           share of images G(z, c) that C finds to be of class c; val/diversity the mean squared
           difference of two draws of one class.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Label, Spec
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive
from zoo.nn.gaussian import kl_standard, reparameterise, soft_clamp
from zoo.nn.prior import Draw, Source, path
from zoo.nn.small import ConvDiscriminator, ConvGenerator
from zoo.registry import Paper, register


def half_square(a: Tensor, b: Tensor) -> Tensor:
    """½ ‖a - b‖² of each row, (B,)."""
    return 0.5 * (a - b).square().flatten(1).sum(1)


def class_sums(f: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_{i of class c} f_i, (classes, F), and the number of rows of each class, (classes,)."""
    return one_hot.T @ f, one_hot.sum(0)


# D's -log D(x_r) and -log(1 - D(x)); G never sees -log D, which is the asymmetry.
TELLS_APART = Loss(real=lambda s: F.softplus(-s), fake=F.softplus)


@register(
    "cvae_gan",
    paper=Paper(
        "Bao, Chen, Wen, Li, Hua",
        "CVAE-GAN: Fine-Grained Image Generation through Asymmetric Training",
        2017,
        "1703.10155",
    ),
    about="a conditional variational auto-encoder whose decoder also matches mean features of a "
    "discriminator and a classifier",
    taxonomy="hybrid",
    likelihood="none",
    can={"sample", "encode", "decode", "reconstruct", "interpolate", "inpaint", "classify"},
    told=("y",),
    data="digits",
    learns=(
        ("val/c_consistency", ">", 0.9),
        ("val/mse_ratio", "<", 0.2),
        ("val/c_accuracy", ">", 0.9),
        ("val/is_pixels", ">", 5.0),
        ("val/fid_pixels", "<", 0.3),
    ),
    waive={
        "accumulation_equals_one_batch": "the mean features that are matched are those of a "
        "micro-batch"
    },
)
class CVAEGAN(AdversarialModule):
    """See the module's docstring.

    Args:
        spec: labelled images, height and width multiples of 4 and at least 8.
        latent: dimension of z. width: filters of the first layer of E, D and C, and of G's last
            hidden one. kernel: 4 or 5.
        norm: of all networks, "layer", "batch" or "none".
        lambda_kl, lambda_g, lambda_gd, lambda_gc: λ1, λ2, λ3, λ4. momentum: of the running class
            means.
        lr: of each network's optimiser. beta1: Adam's first decay. loop: options of the adversarial
            loop.
    """

    watches = ("kl", "l_g")
    accepts = {"x": Image, "y": Label}
    fc_mean: Tensor
    fc_seen: Tensor
    mean_image: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count = 16,
        width: Count = 16,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "layer",
        lambda_kl: NonNegative = 3.0,
        lambda_g: NonNegative = 1.0,
        lambda_gd: NonNegative = 0.03,
        lambda_gc: NonNegative = 0.03,
        momentum: Decay = 0.9,
        lr: Positive = 5e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        if spec.num_classes == 1:
            raise ValueError(f"cvae_gan tells classes, got one class in {spec}; choose more")
        self.latent, self.momentum, self.lr, self.beta1 = latent, momentum, lr, beta1
        self.lambda_kl, self.lambda_g = lambda_kl, lambda_g
        self.lambda_gd, self.lambda_gc = lambda_gd, lambda_gc
        k, (channels, *sides) = spec.num_classes, spec.shape
        maps = (channels + k, *sides)
        self.encoder = ConvDiscriminator(maps, width, kernel, norm, outputs=2 * latent)
        self.g = ConvGenerator(latent + k, spec.shape, width, kernel, norm)
        self.d = Adversary(self, ConvDiscriminator(spec.shape, width, kernel, norm), TELLS_APART)
        self.classifier = ConvDiscriminator(spec.shape, width, kernel, norm, outputs=k)
        _, inputs, *base = self.classifier.end.weight.shape
        self.register_buffer("fc_mean", torch.zeros(k, inputs * base[0] * base[1]))
        self.register_buffer("fc_seen", torch.zeros(k, dtype=torch.bool))
        self.register_buffer("mean_image", torch.zeros(spec.shape))  # in [-1, 1]

    def initialise_from(self, batch: Batch) -> None:
        self.mean_image.copy_(self.spec.to_signed(batch["x"]).mean(0))

    # -- networks ---------------------------------------------------------------------------------
    def one_hot(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.spec.num_classes).to(self.float_dtype)

    def posterior(self, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ², (B, latent) each, of images in [-1, 1] and one-hot classes, which E sees as
        constant maps.
        """
        maps = c[:, :, None, None].expand(*c.shape, *v.shape[2:])
        mu, log_var = self.encoder(torch.cat([v, maps], 1)).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def generate(self, z: Tensor, c: Tensor) -> Tensor:
        """G(z, c) in [-1, 1]; c one-hot."""
        return self.g(torch.cat([z.to(c.dtype), c], 1))

    def f_d(self, v: Tensor) -> Tensor:
        """f_D of what D sees in training, (B, F)."""
        return self.d.net.features(self.d.noisy(v)).flatten(1)

    def f_c(self, v: Tensor) -> Tensor:
        """(B, F)."""
        return self.classifier.features(v).flatten(1)

    # -- losses -----------------------------------------------------------------------------------
    def pairwise(self, v: Tensor, made: Tensor) -> Tensor:
        """L_G, (B,)."""
        with torch.no_grad():
            target_d, target_c = self.f_d(v), self.f_c(v)
        return (
            half_square(v, made)
            + half_square(target_d, self.f_d(made))
            + half_square(target_c, self.f_c(made))
        )

    def mean_matching(self, f_real: Tensor, f_made: Tensor) -> Tensor:
        """L_GD from f_D of real images (a target) and of x_p, (B, F) each."""
        target = self.reduce(f_real.detach().mean(0))
        return 0.5 * (target - self.shared_mean(f_made.mean(0))).square().sum()

    def class_matching(self, f_made: Tensor, c: Tensor) -> Tensor:
        """L_GC from f_C of x_p, (B, F), and its one-hot classes, against the running means of real
        images.
        """
        sums, counts = class_sums(f_made, c)
        counts = self.reduce(counts.clone())
        means = self.shared_mean(sums) / counts.clamp(min=1e-9)[:, None]
        apart = (self.fc_mean - means).square().sum(1)
        return 0.5 * (apart * (self.fc_seen & (counts > 0))).sum()

    @torch.no_grad()
    def remember(self, f: Tensor, c: Tensor) -> None:
        """Move the running class means towards those of f_C of real images, (B, F)."""
        sums, counts = (self.reduce(v) for v in class_sums(f, c))
        here = counts > 0
        means = (sums / counts.clamp(min=1e-9)[:, None]).to(self.fc_mean.dtype)
        mixed = self.momentum * self.fc_mean + (1 - self.momentum) * means
        moved = torch.where(self.fc_seen[:, None], mixed, means)
        self.fc_mean.copy_(torch.where(here[:, None], moved, self.fc_mean))
        self.fc_seen |= here

    def classifier_loss(self, batch: Batch) -> Terms:
        f = self.classifier.features(self.spec.to_signed(batch["x"]))
        logits = self.classifier.end(f).flatten(1)
        self.remember(f.detach().flatten(1), self.one_hot(batch["y"]))
        return {
            "loss": F.cross_entropy(logits, batch["y"]),
            "c_acc": (logits.argmax(1) == batch["y"]).float().mean(),
        }

    @torch.no_grad()
    def made(self, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x_f and x_p, without gradient."""
        mu, log_var = self.posterior(v, c)
        z = reparameterise(mu, log_var, self.noise.normal_like(mu))
        z_p = self.noise.normal_like(mu)
        return self.generate(z, c), self.generate(z_p, c)

    def discriminator_loss(self, batch: Batch) -> Terms:
        v = self.spec.to_signed(batch["x"])
        x_f, x_p = (self.d.stored(x) for x in self.made(v, self.one_hot(batch["y"])))
        real, recon, prior = self.d.judged((v,), x_f, x_p)
        on_real, on_recon = self.d.prices(real, recon)
        _, on_prior = self.d.prices(real, prior)
        loss = (on_real + on_recon + on_prior).mean()
        right_real, right_fake = (real > 0).float().mean(), (prior < 0).float().mean()
        terms = {"loss": loss, "d_acc_real": right_real, "d_acc_fake": right_fake}
        return self.d.regularised(terms, v)

    def generator_loss(self, batch: Batch) -> Terms:
        v, c = self.spec.to_signed(batch["x"]), self.one_hot(batch["y"])
        with torch.no_grad():
            mu, log_var = self.posterior(v, c)
            z = reparameterise(mu, log_var, self.noise.normal_like(mu))
            real = self.f_d(v)
        pair = self.pairwise(v, self.generate(z, c)).mean()
        x_p = self.generate(self.noise.normal_like(mu), c)
        gd = self.mean_matching(real, self.f_d(x_p))
        gc = self.class_matching(self.f_c(x_p), c)
        return {
            "loss": self.lambda_g * pair + self.lambda_gd * gd + self.lambda_gc * gc,
            "l_gd": gd,
            "l_gc": gc,
        }

    def encoder_loss(self, batch: Batch) -> Terms:
        v, c = self.spec.to_signed(batch["x"]), self.one_hot(batch["y"])
        mu, log_var = self.posterior(v, c)
        z = reparameterise(mu, log_var, self.noise.normal_like(mu))
        pair = self.pairwise(v, self.generate(z, c)).mean()
        kl = kl_standard(mu, log_var).sum(1).mean()
        return {"loss": self.lambda_kl * kl + self.lambda_g * pair, "kl": kl, "l_g": pair}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        return {"c": self.classifier, "d": self.d, "g": self.g, "e": self.encoder}

    def phases(self) -> list[Phase]:
        both = ("x", "y")
        return [
            Phase("c", self.classifier_loss, both),
            Phase("d", self.discriminator_loss, both, critic=True),
            Phase("g", self.generator_loss, both),
            Phase("e", self.encoder_loss, both),
        ]

    # -- use --------------------------------------------------------------------------------------
    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of N(0, I), (n, latent)."""
        return source.normal(n, self.latent)

    def from_codes(self, z: Tensor, *, y: Tensor) -> Tensor:
        """``decode``."""
        return self.decode(z, y=y)

    @torch.no_grad()
    def sample(self, n: int, *, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        return self.decode(self.draw_codes(n, source), y=y)

    def classify(self, x: Tensor) -> Tensor:
        """P(c | x), (B, classes), by C."""
        return self.classifier(self.spec.to_signed(x)).softmax(1)

    def _class(self, x: Tensor, y: Tensor | None) -> Tensor:
        """One-hot label, by C where none is given."""
        return self.one_hot(self.classify(x).argmax(1) if y is None else y)

    def encode(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        """μ(x, c), (B, latent)."""
        return self.posterior(self.spec.to_signed(x), self._class(x, y))[0]

    def decode(self, z: Tensor, *, y: Tensor) -> Tensor:
        """G(z, c) in levels, from labels, (B,), or mixed ones, (B, classes)."""
        return self.spec.from_signed(self.generate(z, self.one_hot(y) if y.ndim == 1 else y))

    def reconstruct(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        c = self._class(x, y)
        return self.decode(self.posterior(self.spec.to_signed(x), c)[0], y=c)

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), along the line between codes and between classes."""
        first, last = (torch.cat([self.encode(x), self._class(x, None)], 1) for x in (a, b))
        both = path("uniform", first, last, frames).flatten(0, 1)
        z, c = both.split([self.latent, self.spec.num_classes], 1)
        return self.decode(z, y=c).view(len(a), frames, *self.spec.shape)

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        known: Tensor,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
        rounds: int = 10,
    ) -> Tensor:
        """x completed where ``known`` is False, by ``rounds`` of encoding, drawing z and decoding,
        from noise at the start.
        """
        source = Draw(generator, self.device, self.float_dtype)
        v = self.spec.to_signed(x)
        made = source.uniform(*v.shape, low=-1.0)
        for _ in range(rounds):
            now = torch.where(known, v, made)
            c = self.one_hot(self.classifier(now).argmax(1) if y is None else y)
            mu, log_var = self.posterior(now, c)
            made = self.generate(reparameterise(mu, log_var, source.normal(*mu.shape)), c)
        return torch.where(known, x, self.spec.from_signed(made))

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        y, n = batch["y"], batch.n
        v, c = self.spec.to_signed(batch["x"]), self.one_hot(y)
        source = Draw(generator, self.device, self.float_dtype)
        mu, log_var = self.posterior(v, c)
        mse = (self.generate(mu, c) - v).square().flatten(1).mean(1)
        drawn, other = (self.generate(self.draw_codes(n, source), c) for _ in range(2))
        values = {
            "kl": kl_standard(mu, log_var).sum(1),
            "mse": mse / 4,
            "mse_ratio": mse / (self.mean_image - v).square().flatten(1).mean(1),
            "diversity": (drawn - other).square().flatten(1).mean(1) / 4,
        }
        shares = {
            "c_accuracy": self.classifier(v).argmax(1) == y,
            "c_consistency": self.classifier(drawn).argmax(1) == y,
            "d_acc_real": self.d(v) > 0,
            "d_acc_prior": self.d(drawn) < 0,
        }
        return values | {name: share.to(mse.dtype) for name, share in shares.items()}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return {
            p: torch.optim.Adam(self.parameters_of(p), self.lr, (self.beta1, 0.999))
            for p in self.players()
        }
