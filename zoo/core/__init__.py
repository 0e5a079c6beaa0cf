"""Mechanics that no paper mentions, once for all: data specification, noise, the training loops,
likelihood units, checkpoints.
"""

from zoo.core.adversarial import AdversarialModule, LoopOptions, Phase
from zoo.core.autoregressive import AutoregressiveModule
from zoo.core.estimator import DensityEstimator, EstimatorModule
from zoo.core.flow import FlowModule
from zoo.core.generator import GeneratorModule
from zoo.core.likelihood import DensityModule, LikelihoodModule
from zoo.core.module import GenerativeModule
from zoo.core.spec import DataSpec
from zoo.core.staged import StagedModule
from zoo.core.variational import Variational, VariationalModule

__all__ = [
    "AdversarialModule",
    "AutoregressiveModule",
    "DataSpec",
    "DensityEstimator",
    "DensityModule",
    "EstimatorModule",
    "FlowModule",
    "GenerativeModule",
    "GeneratorModule",
    "LikelihoodModule",
    "LoopOptions",
    "Phase",
    "StagedModule",
    "Variational",
    "VariationalModule",
]
