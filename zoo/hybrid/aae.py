"""AAE: adversarial auto-encoder.

Paper      Makhzani, Shlens, Jaitly, Goodfellow, Frey. Adversarial Autoencoders. ICLR 2016 workshop.
           arXiv:1511.05644.
Model      z = Enc(x), x̂ = Dec(z); the codes' distribution q(z) is drawn to a prior p(z), of which
           only draws are needed: a gaussian, a mixture of ten 2-d gaussians on a circle, or a Swiss
           roll. Enc is deterministic, gaussian, or a function of x + noise (``q``).
           mode        what else (section)
           unsup       nothing (2)
           label_reg   D also sees a label, or "none"; label k's codes come from the prior's
                       component k (2.3)
           sup         Dec also gets the label, so z is left the style (4)
           semi        Enc also gives ŷ = softmax; Dec gets (ŷ, z); a second D draws ŷ to one-hot
                       draws; a few labels (5)
           cluster     semi without labels (6)
Objective  In this order, each with its own minibatch and optimiser:
           Enc, Dec:  ½ ‖x - x̂‖² summed over dimensions, or binary cross-entropy.
           D:         -log D(z') - log(1 - D(Enc(x))), z' ~ p(z), Enc(x) without gradient; in semi
                      and cluster the same of ŷ for the second D.
           Enc:       -log D(Enc(x)), Dec and D untouched. Enc's two roles have separate optimiser
                      states.
           Enc:       semi only, -log ŷ_y of labelled rows.
Sampling   z ~ p(z), Dec(z); where Dec or the prior takes a label, the one given; in mode cluster a
           uniform category.
Notes      Labelled are as many training rows of each class, the first ones; each stands for
           N/labels rows of the cross-entropy's mean, so that a minibatch's number of labels does
           not matter. The mixture's components have means 2 (cos 2πk/10, sin 2πk/10) and deviations
           0.5 along the radius and 0.1 across. The Swiss roll is t (cos t, sin t)/5, t = 3π/2 (1 +
           2u); its component k is u in [k/10, (k+1)/10). ``std`` scales each prior. Default
           networks are narrower than the paper's and learn with Adam. val/code_std_*,
           val/code_mean_max and val/code_mmd are statistics of the codes of one validation
           minibatch, averaged over minibatches.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from zoo.bases import AdversarialModule, Adversary, FewLabels, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Positive, Whole
from zoo.nn.coders import mlp
from zoo.nn.gaussian import reparameterise, soft_clamp
from zoo.nn.prior import Draw, Source, path
from zoo.nn.small import full
from zoo.registry import Paper, register

COMPONENTS = 10


def draw_labels(n: int, classes: int, source: Source) -> Tensor:
    """(n,) uniform labels."""
    return (source.uniform(n) * classes).long().clamp(max=classes - 1)


def draw_of(kind: str, n: int, dim: int, source: Source, k: Tensor | None = None) -> Tensor:
    """(n, dim) draws of a prior; of its component ``k``, (n,), where that is given (mixture,
    swiss_roll).
    """
    if kind == "gaussian":
        return source.normal(n, dim)
    k = draw_labels(n, COMPONENTS, source) if k is None else k
    if kind == "mixture":
        angle = 2 * math.pi * k / COMPONENTS
        cos, sin = angle.cos(), angle.sin()
        along, across = (source.normal(n, 2) * torch.tensor([0.5, 0.1], device=k.device)).unbind(1)
        return torch.stack([cos * (2 + along) - sin * across, sin * (2 + along) + cos * across], 1)
    t = 1.5 * math.pi * (1 + 2 * (k + source.uniform(n)) / COMPONENTS)
    return torch.stack([t * t.cos(), t * t.sin()], 1) / 5


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, unbiased, of two samples of equal size; gaussian kernel
    with the median distance as bandwidth.
    """
    n, both = len(a), full(torch.cat([a, b]))
    distance = torch.cdist(both, both).square()
    kernel = (-distance / (2 * distance[distance > 0].median())).exp()
    aa, bb, ab = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    return (aa.sum() + bb.sum() - 2 * n) / (n * (n - 1)) - 2 * ab.mean()


# -log D(z'), -log(1 - D(Enc(x))), and what Enc pays, -log D(Enc(x)), from logits s.
NONSATURATING = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s))


class Joined(nn.Module):
    """Logits, (B,), of inputs side by side."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0]).squeeze(1)


@register(
    "aae",
    paper=Paper(
        "Makhzani, Shlens, Jaitly, Goodfellow, Frey", "Adversarial Autoencoders", 2015, "1511.05644"
    ),
    about="an auto-encoder whose codes a discriminator draws to a prior of any shape",
    taxonomy="hybrid",
    likelihood="none",
    can={"sample", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(
        ("val/mse_ratio", "<", 0.25),
        ("val/code_std_min", ">", 0.6),
        ("val/code_std_max", "<", 1.5),
        ("val/code_mean_max", "<", 0.4),
    ),
)
class AAE(FewLabels, AdversarialModule):
    """See the module's docstring.

    Args:
        mode: "unsup", "label_reg", "sup", "semi" or "cluster". prior: "gaussian", "mixture" or
            "swiss_roll" (the last two in 2-d).
        std: scale of the prior. latent: dimension of z. q: Enc is a "point", "gaussian", or a
            function of x + "noise".
        classes: categories of ŷ; 0 is the data's number of classes, in "cluster" mode 16. labels:
            training rows whose labels are used (label_reg, semi); None for all.
        width, layers: hidden units and layers of every network. recon: "l2" or "bce".
        optimiser: "adam", or the paper's "sgd" with momentum 0.9 for the auto-encoder and the
            classifier, 0.1 for the game.
        lr: of Enc and Dec. lr_adv: of D, and of Enc against D. lr_label: of Enc on labels.
        decay_every: cycles after which all rates are divided by ten; 0 is never. loop: options of
            the adversarial loop.
    """

    watches = ("mse", "d_acc")
    mean_error: Tensor

    def __init__(
        self,
        spec: Spec,
        mode: Literal["unsup", "label_reg", "sup", "semi", "cluster"] = "unsup",
        prior: Literal["gaussian", "mixture", "swiss_roll"] = "gaussian",
        std: Positive = 1.0,
        latent: Count = 8,
        q: Literal["point", "gaussian", "noise"] = "point",
        classes: Whole = 0,
        labels: Count | None = None,
        width: Count = 200,
        layers: Count = 2,
        recon: Literal["l2", "bce"] = "l2",
        optimiser: Literal["adam", "sgd"] = "adam",
        lr: Positive = 1e-3,
        lr_adv: Positive = 2e-4,
        lr_label: Positive = 1e-3,
        decay_every: Whole = 1500,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        if prior != "gaussian" and latent != 2:
            raise ValueError(
                f"aae: the prior {prior} lies in the plane, got latent={latent}; set latent=2, or "
                "prior=gaussian"
            )
        if mode in ("label_reg", "sup", "semi") and not spec.num_classes:
            raise ValueError(
                f"aae's mode {mode} needs labels, got {spec}; choose labelled data such as digits, "
                "or mode=unsup"
            )
        if mode == "label_reg" and (prior == "gaussian" or spec.num_classes > COMPONENTS):
            raise ValueError(
                f"aae: label_reg gives each of {spec.num_classes} classes one of {COMPONENTS} "
                "components; set prior=mixture"
            )
        if recon == "bce" and spec.levels is None:
            raise ValueError(f"aae's recon=bce is for values in [0, 1], got {spec}; set recon=l2")
        if classes and mode != "cluster" and classes != spec.num_classes:
            raise ValueError(
                f"aae: classes is free in mode cluster only, got {classes} for {spec.num_classes} "
                "classes; leave it at 0"
            )
        self.mode, self.prior, self.std, self.latent = mode, prior, std, latent
        self.q, self.recon = q, recon
        self.optimiser, self.decay_every = optimiser, decay_every
        self.rates = {"ae": lr, "d": lr_adv, "g": lr_adv}
        if mode == "semi":
            self.rates["c"] = lr_label
        self.classes = classes or (16 if mode == "cluster" else spec.num_classes)
        self.categorical = mode in ("semi", "cluster")
        beside = self.classes if self.categorical or mode == "sup" else 0  # z, for Dec
        tag = self.classes + 1 if mode == "label_reg" else 0  # beside z, for D
        code = latent * (2 if q == "gaussian" else 1) + (self.classes if self.categorical else 0)
        self.encoder = mlp(spec.dim, code, width, layers)
        self.decoder = mlp(latent + beside, spec.dim, width, layers)
        of_codes = Joined(mlp(latent + tag, 1, width, layers))
        rows = [(latent,), (tag,)] if tag else [(latent,)]
        alone = {"separate_batches": "its networks have no batch statistics"}
        self.d = Adversary(self, of_codes, NONSATURATING, inputs=rows, without=alone)
        self.d_label: Adversary | None = None
        if self.categorical:
            of_labels = Joined(mlp(self.classes, 1, width, layers))
            self.d_label = Adversary(self, of_labels, NONSATURATING, inputs=[(self.classes,)])
        self.register_buffer("mean_error", torch.ones(()))  # of the mean image, per pixel
        self.use_labels(labels)

    def initialise_from(self, batch: Batch) -> None:
        v = self.spec.to_unit(batch["x"])
        self.mean_error.copy_((v - v.mean(0)).square().mean())
        super().initialise_from(batch)

    # -- losses -----------------------------------------------------------------------------------
    def coded(self, x: Tensor, source: Source | None) -> tuple[Tensor, Tensor | None]:
        """z, (B, latent), of examples in the units of ``spec``, and logits of ŷ, (B, classes), or
        None; without source, no noise.
        """
        v = self.spec.to_unit(x).flatten(1)
        if self.q == "noise" and source is not None:
            v = v + source.normal(*v.shape)
        h = self.encoder(v)
        logits = h[:, -self.classes :] if self.categorical else None
        z = h[:, : self.latent]
        if self.q == "gaussian" and source is not None:
            log_var = soft_clamp(h[:, self.latent : 2 * self.latent])
            z = reparameterise(z, log_var, source.normal(*z.shape))
        return z, logits

    def beside(self, logits: Tensor | None, y: Tensor | None) -> Tensor | None:
        """What Dec is told beside z, (B, classes): ŷ, or the one-hot label, or nothing."""
        if logits is not None:
            return logits.softmax(1)
        return self.one_hot(y) if self.mode == "sup" and y is not None else None

    def one_hot(self, y: Tensor, classes: int | None = None) -> Tensor:
        return F.one_hot(y, classes or self.classes).to(self.float_dtype)

    def decoded(self, z: Tensor, beside: Tensor | None) -> Tensor:
        """Dec's output before its end (a sigmoid for images), (B, D)."""
        return self.decoder(z if beside is None else torch.cat([z, beside], 1))

    def end(self, out: Tensor) -> Tensor:
        return out if self.spec.levels is None else out.sigmoid()

    def prior_codes(self, n: int, source: Source, k: Tensor | None = None) -> Tensor:
        return self.std * draw_of(self.prior, n, self.latent, source, k).to(self.float_dtype)

    def tag(self, batch: Batch) -> tuple[Tensor, ...]:
        """label_reg: the one-hot label that D sees, its last entry "none", (B, classes + 1)."""
        if self.mode != "label_reg":
            return ()
        shown = torch.where(self.labelled(batch), batch["y"], self.classes)
        return (self.one_hot(shown, self.classes + 1),)

    def autoencoder_loss(self, batch: Batch) -> Terms:
        v = self.spec.to_unit(batch["x"]).flatten(1)
        z, logits = self.coded(batch["x"], self.noise)
        out = self.decoded(z, self.beside(logits, batch.get("y")))
        error = (self.end(out) - v).square()
        if self.recon == "l2":
            cost = 0.5 * error
        else:
            cost = F.binary_cross_entropy_with_logits(out, v, reduction="none")
        return {"loss": cost.sum(1).mean(), "mse": error.mean()}

    def discriminator_loss(self, batch: Batch) -> Terms:
        n, tag = batch.n, self.tag(batch)
        with torch.no_grad():
            z, logits = self.coded(batch["x"], self.noise)
            k = None
            if tag:
                any_k = draw_labels(n, COMPONENTS, self.noise)
                k = torch.where(self.labelled(batch), batch["y"], any_k)
            drawn = self.prior_codes(n, self.noise, k)
        real, code = self.d.both((drawn, *tag), (z, *tag))
        on_real, on_code = self.d.prices(real, code)
        right = 0.5 * ((real > 0).float() + (code < 0).float()).mean()
        terms = {"loss": (on_real + on_code).mean(), "d_acc": right}
        terms = self.d.regularised(terms, drawn, *tag)
        if self.d_label is None or logits is None:
            return terms
        one_hot = self.one_hot(draw_labels(n, self.classes, self.noise))
        on_real, on_code = self.d_label.prices(*self.d_label.both((one_hot,), (logits.softmax(1),)))
        terms["d_label"] = (on_real + on_code).mean()
        terms["loss"] = terms["loss"] + terms["d_label"]
        return self.d_label.regularised(terms, one_hot)

    def generator_loss(self, batch: Batch) -> Terms:
        """Enc against the discriminators."""
        z, logits = self.coded(batch["x"], self.noise)
        loss = self.d.fool(z, *self.tag(batch))
        if self.d_label is not None and logits is not None:
            loss = loss + self.d_label.fool(logits.softmax(1))
        return {"loss": loss}

    def label_loss(self, batch: Batch) -> Terms:
        logits = self.coded(batch["x"], self.noise)[1]
        assert logits is not None
        return {"loss": self.label_cost(logits, batch)}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module | list[nn.Module]]:
        d: list[nn.Module] = [part for part in (self.d, self.d_label) if part is not None]
        ae: list[nn.Module] = [self.encoder, self.decoder]
        roles: dict[str, nn.Module | list[nn.Module]] = {"ae": ae, "d": d, "g": self.encoder}
        return roles | ({"c": self.encoder} if self.mode == "semi" else {})

    def phases(self) -> list[Phase]:
        to_decode = ("x", "y") if self.mode == "sup" else ("x",)
        to_judge = ("x", "y") if self.mode == "label_reg" else ("x",)
        game = [
            Phase("ae", self.autoencoder_loss, to_decode),
            Phase("d", self.discriminator_loss, to_judge, critic=True),
            Phase("g", self.generator_loss, to_judge),
        ]
        return [*game, Phase("c", self.label_loss, ("x", "y"))] if self.mode == "semi" else game

    # -- use --------------------------------------------------------------------------------------
    @property
    def told(self) -> tuple[str, ...]:
        return ("y",) if self.mode in ("label_reg", "sup", "semi") else ()

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of the prior, (n, latent)."""
        return self.prior_codes(n, source)

    def from_codes(self, z: Tensor, *, y: Tensor | None = None) -> Tensor:
        """``decode``; where Dec takes a label and none is given, the first class."""
        if y is None and (self.categorical or self.mode == "sup"):
            y = torch.zeros(len(z), dtype=torch.long, device=z.device)
        return self.decode(z, y=y)

    @torch.no_grad()
    def sample(
        self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        if self.told and y is None:
            raise ValueError(f"aae in mode {self.mode} is told the class of what it draws; pass y")
        if self.mode == "unsup" and y is not None:
            raise ValueError("aae in mode unsup knows no class; leave y out, or set mode=sup")
        source = Draw(generator, self.device, self.float_dtype)
        if self.mode == "cluster" and y is None:
            y = draw_labels(n, self.classes, source)
        z = self.prior_codes(n, source, y if self.mode == "label_reg" else None)
        return self.decode(z, y=y)

    def encode(self, x: Tensor) -> Tensor:
        """z without noise, (B, latent)."""
        return self.coded(x, None)[0]

    def decode(self, z: Tensor, *, y: Tensor | None = None) -> Tensor:
        """Examples in the units of ``spec`` from codes and, where Dec takes them, labels (B,) or
        probabilities (B, classes).
        """
        beside = None
        if self.categorical or self.mode == "sup":
            if y is None:
                raise ValueError(f"aae in mode {self.mode}: Dec takes a label beside z; pass y")
            beside = self.one_hot(y) if y.ndim == 1 else y
        v = self.end(self.decoded(z, beside))
        return self.spec.from_unit(v).view(len(z), *self.spec.shape)

    def probabilities(self, x: Tensor) -> Tensor:
        """ŷ, (B, classes), in modes semi and cluster."""
        logits = self.coded(x, None)[1]
        if logits is None:
            raise ValueError(f"in mode {self.mode} Enc gives no ŷ; set mode=semi or mode=cluster")
        return logits.softmax(1)

    def reconstruct(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(x), y=self.probabilities(x) if self.categorical else y)

    @torch.no_grad()
    def interpolate(
        self, a: Tensor, b: Tensor, frames: int = 10, *, y: Tensor | None = None
    ) -> Tensor:
        """(B, frames, *shape), decoded along the line between the codes (and ŷ); in mode sup with
        the labels y, (B,).
        """
        if self.categorical:
            y = path("uniform", self.probabilities(a), self.probabilities(b), frames).flatten(0, 1)
        elif y is not None:
            y = y.repeat_interleave(frames)
        z = path("uniform", self.encode(a), self.encode(b), frames)
        return self.decode(z.flatten(0, 1), y=y).unflatten(0, (len(a), frames))

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        x, n = batch["x"], batch.n
        z, logits = self.coded(x, None)
        out = self.end(self.decoded(z, self.beside(logits, batch.get("y"))))
        mse = (out - self.spec.to_unit(x).flatten(1)).square().mean(1)
        values = {"mse": mse, "mse_ratio": mse / self.mean_error}
        if self.mode == "semi":
            values["accuracy"] = (self.probabilities(x).argmax(1) == batch["y"]).to(mse.dtype)
        if n > 1:
            std, mean = z.std(0) / self.std, z.mean(0) / self.std
            of_batch = {
                "code_std_min": std.min(),
                "code_std_max": std.max(),
                "code_mean_max": mean.abs().max(),
            }
            of_batch["code_mmd"] = mmd(z, self.prior_codes(n, Draw(generator, z.device, z.dtype)))
            values |= {name: value.expand(n) for name, value in of_batch.items()}
        return values

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        made: dict[str, Optimizer] = {}
        for player, lr in self.rates.items():
            game = player in ("d", "g")
            parameters = self.parameters_of(player)
            if self.optimiser == "sgd":
                made[player] = torch.optim.SGD(parameters, lr, momentum=0.1 if game else 0.9)
            else:
                made[player] = torch.optim.Adam(parameters, lr, (0.5 if game else 0.9, 0.999))
        return made

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.decay_every:
            return {}
        return {p: StepLR(o, self.decay_every, gamma=0.1) for p, o in optimisers.items()}
