"""What happens beside the training: pictures, metrics, averages, checkpoints. Callbacks ask a model
what it can do, never what it is.
"""

from callbacks.anomaly import Anomaly
from callbacks.bits_per_dim import BitsPerDim
from callbacks.checkpoint import Checkpoints
from callbacks.decay import LinearDecay
from callbacks.ema import EMA
from callbacks.fidelity import Fidelity
from callbacks.film import Film
from callbacks.latent_space import LatentSpace
from callbacks.memorisation import Memorisation
from callbacks.modes import ModeCoverage
from callbacks.nan_guard import NaNGuard
from callbacks.pairs import PairAgreement
from callbacks.progress import Progress
from callbacks.sample_grid import SampleGrid
from callbacks.targets import Targets

__all__ = [
    "EMA",
    "Anomaly",
    "BitsPerDim",
    "Checkpoints",
    "Fidelity",
    "Film",
    "LatentSpace",
    "LinearDecay",
    "Memorisation",
    "ModeCoverage",
    "NaNGuard",
    "PairAgreement",
    "Progress",
    "SampleGrid",
    "Targets",
]
