"""VAE/GAN: a variational auto-encoder whose likeness is measured in a discriminator's features.

Paper      Larsen, Sønderby, Larochelle, Winther. Autoencoding beyond pixels using a learned
           similarity metric. ICML 2016. arXiv:1512.09300.
Model      q(z | x) = N(μ(x), σ²(x)) by Enc; x̃ = Dec(z), z ~ q(z | x);
           x_p = Dec(z_p), z_p ~ N(0, I). Dis_l is Dis's last strided convolution, before its norm
           and activation.
Objective  L_prior = KL(q(z | x) ‖ N(0, I)),
           L_llike = ½ ‖Dis_l(x) - Dis_l(x̃)‖² summed over features, Dis_l(x) without gradient,
           L_GAN = log Dis(x) + log(1 - Dis(x̃)) + log(1 - Dis(x_p)).
           Dis:  -L_GAN alone; L_llike would shrink its features to nothing. x̃, x_p without
                 gradient.
           Dec:  γ L_llike + log(1 - Dis(x̃)) + log(1 - Dis(x_p)) (g_loss="minimax"), or the two
                 terms as -log Dis ("nonsat").
           Enc:  L_prior + L_llike, through Dis and Dec but never into them; L_GAN never reaches
                 Enc.
Controller With a ``margin``: a cycle's costs, -log Dis(x) and the mean of -log(1 - Dis(x̃)) and
           -log(1 - Dis(x_p)), averaged over processes, say who skips the next cycle's step: Dis if
           either is below equilibrium - margin, Dec if either is above equilibrium + margin;
           neither, if both would. A buffer, as are the counts of skipped steps.
Sampling   z ~ N(0, I), Dec(z) quantised. Reconstruction: Dec(μ(x)).
Notes      L_llike is an unnormalised gaussian in the features of a network that learns, so nothing
           here is a likelihood. The order of play is Dis, Dec, Enc, each with its own minibatch,
           noise and forward pass, where the authors' code takes all gradients from one, and lets
           this cycle's costs decide. The paper's algorithm prints γ L_llike - L_GAN for Dec, which
           is right if L_GAN is Dis's cross-entropy there. ``real_weight`` weighs -log Dis(x), as
           the authors' code does. x, x̃ and x_p pass through Dis separately. The default normalises
           layers, so that rows do not interact; norm="batch" is the paper's. val/llike_ratio,
           val/mse_ratio: errors of the reconstruction over those of the training data's mean image,
           of each example. val/d_acc: the mean of Dis's accuracies on x and on x_p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Factor, NonNegative, Norm, Positive, Whole
from zoo.nn.gaussian import kl_standard, reparameterise, soft_clamp
from zoo.nn.prior import Draw, Source, path
from zoo.nn.small import logits
from zoo.registry import Paper, register


def normed(norm: str, width: int, dims: int = 2) -> nn.Module:
    """The norm of maps (dims=2) or units (dims=0), then ReLU."""
    layers: dict[str, nn.Module] = {"none": nn.Identity()}
    layers["layer"] = nn.GroupNorm(1, width)
    layers["batch"] = nn.BatchNorm2d(width) if dims else nn.BatchNorm1d(width)
    return nn.Sequential(layers[norm], nn.ReLU())


def strided(widths: Sequence[int]) -> list[nn.Conv2d]:
    return [nn.Conv2d(a, b, 5, 2, 2) for a, b in zip(widths[:-1], widths[1:], strict=True)]


class Encoder(nn.Module):
    """5x5 convolutions of stride 2, a hidden layer, then (μ, log σ²), (B, 2 latent)."""

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int], hidden: int, latent: int, norm: str
    ) -> None:
        super().__init__()
        c, h, w = shape
        convs: list[nn.Module] = []
        for conv in strided([c, *widths]):
            convs += [conv, normed(norm, conv.out_channels)]
        area = (h >> len(widths)) * (w >> len(widths))
        self.net = nn.Sequential(
            *convs,
            nn.Flatten(),
            nn.Linear(widths[-1] * area, hidden),
            normed(norm, hidden, 0),
            nn.Linear(hidden, 2 * latent),
        )

    def forward(self, v: Tensor) -> Tensor:
        return self.net(v)


class Decoder(nn.Module):
    """A linear layer to maps, 5x5 transposed convolutions of stride 2, a 5x5 convolution to the
    image, tanh.
    """

    def __init__(
        self, shape: Sequence[int], start: int, widths: Sequence[int], latent: int, norm: str
    ) -> None:
        super().__init__()
        c, h, w = shape
        base = (start, h >> len(widths), w >> len(widths))
        self.project = nn.Sequential(
            nn.Linear(latent, base[0] * base[1] * base[2]),
            nn.Unflatten(1, base),
            normed(norm, start),
        )
        ups = [
            nn.ConvTranspose2d(a, b, 5, 2, 2, 1)
            for a, b in zip([start, *widths[:-1]], widths, strict=True)
        ]
        self.net = nn.Sequential(
            *(m for up in ups for m in (up, normed(norm, up.out_channels))),
            nn.Conv2d(widths[-1], c, 5, 1, 2),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(self.project(z))


class Discriminator(nn.Module):
    """A 5x5 convolution of stride 1, 5x5 convolutions of stride 2, a hidden layer, a logit."""

    def __init__(self, shape: Sequence[int], widths: Sequence[int], hidden: int, norm: str) -> None:
        super().__init__()
        c, h, w = shape
        down = strided(widths)
        between = [m for conv in down[:-1] for m in (conv, normed(norm, conv.out_channels))]
        self.to_features = nn.Sequential(
            nn.Conv2d(c, widths[0], 5, 1, 2), nn.ReLU(), *between, down[-1]
        )
        area = (h >> len(down)) * (w >> len(down))
        self.verdict = nn.Sequential(
            normed(norm, widths[-1]),
            nn.Flatten(),
            nn.Linear(widths[-1] * area, hidden),
            normed(norm, hidden, 0),
            nn.Linear(hidden, 1),
        )

    def features(self, v: Tensor) -> Tensor:
        """Dis_l(v), (B, maps, h, w)."""
        return self.to_features(v)

    def forward(self, v: Tensor) -> Tensor:
        """Logits, (B,)."""
        return logits(self.verdict(self.to_features(v)))


def llike(target: Tensor, features: Tensor) -> Tensor:
    """L_llike = ½ ‖Dis_l(x) - Dis_l(x̃)‖², (B,); no gradient through the target Dis_l(x)."""
    return 0.5 * (target.detach() - features).square().flatten(1).sum(1)


def who_skips(real: Tensor, fake: Tensor, equilibrium: float, margin: float) -> Tensor:
    """Whether Dis and whether Dec skips its step at these costs, two booleans."""
    costs = torch.stack([real, fake])
    low, high = costs < equilibrium - margin, costs > equilibrium + margin
    skips = torch.stack([low.any(), high.any()])
    return skips & ~skips.all()


# -log Dis(x), -log(1 - Dis(x̃)), and what Dec pays, -log Dis(x̃) or log(1 - Dis(x̃)); s the logit.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "vaegan",
    paper=Paper(
        "Larsen, Sønderby, Larochelle, Winther",
        "Autoencoding beyond pixels using a learned similarity metric",
        2016,
        "1512.09300",
    ),
    about="a variational auto-encoder that measures its reconstructions in a discriminator's "
    "features",
    taxonomy="hybrid",
    likelihood="none",
    can={"sample", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(
        ("val/llike_ratio", "<", 0.3),
        ("val/mse_ratio", "<", 0.4),
        ("val/d_acc", "<", 0.9),
        ("val/coverage_pixels", ">", 0.28),
        ("val/fid_pixels", "<", 0.5),
    ),
)
class VAEGAN(AdversarialModule):
    """See the module's docstring.

    Args:
        spec: images, sides multiples of 2 to the number of strided convolutions.
        latent: dimension of z. enc, dec, dis: maps of the convolutions of each network, Dis's first
            of stride 1; the number of strided ones is that of halvings. enc_hidden, dis_hidden:
            units of the hidden layers. norm: "layer", "batch" or "none".
        gamma: γ, the weight of L_llike for Dec. real_weight: of -log Dis(x) for Dis. g_loss:
            "minimax" or "nonsat".
        margin: of the controller around ``equilibrium``, the cost of an undecided Dis; None is off.
        lr: of each network's optimiser. optimiser: "adam" or "rmsprop". beta1: Adam's first decay.
        decay, decay_every: factor of all rates, and cycles after which it is applied; 0 is never.
        loop: options of the adversarial loop.
    """

    watches = ("llike", "kl")
    accepts = {"x": Image}
    mean_image: Tensor
    skips: Tensor
    skipped: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count = 16,
        enc: Sequence[Count] = (16, 32),
        dec: Sequence[Count] = (32, 16),
        dis: Sequence[Count] = (16, 32, 32),
        enc_hidden: Count = 128,
        dis_hidden: Count = 128,
        norm: Norm = "layer",
        gamma: NonNegative = 0.1,
        real_weight: NonNegative = 1.0,
        g_loss: Literal["nonsat", "minimax"] = "minimax",
        margin: Positive | None = None,
        equilibrium: NonNegative = 0.68,
        lr: Positive = 5e-4,
        optimiser: Literal["adam", "rmsprop"] = "adam",
        beta1: Decay = 0.5,
        decay: Factor = 0.75,
        decay_every: Whole = 0,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        if not len(enc) == len(dec) == len(dis) - 1 > 0:
            raise ValueError(
                "vaegan: each network halves or doubles equally often: enc and dec n maps, dis "
                f"n + 1, got {enc}, {dec}, {dis}"
            )
        if any(side % (1 << len(enc)) for side in spec.shape[1:]):
            raise ValueError(
                f"vaegan halves the sides {len(enc)} times, got {spec}; resize the images, or give "
                "enc, dec, dis fewer maps"
            )
        self.latent, self.gamma, self.real_weight = latent, gamma, real_weight
        self.margin, self.equilibrium = margin, equilibrium
        self.optimiser, self.lr, self.beta1 = optimiser, lr, beta1
        self.decay, self.decay_every = decay, decay_every
        self.encoder = Encoder(spec.shape, enc, enc_hidden, latent, norm)
        self.decoder = Decoder(spec.shape, enc[-1], dec, latent, norm)
        self.d = Adversary(self, Discriminator(spec.shape, dis, dis_hidden, norm), LOSSES[g_loss])
        self.register_buffer("mean_image", torch.zeros(spec.shape))  # in [-1, 1]
        # whether Dis and whether Dec skips this cycle's step
        self.register_buffer("skips", torch.zeros(2, dtype=torch.bool))
        self.register_buffer("skipped", torch.zeros(2, dtype=torch.long))

    def initialise_from(self, batch: Batch) -> None:
        self.mean_image.copy_(self.spec.to_signed(batch["x"]).mean(0))

    # -- losses -----------------------------------------------------------------------------------
    def posterior(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ², (B, latent) each, of images in [-1, 1]."""
        mu, log_var = self.encoder(v).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def latents(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """z ~ q(z | x) and z_p ~ N(0, I), without gradient into Enc."""
        with torch.no_grad():
            mu, log_var = self.posterior(v)
            z = reparameterise(mu, log_var, self.noise.normal_like(mu))
            return z, self.noise.normal_like(mu)

    def features(self, v: Tensor) -> Tensor:
        """Dis_l of what Dis sees in training, (B, maps, h, w)."""
        return self.d.net.features(self.d.noisy(v))

    def discriminator_loss(self, batch: Batch) -> Terms:
        v = self.spec.to_signed(batch["x"])
        recon, prior = (self.d.stored(self.decoder(z)) for z in self.latents(v))
        s_real, s_recon, s_prior = self.d.judged((v,), recon, prior)
        on_real, on_recon = self.d.prices(s_real, s_recon)
        _, on_prior = self.d.prices(s_real, s_prior)
        cost_real, cost_recon, cost_prior = on_real.mean(), on_recon.mean(), on_prior.mean()
        terms = {
            "cost_real": cost_real,
            "cost_fake": 0.5 * (cost_recon + cost_prior),
            "d_real": s_real.sigmoid().mean(),
            "d_recon": s_recon.sigmoid().mean(),
            "d_prior": s_prior.sigmoid().mean(),
        }
        if self.margin is not None and self.skips[0]:
            return terms
        loss = self.real_weight * cost_real + cost_recon + cost_prior
        return self.d.regularised({"loss": loss, **terms}, v)

    def decoder_loss(self, batch: Batch) -> Terms:
        if self.margin is not None and self.skips[1]:
            return {}
        v = self.spec.to_signed(batch["x"])
        z, z_p = self.latents(v)
        recon, prior = self.decoder(z), self.decoder(z_p)
        like = llike(self.features(v), self.features(recon)).mean()
        gan = self.d.fool(recon) + self.d.fool(prior)
        return {"loss": self.gamma * like + gan, "gan": gan}

    def encoder_loss(self, batch: Batch) -> Terms:
        v = self.spec.to_signed(batch["x"])
        mu, log_var = self.posterior(v)
        recon = self.decoder(reparameterise(mu, log_var, self.noise.normal_like(mu)))
        like = llike(self.features(v), self.features(recon)).mean()
        kl = kl_standard(mu, log_var).sum(1).mean()
        return {"loss": kl + like, "kl": kl, "llike": like, "mse": (recon - v).square().mean() / 4}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        return {"d": self.d, "g": self.decoder, "e": self.encoder}

    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, critic=True),
            Phase("g", self.decoder_loss),
            Phase("e", self.encoder_loss),
        ]

    def after_cycle(self, terms: dict[str, Tensor]) -> None:
        if self.margin is None:
            return
        self.skipped += self.skips
        real, fake = self.reduce(torch.stack([terms["cost_real"], terms["cost_fake"]]))
        self.skips.copy_(who_skips(real, fake, self.equilibrium, self.margin))
        terms |= {"skipped_d": self.skipped[0].clone(), "skipped_g": self.skipped[1].clone()}

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.from_codes(self.draw_codes(n, Draw(generator, self.device, self.float_dtype)))

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of N(0, I), (n, latent)."""
        return source.normal(n, self.latent)

    def from_codes(self, z: Tensor) -> Tensor:
        """Dec(z) in levels."""
        return self.decode(z)

    def encode(self, x: Tensor) -> Tensor:
        """μ(x), (B, latent)."""
        return self.posterior(self.spec.to_signed(x))[0]

    def decode(self, z: Tensor) -> Tensor:
        """Dec(z) in levels."""
        return self.spec.from_signed(self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), decoded along the line from μ(a) to μ(b)."""
        z = path("uniform", self.encode(a), self.encode(b), frames)
        return self.decode(z.flatten(0, 1)).unflatten(0, (len(a), frames))

    def attribute(self, having: Tensor, lacking: Tensor) -> Tensor:
        """Mean code of the images that have an attribute minus that of those that lack it,
        (latent,) (section 4.2).
        """
        return self.encode(having).mean(0) - self.encode(lacking).mean(0)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        v = self.spec.to_signed(batch["x"])
        mu, log_var = self.posterior(v)
        z_p = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        recon, prior = self.decoder(mu), self.decoder(z_p)
        features = self.d.net.features
        target, plain = features(v), features(self.mean_image[None])
        like = llike(target, features(recon))
        mse = (recon - v).square().flatten(1).mean(1)
        right = [(self.d(u) > 0).to(mu.dtype) for u in (v, recon, prior)]
        accuracy = {
            "d_acc_real": right[0],
            "d_acc_recon": 1 - right[1],
            "d_acc_prior": 1 - right[2],
        }
        return {
            "kl": kl_standard(mu, log_var).sum(1),
            "llike": like,
            "llike_ratio": like / llike(target, plain),
            "mse": mse / 4,
            "mse_ratio": mse / (self.mean_image - v).square().flatten(1).mean(1),
            **accuracy,
            "d_acc": 0.5 * (accuracy["d_acc_real"] + accuracy["d_acc_prior"]),
        }

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        if self.optimiser == "rmsprop":
            return {p: torch.optim.RMSprop(self.parameters_of(p), self.lr) for p in self.players()}
        return {
            p: torch.optim.Adam(self.parameters_of(p), self.lr, (self.beta1, 0.999))
            for p in self.players()
        }

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.decay_every:
            return {}
        return {
            p: ExponentialLR(o, self.decay ** (1 / self.decay_every)) for p, o in optimisers.items()
        }
