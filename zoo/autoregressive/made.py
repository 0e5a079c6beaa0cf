"""MADE: masked autoencoder for distribution estimation.

Paper      Germain, Gregor, Murray, Larochelle. MADE: Masked Autoencoder for Distribution
           Estimation. ICML 2015. arXiv:1502.03509.
Model      P(x) = Π_d P(x_d | x_<d), all D conditionals from one pass of an MLP whose weights are
           masked. m⁰ is the order, a permutation of 1..D; hidden unit k of layer l has a degree
           m^l(k), uniform in min m^{l-1} .. D-1. A hidden unit sees degrees <= its own, an output
           sees hidden degrees < m⁰(d), so x_d depends on exactly the inputs before it.
Objective  -log P(x) = -Σ_d log P(x_d | x_<d): Bernoulli for binary data, an L-way softmax for L
           levels, a Gaussian for real vectors.
Masks      ``n_masks`` = K stored seeds; training takes them in turn, one a step
           (connectivity-agnostic), and with ``order_agnostic`` each has its own order. log P(x) =
           logsumexp_k log P_k(x) - ln K, the mean of probabilities, which again sums to one.
Sampling   A mask drawn for each image, then D steps in its order. ``cache=True`` computes each
           hidden unit once, as soon as the inputs of its degree are known: one forward pass in
           total instead of D.
Notes      Direct input-output connections are on, as in the paper's best models.
           ``connectivity_weights`` add a second masked weight matrix applied to ones (section 4.3),
           which tells the network its mask. Labels enter as a bias to every layer; the output layer
           is included, or the first dimension could not depend on the label. Output biases start at
           the data's marginals.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases.autoregressive import MixtureOfOrders, Stream
from zoo.core import Batch, Label, Spec
from zoo.core.options import Count, Positive
from zoo.registry import Paper, register

MAX_WEIGHTS = 2**26  # of the output layer; beyond, another model is the better choice
HEADS = ("bernoulli", "categorical", "gaussian")


def degrees(dim: int, widths: list[int], seed: int, shuffled: bool) -> list[Tensor]:
    """m⁰, m¹, ..., mⁿ of one mask, a pure function of its seed; m⁰ is 1..D (raster) unless
    ``shuffled``.
    """
    g = torch.Generator().manual_seed(seed)
    m = [torch.randperm(dim, generator=g) + 1 if shuffled else torch.arange(1, dim + 1)]
    for width in widths:
        m.append(torch.randint(int(m[-1].min()), max(dim, 2), (width,), generator=g))
    return m


def masks(m: list[Tensor]) -> list[Tensor]:
    """0/1 matrices of the hidden layers, M[k, k'] = [m^l(k) >= m^{l-1}(k')], of the output, [m⁰(d)
    > mⁿ(k)], and of the direct weights.
    """
    hidden = [b[:, None] >= a[None, :] for a, b in zip(m[:-1], m[1:], strict=True)]
    return [*hidden, m[0][:, None] > m[-1][None, :], m[0][:, None] > m[0][None, :]]


@register(
    "made",
    paper=Paper(
        "Germain, Gregor, Murray, Larochelle",
        "MADE: Masked Autoencoder for Distribution Estimation",
        2015,
        "1502.03509",
    ),
    about="an MLP masked so that one pass gives every autoregressive conditional",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint"},
    data="digits",
    learns=("val/nll_nats", "<", 19.6),
)
class MADE(MixtureOfOrders):
    """Masked autoencoder.

    Args:
        hidden: units of each hidden layer.
        layers: hidden layers.
        n_masks: masks that take turns in training and are averaged in ``log_prob``.
        order_agnostic: each mask has its own random order; otherwise all follow the raster order.
        direct: masked connections from the input to the output.
        connectivity_weights: tell every layer its mask by masked weights on ones.
        conditional: model P(x | label).
        optimiser: "adam", or the paper's "adagrad".
        lr: learning rate.
    """

    layers: Any  # a ModuleList of nn.Linear
    mask_seeds: Tensor
    turn: Tensor

    def __init__(
        self,
        spec: Spec,
        hidden: Count = 256,
        layers: Count = 1,
        n_masks: Count = 1,
        order_agnostic: bool = False,
        direct: bool = True,
        connectivity_weights: bool = False,
        conditional: bool = False,
        optimiser: Literal["adam", "adagrad"] = "adam",
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        self.need_levels_of_images()
        if conditional:
            spec.require("made with conditional=true", y=Label)
        self.head = HEADS[2] if spec.levels is None else HEADS[0] if spec.levels == 2 else HEADS[1]
        # P parameters of each dimension
        self.outputs = {"bernoulli": 1, "gaussian": 2}.get(self.head, spec.levels or 0)
        self.order_agnostic, self.conditional = order_agnostic, conditional
        self.optimiser, self.lr = optimiser, lr
        weights = spec.dim * self.outputs * (hidden + spec.dim * direct)
        if weights > MAX_WEIGHTS:
            raise ValueError(
                f"made needs {weights:,} output weights for {spec}; choose smaller or binarised "
                f"images, or direct=False"
            )
        self.widths = [hidden] * layers
        inner = [(hidden, hidden)] * (layers - 1)
        sizes = [(spec.dim, hidden), *inner, (hidden, spec.dim * self.outputs)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.direct = nn.Linear(spec.dim, spec.dim * self.outputs, bias=False) if direct else None
        self.connectivity: nn.ParameterList | None = None
        if connectivity_weights:
            self.connectivity = nn.ParameterList(torch.zeros(b, a) for a, b in sizes)
        self.label_bias: nn.ModuleList | None = None
        if conditional:
            self.label_bias = nn.ModuleList(nn.Embedding(spec.num_classes, b) for _, b in sizes)
        self.register_buffer("mask_seeds", torch.randint(2**31, (n_masks,)))
        self.orders = n_masks
        self.register_buffer("turn", torch.tensor(0))  # optimiser steps so far: which mask is next
        self._masks: dict[tuple[Any, ...], tuple[list[Tensor], list[Tensor]]] = {}

    @property
    def likelihood_kind(self) -> str:
        return "exact_density" if self.head == "gaussian" else "exact_mass"

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """Output biases at the data's smoothed marginals; else pixels that are always black, of
        which the first ones have nothing but a bias, stay grey for thousands of steps."""
        x, bias = batch["x"], self.layers[-1].bias.view(self.spec.dim, self.outputs)
        if self.head == "gaussian":
            v = x.flatten(1)
            bias.copy_(torch.stack([v.mean(0), v.std(0).clamp(min=1e-3).log()], 1))
            return
        bias.copy_(self.marginals(x, self.outputs))

    # -- the masked network -----------------------------------------------------------------------
    def order_of(self, k: int) -> Tensor:
        return self._mask(k)[0][0].argsort()

    def _mask(self, k: int) -> tuple[list[Tensor], list[Tensor]]:
        """Degrees and masks of mask k, regenerated from its seed; an output's mask is repeated for
        its P parameters.
        """
        key = (int(self.mask_seeds[k]), self.device, self.float_dtype)
        if key not in self._masks:
            m = degrees(self.spec.dim, self.widths, key[0], self.order_agnostic)
            *inner, output, direct = masks(m)
            rows = [*inner, *(o.repeat_interleave(self.outputs, 0) for o in (output, direct))]
            kept = [r.to(self.device, self.float_dtype) for r in rows]
            self._masks[key] = [d.to(self.device) for d in m], kept
        return self._masks[key]

    def _weights(
        self, k: int, y: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Masked weights, biases (of each row where there are labels) and direct weights of mask
        k.
        """
        m = self._mask(k)[1]
        weights = [layer.weight * m[i] for i, layer in enumerate(self.layers)]
        biases = [layer.bias for layer in self.layers]
        if self.connectivity is not None:
            biases = [
                b + (u * m[i]).sum(1)
                for i, (b, u) in enumerate(zip(biases, self.connectivity, strict=True))
            ]
        if self.label_bias is not None:
            biases = [
                b + e(self.need_labels(y)) for b, e in zip(biases, self.label_bias, strict=True)
            ]
        return weights, biases, None if self.direct is None else self.direct.weight * m[-1]

    def _input(self, x: Tensor) -> Tensor:
        v = self.spec.to_unit(x) if self.head == "bernoulli" else self.spec.to_signed(x)
        return v.flatten(1)

    def conditionals(self, x: Tensor, k: int = 0, *, y: Tensor | None = None) -> Tensor:
        """Parameters of all D conditionals under mask k in one pass, (B, D, P), from data in the
        units of ``spec``.
        """
        weights, biases, direct = self._weights(k, y)
        h = v = self._input(x)
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            h = F.relu(F.linear(h, w) + b)
        out = F.linear(h, weights[-1]) + biases[-1]
        if direct is not None:
            out = out + F.linear(v, direct)
        return out.view(len(x), self.spec.dim, self.outputs)

    # -- likelihood -------------------------------------------------------------------------------
    def log_conditionals(self, params: Tensor, x: Tensor) -> Tensor:
        if self.head != "gaussian":
            return super().log_conditionals(params, x)
        mu, log_sigma = params.unbind(-1)
        maha = ((x - mu) * (-log_sigma).exp()).square()
        return -0.5 * maha - log_sigma - 0.5 * math.log(2 * math.pi)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        k = int(self.turn) % len(self.mask_seeds)
        nll = -self.log_prob_of(batch["x"], k, **self.told_in(batch)).mean()
        return {"loss": nll, "nll_nats": nll}

    def after_step(self) -> None:
        self.turn += 1

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        told = self.told_in(batch)
        each = [-self.log_prob_of(batch["x"], k, **told) for k in range(len(self.mask_seeds))]
        return {"nll_single_mask": torch.stack(each).mean(0)} if len(each) > 1 else {}

    # -- use --------------------------------------------------------------------------------------
    def invert(self, params: Tensor, u: Tensor) -> Tensor:
        if self.head != "gaussian":
            return super().invert(params, u)
        mu, log_sigma = params.unbind(-1)
        return mu + log_sigma.exp() * torch.special.ndtri(u.clamp(1e-7, 1 - 1e-7))

    def stream(self, n: int, k: int = 0, *, y: Tensor | None = None) -> Stream:
        """Step j sets the input of degree j, then every hidden unit of degree j, layer by layer;
        each is computed once.
        """
        m = self._mask(k)[0]
        weights, biases, direct = self._weights(k, y)
        h = [
            torch.zeros(n, width, device=self.device, dtype=self.float_dtype)
            for width in (self.spec.dim, *self.widths)
        ]
        for step, d in enumerate(self.order_of(k).tolist()):
            p = slice(d * self.outputs, (d + 1) * self.outputs)
            out = F.linear(h[-1], weights[-1][p]) + biases[-1][..., p]
            if direct is not None:
                out = out + F.linear(h[0], direct[p])
            value = yield out
            h[0][:, d] = self._input(value[:, None])[:, 0]
            for layer in range(1, len(m)):
                units = (m[layer] == step + 1).nonzero()[:, 0]
                if len(units):
                    h[layer][:, units] = F.relu(
                        F.linear(h[layer - 1], weights[layer - 1][units])
                        + biases[layer - 1][..., units]
                    )

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimiser == "adagrad":
            return torch.optim.Adagrad(self.parameters(), self.lr, eps=1e-6)
        return torch.optim.Adam(self.parameters(), self.lr)
