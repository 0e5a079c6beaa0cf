"""Games played in stages: when one is over its networks are kept as they are, and the next begins.

The pair in training is ``g`` and ``d`` in every stage, so players, phases,
optimisers and checkpoints are those of any game; what earlier stages left behind lies in ``past``.
The stage is a buffer, the length of a stage a number of generator steps.
"""

from __future__ import annotations

import copy
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from zoo.bases.adversary import Adversary
from zoo.bases.generator import GeneratorModule


class StagedModule(GeneratorModule):
    """Base of the games of several stages. A constructor ends with ``begin``.

    At the end of a stage the pair is copied into ``past``, the optimisers forget their moments and
    step counts, as new ones would, and ``begin_stage`` makes of the pair what the next one starts
    from; without it, that is the pair as it stands.

    Attributes:
        stages: how many there are. stage_steps: generator steps of each but the last, which has the
            rest of the run.
        stage: int64, the present one, counted from 1.
        past: the networks of the stages before, frozen and in evaluation mode; those still to come
            hold copies of the first weights.
        kept: which networks of a stage ``past`` keeps, with the weights that were trained, not
            their averages.
        anew: whether a stage begins with new weights, so that averages of weights begin anew too.
    """

    kept: ClassVar[tuple[str, ...]] = ("g", "d")
    anew: ClassVar[bool] = False
    past: nn.ModuleList
    stage: Tensor

    def begin(self, stages: int, stage_steps: int) -> None:
        """For the end of a constructor: make room for what each stage leaves behind."""
        self.stages, self.stage_steps = stages, stage_steps
        self.register_buffer("stage", torch.ones((), dtype=torch.int64))
        self.past = nn.ModuleList(
            nn.ModuleDict({name: copy.deepcopy(self.net(name)) for name in self.kept})
            for _ in range(stages - 1)
        )
        self.past.requires_grad_(False).eval()

    @property
    def stands(self) -> str:
        """Which stage this is."""
        return f"stage {int(self.stage)} of {self.stages}"

    def net(self, name: str) -> nn.Module:
        """The network of a player in training: "g", or "d"'s."""
        part = getattr(self, name)
        return part.net if isinstance(part, Adversary) else part

    def train(self, mode: bool = True) -> StagedModule:
        super().train(mode)
        if "past" in self._modules:
            self.past.eval()
        return self

    # -- what a model defines ---------------------------------------------------------------------
    def begin_stage(self) -> None:
        """Make the pair, in place, and what else training changes, what the stage that begins
        starts from. Alike on every process.
        """

    # -- what it uses -----------------------------------------------------------------------------
    def of_stage(self, stage: int, name: str = "g") -> nn.Module:
        """A network as a stage left it; -1 is the present stage.

        Raises:
            ValueError: no such stage, or none yet.
        """
        present = int(self.stage)
        if stage in (-1, present):
            return self.net(name)
        if not 1 <= stage < present:
            raise ValueError(
                f"{self.model_name} has the stages 1 to {present} so far, and -1 for the present "
                f"one, got {stage}"
            )
        return cast(nn.ModuleDict, self.past[stage - 1])[name]

    @property
    def began_at(self) -> int:
        """Generator steps before the weights in training were new."""
        return (int(self.stage) - 1) * self.stage_steps if self.anew else 0

    # -- what the loop does -----------------------------------------------------------------------
    def before_cycle(self, step: int) -> None:
        over = step // self.stage_steps
        if step % self.stage_steps or over != int(self.stage) or over == self.stages:
            return
        for name, net in cast(nn.ModuleDict, self.past[over - 1]).items():
            net.load_state_dict(self.net(name).state_dict())
        for optimiser in self.trainer.optimizers:
            optimiser.state.clear()
        self.stage += 1
        if self.anew:
            self.d.forget()  # what the last generator made is not the new one's past
        self.begin_stage()
