"""AM-GAN: the discriminator has a class for fakes beside the data's, and the generator pushes each
sample towards one class of data.

Paper      Zhou, Cai, Rong, Song, Ren, Zhang, Wang, Yu. Activation Maximization Generative
           Adversarial Nets. ICLR 2018. arXiv:1703.02000.
Model      x = G(z). D(v) = softmax(l(v)) over K classes of data and, last, "fake"; the fake logit
           is learned like the others.
Objective  D:  -E log D_y(x) - E log D_{K+1}(G(z_D)), G(z_D) detached: cross-entropy over K + 1
           classes.
           G:  -E log D_{y*}(G(z_G)), y* one class of data for each sample, without gradient:
               mode="dynamic"     y* = argmax_{i≤K} D_i(G(z)), found anew in each of G's steps
                                  (section 4.2);
               mode="predefined"  y* = c, the class that G(z, c) was told, uniform.
           mode="label_gan" is the contrast, LabelGAN (Salimans et al. 2016): -E log Σ_{i≤K}
           D_i(G(z)). Gradients with respect to l: LabelGAN raises l_k, k ≤ K, by (1 - D_r) D_k/D_r,
           D_r = Σ_{i≤K} D_i: towards the classes in proportion to what D already believes. AM-GAN
           raises l_{y*} by 1 - D_{y*} and lowers every other l_k by D_k.
Logs       train/fake_max_prob = E max_{i≤K} D_i(G(z)); train/acc, val/acc: share of real rows whose
           most probable class of data is theirs. val/am_*: the paper's AM score, of samples under a
           classifier that is not D (zoo.metrics.am_score).
Sampling   z from the prior, G(z) quantised; in mode predefined G(z, c), c given or uniform.
Notes      For K = 1 every mode is the non-saturating GAN with the logit l_1 - l_2. A smoothed
           target (loop.label_smooth) is the label with a and "fake" with 1 - a; a generated row
           whose target is flipped gets its dynamic class. The default nets have layer norm in G and
           none in D; the paper's weight normalisation is not here, and noise on D's inputs is
           loop.instance_noise, which fades.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core import DataSpec, GeneratorModule, LoopOptions, Phase
from zoo.core.module import Batch
from zoo.nn import small
from zoo.registry import Paper, register

MODES = ("dynamic", "predefined", "label_gan")


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

    def __init__(
        self,
        spec: DataSpec,
        mode: str = "dynamic",
        latent: int | None = None,
        width: int | None = None,
        kernel: int = 4,
        norm: str = "layer",
        norm_d: str = "none",
        prior: str = "normal",
        k: int = 1,
        lr_d: float = 5e-4,
        lr_g: float = 5e-4,
        beta1: float = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"am_gan's mode is one of {', '.join(MODES)}, got {mode!r}")
        if not spec.num_classes:
            raise ValueError(
                f"am_gan models labelled data, got {spec}; choose labelled data such as digits"
            )
        super().__init__(
            spec, loop, latent=latent, prior=prior, k=k, lr_d=lr_d, lr_g=lr_g, betas=(beta1, 0.999)
        )
        self.mode = mode
        told = spec.num_classes if mode == "predefined" else 0
        self.build(
            small.generator(self.latent + told, spec.shape, width, kernel, norm),
            small.discriminator(spec.shape, width, kernel, norm_d, outputs=spec.num_classes + 1),
        )

    # -- networks ---------------------------------------------------------------------------------
    @property
    def conditions_on(self) -> str:
        return "class" if self.mode == "predefined" else ""

    def make(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.generator(
            torch.cat([z, self.one_hot(y)], 1) if self.mode == "predefined" else z
        )

    def realness(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The log-odds of not being fake."""
        logits = self.judge(x)
        return logits[:, :-1].logsumexp(1) - logits[:, -1]

    def draw_classes(self, n: int) -> Tensor | None:
        """What G is told of a step's rows, (n,)."""
        return (
            self.noise.integers(n, high=self.spec.num_classes)
            if self.mode == "predefined"
            else None
        )

    # -- losses, from log D_y and log D_{K+1} -----------------------------------------------------
    def price_real(self, s: Tensor) -> Tensor:
        return -s[:, 0]

    def price_fake(self, s: Tensor) -> Tensor:
        return -s[:, 1]

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        y, c = batch["y"], self.draw_classes(len(batch["x"]))
        real, fake = self.scores({"x": batch["x"]} if c is None else {"x": batch["x"], "y": c})
        on_real, on_fake = self.prices(
            of_class_and_fake(real, y), of_class_and_fake(fake, dynamic_class(fake))
        )
        shares = {"acc": dynamic_class(real) == y}
        shares |= {
            "d_acc_real": real.argmax(1) < self.spec.num_classes,
            "d_acc_fake": fake.argmax(1) == self.spec.num_classes,
        }
        return {
            "loss": on_real.mean() + on_fake.mean(),
            **{name: share.float().mean() for name, share in shares.items()},
        }

    def generator_loss(self, batch: int | Batch) -> dict[str, Tensor]:
        n = batch if isinstance(batch, int) else len(batch["x"])
        c = self.draw_classes(n)
        logits = self.judge(self.seen(self.fakes(n, c)))
        if self.mode == "label_gan":
            loss = any_class(logits)
        else:
            loss = F.cross_entropy(
                logits, dynamic_class(logits) if c is None else c, reduction="none"
            )
        return {"loss": loss.mean(), "fake_max_prob": logits.softmax(1)[:, :-1].amax(1).mean()}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k),
            Phase("g", self.generator_loss, real=False),
        ]

    # -- use --------------------------------------------------------------------------------------
    def classify(self, x: Tensor) -> Tensor:
        """P(y | x, not fake), (B, classes), by D."""
        return self.judge(self.d_input(x))[:, :-1].softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        logits = self.judge(self.d_input(batch["x"]))
        shares = {
            "acc": dynamic_class(logits) == batch["y"],
            "d_acc_real": logits.argmax(1) < self.spec.num_classes,
        }
        return {name: share.to(logits.dtype) for name, share in shares.items()}
