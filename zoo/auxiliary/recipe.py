"""How a network is trained once and kept: its data, its loss, and what it must reach."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import registry
from zoo.core import taught as training
from zoo.core.batch import Batch
from zoo.core.cache import digest, folder, kept
from zoo.core.processes import from_rank_zero
from zoo.core.spec import Spec
from zoo.nn.perceptual import Percep

FEW = 64  # examples whose pixels stand for all: each depends on the seed and its number alone


@dataclass(frozen=True)
class Recipe:
    """A network and its training.

    Attributes:
        name: of the network. about: what it says of an image.
        data: a data module, by name. options: its own. beside: fields that the network is given
            after the images.
        upon: a network that it begins with and leaves as it is.
        build: the network for the data's spec.
        loss: of the network's answers and a batch. right: the share of answers that are right.
        usual: the answer to every image that is not looked at, from the training images.
        enough: what ``right`` must be on validation images. steps, rate: of Adam, minibatches of
            64.
    """

    name: str
    about: str
    data: str
    build: Callable[[Spec], nn.Module]
    loss: Callable[[Tensor, Batch], Tensor]
    right: Callable[[Tensor, Batch], float]
    usual: Callable[[Batch], Tensor]
    enough: float
    options: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    upon: Recipe | None = None
    steps: int = 1500
    rate: float = 2e-3

    def module(self, **options: Any) -> Any:
        """The data module."""
        return registry.get(self.data, "data")(**self.options, **options)

    def of(self) -> str:
        """Names all that the weights depend on: the recipe, the code, and the data."""
        few = self.module(n=FEW, n_val=1, n_test=1).examples() if self.data != "digits" else None
        few = few or self.module().examples(FEW)
        modules = (__name__, training.__name__, type(self.built()).__module__)
        code = [inspect.getsource(sys.modules[m]) for m in modules]
        code.append(inspect.getsource(self.loss))
        said = f"{self.name} {self.data} {self.options} {self.steps} {self.rate}"
        said += f" {self.upon.of()}" if self.upon else ""
        return digest(said, *code, *(few[k] for k in sorted(few)))

    def built(self) -> nn.Module:
        """The network before it is trained, always with the same weights."""
        with torch.random.fork_rng([]):
            torch.random.default_generator.manual_seed(0)
            return self.build(self.module().spec)

    def images(self, batch: Batch) -> Tensor:
        """Of a batch of the data, in [0, 1]."""
        return self.module().spec.to_unit(batch["x"]).float()

    def trained(self, progress: bool = True) -> dict[str, Tensor]:
        """Weights from training.

        Raises:
            ValueError: it did not reach ``enough``.
        """
        data = self.module()
        net: Any = self.built()
        train = data.examples()
        x = self.images(train)
        rest = {k: v for k, v in train.items() if k != "x"}
        if self.upon:
            net.stand_on(self.upon.weights(progress), x)

        def loss(rows: Tensor, g: torch.Generator) -> Tensor:
            batch = Batch({k: v[rows] for k, v in rest.items()}, len(rows))
            return self.loss(net(x[rows], *(batch[k] for k in self.beside)), batch)

        how: dict[str, Any] = {"steps": self.steps, "batch": 64, "rate": self.rate}
        with torch.inference_mode(False), torch.enable_grad():
            says = f"training {self.name}"
            training.taught(net.parameters(), loss, len(x), says, progress=progress, **how)
        if isinstance(net, Percep):
            net.settle(x[:512])
        if (reached := self.score(net)) < self.enough:
            raise ValueError(
                f"{self.name} is right {reached:.3f} of the time, and should be {self.enough} of it"
            )
        return {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def score(self, net: nn.Module) -> float:
        """``right`` on validation images."""
        held_out = self.module().examples(split="val")
        given = [self.images(held_out), *(held_out[k] for k in self.beside)]
        parts = zip(*(v.split(256) for v in given), strict=True)
        return self.right(torch.cat([net(*part) for part in parts]), held_out)

    @torch.no_grad()
    def chance(self) -> float:
        """``right`` of the answer that is the best one where an image is not looked at."""
        data = self.module()
        train, held_out = data.examples(), data.examples(split="val")
        usual = self.usual(train)
        return self.right(usual.expand(held_out.n, *usual.shape), held_out)

    def file(self, of: str) -> Path:
        """What the weights are kept in."""
        return folder() / f"{self.name}-{of}.pt"

    def weights(self, progress: bool = True) -> dict[str, Tensor]:
        """From the file, or from training: the first process's, on all."""

        def made() -> dict[str, Tensor]:
            of, fits = self.of(), self.built().load_state_dict
            train = partial(self.trained, progress)
            return kept(self.file(of), of, train, self.name, "is trained", fits)

        return from_rank_zero(made)
