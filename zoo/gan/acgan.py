"""AC-GAN: a discriminator that also tells the classes of what it sees, and a generator told which
class to make.

Paper      Odena, Olah, Shlens. Conditional Image Synthesis with Auxiliary Classifier GANs. ICML
           2017. arXiv:1610.09585.
Model      x = G(z, c), c uniform over the classes. D is one trunk with two heads: s(v), the logit
           of v being real, and P(C | v). No label enters D.
Objective  L_S = E log D(x) + E log(1 - D(G(z, c))),   L_C = E log P(C = y | x) + E log P(C = c |
           G(z, c))   (equations 2 and 3).
           D:  -L_S - w_d L_C, G(z_D, c_D) detached: the generated images' classes are D's business
           too.
           G:  -E log D(G(z_G, c_G)) (g_loss="nonsat"; "minimax" is the paper's L_S) - w_g E log P(C
           = c_G | G(z_G, c_G)).
Logs       train/class_acc_real, train/class_acc_fake: shares that D's own head classifies as
           labelled, as asked; val/* of the same on held-out images and on draws. D's head was
           trained on G's images and flatters them: judge by val/cond_acc_*. val/ms_ssim: mean
           MS-SSIM of two draws of one class, val/ms_ssim_real of two held-out images of one class
           (section 4.2): a generator whose classes collapse lies above the data.
Sampling   z from the prior, c given or uniform, G(z, c) quantised.
Notes      The class joins z as a one-hot vector, as in the paper. MS-SSIM has five scales and an
           11x11 window from 176 pixels on, and below, a 5x5 window and as many scales as leave it
           room (two at 16x16); both of a pair are in one validation minibatch. ``arch="paper"`` is
           the discriminator of table 2, whose dropout is drawn by each process on its own; its
           activation noise is not here (``loop.instance_noise`` is on the input). The default nets
           have layer norm in G and none in D, and no dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from zoo.core import DataSpec, GeneratorModule, LoopOptions, Phase
from zoo.core.adversarial import TOOLKIT
from zoo.core.module import Batch
from zoo.nn import small
from zoo.nn.prior import Draw
from zoo.registry import Paper, register

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the exponents of MS-SSIM (Wang et al. 2003)


class Discriminator(nn.Module):
    """x -> (B, 1 + classes): the logit of being real, then those of the classes, by two heads on
    one trunk's features.
    """

    def __init__(self, trunk: nn.Module, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.trunk, self.dropout = trunk, nn.Dropout(dropout)
        self.source, self.classes = nn.Linear(features, 1), nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, features)."""
        return self.trunk(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.features(x))
        return small.full(torch.cat([self.source(h), self.classes(h)], 1))


def paper_trunk(shape: tuple[int, ...], width: int, dropout: float) -> tuple[nn.Module, int]:
    """Table 2: six 3x3 convolutions of strides 2, 1, 2, 1, 2, 1, batch norm from the second on,
    leaky ReLU, dropout after each.
    """
    layers: list[nn.Module] = []
    filters, (inputs, *sides) = width, shape
    for i in range(6):
        layers += [
            nn.Conv2d(inputs, filters, 3, 2 - i % 2, 1, bias=not i),
            *([nn.BatchNorm2d(filters)] if i else []),
            nn.LeakyReLU(0.2),
        ]
        layers += [nn.Dropout(dropout)] if i < 5 else []  # the last one is the heads'
        inputs, filters = filters, 2 * filters
        sides = [-(-side // 2) for side in sides] if i % 2 == 0 else sides
    return nn.Sequential(*layers), inputs * sides[0] * sides[1]


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity of pairs of images in [0, 1], (B,); 1 for equal ones."""
    side = min(a.shape[2:])
    window = 11 if side >= 11 << 4 else 5
    scales = sum(side >> i >= window for i in range(5))
    betas = tuple(beta / sum(SCALES[:scales]) for beta in SCALES[:scales])
    value = multiscale_structural_similarity_index_measure(
        a,
        b,
        sigma=1.5 if window == 11 else 0.5,
        kernel_size=window,
        betas=betas,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(value, Tensor)
    return value.view(len(a))


def partners(y: Tensor) -> Tensor:
    """For each row the next one with its label, cyclically; itself where there is none. (B,)."""
    i = torch.arange(len(y), device=y.device)
    ahead = (i - i[:, None] - 1) % len(y)  # itself comes last
    return ahead.masked_fill(y != y[:, None], len(y)).argmin(1)


@register(
    "acgan",
    paper=Paper(
        "Odena, Olah, Shlens",
        "Conditional Image Synthesis with Auxiliary Classifier GANs",
        2017,
        "1610.09585",
    ),
    about="the discriminator names the class of real and generated images, and the generator "
    "makes the class it is told",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "classify"},
    conditions_on="class",
    data="digits",
    learns=(
        ("val/cond_acc_digitsnet", ">", 0.9),
        ("val/class_acc_real", ">", 0.93),
        ("val/fid_pixels", "<", 0.6),
    ),
)
class ACGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: labelled vectors, or labelled images (height and width multiples of 4, at least 8).
        arch: D is "small" or "paper" (images).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32): of G before the
            image, of D's first layer.
        width_d: of D's, where it differs. kernel: of G's convolutions, 4 or 5. norm: of G, "layer",
            "batch" or "none".
        init: "default", or "dcgan" for N(0, 0.02²) convolutions.
        dropout: in D, before the heads ("small") or after every layer ("paper").
        prior: "normal", "uniform" or "sphere". g_loss: "nonsat" or "minimax". k: discriminator
            steps per generator step.
        w_d, w_g: weights of L_C in D's and in G's loss.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    toolkit = TOOLKIT - {"replay"}  # the store does not know its rows' classes

    def __init__(
        self,
        spec: DataSpec,
        arch: str = "small",
        latent: int | None = None,
        width: int | None = None,
        width_d: int | None = None,
        kernel: int = 4,
        norm: str = "layer",
        init: str = "default",
        dropout: float = 0.0,
        prior: str = "normal",
        g_loss: str = "nonsat",
        k: int = 1,
        w_d: float = 1.0,
        w_g: float = 1.0,
        lr_d: float = 5e-4,
        lr_g: float = 5e-4,
        beta1: float = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if arch not in ("small", "paper"):
            raise ValueError(f"acgan's arch is small or paper, got {arch!r}")
        if arch == "paper":
            spec.require("acgan with arch=paper", image=True)
        if spec.num_classes < 2:
            raise ValueError(
                f"acgan models labelled data, got {spec}; choose labelled data such as digits"
            )
        if min(w_d, w_g) < 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"acgan: w_d and w_g are at least 0 and dropout in [0, 1), got {w_d}, {w_g}, "
                f"{dropout}"
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
        self.w_d, self.w_g = w_d, w_g
        wide = width_d or width
        trunk, features = (
            small.trunk(spec.shape, wide)
            if arch == "small"
            else paper_trunk(spec.shape, wide or 16, dropout)
        )
        generator = small.generator(self.latent + spec.num_classes, spec.shape, width, kernel, norm)
        self.build(
            *small.begun(init, generator, Discriminator(trunk, features, spec.num_classes, dropout))
        )

    # -- networks ---------------------------------------------------------------------------------
    def make(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.generator(torch.cat([z, self.one_hot(y)], 1))

    def realness(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.judge(x)[:, 0]

    def draw_classes(self, n: int) -> Tensor:
        """Uniform classes of a step's generated rows, (n,)."""
        return self.noise.integers(n, high=self.spec.num_classes)

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        c = self.draw_classes(len(batch["x"]))
        real, fake = self.scores(batch | {"y": c})  # c is what G is told; D takes no label
        on_real, on_fake = self.prices(real[:, 0], fake[:, 0])
        of_class = F.cross_entropy(real[:, 1:], batch["y"]) + F.cross_entropy(fake[:, 1:], c)
        shares = {
            "class_acc_real": real[:, 1:].argmax(1) == batch["y"],
            "class_acc_fake": fake[:, 1:].argmax(1) == c,
        }
        return {
            "loss": on_real.mean() + on_fake.mean() + self.w_d * of_class,
            "d_class": of_class,
            **self.watch(real[:, 0], fake[:, 0]),
            **{name: share.float().mean() for name, share in shares.items()},
        }

    def generator_loss(self, batch: int | Batch) -> dict[str, Tensor]:
        n = batch if isinstance(batch, int) else len(batch["x"])
        c = self.draw_classes(n)
        out = self.judge(self.seen(self.fakes(n, c)))
        of_class = F.cross_entropy(out[:, 1:], c)
        return {
            "loss": self.price_generator(out[:, 0]).mean() + self.w_g * of_class,
            "g_class": of_class,
        }

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k),
            Phase("g", self.generator_loss, real=False),
        ]

    # -- use --------------------------------------------------------------------------------------
    def classify(self, x: Tensor) -> Tensor:
        """P(C | x), (B, classes), by D."""
        return self.judge(self.d_input(x))[:, 1:].softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        x, y, source = batch["x"], batch["y"], Draw(generator, self.device, self.float_dtype)
        drawn = [self.from_codes(self.draw_codes(len(x), source), y) for _ in range(2)]
        shares = {
            "class_acc_real": self.classify(x).argmax(1) == y,
            "class_acc_fake": self.classify(drawn[0]).argmax(1) == y,
        }
        values = {name: share.to(x.dtype) for name, share in shares.items()}
        if self.spec.is_image:
            made, own = (self.spec.to_unit(v).clamp(0, 1) for v in (torch.stack(drawn), x))
            values["ms_ssim"] = ms_ssim(*made)
            other = partners(y)
            paired = other != torch.arange(len(y), device=y.device)
            if paired.any():  # rows without a partner count as the mean of the others
                values["ms_ssim_real"] = (
                    ms_ssim(own[paired], own[other[paired]]).mean().expand(len(y))
                )
        return values
