"""CC-GAN: in-painting teaches a discriminator, which learns to classify from few labels.

Paper      Denton, Gross, Fergus. Semi-Supervised Learning with Context-Conditional Generative
           Adversarial Networks. 2016. arXiv:1611.06430.
Model      m is 1 in a hole of the image and 0 around it. G, an encoder and decoder, is shown what
           is around the hole and makes a whole image; put in the hole it completes x:
           x_G = G((1 - m) ⊙ x, m),    x_I = (1 - m) ⊙ x + m ⊙ x_G.
           D has two heads on one trunk: s(v), the logit of v being real, and p(y | v).
Objective  In nats, (x_l, y_l) the labelled rows:
           D:  -E log D(x) - E log(1 - D(x_I)) - λ_c E log p(y_l | x_l), x_I detached.
           G:  -E log D(x_I) (g_loss="nonsat"), or E log(1 - D(x_I)) (g_loss="minimax"); no pixel
               loss.
           whole=True is CC-GAN²: half of what is made is x_G as G made it, so that
           log(1 - D(x_I)) is the mean of that and log(1 - D(x_G)), and G's likewise.
Logs       train/ce; val/hole_mse: squared error of held-out holes in [0, 1]; val/hole_mse_mean:
           that of the mean training image; val/hole_gain: how much less the first is than the
           second. Labelled: val/acc of p(y | x).
Sampling   None: it can only complete. ``inpaint`` gives x_I, which is x where known; there is no
           noise in G, so a hole has one completion.
Notes      A hole is one rectangle for each image, drawn anew in each step, its sides between the
           shares ``hole`` of the image's. ``low_res`` > 0 shows G also the whole image in blocks of
           so many pixels, whose hole it then knows coarsely (the paper's variant for large images);
           ``inpaint`` then reads x at such a resolution where it is not known. The labelled are as
           many training rows of each class, each standing for N/labels rows of the mean. "small" is
           the convolutional trunk of the zoo, with layer norm in G; "paper" is VGG-A without its
           fully connected layers, and batch norm in both. What the picture of a model draws from
           noise is not there: callbacks of samples say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import AdversarialModule, Adversary, FewLabels, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.likelihood import row_noise
from zoo.core.options import Count, Decay, NonNegative, Positive, Share, Whole
from zoo.nn import small
from zoo.registry import Paper, register

VGG_A = ((1,), (2,), (4, 4), (8, 8), (8, 8))  # filters before each pooling, in units of the width


def rectangles(u: Tensor, height: int, width: int, low: float, high: float) -> Tensor:
    """One hole for each row of uniform numbers u in [0, 1), (B, 4): m, (B, 1, H, W), 1 in a
    rectangle inside the image whose sides are low to high of the image's, at least one pixel.
    """
    inside = []
    for size, share, place in ((height, u[:, 0], u[:, 1]), (width, u[:, 2], u[:, 3])):
        side = (size * (low + (high - low) * share)).round().clamp(1, size)
        start = (place * (size - side + 1)).floor()
        at = torch.arange(size, device=u.device)
        inside.append((at >= start[:, None]) & (at < (start + side)[:, None]))
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(u.dtype)


def composite(x: Tensor, made: Tensor, m: Tensor) -> Tensor:
    """x_I: what was made inside the hole, x itself, to the last bit, around it."""
    return torch.where(m > 0, made, x)


def coarse(x: Tensor, block: int) -> Tensor:
    """x, (B, C, H, W), each block of so many pixels a side replaced by its mean."""
    return F.avg_pool2d(x, block).repeat_interleave(block, 2).repeat_interleave(block, 3)


class Generator(nn.Module):
    """What is known of an image, (B, inputs, H, W), to an image in (-1, 1): strided convolutions to
    a code, and transposed ones back.
    """

    def __init__(self, inputs: int, shape: Sequence[int], width: int, norm: str) -> None:
        super().__init__()
        channels, height, breadth = shape
        m = small.doublings(height, breadth)
        filters = [width << i for i in range(m)]
        base, top = (height >> m, breadth >> m), filters[-1]

        def normed(n: int) -> nn.Module:
            return nn.BatchNorm2d(n) if norm == "batch" else nn.GroupNorm(1, n)

        down: list[nn.Module] = []
        for i, (a, b) in enumerate(zip([inputs, *filters[:-1]], filters, strict=True)):
            down += [nn.Conv2d(a, b, 4, 2, 1), *([normed(b)] if i else []), nn.LeakyReLU(0.2)]
        self.down = nn.Sequential(*down, nn.Conv2d(top, 4 * width, base), nn.LeakyReLU(0.2))
        up: list[nn.Module] = [nn.ConvTranspose2d(4 * width, top, base), normed(top), nn.ReLU()]
        for a, b in zip(filters[:0:-1], filters[-2::-1], strict=True):
            up += [nn.ConvTranspose2d(a, b, 4, 2, 1), normed(b), nn.ReLU()]
        self.up = nn.Sequential(*up, nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())

    def forward(self, v: Tensor) -> Tensor:
        return self.up(self.down(v))


def vgg(shape: Sequence[int], width: int) -> tuple[nn.Module, int]:
    """VGG-A without its fully connected layers, and how many features it gives."""
    layers: list[nn.Module] = []
    inputs = shape[0]
    for block in VGG_A:
        for times in block:
            out = times * width
            layers += [nn.Conv2d(inputs, out, 3, 1, 1), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]
            inputs = out
        layers.append(nn.MaxPool2d(2))
    cells = (shape[1] >> len(VGG_A)) * (shape[2] >> len(VGG_A))
    return nn.Sequential(*layers, nn.Flatten()), inputs * cells


class Discriminator(nn.Module):
    """Images -> (B, 1 + K): the logit of being real, and the classes', by two heads on a trunk."""

    def __init__(self, trunk: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.trunk, self.real = nn.Sequential(trunk, nn.Flatten()), nn.Linear(features, 1)
        self.of_class = nn.Linear(features, classes) if classes else None

    def forward(self, v: Tensor) -> Tensor:
        h = self.trunk(v)
        heads = [self.real] if self.of_class is None else [self.real, self.of_class]
        return small.full(torch.cat([head(h) for head in heads], 1))


# -log D(x), -log(1 - D(x_I)), and what G pays: -log D(x_I) or log(1 - D(x_I)), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "ccgan",
    paper=Paper(
        "Denton, Gross, Fergus",
        "Semi-Supervised Learning with Context-Conditional Generative Adversarial Networks",
        2016,
        "1611.06430",
    ),
    about="a generator fills holes in images, and the discriminator that judges them classifies "
    "from few labels",
    taxonomy="implicit direct",
    likelihood="none",
    can={"inpaint", "classify"},
    data="digits",
    learns=(
        ("val/hole_gain", ">", 0.02),
        ("val/hole_mse", "<", 0.04),
        ("val/acc", ">", 0.9),
    ),
)
class CCGAN(FewLabels, AdversarialModule):
    """See the module's docstring.

    Args:
        spec: images (height and width multiples of 4, at least 8; of 32 for "paper"); labelled for
            ``classify``.
        arch: "small" or "paper". width: filters of the first layers.
        hole: least and largest side of a hole, shares of the image's. whole: CC-GAN², which judges
            x_G too. low_res: pixels a side of the blocks in which G is shown all of the image; 0 is
            not at all.
        labels: training rows whose labels are used; None for all. lam_c: λ_c.
        g_loss: "nonsat" or "minimax".
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1:
            Adam's first decay. loop: options of the adversarial loop.
    """

    watches = ("loss_d", "loss_g", "ce")
    accepts = {"x": Image}
    mean_image: Tensor

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "paper"] = "small",
        width: Count = 24,
        hole: tuple[Share, Share] = (0.25, 0.5),
        whole: bool = False,
        low_res: Whole = 0,
        labels: Count | None = 100,
        lam_c: NonNegative = 1.0,
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        k: Count = 1,
        lr_d: Positive = 2e-3,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        channels, *sides = spec.shape
        if hole[0] > hole[1]:
            raise ValueError(f"ccgan's hole is (least, largest), got {hole}; swap them")
        if low_res and any(side % low_res for side in sides):
            raise ValueError(
                f"ccgan's low_res divides both sides of the image, got {low_res} for {spec}; "
                "choose another, or 0"
            )
        if arch == "paper" and any(side % 32 for side in sides):
            raise ValueError(
                f"ccgan with arch=paper takes images whose sides are multiples of 32, got {spec}; "
                "resize them"
            )
        self.hole, self.whole, self.low_res, self.lam_c = tuple(hole), whole, low_res, lam_c
        self.k, self.lr_d, self.lr_g, self.betas = k, lr_d, lr_g, (beta1, 0.999)
        inputs = channels * (2 if low_res else 1) + 1
        self.g = Generator(inputs, spec.shape, width, "batch" if arch == "paper" else "layer")
        trunk, features = (vgg if arch == "paper" else small.trunk)(spec.shape, width)
        d = Discriminator(trunk, features, spec.num_classes)
        self.d = Adversary(self, d, LOSSES[g_loss], realness=lambda out: out[:, 0])
        self.use_labels(labels)
        self.register_buffer("mean_image", torch.zeros(spec.shape))  # in [-1, 1]

    def initialise_from(self, batch: Batch) -> None:
        super().initialise_from(batch)
        self.mean_image.copy_(self.spec.to_signed(batch["x"]).mean(0))

    # -- holes ------------------------------------------------------------------------------------
    def holes(self, u: Tensor) -> Tensor:
        """m of uniform numbers, (B, 4): (B, 1, H, W)."""
        return rectangles(u, *self.spec.shape[1:], *self.hole)

    def shown(self, x: Tensor, m: Tensor) -> Tensor:
        """What G is shown of images in [-1, 1]: what is around the hole, the hole, and, with
        low_res, the coarse image.
        """
        parts = [torch.where(m.bool(), 0.0, x), m]
        return torch.cat([*parts, coarse(x, self.low_res)] if self.low_res else parts, 1)

    def filled(self, x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """x_I and x_G of images in [-1, 1]."""
        made = self.g(self.shown(x, m))
        return composite(x, made, m), made

    def fakes(self, x: Tensor) -> list[Tensor]:
        """What D judges beside images in [-1, 1], their holes drawn anew: x_I, and x_G if it
        does.
        """
        completed, made = self.filled(x, self.holes(self.noise.uniform(len(x), 4)))
        return [completed, made] if self.whole else [completed]

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.spec.to_signed(batch["x"])
        fakes = self.fakes(x)
        real, *made = self.d.judged((x,), *(self.d.stored(v) for v in fakes))
        costs = [self.d.cost(real[:, 0], out[:, 0]) for out in made]
        terms = {"loss": torch.stack(costs).mean()}
        if self.spec.num_classes:
            terms["ce"] = self.label_cost(real[:, 1:], batch)
            terms["loss"] = terms["loss"] + self.lam_c * terms["ce"]
        return self.d.regularised(terms, x)

    def generator_loss(self, batch: Batch) -> Terms:
        x = self.spec.to_signed(batch["x"])
        paid = [self.d.price.maker(self.d.see(v)[:, 0]).mean() for v in self.fakes(x)]
        return {"loss": torch.stack(paid).mean()}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        return {"d": self.d, "g": self.g}

    def phases(self) -> list[Phase]:
        reads = ("x", "y") if self.spec.num_classes else ("x",)
        return [
            Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True),
            Phase("g", self.generator_loss),
        ]

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        unknown = ~known.expand_as(x)
        m = unknown.any(1, keepdim=True).to(x.dtype)
        made = self.spec.from_signed(self.g(self.shown(self.spec.to_signed(x), m)))
        return composite(x, made, unknown)

    def classify(self, x: Tensor) -> Tensor:
        """p(y | x), (B, num_classes)."""
        if not self.spec.num_classes:
            raise ValueError(f"ccgan needs labels to classify, got {self.spec}; choose such data")
        return self.d(self.spec.to_signed(x))[:, 1:].softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        x = self.spec.to_signed(batch["x"])
        m = self.holes(row_noise(torch.rand, batch["x"], (4,)))
        cells = m.flatten(1).sum(1) * x.shape[1]

        def error(filled: Tensor) -> Tensor:
            return (m * (filled - x)).square().flatten(1).sum(1) / cells / 4

        mse, mse_mean = error(self.filled(x, m)[1]), error(self.mean_image)
        values = {"hole_mse": mse, "hole_mse_mean": mse_mean, "hole_gain": mse_mean - mse}
        if self.spec.num_classes:
            values["acc"] = (self.classify(batch["x"]).argmax(1) == batch["y"]).to(x.dtype)
        return values

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas)
