"""AEGAN: the inverse of a trained generator, learnt as the encoder of an auto-encoder around it.

Paper      Luo, Xu, Tang, Lv. Learning Inverse Mapping by AutoEncoder based Generative Adversarial
           Nets. ICONIP 2017. arXiv:1703.10094.
Model      x = G(z), z ~ U(-1, 1)^n, a GAN's generator; an inverse generator E, ẑ = E(x), with D's
           convolutions and a linear end, and tanh for codes of the cube.
Objective  Stage 1, ``stage_steps`` long, that of DCGAN, from logits s; E rests:
           D:  -E log D(x) - E log(1 - D(G(z))), G(z) without gradient.
           G:  -E log D(G(z)).
           Stage 2, G and D frozen and in evaluation mode:
           E:  image · E ‖G(E(G(z))) - G(z)‖² a pixel of images in [0, 1], through G and not into
               it; G(z), input and target, without gradient. Images are compared and not codes,
               since many codes may give one image.
               + code · E ‖E(G(z)) - z‖² a dimension: the paper's baseline, off by default.
               + real · E ‖G(E(x)) - x‖² a pixel, of examples x: off by default, and stage 2 then
               reads no data.
Sampling   G(z), quantised. ``encode`` is E, ``reconstruct`` G(E(x)).
Logs       train/loss_g is G's in stage 1 and E's in stage 2, with train/gen_mse, train/code_mse.
           val/recon_mse, val/recon_permuted: of examples; val/gen_mse, val/gen_permuted: of
           samples; each error beside that of another's reconstruction. val/code_mse.
Notes      The paper's text was not read: the objective is as remembered. G and E are one player,
           since only one of them moves in a stage. ``init_from`` starts from the G and D of a
           checkpoint, with averaged weights where it has them; with stage_steps=0 they stay as they
           are. D and its features judge no reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import Adversary, InferenceModule, LoopOptions, Loss, Phase, Terms
from zoo.bases.joint import pixel_error
from zoo.core import Batch, Image, Spec
from zoo.core.checkpoint import read
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive, Prior, Whole
from zoo.nn.adversarial_losses import divergence
from zoo.nn.prior import Draw
from zoo.nn.small import ConvDiscriminator, ConvGenerator, initialise
from zoo.registry import Paper, register

# -log D, -log(1 - D), from logits s.
GAME = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s))


class Encoder(nn.Module):
    """The inverse generator: (B, *shape) -> codes, (B, latent), in (-1, 1) if ``bounded``."""

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        width: int,
        kernel: int,
        norm: str,
        bounded: bool,
    ) -> None:
        super().__init__()
        self.net = ConvDiscriminator(shape, width, kernel, norm, outputs=latent)
        self.end = nn.Tanh() if bounded else nn.Identity()

    def forward(self, v: Tensor) -> Tensor:
        return self.end(self.net(v).reshape(len(v), -1)).to(v.dtype)  # D's ends are in full


@register(
    "aegan",
    paper=Paper(
        "Luo, Xu, Tang, Lv",
        "Learning Inverse Mapping by AutoEncoder based Generative Adversarial Nets",
        2017,
        "1703.10094",
    ),
    about="an encoder learns to invert a trained, frozen generator by auto-encoding its samples",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(("val/gen_mse", "<", 0.01), ("val/recon_mse", "<", 0.02), ("val/is_pixels", ">", 3.5)),
    waive={
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
        "every_parameter_learns": "the encoder rests until the generator is trained",
        "makers_get_gradients": "the encoder rests until the generator is trained",
    },
)
class AEGAN(InferenceModule):
    """See the module's docstring.

    Args:
        spec: images, height and width multiples of 4 and at least 8.
        latent: dimension of z. width: filters of D's and E's first layer and of G's last hidden
            one, doubled towards the 4x4 grid. kernel: of all convolutions, 4 or 5. norm: "none",
            "layer" or "batch", of all networks.
        stage_steps: generator steps before E begins. init_from: path of a checkpoint of this zoo
            whose G and D are of the same kind, to start from.
        image, code, real: weights of E's errors.
        prior: "uniform", "normal" or "sphere". k: discriminator steps per generator step.
        lr_d: learning rate of D. lr_g: of G. lr_e: of E. beta1: Adam's first decay.
        loop: options of the adversarial loop.
    """

    watches = ("jsd_bound",)
    accepts = {"x": Image}
    first_examples = 1  # none is looked at
    stage: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count = 32,
        width: Count = 32,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "batch",
        stage_steps: Whole = 1000,
        init_from: str | None = None,
        image: NonNegative = 1.0,
        code: NonNegative = 0.0,
        real: NonNegative = 0.0,
        prior: Prior = "uniform",
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        lr_e: Positive = 1e-3,
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
        if not image + code + real:
            raise ValueError(
                "aegan: E has nothing to learn by, got image=0, code=0, real=0; set model.image=1"
            )
        self.stage_steps, self.init_from, self.lr_e = stage_steps, init_from, lr_e
        self.image, self.code, self.real = image, code, real
        self.g = initialise(ConvGenerator(latent, spec.shape, width, kernel, norm))
        self.d = Adversary(
            self,
            initialise(ConvDiscriminator(spec.shape, width, kernel, norm)),
            GAME,
            watch=divergence,
        )
        self.e = Encoder(spec.shape, latent, width, kernel, norm, prior == "uniform")
        self.register_buffer("stage", torch.ones((), dtype=torch.int64))

    def initialise_from(self, batch: Batch) -> None:
        if self.init_from is None:
            return
        held = read(self.init_from)
        weights = held["state_dict"] | (held.get("ema") or {})
        prior = held["zoo"]["params"].get("prior", self.prior)
        if prior != self.prior:
            raise ValueError(
                f"aegan: the generator in {self.init_from} takes codes of the prior {prior!r}, got "
                f"prior={self.prior!r}; set model.prior={prior}"
            )
        for name in ("g", "d"):
            start = f"{name}."
            own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
            try:
                self.get_submodule(name).load_state_dict(own)
            except RuntimeError as error:
                raise ValueError(
                    f"aegan: {name} of {self.init_from} (a {held['zoo']['model']}) does not fit: "
                    f"{' '.join(str(error).split())[:200]}; give latent, width, kernel and norm of "
                    "that run, e.g. of dcgan's"
                ) from None

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]),), (self.g(self.codes(batch.n)),))

    def maker_loss(self, batch: Batch) -> Terms:
        """G's loss in stage 1, E's in stage 2."""
        return self.inverse_loss(batch) if self.stage == 2 else self.generator_loss(batch)

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    def inverse_loss(self, batch: Batch) -> Terms:
        z = self.codes(batch.n)
        with torch.no_grad():
            made = self.g(z)
        code = self.e(made)
        image_error = pixel_error(self.frozen_g(code), made).mean()
        code_error = (code - z).square().mean()
        loss = self.image * image_error + self.code * code_error
        if self.real:
            v = self.scaled(batch["x"])
            loss = loss + self.real * pixel_error(self.frozen_g(self.e(v)), v).mean()
        return {"loss": loss, "gen_mse": image_error, "code_mse": code_error}

    def frozen_g(self, z: Tensor) -> Tensor:
        """G(z), with gradient to z and not to G's weights."""
        return functional_call(self.g, {k: p.detach() for k, p in self.g.named_parameters()}, (z,))

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, Any]:
        return {"d": self.d, "g": nn.ModuleList([self.g, self.e])}

    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.d_steps, critic=True),
            Phase("g", self.maker_loss, reads=("x",) if self.real else ()),
        ]

    def d_steps(self, step: int) -> int:
        """D's steps in a cycle: none in stage 2."""
        return self.k if step < self.stage_steps else 0

    def before_cycle(self, step: int) -> None:
        if step >= self.stage_steps:
            self.stage.fill_(2)
            self.g.eval()
            self.d.eval()

    # -- use --------------------------------------------------------------------------------------
    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        z = self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype))
        x, made = self.scaled(batch["x"]), self.g(z)
        code = self.e(made)
        values = self.errors("recon", x, self.e(x)) | self.errors("gen", made, code)
        return values | {"code_mse": (code - z).square().mean(1)}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        makers = [
            {"params": [*self.g.parameters()], "lr": self.lr_g},
            {"params": [*self.e.parameters()], "lr": self.lr_e},
        ]
        return {
            "d": torch.optim.Adam(self.d.parameters(), self.lr_d, self.betas),
            "g": torch.optim.Adam(makers, betas=self.betas),
        }
