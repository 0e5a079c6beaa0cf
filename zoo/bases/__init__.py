"""Kinds of model: each a base class that holds what its kind shares and no paper mentions."""

from zoo.bases.adversary import Adversary, Loss, Terms
from zoo.bases.autoregressive import AutoregressiveModule
from zoo.bases.estimator import DensityEstimator, EstimatorModule
from zoo.bases.few_labels import FewLabels
from zoo.bases.flow import FlowModule
from zoo.bases.game import AdversarialModule, Phase
from zoo.bases.generator import GeneratorModule
from zoo.bases.growing import Growing, GrowingModule
from zoo.bases.joint import InferenceModule, JointModule
from zoo.bases.likelihood import DensityModule, LikelihoodModule, LossModule
from zoo.bases.loop_options import LoopOptions
from zoo.bases.staged import StagedModule
from zoo.bases.translation import DomainsModule, PairModule
from zoo.bases.variational import Variational, VariationalModule

__all__ = [
    "AdversarialModule",
    "Adversary",
    "AutoregressiveModule",
    "DensityEstimator",
    "DensityModule",
    "DomainsModule",
    "EstimatorModule",
    "FewLabels",
    "FlowModule",
    "GeneratorModule",
    "Growing",
    "GrowingModule",
    "InferenceModule",
    "JointModule",
    "LikelihoodModule",
    "LoopOptions",
    "Loss",
    "LossModule",
    "PairModule",
    "Phase",
    "StagedModule",
    "Terms",
    "Variational",
    "VariationalModule",
]
