"""DCGAN: deep convolutional GAN.

Paper      Radford, Metz, Chintala. Unsupervised Representation Learning with Deep Convolutional
           Generative Adversarial Networks. ICLR 2016. arXiv:1511.06434.
Model      x = G(z), z ~ U(-1, 1)^n. G: projection to a 4x4 grid and transposed convolutions of
           stride 2; D: convolutions of stride 2. The paper's rules: no pooling, no hidden fully
           connected layer, batch norm everywhere but at G's end and D's beginning, ReLU in G with a
           tanh end, leaky ReLU 0.2 in D; weights N(0, 0.02²), batch-norm gains N(1, 0.02²).
Objective  That of Goodfellow et al. 2014, from logits s:
           D:  -E log D(x) - E log(1 - D(G(z_D))), G(z_D) detached.
           G:  -E log D(G(z_G)) (g_loss="nonsat"), or E log(1 - D(G(z_G))) (g_loss="minimax").
Logs       train/jsd_bound = (log 4 - loss_d)/2; train/d_acc_real, train/d_acc_fake.
Sampling   z ~ U(-1, 1)^n, G(z) quantised, with batch norm's running statistics (they are updated by
           D's and by G's steps).
Features   ``d_features(x)``: all of D's convolutional activations, max-pooled to a 4x4 grid,
           flattened and joined (section 5.1).
Notes      Real and generated images pass through D separately, each normalised by its own batch
           statistics; loop.separate_batches=False joins them. The network of figure 1 is width=128,
           kernel=5 at 64x64. The projection is a transposed convolution of the base grid's size,
           which is the same linear map.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Positive, Prior
from zoo.nn.adversarial_losses import divergence
from zoo.nn.small import ConvDiscriminator, ConvGenerator, initialise
from zoo.registry import Paper, register

# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "dcgan",
    paper=Paper(
        "Radford, Metz, Chintala",
        "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial "
        "Networks",
        2016,
        "1511.06434",
    ),
    about="strided convolutions, batch norm and no pooling: the architecture that made GANs train "
    "on images",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="digits",
    learns=(
        ("val/fid_pixels", "<", 2.0),
        ("val/is_pixels", ">", 3.5),
        ("val/classes_pixels", ">", 7.5),
    ),
    waive={
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class DCGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: images, height and width multiples of 4 and at least 8.
        latent: dimension of z. width: filters of D's first layer and of G's last hidden one,
            doubled towards the 4x4 grid.
        kernel: of all convolutions, 4 or 5 (the paper's).
        prior: "uniform", "normal" or "sphere". g_loss: "nonsat" or "minimax".
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1:
            Adam's first decay.
        loop: options of the adversarial loop.
    """

    watches = ("jsd_bound",)
    accepts = {"x": Image}

    def __init__(
        self,
        spec: Spec,
        latent: Count = 32,
        width: Count = 32,
        kernel: Literal[4, 5] = 4,
        prior: Prior = "uniform",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
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
        self.g = initialise(ConvGenerator(latent, spec.shape, width, kernel, norm="batch"))
        d = initialise(ConvDiscriminator(spec.shape, width, kernel, norm="batch"))
        self.d = Adversary(self, d, LOSSES[g_loss], watch=divergence)

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]),), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def d_features(self, x: Tensor) -> Tensor:
        """Features of images in levels for a linear classifier, (B, 16 · number of D's filters)."""
        hidden = self.d.net.activations(self.scaled(x))
        return torch.cat([F.adaptive_max_pool2d(h, 4).flatten(1) for h in hidden], 1)
