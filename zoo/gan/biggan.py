"""BigGAN: class-conditional GANs at scale.

Paper      Brock, Donahue, Simonyan. Large Scale GAN Training for High Fidelity Natural Image
           Synthesis. ICLR 2019. arXiv:1809.11096. Attention: Zhang et al. 2019, arXiv:1805.08318.
           Projection: Miyato and Koyama 2018, arXiv:1802.05637.
Model      x = G(z, y), z ~ N(0, I) in chunks z_0, ..., z_m. z_0 makes the base grid; block i, which
           doubles the size, is conditioned on [e(y), z_i], e one embedding of the class that all
           blocks share: it gives the gains (1 + ·) and shifts of the block's batch norms, linearly.
           D's residual blocks halve the size; of the sum h of its last maps over all places,
           s(x, y) = w · h + b + ⟨V_y, h⟩. Self-attention at one size in both. Every weight of both
           but e is divided by its largest singular value.
Objective  D:  E max(0, 1 - s(x, y)) + E max(0, 1 + s(G(z_D, c_D), c_D)), G detached.
           G:  -E s(G(z_G, c_G), c_G) + β Σ_W ‖W Wᵀ ⊙ (1 - I)‖², each weight W of G but e as a
               matrix with a row for each output, before its division.
           Classes c are uniform and drawn anew for each step.
Logs       train/ortho, the sum without β. How often a sample has its class: val/cond_acc_*.
Sampling   G(z, y) quantised, with standing statistics: batch norm's means over ``standing`` passes
           of codes and classes of their own, the same in every call; 0 takes the running averages.
           ``truncation`` is a threshold t: each value of z is normal given that it is in [-t, t].
Notes      Weights begin orthogonal. Truncated codes are drawn by the inverse of the distribution
           function, which is what drawing again until |z| ≤ t gives. Batch norm's statistics are
           those of one process. Averages of G's weights are evaluated (``ema`` in the configs).
           Not here: the deeper network of appendix B, collapse monitors, changes of the class
           along a path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.bases.adversary import normalise
from zoo.core import Batch, Image, Label, Spec
from zoo.core.noise import seeded
from zoo.core.options import Count, Decay, NonNegative, Positive, Whole
from zoo.core.standing import standing
from zoo.nn.attention import SelfAttention
from zoo.nn.blur import doubled, halved
from zoo.nn.conditional import ConditionalBatchNorm, ProjectionHead
from zoo.nn.growth import maps_of
from zoo.nn.prior import Draw, path
from zoo.nn.small import doublings, full, logits
from zoo.registry import Paper, register

ROWS = 64  # of each pass for standing statistics


class GeneratorBlock(nn.Module):
    """Norm, ReLU, doubling, 3x3 convolution, norm, ReLU, 3x3 convolution, beside a doubled 1x1
    convolution; both norms are told the condition.
    """

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(inputs, condition)
        self.norm2 = ConditionalBatchNorm(outputs, condition)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(doubled(F.relu(self.norm1(x, c))))
        h = self.conv2(F.relu(self.norm2(h, c)))
        return h + self.shortcut(doubled(x))


class DiscriminatorBlock(nn.Module):
    """ReLU, 3x3 convolution, twice, and halving, beside a 1x1 convolution where the shape changes;
    the first block has no ReLU before its first convolution.
    """

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        changes = down or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2(F.relu(h)) + self.shortcut(x)
        return halved(h) if self.down else h


class Synthesis(nn.Module):
    """The chunks of z, (B, m + 1, chunk), and e(y), (B, embedding) -> images in (-1, 1).

    Args:
        maps: before the first block and after each. attention: the block after which places attend
            to one another, counted from 1; 0 for none.
    """

    def __init__(
        self, shape: Sequence[int], maps: Sequence[int], chunk: int, embedding: int, attention: int
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        m = len(maps) - 1
        base = (maps[0], height >> m, breadth >> m)
        self.base = nn.Sequential(nn.Linear(chunk, torch.Size(base).numel()), nn.Unflatten(1, base))
        self.blocks = nn.ModuleList(
            GeneratorBlock(a, b, embedding + chunk)
            for a, b in zip(maps[:-1], maps[1:], strict=True)
        )
        self.attention = SelfAttention(maps[attention]) if attention else nn.Identity()
        self.attends = attention
        self.end = nn.Sequential(
            nn.BatchNorm2d(maps[-1]),
            nn.ReLU(),
            nn.Conv2d(maps[-1], channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, e: Tensor) -> Tensor:
        h = self.base(z[:, 0])
        for i, block in enumerate(self.blocks, 1):
            h = block(h, torch.cat([e, z[:, i]], 1))
            if i == self.attends:
                h = self.attention(h)
        return self.end(h)


class Generator(nn.Module):
    """G: z, (B, latent), and classes, (B,) -> images in (-1, 1)."""

    def __init__(self, synthesis: Synthesis, classes: int, embedding: int, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk
        self.embedding = nn.Embedding(classes, embedding)
        self.synthesis = synthesis

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.synthesis(z.unflatten(1, (-1, self.chunk)), self.embedding(y))


class Discriminator(nn.Module):
    """Images and their classes -> logits, (B,).

    Args:
        maps: after each block; the last one keeps the size. attention: as in ``Synthesis``.
    """

    def __init__(self, channels: int, maps: Sequence[int], classes: int, attention: int) -> None:
        super().__init__()
        widths = [channels, *maps]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(a, b, i + 1 < len(maps), i == 0)
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.attends = attention
        self.attention = SelfAttention(maps[attention - 1]) if attention else nn.Identity()
        self.head = ProjectionHead(maps[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """h, (B, maps), the sum over all places."""
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if i == self.attends:
                x = self.attention(x)
        return F.relu(x).sum((2, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return logits(self.head(self.features(x), y))


def orthogonal(net: nn.Module) -> None:
    """Begin with orthogonal weights."""
    for p in net.parameters():
        if p.ndim > 1:
            nn.init.orthogonal_(p)


def off_diagonal(weight: Tensor) -> Tensor:
    """‖W Wᵀ ⊙ (1 - I)‖², a row of W for each output."""
    rows = weight.flatten(1)
    products = rows @ rows.T
    return (products - products.diag().diag()).square().sum()


def truncated(u: Tensor, t: float) -> Tensor:
    """Normal values given that they are in [-t, t], of uniform ones in [0, 1)."""
    v = full(u)  # half precision has no inverse of the distribution function
    low = torch.special.ndtr(v.new_tensor(-t))
    return torch.special.ndtri(low + v * (1 - 2 * low)).clamp(-t, t).to(u.dtype)


HINGE = Loss(
    real=lambda s: F.relu(1 - s), fake=lambda s: F.relu(1 + s), maker=lambda s: -s, targets=False
)


@register(
    "biggan",
    paper=Paper(
        "Brock, Donahue, Simonyan",
        "Large Scale GAN Training for High Fidelity Natural Image Synthesis",
        2019,
        "1809.11096",
    ),
    about="a class-conditional residual GAN with a shared embedding, codes for every block, "
    "attention, and codes that can be truncated",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    told=("y",),
    data="digits",
    learns=(
        ("val/cond_acc_digitsnet", ">", 0.85),
        ("val/is_pixels", ">", 5.0),
        ("val/precision_pixels", ">", 0.4),
        ("val/coverage_pixels", ">", 0.2),
        ("val/fid_pixels", "<", 0.7),
    ),
    waive={
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class BigGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: labelled images, height and width multiples of 4 and at least 8.
        chunk: dimensions of each chunk of z. embedding: of e(y).
        width: maps of the last block of G and the first of D, twice as many at each further one.
            widest: at most so many.
        attention: the block of G after which places attend, counted from 1; D's of the same size; 0
            is none.
        beta: β of the orthogonal penalty. standing: passes for the statistics with which is
            sampled; 0 takes the running averages.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1,
            beta2: Adam's decays. loop: options of the adversarial loop.
    """

    truncations = (0.1, 0.5, 1.0, 2.0)  # of a picture of their sweep
    watches = ("loss_d", "loss_g")
    accepts = {"x": Image, "y": Label}
    g: Generator

    def __init__(
        self,
        spec: Spec,
        chunk: Count = 8,
        embedding: Count = 16,
        width: Count = 16,
        widest: Count = 32,
        attention: Whole = 1,
        beta: NonNegative = 1e-4,
        standing: Whole = 16,
        k: Count = 2,
        lr_d: Positive = 4e-4,
        lr_g: Positive = 4e-4,
        beta1: Decay = 0.0,
        beta2: Decay = 0.999,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        spec.require("biggan", **self.accepts)
        m = doublings(*spec.shape[1:])
        if attention > m:
            raise ValueError(
                f"biggan has {m} blocks for {spec}, and attention={attention} names none; set "
                "attention to one of them, or to 0"
            )
        super().__init__(
            spec,
            loop,
            latent=(m + 1) * chunk,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, beta2),
        )
        self.beta, self.standing = beta, standing
        maps = maps_of(m + 1, width, widest)
        synthesis = Synthesis(spec.shape, maps, chunk, embedding, attention)
        self.g = Generator(synthesis, spec.num_classes, embedding, chunk)
        # After d halvings D's maps have the size of G's after block m - d.
        places = m - attention if 0 < attention < m else 0
        net = Discriminator(spec.shape[0], maps[::-1], spec.num_classes, places)
        for part in (self.g, net):
            orthogonal(part)
        normalise(synthesis)
        normalise(net)
        alone = {
            "spectral_norm": "every weight is normalised already",
            "replay": "the store does not know its rows' classes",
        }
        self.d = Adversary(self, net, HINGE, without=alone)

    # -- losses -----------------------------------------------------------------------------------
    def made(self, n: int) -> tuple[Tensor, Tensor]:
        """A step's images and their classes."""
        c = self.noise.integers(n, high=self.spec.num_classes)
        return self.g(self.codes(n), c), c

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]), batch["y"]), self.made(batch.n))

    def ortho(self) -> Tensor:
        """The penalty on every weight of G but the embedding."""
        weights = [p for p in self.g.synthesis.parameters() if p.ndim > 1]
        return torch.stack([off_diagonal(w) for w in weights]).sum()

    def generator_loss(self, batch: Batch) -> Terms:
        ortho = self.ortho()
        return {"loss": self.d.fool(*self.made(batch.n)) + self.beta * ortho, "ortho": ortho}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, ("x", "y"), repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def warm(self, i: int) -> Tensor:
        """Pass i for standing statistics: codes and classes of its own, the same in every call."""
        g = seeded("standing", i, device=self.device)
        source = Draw(g, self.device, self.float_dtype)
        y = torch.randint(self.spec.num_classes, (ROWS,), generator=g, device=self.device)
        return self.g(self.draw_codes(ROWS, source), y)

    def from_codes(self, z: Tensor, *, y: Tensor) -> Tensor:
        """G(z, y) in the units of ``spec``, (B, *shape)."""
        with standing(self.g, self.standing, self.warm):
            return self.quantised(self.g(z, y))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        y: Tensor,
        truncation: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        Args:
            truncation: the largest |z|; None is no limit.
        """
        source = Draw(generator, self.device, self.float_dtype)
        if truncation is None:
            return self.from_codes(self.draw_codes(n, source), y=y)
        return self.from_codes(truncated(source.uniform(n, self.latent), truncation), y=y)

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10, *, y: Tensor) -> Tensor:
        """Images of classes y along the path between codes a and b: (B, frames, *shape)."""
        z, c = path(self.prior, a, b, frames), y.repeat_interleave(frames)
        return self.from_codes(z.flatten(0, 1), y=c).unflatten(0, (len(a), frames))
