"""CatGAN: a discriminator of K categories and no "real": sure about data, unsure about samples, and
using all categories alike.

Paper      Springenberg. Unsupervised and Semi-supervised Learning with Categorical Generative
           Adversarial Networks. ICLR 2016. arXiv:1511.06390.
Model      x = G(z); D gives logits of p(k | v), k = 1..K; nothing in it says real or fake.
Objective  Entropies of the conditional, and of the marginal over the minibatch (nats):
           Hc(V) = E_v H[p(k | v)],
           Hm(V) = H[E_v p(k | v)].
           D:  -Hm(X) + Hc(X) - Hc(G(Z_D)), G(Z_D) detached (equation 7); in mode "semi"
               + λ E -log p(y | x) of labelled rows (equation 9).
           G:  -Hm(G(Z_G)) + Hc(G(Z_G)) (equation 8): no data in it.
           D wants Hm(X) = log K, Hc(X) = 0 and Hc(G) = log K; G wants Hm(G) = log K and Hc(G) = 0.
Logs       train/hm_real, hc_real, hm_fake, hc_fake; train/nmi between category and label on recent
           training rows. val/cluster_acc: share of held-out rows whose likeliest category's label
           is theirs. A category's label is the one that most recent training rows of that category
           have, so no held-out label has a say in it. Mode "semi": val/acc.
Sampling   z from the prior, G(z) quantised.
Notes      The minibatch must hold many more rows than K. Hm is of the rows of all processes
           (cross_rank="gather"), or of each process's own ("local"); with loop.accumulate it is of
           each micro-batch alone, which must then be that large itself. Labelled are as many
           training rows of each class, the first ones, each standing for N/labels rows of the mean
           cross-entropy; in mode "unsup" they only give the categories their labels
           (``zoo.nn.votes``). As in the paper, the inputs of D's layers get gaussian noise in
           training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, FewLabels, GeneratorModule, LoopOptions, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive, Prior, Whole
from zoo.nn import small
from zoo.nn.prior import Source
from zoo.nn.votes import Votes
from zoo.registry import Paper, register

FREE = 20  # categories where nothing says how many


def conditional_entropy(logits: Tensor) -> Tensor:
    """H[p(k | v)], nats, (B,)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def marginal_entropy(p: Tensor) -> Tensor:
    """H of a mean of probabilities, (K,); a scalar. Of a category that underflowed to 0 the
    gradient is 0, not infinite.
    """
    return torch.special.entr(p.clamp(min=torch.finfo(p.dtype).tiny)).sum()


class Discriminator(nn.Module):
    """x -> logits, (B, K), through stages whose inputs get gaussian noise from ``source`` where one
    is given.
    """

    def __init__(self, stages: Sequence[nn.Module], noise: float) -> None:
        super().__init__()
        self.stages, self.noise = nn.ModuleList(stages), noise

    def forward(self, x: Tensor, source: Source | None = None) -> Tensor:
        for stage in self.stages:
            x = stage(
                x if source is None or not self.noise else x + self.noise * source.normal(*x.shape)
            )
        return small.full(x)


def layers(inputs: int, hidden: Sequence[int], outputs: int, norm: str) -> list[nn.Module]:
    """Stages of a linear layer, a norm ("none", "batch" or "layer") and leaky ReLU, and a last
    linear one.
    """
    norms: dict[str, list[type[nn.Module]]] = {
        "none": [],
        "batch": [nn.BatchNorm1d],
        "layer": [nn.LayerNorm],
    }
    stages: list[nn.Module] = []
    for width in hidden:
        stages.append(
            nn.Sequential(
                nn.Linear(inputs, width), *(kind(width) for kind in norms[norm]), nn.LeakyReLU(0.1)
            )
        )
        inputs = width
    return [*stages, nn.Linear(inputs, outputs)]


class Noised(Adversary):
    """An adversary whose layers' inputs get gaussian noise in training."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits of the categories, (B, K)."""
        return self.net(*inputs, self.game.noise if self.training else None)


@register(
    "catgan",
    paper=Paper(
        "Springenberg",
        "Unsupervised and Semi-supervised Learning with Categorical Generative Adversarial "
        "Networks",
        2016,
        "1511.06390",
    ),
    about="a discriminator that clusters: sure and balanced on data, unsure on samples",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "classify"},
    data="digits",
    learns=(
        ("val/cluster_acc", ">", 0.75),
        ("val/classes_pixels", ">", 7.5),
        ("val/fid_pixels", "<", 1.2),
    ),
    waive={"accumulation_equals_one_batch": "the marginal entropy is that of a micro-batch"},
)
class CatGAN(FewLabels, GeneratorModule):
    """See the module's docstring.

    Args:
        spec: any data; images for arch="conv" (height and width multiples of 4, at least 8);
            labelled in mode "semi".
        mode: "unsup", or "semi" for a few labels. classes: K; 0 is the data's number of classes in
            mode "semi", else 20.
        labels: training rows whose labels are used; None for all. lam: λ.
        arch: "mlp" or "conv". hidden_d, hidden_g: hidden units ("mlp"). width: filters ("conv").
            norm_d, norm_g: "none", "batch", "layer".
        noise: standard deviation of the noise on the inputs of D's layers in training.
        latent: dimension of z; None is that of the data for vectors and 32 for images. prior:
            "normal", "uniform" or "sphere".
        k: discriminator steps per generator step. cross_rank: "gather" or "local".
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("nmi",)

    def __init__(
        self,
        spec: Spec,
        mode: Literal["unsup", "semi"] = "unsup",
        classes: Whole = 0,
        labels: Count | None = None,
        lam: NonNegative = 1.0,
        arch: Literal["mlp", "conv"] = "mlp",
        hidden_d: Sequence[Count] = (128, 128),
        hidden_g: Sequence[Count] = (128, 128),
        width: Count | None = None,
        norm_d: Norm = "none",
        norm_g: Norm = "layer",
        noise: NonNegative = 0.3,
        latent: Count | None = None,
        prior: Prior = "normal",
        k: Count = 1,
        cross_rank: Literal["gather", "local"] = "gather",
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if mode == "semi" and not spec.num_classes:
            raise ValueError(
                f"catgan's mode semi needs labels, got {spec}; choose labelled data such as "
                "digits, or mode=unsup"
            )
        if mode == "semi" and classes not in (0, spec.num_classes):
            raise ValueError(
                f"catgan's classes is free in mode unsup only, got {classes} for "
                f"{spec.num_classes} classes; leave it at 0"
            )
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
        self.mode, self.lam, self.cross_rank = mode, lam, cross_rank
        self.classes = classes or (spec.num_classes if mode == "semi" else FREE)
        if self.classes < 2:
            raise ValueError(
                f"catgan needs at least two classes, got {self.classes}; raise classes"
            )
        if arch == "conv":
            spec.require("catgan with arch=conv", x=Image)
            self.g = small.ConvGenerator(self.latent, spec.shape, width or 32, norm=norm_g)
            net = small.ConvDiscriminator(
                spec.shape, width or 32, norm=norm_d, outputs=self.classes
            )
            stages = [*net.stages, nn.Sequential(net.end, nn.Flatten())]
        else:
            end = [nn.Tanh()] if spec.levels is not None else []
            made = layers(self.latent, hidden_g, spec.dim, norm_g)
            self.g = nn.Sequential(*made, *end, nn.Unflatten(1, spec.shape))
            stages = layers(spec.dim, hidden_d, self.classes, norm_d)
            stages[0] = nn.Sequential(nn.Flatten(), stages[0])
        # How sure D is, -H[p(k | x)], is what R1 differentiates.
        d = Discriminator(stages, noise)
        self.d = Noised(self, d, realness=lambda logits: -conditional_entropy(logits))
        self.votes = Votes(self.classes, spec.num_classes)
        self.use_labels(labels)

    # -- losses -----------------------------------------------------------------------------------
    def entropies(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Hm and Hc of a minibatch."""
        p = logits.softmax(1).mean(0)
        marginal = marginal_entropy(self.shared_mean(p) if self.cross_rank == "gather" else p)
        return marginal, conditional_entropy(logits).mean()

    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.scaled(batch["x"])
        real, fake = self.d.both((x,), (self.g(self.codes(batch.n)),))
        hm_real, hc_real = self.entropies(real)
        hm_fake, hc_fake = self.entropies(fake)
        loss = -hm_real + hc_real - hc_fake
        terms = {"hm_real": hm_real, "hc_real": hc_real, "hm_fake": hm_fake, "hc_fake": hc_fake}
        if self.mode == "semi":
            terms["ce"] = self.label_cost(real, batch)
            loss = loss + self.lam * terms["ce"]
        if self.spec.num_classes:
            self.votes.add(real.argmax(1), batch["y"], self.reduce, self.labelled(batch))
            terms["nmi"] = self.votes.nmi()
        return self.d.regularised({"loss": loss, **terms}, x)

    def generator_loss(self, batch: Batch) -> Terms:
        hm, hc = self.entropies(self.d.see(self.g(self.codes(batch.n))))
        return {"loss": hc - hm}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        reads = ("x", "y") if self.spec.num_classes else ("x",)
        return [
            Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def categories(self, x: Tensor) -> Tensor:
        """p(k | x), (B, K), of examples in the units of ``spec``."""
        return self.d(self.scaled(x)).softmax(1)

    def classify(self, x: Tensor) -> Tensor:
        """P(y | x), (B, num_classes): in mode "unsup" each category's probability goes to its
        label.
        """
        if not self.spec.num_classes:
            raise ValueError(
                f"catgan needs labels to name its categories, got {self.spec}; choose labelled "
                f"data such as digits"
            )
        p = self.categories(x)
        return (
            p
            if self.mode == "semi"
            else p @ F.one_hot(self.votes.names(), self.spec.num_classes).to(p.dtype)
        )

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        x = batch["x"]
        logits = self.d(self.scaled(x))
        values = {"hc_real": conditional_entropy(logits)}
        if self.spec.num_classes:
            said = logits.argmax(1) if self.mode == "semi" else self.votes.names()[logits.argmax(1)]
            values["acc" if self.mode == "semi" else "cluster_acc"] = (said == batch["y"]).to(
                logits.dtype
            )
        return values
