"""The Inception network of the papers, and where its weights are."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core.processes import from_rank_zero
from zoo.core.spec import Spec
from zoo.metrics.base import Extractor

INCEPTION_HASH = "6726825d"  # how the file's sha256 begins
INCEPTION_FILE = f"weights-inception-2015-12-05-{INCEPTION_HASH}.pth"
INCEPTION_URL = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
)


def find_inception(path: str | os.PathLike | None = None) -> Path | None:
    """The weight file: the path given, else $ZOO_INCEPTION, else the cache that torch-fidelity and
    torchmetrics share.

    Raises:
        FileNotFoundError: a path or $ZOO_INCEPTION was given and there is no such file.
    """
    for said, where in (
        (path, "inception_weights"),
        (os.environ.get("ZOO_INCEPTION"), "ZOO_INCEPTION"),
    ):
        if said:
            if not Path(said).is_file():
                raise FileNotFoundError(
                    f"{where}={said} does not exist; it should be {INCEPTION_FILE}, from "
                    f"{INCEPTION_URL}"
                )
            return Path(said)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    return cached if cached.is_file() else None


def inception_file(path: str | os.PathLike | None = None) -> Path:
    """The weight file, which there is.

    Raises:
        FileNotFoundError: there is none; the message says where it comes from and where it goes.
    """
    if found := find_inception(path):
        return found
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    raise FileNotFoundError(
        f"no Inception weights here: put {INCEPTION_FILE} (from {INCEPTION_URL}) in {folder}, or "
        "point ZOO_INCEPTION at it, or choose extractor=auto, which falls back on a small network "
        "trained on the data"
    )


class Inception(Extractor):
    """The Inception network of the papers' FID, KID and IS (TensorFlow, 2015), as torch-fidelity
    has it.

    Levels become uint8 by rounding, grey images are repeated to three channels, and the resize is
    TensorFlow 1's bilinear one without anti-aliasing. Features are the 2048 of the last pooling;
    probabilities come from the logits without their bias.

    Args:
        weights: the file; None looks where ``find_inception`` says. download: fetch the file into
            the shared cache if it is missing.

    Raises:
        FileNotFoundError: there is no file. ValueError: it holds something else than tensors of
            this network. A file of other weights is taken, with a warning.
    """

    name, resize, dim, num_classes, about_data = (
        "inception",
        "uint8, bilinear 299x299 as in TensorFlow 1, no anti-aliasing",
        2048,
        1008,
        False,
    )

    def __init__(self, weights: str | os.PathLike | None = None, download: bool = False) -> None:
        super().__init__()
        state = from_rank_zero(lambda: self._read(weights, download))
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity unpickles whatever its file holds: hand it the tensors we have read
        safe = io.BytesIO()
        torch.save(state, safe)
        safe.seek(0)
        try:
            self.net = FeatureExtractorInceptionV3(
                "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=safe
            )
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(_no_inception(weights, error)) from None

    @staticmethod
    def _read(weights: str | os.PathLike | None, download: bool) -> dict[str, Tensor]:
        if download and find_inception(weights) is None:
            return torch.hub.load_state_dict_from_url(
                INCEPTION_URL, map_location="cpu", weights_only=True, check_hash=True
            )
        path = inception_file(weights)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what a file of any content may raise
            raise ValueError(_no_inception(path, error)) from None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(INCEPTION_HASH):
            warnings.warn(
                f"{path} is not the file of the papers (sha256 {found[:8]}, not {INCEPTION_HASH}): "
                f"its numbers compare with no others; fetch {INCEPTION_URL}",
                stacklevel=2,
            )
        return state

    @torch.no_grad()
    def forward(self, x: Tensor, spec: Spec) -> tuple[Tensor, Tensor | None]:
        if spec.shape[0] not in (1, 3):
            raise ValueError(
                f"the Inception network takes grey or RGB images, got {spec}; choose "
                f"extractor=datanet"
            )
        pixels = (spec.to_unit(x).clamp(0, 1) * 255).round().to(torch.uint8)
        features, logits = self.net(pixels.expand(-1, 3, -1, -1))
        return features, logits.double().softmax(1)


def _no_inception(path: Any, error: Exception) -> str:
    said = " ".join(str(error).split())[:120]
    return (
        f"{path or INCEPTION_FILE} does not hold the Inception network's weights "
        f"({type(error).__name__}: {said}); fetch {INCEPTION_URL}"
    )
