"""DTN: an image is carried into another domain by what a network sees in it.

Paper      Taigman, Polyak, Wolf. Unsupervised cross-domain image generation. ICLR 2017.
           arXiv:1611.02200.
Model      G = g ∘ f: f, (B, C) features of an image of either domain, is frozen; g, transposed
           convolutions, draws an image of the target domain T from them. D tells three kinds apart:
           1, made of a source s; 2, made of a target t; 3, a target.
Objective  D:  -E log D_1(G(s)) - E log D_2(G(t)) - E log D_3(t), what was made detached;
           g:  -E log D_3(G(s)) - E log D_3(G(t)) + α E d(f(s), f(G(s))) + β E d(t, G(t)) + γ TV,
           d means of squares over features and pixels in [-1, 1], α = β = 15; TV is Σ √(∂_x² +
           ∂_y²) over the pixels of G(s) and G(t), divided by their number, γ = 0.
           The gradient of the first distance passes through f, applied a second time.
Training   Adam; sources and targets go through g as separate batches, whose norms do not mix.
Logs       train/const, tid, gang, the terms of g's loss before their weights, tv where γ > 0;
           train/d_acc, the share of D's rows of three kinds that it is right about.
           val/code_gap, the squared distance of f(a) and f(G(a)) in deviations of f(a), 2 for
           unrelated images; val/tid, of b and G(b). Of every model of targets: val/class_kept, by a
           classifier of true answers.
Sampling   G(a), without noise; G(b) redraws a target.
Notes      f is trained as the run begins, on the images a and their classes y, and is kept (1,000
           steps); the labels of T are never read. Images of one channel are the same in three to f.
           The paper's faces have α = 100, β = 1, γ = .05 and f from elsewhere. Layers are those of
           public reimplementations (convolutions of f of 64, 128, 256, 128 filters and tanh; g from
           512), with a halving less for 16 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.auxiliary import recogniser
from zoo.bases import Adversary, DomainsModule, LoopOptions, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive
from zoo.core.spec import Image, Label
from zoo.nn.perceptual import coloured
from zoo.nn.prior import Draw, Source
from zoo.nn.small import full
from zoo.registry import Paper, register

FROM_SOURCE, FROM_TARGET, TARGET = range(3)  # what D tells apart


def total_variation(z: Tensor) -> Tensor:
    """Σ √((z_{i,j+1} - z_ij)² + (z_{i+1,j} - z_ij)²) over pixels with both neighbours, divided by
    the number of values, a mean over rows; of (B, C, H, W).

    >>> total_variation(torch.ones(1, 1, 4, 4)).item()
    0.0
    """
    right = z[..., :-1, 1:] - z[..., :-1, :-1]
    down = z[..., 1:, :-1] - z[..., :-1, :-1]
    square = right.square() + down.square()
    flat = square == 0  # where a root has no gradient
    return (square + flat).sqrt().mul(~flat).sum() / z.numel()


class Seen(nn.Module):
    """f: images, (B, 1 or 3, H, W) in [-1, 1] -> (B, 2 width). It never learns, and its norms stay
    as they are, in a model that is trained too.
    """

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        wide = 3
        for i in range(levels):
            layers += [nn.Conv2d(wide, width << i, 3, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(width << i), nn.ReLU()]
            wide = width << i
        self.net = nn.Sequential(*layers, nn.Conv2d(wide, 2 * width, 4), nn.Flatten(), nn.Tanh())
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Seen:
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(coloured(x))


def drawing(levels: int, code: int, width: int, channels: int) -> nn.Sequential:
    """g: (B, code) -> (B, channels, H, W) in (-1, 1), of 4 · 2^levels pixels to a side."""
    wide = width << levels
    layers: list[nn.Module] = [
        nn.Unflatten(1, (code, 1, 1)),
        nn.ConvTranspose2d(code, wide, 4, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
    ]
    for _ in range(levels - 1):
        layers += [nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(wide // 2), nn.ReLU()]
        wide //= 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(wide, channels, 4, 2, 1), nn.Tanh())


class Kinds(nn.Module):
    """D: images, (B, C, H, W) in [-1, 1] -> logits of the three kinds, (B, 3)."""

    def __init__(self, levels: int, width: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        wide = channels
        for i in range(levels):
            layers += [nn.Conv2d(wide, width << i, 3, 2, 1, bias=i == 0)]
            layers += [nn.BatchNorm2d(width << i)] if i else []
            layers += [nn.LeakyReLU(0.2)]
            wide = width << i
        self.net = nn.Sequential(*layers, nn.Conv2d(wide, 3, 4), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return full(self.net(x))


def is_target(logits: Tensor) -> Tensor:
    """log D_3 - log(D_1 + D_2), (B,)."""
    return logits[:, TARGET] - logits[:, :TARGET].logsumexp(1)


def of_kind(logits: Tensor, kind: int) -> Tensor:
    """-log D_kind, (B,)."""
    return -logits.log_softmax(1)[:, kind]


@register(
    "dtn",
    paper=Paper(
        "Taigman, Polyak, Wolf", "Unsupervised cross-domain image generation", 2017, "1611.02200"
    ),
    about="two domains without pairs: what a frozen network sees in an image is drawn in the other",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("a",),
    makes=("b",),
    data="unpaired",
    learns=(("val/class_kept", ">", 0.75), ("val/l1_share", "<", 0.8)),
    waive={
        "seed_matters": "what becomes of an image is a function of it",
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class DTN(DomainsModule):
    """See the module's docstring.

    Args:
        spec: fields of images, a (sources) and b (targets), of one size, 4 · 2^m pixels to a side,
            at least 8, of 1 or 3 channels; and y, the classes of a.
        width: filters of the first layer of f, of D and of g's last hidden one.
        alpha, beta, gamma: α of the features, β of the targets, γ of the total variation.
        lr_d: learning rate of D. lr_g: of g. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("const", "tid", "loss_d")
    accepts = {"a": Image, "b": Image, "y": Label}

    def __init__(
        self,
        spec: Spec,
        width: Count = 16,
        alpha: NonNegative = 15.0,
        beta: NonNegative = 15.0,
        gamma: NonNegative = 0.0,
        lr_d: Positive = 3e-4,
        lr_g: Positive = 3e-4,
        beta1: Decay = 0.9,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        a, b = spec["a"].shape, spec["b"].shape
        side = a[1]
        if a[1:] != b[1:] or a[1] != a[2] or side < 8 or side & (side - 1):
            raise ValueError(
                f"dtn: images of both domains are squares of 8, 16, 32 ... pixels, got {spec}; set "
                "--data.size to one"
            )
        if a[0] not in (1, 3) or b[0] not in (1, 3):
            raise ValueError(f"dtn: images have 1 or 3 channels, got {spec}")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)

        levels = side.bit_length() - 3
        self.f = Seen(levels, width)
        self.g = drawing(levels, 2 * width, width, b[0])
        net = Kinds(levels, width, b[0])
        self.d = Adversary(self, net, inputs=[b], realness=is_target)

    def initialise_from(self, batch: Batch) -> None:
        recogniser("dtn_f", self.f, self.scaled("a", batch["a"]), batch["y"])

    def made(self, name: str, v: Tensor, noise: Source | None = None) -> Tensor:
        """G of images of either domain."""
        if name != "b":
            raise ValueError("dtn: there is no way back from b; translate images of a")
        return self.g(self.f(v))

    # -- losses -----------------------------------------------------------------------------------
    def fooling(self, made: Tensor) -> Tensor:
        """E -log D_3 of what g made."""
        return of_kind(self.d.see(made), TARGET).mean()

    def discriminator_loss(self, batch: Batch) -> Terms:
        s, t = self.both(batch)
        with torch.no_grad():
            made = [self.made("b", v) for v in (s, t)]
        rows = [(t,), *(self.d.stored(v) for v in made)]
        logits = dict(zip((TARGET, FROM_SOURCE, FROM_TARGET), self.d.judged(*rows), strict=True))
        terms = {"loss": torch.stack([of_kind(v, k).mean() for k, v in logits.items()]).sum()}
        if self.logs:
            right = [(v.argmax(1) == k).double().mean() for k, v in logits.items()]
            terms["d_acc"] = torch.stack(right).mean()
        return self.d.regularised(terms, t)

    def generator_loss(self, batch: Batch) -> Terms:
        s, t = self.both(batch)
        seen = self.f(s)
        of_s, of_t = self.g(seen), self.made("b", t)
        terms: Terms = {
            "gang": self.fooling(of_s) + self.fooling(of_t),
            "const": (seen - self.f(of_s)).square().mean(),
            "tid": (t - of_t).square().mean(),
        }
        loss = terms["gang"] + self.alpha * terms["const"] + self.beta * terms["tid"]
        if self.gamma:
            terms["tv"] = total_variation(torch.cat([of_s, of_t]))
            loss = loss + self.gamma * terms["tv"]
        return {"loss": loss, **terms}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, ("a", "b"), critic=True),
            Phase("g", self.generator_loss, ("a", "b")),
        ]

    # -- use --------------------------------------------------------------------------------------
    def turned(self) -> None:
        return None

    def features(self, x: Tensor) -> Tensor:
        """f of images of either domain in levels, (B, 2 width)."""
        name = "a" if x.shape[1:] == self.spec["a"].shape else "b"
        return self.f(self.scaled(name, x))

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """code_gap, (B,): Σ (f(a) - f(G(a)))² over the variance of f(a), Σ over features; tid,
        (B,): mean squared difference of b and G(b) in [0, 1].
        """
        s, t = self.both(batch)
        noise = Draw(generator, self.device, self.float_dtype)
        seen = self.f(s)
        gap = (seen - self.f(self.made("b", s, noise))).square().sum(1)
        redrawn = (t - self.made("b", t, noise)).square().flatten(1).mean(1) / 4
        return {"code_gap": gap / seen.var(0).sum().clamp(min=1e-12), "tid": redrawn}
