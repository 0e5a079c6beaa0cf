"""Feature extractors: what turns images into the features and class probabilities that the metrics
compare.

A distance means something only together with its extractor, so each has a name, which stands in the
name of every number (``fid_digitsnet``), and a hash of its weights. Plain ``fid`` is reserved for
the Inception network of the papers.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import threads
from zoo.core.cache import digest, folder, kept
from zoo.core.processes import from_rank_zero
from zoo.core.spec import Spec
from zoo.core.taught import taught
from zoo.metrics.base import Extractor
from zoo.metrics.inception import Inception, find_inception

LIMIT = 10_000  # training images that DataNet and Pixels look at, at most


# -- pixels --------------------------------------------------------------------------------------
class Pixels(Extractor):
    """Pixels in [0, 1], averaged to 8x8; probabilities by logistic regression on the training
    images' pixels, if labelled.

    Args:
        x, y: training images in levels, and labels.
    """

    name, resize = "pixels", "average pooling to 8x8, [0, 1]"
    weight: Tensor
    bias: Tensor

    def __init__(self, spec: Spec, x: Tensor, y: Tensor | None = None) -> None:
        super().__init__()
        self.size = (min(8, spec.shape[1]), min(8, spec.shape[2]))
        self.dim = spec.shape[0] * self.size[0] * self.size[1]
        if y is not None and spec.num_classes > 1 and len(y.unique()) > 1:
            self.num_classes = spec.num_classes
            weight, bias = from_rank_zero(lambda: self._regression(self._features(x, spec), y))
            self.register_buffer("weight", weight)
            self.register_buffer("bias", bias)

    def _features(self, x: Tensor, spec: Spec) -> Tensor:
        return F.adaptive_avg_pool2d(spec.to_unit(x), self.size).flatten(1)

    def _regression(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        from sklearn.linear_model import LogisticRegression

        pixels = features.cpu().double().numpy()
        with threads.as_torch():
            fitted = LogisticRegression(max_iter=2000).fit(pixels, y.cpu().numpy())
        rows, shifts = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
        if len(fitted.classes_) == 2:  # one row, the log-odds of the second class
            rows, shifts = (
                torch.cat([torch.zeros_like(rows), rows]),
                torch.cat([torch.zeros_like(shifts), shifts]),
            )
        weight = torch.zeros(self.num_classes or 0, self.dim, dtype=torch.float64)
        bias = torch.full(
            (self.num_classes or 0,), float("-inf"), dtype=torch.float64
        )  # a class without examples
        seen = torch.from_numpy(fitted.classes_).long()
        weight[seen], bias[seen] = rows, shifts
        return weight, bias

    @torch.no_grad()
    def forward(self, x: Tensor, spec: Spec) -> tuple[Tensor, Tensor | None]:
        features = self._features(x, spec)
        if self.num_classes is None:
            return features, None
        return features, F.linear(features.double(), self.weight, self.bias).softmax(1)


# -- a network for the data at hand --------------------------------------------------------------
RECIPE = "datanet 1: conv 16 (/2 above 16 pixels), 32/2, 64/2, linear 64, GELU; unit variance"
RECIPE += "; Adam 1e-3 to 0, batch 64, noise 0.1 (denoising 0.3)"
RECIPE += "; above 16 pixels, right about fewer than .6 of the training images: conv 32, 64, 128, "
RECIPE += "batch norm; Adam 2e-3 to 0, shifts by up to 3 pixels, no noise"
STEPS, BATCH, WIDTH = 1000, 64, 64
ENOUGH = 0.6  # of the training images; a network that is right about fewer is replaced by a larger


class DataNet(Extractor):
    """A small network trained on the run's own training images, with a fixed seed; features are its
    last 64 activations, divided by one number so that their variance over the training images is 1
    on average.

    Labelled data train a classifier, unlabelled data a denoising auto-encoder, whose bottleneck
    serves. Where the classifier is right about too few of its training images, as of photographs, a
    larger one is trained after it: CIFAR-10 takes a minute on one thread. The name is the data's:
    ``digitsnet``. The trained weights are kept in ``cache`` under a name that says data and recipe,
    with a checksum: a file that does not match is refused, with a warning, and the network trained
    again.

    Args:
        spec: image data. x, y: training images in levels, and labels.
        cache: folder; None is ``zoo.core.cache.folder()``. progress: show a bar while training.

    Raises:
        ValueError: the training images are all alike, so that there is nothing to learn.
    """

    dim = WIDTH

    def __init__(
        self,
        spec: Spec,
        x: Tensor,
        y: Tensor | None = None,
        cache: str | os.PathLike | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.size = (min(32, spec.shape[1]), min(32, spec.shape[2]))
        self.resize = f"[0, 1], average pooling to {self.size[0]}x{self.size[1]} where larger"
        self.name = (re.findall(r"[a-z0-9]+", spec.name.lower()) or ["data"])[0] + "net"
        labelled = y is not None and spec.num_classes > 1
        self.num_classes = spec.num_classes if labelled else None
        with (
            torch.random.fork_rng([]),
            torch.inference_mode(False),
        ):  # also inside a validation loop
            torch.random.default_generator.manual_seed(0)
            self._build(spec.shape[0])
            where = Path(cache or folder())
            state = from_rank_zero(
                lambda: self._trained(spec, x, y if labelled else None, where, progress)
            )
            self._take(state)
        self.requires_grad_(False).eval()

    def _build(self, channels: int, large: bool = False) -> None:
        self.channels, self.large = channels, large
        self.register_buffer("scale", torch.ones(()))
        (h, w), wide, layers = self.size, channels, list[nn.Module]()
        strides = (2 if max(self.size) > 16 else 1, 2, 2)
        for width, stride in zip((32, 64, 128) if large else (16, 32, 64), strides, strict=True):
            layers += [nn.Conv2d(wide, width, 3, stride=stride, padding=1)]
            layers += [nn.BatchNorm2d(width), nn.GELU()] if large else [nn.GELU()]
            h, w, wide = -(-h // stride), -(-w // stride), width
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide * h * w, WIDTH), nn.GELU())
        pixels = channels * self.size[0] * self.size[1]
        self.head: nn.Module
        if self.num_classes:
            self.head = nn.Linear(WIDTH, self.num_classes)
        else:
            self.head = nn.Sequential(nn.Linear(WIDTH, 256), nn.GELU(), nn.Linear(256, pixels))

    def _take(self, state: dict[str, Tensor]) -> None:
        """The weights of either network."""
        with torch.random.fork_rng([]):
            self._build(self.channels, "body.1.running_mean" in state)
        self.load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "recipe": RECIPE, "larger_network": self.large}

    def _pixels(self, x: Tensor, spec: Spec) -> Tensor:
        return F.adaptive_avg_pool2d(spec.to_unit(x).float(), self.size)

    def _trained(
        self, spec: Spec, x: Tensor, y: Tensor | None, where: Path, progress: bool
    ) -> dict[str, Tensor]:
        """The weights, from the cache or from training."""
        x = self._pixels(x.detach().cpu().clone(), spec)
        if (x == x[:1]).all():
            raise ValueError(
                f"the training images ({len(x)}) are all alike: no network learns features of them"
            )
        y = None if y is None else y.detach().cpu().clone()
        of = digest(RECIPE, str(STEPS), str(spec), x, *([] if y is None else [y]))

        def trained() -> dict[str, Tensor]:
            with torch.enable_grad():
                self._train(x, y, progress)
            return {k: v.detach().clone() for k, v in self.state_dict().items()}

        path = where / f"{self.name}-{of}.pt"
        return kept(path, of, trained, "the feature network", "is trained", self._take)

    def _train(self, x: Tensor, y: Tensor | None, progress: bool) -> None:
        self._build(x.shape[1])  # a damaged file may have been loaded in part
        self._fit(x, y, 1e-3, progress)
        if y is not None and max(self.size) > 16 and self._right(x, y) < ENOUGH:
            self._build(x.shape[1], large=True)
            self._fit(x, y, 2e-3, progress)
        self.eval()
        with torch.no_grad():
            self.scale = torch.cat([self.body(part) for part in x.split(256)]).var(0).mean().sqrt()

    @torch.no_grad()
    def _right(self, x: Tensor, y: Tensor) -> float:
        said = torch.cat([self.head(self.body(part)).argmax(1) for part in x.split(256)])
        return (said == y).double().mean().item()

    def _fit(self, x: Tensor, y: Tensor | None, rate: float, progress: bool) -> None:
        def loss(rows: Tensor, g: torch.Generator) -> Tensor:
            if self.large:
                shown = x[rows].roll(torch.randint(-3, 4, (2,), generator=g).tolist(), (2, 3))
            else:
                noise = torch.randn(BATCH, *x.shape[1:], generator=g)
                shown = x[rows] + (0.3 if y is None else 0.1) * noise
            out = self.head(self.body(shown))
            if y is None:
                return F.mse_loss(out, x[rows].flatten(1))
            return F.cross_entropy(out, y[rows])

        says = f"training {self.name} ({'larger ' * self.large}feature network)"
        how: dict[str, Any] = {"steps": STEPS, "batch": BATCH, "rate": rate, "progress": progress}
        taught(self.parameters(), loss, len(x), says, **how)

    @torch.no_grad()
    def forward(self, x: Tensor, spec: Spec) -> tuple[Tensor, Tensor | None]:
        features = self.body(self._pixels(x, spec))
        return features / self.scale, self.head(features).double().softmax(
            1
        ) if self.num_classes else None


# -- choosing ------------------------------------------------------------------------------------
NAMES = ("auto", "inception", "datanet", "pixels")


def choose(
    name: str,
    data: Any,
    *,
    inception_weights: str | os.PathLike | None = None,
    progress: bool = True,
) -> Extractor:
    """The extractor of that name for a data module's images.

    Args:
        name: "inception", "datanet", "pixels", or "auto": Inception where its weights are found and
            the images are grey or RGB, else DataNet. data: a data module with ``spec``, ``split``
                and ``examples``. inception_weights: the file, or "download".
    """
    if name not in NAMES:
        raise ValueError(f"extractor is one of {', '.join(NAMES)}, got {name!r}")
    spec: Spec = data.spec
    download = str(inception_weights) == "download"
    path = None if download else inception_weights
    if name == "auto":
        fits = spec.shape[0] in (1, 3)
        found = fits and from_rank_zero(
            lambda: download or find_inception(path) is not None
        )  # one answer for all processes
        name = "inception" if found else "datanet"
    if name == "inception":
        return Inception(path, download)
    batch = data.examples(min(LIMIT, data.count("train")))
    labels = batch.get("y") if spec.num_classes else None
    return (
        Pixels(spec, batch["x"], labels)
        if name == "pixels"
        else DataNet(spec, batch["x"], labels, progress=progress)
    )
