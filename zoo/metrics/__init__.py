"""Metrics of generated samples: pure, the same on one process and on many, without logging."""

from zoo.metrics.am_score import AMScore
from zoo.metrics.base import Extractor
from zoo.metrics.extractors import DataNet, Pixels, choose
from zoo.metrics.frechet import FrechetDistance, frechet_distance
from zoo.metrics.inception import Inception
from zoo.metrics.inception_score import InceptionScore
from zoo.metrics.kid import KernelDistance, squared_mmd
from zoo.metrics.modes import mode_coverage
from zoo.metrics.parzen import ParzenWindow
from zoo.metrics.prdc import PRDC

__all__ = [
    "PRDC",
    "AMScore",
    "DataNet",
    "Extractor",
    "FrechetDistance",
    "Inception",
    "InceptionScore",
    "KernelDistance",
    "ParzenWindow",
    "Pixels",
    "choose",
    "frechet_distance",
    "mode_coverage",
    "squared_mmd",
]
