"""GP-GAN: what is pasted into an image takes its light; colours by a GAN, details by an equation.

Paper      Wu, Zheng, Zhang, Huang. GP-GAN: Towards realistic high-resolution image blending. ACM
           Multimedia 2019. arXiv:1703.07195.
Model      x is the destination, s a copy-paste composite of it and what is pasted. G, the blending
           network, sees s at a small size: strided convolutions to a code, transposed ones back.
           At use the Gaussian-Poisson equation (``zoo.nn.poisson``) joins the colours of G(s) and
           the gradients of the images, level by level of a pyramid up to the full size.
Objective  at the small size, means over rows and pixels in [-1, 1], f a critic without bounds:
           D:  E f(G(s)) - E f(x), G(s) detached;
           G:  -(1 - w) E f(G(s)) + w E (G(s) - x)², w = .999.
           With supervised=false G makes images of noise z alone, by the first term of its loss, and
           at use z is sought that has the least mean (G(z) - s)².
Training   Adam; k critic steps for one of G, after each of which all of the critic's parameters are
           clamped to [-c, c]. bursts=True: 100 critic steps in each of G's first 25 steps and in
           every 500th (the authors' code).
Logs       train/w_est = E f(x) - E f(G(s)), mse. val/psnr_gan: of G's image alone, enlarged, in dB;
           val/seam, seam_copy: mean |∂x - v| where the mask ends, on [0, 1], v the wanted
           gradients, of what is made and of the composite.
           Of every model of targets: val/psnr, ssim, l1 and their gains, copy-paste among them.
Sampling   ``translate(source, pasted=, destination=, mask=)``, without noise: of the destination
           only what is around the mask is read, but for the smoothing of the pyramid. Without them
           the source's blend is G's alone, enlarged.
Notes      The sign is WGAN's, f high on images; the code's is the other. The critic is clamped
           after a step, there before it. G sees the composite made small; the code composes small
           images. Where the mask ends v has the gradients of the side that a pixel is on; the code
           takes the mean of both sides'. Its gaussian is normalised here. ``solver`` of the paper's
           written objective is "least_squares", of its code "poisson". z is sought by Adam, so that
           no row knows of another, there by L-BFGS. The default's networks see 16 pixels of 32,
           as they learn more of it in a minute, with k = 1 and a lower rate of G. The paper's
           preset has drawn scenes in place of its photographs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, LoopOptions, Loss, PairModule, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Norm, Positive, Share
from zoo.nn.clipping import clip_weights
from zoo.nn.latent_search import latent_search
from zoo.nn.poisson import Solver, blended, composite, gradients, pyramid, resized
from zoo.nn.prior import Draw, Source
from zoo.nn.small import ConvDiscriminator, ConvGenerator, full, initialise
from zoo.registry import Paper, register

WASSERSTEIN = Loss(real=lambda f: -f, fake=lambda f: f, maker=lambda f: -f, targets=False)
FIELDS = ("source", "pasted", "destination", "mask")


class BlendingNetwork(nn.Module):
    """Images to images of the same size, through a code of ``bottleneck`` numbers, which is as of a
    fully connected layer.
    """

    def __init__(self, channels: int, size: int, width: int, bottleneck: int, norm: str) -> None:
        super().__init__()
        shape = (channels, size, size)
        self.encoder = ConvDiscriminator(shape, width, 4, norm, bottleneck, bias=norm == "none")
        norms = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.norm = nn.Sequential(
            norms[norm](bottleneck) if norm != "none" else nn.Identity(), nn.LeakyReLU(0.2)
        )
        self.decoder = ConvGenerator(bottleneck, shape, width, 4, norm)

    def forward(self, s: Tensor) -> Tensor:
        return self.decoder(self.norm(self.encoder(s).to(s.dtype)))


def seam(x: Tensor, source: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
    """Mean |∂x - v| over the neighbours of which the mask takes one, (B,); images in [0, 1]."""
    wanted, found, ends = composite(source, destination, mask), gradients(x), gradients(mask)
    total = torch.zeros(len(x), device=x.device)
    count = torch.zeros(len(x), device=x.device)
    for v, dx, end in zip(wanted, found, ends, strict=True):
        edge = (end.abs() > 0.5).expand_as(dx)
        total = total + ((dx - v).abs() * edge).flatten(1).sum(1)
        count = count + edge.flatten(1).sum(1)
    return total / count.clamp(min=1)


@register(
    "gp_gan",
    paper=Paper(
        "Wu, Zheng, Zhang, Huang",
        "GP-GAN: Towards realistic high-resolution image blending",
        2019,
        "1703.07195",
    ),
    about="image blending: a GAN finds the colours of a composite, an equation keeps its details",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("source", "pasted", "destination", "mask"),
    data="paired",
    learns=(("val/psnr_gain", ">", 6.0), ("val/ssim_gain", ">", 0.13), ("val/l1_share", "<", 0.7)),
    waive={
        "seed_matters": "what becomes of a composite is a function of it",
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class GPGAN(PairModule):
    """See the module's docstring.

    Args:
        spec: images x, source, pasted and destination of one shape, and a mask.
        size: pixels of the networks' images, a multiple of 4, at least 8. width: filters of the
            first layer of both networks. bottleneck: numbers of G's code, or of z. norm: of both,
            "batch", "layer" or "none".
        w: weight of the squared error. supervised: whether G is told the composite.
        beta: β, weight of the colours in the equation. solver: "poisson" or "least_squares".
        search: steps of the search for z. lr_z: its rate.
        c: the clamp. k: critic steps per generator step. bursts: the schedule of 100 critic steps.
            lr_d: learning rate of the critic. lr_g: of G. beta1: Adam's first decay. loop: options
            of the adversarial loop.
    """

    accepts = {"x": Image, **dict.fromkeys(FIELDS, Image)}
    watches = ("mse", "w_est")

    def __init__(
        self,
        spec: Spec,
        size: Count = 32,
        width: Count = 16,
        bottleneck: Count = 128,
        norm: Norm = "batch",
        w: Share = 0.999,
        supervised: bool = True,
        beta: Positive = 1.0,
        solver: Solver = "poisson",
        search: Count = 200,
        lr_z: Positive = 0.1,
        c: Positive = 0.01,
        k: Count = 5,
        bursts: bool = False,
        lr_d: Positive = 2e-4,
        lr_g: Positive = 2e-3,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        channels, height, breadth = spec["x"].shape
        shapes = {spec[name].shape for name in ("x", *FIELDS[:3])}
        if len(shapes) > 1 or spec["mask"].shape != (1, height, breadth):
            raise ValueError(
                f"gp_gan: images are of one shape and the mask of one channel, got {spec}; choose "
                "such pairs, e.g. --data=paired --data.kind=blend"
            )
        if size % 4 or size < 8 or min(height, breadth) < size:
            raise ValueError(
                f"gp_gan: size is a multiple of 4, at least 8, and no more than the images have, "
                f"got {size} and {spec}; set model.size"
            )
        self.size, self.w, self.supervised, self.latent = size, w, supervised, bottleneck
        self.beta, self.solver, self.search, self.lr_z = beta, solver, search, lr_z
        self.c, self.k, self.bursts = c, k, bursts
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)

        shape = (channels, size, size)
        g: nn.Module = BlendingNetwork(channels, size, width, bottleneck, norm)
        if not supervised:
            g = ConvGenerator(bottleneck, shape, width, 4, norm)
        self.g = initialise(g)
        critic = initialise(ConvDiscriminator(shape, width, 4, norm, bias=False))
        self.d = Adversary(self, critic, WASSERSTEIN, inputs=[shape], watch=self.estimate)

    # -- losses -----------------------------------------------------------------------------------
    @staticmethod
    def estimate(real: Tensor, fake: Tensor) -> Terms:
        return {"w_est": real.mean() - fake.mean()}

    def small(self, v: Tensor) -> Tensor:
        """Images at the networks' size."""
        return pyramid(v, self.size)[0].to(v.dtype)

    def low(self, batch: Batch) -> Tensor:
        """What G makes in training."""
        if self.supervised:
            return self.g(self.small(self.scaled("source", batch["source"])))
        return self.g(self.noise.normal(batch.n, self.latent))

    def discriminator_loss(self, batch: Batch) -> Terms:
        with torch.no_grad():
            made = self.low(batch)
        return self.d.loss((self.small(self.scaled("x", batch["x"])),), (made,))

    def generator_loss(self, batch: Batch) -> Terms:
        made = self.low(batch)
        fooled = self.d.fool(made)
        if not self.supervised:
            return {"loss": fooled}
        mse = (made - self.small(self.scaled("x", batch["x"]))).square().mean()
        return {"loss": (1 - self.w) * fooled + self.w * mse, "mse": mse}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        told = ("source",) if self.supervised else ()
        return [
            Phase("d", self.discriminator_loss, ("x", *told), self.critic_steps, critic=True),
            Phase("g", self.generator_loss, ("x", *told) if told else ()),
        ]

    def critic_steps(self, step: int) -> int:
        """Critic steps before generator step ``step``, counted from 0."""
        return 100 if self.bursts and (step < 25 or step % 500 == 0) else self.k

    def after_step(self, player: str) -> None:
        if player == "d":
            clip_weights(self.d, self.c)

    # -- use --------------------------------------------------------------------------------------
    def made(self, s: Tensor, noise: Source | None = None) -> Tensor:
        """Colours for composites in [-1, 1], of any size, at the networks' own."""
        small = self.small(s)
        if self.supervised:
            return self.g(small)
        start = (noise or self.noise).normal(len(s), self.latent)[None]

        def cost(z: Tensor) -> Tensor:
            return (self.g(z) - small).square().flatten(1).mean(1)

        return self.g(latent_search(cost, start, self.search, self.lr_z)[0])

    def joined(self, low: Tensor, images: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Colours in [-1, 1] and what is pasted, where, and into what, all in [0, 1], by the
        equation: (B, C, H, W) in [0, 1].
        """
        pasted, destination, mask = images
        colours = ((low + 1) / 2).clamp(0, 1)
        return blended(colours, pasted, destination, mask, self.beta, self.solver)

    @torch.no_grad()
    def translate(
        self,
        source: Tensor,
        *,
        pasted: Tensor | None = None,
        destination: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The blend of each composite, in levels, of any size but smaller ones than the networks'.

        Args:
            pasted, destination, mask: what it was made of; without one of them G's colours alone.
        """
        noise = Draw(generator, self.device, self.float_dtype)
        low = self.made(self.scaled("source", source), noise)
        if pasted is None or destination is None or mask is None:
            return self.images("x", resized(full(low), (source.shape[2], source.shape[3])))
        x = self.joined(low, self.unit(pasted, destination, mask))
        return self.images("x", 2 * x - 1)

    def sample(
        self,
        n: int,
        *,
        source: Tensor,
        pasted: Tensor,
        destination: Tensor,
        mask: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        given = {"pasted": pasted, "destination": destination, "mask": mask}
        return self.translate(source, **given, generator=generator)

    def unit(self, pasted: Tensor, destination: Tensor, mask: Tensor) -> Any:
        """These fields in [0, 1]."""
        rows = zip(FIELDS[1:], (pasted, destination, mask), strict=True)
        return tuple((self.scaled(name, v) + 1) / 2 for name, v in rows)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        noise = Draw(generator, self.device, self.float_dtype)
        images = self.unit(*(batch[name] for name in FIELDS[1:]))
        low = self.made(self.scaled("source", batch["source"]), noise)
        alone = ((resized(full(low), images[0].shape[2:]) + 1) / 2).clamp(0, 1)
        x, s = ((self.scaled(name, batch[name]) + 1) / 2 for name in ("x", "source"))
        error = F.mse_loss(alone, x, reduction="none").flatten(1).mean(1)
        return {
            "psnr_gan": -10 * error.clamp(min=1e-10).log10(),
            "seam": seam(self.joined(low, images), *images),
            "seam_copy": seam(s, *images),
        }
