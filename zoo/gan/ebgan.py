"""EBGAN: energy-based GAN, with the pulling-away term.

Paper      Zhao, Mathieu, LeCun. Energy-based Generative Adversarial Network. ICLR 2017.
           arXiv:1609.03126.
Model      x = G(z). D is an auto-encoder; its energy E(v) is the error of the reconstruction
           Dec(Enc(v)), low where data are.
Objective  D:  E_p E(x) + E [m - E(G(z_D))]₊, G(z_D) detached: a hinge for each sample, so that
               those above the margin m cost nothing.
           G:  E E(G(z_G)) + λ PT(S), through both appearances of G(z), as D's input and as the
               target; S = Enc(G(z)).
           PT(S) = 1/(B(B-1)) Σ_{i≠j} (S_iᵀS_j / ‖S_i‖‖S_j‖)², equation 4: the squared cosine of two
           samples' codes, for variety. For fixed G the least loss of D over all energies is
           m (1 - TV(p, q)): 0 where p ≥ q and m where p < q (lemma 1).
Energy     ``error="mse"``: the mean over pixels of (Dec(Enc(v)) - v)²; "l2": the norm
           ‖Dec(Enc(v)) - v‖, as the paper has it, which grows with the number of pixels. m is in
           its units, above the energy of real images: with "mse" below 1, with "l2" 10 to 80.
Logs       train/energy_real, train/energy_fake; train/hinge_active, share of samples with E < m;
           train/pt; val/energy, val/energy_ratio: the same over the error of the mean training
           image; val/noise_auc: how often uniform noise has more energy than a held-out image.
Sampling   z from the prior, G(z), quantised. ``encode``, ``reconstruct`` are D's.
Notes      ``margin_steps`` lets m fall linearly to 0 (section 4.4 anneals it). The PT of several
           processes is that of all their samples together (cross_rank="gather"), or of each one's
           own ("local"). The default auto-encoder has a linear code and no norm; the paper's is
           convolutional throughout (code=0), with batch norm, and so is its G. With ``accumulate``
           the PT is that of each micro-batch. The energy of real images settles in proportion to m,
           whose default is about half the error of the mean image of digits (0.18). Measured there
           (seed 0): at m = 0.03, 0.1, 0.3 and 1 held-out images keep 0.12, 0.31, 0.84 and 3.4 of
           that error, and 60, 62, 48 and 42 % of the samples are precise: with a wide margin D need
           not learn to reconstruct.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive, Prior, Whole
from zoo.nn import small
from zoo.registry import Paper, register


class AutoEncoder(nn.Module):
    """Convolutions of stride 2 with leaky ReLU, a linear code (unless ``code`` is 0), and the
    mirror image of both with a tanh end.
    """

    def __init__(
        self, shape: tuple[int, ...], width: int, code: int, stages: int, norm: str
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        filters, biased = [channels, *(width << i for i in range(stages))], norm == "none"

        def normalised(i: int) -> list[nn.Module]:
            norms: list[nn.Module] = [] if biased else [nn.BatchNorm2d(filters[i])]
            return [*norms, nn.LeakyReLU(0.2)]

        down: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        up: list[nn.Module] = [nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh()]
        for i in range(1, stages):
            down += [
                nn.Conv2d(filters[i], filters[i + 1], 4, 2, 1, bias=biased),
                *normalised(i + 1),
            ]
            up = [
                nn.ConvTranspose2d(filters[i + 1], filters[i], 4, 2, 1, bias=biased),
                *normalised(i),
                *up,
            ]
        if code:
            grid = (filters[-1], height >> stages, breadth >> stages)
            size = torch.Size(grid).numel()
            down += [nn.Flatten(), nn.Linear(size, code)]
            up = [nn.Linear(code, size), nn.LeakyReLU(0.2), nn.Unflatten(1, grid), *up]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def pulling_away(codes: Tensor) -> Tensor:
    """The mean squared cosine between two rows of (B, ...), B at least 2; a scalar between 0 and
    1.
    """
    n = len(codes)
    if n < 2:
        raise ValueError(
            f"ebgan: the pulling-away term compares samples and needs two of them, got {n}; raise "
            "the batch size, or set pt=0"
        )
    with torch.autocast(codes.device.type, enabled=False):
        unit = nn.functional.normalize(small.full(codes).flatten(1), dim=1)
        squares = (unit @ unit.T).square()
        return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))


class Energy(Adversary):
    """An auto-encoder whose value is its error, the energy."""

    def distance(self, v: Tensor, reconstruction: Tensor) -> Tensor:
        """(B,)."""
        squares = (small.full(reconstruction) - small.full(v)).square().flatten(1)
        if self.game.error == "mse":
            return squares.mean(1)
        return (squares.sum(1) + 1e-12).sqrt()  # a finite slope at zero

    def energy(self, v: Tensor, code: Tensor) -> Tensor:
        """E of images, (B,), given their codes."""
        return self.distance(v, self.net.decoder(code))

    def forward(self, *inputs: Tensor) -> Tensor:
        """E, (B,)."""
        (v,) = inputs
        return self.energy(v, self.net.encoder(v))


@register(
    "ebgan",
    paper=Paper(
        "Zhao, Mathieu, LeCun", "Energy-based Generative Adversarial Network", 2017, "1609.03126"
    ),
    about="the discriminator is an energy, an auto-encoder's error, with a margin; samples' codes "
    "are pulled away from each other",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "encode", "reconstruct"},
    data="digits",
    learns=(
        ("val/classes_pixels", ">", 9.5),
        ("val/precision_pixels", ">", 0.45),
        ("val/recall_pixels", ">", 0.5),
        ("val/energy_ratio", "<", 0.5),
    ),
    waive={
        "accumulation_equals_one_batch": "the pulling-away term compares the samples of one "
        "micro-batch"
    },
)
class EBGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: images, height and width multiples of 4 and at least 8 (and of 2^stages).
        latent: dimension of z. code: dimension of D's code; 0 leaves the last feature maps as the
            code.
        width: filters of D's first layer and of its mirror image's last hidden one. width_g: of G's
            last hidden layer.
        stages: D's convolutions of stride 2; None is as many as lead to the base grid.
        norm: of D, "none" or "batch". norm_g: of G, "none", "batch" or "layer".
        error: "mse" or "l2". margin: m. margin_steps: generator steps over which m falls to 0; 0
            keeps it.
        pt: weight λ of the pulling-away term; 0 is off. cross_rank: "gather" or "local".
        prior: "normal", "uniform" or "sphere". k: discriminator steps per generator step.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("energy_real", "energy_fake")
    accepts = {"x": Image}
    d: Energy
    mean_error: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count = 32,
        code: Whole = 32,
        width: Count = 16,
        width_g: Count = 32,
        stages: Count | None = None,
        norm: Literal["none", "batch"] = "none",
        norm_g: Norm = "none",
        error: Literal["mse", "l2"] = "mse",
        margin: Positive = 0.1,
        margin_steps: Whole = 0,
        pt: NonNegative = 0.1,
        cross_rank: Literal["gather", "local"] = "gather",
        prior: Prior = "normal",
        k: Count = 1,
        lr_d: Positive = 1e-3,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
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
        self.error, self.margin, self.margin_steps = error, margin, margin_steps
        self.pt, self.cross_rank = pt, cross_rank
        _, height, breadth = spec.shape
        stages = stages or small.doublings(height, breadth)
        if height % (1 << stages) or breadth % (1 << stages):
            raise ValueError(
                f"ebgan's {stages} convolutions halve images of multiples of {1 << stages} pixels, "
                f"got {spec}; lower stages"
            )
        self.g = small.ConvGenerator(latent, spec.shape, width_g, norm=norm_g)
        hinge = Loss(
            real=lambda e: e,
            fake=lambda e: nn.functional.relu(self.m - e),
            maker=lambda e: e,
            targets=False,
        )
        net = AutoEncoder(spec.shape, width, code, stages, norm)
        self.d = Energy(self, net, hinge, realness=lambda e: -e, watch=self.watched)
        self.register_buffer("mean_error", torch.ones(()))  # of the mean image

    def initialise_from(self, batch: Batch) -> None:
        v = self.scaled(batch["x"])
        mean = v.mean(0, keepdim=True)
        errors = [self.d.distance(rows, mean.expand_as(rows)) for rows in v.split(1024)]
        self.mean_error.copy_(torch.cat(errors).mean())

    # -- losses -----------------------------------------------------------------------------------
    @property
    def m(self) -> float:
        """The margin at this step."""
        if not self.margin_steps:
            return self.margin
        return self.margin * max(0.0, 1 - (self.step or 0) / self.margin_steps)

    def watched(self, real: Tensor, fake: Tensor) -> Terms:
        active = (fake < self.m).float().mean()
        return {"energy_real": real.mean(), "energy_fake": fake.mean(), "hinge_active": active}

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]),), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch: Batch) -> Terms:
        fake = self.d.noisy(self.g(self.codes(batch.n)))
        code = self.d.net.encoder(fake)
        loss = self.d.price.maker(self.d.energy(fake, code)).mean()
        if not self.pt:
            return {"loss": loss}
        gather = self.cross_rank == "gather"
        pt = pulling_away(self.everyone(code, gradients=True) if gather else code)
        return {"loss": loss + self.pt * pt, "pt": pt}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def encode(self, x: Tensor) -> Tensor:
        """D's code of images in levels, (B, code)."""
        return self.d.net.encoder(self.scaled(x)).flatten(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Dec(Enc(x)) in levels."""
        return self.quantised(self.d.net(self.scaled(x)))

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        x = self.scaled(batch["x"])
        noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) * 2 - 1
        energy, of_noise = self.d(x), self.d(noise)
        auc = (of_noise > energy[:, None]).to(energy.dtype).mean(1)
        return {"energy": energy, "energy_ratio": energy / self.mean_error, "noise_auc": auc}
