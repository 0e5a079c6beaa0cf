"""Games of a generator of codes, x = G(z), against one discriminator: what all of them share, and
the options that stabilise them.

A model says which networks play and what D pays for a logit; the losses, Goodfellow et al.'s unless
it says otherwise, the turns, the optimisers, drawing and the path between two codes follow. The
options are those of ``LoopOptions``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from zoo.core.adversarial import TOOLKIT, AdversarialModule, LoopOptions, Phase, Terms
from zoo.core.module import Batch
from zoo.core.spec import DataSpec
from zoo.nn.adversarial_losses import GENERATOR_LOSSES, jsd_bound
from zoo.nn.penalties import squared_gradient_norm
from zoo.nn.prior import Draw, Source, check_prior, path, prior


class GeneratorModule(AdversarialModule):
    """Base of the games with x = G(z), z from ``zoo.nn.prior``.

    A constructor calls ``super().__init__`` and then ``build(generator, discriminator)``. What a
    model does differently it overrides: ``price_real``, ``price_fake`` and ``price_generator`` for
    another objective, ``make`` and ``judge`` for networks that read a class, a whole loss where
    these do not suffice.

    Attributes:
        generator: (B, latent) to examples as D sees them, in [-1, 1]. discriminator: those to one
            logit each.
        latent: dimensions of z. prior: "normal", "uniform" or "sphere". k: D's steps in a cycle.
            g_loss: what G minimises, one of ``g_losses``, by default "nonsat" or "minimax".

    Args:
        latent: None is the data's dimension for vectors and 32 for images.
        lr_d: learning rate of D. lr_g: of G. betas: Adam's decays.
    """

    toolkit: ClassVar[frozenset[str]] = TOOLKIT
    g_losses: ClassVar[tuple[str, ...]] = tuple(GENERATOR_LOSSES)
    generator: nn.Module
    discriminator: nn.Module
    replay_x: Tensor
    replay_seen: Tensor

    def __init__(
        self,
        spec: DataSpec,
        loop: LoopOptions = LoopOptions(),
        *,
        latent: int | None = None,
        prior: str = "normal",
        k: int = 1,
        g_loss: str = "nonsat",
        lr_d: float = 5e-4,
        lr_g: float = 5e-4,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        super().__init__(spec, loop)
        check_prior(prior)
        if g_loss not in self.g_losses:
            raise ValueError(
                f"{self.model_name}: g_loss is one of {', '.join(self.g_losses)}, got {g_loss!r}"
            )
        if k < 1:
            raise ValueError(f"{self.model_name}: k is at least 1, got {k}")
        if latent is not None and latent < 1:
            raise ValueError(f"{self.model_name}: latent is at least 1, got {latent}")
        self.latent = latent or (32 if spec.is_image else spec.dim)
        self.prior, self.k, self.g_loss, self.lr_d, self.lr_g, self.betas = (
            prior,
            k,
            g_loss,
            lr_d,
            lr_g,
            betas,
        )
        if self.loop.replay:
            self.register_buffer("replay_x", torch.zeros(self.loop.replay, *spec.shape))
            self.register_buffer("replay_seen", torch.zeros((), dtype=torch.int64))

    def build(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Set the two networks, D with the norm that the options ask for."""
        if self.loop.spectral_norm:
            for m in discriminator.modules():
                if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                    spectral_norm(m)
        self.generator, self.discriminator = generator, discriminator

    # -- what a logit costs, one value for each ---------------------------------------------------
    def price_real(self, s: Tensor) -> Tensor:
        """What D pays for its logit of a real row: -log D."""
        return F.softplus(-s)

    def price_fake(self, s: Tensor) -> Tensor:
        """What D pays for its logit of a generated row: -log(1 - D)."""
        return F.softplus(s)

    def price_generator(self, s: Tensor) -> Tensor:
        """What G pays for D's logit of its row."""
        return GENERATOR_LOSSES[self.g_loss](s)

    def watch(self, real: Tensor, fake: Tensor) -> Terms:
        """Further values of a D step to log, from its logits."""
        bound = jsd_bound(self.price_real(real).mean() + self.price_fake(fake).mean())
        return {
            "jsd_bound": bound,
            "d_acc_real": (real > 0).float().mean(),
            "d_acc_fake": (fake < 0).float().mean(),
        }

    # -- what the networks read -------------------------------------------------------------------
    def d_input(self, x: Tensor) -> Tensor:
        """Examples in the units of ``spec`` as D sees them."""
        return self.spec.to_signed(x)

    def condition(self, batch: Batch) -> Tensor | None:
        """What the networks are told of each row besides x: its class, or None."""
        return batch["y"] if self.conditions_on == "class" else None

    def one_hot(self, y: Tensor | None) -> Tensor:
        """Labels, (B,), or mixed ones as they are, (B, classes), for a network that is told the
        class.
        """
        if y is None:
            raise ValueError(
                f"{self.model_name} is conditioned on the class; give labels y, 0 to "
                f"{self.spec.num_classes - 1}"
            )
        return (
            y.to(self.float_dtype)
            if y.ndim == 2
            else F.one_hot(y, self.spec.num_classes).to(self.float_dtype)
        )

    def make(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """G's examples of codes z, as D sees them."""
        return self.generator(z)

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """D's logits, (B,), of examples as it sees them."""
        return self.discriminator(x)

    def realness(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """One value a row, higher for real ones: what R1 differentiates."""
        return self.judge(x, y)

    # -- a minibatch of either kind, with the options ---------------------------------------------
    def seen(self, x: Tensor) -> Tensor:
        """x as D sees it in training: with instance noise."""
        if not self.loop.instance_noise:
            return x
        step = 0 if self._trainer is None else self.trainer.global_step
        sigma = self.loop.instance_noise * max(0.0, 1 - step / self.loop.instance_noise_steps)
        return x + sigma * self.noise.normal_like(x)

    def fakes(self, n: int, y: Tensor | None = None) -> Tensor:
        """n new examples of G."""
        return self.make(self.draw_codes(n, self.noise), y)

    def fakes_for_d(self, n: int, y: Tensor | None = None) -> Tensor:
        """n examples of G that D's step does not differentiate, half of them from the store of past
        ones if there is one.
        """
        with torch.no_grad():
            fake = self.fakes(n, y)
            return self._replayed(fake) if self.loop.replay else fake

    def scores(self, batch: Batch, fake: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """D's logits of a real minibatch and of as many of G's examples (new ones, if none are
        given), for D's step.
        """
        x, y = self.d_input(batch["x"]), self.condition(batch)
        fake = self.fakes_for_d(len(x), y) if fake is None else fake
        if self.loop.separate_batches:
            return self.judge(self.seen(x), y), self.judge(self.seen(fake), y)
        real, fake = self.judge(
            self.seen(torch.cat([x, fake])), None if y is None else torch.cat([y, y])
        ).chunk(2)
        return real, fake

    def prices(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """What D pays for each logit, with smoothed and flipped targets."""
        on_real, on_fake = self.price_real(real), self.price_fake(fake)
        a, rho = self.loop.label_smooth, self.loop.label_flip
        if a < 1:
            on_real = a * on_real + (1 - a) * self.price_fake(real)
        if rho:
            flipped_real, flipped_fake = (self.noise.uniform(len(real)) < rho for _ in range(2))
            on_real = torch.where(flipped_real, self.price_fake(real), on_real)
            on_fake = torch.where(flipped_fake, self.price_real(fake), on_fake)
        return on_real, on_fake

    def _replayed(self, fake: Tensor) -> Tensor:
        """The second half of these rows after rows of the store, which then takes all new ones (of
        every process) in.
        """
        size, seen = self.loop.replay, int(self.replay_seen)
        rows = fake
        if seen:
            past = self.replay_x[
                self.noise.integers(len(fake), high=min(seen, size))[: len(fake) // 2]
            ]
            rows = torch.cat([past.to(fake.dtype), fake[len(past) :]])
        new = self.everyone(fake)[-size:]
        self.replay_x[(seen + torch.arange(len(new), device=new.device)) % size] = new.to(
            self.replay_x.dtype
        )
        self.replay_seen += len(new)
        return rows

    def regularised(self, phase: Phase, batch: Batch, terms: Terms) -> Terms:
        if not self.loop.r1 or phase.player != "d" or "loss" not in terms:
            return terms
        y = self.condition(batch)
        r1 = (
            self.loop.r1
            / 2
            * squared_gradient_norm(lambda v: self.realness(v, y), self.d_input(batch["x"])).mean()
        )
        return terms | {"loss": terms["loss"] + r1, "r1": r1}

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        real, fake = self.scores(batch)
        on_real, on_fake = self.prices(real, fake)
        return {"loss": on_real.mean() + on_fake.mean(), **self.watch(real, fake)}

    def generator_loss(self, batch: int | Batch) -> Terms:
        n, y = (batch, None) if isinstance(batch, int) else (len(batch["x"]), self.condition(batch))
        return {"loss": self.price_generator(self.judge(self.seen(self.fakes(n, y)), y)).mean()}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        return {"d": self.discriminator, "g": self.generator}

    def phases(self) -> list[Phase]:
        reads = self.conditions_on == "class"  # its own minibatch of labels
        return [
            Phase("d", self.discriminator_loss, repeat=self.k),
            Phase("g", self.generator_loss, real=reads),
        ]

    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas)

    def one_each(self, kind: Callable[..., Optimizer], **options: Any) -> dict[str, Optimizer]:
        """An optimiser of this kind for each of the two players, with its own rate."""
        return {
            p: kind(self.parameters_of(p), rate, **options)
            for p, rate in (("d", self.lr_d), ("g", self.lr_g))
        }

    # -- use --------------------------------------------------------------------------------------
    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of the prior, (n, latent)."""
        return prior(self.prior, n, self.latent, source)

    def from_codes(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """G(z) in the units of ``spec``, (B, *shape)."""
        return self.spec.from_signed(self.make(z, y))

    def sample(
        self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        if self.conditions_on == "class" and y is None:
            y = torch.randint(self.spec.num_classes, (n,), generator=generator, device=self.device)
        return self.from_codes(
            self.draw_codes(n, Draw(generator, self.device, self.float_dtype)), y
        )

    @torch.no_grad()
    def interpolate(
        self, a: Tensor, b: Tensor, frames: int = 10, y: Tensor | None = None
    ) -> Tensor:
        """Examples along the path between codes a and b, (B, latent), of classes y for a
        conditional model: (B, frames, *shape).
        """
        y = None if y is None else y.repeat_interleave(frames)
        return self.from_codes(path(self.prior, a, b, frames).flatten(0, 1), y).unflatten(
            0, (len(a), frames)
        )
