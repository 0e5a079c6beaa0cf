"""Masked convolutions (van den Oord et al. 2016, section 3.4): over the whole image for training,
one position at a time for drawing.

The features of C-channel images are divided into C contiguous groups, as evenly as they go. A
feature of group g sees what comes before in raster order, and of its own pixel the groups before
its own (mask A, of the first layer) or up to its own (mask B).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def group_of(features: int, groups: int, parts: int = 1) -> list[int]:
    """The group of each feature. Features that are split into ``parts`` later (gates) have all
    groups in each part.

    >>> group_of(6, 3), group_of(4, 2, parts=2)
    ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1])
    """
    share = features // parts
    return [f * groups // share for f in range(share)] * parts


def check_width(model: str, name: str, width: int, groups: int) -> None:
    """A clear error unless every group has a feature.

    >>> check_width("pixelcnn", "h", 2, 3)
    Traceback (most recent call last):
    ValueError: pixelcnn needs a feature for each of 3 channels, got h=2; choose h >= 3
    """
    if width < groups:
        raise ValueError(
            f"{model} needs a feature for each of {groups} channels, got {name}={width}; choose "
            f"{name} >= {groups}"
        )


def by_dimension(out: Tensor, channels: int) -> Tensor:
    """(B, C·P, H, W), the P parameters of one channel after those of another, to (B, C·H·W, P).

    >>> by_dimension(torch.zeros(5, 3 * 17, 4, 4), 3).shape
    torch.Size([5, 48, 17])
    """
    return out.unflatten(1, (channels, -1)).movedim(2, -1).flatten(1, 3)


def share(conv: nn.Conv2d | None, s: Tensor | None) -> Tensor | float:
    """What a condition s, (B, m, 1 or H, 1 or W), adds to a map of features; 0 where there is
    none.

    >>> share(nn.Conv2d(2, 8, 1), torch.zeros(5, 2, 1, 1)).shape, share(None, None)
    (torch.Size([5, 8, 1, 1]), 0.0)
    """
    return 0.0 if conv is None or s is None else conv(s)


def row(shared: Tensor | float, r: int) -> Tensor | float:
    """Row r of a share, (B, features, 1 or W).

    >>> row(torch.zeros(5, 8, 1, 4), 3).shape, row(0.0, 3)  # the same share in every row
    (torch.Size([5, 8, 4]), 0.0)
    """
    return shared[:, :, r % shared.shape[2]] if isinstance(shared, Tensor) else shared


def open_taps(
    kind: str, kernel: tuple[int, int], input_group: list[int], output_group: list[int]
) -> Tensor:
    """The mask of a convolution, (outputs, inputs, kh, kw), 1 where a tap is open.

    >>> open_taps("B", (3, 3), [0], [0])[0, 0].int().tolist()
    [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    """
    (kh, kw), a, b = kernel, torch.tensor(input_group), torch.tensor(output_group)[:, None]
    mask = torch.zeros(len(output_group), len(input_group), kh * kw)
    mask[:, :, : kh * kw // 2] = 1  # in raster order, the taps before the centre
    mask[:, :, kh * kw // 2] = (a < b if kind == "A" else a <= b).float()
    return mask.unflatten(2, kernel)


class MaskedConv2d(nn.Conv2d):
    """Convolution of the same size whose weight is masked at every use.

    Args:
        kind: "A" closes a group's own centre tap, "B" opens it. kernel: k, or (height, width), odd.
            groups: C.
        parts: equal parts of the output, each with all groups.
    """

    mask: Tensor
    bias: Tensor

    def __init__(
        self,
        kind: str,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        groups: int = 1,
        parts: int = 1,
    ) -> None:
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        if kind not in ("A", "B") or kh % 2 == 0 or kw % 2 == 0:
            raise ValueError(
                f"a masked convolution has kind A or B and an odd kernel, got {kind!r}, {kernel}"
            )
        super().__init__(inputs, outputs, (kh, kw), padding=(kh // 2, kw // 2))
        self.kind, self.channels = kind, groups
        self.input_group, self.output_group = (
            group_of(inputs, groups),
            group_of(outputs, groups, parts),
        )
        mask = open_taps(kind, (kh, kw), self.input_group, self.output_group)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class ColumnConv:
    """A ``MaskedConv2d`` of n images at one position after the other, each value computed once.

    A column holds the features of one position, (features, n). Input columns are stored as they
    come; the window of a position is then one matrix (taps · inputs, n), centre last, and the layer
    one product with the open taps of a group. Positions count in raster order.

    Args:
        plus: added to the output, (n, outputs, 1, 1).
    """

    def __init__(
        self, conv: MaskedConv2d, size: tuple[int, int], n: int, plus: Tensor | None = None
    ) -> None:
        inputs, taps = conv.in_channels, conv.weight[0, 0].numel() // 2 + 1
        weight = (
            (conv.weight * conv.mask).flatten(2)[:, :, :taps].transpose(1, 2).flatten(1)
        )  # (outputs, taps · inputs)
        bias = conv.bias[:, None] if plus is None else conv.bias[:, None] + plus.flatten(1).T
        self.group, self.outputs, self.length, self.weight, self.bias = [], [], [], [], []
        for g in range(conv.channels):
            first, last = (
                conv.input_group.index(g),
                len(conv.input_group) - conv.input_group[::-1].index(g),
            )
            self.group.append(slice(first, last))
            self.outputs.append(
                torch.tensor(
                    [i for i, b in enumerate(conv.output_group) if b == g], device=weight.device
                )
            )
            self.length.append((taps - 1) * inputs + (first if conv.kind == "A" else last))
            self.weight.append(weight[self.outputs[g], : self.length[g]])
            self.bias.append(bias[self.outputs[g]])
        self.single, self.whole = taps == 1, conv.channels == 1 and conv.kind == "B"
        positions = 1 if self.single else size[0] * size[1]
        self.store = weight.new_zeros(
            positions + 1, inputs, n
        )  # the last one is the border of zeros
        self.taps = [] if self.single else list(windows(size, conv.kernel_size).to(weight.device))

    def put(self, p: int, g: int, column: Tensor) -> None:
        """Input features of group g at position p."""
        self.store[0 if self.single else p, self.group[g]] = column

    def get(self, p: int, g: int, plus: Tensor | None = None) -> Tensor:
        """Output features of group g at position p, in the order of ``rows[g]``, all parts;
        ``plus`` in the place of the bias.
        """
        window = (
            self.store[0] if self.single else self.store.index_select(0, self.taps[p]).flatten(0, 1)
        )
        if not self.whole:
            window = window[: self.length[g]]
        return torch.addmm(self.bias[g] if plus is None else plus, self.weight[g], window)

    def step(self, p: int, g: int, column: Tensor, plus: Tensor | None = None) -> Tensor:
        """Output from the input of the same position and group (mask B)."""
        if self.single and self.whole:
            return torch.addmm(self.bias[g] if plus is None else plus, self.weight[g], column)
        self.put(p, g, column)
        return self.get(p, g, plus)


def windows(size: tuple[int, int], kernel: tuple[int, ...]) -> Tensor:
    """The positions that each position's open taps read, (H·W, taps), centre last; H·W stands for
    those outside the image.

    >>> windows((2, 2), (3, 3))[3]  # of the last pixel: three above, of which one is outside
    tensor([0, 1, 4, 2, 3])
    """
    (height, width), (kh, kw) = size, kernel
    tap = torch.arange(kh * kw // 2 + 1)
    row = torch.arange(height)[:, None, None] + tap // kw - kh // 2
    column = torch.arange(width)[None, :, None] + tap % kw - kw // 2
    inside = (row >= 0) & (column >= 0) & (column < width)
    return torch.where(inside, row * width + column, height * width).flatten(0, 1)
