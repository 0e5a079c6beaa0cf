"""A pool of generated images (Shrivastava et al. 2017, as in Zhu et al. 2017, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.bases.adversary import Pool


class ImagePool(Pool):
    """Until it is full each image is stored and handed back. From then on, with probability 1/2, an
    image is stored in the place of one drawn at random, which is handed back for it, and otherwise
    only handed back.

    Images are taken in the order of the whole batch over all processes, each of which holds the
    same pool.

    Args:
        size: how many images. shapes: of a row's tensors, of which one is drawn and all change
            places.
    """

    @torch.no_grad()
    def mix(self, made: Sequence[Tensor], game: Any) -> list[Tensor]:
        noise = game.noise
        u = game.everyone(noise.uniform(len(made[0]), 2)).tolist()
        rows = [game.everyone(v).clone() for v in made]
        kept = [self.get_buffer(f"past{i}") for i in range(self.width)]
        for j, (whether, which) in enumerate(u):
            seen = int(self.seen)
            if seen < self.size:
                for row, store in zip(rows, kept, strict=True):
                    store[seen] = row[j].to(store.dtype)
                self.seen += 1
            elif whether < 0.5:
                at = int(which * self.size)
                for row, store in zip(rows, kept, strict=True):
                    old = store[at].clone()
                    store[at] = row[j].to(store.dtype)
                    row[j] = old.to(row.dtype)
        return [row[noise.rank :: noise.world] for row in rows]
