"""BEGAN: boundary-equilibrium GAN.

Paper      Berthelot, Schumm, Metz. BEGAN: Boundary Equilibrium Generative Adversarial Networks.
           2017. arXiv:1703.10717.
Model      x = G(z), z ~ U(-1, 1)^n. D is an auto-encoder, D(v) = Dec(Enc(v));
           L(v) = mean |v - D(v)|^η over pixels.
Objective  D:  L(x) - k_t L(G(z_D)), G(z_D) detached; both terms flow through encoder and decoder.
           G:  L(G(z_G)), through both appearances of G(z_G): as D's input and as the target of its
               reconstruction.
Controller k_{t+1} = clip(k_t + λ (γ L(x) - L(G(z_G))), 0, 1) once a cycle, k_0 = 0,
           from losses averaged over all processes, with the L(x) of the last D step. k_t is a
           float64 buffer. γ = E L(G(z)) / E L(x) is the diversity ratio.
Logs       train/m_global = L(x) + |γ L(x) - L(G(z))|, the paper's convergence measure; train/k_t;
           train/balance.
Schedule   Both learning rates are halved every ``halve_every`` cycles; and, where ``interval`` > 0,
           whenever the running mean of m_global (decay 0.99) has not improved by 1 % for two
           intervals of so many cycles (paper: when it stalls).
Sampling   z ~ U(-1, 1)^n, G(z) clamped to [-1, 1] and quantised.
Notes      No tanh anywhere: G's and the decoder's ends are linear. z_D and z_G are drawn
           separately, as Algorithm 1 writes; the widely used code takes one. ``interpolate`` finds
           z by gradient descent on |G(z) - x|, as section 4.3 does. The default is an MLP;
           ``arch="conv"`` is the paper's network (filters grow linearly, nearest upsampling,
           stride-2 convolutions without activation), with its two options ``skip`` and
           ``vanishing_residual``. The default is trained on drawn heads (configs/gan/began.yaml),
           the defaults of the constructor are for digits, where the paper's setting
           collapses (docs/began.md): a fast auto-encoder memorises, the controller then keeps k_t
           near 0, and G may sit wherever reconstruction is easy. γ = 1, a G ten times as fast as D,
           a wide code and falling rates keep k_t above 1/2, and G reaches every class.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Range, Whole
from zoo.nn.prior import path
from zoo.registry import Paper, register


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ELU between them; both ends linear."""
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-2], widths[1:-1], strict=True):
        layers += [nn.Linear(a, b), nn.ELU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class Encoder(nn.Module):
    """3x3 convolutions with ELU, filters n, 2n, ..., mn; a stride-2 convolution without activation
    between stages; linear code.
    """

    def __init__(self, channels: int, size: int, n: int, code: int, base: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, n, 3, padding=1)
        self.pairs, self.downs = nn.ModuleList(), nn.ModuleList()
        width = n
        for i in range(1, _stages(size, base) + 1):
            self.pairs.append(
                nn.ModuleList(
                    [nn.Conv2d(width, i * n, 3, padding=1), nn.Conv2d(i * n, i * n, 3, padding=1)]
                )
            )
            width = i * n
            if i < _stages(size, base):
                self.downs.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.code = nn.Linear(base * base * width, code)

    def forward(self, x: Tensor, carry: Tensor | float = 0.0) -> Tensor:
        h = F.elu(self.stem(x))
        for i, pair in enumerate(self.pairs):
            h = _residual(pair, h, carry)
            if i < len(self.downs):
                h = self.downs[i](h)
        return self.code(h.flatten(1))


class Decoder(nn.Module):
    """Linear to (n, b, b), then stages of two 3x3 convolutions with ELU and nearest upsampling;
    linear image. Also the generator.
    """

    def __init__(self, channels: int, size: int, n: int, code: int, base: int, skip: bool) -> None:
        super().__init__()
        self.n, self.base, self.skip = n, base, skip
        self.code = nn.Linear(code, base * base * n)
        self.pairs = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Conv2d(n * (2 if skip and i else 1), n, 3, padding=1),
                    nn.Conv2d(n, n, 3, padding=1),
                ]
            )
            for i in range(_stages(size, base))
        )
        self.image = nn.Conv2d(n, channels, 3, padding=1)

    def forward(self, z: Tensor, carry: Tensor | float = 0.0) -> Tensor:
        h = h0 = self.code(z).view(-1, self.n, self.base, self.base)
        for i, pair in enumerate(self.pairs):
            if i:
                h = F.interpolate(h, scale_factor=2, mode="nearest")
                if self.skip:
                    h = torch.cat([h, F.interpolate(h0, size=h.shape[-2:], mode="nearest")], 1)
            h = _residual(pair, h, carry)
        return self.image(h)


def _residual(pair: nn.Module, h: Tensor, carry: Tensor | float) -> Tensor:
    """Two convolutions with ELU; a layer that keeps the shape becomes c·in + (1 - c)·out (vanishing
    residual, section 3.5).
    """
    for conv in pair.children():
        out = F.elu(conv(h))
        h = carry * h + (1 - carry) * out if out.shape == h.shape else out
    return h


def _stages(size: int, base: int) -> int:
    return (size // base).bit_length()


def reconstruction_loss(v: Tensor, reconstruction: Tensor, eta: int) -> Tensor:
    """L(v) = mean over pixels of |v - D(v)|^η, one value for each example, (B,)."""
    return (v - reconstruction).abs().pow(eta).flatten(1).mean(1)


def control(
    k: Tensor, loss_real: Tensor, loss_fake: Tensor, gamma: float, lambda_k: float
) -> Tensor:
    """The next k_t: clip(k + λ (γ L(x) - L(G(z))), 0, 1), equation 2.4 of the paper's algorithm."""
    return (k + lambda_k * (gamma * loss_real - loss_fake)).clamp(0, 1)


def convergence(loss_real: Tensor, loss_fake: Tensor, gamma: float) -> Tensor:
    """M_global = L(x) + |γ L(x) - L(G(z))|."""
    return loss_real + (gamma * loss_real - loss_fake).abs()


class AutoEncoder(nn.Module):
    """D's two networks."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class Energy(Adversary):
    """D as an energy: L(v), (B,), of images in [-1, 1]; both terms flow through both networks."""

    def reconstruct(self, v: Tensor) -> Tensor:
        """D(v) = Dec(Enc(v))."""
        through = self.game.through
        return through(self.net.decoder, through(self.net.encoder, v))

    def forward(self, *inputs: Tensor) -> Tensor:
        (v,) = inputs
        return reconstruction_loss(v, self.reconstruct(v), self.game.eta)


@register(
    "began",
    paper=Paper(
        "Berthelot, Schumm, Metz",
        "BEGAN: Boundary Equilibrium Generative Adversarial Networks",
        2017,
        "1703.10717",
    ),
    about="the discriminator is an auto-encoder; a controller balances its losses on real and "
    "generated images",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "encode", "decode", "reconstruct"},
    data="heads",
    learns=(
        ("val/classes_headsnet", ">", 3.5),
        ("val/precision_pixels", ">", 0.85),
        ("val/recall_pixels", ">", 0.18),
    ),
)
class BEGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: image data.
        arch: "mlp", or "conv" for the paper's network (square images of base·2^m pixels).
        latent: dimension of z. code: dimension of D's code h. width: hidden units (mlp) or filters
            n (conv). base: b of conv.
        gamma: diversity ratio γ in (0, 1]. lambda_k: the controller's gain. k: discriminator steps
            per generator step.
        eta: exponent η of the reconstruction error, 1 or 2.
        lr_d: learning rate of D. lr_g: of G. beta1, beta2: Adam's decays.
        halve_every: cycles after which both rates are halved. interval: cycles between two looks of
            the plateau schedule. 0 is off.
        skip: skip connections from h0 (conv). vanishing_residual: cycles over which the carry falls
            from 1 to 0 (conv); 0 is off.
        loop: options of the adversarial loop.
    """

    watches = ("k_t", "m_global")
    accepts = {"x": Image}
    k_t: Tensor
    m_ema: Tensor
    m_best: Tensor
    stalled: Tensor

    def __init__(
        self,
        spec: Spec,
        arch: Literal["mlp", "conv"] = "mlp",
        latent: Count = 32,
        code: Count = 64,
        width: Count = 256,
        base: Count = 4,
        gamma: Annotated[float, Range(0, 1, above=True)] = 1.0,
        lambda_k: NonNegative = 0.05,
        k: Count = 1,
        eta: Literal[1, 2] = 1,
        lr_d: Positive = 1.5e-4,
        lr_g: Positive = 1.5e-3,
        beta1: Decay = 0.0,
        beta2: Decay = 0.999,
        halve_every: Whole = 1500,
        interval: Whole = 0,
        skip: bool = False,
        vanishing_residual: Whole = 0,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior="uniform",
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, beta2),
        )
        self.arch, self.eta, self.carry_steps = arch, eta, vanishing_residual
        self.gamma, self.lambda_k = gamma, lambda_k
        self.halve_every, self.interval = halve_every, interval
        encoder: nn.Module
        decoder: nn.Module
        if arch == "mlp":
            image = nn.Unflatten(1, spec.shape)
            encoder = nn.Sequential(nn.Flatten(), mlp(spec.dim, width, width, code))
            decoder = nn.Sequential(mlp(code, width, width, spec.dim), image)
            self.g = nn.Sequential(mlp(latent, width, width, spec.dim), image)
        else:
            channels, size, wide = spec.shape
            if size != wide or size % base or (size // base) & (size // base - 1):
                raise ValueError(
                    f"began's conv networks take square images of {base}·2^m pixels, got {spec}; "
                    "resize them or set base"
                )
            encoder = Encoder(channels, size, width, code, base)
            decoder = Decoder(channels, size, width, code, base, skip)
            self.g = Decoder(channels, size, width, latent, base, skip)
        alone = {"separate_batches": "the auto-encoder has no batch statistics"}
        net = AutoEncoder(encoder, decoder)
        self.d = Energy(self, net, realness=lambda energy: -energy, without=alone)
        self.register_buffer("k_t", torch.zeros((), dtype=torch.float64))
        self.register_buffer("m_ema", torch.zeros((), dtype=torch.float64))
        self.register_buffer("m_best", torch.full((), float("inf"), dtype=torch.float64))
        self.register_buffer("stalled", torch.zeros((), dtype=torch.int64))

    # -- losses -----------------------------------------------------------------------------------
    @property
    def carry(self) -> float:
        """The vanishing residual's c: 1 at first, 0 from ``vanishing_residual`` cycles on."""
        if not self.carry_steps or self.step is None:
            return 0.0
        return max(0.0, 1 - self.step / self.carry_steps)

    def through(self, net: nn.Module, v: Tensor) -> Tensor:
        """A network's output; the convolutional ones are told the carry."""
        return net(v) if self.arch == "mlp" else net(v, self.carry)

    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.scaled(batch["x"])
        (fake,) = self.d.stored(self.through(self.g, self.codes(batch.n)))
        energies = self.d(torch.cat([self.d.noisy(x), self.d.noisy(fake)]))
        real, fake = (energy.mean() for energy in energies.chunk(2))
        terms = {"loss": real - self.k_t.to(real.dtype) * fake, "recon_real": real}
        return self.d.regularised(terms, x)

    def generator_loss(self, batch: Batch) -> Terms:
        loss = self.d.see(self.through(self.g, self.codes(batch.n))).mean()
        return {"loss": loss, "recon_fake": loss}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    def after_cycle(self, terms: dict[str, Tensor]) -> None:
        real, fake = self.reduce(torch.stack([terms["recon_real"], terms["recon_fake"]]).double())
        self.k_t.copy_(control(self.k_t, real, fake, self.gamma, self.lambda_k))
        m = convergence(real, fake, self.gamma)
        step = self.trainer.global_step
        self.m_ema.copy_(m if step <= 1 else 0.99 * self.m_ema + 0.01 * m)
        terms |= {"m_global": m, "balance": self.gamma * real - fake, "k_t": self.k_t.clone()}
        if self.interval and step % self.interval == 0:
            self._plateau()

    def _plateau(self) -> None:
        improved = self.m_ema < 0.99 * self.m_best
        self.m_best.copy_(torch.minimum(self.m_best, self.m_ema))
        self.stalled.copy_(torch.where(improved, 0, self.stalled + 1))
        if self.stalled >= 2:
            self.stalled.zero_()
            optimisers: Any = self.optimizers()
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = max(group["lr"] / 2, 1e-6)

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor) -> Tensor:
        """G(z) in levels."""
        return self.quantised(self.through(self.g, z))

    def encode(self, x: Tensor) -> Tensor:
        """D's code of images in levels, (B, code)."""
        return self.through(self.d.net.encoder, self.scaled(x))

    def decode(self, h: Tensor) -> Tensor:
        """Images in levels from D's code: D's decoder, not G."""
        return self.quantised(self.through(self.d.net.decoder, h))

    def reconstruct(self, x: Tensor) -> Tensor:
        """D(x) in levels."""
        return self.decode(self.encode(x))

    @torch.enable_grad()
    def invert(self, x: Tensor, steps: int = 200, lr: float = 1e-2) -> Tensor:
        """z with G(z) near each image, (B, latent), by Adam on mean |G(z) - x| (section 4.3); G is
        left as it is.
        """
        target = self.scaled(x)
        g = torch.Generator(x.device).manual_seed(0)
        u = torch.rand(len(x), self.latent, generator=g, device=x.device, dtype=target.dtype)
        z = (u * 2 - 1).requires_grad_()
        optimiser = torch.optim.Adam([z], lr)
        for _ in range(steps):
            loss = (self.through(self.g, z) - target).abs().flatten(1).mean(1).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            optimiser.step()
            with torch.no_grad():
                z.clamp_(-1, 1)
        return z.detach()

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """Images between two images, (B, frames, *shape) in levels: both inverted, then linear in
        z.
        """
        z = path(self.prior, self.invert(a), self.invert(b), frames)
        return self.from_codes(z.flatten(0, 1)).unflatten(0, (len(a), frames))

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas, fused=True)

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.halve_every:
            return {}
        return {
            p: StepLR(optimiser, self.halve_every * self.steps_of(p), gamma=0.5)
            for p, optimiser in optimisers.items()
        }
