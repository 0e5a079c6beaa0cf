"""Deep auto-encoder, and a classifier made of its encoder.

Paper      Hinton, Salakhutdinov. Reducing the Dimensionality of Data with Neural Networks. Science
           313, 2006. Denoising: Vincent, Larochelle, Bengio, Manzagol. Extracting and Composing
           Robust Features with Denoising Autoencoders. ICML 2008.
Model      z = Enc(x), x̂ = Dec(z), z with far fewer dimensions than x and no activation. "linear":
           z = W x + b, x̂ = V z + c, with V = Wᵀ where ``tied``; "mlp" and "conv": hidden layers,
           Dec the mirror of Enc. A sigmoid ends Dec where values lie in [0, 1].
Objective  mean over the batch of Σ ½ (x - x̂)² ("l2"), or of the binary cross-entropy ("bce").
           ``denoise`` hides that share of Enc's inputs (as zeros), each for itself; the target
           stays the whole x.
Sampling   None: nothing says how codes are distributed, so Dec of gaussian noise is no sample of
           anything.
Use        ``to_classifier`` puts a linear head on a copy of Enc, to be trained on labels:
           fine-tuned, frozen, or from scratch.
Notes      Hinton and Salakhutdinov pre-train each layer as a restricted Boltzmann machine and
           fine-tune by conjugate gradients; here all layers learn together with Adam. val/mse is
           per dimension and of the undamaged x. The reference lines come from the training data
           before training: the mean image, and principal components as many as z has dimensions.
           val/mse_mean_image and val/mse_pca are their errors on the validation data, and
           val/mse_over_pca is val/mse over the components' error on the training data, which
           flatters them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import LossModule
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, NonNegative, Positive, Share
from zoo.core.transfer import Classifier
from zoo.nn.coders import conv_coders
from zoo.nn.prior import path
from zoo.registry import Paper, register


def stack(widths: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers of these widths with the activation between them."""
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(a, b), nn.ReLU() if activation == "relu" else nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def principal_components(rows: Tensor, q: int) -> tuple[Tensor, Tensor]:
    """Mean, (D,), and the q leading components, orthonormal columns (D, q), of rows (N, D)."""
    mean = rows.mean(0)
    return mean, torch.linalg.eigh((rows - mean).T @ (rows - mean))[1].flip(1)[:, :q]


@register(
    "autoencoder",
    paper=Paper(
        "Hinton, Salakhutdinov",
        "Reducing the Dimensionality of Data with Neural Networks",
        2006,
        "Science 313",
    ),
    about="an encoder and a decoder trained to reconstruct; the encoder can be made a classifier",
    taxonomy="baseline",
    likelihood="none",
    can={"encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(("val/mse_over_pca", "<", 0.85),),
)
class Autoencoder(LossModule):
    """See the module's docstring.

    Args:
        variant: "linear", "mlp", or "conv" (square images whose side is 8, 16, 32, ...).
        latent: dimension of z. hidden: units of Enc's hidden layers ("mlp"). width: maps of the
            first convolution ("conv").
        activation: of the hidden layers of "mlp", "relu" or "sigmoid".
        sigmoid: end Dec with one; None does so for images. bias, tied: of "linear".
        objective: "l2" or "bce". denoise: share of inputs that is hidden in training. lr: of Adam.
            weight_decay: its L2 penalty.
    """

    watches = ("mse",)
    mean: Tensor
    components: Tensor
    pca_error: Tensor

    def __init__(
        self,
        spec: Spec,
        variant: Literal["linear", "mlp", "conv"] = "mlp",
        latent: Count = 16,
        hidden: Sequence[Count] = (128, 128),
        width: Count = 32,
        activation: Literal["relu", "sigmoid"] = "relu",
        sigmoid: bool | None = None,
        bias: bool = True,
        tied: bool = False,
        objective: Literal["l2", "bce"] = "l2",
        denoise: Share = 0.0,
        lr: Positive = 1e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec)
        if variant != "linear" and (tied or not bias):
            raise ValueError(
                f"autoencoder: tied and bias=false are options of variant=linear, got "
                f"variant={variant}"
            )
        sigmoid = spec.levels is not None if sigmoid is None else sigmoid
        if objective == "bce" and not (sigmoid and spec.levels is not None):
            raise ValueError(
                f"autoencoder's objective=bce takes values in [0, 1] and a sigmoid, got {spec}; "
                f"set objective=l2"
            )
        self.tied, self.sigmoid, self.objective = tied, sigmoid, objective
        self.denoise, self.lr, self.weight_decay = denoise, lr, weight_decay
        self.c = nn.Parameter(torch.zeros(spec.dim)) if tied and bias else None
        self.decoder: nn.Module | None = None
        if variant == "conv":
            sides = tuple(2**i for i in range(3, 11))
            spec.require("autoencoder with variant=conv", x=Image, square=True, size=sides)
            encoder, decoder = conv_coders(spec.shape, latent, latent, 1, width, "relu")
            self.encoder: nn.Sequential = encoder
            self.decoder = nn.Sequential(decoder, nn.Flatten())
        elif variant == "mlp":
            widths = [spec.dim, *hidden, latent]
            self.encoder = nn.Sequential(nn.Flatten(), stack(widths, activation))
            self.decoder = stack(widths[::-1], activation)
        else:
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(spec.dim, latent, bias))
            self.decoder = None if tied else nn.Linear(latent, spec.dim, bias)
        # the reference lines, in the values that Enc reads
        self.register_buffer("mean", torch.zeros(spec.dim))
        self.register_buffer("components", torch.zeros(spec.dim, min(latent, spec.dim)))
        self.register_buffer("pca_error", torch.ones(()))

    def initialise_from(self, batch: Batch) -> None:
        rows = self.spec.to_unit(batch["x"].double()).flatten(1)
        mean, components = principal_components(rows, self.components.shape[1])
        self.mean.copy_(mean)
        self.components.copy_(components)
        rest = rows - mean - (rows - mean) @ components @ components.T
        self.pca_error.copy_(rest.square().mean())

    # -- loss -------------------------------------------------------------------------------------
    def decoded(self, z: Tensor) -> Tensor:
        """Dec's output before its sigmoid, (B, D)."""
        if self.decoder is None:
            w: Any = self.encoder[-1]
            return F.linear(z, w.weight.T, self.c)
        return self.decoder(z)

    def end(self, out: Tensor) -> Tensor:
        return out.sigmoid() if self.sigmoid else out

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        v = self.spec.to_unit(batch["x"])
        seen = v * (self.noise.uniform(*v.shape) >= self.denoise) if self.denoise else v
        out, target = self.decoded(self.encoder(seen)), v.flatten(1)
        error = (self.end(out) - target).square()
        cost = 0.5 * error
        if self.objective == "bce":
            cost = F.binary_cross_entropy_with_logits(out, target, reduction="none")
        return {"loss": cost.sum(1).mean(), "mse": error.mean()}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        v = self.spec.to_unit(batch["x"])
        mse = (self.end(self.decoded(self.encoder(v))) - v.flatten(1)).square().mean(1)
        away = v.flatten(1) - self.mean
        rest = away - away @ self.components @ self.components.T
        values = {
            "mse": mse,
            "mse_mean_image": away.square().mean(1),
            "mse_pca": rest.square().mean(1),
        }
        return values | {"mse_over_pca": mse / self.pca_error}

    # -- use --------------------------------------------------------------------------------------
    def encode(self, x: Tensor) -> Tensor:
        """z, (B, latent)."""
        return self.encoder(self.spec.to_unit(x))

    def decode(self, z: Tensor) -> Tensor:
        """x̂ in the units of ``spec``."""
        return self.spec.from_unit(self.end(self.decoded(z))).view(len(z), *self.spec.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), decoded along the line between the codes."""
        z = path("uniform", self.encode(a), self.encode(b), frames)
        return self.decode(z.flatten(0, 1)).unflatten(0, (len(a), frames))

    def to_classifier(self, classes: int, mode: str = "finetune") -> Classifier:
        """A linear head on a copy of Enc: "finetune" trains both, "frozen" the head, "scratch" both
        from new weights (the control).
        """
        return Classifier(self, classes, mode)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr, weight_decay=self.weight_decay)
