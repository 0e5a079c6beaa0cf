"""CGAN: a conditional generative adversarial net; both players are told the class.

Paper      Mirza, Osindero. Conditional Generative Adversarial Nets. 2014. arXiv:1411.1784.
Model      x = G(z | y); D(v | y) = σ(s(v | y)) is the probability that v is real, given its class.
Objective  Equation 2, with the labels of real examples for the generated ones too, so that both
           sides have the data's marginal of y:
           D:  -E log D(x | y) - E log(1 - D(G(z_D | y) | y)), G(z_D | y) detached.
           G:  -E log D(G(z_G | y) | y) (g_loss="nonsat"), or
               E log(1 - D(G(z_G | y) | y)) (g_loss="minimax"), y of a minibatch of its own.
           mismatch=True adds to D's, of real examples with a wrong label,
               -E log(1 - D(x | y')), y' uniform over the other classes.
           For fixed G the optimum is s* = log p(x, y)/q(x, y): a right x with a wrong y is told
           from real.
Logs       train/jsd_bound = (log 4 - loss_d)/2 without the mismatched term, a lower bound of
           JSD(p(x, y)‖q(x, y)) in nats.
Sampling   z from the prior, y given, G(z | y) quantised.
Notes      ``arch="mlp"`` has the paper's shape: in G the code and the class each have a layer of
           rectified linear units, joined by a third; in D each a maxout layer, joined by a third;
           images in [0, 1]. ``arch="conv"`` gives the class to the convolutional pair of the zoo,
           to G beside z and to D as constant maps; images in [-1, 1]. ``dropout`` is before each
           layer that reads hidden units. ``optimiser="sgd"`` is the paper's training: the rate
           divided by ``lr_decay`` after every step, the momentum rising linearly to
           ``momentum_end``. Where a label is taken, mixed ones, (B, classes), are too.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Label, Spec, Vector
from zoo.core.options import Count, Decay, Dropped, Positive, Prior, Range
from zoo.nn.adversarial_losses import divergence
from zoo.nn.maxout import Maxout
from zoo.nn.prior import Draw, path
from zoo.nn.schedules import goodfellow
from zoo.nn.small import ConvDiscriminator, ConvGenerator, logits
from zoo.registry import Paper, register


class Generator(nn.Module):
    """(z, c) -> (B, *shape): a ReLU layer for each, joined by a third; sigmoid end for images,
    linear for vectors.
    """

    def __init__(
        self,
        latent: int,
        classes: int,
        shape: tuple[int, ...],
        widths: tuple[int, int, int],
        dropout: float,
    ) -> None:
        super().__init__()
        of_z, of_y, joined = widths
        self.of_z, self.of_y = (
            nn.Sequential(nn.Linear(latent, of_z), nn.ReLU()),
            nn.Sequential(nn.Linear(classes, of_y), nn.ReLU()),
        )
        end = [
            nn.Linear(joined, torch.Size(shape).numel()),
            *([nn.Sigmoid()] if len(shape) == 3 else []),
            nn.Unflatten(1, shape),
        ]
        self.joined = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(of_z + of_y, joined),
            nn.ReLU(),
            nn.Dropout(dropout),
            *end,
        )

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return self.joined(torch.cat([self.of_z(z), self.of_y(c)], 1))


class Discriminator(nn.Module):
    """(x, c) -> logits, (B,): a maxout layer for each, joined by a third."""

    def __init__(
        self,
        dim: int,
        classes: int,
        units: tuple[int, int, int],
        pieces: tuple[int, int, int],
        dropout: float,
    ) -> None:
        super().__init__()
        (of_x, of_y, joined), (k_x, k_y, k_joined) = units, pieces
        self.of_x, self.of_y = (
            nn.Sequential(nn.Flatten(), Maxout(dim, of_x, k_x)),
            Maxout(classes, of_y, k_y),
        )
        self.joined = nn.Sequential(nn.Dropout(dropout), Maxout(of_x + of_y, joined, k_joined))
        self.end = nn.Sequential(nn.Dropout(dropout), nn.Linear(joined, 1))

    def features(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, joined units)."""
        return self.joined(torch.cat([self.of_x(x), self.of_y(c)], 1))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return logits(self.end(self.features(x, c)))


class Joined(nn.Module):
    """A network of one input that is given the class too, as further entries of a code or constant
    maps of an image.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, v: Tensor, c: Tensor) -> Tensor:
        maps = c.view(*c.shape, *[1] * (v.ndim - 2)).expand(-1, -1, *v.shape[2:])
        return self.net(torch.cat([v, maps.to(v.dtype)], 1))


# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "cgan",
    paper=Paper("Mirza, Osindero", "Conditional Generative Adversarial Nets", 2014, "1411.1784"),
    about="both players are told the class, so that it can be asked for",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    told=("y",),
    data="digits",
    learns=(
        ("val/cond_acc_digitsnet", ">", 0.88),
        ("val/fid_pixels", "<", 0.5),
        ("val/precision_pixels", ">", 0.6),
    ),
)
class CGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: labelled vectors or images (with "conv": images, height and width multiples of 4, at
            least 8).
        arch: "mlp" or "conv".
        latent: dimension of z; None is that of the data for vectors and 32 for images. prior:
            "uniform", "normal" or "sphere".
        g_widths: units of G's layers for z, for the class, and for both. d_units: of D's for x, for
            the class, and for both.
        d_pieces: linear maps of a maxout unit in each of D's layers. dropout: the share of units
            dropped (mlp).
        width: filters before the image and after it (conv).
        g_loss: "nonsat" or "minimax". mismatch: whether real examples with wrong labels count as
            fake.
        k: discriminator steps per generator step. optimiser: "adam", or "sgd" for the paper's
            training.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay, or SGD's momentum at the
            start.
        lr_decay: what SGD's rates are divided by after each step. momentum_end: SGD's momentum
            after ``momentum_steps`` generator steps.
        loop: options of the adversarial loop.
    """

    watches = ("jsd_bound",)
    accepts = {"x": (Vector, Image), "y": Label}

    def __init__(
        self,
        spec: Spec,
        arch: Literal["mlp", "conv"] = "mlp",
        latent: Count | None = None,
        prior: Prior = "normal",
        g_widths: tuple[Count, Count, Count] = (64, 64, 128),
        d_units: tuple[Count, Count, Count] = (64, 32, 64),
        d_pieces: tuple[Count, Count, Count] = (3, 3, 3),
        dropout: Dropped = 0.0,
        width: Count = 32,
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        mismatch: bool = False,
        k: Count = 1,
        optimiser: Literal["adam", "sgd"] = "adam",
        lr_d: Positive = 1e-3,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        lr_decay: Annotated[float, Range(1)] = 1.00004,
        momentum_end: Decay = 0.7,
        momentum_steps: Count = 125_000,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if spec.num_classes == 1:
            raise ValueError(f"cgan is told the class, got one class in {spec}; choose more")
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
            unit=arch == "mlp",
        )
        self.mismatch, self.optimiser, self.lr_decay = mismatch, optimiser, lr_decay
        self.momentum_end, self.momentum_steps = momentum_end, momentum_steps
        classes, shape = spec.num_classes, spec.shape
        d: nn.Module
        if arch == "mlp":
            self.g = Generator(self.latent, classes, shape, g_widths, dropout)
            d = Discriminator(spec.dim, classes, d_units, d_pieces, dropout)
        else:
            spec.require("cgan with arch=conv", x=Image)
            self.g = Joined(ConvGenerator(self.latent + classes, shape, width, norm="layer"))
            d = Joined(ConvDiscriminator((shape[0] + classes, *shape[1:]), width))
        seen = [shape, (classes,)]
        self.d = Adversary(self, d, LOSSES[g_loss], inputs=seen, watch=divergence)

    def told_faults(self, name: str, value: Tensor) -> str:
        mixed = value.is_floating_point() and value.shape[1:] == (self.spec.num_classes,)
        return "" if mixed else super().told_faults(name, value)

    # -- losses -----------------------------------------------------------------------------------
    def one_hot(self, y: Tensor) -> Tensor:
        """Labels, (B,), or mixed ones as they are, (B, classes)."""
        return (F.one_hot(y, self.spec.num_classes) if y.ndim == 1 else y).to(self.float_dtype)

    def discriminator_loss(self, batch: Batch) -> Terms:
        x, c = self.scaled(batch["x"]), self.one_hot(batch["y"])
        real, fake = self.d.both((x, c), (self.g(self.codes(batch.n), c), c))
        terms = {"loss": self.d.cost(real, fake), **divergence(real, fake)}
        if self.mismatch:
            others = self.noise.integers(batch.n, high=self.spec.num_classes - 1)
            wrong = self.one_hot((batch["y"] + 1 + others) % self.spec.num_classes)
            s = self.d.see(x, wrong)
            terms["loss"] = terms["loss"] + F.softplus(s).mean()  # -log(1 - D(x | y'))
            terms["d_acc_mismatched"] = (s < 0).float().mean()
        return self.d.regularised(terms, x, c)

    def generator_loss(self, batch: Batch) -> Terms:
        c = self.one_hot(batch["y"])
        return {"loss": self.d.fool(self.g(self.codes(batch.n), c), c)}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, ("x", "y"), repeat=self.k, critic=True),
            Phase("g", self.generator_loss, ("y",)),
        ]

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor, *, y: Tensor) -> Tensor:
        """G(z | y) in the units of ``spec``, (B, *shape)."""
        return self.quantised(self.g(z, self.one_hot(y)))

    @torch.no_grad()
    def sample(self, n: int, *, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        return self.from_codes(self.draw_codes(n, source), y=y)

    @torch.no_grad()
    def interpolate(
        self, a: Tensor, b: Tensor, frames: int = 10, *, y: Tensor, to: Tensor | None = None
    ) -> Tensor:
        """Examples along the path between codes a and b, (B, latent), and along the line from
        classes y to classes ``to`` (None: the same), (B, frames, *shape).
        """
        z, first = path(self.prior, a, b, frames), self.one_hot(y)
        c = path("uniform", first, first if to is None else self.one_hot(to), frames)
        return self.from_codes(z.flatten(0, 1), y=c.flatten(0, 1)).unflatten(0, (len(a), frames))

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        if self.optimiser == "adam":
            return super().optimisers()
        return self.one_each(torch.optim.SGD, momentum=self.betas[0])

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if self.optimiser == "adam":
            return {}
        momenta = (self.betas[0], self.momentum_end)
        return goodfellow(optimisers, self.lr_decay, momenta, self.momentum_steps, self.steps_of)
