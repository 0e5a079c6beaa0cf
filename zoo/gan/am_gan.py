"""AM-GAN: the discriminator has a class for fakes beside the data's, and the generator pushes each
sample towards one class of data.

Paper      Zhou, Cai, Rong, Song, Ren, Zhang, Wang, Yu. Activation Maximization Generative
           Adversarial Nets. ICLR 2018. arXiv:1703.02000.
Model      x = G(z). D(v) = softmax(l(v)) over K classes of data and, last, "fake"; the fake logit
           is learned like the others.
Objective  D:  -E log D_y(x) - E log D_{K+1}(G(z_D)), G(z_D) detached:
               cross-entropy over K + 1 classes.
           G:  -E log D_{y*}(G(z_G)), y* one class of data for each sample, without gradient:
               mode="dynamic"     y* = argmax_{i≤K} D_i(G(z)), found anew in each of G's steps
                                  (section 4.2);
               mode="predefined"  y* = c, the class that G(z, c) was told, uniform.
           mode="label_gan" is the contrast, LabelGAN (Salimans et al. 2016):
               -E log Σ_{i≤K} D_i(G(z)).
           Gradients with respect to l:
               LabelGAN raises l_k, k ≤ K, by (1 - D_r) D_k/D_r, D_r = Σ_{i≤K} D_i: towards the
               classes in proportion to what D already believes.
               AM-GAN raises l_{y*} by 1 - D_{y*} and lowers every other l_k by D_k.
Logs       train/fake_max_prob = E max_{i≤K} D_i(G(z)); train/acc, val/acc: share of real rows whose
           most probable class of data is theirs. val/am_*: the paper's AM score, of samples under a
           classifier that is not D (zoo.metrics.am_score).
Sampling   z from the prior, G(z) quantised; in mode predefined G(z, c), c given.
Notes      For K = 1 every mode is the non-saturating GAN with the logit l_1 - l_2. A smoothed
           target (loop.label_smooth) is the label with a and "fake" with 1 - a; a generated row
           whose target is flipped gets its dynamic class. The default nets have layer norm in G and
           none in D; the paper's weight normalisation is not here, and noise on D's inputs is
           loop.instance_noise, which fades.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Label, Spec, Vector
from zoo.core.options import Count, Decay, Norm, Positive, Prior
from zoo.nn import small
from zoo.nn.prior import Draw, path
from zoo.registry import Paper, register


def dynamic_class(logits: Tensor) -> Tensor:
    """y* = argmax_{i≤K} D_i, (B,), of logits (B, K + 1)."""
    return logits[:, :-1].detach().argmax(1)


def any_class(logits: Tensor) -> Tensor:
    """-log Σ_{i≤K} D_i: LabelGAN's loss of G, (B,)."""
    return logits.logsumexp(1) - logits[:, :-1].logsumexp(1)


def of_class_and_fake(logits: Tensor, y: Tensor) -> Tensor:
    """log D_y and log D_{K+1}, (B, 2)."""
    log_p = logits.log_softmax(1)
    return torch.stack([log_p.gather(1, y[:, None])[:, 0], log_p[:, -1]], 1)


def not_fake(logits: Tensor) -> Tensor:
    """The log-odds of not being fake, (B,)."""
    return logits[:, :-1].logsumexp(1) - logits[:, -1]


# From log D_y and log D_{K+1}, (B, 2): what D pays for a row of data of class y, and for a made
# one.
OF_CLASS_AND_FAKE = Loss(real=lambda s: -s[:, 0], fake=lambda s: -s[:, 1], maker=lambda s: -s[:, 0])


@register(
    "am_gan",
    paper=Paper(
        "Zhou, Cai, Rong, Song, Ren, Zhang, Wang, Yu",
        "Activation Maximization Generative Adversarial Nets",
        2018,
        "1703.02000",
    ),
    about="a discriminator of K + 1 classes, and a generator that raises one class of data for "
    "each sample",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "classify"},
    data="digits",
    learns=(
        ("val/classes_pixels", ">", 7.5),
        ("val/is_pixels", ">", 4.0),
        ("val/acc", ">", 0.9),
        ("val/fid_pixels", "<", 0.6),
    ),
)
class AMGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: labelled vectors, or labelled images (height and width multiples of 4, at least 8).
        mode: how G's target is chosen, "dynamic" or "predefined"; or "label_gan".
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32). kernel: of the
            convolutions, 4 or 5.
        norm: of G, "layer", "batch" or "none". norm_d: of D.
        prior: "normal", "uniform" or "sphere". k: discriminator steps per generator step.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("acc",)
    accepts = {"x": (Vector, Image), "y": Label}

    def __init__(
        self,
        spec: Spec,
        mode: Literal["dynamic", "predefined", "label_gan"] = "dynamic",
        latent: Count | None = None,
        width: Count | None = None,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "layer",
        norm_d: Norm = "none",
        prior: Prior = "normal",
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
        )
        self.mode = mode
        told = spec.num_classes if mode == "predefined" else 0
        self.g = small.generator(self.latent + told, spec.shape, width, kernel, norm)
        outputs = spec.num_classes + 1
        d = small.discriminator(spec.shape, width, kernel, norm_d, outputs=outputs)
        self.d = Adversary(self, d, OF_CLASS_AND_FAKE, realness=not_fake)

    @property
    def told(self) -> tuple[str, ...]:
        return ("y",) if self.mode == "predefined" else ()

    # -- losses -----------------------------------------------------------------------------------
    def draw_classes(self, n: int) -> Tensor | None:
        """What G is told of a step's rows, (n,)."""
        if self.mode != "predefined":
            return None
        return self.noise.integers(n, high=self.spec.num_classes)

    def make(self, z: Tensor, c: Tensor | None) -> Tensor:
        """G(z), or G(z, c)."""
        if c is None:
            return self.g(z)
        return self.g(torch.cat([z, F.one_hot(c, self.spec.num_classes).to(z.dtype)], 1))

    def discriminator_loss(self, batch: Batch) -> Terms:
        x, y, c = self.scaled(batch["x"]), batch["y"], self.draw_classes(batch.n)
        real, fake = self.d.both((x,), (self.make(self.codes(batch.n), c),))
        # A made row whose target is flipped gets its dynamic class.
        on_real = of_class_and_fake(real, y)
        on_fake = of_class_and_fake(fake, dynamic_class(fake))
        shares = {
            "acc": dynamic_class(real) == y,
            "d_acc_real": real.argmax(1) < self.spec.num_classes,
            "d_acc_fake": fake.argmax(1) == self.spec.num_classes,
        }
        terms = {name: share.float().mean() for name, share in shares.items()}
        return self.d.regularised({"loss": self.d.cost(on_real, on_fake), **terms}, x)

    def generator_loss(self, batch: Batch) -> Terms:
        c = self.draw_classes(batch.n)
        logits = self.d.see(self.make(self.codes(batch.n), c))
        if self.mode == "label_gan":
            loss = any_class(logits)
        else:
            target = dynamic_class(logits) if c is None else c
            loss = F.cross_entropy(logits, target, reduction="none")
        return {
            "loss": loss.mean(),
            "fake_max_prob": logits.softmax(1)[:, :-1].amax(1).mean(),
        }

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, ("x", "y"), repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor, *, y: Tensor | None = None) -> Tensor:
        """G(z), or G(z, y), in the units of ``spec``, (B, *shape)."""
        if self.told and y is None:
            raise ValueError(
                "am_gan with mode=predefined is told the class; give y=, labels 0 to "
                f"{self.spec.num_classes - 1}"
            )
        return self.quantised(self.make(z, y if self.told else None))

    @torch.no_grad()
    def sample(
        self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        return self.from_codes(self.draw_codes(n, source), y=y)

    @torch.no_grad()
    def interpolate(
        self, a: Tensor, b: Tensor, frames: int = 10, *, y: Tensor | None = None
    ) -> Tensor:
        """Examples along the path between codes a and b, of classes y: (B, frames, *shape)."""
        z = path(self.prior, a, b, frames)
        y = None if y is None else y.repeat_interleave(frames)
        return self.from_codes(z.flatten(0, 1), y=y).unflatten(0, (len(a), frames))

    def classify(self, x: Tensor) -> Tensor:
        """P(y | x, not fake), (B, classes), by D."""
        return self.d(self.scaled(x))[:, :-1].softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        logits = self.d(self.scaled(batch["x"]))
        shares = {
            "acc": dynamic_class(logits) == batch["y"],
            "d_acc_real": logits.argmax(1) < self.spec.num_classes,
        }
        return {name: share.to(logits.dtype) for name, share in shares.items()}
