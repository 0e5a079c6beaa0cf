"""Networks whose inner layers judge how alike two images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

# Of torchvision's VGG16: the convolutions of each block, by their filters.
VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]


def coloured(x: Tensor) -> Tensor:
    """Three channels of one or three."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


class Percep(nn.Module):
    """Five convolutions and what their mean over the image says: small, and of any size of image.

    Args:
        answers: numbers that it gives.

    Shape: images (B, 1 or 3, H, W) in [0, 1]; ``forward``: (B, answers).
    """

    scales: Tensor
    names = ("mid", "high")  # after the third and the fifth convolution
    WIDTHS = ((3, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))  # in, out, stride

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=stride, padding=1) for a, b, stride in self.WIDTHS
        )
        self.head = nn.Linear(self.WIDTHS[-1][1], answers)
        self.register_buffer("scales", torch.ones(2))

    @torch.no_grad()
    def settle(self, x: Tensor) -> None:
        """Divide the maps of each name by one number, so that their variance over these images is
        1: a distance of 2 is one of unlike images.
        """
        self.scales.fill_(1)
        stds = [f.var().sqrt() for f in self.features(x, self.names)]
        self.scales.copy_(torch.stack(stds))

    def features(self, x: Tensor, names: Sequence[str]) -> list[Tensor]:
        """The maps after the layers of these names, as they are ordered here."""
        found, v = [], 2 * coloured(x) - 1
        for i, conv in enumerate(self.convs):
            v = conv(v).relu()
            if (name := {2: "mid", 4: "high"}.get(i)) in names:
                found.append(v / self.scales[self.names.index(name)])
        return found

    def forward(self, x: Tensor) -> Tensor:
        (high,) = self.features(x, ("high",))
        return self.head(high.mean((2, 3)) * self.scales[1])


class Vgg16(nn.Module):
    """The convolutions of VGG16 up to the deepest layer that is asked for, after Simonyan and
    Zisserman 2015 (1409.1556), table 1 D.

    Args:
        names: of layers, relu1_1 to relu5_3.

    Shape: images (B, 1 or 3, H, W) in [0, 1], whose mean and deviation become ImageNet's.
    """

    names = tuple(f"relu{b}_{k}" for b, (_, n) in enumerate(VGG, 1) for k in range(1, n + 1))
    mean: Tensor
    std: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        deepest = max(map(self.names.index, names))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])
        self.convs, wide = nn.ModuleList(), 3
        for name in self.names[: deepest + 1]:
            width = VGG[int(name[4]) - 1][0]
            self.convs.append(nn.Conv2d(wide, width, 3, padding=1))
            wide = width

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of torchvision's vgg16, of which the deeper layers are left out.

        Raises:
            ValueError: the weights are others.
        """
        at = (
            0  # torchvision's number of a convolution: each is followed by a ReLU, blocks by a pool
        )
        for name, conv in zip(self.names, self.convs, strict=False):
            at += name.endswith("_1") and name != "relu1_1"
            for part, own in conv.named_parameters():
                key = f"features.{at}.{part}"
                given = state.get(key)
                if given is None or given.shape != own.shape:
                    said = "is missing" if given is None else f"has the shape {[*given.shape]}"
                    raise ValueError(
                        f"these are not the weights of torchvision's vgg16: {key} {said}, not "
                        f"{[*own.shape]}"
                    )
                with torch.no_grad():
                    own.copy_(given)
            at += 2

    def features(self, x: Tensor, names: Sequence[str]) -> list[Tensor]:
        """The maps after the layers of these names, from the first to the deepest."""
        found, v = [], (coloured(x) - self.mean) / self.std
        for name, conv in zip(self.names, self.convs, strict=False):
            if name.endswith("_1") and name != "relu1_1":
                v = nn.functional.max_pool2d(v, 2)
            v = conv(v).relu()
            if name in names:
                found.append(v)
        return found


def perceptual_distance(p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensor:
    """Σ over layers of the mean of (φ(p) - φ(q))²."""
    return torch.stack([(a - b).square().mean() for a, b in zip(p, q, strict=True)]).sum()
