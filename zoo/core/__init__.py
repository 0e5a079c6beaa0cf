"""Mechanics that no paper mentions, once for all: fields, batches, noise, checkpoints, drawing."""

from zoo.core.batch import Batch
from zoo.core.module import GenerativeModule
from zoo.core.spec import (
    Attributes,
    Boxes,
    DataSpec,
    Field,
    Image,
    Keypoints,
    Label,
    Quantity,
    Regions,
    Series,
    Spec,
    Tokens,
    Triples,
    Vector,
    Video,
    Volume,
)

__all__ = [
    "Attributes",
    "Batch",
    "Boxes",
    "DataSpec",
    "Field",
    "GenerativeModule",
    "Image",
    "Keypoints",
    "Label",
    "Quantity",
    "Regions",
    "Series",
    "Spec",
    "Tokens",
    "Triples",
    "Vector",
    "Video",
    "Volume",
]
