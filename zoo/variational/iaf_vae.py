"""IAF-VAE: a VAE whose posterior is an inverse autoregressive flow, flat or as the paper's
bidirectional ResNet.

Paper      Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved Variational Inference
           with Inverse Autoregressive Flow. NIPS 2016. arXiv:1606.04934. ResNet as in the authors'
           code (openai/iaf, tf_train.py).
Model      z_0 = μ(x) + σ(x) ε, then T steps z_t = σ_t z_{t-1} + (1 - σ_t) m_t, σ_t = sigmoid(s_t),
           where (m_t, s_t) come from a network that is strictly autoregressive in z_{t-1} and free
           in a context h(x) (equations 8-14). iaf="affine" is the code's z_t = (z_{t-1} - 0.1 m) /
           exp(0.1 s). The order of the variables is reversed between steps. log q(z_T | x) = log
           q(z_0 | x) - Σ log σ_t. net="resnet": maps z of each of ``levels`` x ``blocks`` layers,
           from the top down. A deterministic bottom-up pass gives each layer (μ_q, ln σ_q,
           context), the top-down pass the prior (μ_p, ln σ_p) and (μ_r, ln σ_r, context); the
           posterior is N(μ_r + μ_q, (σ_r σ_q)²) followed by the flow (bidirectional inference,
           section 4).
Objective  -E_q log p(x | z) + Σ_g max(λ, mean over the minibatch of KL_g), KL_g = log q - log p at
           one draw, of group g: a latent dimension ("mlp"), or a layer's channel summed over
           positions ("resnet") (free bits, appendix C.8).
Bounds     ``elbo`` and ``importance_bound`` without free bits.
Sampling   z from the prior, layer by layer; the flow takes no part.
Notes      The mean over the minibatch is that of a process's own rows. Codes of the ResNet are the
           maps of all layers, top first, flattened. Its convolutions are weight-normalised; before
           training their maps have deviation 0.1, those of the masked ones 1, on images on the way
           up and draws from the prior on the way down, as in the authors' code (with a third of a
           gain's logarithm). The first masked layer hides an element from itself, in their code the
           last, with its context. x̂ is kept within half a level of the ends, and its logistic has
           one scale for all pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import VariationalModule
from zoo.core import Batch, Image, Spec
from zoo.core.noise import seeded
from zoo.core.options import Count, NonNegative, Positive, Whole
from zoo.nn.gaussian import log_normal, reparameterise, soft_clamp
from zoo.nn.likelihood_heads import Likelihood, make_head
from zoo.nn.masked_conv import group_of, open_taps
from zoo.nn.prior import Draw, Source
from zoo.nn.weight_norm import WeightNormed, measuring
from zoo.registry import Paper, register

Dims = tuple[int, ...]
OPEN = 1.5  # first bias of s: σ near 1, a step near the identity
PLAIN = 0.1  # deviation of a plain convolution's maps at the start; of an autoregressive one's: 1


class Step(nn.Module):
    """(m, s) of z (..., D): element i sees z_<i and the context (..., c). One hidden layer, ELU."""

    mask_in: Tensor
    mask_out: Tensor

    def __init__(self, dim: int, context: int, hidden: int, bias: float) -> None:
        super().__init__()
        order, degree = torch.arange(dim), torch.arange(hidden) % max(dim - 1, 1)
        mask_out = (order[:, None] > degree).float().repeat(2, 1)
        self.register_buffer("mask_in", (degree[:, None] >= order).float(), persistent=False)
        self.register_buffer("mask_out", mask_out, persistent=False)
        self.hidden, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, 2 * dim)
        self.context_hidden = nn.Linear(context, hidden, bias=False)
        self.context_out = nn.Linear(context, 2 * dim, bias=False)
        nn.init.constant_(self.out.bias[dim:], bias)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = F.linear(z, self.hidden.weight * self.mask_in, self.hidden.bias)
        a = F.elu(a + self.context_hidden(h))
        out = F.linear(a, self.out.weight * self.mask_out, self.out.bias) + self.context_out(h)
        m, s = out.chunk(2, -1)
        return m, s


class WNConv(WeightNormed):
    """Weight-normalised, of odd kernel; ``stride`` 2 halves the maps, ``grow`` doubles them."""

    def __init__(
        self, a: int, b: int, kernel: int = 3, stride: int = 1, grow: bool = False
    ) -> None:
        super().__init__(a, b, (kernel, kernel), grow, PLAIN)
        self.stride, self.padding = stride, kernel // 2

    def _apply_to(self, x: Tensor) -> Tensor:
        if self.grow:
            return F.conv_transpose2d(x, self.weight(), self.b, 2, self.padding, output_padding=1)
        return F.conv2d(x, self.weight(), self.b, self.stride, self.padding)


class MaskedWNConv(WNConv):
    """The same, masked; the norm is that of the open taps."""

    mask: Tensor

    def __init__(self, kind: str, a: int, b: int, groups: int, parts: int = 1) -> None:
        super().__init__(a, b)
        self.scale = 1.0
        mask = open_taps(kind, (3, 3), group_of(a, groups), group_of(b, groups, parts))
        self.register_buffer("mask", mask, persistent=False)

    def direction(self) -> Tensor:
        return self.v * self.mask


class ConvStep(nn.Module):
    """(m, s) of maps z (B, C, H, W), autoregressive in raster order and the channels of a position;
    context (B, hidden, H, W). Two hidden layers of ELUs, the context added in the first.
    """

    def __init__(self, channels: int, hidden: int, bias: float) -> None:
        super().__init__()
        self.first = MaskedWNConv("A", channels, hidden, channels)
        self.second = MaskedWNConv("B", hidden, hidden, channels)
        self.out = MaskedWNConv("B", hidden, 2 * channels, channels, parts=2)
        self.bias = bias

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = F.elu(self.second(F.elu(self.first(z) + h)))
        m, s = self.out(a).chunk(2, 1)
        return m, s + self.bias


def transform(kind: str, z: Tensor, m: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """One step, and ln σ_t of each element, by which log q falls."""
    if kind == "affine":
        return (z - 0.1 * m) * (-0.1 * s).exp(), -0.1 * s
    log_scale = F.logsigmoid(s)
    return log_scale.exp() * z + (1 - log_scale.exp()) * m, log_scale


class Flow(nn.Module):
    """T steps; z, log q of each element and context h go in, z_T and its log q come out, in the
    order of the last step.

    Args:
        turned: dimensions of z that are reversed between steps. turned_context: those of h.
    """

    def __init__(
        self, steps: Sequence[nn.Module], kind: str, turned: Dims, turned_context: Dims
    ) -> None:
        super().__init__()
        self.steps, self.kind = nn.ModuleList(steps), kind
        self.turned, self.turned_context = turned, turned_context

    def forward(self, z: Tensor, log_q: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        for i, step in enumerate(self.steps):
            if i:
                z, log_q = z.flip(self.turned), log_q.flip(self.turned)
                h = h.flip(self.turned_context) if self.turned_context else h
            z, log_scale = transform(self.kind, z, *step(z, h))
            log_q = log_q - log_scale
        return z, log_q


# -- ResNet --------------------------------------------------------------------------------------
class Up(nn.Module):
    """A layer of the way up: (μ_q, ln σ_q, context) and the input of the layer above."""

    def __init__(self, z: int, width: int, context: int, stride: int) -> None:
        super().__init__()
        self.sizes = [z, z, context, width]
        self.conv, self.out = WNConv(width, sum(self.sizes), stride=stride), WNConv(width, width)
        self.stride = stride

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        mu, log_s, context, h = self.conv(F.elu(x)).split(self.sizes, 1)
        x = x if self.stride == 1 else F.interpolate(x, scale_factor=0.5, mode="nearest")
        return (mu, log_s, context), x + 0.1 * self.out(F.elu(h))


class Down(nn.Module):
    """A layer of the top-down pass: ``split`` gives (μ_p, ln σ_p, μ_r, ln σ_r, context, h),
    ``merge`` takes z in.
    """

    def __init__(self, z: int, width: int, context: int, grow: bool) -> None:
        super().__init__()
        self.sizes = [z, z, z, z, context, width]
        self.conv, self.grow = WNConv(width, sum(self.sizes)), grow
        self.out = WNConv(z + width, width, grow=grow)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.conv(F.elu(x)).split(self.sizes, 1)

    def merge(self, x: Tensor, z: Tensor, h: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest") if self.grow else x
        return x + 0.1 * self.out(F.elu(torch.cat([z, h], 1)))


class BottomUp(nn.Module):
    """Images in [-½, ½] to each layer's (μ_q, ln σ_q, context), the top layer first."""

    def __init__(
        self, channels: int, z: int, width: int, context: int, levels: int, blocks: int
    ) -> None:
        super().__init__()
        self.first = WNConv(channels, width, 5, 2)
        strides = [2 if i and j == 0 else 1 for i in range(levels) for j in range(blocks)]
        self.layers = nn.ModuleList(Up(z, width, context, stride) for stride in strides)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        x, found = self.first(x), []
        for layer in self.layers:
            said, x = layer(x)
            found.append(said)
        return found[::-1]


class TopDown(nn.Module):
    """Codes to images, from the top: a learned map, then layer after layer, each with its z.

    Args:
        size: height and width of the top maps. outputs: channels of the result; 2 for each with a
            spread of its own for all pixels.
    """

    layers: Any

    def __init__(
        self,
        channels: int,
        z: int,
        width: int,
        context: int,
        levels: int,
        blocks: int,
        size: tuple[int, int],
        params: int,
        limit: float,
    ) -> None:
        super().__init__()
        self.z, self.size, self.channels, self.params, self.limit = z, size, channels, params, limit
        self.top = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.layers = nn.ModuleList(
            Down(z, width, context, i > 0 and j == 0) for i in range(levels) for j in range(blocks)
        )[::-1]
        self.last = WNConv(width, channels, 5, grow=True)
        # ln of the logistic's scale, or of the gaussian's variance
        self.spread = nn.Parameter(torch.zeros(()))

    def sizes(self) -> list[tuple[int, int, int]]:
        """Shape of each layer's z."""
        (h, w), found = self.size, []
        for layer in self.layers:
            found.append((self.z, h, w))
            h, w = (2 * h, 2 * w) if layer.grow else (h, w)
        return found

    def run(self, n: int, choose: Callable[[int, tuple[Tensor, ...]], Tensor]) -> Tensor:
        """Parameters of p(x | z), (n, params, C, H, W), with z of layer i = ``choose``(i, what
        ``Down.split`` gave).
        """
        x = self.top.expand(n, -1, *self.size)
        for i, layer in enumerate(self.layers):
            said = layer.split(x)
            x = layer.merge(x, choose(i, said), said[-1])
        x = self.last(F.elu(x))
        if self.params == 1:
            return x[:, None]
        x = (2 * x).clamp(-self.limit, self.limit)
        return torch.stack([x, self.spread.expand_as(x)], 1)

    def forward(self, codes: Tensor) -> Tensor:
        """The same from codes (n, latent)."""
        shapes = self.sizes()
        parts = codes.split([c * h * w for c, h, w in shapes], 1)
        return self.run(len(codes), lambda i, said: parts[i].unflatten(1, shapes[i]))


@register(
    "iaf_vae",
    paper=Paper(
        "Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling",
        "Improved Variational Inference with Inverse Autoregressive Flow",
        2016,
        "1606.04934",
    ),
    about="a VAE whose posterior is bent by an autoregressive flow, flat or as a deep ResNet",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(("val/elbo", ">", -20.0), ("val/iw_nll", "<", 19.0)),
)
class IAFVAE(VariationalModule):
    """VAE with an inverse autoregressive flow.

    Args:
        net: "mlp", or "resnet" for images. steps: T; 0 is a gaussian posterior. iaf: "sigmoid" or
            "affine". hidden: units, or maps, of a step's network. free_bits: λ, nats of each group.
            latent: dimensions of z ("mlp"), or its maps in each layer ("resnet").
        width: hidden units, or maps. layers: hidden layers ("mlp"). context: numbers that the
            encoder tells the flow ("mlp").
        levels: resolutions, blocks: layers of each ("resnet").
        likelihood: "bernoulli", "gaussian", "dlogistic" or "auto". draws: of z in the importance
            bound. optimiser: "adam" or "adamax". lr: learning rate.
    """

    watches = ("nelbo", "kl")
    first_examples = 128

    def __init__(
        self,
        spec: Spec,
        net: Literal["mlp", "resnet"] = "mlp",
        steps: Whole = 2,
        iaf: Literal["sigmoid", "affine"] = "sigmoid",
        hidden: Count = 64,
        free_bits: NonNegative = 0.0,
        latent: Count = 8,
        width: Count = 200,
        layers: Count = 2,
        context: Count = 32,
        levels: Count = 1,
        blocks: Count = 2,
        likelihood: Likelihood = "auto",
        draws: Count = 50,
        optimiser: Literal["adam", "adamax"] = "adam",
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        self.net, self.free_bits, self.context = net, free_bits, context
        self.optimiser, self.lr = optimiser, lr
        bias = OPEN if iaf == "sigmoid" else 0.0
        if net == "mlp":
            outputs = 2 * latent + context
            self.build("mlp", latent, width, layers, "relu", likelihood, draws, outputs)
            flat = [Step(latent, context, hidden, bias) for _ in range(steps)]
            self.flows = nn.ModuleList([Flow(flat, iaf, (-1,), ())])
            return
        spec.require("iaf_vae with net=resnet", x=Image)
        c, *size = spec.shape
        if any(side % 2**levels for side in size) or hidden < latent:
            raise ValueError(
                f"iaf_vae: net=resnet needs sides that {2**levels} divides and hidden >= latent, "
                f"got {spec}, hidden={hidden}, latent={latent}; lower --model.levels or "
                "--model.latent"
            )
        self.head, self.draws = make_head(likelihood, spec.levels), draws
        top = (size[0] // 2**levels, size[1] // 2**levels)
        limit = 1 - 1 / (spec.levels or 256)
        sizes = (c, latent, width, hidden, levels, blocks)
        self.encoder = BottomUp(*sizes)
        self.decoder = TopDown(*sizes, top, self.head.params, limit)
        self.flows = nn.ModuleList()
        for _ in range(levels * blocks):
            of_maps = [ConvStep(latent, hidden, bias) for _ in range(steps)]
            self.flows.append(Flow(of_maps, iaf, (1, 2, 3), (2, 3)))
        self.latent = sum(a * b * d for a, b, d in self.decoder.sizes())

    def initialise_from(self, batch: Batch) -> None:
        """Scale the convolutions, by images on the way up, draws from the prior on the way down."""
        if self.net == "resnet":
            source = Draw(seeded(int(self.noise_seed), "start"))
            with measuring(self):
                self._draw_resnet(batch["x"][: self.first_examples], 1, source, of_prior=True)

    # -- likelihood -------------------------------------------------------------------------------
    gaussian = False

    def draw(self, x: Tensor, k: int, source: Source | None) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters of p(x | z) (K·B, params, *shape), z_T (K·B, latent) and log q - log p of each
        group (K·B, groups) at K draws of z for each row of x; without a source at ε = 0."""
        return (self._draw_mlp if self.net == "mlp" else self._draw_resnet)(x, k, source)

    def _noise(self, x: Tensor, k: int, source: Source | None, *shape: int) -> Tensor:
        if source is None:
            return x.new_zeros(k * len(x), *shape)
        return source.normal(len(x), k, *shape).to(x).transpose(0, 1).flatten(0, 1)

    def _draw_mlp(self, x: Tensor, k: int, source: Source | None) -> tuple[Tensor, Tensor, Tensor]:
        said = self.encoder(self.spec.to_signed(x)).repeat(k, 1)
        mu, log_var, h = said.split([self.latent, self.latent, self.context], 1)
        log_var = soft_clamp(log_var)
        z = reparameterise(mu, log_var, self._noise(x, k, source, self.latent))
        z, log_q = self.flows[0](z, log_normal(z, mu, log_var), h)
        return self.decoder(z), z, log_q - log_normal(z)

    def _draw_resnet(
        self, x: Tensor, k: int, source: Source | None, of_prior: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = self.encoder(self.spec.to_signed(x) / 2)
        ups = [tuple(t.repeat(k, 1, 1, 1) for t in said) for said in found]
        codes: list[Tensor] = []
        ratios: list[Tensor] = []

        def choose(i: int, said: tuple[Tensor, ...]) -> Tensor:
            mu_p, log_s_p, mu_r, log_s_r, context, _ = said
            mu_q, log_s_q, context_q = ups[i]
            log_var_p = soft_clamp(2 * log_s_p)
            mu, log_var = mu_p, log_var_p
            if not of_prior:
                mu, log_var = mu_r + mu_q, soft_clamp(2 * (log_s_r + log_s_q))
            z = reparameterise(mu, log_var, self._noise(x, k, source, *mu.shape[1:]))
            z, log_q = self.flows[i](z, log_normal(z, mu, log_var), context + context_q)
            ratios.append((log_q - log_normal(z, mu_p, log_var_p)).sum((2, 3)))
            codes.append(z.flatten(1))
            return z

        out = self.decoder.run(k * len(x), choose)
        return out, torch.cat(codes, 1), torch.cat(ratios, 1)

    def weigh(self, x: Tensor, k: int, source: Source) -> tuple[Tensor, Tensor]:
        out, _, ratio = self.draw(x, k, source)
        u = self.dequantising(x, k, source)
        rows, noise = x.repeat(k, *[1] * (x.ndim - 1)), None if u is None else u.flatten(0, 1)
        recon = self.head.log_prob(out, rows, noise)
        return recon.unflatten(0, (k, len(x))), ratio.unflatten(0, (k, len(x)))

    def bound_terms(self, x: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        return self.sampled_terms(x, source)

    # -- loss -------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        recon, ratio = self.weigh(batch["x"], 1, self.noise)
        kl = ratio[0].mean(0)  # of each group, over the minibatch
        cost = kl.clamp(min=self.free_bits) if self.free_bits else kl
        terms = {"nelbo": kl.sum() - recon.mean(), "recon": recon.mean(), "kl": kl.sum()}
        terms["free_groups"] = (kl < self.free_bits).sum()
        return {"loss": cost.sum() - recon.mean(), **terms}

    # -- use --------------------------------------------------------------------------------------
    def draw_codes(self, n: int, source: Source) -> Tensor:
        if self.net == "mlp":
            return source.normal(n, self.latent)
        codes: list[Tensor] = []

        def choose(i: int, said: tuple[Tensor, ...]) -> Tensor:
            mu, log_s = said[:2]
            z = reparameterise(mu, soft_clamp(2 * log_s), source.normal(n, *mu.shape[1:]))
            codes.append(z.flatten(1))
            return z

        self.decoder.run(n, choose)
        return torch.cat(codes, 1)

    def encode(self, x: Tensor) -> Tensor:
        """z_T at ε = 0, (B, latent)."""
        return self.draw(x, 1, None)[1]

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        kind = torch.optim.Adam if self.optimiser == "adam" else torch.optim.Adamax
        return kind(self.parameters(), self.lr)
