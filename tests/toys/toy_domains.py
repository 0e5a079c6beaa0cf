"""A toy of two unpaired domains: grey digits, and others in colour; each becomes the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count
from zoo.data.base import Split, ZooDataModule, apart, split_rows
from zoo.data.transforms import flipped
from zoo.registry import register

LEAST_SQUARES = Loss(
    real=lambda s: (s - 1).square() / 2,
    fake=lambda s: s.square() / 2,
    maker=lambda s: (s - 1).square() / 2,
)


class Domains(ZooDataModule):
    """a: digits of 17 grey levels; b: others, red on white, 8-bit. No digit is in both."""

    def __init__(self, batch_size: int = 8, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, num_workers, seed)

    @property
    def spec(self) -> Spec:
        return Spec("two domains", a=Image((1, 8, 8), 17), b=Image((3, 8, 8), 256))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return (("a",), ("b",))

    def load(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        pixels = torch.from_numpy(load_digits().images)[:300, None]
        splits = {}
        for name, rows in split_rows(300, 0, 50, 50).items():
            of_a, of_b = apart(rows)
            colour = 255 - pixels[of_b[: len(of_b) - 20]] * torch.tensor([0, 15, 15])[:, None, None]
            splits[name] = {"a": pixels[of_a].to(torch.uint8), "b": colour.to(torch.uint8)}
        return splits

    def transform(self, batch: Batch, noise, training: bool) -> Batch:
        return flipped(batch, noise, "a", "b") if training else batch


def translator(inputs: int, outputs: int) -> nn.Module:
    hidden = nn.Conv2d(inputs, 8, 3, padding=1), nn.ReLU()
    return nn.Sequential(*hidden, nn.Conv2d(8, outputs, 3, padding=1), nn.Tanh())


def patches(inputs: int) -> nn.Module:
    hidden = nn.Conv2d(inputs, 8, 4, 2, 1), nn.LeakyReLU(0.2)
    return nn.Sequential(*hidden, nn.Conv2d(8, 1, 3, padding=1), nn.Flatten())


@register(
    "toy_domains",
    family="toys",
    about="two translators that undo each other",
    taxonomy="implicit direct",
    can={"sample"},
    told=("a", "b"),
    makes=("a", "b"),
    data="toy_domains.Domains",
    waive={"seed_matters": "a translation is a function of what is translated"},
)
class TwoWay(AdversarialModule):
    """See the module's docstring."""

    accepts = {"a": Image, "b": Image}

    def __init__(
        self,
        spec: Spec,
        k: Count = 1,
        cycle: float = 10.0,
        lr: float = 1e-3,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        self.k, self.cycle, self.lr = k, cycle, lr
        self.a, self.b = spec["a"], spec["b"]
        of_a, of_b = self.a.shape[0], self.b.shape[0]
        self.to_b, self.to_a = translator(of_a, of_b), translator(of_b, of_a)
        self.d_a = Adversary(self, patches(of_a), LEAST_SQUARES, inputs=[self.a.shape])
        self.d_b = Adversary(self, patches(of_b), LEAST_SQUARES, inputs=[self.b.shape])

    def signed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.a.to_signed(batch["a"]), self.b.to_signed(batch["b"])

    def loss_a(self, batch: Batch) -> Terms:
        a, b = self.signed(batch)
        return self.d_a.loss((a,), (self.to_a(b),))

    def loss_b(self, batch: Batch) -> Terms:
        a, b = self.signed(batch)
        return self.d_b.loss((b,), (self.to_b(a),))

    def translators_loss(self, batch: Batch) -> Terms:
        a, b = self.signed(batch)
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        back = F.l1_loss(self.to_a(fake_b), a) + F.l1_loss(self.to_b(fake_a), b)
        return {"loss": self.d_b.fool(fake_b) + self.d_a.fool(fake_a) + self.cycle * back}

    def players(self) -> dict:
        return {"d_a": self.d_a, "d_b": self.d_b, "g": [self.to_a, self.to_b]}

    def phases(self) -> list[Phase]:
        both = ("a", "b")
        return [
            Phase("d_a", self.loss_a, both, self.k, critic=True),
            Phase("d_b", self.loss_b, both, self.k, critic=True),
            Phase("g", self.translators_loss, both),
        ]

    @torch.no_grad()
    def sample(
        self, n: int, *, a: Tensor, b: Tensor, generator: torch.Generator | None = None
    ) -> Batch:
        signed_a, signed_b = self.a.to_signed(a), self.b.to_signed(b)
        made_a, made_b = self.to_a(signed_b), self.to_b(signed_a)
        return Batch({"a": self.a.from_signed(made_a), "b": self.b.from_signed(made_b)}, n)

    def optimisers(self) -> dict:
        return {p: torch.optim.Adam(self.parameters_of(p), self.lr) for p in self.players()}
