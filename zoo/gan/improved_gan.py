"""Improved GAN: semi-supervised learning with a discriminator of K + 1 classes, and five techniques
that steady the game.

Paper      Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen. Improved Techniques for Training
           GANs. NIPS 2016. arXiv:1606.03498.
Model      x = G(z). D gives K logits l; the logit of the class "generated" is fixed at 0. Z(v) =
           Σ_k e^{l_k}, D(v) = Z/(Z + 1): the logit of being real is LSE(v) = log Z.
Objective  D:  L_sup + w_u L_unl (section 5), where
               L_sup = E -log p(y | x, not generated) = E LSE(x) - l_y(x) over labelled rows,
               L_unl = -½ E log D(x) - ½ E log(1 - D(G(z_D))), G(z_D) detached.
           G:  g_loss="fm", feature matching (3.1), f D's last hidden layer, its data a fresh
               minibatch and without gradient:
               mean_j |E f_j(x) - E f_j(G(z_G))| (fm_norm="l1", the authors' code), or
               ‖E f(x) - E f(G(z_G))‖² ("l2", the paper);
               "nonsat" -E log D(G(z_G)), or "minimax".
Techniques each an option of its own: feature matching, above; ``kernels`` > 0, minibatch
           discrimination (3.2) beside f under D's last layer; ``history_d``, ``history_g``,
           historical averaging (3.3): + λ ‖θ - mean of θ after each past step‖² for a player;
           loop.label_smooth=0.9, one-sided label smoothing (3.4); norm_g="virtual", virtual batch
           norm in G (3.5).
Logs       train/sup, train/unl, train/fm; val/acc with D's averaged weights where ``ema.player`` is
           d. ``w_u=0`` is the baseline: the same net on the labels alone.
Sampling   z from the prior, G(z) quantised.
Notes      Labelled are as many training rows of each class, the first ones, each standing for
           N/labels rows of the mean; every row is an unlabelled one too. Without labels in the data
           K = 1 and L_sup is absent. Means of features and pairs of minibatch discrimination are
           over all processes' rows (cross_rank="gather") or each process's own ("local"); in
           evaluation over the minibatch at hand: with ``kernels``, D's answers depend on how many
           rows are seen together. D is weight-normalised, scaled at the start by 500 training rows,
           with ``kernels`` in minibatches; ``arch="paper"`` is the authors' CIFAR net, whose
           dropout each process draws on its own. ``noise`` is the gaussian noise before D's layers
           of their MNIST net. G's last layer is not weight-normalised, and its uniform prior is on
           (-1, 1), theirs on (0, 1). On digits feature matching's samples are no better than one
           Gaussian by their IS, so the default run has ``g_loss="nonsat"`` (docs/models.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.bases import Adversary, FewLabels, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Dropped, NonNegative, Positive, Prior, Whole
from zoo.nn import small
from zoo.nn.adversarial_losses import divergence
from zoo.nn.minibatch import MinibatchDiscrimination
from zoo.nn.prior import Draw, Source, draw_prior
from zoo.nn.virtual_batch_norm import Referenced
from zoo.nn.weight_norm import WeightNormed, measuring
from zoo.registry import Paper, register

START = 500  # training rows that scale D's layers


class WNConv(WeightNormed):
    """Weight-normalised convolution."""

    def __init__(
        self, a: int, b: int, size: int | tuple[int, int] = 1, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(a, b, (size, size) if isinstance(size, int) else size)
        self.stride, self.padding = stride, padding

    def _apply_to(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.b, self.stride, self.padding)


class Discriminator(nn.Module):
    """x -> K logits. Hidden stages to f, (B, F); beside f, under the last layer, what minibatch
    discrimination makes of it.

    Args:
        stages: images (vectors as 1x1 ones) to (B, F, h, w), averaged over places. kernels, dims:
            of minibatch discrimination; 0 is none.
        noise: standard deviation of what is added to each stage's input where there is a source of
            it.
    """

    def __init__(
        self,
        stages: list[nn.Module],
        width: int,
        classes: int,
        kernels: int,
        dims: int,
        noise: float,
    ) -> None:
        super().__init__()
        self.stages, self.noise = nn.ModuleList(stages), noise
        self.minibatch = MinibatchDiscrimination(width, kernels, dims) if kernels else None
        self.end = WNConv(width + kernels, classes)

    def features(self, x: Tensor, source: Source | None = None) -> Tensor:
        """f, (B, F)."""
        h = x if x.ndim == 4 else x[..., None, None]
        for stage in self.stages:
            if source is not None and self.noise:
                h = h + self.noise * source.normal(*h.shape)
            h = stage(h)
        return h.mean((2, 3))

    def forward(
        self,
        x: Tensor,
        source: Source | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
        together: int = 0,
    ) -> Tensor:
        """The K logits, (B, K).

        Args:
            together: rows that are a minibatch of their own to minibatch discrimination; 0 is all
                of them.
        """
        f = self.features(x, source)
        if self.minibatch is not None:
            parts = f.split(together or len(f))
            f = torch.cat([f, torch.cat([self.minibatch(part, gather) for part in parts])], 1)
        return small.full(self.end(f[..., None, None]).flatten(1))


def small_stages(shape: tuple[int, ...], width: int) -> tuple[list[nn.Module], int]:
    """Convolutions of stride 2 to the base grid and one over it, or three layers for vectors; and
    how many features they give.
    """
    convs: list[nn.Module]
    if len(shape) == 1:
        convs = [WNConv(shape[0], width), WNConv(width, width), WNConv(width, width)]
    else:
        channels, height, breadth = shape
        m = small.doublings(height, breadth)
        filters = [channels, *(width << i for i in range(m))]
        convs = [WNConv(a, b, 4, 2, 1) for a, b in zip(filters[:-1], filters[1:], strict=True)]
        width = filters[-1]
        convs.append(WNConv(width, width, (height >> m, breadth >> m)))
    return [nn.Sequential(conv, nn.LeakyReLU(0.2)) for conv in convs], width


def paper_stages(
    channels: int, width: int, dropout: tuple[float, float]
) -> tuple[list[nn.Module], int]:
    """The authors' CIFAR net (train_cifar_feature_matching.py): 96, 192, 192 filters at width
    96.
    """
    wide = 2 * width
    stages: list[nn.Module] = []
    plan = [
        (channels, width, 3, 1, 1),
        (width, width, 3, 1, 1),
        (width, width, 3, 2, 1),
        (width, wide, 3, 1, 1),
        (wide, wide, 3, 1, 1),
        (wide, wide, 3, 2, 1),
        (wide, wide, 3, 1, 0),
        (wide, wide, 1, 1, 0),
        (wide, wide, 1, 1, 0),
    ]
    for i, (a, b, size, stride, padding) in enumerate(plan):
        before = [nn.Dropout(dropout[i > 0])] if i in (0, 3, 6) else []
        conv = WNConv(a, b, size, stride, padding)
        stages.append(nn.Sequential(*before, conv, nn.LeakyReLU(0.2)))
    return stages, wide


def is_real(logits: Tensor) -> Tensor:
    """LSE = log Σ_k e^{l_k}, the logit of being real, (B,)."""
    return logits.logsumexp(1)


class Minibatch(Adversary):
    """D, whose layers get noise in training, and whose rows may look at those of every process."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """The K logits, (B, K)."""
        (x,) = inputs
        if not self.training:
            return self.net(x)
        gather = self.game.all_rows if self.game.cross_rank == "gather" else None
        return self.net(x, self.game.noise, gather)


# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "improved_gan",
    paper=Paper(
        "Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen",
        "Improved Techniques for Training GANs",
        2016,
        "1606.03498",
    ),
    about="semi-supervised K + 1 classes, feature matching, minibatch discrimination, historical "
    "averaging, virtual batch norm",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "classify"},
    data="digits",
    learns=(
        ("val/acc", ">", 0.95),
        ("val/classes_pixels", ">", 6.5),
        ("val/precision_pixels", ">", 0.6),
        ("val/coverage_pixels", ">", 0.35),
        ("val/is_pixels", ">", 3.6),
        ("val/fid_pixels", "<", 0.5),
    ),
)
class ImprovedGAN(FewLabels, GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        labels: training rows whose labels are used; None for all. w_u: weight of L_unl.
        arch: D is "small" or "paper" (images). latent: dimension of z; None is that of the data for
            vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32): of G before the
            image, of D's first layer.
        width_d: of D's, where it differs. kernel: of G's convolutions, 4 or 5. noise: before D's
            layers. dropout: before the image and between D's blocks ("paper").
        norm_g: of G, "layer", "batch", "none", or "virtual" (images). reference: rows of virtual
            batch norm's reference batch.
        kernels, dims: of minibatch discrimination; 0 kernels is none. history_d, history_g: λ of
            historical averaging.
        g_loss: "fm", "nonsat" or "minimax". fm_norm: "l1" or "l2". cross_rank: "gather" or "local".
        prior: "normal", "uniform" or "sphere". k: discriminator steps per generator step.
        lr_d: learning rate of D. lr_g: of G. decay_start, decay_end: generator steps between which
            both fall linearly to 0; 0, 0 is never.
        beta1: Adam's first decay. loop: options of the adversarial loop.
    """

    watches = ("jsd_bound", "sup")

    def __init__(
        self,
        spec: Spec,
        labels: Count | None = 100,
        w_u: NonNegative = 1.0,
        arch: Literal["small", "paper"] = "small",
        latent: Count | None = None,
        width: Count | None = None,
        width_d: Count | None = None,
        kernel: Literal[4, 5] = 4,
        noise: NonNegative = 0.0,
        dropout: tuple[Dropped, Dropped] = (0.2, 0.5),
        norm_g: Literal["layer", "batch", "none", "virtual"] = "layer",
        reference: Count = 64,
        kernels: Whole = 0,
        dims: Count = 5,
        history_d: NonNegative = 0.0,
        history_g: NonNegative = 0.0,
        g_loss: Literal["fm", "nonsat", "minimax"] = "fm",
        fm_norm: Literal["l1", "l2"] = "l1",
        cross_rank: Literal["gather", "local"] = "gather",
        prior: Prior = "normal",
        k: Count = 1,
        lr_d: Positive = 1e-3,
        lr_g: Positive = 1e-3,
        decay_start: Whole = 0,
        decay_end: Whole = 0,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if (decay_start or decay_end) and not decay_start < decay_end:
            raise ValueError(
                "improved_gan's rates fall from decay_start to a later decay_end, got "
                f"{decay_start} and {decay_end}; both 0 is never"
            )
        if arch == "paper" or norm_g == "virtual":
            option = "arch=paper" if arch == "paper" else "norm_g=virtual"
            spec.require(f"improved_gan with {option}", x=Image)
        if arch == "paper" and min(spec.shape[1:]) < 12:  # D's takes 9; G makes multiples of 4
            raise ValueError(
                f"improved_gan with arch=paper takes images of 12x12 or more, got {spec}; resize "
                "them, e.g. --data.size=16"
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
        self.matched, self.fm_norm, self.cross_rank = g_loss == "fm", fm_norm, cross_rank
        self.w_u, self.decay_start, self.decay_end = w_u, decay_start, decay_end
        batch = "batch" if norm_g == "virtual" else norm_g
        g = small.generator(self.latent, spec.shape, width, kernel, batch)
        if norm_g == "virtual":
            g = Referenced(g, draw_prior(prior, reference, self.latent, Draw(None)))
        self.g = g
        wide = width_d or width
        if arch == "paper":
            for m in g.modules():  # the authors' start, which D's layers always have
                if isinstance(m, nn.ConvTranspose2d):
                    nn.init.normal_(m.weight, 0.0, 0.05)
            stages, features = paper_stages(spec.shape[0], wide or 96, dropout)
        else:
            stages, features = small_stages(spec.shape, wide or (32 if spec.has(x=Image) else 128))
        d = Discriminator(stages, features, max(spec.num_classes, 1), kernels, dims, noise)
        without = {"spectral_norm": "D is weight-normalised"}
        if kernels:
            coupled = "minibatch discrimination couples the rows of one kind, set kernels=0 for it"
            without |= {"r1": coupled, "separate_batches": coupled}
        loss = LOSSES["nonsat" if self.matched else g_loss]
        self.d = Minibatch(self, d, loss, realness=is_real, without=without)
        self.use_labels(labels)
        lams = {"d": history_d, "g": history_g}
        self.history = {player: lam for player, lam in lams.items() if lam}
        for player in self.history:
            size = sum(p.numel() for p in self.parameters_of(player))
            # the mean of the parameters after each step
            self.register_buffer(f"past_{player}", torch.zeros(size))
            self.register_buffer(f"steps_{player}", torch.zeros((), dtype=torch.long))

    def initialise_from(self, batch: Batch) -> None:
        super().initialise_from(batch)
        net, together = self.d.net, self.together()
        training = net.training
        whole = max(min(START, batch.n) // together, 1) * together
        with measuring(net.eval()):
            net(self.scaled(batch["x"][:whole]), together=together)
        net.train(training)

    def together(self) -> int:
        """Rows that minibatch discrimination will count at once; START without it, and outside of a
        run.
        """
        if self.d.net.minibatch is None or self.step is None:
            return START
        trainer: Any = self.trainer
        each = trainer.datamodule.batch_size // self.loop.accumulate
        return each * (trainer.world_size if self.cross_rank == "gather" else 1)

    # -- networks ---------------------------------------------------------------------------------
    def all_rows(self, rows: Tensor) -> Tensor:
        return self.everyone(rows, gradients=True)

    def features(self, x: Tensor) -> Tensor:
        """f, (B, F), of examples as D sees them, in training."""
        return self.d.net.features(self.d.noisy(x), self.noise)

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.scaled(batch["x"])
        logits, of_fake = self.d.both((x,), (self.g(self.codes(batch.n)),))
        real, fake = is_real(logits), is_real(of_fake)
        on_real, on_fake = self.d.prices(real, fake)
        unl = 0.5 * (on_real.mean() + on_fake.mean())
        terms = {"loss": self.w_u * unl, "unl": unl, **divergence(real, fake)}
        if self.spec.num_classes:
            terms["sup"] = self.label_cost(logits, batch)
            terms["loss"] = terms["loss"] + terms["sup"]
        return self.averaged("d", self.d.regularised(terms, x))

    def matching(self, real: Tensor, made: Tensor) -> Tensor:
        """The distance of mean features, from f of data (a target) and of samples, (B, F) each."""
        target, mean = real.detach().mean(0), made.mean(0)
        if self.cross_rank == "gather":
            target, mean = self.reduce(target), self.shared_mean(mean)
        apart = target - mean
        return apart.abs().mean() if self.fm_norm == "l1" else apart.square().sum()

    def generator_loss(self, batch: Batch) -> Terms:
        if not self.matched:
            s = is_real(self.d.see(self.g(self.codes(batch.n))))
            return self.averaged("g", {"loss": self.d.price.maker(s).mean()})
        with torch.no_grad():
            real = self.features(self.scaled(batch["x"]))
        fm = self.matching(real, self.features(self.g(self.codes(batch.n))))
        return self.averaged("g", {"loss": fm, "fm": fm})

    def averaged(self, player: str, terms: Terms) -> Terms:
        """A player's terms with historical averaging, λ ‖θ - mean of past θ‖²."""
        lam = self.history.get(player, 0.0)
        if not lam or not self.get_buffer(f"steps_{player}"):
            return terms
        past = self.get_buffer(f"past_{player}")
        cost = lam * (self.flat(player) - past).square().sum()
        return terms | {"loss": terms["loss"] + cost, f"history_{player}": cost}

    def flat(self, player: str) -> Tensor:
        """θ, all parameters of a player in one vector."""
        return torch.cat([p.flatten() for p in self.parameters_of(player)])

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        reads = ("x", "y") if self.spec.num_classes else ("x",)
        return [
            Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, ("x",) if self.matched else ()),
        ]

    @torch.no_grad()
    def after_step(self, player: str) -> None:
        if player in self.history:
            past, steps = self.get_buffer(f"past_{player}"), self.get_buffer(f"steps_{player}")
            steps += 1
            past += (self.flat(player) - past) / steps

    # -- use --------------------------------------------------------------------------------------
    def classify(self, x: Tensor) -> Tensor:
        """P(y | x, not generated), (B, classes), by D."""
        if not self.spec.num_classes:
            raise ValueError(
                f"improved_gan needs labels to classify, got {self.spec}; choose labelled data "
                "such as digits"
            )
        return self.d(self.scaled(x)).softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        logits = self.d(self.scaled(batch["x"]))
        values = {"d_acc_real": (is_real(logits) > 0).to(logits.dtype)}
        if self.spec.num_classes:
            values["acc"] = (logits.argmax(1) == batch["y"]).to(logits.dtype)
        return values

    # -- optimisers -------------------------------------------------------------------------------
    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        """Each player's rate by its own steps, of which D makes k in one of the generator's."""
        if not self.decay_end:
            return {}

        def falling(each: int) -> Callable[[int], float]:
            width = self.decay_end - self.decay_start
            return lambda n: min(1.0, max(0.0, (self.decay_end - n / each) / width))

        return {p: LambdaLR(o, falling(self.steps_of(p))) for p, o in optimisers.items()}
