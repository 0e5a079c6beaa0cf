"""How alike two images are to a network that knows what is in images: frozen, of one's choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.auxiliary.nets import NETS, net
from zoo.core.because import because
from zoo.core.options import check_fields
from zoo.core.processes import from_rank_zero
from zoo.nn.perceptual import Percep, Vgg16, perceptual_distance

DEFAULTS = {"shapes": ("mid",), "vgg16": ("relu2_2",), "jit": ()}


@dataclass(frozen=True)
class LookOptions:
    """The network that a perceptual distance looks through.

    Args:
        kind: "shapes", a small one that is trained on drawn scenes in a minute, once; "vgg16", that
            of torchvision; "jit", a TorchScript module of your own.
        weights: the file of the last two. Vgg16's becomes part of the checkpoint; "jit" runs what
            is in its file, which must be there whenever the model trains: name only one you trust.
        layers: whose maps are compared: "mid" or "high" of shapes, "relu1_1" to "relu5_3" of vgg16;
            none is the default ("mid", "relu2_2"); of "jit" all that it returns.
    """

    kind: Literal["shapes", "vgg16", "jit"] = "shapes"
    weights: str = ""
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "look.")
        known = {"shapes": Percep.names, "vgg16": Vgg16.names, "jit": ()}[self.kind]
        if odd := [name for name in self.layers if name not in known]:
            has = f"one of {', '.join(known)}" if known else "left to it"
            raise ValueError(f"look.layers: a layer of {self.kind} is {has}, got {odd[0]!r}")
        if bool(self.weights) != (self.kind != "shapes"):
            said = "are in a file: set look.weights to it" if not self.weights else "are its own"
            raise ValueError(f"look.weights: those of {self.kind} {said}, got {self.weights!r}")


class Look(nn.Module):
    """φ, and the distance of images by it. Its weights are there after ``load``, or come from a
    checkpoint.

    Shape: images (B, 1 or 3, H, W) in [0, 1].
    """

    def __init__(self, options: LookOptions = LookOptions()) -> None:
        super().__init__()
        self.options = options
        self.layers = options.layers or DEFAULTS[options.kind]
        self.net: Any = None
        if options.kind == "shapes":
            self.net = NETS["percep"].built()
        elif options.kind == "vgg16":
            self.net = Vgg16(self.layers)
        self.requires_grad_(False)
        self._script: Any = None  # of a file, and no part of a checkpoint

    def load(self) -> None:
        """Fill in the weights, the same on every process.

        Raises:
            ValueError: a file is missing, or not of such a network.
        """
        kind, file = self.options.kind, self.options.weights
        if kind == "shapes":
            self.net.load_state_dict(net("percep").state_dict())
        elif kind == "vgg16":
            self.net.load(from_rank_zero(lambda: self._state(file)))
        else:
            try:
                self.features(torch.zeros(1, 3, 64, 64, device=self._device()))
            except RuntimeError as error:
                said = " ".join(str(error).split())[-200:]
                raise ValueError(
                    f"look.weights: {file} takes no images of 3 channels, 64x64 ({said})"
                ) from error

    @staticmethod
    def _state(file: str) -> dict[str, Tensor]:
        path = Path(file).expanduser()
        if not path.is_file():
            raise ValueError(f"look.weights: there is no file {path}")
        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # what a file of any content may raise
            raise ValueError(
                f"look.weights: {path} is no state_dict ({because(error)}); save one with "
                "torch.save(torchvision.models.vgg16(weights='DEFAULT').state_dict(), PATH)"
            ) from error

    def _device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps of images."""
        if self.net is not None:
            return self.net.features(x, self.layers)
        found = self._scripted(x.device)(x.expand(-1, 3, -1, -1))
        return [found] if isinstance(found, Tensor) else [*found]

    def _scripted(self, device: torch.device) -> Any:
        if self._script is None:
            path = Path(self.options.weights).expanduser()
            try:
                script = torch.jit.load(path, map_location=device)
            except Exception as error:
                raise ValueError(
                    f"look.weights: {path} is no TorchScript module ({because(error)}); save one "
                    "with torch.jit.trace(net, images).save(PATH)"
                ) from error
            for p in script.parameters():
                p.requires_grad_(False)
            self.__dict__["_script"] = script.eval()
        return self._script

    def forward(self, p: Tensor, q: Tensor) -> Tensor:
        """Σ over layers of the mean of (φ(p) - φ(q))²."""
        return perceptual_distance(self.features(p), self.features(q))
