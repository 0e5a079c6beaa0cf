"""Captions and images in one space (Reed et al. 2016, 1605.05396, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.coders import mlp
from zoo.nn.perceptual import Percep


class WordGRU(nn.Module):
    """A caption's vector: the state of a GRU after its last word, and a linear layer.

    Args:
        words: of the vocabulary, of which 0 is padding. units: of the state and of the vector.

    Shape: words (..., L), int64, to (..., units).
    """

    def __init__(self, words: int, units: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, units // 2, padding_idx=0)
        self.gru = nn.GRU(units // 2, units, batch_first=True)
        self.out = nn.Linear(units, units)

    def forward(self, words: Tensor) -> Tensor:
        rows = words.flatten(0, -2)
        states, _ = self.gru(self.embed(rows))
        last = ((rows > 0).sum(1) - 1).clamp(min=0)
        state = states[torch.arange(len(rows), device=rows.device), last]
        return self.out(state).unflatten(0, words.shape[:-1])


class JointEmbedding(nn.Module):
    """φ of an image, by a perceptron on the maps of a network that stays as it is, and φ of its
    captions, by a GRU.

    Shape: images (B, 1 or 3, H, W) in [0, 1] and words (B, C, L) to (B, 1 + C, units), the image's
    first.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, words: int, percep: Percep, units: int = 64) -> None:
        super().__init__()
        self.percep = percep
        seen = len(self.seen(torch.zeros(1, 3, 8, 8))[0])
        self.register_buffer("mean", torch.zeros(seen))
        self.register_buffer("std", torch.ones(seen))
        self.image = mlp(seen, units, 2 * units, 1, "relu")
        self.text = WordGRU(words, units)

    @torch.no_grad()
    def stand_on(self, state: Mapping[str, Tensor], x: Tensor) -> None:
        """Take the weights of the network that stays, and the mean and deviation over images of
        what is seen through it.
        """
        self.percep.load_state_dict(state)
        seen = torch.cat([self.seen(part) for part in x.split(512)])
        self.mean.copy_(seen.mean(0))
        self.std.copy_(seen.std(0).clamp(min=1e-3))  # of a dead map

    def seen(self, x: Tensor) -> Tensor:
        """Mean and maximum of each map, (B, 192)."""
        maps = self.percep.features(x, self.percep.names)
        return torch.cat([v for m in maps for v in (m.mean((2, 3)), m.amax((2, 3)))], 1)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        with torch.no_grad():
            seen = (self.seen(x) - self.mean) / self.std
        return torch.cat([self.image(seen)[:, None], self.text(words)], 1)


def means_of(rows: Tensor, at: Tensor, classes: int) -> Tensor:
    """The mean row of each class, (classes, D), of rows (N, D) and their classes (N,)."""
    member = F.one_hot(at, classes).to(rows.dtype)
    return (member / member.sum(0)).T @ rows


def structured_joint_loss(images: Tensor, texts: Tensor, y: Tensor) -> Tensor:
    """The symmetric surrogate of the joint embedding, with F(v, t) = φ(v)ᵀφ(t) and Δ the 0/1 loss:
    the mean over images of max over classes y of Δ(y_n, y) + E_{t of y} F(v_n, t) - E_{t of y_n}
    F(v_n, t), and the same with images and texts exchanged; expectations are over the minibatch.

    Args:
        images: φ(v), (B, D). texts: φ(t) of each image's captions, (B, C, D). y: classes, (B,).
    """
    classes, at = y.unique(return_inverse=True)
    captions, k = texts.shape[1], len(classes)
    of_images = images @ means_of(texts.mean(1), at, k).T
    of_texts = texts.flatten(0, 1) @ means_of(images, at, k).T
    return _margin(of_images, at) + _margin(of_texts, at.repeat_interleave(captions))


def _margin(scores: Tensor, at: Tensor) -> Tensor:
    """The own class's is 0, so no maximum is below."""
    wrong = 1 - F.one_hot(at, scores.shape[1]).to(scores.dtype)
    return (wrong + scores - scores.gather(1, at[:, None])).amax(1).mean()
