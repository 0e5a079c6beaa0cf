"""LAPGAN: a Laplacian pyramid of adversarial networks.

Paper      Denton, Chintala, Szlam, Fergus. Deep Generative Image Models using a Laplacian Pyramid
           of Adversarial Networks. NIPS 2015. arXiv:1506.05751.
Model      The pyramid of an image: I_0 = x, I_{k+1} = d(I_k); l_k = u(I_{k+1}) is what the coarser
           image says of I_k, and h_k = I_k - l_k what it does not. d is the mean of four pixels, u
           repeats each four times; both are fixed. K + 1 games: at the coarsest level,
           I_K = G_K(z_K); at each finer one details h_k = G_k(z_k, l_k), z_k one plane of noise
           beside l_k.
Objective  Each level k its own, with real l_k in both turns:
           D_k:  -E log D_k(h_k, l_k) - E log(1 - D_k(G_k(z_k, l_k), l_k)), G_k detached; at the
                 coarsest, of I_K and G_K(z_K) alone.
           G_k:  -E log D_k(G_k(z_k, l_k), l_k) (g_loss="nonsat"; "minimax" is the paper's).
           No gradient crosses levels.
Logs       train/loss_d0, train/loss_g0, ... of level 0, the finest, to K; val/residual_ratio: the
           deviation of G_0's details over that of the data's, both at real l_0.
Sampling   From coarse to fine: Ĩ_K = G_K(z_K), Ĩ_k = u(Ĩ_{k+1}) + G_k(z_k, u(Ĩ_{k+1})), so each
           level sees what the one before made; Ĩ_0 quantised. ``pyramid`` gives all Ĩ_k,
           ``super_resolve`` begins with a given small image.
Notes      D_k sees h_k + l_k (d_input="add", the paper's) or both beside each other ("concat").
           Details have no bounds; I_K ends in tanh. All levels are trained in each cycle, which is
           the same as one after the other, as nothing connects them. With ``by_class`` (the paper's
           conditional model) a class joins as one-hot values at the coarsest level and as a learnt
           plane at the finer ones. The paper's d blurs before it drops pixels; its dropout in D is
           an option.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Dropped, Positive
from zoo.nn import small
from zoo.nn.blur import doubled, halved
from zoo.nn.prior import Draw, Source
from zoo.nn.schedules import goodfellow
from zoo.registry import Paper, register

d, u = halved, doubled


def pyramid_of(x: Tensor, levels: int) -> list[Tensor]:
    """I_0, ..., I_K of images (B, C, H, W)."""
    images = [x]
    for _ in range(levels):
        images.append(d(images[-1]))
    return images


def built(coarse: Tensor, details: Sequence[Tensor]) -> Tensor:
    """I_0 of I_K and h_{K-1}, ..., h_0."""
    for h in details:
        coarse = u(coarse) + h
    return coarse


class CoarseGenerator(nn.Module):
    """G_K: (z, one-hot class or nothing), (B, latent + classes) -> (B, C, h, w) in (-1, 1)."""

    def __init__(self, inputs: int, shape: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, torch.Size(shape).numel()),
            nn.Tanh(),
            nn.Unflatten(1, tuple(shape)),
        )

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return self.net(torch.cat([z, c], 1))


class CoarseDiscriminator(nn.Module):
    """D_K: images, and one-hot classes or (B, 0) -> logits, (B,)."""

    def __init__(self, shape: Sequence[int], classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(torch.Size(shape).numel() + classes, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return small.logits(self.net(torch.cat([x.flatten(1), c], 1)))


class ClassPlane(nn.Module):
    """One-hot classes, (B, K) -> one plane, (B, 1, h, w); none, (B, 0, h, w), without classes."""

    def __init__(self, classes: int, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)
        self.plane = nn.Linear(classes, self.size[0] * self.size[1]) if classes else None

    def forward(self, c: Tensor) -> Tensor:
        if self.plane is None:
            return c.new_zeros(len(c), 0, *self.size)
        return self.plane(c).view(-1, 1, *self.size)


class DetailGenerator(nn.Module):
    """G_k: noise (B, 1, H, W), l_k (B, C, H, W), classes -> details (B, C, H, W)."""

    def __init__(self, shape: Sequence[int], classes: int, width: int, kernel: int) -> None:
        super().__init__()
        channels, *size = shape
        self.plane = ClassPlane(classes, size)
        inputs = channels + 1 + (classes > 0)
        self.net = nn.Sequential(
            nn.Conv2d(inputs, width, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(width, channels, kernel, padding=kernel // 2),
        )

    def forward(self, z: Tensor, l_k: Tensor, c: Tensor) -> Tensor:
        return self.net(torch.cat([l_k, z, self.plane(c)], 1))


class DetailDiscriminator(nn.Module):
    """D_k: details h_k, their l_k, classes -> logits, (B,); two convolutions of stride 2."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        width: int,
        d_input: str,
        dropout: float,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.add = d_input == "add"
        self.plane = ClassPlane(classes, (height, breadth))
        inputs = channels * (1 if self.add else 2) + (classes > 0)
        cells = -(-height // 4) * -(-breadth // 4)
        self.net = nn.Sequential(
            nn.Conv2d(inputs, width, 5, 2, 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 5, 2, 2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width * cells, 1),
        )

    def forward(self, h: Tensor, l_k: Tensor, c: Tensor) -> Tensor:
        seen = [h + l_k] if self.add else [h, l_k]
        return small.logits(self.net(torch.cat([*seen, self.plane(c)], 1)))


# -log D, -log(1 - D), and what G pays: -log D or log(1 - D), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "lapgan",
    paper=Paper(
        "Denton, Chintala, Szlam, Fergus",
        "Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks",
        2015,
        "1506.05751",
    ),
    about="a small image is made, then each game adds the details of the next size, given the size "
    "before",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample"},
    data="digits",
    learns=(
        ("val/cond_acc_digitsnet", ">", 0.85),
        ("val/is_pixels", ">", 4.5),
        ("val/fid_pixels", "<", 0.9),
    ),
)
class LAPGAN(AdversarialModule):
    """See the module's docstring.

    Args:
        spec: images, sides multiples of 2 to the number of levels; labelled ones for ``by_class``.
        levels: K, how often the image is halved. by_class: whether networks and ``sample`` are told
            the class.
        latent: dimension of z_K. hidden: units of the coarsest networks. width: maps of the others.
        kernel: of the generators' convolutions. d_input: what D_k sees, "add" or "concat".
        dropout: of D's hidden values. g_loss: "nonsat" or "minimax". k: discriminator steps per
            generator step.
        optimiser: "adam", or "sgd" with a falling rate and a rising momentum.
        lr_d: learning rate of each D. lr_g: of each G. beta1: Adam's first decay, or the first
            momentum.
        momentum_end, momentum_steps: of "sgd", the last momentum and the cycles until then.
        lr_decay: of "sgd", what rates are divided by at each step.
        loop: options of the adversarial loop.
    """

    watches = ("loss_d0", "loss_g0")
    accepts = {"x": Image}
    g: Any
    d: Any

    def __init__(
        self,
        spec: Spec,
        levels: Count = 2,
        by_class: bool = False,
        latent: Count = 16,
        hidden: Count = 128,
        width: Count = 16,
        kernel: Literal[3, 5, 7] = 3,
        d_input: Literal["add", "concat"] = "add",
        dropout: Dropped = 0.0,
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        k: Count = 1,
        optimiser: Literal["adam", "sgd"] = "adam",
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        momentum_end: Decay = 0.8,
        momentum_steps: Count = 10_000,
        lr_decay: Positive = 1.00004,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        channels, *sides = spec.shape
        if any(side % (1 << levels) or side >> levels < 2 for side in sides):
            raise ValueError(
                f"lapgan halves the sides {levels} times, to 2 pixels or more, got {spec}; resize "
                "the images, or set levels"
            )
        if by_class and not spec.num_classes:
            raise ValueError(
                f"lapgan with by_class=True is told classes, got {spec}; choose labelled data or "
                "leave by_class out"
            )
        self.levels, self.by_class, self.latent, self.k = levels, by_class, latent, k
        self.optimiser, self.lr_d, self.lr_g, self.beta1 = optimiser, lr_d, lr_g, beta1
        self.momentum_end, self.momentum_steps = momentum_end, momentum_steps
        self.lr_decay = lr_decay
        classes = spec.num_classes if by_class else 0
        shapes = [(channels, *(side >> i for side in sides)) for i in range(levels + 1)]
        price = LOSSES[g_loss]
        alone = {"replay": "past details would be judged beside other images"}
        net: nn.Module
        makers: list[nn.Module] = []
        judges: list[nn.Module] = []
        for shape in shapes[:-1]:
            makers.append(DetailGenerator(shape, classes, width, kernel))
            net = DetailDiscriminator(shape, classes, width, d_input, dropout)
            judges.append(Adversary(self, net, price, without=alone))
        makers.append(CoarseGenerator(latent + classes, shapes[-1], hidden))
        net = CoarseDiscriminator(shapes[-1], classes, hidden, dropout)
        judges.append(Adversary(self, net, price, without=alone))
        self.g, self.d = nn.ModuleList(makers), nn.ModuleList(judges)
        self.shapes = shapes

    @property
    def told(self) -> tuple[str, ...]:
        return ("y",) if self.by_class else ()

    # -- the games --------------------------------------------------------------------------------
    def classes(self, n: int, y: Tensor | None) -> Tensor:
        """One-hot classes, (n, K); (n, 0) without ``by_class``."""
        if y is None or not self.by_class:
            return torch.zeros(n, 0, device=self.device, dtype=self.float_dtype)
        return F.one_hot(y, self.spec.num_classes).to(self.float_dtype)

    def noise_of(self, level: int, n: int, source: Source) -> Tensor:
        """z_k ~ U(-1, 1): codes at the coarsest level, a plane at the others."""
        shape = (self.latent,) if level == self.levels else (1, *self.shapes[level][1:])
        return source.uniform(n, *shape, low=-1.0)

    def given(self, level: int, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What is real at a level, h_k or I_K, and what both players are told beside it."""
        c = self.classes(batch.n, batch.get("y"))
        images = pyramid_of(self.spec.to_signed(batch["x"]), min(level + 1, self.levels))
        if level == self.levels:
            return images[-1], (c,)
        l_k = u(images[level + 1])
        return images[level] - l_k, (l_k, c)

    def made(self, level: int, told: tuple[Tensor, ...]) -> Tensor:
        """A step's made rows of a level."""
        return self.g[level](self.noise_of(level, len(told[0]), self.noise), *told)

    def discriminator_loss(self, batch: Batch, level: int = 0) -> Terms:
        real, told = self.given(level, batch)
        return self.d[level].loss((real, *told), (self.made(level, told), *told))

    def generator_loss(self, batch: Batch, level: int = 0) -> Terms:
        _, told = self.given(level, batch)
        return {"loss": self.d[level].fool(self.made(level, told), *told)}

    def players(self) -> dict[str, nn.Module]:
        return {
            f"{kind}{i}": net
            for i in range(self.levels + 1)
            for kind, net in (("d", self.d[i]), ("g", self.g[i]))
        }

    def phases(self) -> list[Phase]:
        reads = ("x", "y") if self.by_class else ("x",)
        turns = []
        for i in reversed(range(self.levels + 1)):
            turns += [
                Phase(
                    f"d{i}", partial(self.discriminator_loss, level=i), reads, self.k, critic=True
                ),
                Phase(f"g{i}", partial(self.generator_loss, level=i), reads),
            ]
        return turns

    # -- use --------------------------------------------------------------------------------------
    def refined(self, coarse: Tensor, level: int, c: Tensor, source: Source) -> list[Tensor]:
        """Ĩ_{level-1}, ..., Ĩ_0 from images of a level, in [-1, 1] and a little beyond."""
        images = []
        for i in reversed(range(level)):
            l_k = u(coarse)
            coarse = l_k + self.g[i](self.noise_of(i, len(l_k), source), l_k, c)
            images.append(coarse)
        return images

    @torch.no_grad()
    def pyramid(
        self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Ĩ_K, ..., Ĩ_0 of the same n samples, in the units of ``spec``."""
        source, c = Draw(generator, self.device, self.float_dtype), self.classes(n, y)
        coarse = self.g[self.levels](self.noise_of(self.levels, n, source), c)
        images = [coarse, *self.refined(coarse, self.levels, c, source)]
        return [self.spec.from_signed(v) for v in images]

    @torch.no_grad()
    def sample(
        self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.pyramid(n, y=y, generator=generator)[-1]

    @torch.no_grad()
    def super_resolve(
        self,
        coarse: Tensor,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, *shape) whose smaller selves are given, (B, C, h, w) of any level, both in the
        units of ``spec``.

        Raises:
            ValueError: no level has images of this shape, or the class is missing.
        """
        sizes = [*map(tuple, self.shapes[1:])]
        if tuple(coarse.shape[1:]) not in sizes:
            raise ValueError(
                f"lapgan refines images of shape {' or '.join(map(str, sizes))}, got "
                f"{tuple(coarse.shape[1:])}; resize them"
            )
        if self.by_class and y is None:
            raise ValueError("lapgan with by_class=True is told y, got none; give a class a row")
        level = sizes.index(tuple(coarse.shape[1:])) + 1
        source, c = Draw(generator, self.device, self.float_dtype), self.classes(len(coarse), y)
        v = self.spec.to_signed(coarse.to(self.float_dtype))
        return self.spec.from_signed(self.refined(v, level, c, source)[-1])

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """residual_ratio: one value for all rows of the minibatch, (B,)."""
        real, (l_0, c) = self.given(0, batch)
        source = Draw(generator, self.device, self.float_dtype)
        made = self.g[0](self.noise_of(0, batch.n, source), l_0, c)
        return {"residual_ratio": (made.std() / real.std()).expand(batch.n)}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        rates = {p: self.lr_d if p[0] == "d" else self.lr_g for p in self.players()}
        if self.optimiser == "sgd":
            return {
                p: SGD(self.parameters_of(p), lr, momentum=self.beta1) for p, lr in rates.items()
            }
        return {p: Adam(self.parameters_of(p), lr, (self.beta1, 0.999)) for p, lr in rates.items()}

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if self.optimiser == "adam":
            return {}
        momenta = (self.beta1, self.momentum_end)
        return goodfellow(optimisers, self.lr_decay, momenta, self.momentum_steps, self.steps_of)
