"""DCGAN: deep convolutional GAN.

Paper      Radford, Metz, Chintala. Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks.
           ICLR 2016. arXiv:1511.06434.
Model      x = G(z), z ~ U(-1, 1)^n. G: projection to a 4x4 grid and transposed convolutions of stride 2; D: convolutions of stride 2.
           The paper's rules: no pooling, no hidden fully connected layer, batch norm everywhere but at G's end and D's beginning, ReLU
           in G with a tanh end, leaky ReLU 0.2 in D; weights N(0, 0.02²), batch-norm gains N(1, 0.02²).
Objective  That of Goodfellow et al. 2014, from logits s:
           D:  -E log D(x) - E log(1 - D(G(z_D))), G(z_D) detached.
           G:  -E log D(G(z_G)) (g_loss="nonsat"), or E log(1 - D(G(z_G))) (g_loss="minimax").
Logs       train/jsd_bound = (log 4 - loss_d)/2; train/d_acc_real, train/d_acc_fake.
Sampling   z ~ U(-1, 1)^n, G(z) quantised, with batch norm's running statistics (they are updated by D's and by G's steps).
Features   ``d_features(x)``: all of D's convolutional activations, max-pooled to a 4x4 grid, flattened and joined (section 5.1).
Notes      Real and generated images pass through D separately, each normalised by its own batch statistics; separate_batches=False
           joins them. The network of figure 1 is width=128, kernel=5 at 64x64. The projection is a transposed convolution of the base
           grid's size, which is the same linear map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.core import DataSpec, GeneratorModule, LoopOptions, Phase
from zoo.core.module import Batch
from zoo.nn.adversarial_losses import GENERATOR_LOSSES, check_generator_loss, jsd_bound
from zoo.nn.prior import check_prior
from zoo.nn.small import ConvDiscriminator, ConvGenerator, initialise
from zoo.registry import Paper, register


def log_loss(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """-log D(x) and -log(1 - D(G(z))), one value for each logit."""
    return F.softplus(-real), F.softplus(fake)


@register(
    "dcgan",
    paper=Paper(
        "Radford, Metz, Chintala",
        "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks",
        2016,
        "1511.06434",
    ),
    about="strided convolutions, batch norm and no pooling: the architecture that made GANs train on images",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="digits",
    learns=(("val/fid_pixels", "<", 2.0), ("val/is_pixels", ">", 2.5), ("val/classes_pixels", ">", 7.5)),
    waive={
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class DCGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: images, height and width multiples of 4 and at least 8.
        latent: dimension of z. width: filters of D's first layer and of G's last hidden one, doubled towards the 4x4 grid.
        kernel: of all convolutions, 4 or 5 (the paper's).
        prior: "uniform", "normal" or "sphere". g_loss: "nonsat" or "minimax".
        separate_batches: D sees real and generated images in two forward passes, not in one.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay.
        loop: options of the adversarial loop.
    """

    def __init__(
        self, spec: DataSpec, latent: int = 32, width: int = 32, kernel: int = 4, prior: str = "uniform", g_loss: str = "nonsat",
        separate_batches: bool = True, k: int = 1, lr_d: float = 5e-4, lr_g: float = 5e-4, beta1: float = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:  # fmt: skip
        spec.require("dcgan", image=True)
        check_prior(prior)
        check_generator_loss(g_loss)
        if k < 1:
            raise ValueError(f"k is at least 1, got {k}")
        super().__init__(spec, loop)
        self.latent, self.prior, self.g_loss, self.separate_batches, self.k = latent, prior, g_loss, separate_batches, k
        self.lr_d, self.lr_g, self.beta1 = lr_d, lr_g, beta1
        self.generator = initialise(ConvGenerator(latent, spec.shape, width, kernel, norm="batch"))
        self.discriminator = initialise(ConvDiscriminator(spec.shape, width, kernel, norm="batch"))

    # -- losses --------------------------------------------------------------------------------------------------------
    def judge(self, x: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits of real and of generated images."""
        if self.separate_batches:
            return self.discriminator(x), self.discriminator(fake)
        return self.discriminator(torch.cat([x, fake.to(x.dtype)])).split(len(x))

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        x = self.spec.to_signed(batch["x"])
        with torch.no_grad():
            fake = self.generator(self.draw_codes(len(x), self.noise))
        real, fake = self.judge(x, fake)
        loss_real, loss_fake = log_loss(real, fake)
        loss = loss_real.mean() + loss_fake.mean()
        accuracy = {"d_acc_real": (real > 0).float().mean(), "d_acc_fake": (fake < 0).float().mean()}
        return {"loss": loss, "jsd_bound": jsd_bound(loss), **accuracy}

    def generator_loss(self, n: int) -> dict[str, Tensor]:
        fake = self.generator(self.draw_codes(n, self.noise))
        return {"loss": GENERATOR_LOSSES[self.g_loss](self.discriminator(fake)).mean()}

    # -- the game ------------------------------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        return {"d": self.discriminator, "g": self.generator}

    def phases(self) -> list[Phase]:
        return [Phase("d", self.discriminator_loss, repeat=self.k), Phase("g", self.generator_loss, real=False)]

    # -- use -----------------------------------------------------------------------------------------------------------
    def d_features(self, x: Tensor) -> Tensor:
        """Features of images in levels for a linear classifier, (B, 16 · number of D's filters)."""
        hidden = self.discriminator.activations(self.spec.to_signed(x))
        return torch.cat([F.adaptive_max_pool2d(h, 4).flatten(1) for h in hidden], 1)

    # -- optimisers ----------------------------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        rates = {"d": self.lr_d, "g": self.lr_g}
        return {p: torch.optim.Adam(self.parameters_of(p), lr, (self.beta1, 0.999)) for p, lr in rates.items()}
