"""The networks, by name."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.auxiliary.recipe import Recipe
from zoo.core.batch import Batch
from zoo.nn.identity import Ident
from zoo.nn.perceptual import Percep

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


RECIPES = (
    Recipe(
        "percep",
        "the 24 attributes of a drawn scene; its layers judge how alike images are",
        data="shapes",
        options={"fields": ("attributes",)},
        build=lambda spec: Percep(24),
        loss=_attributes,
        right=_all,
        usual=_frequent,
        enough=0.87,
    ),
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
