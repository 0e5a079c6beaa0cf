"""The options that every game takes as ``--model.loop.NAME``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from zoo.core.options import Count, NonNegative, Positive, Range, Whole, check_fields


@dataclass(frozen=True)
class LoopOptions:
    """Options of the loop and of its adversaries; all are off by default.

    From ``separate_batches`` on they change what an ``Adversary`` does; one of whose logits an
    option means nothing refuses it.

    Args:
        accumulate: cut each minibatch in this many micro-batches before a step; it must divide the
            batch size.
        clip_d: largest gradient norm of a critic's step; None leaves it alone.
        clip_g: the same for every other player.
        separate_batches: D sees real and generated rows in two forward passes, so that batch norm
            never mixes them, and not in one.
        label_smooth: D's target a for real rows, in (0.5, 1]; below 1, L_D = E[a l(x, real) +
            (1-a) l(x, fake)] + E l(G(z), fake). Only the real target is smoothed (Salimans et al.
            2016, section 3.4): D* = a p/(p+q).
        label_flip: probability in [0, 0.5) that a row's target is the other one, drawn anew for
            each row of each of D's steps.
        instance_noise: standard deviation σ0 of the gaussian noise on everything that D sees, in
            both players' steps, in D's units (Sønderby et al. 2017); it falls linearly to 0 over
            ``instance_noise_steps`` generator steps.
        instance_noise_steps: see above.
        spectral_norm: divide each of D's weights by its largest singular value (Miyato et al.
            2018), one power iteration a pass.
        r1: γ of the penalty (γ/2) E‖∇_x s(x)‖² at real rows (Mescheder et al. 2018).
        replay: past samples kept in a first-in-first-out store, from which half of the generated
            rows of each D step are drawn (Shrivastava et al. 2017); 0 is off.
    """

    accumulate: Count = 1
    clip_d: Positive | None = None
    clip_g: Positive | None = None
    separate_batches: bool = True
    label_smooth: Annotated[float, Range(0.5, 1, above=True)] = 1.0
    label_flip: Annotated[float, Range(0, 0.5, below=True)] = 0.0
    instance_noise: NonNegative = 0.0
    instance_noise_steps: Count = 1000
    spectral_norm: bool = False
    r1: NonNegative = 0.0
    replay: Whole = 0

    def __post_init__(self) -> None:
        check_fields(self, "loop.")
        if self.replay and self.accumulate > 1:
            raise ValueError("loop.replay stores whole minibatches: set loop.accumulate=1 with it")

    def changed(self) -> set[str]:
        """Names of the options of adversaries that are on."""
        values = {f.name: (getattr(self, f.name), f.default) for f in dataclasses.fields(self)}
        return {name for name in TOOLKIT if values[name][0] != values[name][1]}


TOOLKIT = tuple(
    "separate_batches label_smooth label_flip instance_noise spectral_norm r1 replay".split()
)
