"""ALI: a stochastic encoder and a generator, matched as joint distributions by a game.

Paper      Dumoulin, Belghazi, Poole, Mastropietro, Lamb, Arjovsky, Courville. Adversarially Learned
           Inference. ICLR 2017. arXiv:1606.00704.
Model      Two joints of image and code: q(x, z) = p(x) N(z; μ(x), σ²(x)) by an encoder, and
           p(x, z) = N(z; 0, I) δ(x - G(z)). D(x, z) = σ(s(x, z)) is the probability that a pair
           came from q.
Objective  With ẑ = μ(x) + σ(x) ε and x̃ = G(z), from logits s:
           D:  -E log D(x, ẑ) - E log(1 - D(x̃, z)), all four without gradient.
           G and E, in one optimiser:
               E -log(1 - D(x, ẑ)) + E -log D(x̃, z) (g_loss="nonsat", labels swapped), or
               E log D(x, ẑ) + E log(1 - D(x̃, z)) (g_loss="minimax");
               E learns from the first pair alone, through ẑ, G from the second alone.
           For given joints the best s is log q(x, z)/p(x, z). There is no loss of reconstruction.
           ``labels``: D has K logits l as in section 2.6, s = log Σ e^l, and pays
           -log softmax(l)_y of (x, ẑ) for labelled rows besides.
Sampling   z ~ N(0, I), G(z) quantised. ``encode`` is μ(x), ``encode_draw`` a draw of q(z | x),
           ``reconstruct`` G(μ(x)).
Logs       train/jsd_bound; val/recon_mse, val/recon_permuted, val/code_gain, val/d_acc_real; with
           labels val/acc.
Notes      D's step is of the pairs of the makers' step with ``simultaneous``, as in the authors'
           code; by default they take turns, with new pairs. ``arch="paper"`` has the authors'
           networks for 32x32 colour: no padding, maxout and dropout in D, batch norm in G and E but
           none in D, the image's last bias at the log-odds of the mean image. The small networks
           are MLPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, FewLabels, JointModule, LoopOptions, Loss, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Norm, Positive, Prior, Whole
from zoo.nn.adversarial_losses import divergence
from zoo.nn.gaussian import reparameterise, soft_clamp
from zoo.nn.joint import JointDiscriminator, perceptron
from zoo.nn.prior import Draw
from zoo.nn.small import logits
from zoo.registry import Paper, register

# -log D, -log(1 - D), from logits s of pairs; makers pay for both kinds of pair.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}
SLOPE = 0.1  # of leaky ReLU
DOWN = ((5, 1, 32), (4, 2, 64), (4, 1, 128), (4, 2, 256), (4, 1, 512))  # kernel, stride, maps
UP = ((4, 1, 256), (4, 2, 128), (4, 1, 64), (4, 2, 32), (5, 1, 32))


def realness(out: Tensor) -> Tensor:
    """s, (B,), of D's output: itself, or log Σ e^l of K logits."""
    return out if out.ndim == 1 else out.logsumexp(1)


class MaxoutConv(nn.Module):
    """The larger of two convolutions, after dropout."""

    def __init__(self, a: int, b: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.drop, self.conv = nn.Dropout(dropout), nn.Conv2d(a, 2 * b, kernel, stride)

    def forward(self, v: Tensor) -> Tensor:
        return torch.maximum(*self.conv(self.drop(v)).chunk(2, 1))


class ConvDiscriminator(nn.Module):
    """The authors' D for 32x32: a branch of each input, then both: (B,), or (B, outputs)."""

    def __init__(self, channels: int, latent: int, outputs: int) -> None:
        super().__init__()
        maps = [channels, *(m for *_, m in DOWN)]
        self.of_x = nn.Sequential(
            *(
                MaxoutConv(a, b, kernel, stride, 0.5 if i else 0.2)
                for i, (a, (kernel, stride, b)) in enumerate(zip(maps[:-1], DOWN, strict=True))
            )
        )
        self.of_z = nn.Sequential(
            MaxoutConv(latent, 512, 1, 1, 0.2), MaxoutConv(512, 512, 1, 1, 0.5)
        )
        self.both = nn.Sequential(
            MaxoutConv(1024, 1024, 1, 1, 0.5), MaxoutConv(1024, 1024, 1, 1, 0.5)
        )
        self.end = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(1024, outputs))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = torch.cat([self.of_x(x), self.of_z(z[:, :, None, None])], 1)
        return logits(self.end(self.both(h)))


def conv_encoder(channels: int, latent: int) -> nn.Sequential:
    """The authors' encoder for 32x32, to (μ, log σ²), (B, 2 latent)."""
    maps_in = [channels, *(m for *_, m in DOWN)]
    layers: list[nn.Module] = []
    for a, (kernel, stride, b) in zip(maps_in, [*DOWN, (1, 1, 512)], strict=True):
        layers += [nn.Conv2d(a, b, kernel, stride, bias=False), nn.BatchNorm2d(b, momentum=0.05)]
        layers += [nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Conv2d(512, 2 * latent, 1), nn.Flatten())


def conv_generator(channels: int, latent: int) -> nn.Sequential:
    """The authors' decoder for 32x32, to logits of pixels."""
    maps_in = [latent, *(m for *_, m in UP)]
    layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1))]
    for a, (kernel, stride, b) in zip(maps_in, [*UP, (1, 1, 32)], strict=True):
        layers += [nn.ConvTranspose2d(a, b, kernel, stride, bias=False)]
        layers += [nn.BatchNorm2d(b, momentum=0.05), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, channels, 1))


class Generator(nn.Module):
    """z -> (B, *shape), images in (0, 1)."""

    def __init__(self, net: nn.Sequential, shape: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.end: nn.Module = nn.Sigmoid() if len(shape) == 3 else nn.Identity()
        self.shape = tuple(shape)

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self.net(z).reshape(-1, *self.shape))


@register(
    "ali",
    paper=Paper(
        "Dumoulin, Belghazi, Poole, Mastropietro, Lamb, Arjovsky, Courville",
        "Adversarially Learned Inference",
        2017,
        "1606.00704",
    ),
    about="a stochastic encoder and a generator, whose joint distributions of image and code a "
    "discriminator cannot tell apart",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "encode", "decode", "reconstruct", "interpolate", "classify"},
    data="digits",
    learns=(
        ("val/code_gain", ">", 0.035),
        ("val/recon_mse", "<", 0.06),
        ("val/is_pixels", ">", 3.5),
    ),
    waive={
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class ALI(FewLabels, JointModule):
    """See the module's docstring.

    Args:
        spec: vectors or images; 32x32 for "paper".
        arch: "small" or "paper". latent: dimension of z. width: hidden units of the small networks.
            norm: of G and E, "none", "layer" or "batch".
        labels: rows whose labels are read, equally many of each class; 0 is none.
        prior: "normal", "uniform" or "sphere". g_loss: "nonsat" or "minimax".
        simultaneous: G and E, and D, step from the same pairs and weights; else in turn.
        k: discriminator steps per step of the makers, 1 where they are simultaneous. lr_d: learning
            rate of D. lr_g: of G and E. beta1: Adam's first decay. loop: options of the adversarial
            loop.
    """

    watches = ("jsd_bound",)
    g: Generator

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "paper"] = "small",
        latent: Count = 8,
        width: Count = 256,
        norm: Norm = "batch",
        labels: Whole = 0,
        prior: Prior = "normal",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        simultaneous: bool = False,
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
            unit=spec.has(x=Image),
        )
        self.play(simultaneous)
        self.use_labels(labels or None)
        if labels and not spec.num_classes:
            raise ValueError(
                f"ali's labels are of data that have them, got {spec}; leave them at 0"
            )
        outputs = spec.num_classes if labels else 1
        if arch == "small":
            g = perceptron(latent, spec.dim, width, norm, SLOPE)
            self.e = nn.Sequential(
                nn.Flatten(), *perceptron(spec.dim, 2 * latent, width, norm, SLOPE)
            )
            d: nn.Module = JointDiscriminator(spec.shape, latent, width, outputs)
        else:
            if spec.shape[1:] != (32, 32):
                raise ValueError(
                    f"ali with arch=paper takes images of 32x32, got {spec}; resize them, e.g. "
                    "--data.size=32, or leave arch at small"
                )
            g, self.e = conv_generator(spec.shape[0], latent), conv_encoder(spec.shape[0], latent)
            d = ConvDiscriminator(spec.shape[0], latent, outputs)
            for m in (m for net in (g, self.e, d) for m in net.modules()):
                if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                    nn.init.normal_(m.weight, 0.0, 0.01)
        self.g = Generator(g, spec.shape)
        self.d = Adversary(
            self,
            d,
            LOSSES[g_loss],
            inputs=[spec.shape, (latent,)],
            realness=realness,
            watch=lambda a, b: divergence(realness(a), realness(b)),
        )
        self.reads = ("x", "y") if labels else ("x",)

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """The labelled rows; G's last bias at the log-odds of the mean image."""
        FewLabels.initialise_from(self, batch)
        if self.unit:
            mean = self.scaled(batch["x"]).mean(0).clamp(0.01, 0.99)
            end: Any = self.g.net[-1]  # of all pixels, or of channels
            odds = torch.logit(mean if isinstance(end, nn.Linear) else mean.mean((1, 2)))
            end.bias.copy_(odds.flatten())

    # -- codes ------------------------------------------------------------------------------------
    def posterior(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ², (B, latent) each, of scaled examples."""
        mu, log_var = self.e(v).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def code(self, v: Tensor) -> Tensor:
        mu, log_var = self.posterior(v)
        return reparameterise(mu, log_var, self.noise.normal_like(mu))

    def mean_code(self, v: Tensor) -> Tensor:
        return self.posterior(v)[0]

    @torch.no_grad()
    def encode_draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw of q(z | x) for each example, (B, latent)."""
        mu, log_var = self.posterior(self.scaled(x))
        eps = Draw(generator, self.device, self.float_dtype).normal(*mu.shape)
        return reparameterise(mu, log_var, eps)

    # -- losses -----------------------------------------------------------------------------------
    def judge_loss(self, v: Tensor, enc: Tensor, made: Tensor, z: Tensor, batch: Batch) -> Terms:
        real, fake = self.d.both((v, enc), (made, z))
        s_real, s_fake = realness(real), realness(fake)
        terms = {"loss": self.d.cost(s_real, s_fake), **self.d.watch(real, fake)}
        if self.labels:
            terms["sup"] = self.label_cost(real, batch)
            terms["loss"] = terms["loss"] + terms["sup"]
        return self.d.regularised(terms, v, enc)

    def pairs_loss(self, v: Tensor, enc: Tensor, made: Tensor, z: Tensor) -> Terms:
        maker = self.d.price.maker
        s_enc, s_made = (realness(self.d.see(*pair)) for pair in ((v, enc), (made, z)))
        # The encoder pays as a maker does, its sign turned.
        return {"loss": maker(-s_enc).mean() + maker(s_made).mean()}

    # -- use --------------------------------------------------------------------------------------
    def classify(self, x: Tensor) -> Tensor:
        """P(y | x), (B, num_classes), of D on (x, μ(x)).

        Raises:
            ValueError: no labels were asked for.
        """
        if not self.labels:
            raise ValueError("ali has no classifier without labels; set model.labels, e.g. to 100")
        v = self.scaled(x)
        return self.d(v, self.mean_code(v)).softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        values = super().evaluate(batch, generator)
        if self.labels:
            right = self.classify(batch["x"]).argmax(1) == batch["y"]
            values["acc"] = right.to(self.float_dtype)
        return values
