"""A toy of padded graphs with boxes: words of objects and relations make boxes and a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Boxes, Image, Spec, Tokens
from zoo.core.noise import seeded
from zoo.core.options import Count
from zoo.data.base import Split, ZooDataModule
from zoo.nn.prior import Draw
from zoo.registry import register

NONSATURATING = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s))
SLOTS, SIDE = 3, 8


class Graphs(ZooDataModule):
    """One to three coloured boxes side by side, the words of their colours, and which is left of
    which: triples (slot, 1, slot). What is not there is word 0, a box of no size.
    """

    def __init__(self, batch_size: int = 8, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, num_workers, seed)

    @property
    def spec(self) -> Spec:
        return Spec(
            "boxes in a row",
            x=Image((3, SIDE, SIDE), 256),
            objects=Tokens((SLOTS,), 4),
            triples=Tokens((SLOTS, 3), SLOTS),
            boxes=Boxes(SLOTS),
        )

    def load(self) -> dict[str, Split]:
        sizes = {"train": 160, "val": 40, "test": 40}
        return {
            name: self._drawn(seeded(self.seed, "graphs", name), n) for name, n in sizes.items()
        }

    def _drawn(self, g: torch.Generator, n: int) -> Split:
        words = torch.randint(1, 4, (n, SLOTS), generator=g)
        count = torch.randint(1, SLOTS + 1, (n, 1), generator=g)
        there = torch.arange(SLOTS) < count
        objects = words * there
        height = torch.randint(2, SIDE, (n, SLOTS), generator=g)
        left = torch.arange(SLOTS) * 3
        corners = [left.expand(n, -1), SIDE - height, left.expand(n, -1) + 2, torch.tensor(SIDE)]
        boxes = torch.stack([c.expand(n, SLOTS) / SIDE for c in corners], 2) * there[..., None]
        pairs = there[:, 1:]
        triples = torch.zeros(n, SLOTS, 3, dtype=torch.long)
        triples[:, :-1, 0] = torch.arange(SLOTS - 1) * pairs
        triples[:, :-1, 1] = pairs
        triples[:, :-1, 2] = torch.arange(1, SLOTS) * pairs
        across, down = torch.arange(SIDE)[None, None], torch.arange(SIDE)[None, None]
        wide = (across >= corners[0][..., None]) & (across < corners[2][..., None])
        tall = down >= corners[1][..., None]
        mask = tall[..., :, None] & wide[..., None, :] & there[..., None, None]
        x = torch.zeros(n, 3, SIDE, SIDE, dtype=torch.uint8)
        for word in range(1, 4):
            painted = (mask & (words == word)[..., None, None]).any(1)
            x[:, word - 1][painted] = 255
        return {"x": x, "objects": objects, "triples": triples, "boxes": boxes}


@register(
    "toy_graphs",
    family="toys",
    about="places the objects of a graph, and paints them",
    taxonomy="implicit direct",
    can={"sample"},
    told=("objects", "triples"),
    makes=("boxes", "x"),
    data="toy_graphs.Graphs",
)
class GraphPainter(AdversarialModule):
    """See the module's docstring."""

    accepts = {"x": Image, "objects": Tokens, "triples": Tokens, "boxes": Boxes}

    def __init__(
        self,
        spec: Spec,
        width: Count = 16,
        noise: Count = 4,
        k: Count = 1,
        lr: float = 1e-3,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        self.k, self.lr, self.dim_z = k, lr, noise
        shape, slots = spec.shape, spec["objects"].shape[0]
        words, predicates = spec["objects"].words, spec["triples"].words
        self.of_word, self.of_predicate = (
            nn.Embedding(words, width),
            nn.Embedding(predicates, width),
        )
        self.edge, self.place = nn.Linear(3 * width, width), nn.Linear(width + noise, 4)
        pixels = spec.dim
        inputs = slots * (width + noise + 4)
        hidden = nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, pixels), nn.Tanh()
        self.paint = nn.Sequential(nn.Flatten(), *hidden, nn.Unflatten(1, shape))
        conv = nn.Conv2d(shape[0], width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten()
        flat = width * (shape[1] // 2) * (shape[2] // 2)
        d = nn.Sequential(*conv, nn.Linear(flat, 1), nn.Flatten(0))
        self.d = Adversary(self, d, NONSATURATING)

    def drawn(self, objects: Tensor, triples: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and images in [-1, 1]."""
        v, there = self.of_word(objects), (objects > 0)[..., None]
        s, p, o = triples.unbind(-1)
        ends = (v.gather(1, i[..., None].expand(-1, -1, v.shape[2])) for i in (s, o))
        seen = self.edge(torch.cat([*ends, self.of_predicate(p)], 2)).relu() * (p > 0)[..., None]
        v = v + torch.zeros_like(v).scatter_add(1, o[..., None].expand_as(seen), seen)
        v = torch.cat([v, z], 2)
        low, size = self.place(v).sigmoid().chunk(2, 2)
        boxes = torch.cat([low, low + (1 - low) * size], 2) * there
        return boxes, self.paint(torch.cat([v * there, boxes], 2))

    def of_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        z = self.noise.normal(batch.n, batch["objects"].shape[1], self.dim_z)
        return self.drawn(batch["objects"], batch["triples"], z)

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.spec.to_signed(batch["x"]),), (self.of_batch(batch)[1],))

    def painter_loss(self, batch: Batch) -> Terms:
        boxes, made = self.of_batch(batch)
        placed = (boxes - batch["boxes"]).abs().mean()
        pixel = (made - self.spec.to_signed(batch["x"])).abs().mean()
        return {"loss": self.d.fool(made) + placed + pixel, "placed": placed, "pixel": pixel}

    def players(self) -> dict:
        makers = [self.of_word, self.of_predicate, self.edge, self.place, self.paint]
        return {"d": self.d, "g": makers}

    def phases(self) -> list[Phase]:
        told = ("objects", "triples")
        return [
            Phase("d", self.discriminator_loss, ("x", *told), self.k, critic=True),
            Phase("g", self.painter_loss, ("x", *told, "boxes")),
        ]

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        objects: Tensor,
        triples: Tensor,
        generator: torch.Generator | None = None,
    ) -> Batch:
        source = Draw(generator, self.device, self.float_dtype)
        z = source.normal(n, objects.shape[1], self.dim_z)
        boxes, made = self.drawn(objects, triples, z)
        return Batch({"boxes": boxes, "x": self.spec.from_signed(made)}, n)

    def optimisers(self) -> dict:
        return {p: torch.optim.Adam(self.parameters_of(p), self.lr) for p in self.players()}
