"""An adversary: one discriminator, what its logits cost, and the options of the game it is in.

A game has as many as it likes, over whatever inputs: ``d.loss((x,), (made,))`` for a plain GAN,
``d.loss((x, code), (made, z))`` where D judges pairs, one for frames and one for clips of a video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm
from torch.nn.utils.parametrize import ParametrizationList

from zoo.nn.penalties import squared_gradient_norm

Terms = dict[str, Tensor]
Price = Callable[[Tensor], Tensor]
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)  # their weights are gains


@dataclass(frozen=True)
class Loss:
    """What a game is about, from D's logits s: three prices, one value for each logit.

    Args:
        real: what D pays for a real row. fake: for a made one. maker: what its maker pays, where
            that is a price of logits.
        targets: whether real and fake are targets of a classification, which can be smoothed and
            flipped; a critic, an energy or a margin has none.
    """

    real: Price
    fake: Price
    maker: Price | None = None
    targets: bool = True


class Adversary(nn.Module):
    """A discriminator net in its game.

    Its rows are tuples of tensors, the net's inputs; options that change or differentiate what D
    sees (instance noise, R1) act on the first.

    Attributes:
        net: the discriminator. price: what its logits cost.

    Args:
        game: the model, whose noise, processes and ``loop`` options are the adversary's.
        price: what a logit costs; None where the model's own losses say, from ``both`` and ``see``.
        net: to D's logits, (B,), or outputs of which ``realness`` takes a logit.
        inputs: shapes of the net's inputs in a made row, for the store of past ones; None is one
            input of the shape of the data's x.
        realness: one value a row of D's outputs, higher for real ones: what R1 differentiates.
        watch: further values, from D's outputs of real and of made rows, in steps that are logged.
        without: options of ``TOOLKIT`` that mean nothing here, each with the reason.
    """

    game: Any
    net: Any
    price: Any

    def __init__(
        self,
        game: Any,
        net: nn.Module,
        price: Loss | None = None,
        *,
        inputs: Sequence[tuple[int, ...]] | None = None,
        realness: Price = lambda s: s,
        watch: Callable[[Tensor, Tensor], Terms] = lambda real, fake: {},
        without: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.__dict__["game"] = game  # the whole, not a part of this part
        self.price, self.realness, self.watch, self.options = price, realness, watch, game.loop
        without = dict(without or {})
        if price is None or not price.targets:
            without |= dict.fromkeys(("label_smooth", "label_flip"), "its loss has no targets")
        for name in sorted(self.options.changed() & set(without)):
            raise ValueError(
                f"loop.{name} has no meaning in {game.model_name}'s game: {without[name]}; "
                "leave it at its default"
            )
        if self.options.spectral_norm:
            normalise(net)
        self.net = net
        shapes = [game.spec.shape] if inputs is None and self.options.replay else inputs or []
        self.pool = Pool(self.options.replay, shapes) if self.options.replay else None

    def forward(self, *inputs: Tensor) -> Tensor:
        """D's logits, (B,), or its outputs."""
        return self.net(*inputs)

    # -- what it sees -----------------------------------------------------------------------------
    def noisy(self, x: Tensor) -> Tensor:
        """x as D sees it in training: with instance noise."""
        if not self.options.instance_noise:
            return x
        gone = (self.game.step or 0) / self.options.instance_noise_steps
        sigma = self.options.instance_noise * max(0.0, 1 - gone)
        return x + sigma * self.game.noise.normal_like(x)

    def see(self, *inputs: Tensor) -> Tensor:
        """D's outputs in training, for a maker that is to fool it."""
        return self(self.noisy(inputs[0]), *inputs[1:])

    def stored(self, *made: Tensor) -> list[Tensor]:
        """Made rows for D's own step: without gradient, half of them from the store of past ones
        where there is one.
        """
        rows = [v.detach() for v in made]
        return rows if self.pool is None else self.pool.mix(rows, self.game)

    def both(self, real: Sequence[Tensor], made: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """D's outputs of real rows and of made ones, for its own step: what was made carries no
        gradient, and half of it comes from the store of past rows where there is one.
        """
        s, t = self.judged(real, self.stored(*made))
        return s, t

    def judged(self, *groups: Sequence[Tensor]) -> list[Tensor]:
        """D's outputs in training of several groups of rows, each in a pass of its own or all in
        one.
        """
        if self.options.separate_batches:
            return [self.see(*rows) for rows in groups]
        joined = self.see(*(torch.cat(parts) for parts in zip(*groups, strict=True)))
        return [*joined.split([len(rows[0]) for rows in groups])]

    # -- what it pays -----------------------------------------------------------------------------
    def prices(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """What D pays for each logit, with smoothed and flipped targets."""
        on_real, on_fake = self.price.real(real), self.price.fake(fake)
        a, rho = self.options.label_smooth, self.options.label_flip
        if a < 1:
            on_real = a * on_real + (1 - a) * self.price.fake(real)
        if rho:
            noise = self.game.noise
            each = [1] * (on_real.ndim - 1)  # all logits of a row alike
            flipped_real, flipped_fake = (
                noise.uniform(len(v), *each) < rho for v in (on_real, on_fake)
            )
            on_real = torch.where(flipped_real, self.price.fake(real), on_real)
            on_fake = torch.where(flipped_fake, self.price.real(fake), on_fake)
        return on_real, on_fake

    def cost(self, real: Tensor, fake: Tensor) -> Tensor:
        """E of what D pays, from its logits of real and of made rows."""
        on_real, on_fake = self.prices(real, fake)
        return on_real.mean() + on_fake.mean()

    def regularised(self, terms: Terms, *real: Tensor) -> Terms:
        """D's terms with R1 at these real rows, where the options ask for it."""
        if not self.options.r1 or "loss" not in terms:
            return terms
        norm = squared_gradient_norm(lambda v: self.realness(self(v, *real[1:])), real[0])
        r1 = self.options.r1 / 2 * norm.mean()
        return terms | {"loss": terms["loss"] + r1, "r1": terms.get("r1", 0) + r1}

    def loss(self, real: Sequence[Tensor], made: Sequence[Tensor]) -> Terms:
        """D's loss, and what is watched."""
        s_real, s_fake = self.both(real, made)
        terms = {"loss": self.cost(s_real, s_fake)}
        if self.game.logs:
            terms |= self.watch(s_real, s_fake)
        return self.regularised(terms, *real)

    def fool(self, *made: Tensor) -> Tensor:
        """E of what the maker of these rows pays."""
        return self.price.maker(self.see(*made)).mean()

    def forget(self) -> None:
        """Empty the store of past rows, for a maker that begins anew."""
        if self.pool is not None:
            self.pool.seen.zero_()


class Pool(nn.Module):
    """A first-in-first-out store of made rows.

    Args:
        size: how many. shapes: of a row's tensors.
    """

    seen: Tensor

    def __init__(self, size: int, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.size, self.width = size, len(shapes)
        for i, shape in enumerate(shapes):
            self.register_buffer(f"past{i}", torch.zeros(size, *shape))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def mix(self, made: Sequence[Tensor], game: Any) -> list[Tensor]:
        """These rows, half of them replaced by rows of the store, which then takes all new ones (of
        every process) in.
        """
        seen, rows = int(self.seen), [*made]
        if seen:
            n = len(made[0])
            at = game.noise.integers(n, high=min(seen, self.size))[: n // 2]
            for i, new in enumerate(made):
                past = self.get_buffer(f"past{i}")[at].to(new.dtype)
                rows[i] = torch.cat([past, new[len(past) :]])
        count = 0
        for i, row in enumerate(made):
            new, kept = game.everyone(row)[-self.size :], self.get_buffer(f"past{i}")
            count = len(new)
            kept[(seen + torch.arange(count, device=new.device)) % self.size] = new.to(kept.dtype)
        self.seen += count
        return rows


def normalise(net: nn.Module) -> None:
    """Divide every weight of a net, in place, by its largest singular value: every parameter of two
    dimensions or more, whatever the kind of layer, but the gains of norms. A layer that is another
    adversary's too is divided once.
    """
    for module in [m for m in net.modules() if not isinstance(m, (*NORMS, ParametrizationList))]:
        own = [name for name, _ in module.named_parameters(recurse=False)]
        for name in [*own, *getattr(module, "parametrizations", ())]:  # over any other norm
            over = getattr(module, "parametrizations", {})
            divided = name in over and any(isinstance(p, _SpectralNorm) for p in over[name])
            if getattr(module, name).ndim > 1 and not divided:
                spectral_norm(module, name)
