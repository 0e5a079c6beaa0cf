"""IAN: a variational auto-encoder that encodes with its own discriminator, and an editor.

Paper      Brock, Lim, Ritchie, Weston. Neural Photo Editing with Introspective Adversarial
           Networks. ICLR 2017. arXiv:1609.07093.
Model      One trunk of strided convolutions, f_1, ..., f_L, under two ends. The latent heads:
           q(z | x) = N(μ(f_L(x)), σ²(f_L(x))). The adversary: C(x), a softmax over three kinds of
           image, 1 real, 2 a reconstruction X̂ = Dec(z), z ~ q(z | X), 3 a sample Dec(z_p),
           z_p ~ N(0, I). Dec has multiscale dilated convolutions (MDC): one 3x3 kernel at several
           dilations, weighed by learnt weights.
Objective  D:  -log C_1(X) - log C_2(X̂) - log C_3(Dec(z_p)) + λ_o Ω(trunk), X̂ and Dec(z_p) without
               gradient. The trunk learns from nothing else.
           G:  Dec and the latent heads, each from what reaches it,
                 λ_adv (-log C_1(X̂) - log C_1(Dec(z_p)))
               + λ_img mean |X - X̂|
               + λ_feat mean_l mean (f_l(X) - f_l(X̂))², introspection; f_l(X) is a constant
               + λ_kl -½ mean (1 + log σ² - μ² - σ²), over latents too; the heads read f_L(X)
                 without gradient into the trunk
               + λ_o Ω(Dec) + λ_2 ‖heads‖².
           Ω = Σ |W Wᵀ - I| over convolutions, a row of W for each filter. With ``twice`` the heads
           move after D's step too (player "e").
Editor     From z_0 = μ(X), a brush of colour c over pixels M_b: z ← z - η ∇ ‖M_b (Dec(z) - c)‖².
           Y = X + M Δ, Δ = Dec(z) - Dec(z_0). M is the mean of |Δ| over channels, at most 1, 0
           below 0.1, smoothed: where it is 0, and everywhere if z = z_0, Y is X.
Sampling   Dec(z), z ~ N(0, I), quantised. ``encode`` is μ, ``reconstruct`` Dec(μ(X)).
Logs       train/gan, feature_mse, recon_l1, kl, ortho_d, ortho_g, d_acc; val/recon_mse,
           recon_permuted, code_gain, recon_l1, l1_ratio, kl, d_acc and its three parts.
Notes      What the paper leaves open is as in ajbrock/Neural-Photo-Editor, but that there Ω takes
           the lines of each filter for W, the heads have one optimiser in both steps, and the
           editor shows (1 - M) X + M Dec(z), M without the threshold. ``full`` is its decoder:
           MDC blocks after all but the last transposed convolution, each channel the mean of beta
           distributions that follow from the maps and the channels before; here all MDCs have the
           same dilations, 0 the 1x1 kernel of means. Its inverse autoregressive flow on z, which
           is not trained there, is left out. ``kernels``, minibatch discrimination, is over one
           process's rows of a kind; D's answers then depend on how many those are. The default
           normalises layers, the paper batches. val/l1_ratio is over the mean image's error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.bases import Adversary, LoopOptions, Phase, Terms
from zoo.bases.joint import InferenceModule
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive, Whole
from zoo.nn.blur import blur
from zoo.nn.gaussian import kl_standard, reparameterise, soft_clamp
from zoo.nn.minibatch import MinibatchDiscrimination
from zoo.nn.prior import Draw
from zoo.nn.small import logits
from zoo.registry import Paper, register

REAL = 0  # the paper's class 1; reconstructions are 1, and samples 2
RATES = (1.0, 0.5, 0.25, 0.05)  # factors, of an interval each
LEAST = 0.1  # change of a pixel in [-1, 1] that the editor shows
Sizes = Sequence[int]


def normed(norm: str, width: int, slope: float = 0.2, dims: int = 2) -> nn.Sequential:
    """The norm of maps (dims=2) or units (dims=0), then leaky ReLU."""
    layers: dict[str, nn.Module] = {"none": nn.Identity(), "layer": nn.GroupNorm(1, width)}
    layers["batch"] = nn.BatchNorm2d(width) if dims else nn.BatchNorm1d(width)
    return nn.Sequential(layers[norm], nn.LeakyReLU(slope))


class Discriminator(nn.Module):
    """The trunk, 5x5 convolutions of stride 2, and three logits of its mean over places."""

    def __init__(self, shape: Sizes, widths: Sizes, norm: str, kernels: int) -> None:
        super().__init__()
        inputs = [shape[0], *widths[:-1]]
        norms = ["none", *[norm] * (len(widths) - 1)]
        self.trunk = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 5, 2, 2, bias=kind != "batch"), normed(kind, b))
            for a, b, kind in zip(inputs, widths, norms, strict=True)
        )
        self.minibatch = MinibatchDiscrimination(widths[-1], kernels) if kernels else None
        self.end = nn.Linear(widths[-1] + kernels, 3, bias=False)

    def maps(self, v: Tensor) -> list[Tensor]:
        """f_1(v), ..., f_L(v), (B, maps, h, w) each."""
        found = []
        for stage in self.trunk:
            found.append(v := stage(v))
        return found

    def verdict(self, top: Tensor) -> Tensor:
        """Logits of the three kinds from f_L, (B, 3)."""
        h = top.mean((2, 3))
        if self.minibatch is not None:
            h = torch.cat([h, self.minibatch(h)], 1)
        return logits(self.end(h))

    def forward(self, v: Tensor) -> Tensor:
        return self.verdict(self.maps(v)[-1])


class LatentHeads(nn.Module):
    """f_L, a constant to them, to μ and log σ², (B, latent) each."""

    def __init__(self, inputs: int, hidden: int, latent: int, norm: str) -> None:
        super().__init__()
        batch = norm == "batch"
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden, bias=not batch),
            normed(norm, hidden, slope=0.0, dims=0),
            nn.Linear(hidden, 2 * latent, bias=not batch),
            nn.BatchNorm1d(2 * latent) if batch else nn.Identity(),
        )

    def forward(self, top: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_sigma = self.net(top.detach().flatten(1)).chunk(2, 1)
        return mu, soft_clamp(2 * log_sigma)


class MDC(nn.Conv2d):
    """Σ_s w_s ⊙ (W *_s x), of the same size: one 3x3 kernel W at every dilation s, 0 being the 1x1
    kernel of W's means; w_s, a weight for each filter, begins as that of the mean.
    """

    def __init__(self, inputs: int, outputs: int, dilations: Sizes) -> None:
        super().__init__(inputs, outputs, 3, bias=False)
        self.dilations = tuple(dilations)
        self.mix = nn.Parameter(torch.full((len(dilations), outputs), 1 / len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(())
        for s, w in zip(self.dilations, self.mix, strict=True):
            kernel = self.weight if s else self.weight.mean((2, 3), keepdim=True)
            out = out + F.conv2d(x, w[:, None, None, None] * kernel, padding=s, dilation=max(s, 1))
        return out


class MDCBlock(nn.Module):
    """h plus two MDCs of it; norm and leaky ReLU before each and after the sum."""

    def __init__(self, width: int, dilations: Sizes, norm: str) -> None:
        super().__init__()
        halves = [(normed(norm, width), MDC(width, width, dilations)) for _ in range(2)]
        self.net = nn.Sequential(*(m for half in halves for m in half))
        self.end = normed(norm, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.end(h + self.net(h))


class BetaImage(nn.Module):
    """Maps h to an image, each channel the mean 2 α / (α + β) - 1 of a beta distribution: (α, β) =
    σ(MDC(h) + MDC(those of the channels before)).
    """

    def __init__(self, width: int, channels: int, dilations: Sizes) -> None:
        super().__init__()
        self.of_maps = nn.ModuleList(MDC(width, 2, dilations) for _ in range(channels))
        self.of_before = nn.ModuleList(MDC(2 * c, 2, dilations) for c in range(1, channels))

    def forward(self, h: Tensor) -> Tensor:
        found: list[Tensor] = []
        for c, of_maps in enumerate(self.of_maps):
            before = self.of_before[c - 1](torch.cat(found, 1)) if c else 0
            found.append((of_maps(h) + before).sigmoid())
        means = [ab[:, :1] / ab.sum(1, keepdim=True) for ab in found]
        return 2 * torch.cat(means, 1) - 1


class Decoder(nn.Module):
    """A linear layer, 5x5 transposed convolutions of stride 2, an MDC block after the first, or all
    but the last (``whole``), and the end: z, (B, latent) -> (B, C, H, W) in (-1, 1).
    """

    def __init__(
        self, latent: int, shape: Sizes, widths: Sizes, dilations: Sizes, norm: str, whole: bool
    ) -> None:
        super().__init__()
        c, height, breadth = shape
        n = len(widths)
        base = (widths[0], height >> n, breadth >> n)
        layers: list[nn.Module] = [nn.Linear(latent, torch.Size(base).numel()), nn.LeakyReLU(0.2)]
        layers.append(nn.Unflatten(1, base))
        blocks = max(n - 1, 1) if whole else 1
        for i, (a, b) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True)):
            layers.append(nn.ConvTranspose2d(a, b, 5, 2, 2, 1, bias=norm != "batch"))
            layers.append(MDCBlock(b, dilations, norm) if i < blocks else normed(norm, b))
        if whole:
            layers.append(BetaImage(widths[-1], c, dilations))
        else:
            layers += [nn.Conv2d(widths[-1], c, 5, 1, 2), nn.Tanh()]
        self.net = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


def ternary(s: Tensor, kind: int) -> Tensor:
    """-log C_kind from logits (B, 3), (B,)."""
    return -s.log_softmax(1)[:, kind]


def realness(s: Tensor) -> Tensor:
    """log C_1 / (C_2 + C_3) from logits (B, 3), (B,)."""
    return s[:, REAL] - s[:, REAL + 1 :].logsumexp(1)


def introspection(target: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
    """mean_l mean (f_l(X) - f_l(X̂))², (B,); the targets f_l(X) are constants."""
    each = [(t.detach() - f).square().flatten(1).mean(1) for t, f in zip(target, seen, strict=True)]
    return torch.stack(each).mean(0)


def absolute_error(a: Tensor, b: Tensor) -> Tensor:
    """mean |a - b|, (B,)."""
    return (a - b).abs().flatten(1).mean(1)


def ortho(net: nn.Module) -> Tensor:
    """Ω of all convolutions of a net."""
    found = []
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            w = m.weight.transpose(0, 1) if isinstance(m, nn.ConvTranspose2d) else m.weight
            rows = w.flatten(1)
            found.append((rows @ rows.T - torch.eye(len(w)).to(rows)).abs().sum())
    return torch.stack(found).sum()


def brushed(
    g: nn.Module, z: Tensor, under: Tensor, colour: Tensor, steps: int, eta: float
) -> Tensor:
    """z after ``steps`` of z - η ∇ ‖M_b (Dec(z) - c)‖², (B, latent), each row by itself; M_b and c,
    in [-1, 1], spread over images.
    """
    with torch.enable_grad():
        for _ in range(steps):
            z = z.detach().requires_grad_()
            error = (under * (g(z) - colour)).square().sum()
            z = z - eta * torch.autograd.grad(error, z)[0]
    return z.detach()


def change_mask(delta: Tensor) -> Tensor:
    """M, (B, 1, H, W), of Δ, (B, C, H, W)."""
    m = delta.abs().mean(1, keepdim=True)
    return blur(torch.where(m > LEAST, m.clamp(max=1), 0))


@register(
    "ian",
    paper=Paper(
        "Brock, Lim, Ritchie, Weston",
        "Neural Photo Editing with Introspective Adversarial Networks",
        2017,
        "1609.07093",
    ),
    about="a VAE that encodes with its own discriminator, and edits images by a brush",
    taxonomy="hybrid",
    likelihood="none",
    can={"sample", "encode", "decode", "reconstruct", "interpolate", "edit"},
    data="digits",
    learns=(
        ("val/l1_ratio", "<", 0.4),
        ("val/code_gain", ">", 0.07),
        ("val/is_pixels", ">", 4.3),
        ("val/fid_pixels", "<", 0.14),
        ("val/precision_pixels", ">", 0.48),
        ("val/coverage_pixels", ">", 0.45),
    ),
)
class IAN(InferenceModule):
    """See the module's docstring.

    Args:
        spec: images, sides multiples of 2 to the number of strided convolutions.
        latent: dimension of z. enc: maps of the trunk's convolutions. dec: of Dec's transposed ones
            (the first also of what they begin with), as many. hidden: units of the latent heads.
        dilations: of the MDCs. full: the authors' whole decoder. kernels: of minibatch
            discrimination; 0 is none. norm: "layer", "batch" or "none".
        lam_adv, lam_img, lam_feat, lam_kl: the weights of G's terms. lam_ortho: of Ω, for D and
            Dec. l2: of the squares of the heads' weights.
        twice: whether the heads also move after D's step. k: D's steps in a cycle.
        lr_d: learning rate of D. lr_g: of Dec and the heads. beta1: Adam's first decay.
            decay_every: generator steps after which all rates are 0.5, 0.25, 0.05 of the first, in
            turn; 0 is never. loop: options of the adversarial loop.
    """

    watches = ("recon_l1", "d_acc")
    accepts = {"x": Image}
    mean_image: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count = 16,
        enc: Sequence[Count] = (32, 64),
        dec: Sequence[Count] = (32, 32),
        hidden: Count = 128,
        dilations: Sequence[Whole] = (1, 2),
        full: bool = False,
        kernels: Whole = 0,
        norm: Norm = "layer",
        lam_adv: NonNegative = 0.5,
        lam_img: NonNegative = 8.0,
        lam_feat: NonNegative = 1.0,
        lam_kl: NonNegative = 1.0,
        lam_ortho: NonNegative = 1e-3,
        l2: NonNegative = 1e-5,
        twice: bool = False,
        k: Count = 1,
        lr_d: Positive = 1e-3,
        lr_g: Positive = 2e-3,
        beta1: Decay = 0.5,
        decay_every: Whole = 350,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop, latent=latent, k=k, lr_d=lr_d, lr_g=lr_g, betas=(beta1, 0.999))
        n = len(enc)
        if not 0 < n == len(dec) or any(side % (1 << n) for side in spec.shape[1:]):
            raise ValueError(
                f"ian halves the sides once for each map of enc and doubles them for each of dec, "
                f"got enc={[*enc]}, dec={[*dec]} and {spec}; give both as many maps, or fewer"
            )
        if not dilations:
            raise ValueError("ian needs a dilation, got dilations=[]; set it, e.g. to [1]")
        self.lam_adv, self.lam_img, self.lam_feat = lam_adv, lam_img, lam_feat
        self.lam_kl, self.lam_ortho, self.l2 = lam_kl, lam_ortho, l2
        self.twice, self.lr_e = twice, lr_g
        self.decay_every = decay_every
        top = enc[-1] * (spec.shape[1] >> n) * (spec.shape[2] >> n)
        self.g = Decoder(latent, spec.shape, dec, dilations, norm, full)
        self.e = LatentHeads(top, hidden, latent, norm)
        d = Discriminator(spec.shape, enc, norm, kernels)
        self.d = Adversary(self, d, realness=realness)
        self.register_buffer("mean_image", torch.zeros(spec.shape))  # in [-1, 1]

    def initialise_from(self, batch: Batch) -> None:
        self.mean_image.copy_(self.scaled(batch["x"]).mean(0))

    # -- losses -----------------------------------------------------------------------------------
    def maps(self, v: Tensor) -> list[Tensor]:
        """f_l of images as the trunk sees them in training."""
        return self.d.net.maps(self.d.noisy(v))

    def drawn(self, mu: Tensor, log_var: Tensor) -> Tensor:
        """X̂ = Dec(z), z ~ q(z | X)."""
        return self.g(reparameterise(mu, log_var, self.noise.normal_like(mu)))

    def discriminator_loss(self, batch: Batch) -> Terms:
        v = self.scaled(batch["x"])
        with torch.no_grad():
            made = self.drawn(*self.e(self.maps(v)[-1])), self.g(self.codes(batch.n))
        recon, sample = (self.d.stored(u) for u in made)
        s = self.d.judged((v,), recon, sample)
        loss = torch.stack([ternary(s[kind], kind).mean() for kind in range(3)]).sum()
        right = torch.stack([(s[kind].argmax(1) == kind).float().mean() for kind in range(3)])
        omega = ortho(self.d.net)
        terms = {"loss": loss + self.lam_ortho * omega, "d_acc": right.mean(), "ortho_d": omega}
        return self.d.regularised(terms, v)

    def latent_loss(self, batch: Batch) -> Terms:
        """What reaches the latent heads."""
        v = self.scaled(batch["x"])
        with torch.no_grad():
            target = self.maps(v)
        mu, log_var = self.e(target[-1])
        recon = self.drawn(mu, log_var)
        seen, kl = self.maps(recon), kl_standard(mu, log_var)
        l1, feature = absolute_error(v, recon).mean(), introspection(target, seen).mean()
        gan = ternary(self.d.net.verdict(seen[-1]), REAL).mean()
        squares = [p.square().sum() for p in self.e.parameters() if p.ndim > 1]
        loss = self.lam_adv * gan + self.lam_img * l1 + self.lam_feat * feature
        loss = loss + self.lam_kl * kl.mean() + self.l2 * torch.stack(squares).sum()
        terms = {"loss": loss, "gan": gan, "feature_mse": feature, "kl": kl.sum(1).mean()}
        return terms | {"recon_l1": 0.5 * l1}  # as of images in [0, 1]

    def generator_loss(self, batch: Batch) -> Terms:
        terms = self.latent_loss(batch)
        sample = ternary(self.d.see(self.g(self.codes(batch.n))), REAL).mean()
        omega = ortho(self.g)
        terms["loss"] = terms["loss"] + self.lam_adv * sample + self.lam_ortho * omega
        return terms | {"gan": terms["gan"] + sample, "ortho_g": omega}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module | Sequence[nn.Module]]:
        again = {"e": self.e} if self.twice else {}
        return {"d": self.d, **again, "g": [self.g, self.e]}

    def phases(self) -> list[Phase]:
        d = Phase("d", self.discriminator_loss, repeat=self.k, critic=True)
        again = [Phase("e", self.latent_loss)] if self.twice else []
        return [d, *again, Phase("g", self.generator_loss)]

    # -- use --------------------------------------------------------------------------------------
    def mean_code(self, v: Tensor) -> Tensor:
        return self.e(self.d.net.maps(v)[-1])[0]

    @torch.no_grad()
    def edit(
        self, x: Tensor, mask: Tensor, colour: Tensor, *, steps: int = 20, eta: float = 0.02
    ) -> Tensor:
        """Y, in levels, (B, C, H, W).

        Args:
            mask: M_b, boolean, of (H, W) at its end. colour: c, in levels, (C,). steps, eta: of the
                descent from μ(x).
        """
        v, c = self.scaled(x), self.scaled(colour)[:, None, None]
        before = self.mean_code(v)
        after = brushed(self.g, before, mask.to(v.dtype), c, steps, eta)
        delta = self.g(after) - self.g(before)
        m = change_mask(delta)
        return torch.where(m > 0, self.quantised(v + m * delta), x)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        v = self.scaled(batch["x"])
        mu, log_var = self.e(self.d.net.maps(v)[-1])
        recon = self.g(mu)
        sample = self.g(self.draw_codes(len(v), Draw(generator, self.device, v.dtype)))
        shown = enumerate((v, recon, sample))
        right = [(self.d(u).argmax(1) == kind).to(v.dtype) for kind, u in shown]
        l1, values = absolute_error(v, recon), self.errors("recon", v, mu)
        return {
            **values,
            "code_gain": values["recon_permuted"] - values["recon_mse"],
            "recon_l1": 0.5 * l1,
            "l1_ratio": l1 / absolute_error(v, self.mean_image),
            "kl": kl_standard(mu, log_var).sum(1),
            "d_acc_real": right[0],
            "d_acc_recon": right[1],
            "d_acc_prior": right[2],
            "d_acc": torch.stack(right).mean(0),
        }

    # -- optimisers -------------------------------------------------------------------------------
    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.decay_every:
            return {}
        return {p: LambdaLR(o, self._factor(self.steps_of(p))) for p, o in optimisers.items()}

    def _factor(self, times: int) -> Callable[[int], float]:
        """Of the rate of a player, after so many of its steps."""
        each = self.decay_every * times
        return lambda step: RATES[min(step // each, len(RATES) - 1)]
