"""DiscoGAN: what two domains have in common is discovered by translating there and back.

Paper      Kim, Cha, Kim, Lee, Kim. Learning to discover cross-domain relations with generative
           adversarial networks. ICML 2017. arXiv:1703.05192.
Model      G_AB: A -> B and G_BA: B -> A, encoder-decoders without skips; D_B and D_A judge whole
           images of their domain, and their inner layers are features f_l. All images are in
           [0, 1].
Objective  With x_AB = G_AB(x_A), x_ABA = G_BA(x_AB), and the other way round:
           gan_B = -E log D_B(x_AB),  recon_A = mean (x_ABA - x_A)²,
           fm_B = Σ_l mean over maps and pixels of (E f_l(x_B) - E f_l(x_AB))², E over the batch;
           G:  (1 - r) (.1 gan_B + .9 fm_B) + r recon_A + (1 - r) (.1 gan_A + .9 fm_A) + r recon_B
               (the authors' code); loss="paper": gan_B + recon_A + gan_A + recon_B (eq. 3-6);
           D:  Σ over A and B of ½ (-E log D(x) - E log(1 - D(x'))), x' what was made, detached.
           r is r_start in the first ``curriculum`` iterations, then r_end.
Training   Iteration i, with data of its own, moves both D where i mod 3 = 0, else both G: D, G, G
           is one cycle, so that s cycles are 3 s iterations, which is what is counted. Adam with
           weight decay.
Logs       train/gan_a, gan_b, fm_a, fm_b, recon_a, recon_b, r. val/cycle_a, cycle_b: mean absolute
           difference after a round trip, and back_l1 of G_BA where its answer is known; val/psnr
           and the like of G_AB.
Sampling   G_AB(a) or G_BA(b), without noise, norms by running statistics.
Notes      The networks are those of the code: no biases, no norm in either's first layer. Losses
           come from logits, where the code takes logarithms of probabilities. A level is left out
           for each halving of the paper's 64 pixels. bottleneck=100 is the code's for pairs that
           differ more. Ablations of the paper's figure 2: arch="recongan" goes A -> B -> A with one
           D, arch="gan" has one G and one D.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import Adversary, DomainsModule, LoopOptions, Loss, Phase, Terms
from zoo.bases.translation import OTHER
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Range, Share, Whole
from zoo.nn.prior import Source
from zoo.nn.small import doublings, full
from zoo.registry import Paper, register

# -½ log D, -½ log(1 - D), -log D, from logits s.
GAME = Loss(
    real=lambda s: F.softplus(-s) / 2,
    fake=lambda s: F.softplus(s) / 2,
    maker=lambda s: F.softplus(-s),
)
GAN, FM = 0.1, 0.9  # the code's weights
ARCHES = {"discogan": ("ab", "ab"), "recongan": ("ab", "b"), "gan": ("b", "b")}  # of G, of D


def down(a: int, b: int, norm: bool = True) -> nn.Sequential:
    """Half the size: 4x4 convolution, norm, leaky ReLU."""
    made = [nn.BatchNorm2d(b)] if norm else []
    return nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), *made, nn.LeakyReLU(0.2))


class Generator(nn.Sequential):
    """x, (B, inputs, H, W) -> (B, outputs, H, W) in (0, 1).

    Args:
        widths: filters of each halving. bottleneck: of one more layer, over the whole of what is
            left, and its inverse; 0 is none. rest: height and width of what is left.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: list[int],
        bottleneck: int,
        rest: tuple[int, int],
    ) -> None:
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip([inputs, *widths[:-1]], widths, strict=True)):
            layers.append(down(a, b, norm=i > 0))
        if bottleneck:
            layers += [
                nn.Conv2d(widths[-1], bottleneck, rest, bias=False),
                nn.BatchNorm2d(bottleneck),
                nn.LeakyReLU(0.2),
                nn.ConvTranspose2d(bottleneck, widths[-1], rest, bias=False),
                nn.BatchNorm2d(widths[-1]),
                nn.ReLU(),
            ]
        for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers.append(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False))
            layers += [nn.BatchNorm2d(b), nn.ReLU()]
        last = nn.ConvTranspose2d(widths[0], outputs, 4, 2, 1, bias=False)
        super().__init__(*layers, last, nn.Sigmoid())


class Discriminator(nn.Module):
    """x, (B, C, H, W) -> logits, (B,)."""

    def __init__(self, channels: int, widths: list[int], rest: tuple[int, int]) -> None:
        super().__init__()
        pairs = zip([channels, *widths[:-1]], widths, strict=True)
        self.layers = nn.ModuleList(down(a, b, norm=i > 0) for i, (a, b) in enumerate(pairs))
        self.end = nn.Conv2d(widths[-1], 1, rest, bias=False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps of all layers but the first, each (B, C, H, W)."""
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found[1:]

    def judge(self, last: Tensor) -> Tensor:
        """Logits, (B,), from the last of them."""
        return full(self.end(last)).flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.features(x)[-1])


def squared(p: Tensor, q: Tensor) -> Tensor:
    """Squared distance of images, a mean over pixels, (B,)."""
    return (p - q).square().flatten(1).mean(1)


@register(
    "discogan",
    paper=Paper(
        "Kim, Cha, Kim, Lee, Kim",
        "Learning to discover cross-domain relations with generative adversarial networks",
        2017,
        "1703.05192",
    ),
    about="two domains without pairs: what they share is what a round trip can keep",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("a",),
    makes=("b",),
    data="unpaired",
    learns=(("val/l1_share", "<", 0.4), ("val/class_kept", ">", 0.88), ("val/cycle_a", "<", 0.06)),
    waive={
        "seed_matters": "what becomes of an image is a function of it",
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class DiscoGAN(DomainsModule):
    """See the module's docstring.

    Args:
        spec: two fields of images, a and b, of one height and width, multiples of 4, at least 16.
        width: filters of the first layer of all networks. bottleneck: of one more layer of the
            generators; 0 is none.
        arch: "discogan", "recongan" or "gan". loss: of the generators, "released" or "paper".
        r_start, r_end: r, the weight of the round trips, at first and later. curriculum: iterations
            of the first. interval: iterations from one of D's to the next.
        lr_d: learning rate of both D. lr_g: of both G. beta1: Adam's first decay. weight_decay:
            Adam's. loop: options of the adversarial loop.
    """

    watches = ("recon_a", "fm_b", "loss_d")

    def __init__(
        self,
        spec: Spec,
        width: Count = 16,
        bottleneck: Whole = 0,
        arch: Literal["discogan", "recongan", "gan"] = "discogan",
        loss: Literal["released", "paper"] = "released",
        r_start: Share = 0.01,
        r_end: Share = 0.5,
        curriculum: Whole = 1000,
        interval: Annotated[int, Range(2)] = 3,
        lr_d: Positive = 2e-4,
        lr_g: Positive = 2e-4,
        beta1: Decay = 0.5,
        weight_decay: NonNegative = 1e-5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        shapes = {name: spec[name].shape for name in "ab"}
        if shapes["a"][1:] != shapes["b"][1:]:
            raise ValueError(f"discogan: images of both domains have one size, got {spec}")
        levels = doublings(*shapes["a"][1:])
        if levels < 2:
            raise ValueError(
                f"discogan: images have at least 16 pixels to a side, got {spec}; set --data.size"
            )
        self.arch, self.loss = arch, loss
        self.r_start, self.r_end, self.curriculum = r_start, r_end, curriculum
        self.interval, self.weight_decay = interval, weight_decay
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)

        self.grain = 1 << levels
        widths = [width << i for i in range(levels)]
        rest = (shapes["a"][1] >> levels, shapes["a"][2] >> levels)
        of_g, of_d = ARCHES[arch]
        self.g, self.d = nn.ModuleDict(), nn.ModuleDict()
        for name in of_g:
            source = shapes[OTHER[name]]
            self.g[name] = Generator(source[0], shapes[name][0], widths, bottleneck, rest)
        for name in of_d:
            net = Discriminator(shapes[name][0], widths, rest)
            self.d[name] = Adversary(self, net, GAME, inputs=[shapes[name]])

    def scaled(self, name: str, rows: Tensor) -> Tensor:
        """Images of a field in [0, 1]."""
        field: Any = self.spec[name]
        return field.to_unit(rows)

    def images(self, name: str, v: Tensor) -> Tensor:
        field: Any = self.spec[name]
        return field.from_unit(v)

    def made(self, name: str, v: Tensor, noise: Source | None = None) -> Tensor:
        if name not in self.g:
            raise ValueError("discogan: arch=gan has no way back; train with model.arch=discogan")
        return self.g[name](v)

    # -- losses -----------------------------------------------------------------------------------
    def r(self, iteration: int) -> float:
        """Weight of the round trips in an iteration, counted from 0."""
        return self.r_start if iteration < self.curriculum else self.r_end

    def iteration(self, turn: int) -> int:
        """Number of the turn-th iteration of the cycle at hand."""
        return self.interval * (self.step or 0) + turn

    def matched(self, real: list[Tensor], made: list[Tensor]) -> Tensor:
        """fm, from the features of real and of made rows; means are those of all processes."""
        means = [[self.shared_mean(f.mean(0)) for f in maps] for maps in (real, made)]
        return torch.stack([(p - q).square().mean() for p, q in zip(*means, strict=True)]).sum()

    def generator_loss(self, batch: Batch, turn: int = 1) -> Terms:
        real = dict(zip("ab", self.both(batch), strict=True))
        r = self.r(self.iteration(turn))
        terms: Terms = {"r": real["a"].new_tensor(r)}
        loss = real["a"].new_zeros(())
        for name, d in self.d.items():
            source = OTHER[name]
            made = self.made(name, real[source])
            features = d.net.features(d.noisy(made))
            gan = d.price.maker(d.net.judge(features[-1])).mean()
            terms[f"gan_{name}"] = gan
            if self.loss == "released":
                with torch.no_grad():
                    wanted = d.net.features(d.noisy(real[name]))
                fm = self.matched(wanted, features)
                terms[f"fm_{name}"] = fm
                loss = loss + (1 - r) * (GAN * gan + FM * fm)
            else:
                loss = loss + gan
            if source in self.g:
                recon = squared(self.made(source, made), real[source]).mean()
                terms[f"recon_{source}"] = recon
                loss = loss + (r * recon if self.loss == "released" else recon)
        return {**terms, "loss": loss}

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = dict(zip("ab", self.both(batch), strict=True))
        loss = real["a"].new_zeros(())
        terms: Terms = {}
        for name, d in self.d.items():
            with torch.no_grad():
                made = self.made(name, real[OTHER[name]])
            for key, value in d.loss((real[name],), (made,)).items():
                terms[f"{key}_{name}"] = value
            loss = loss + terms[f"loss_{name}"]
        return {**terms, "loss": loss}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """As of any model of two domains; nothing where there is no way back."""
        if "a" not in self.g:
            return {}
        return {k: 2 * v for k, v in super().evaluate(batch, generator).items()}  # of [0, 1] here

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        turns = [partial(self.generator_loss, turn=i) for i in range(1, self.interval)]
        return [
            Phase("d", self.discriminator_loss, ("a", "b"), critic=True),
            *(Phase("g", turn, ("a", "b")) for turn in turns),
        ]

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas, weight_decay=self.weight_decay)
