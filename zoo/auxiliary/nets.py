"""The networks, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.auxiliary.recipe import Recipe
from zoo.core.batch import Batch
from zoo.core.spec import Spec, Tokens
from zoo.nn.identity import Ident
from zoo.nn.perceptual import Percep
from zoo.nn.text import JointEmbedding, means_of, structured_joint_loss

PEOPLE = 50


def _said(logits: Tensor, batch: Batch) -> float:
    return (logits.argmax(1) == batch["y"]).double().mean().item()


def _class(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits, batch["y"].long())


def _attributes(logits: Tensor, batch: Batch) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, batch["attributes"].float())


def _all(logits: Tensor, batch: Batch) -> float:
    return ((logits > 0) == (batch["attributes"] > 0.5)).double().mean().item()


def _commonest(batch: Batch) -> Tensor:
    return batch["y"].long().bincount().double()


def _frequent(batch: Batch) -> Tensor:
    return batch["attributes"].double().mean(0) - 0.5


def _joint(said: Tensor, batch: Batch) -> Tensor:
    return structured_joint_loss(said[:, 0], said[:, 1:], batch["identity"])


def _described(said: Tensor, batch: Batch) -> float:
    """How often the captions of an image's own class are those nearest to it."""
    classes, at = batch["identity"].unique(return_inverse=True)
    captions = means_of(said[:, 1:].mean(1), at, len(classes))
    return ((said[:, 0] @ captions.T).argmax(1) == at).double().mean().item()


def _described_images(spec: Spec) -> JointEmbedding:
    words = spec["tokens"]
    assert isinstance(words, Tokens)
    return JointEmbedding(words.words, Percep(24))


def _nothing(batch: Batch) -> Tensor:
    return torch.zeros(1 + batch["tokens"].shape[1], 64)  # near to no caption: the first class


PERCEP = Recipe(
    "percep",
    "the 24 attributes of a drawn scene; its layers judge how alike images are",
    data="shapes",
    options={"fields": ("attributes",)},
    build=lambda spec: Percep(24),
    loss=_attributes,
    right=_all,
    usual=_frequent,
    enough=0.87,
)
RECIPES = (
    PERCEP,
    Recipe(
        "ident",
        f"which of {PEOPLE} people a drawn head is, whatever its pose",
        data="heads",
        options={"pose": "free", "identities": PEOPLE, "label": "identity"},
        build=lambda spec: Ident(PEOPLE),
        loss=_class,
        right=_said,
        usual=_commonest,
        enough=0.9,
    ),
    Recipe(
        "text",
        "captions of drawn scenes and their images in one space of 64 numbers",
        data="shapes",
        options={"fields": ("identity", "tokens")},
        beside=("tokens",),
        build=_described_images,
        loss=_joint,
        right=_described,
        usual=_nothing,
        enough=0.55,
        rate=3e-3,
        upon=PERCEP,
    ),
    Recipe(
        "digitcls",
        "which digit it is",
        data="digits",
        build=lambda spec: Percep(10),
        loss=_class,
        right=_said,
        usual=_commonest,
        enough=0.95,
    ),
    Recipe(
        "agecls",
        "which of 6 ages a drawn head is of",
        data="heads",
        options={"pose": "free", "label": "age"},
        build=lambda spec: Percep(6),
        loss=_class,
        right=_said,
        usual=_commonest,
        enough=0.8,
    ),
)
NETS = {recipe.name: recipe for recipe in RECIPES}


def net(name: str, progress: bool = True) -> nn.Module:
    """A network with its weights, frozen: trained now, unless they are kept.

    Raises:
        KeyError: there is none of that name.
    """
    recipe = NETS[name]
    found = recipe.built()
    found.load_state_dict(recipe.weights(progress))
    return found.requires_grad_(False).eval()
