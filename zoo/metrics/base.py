"""What the metrics share: what an extractor is; two sets of features, of which the real one
survives ``reset``; kept rows in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from zoo.core.cache import digest
from zoo.core.spec import Spec


class Extractor(nn.Module):
    """Images in levels to features, (B, dim), and class probabilities, (B, num_classes), or None.

    Attributes:
        name: stands in the name of every number. resize: what happens to the image before the
            network, in words.
        dim: length of a feature. num_classes: columns of the probabilities, None without a
            classifier.
        about_data: whether these classes are the data's own.
    """

    name: str
    resize: str
    dim: int
    num_classes: int | None = None
    about_data: bool = True

    def forward(self, x: Tensor, spec: Spec) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError

    @property
    def weights_hash(self) -> str:
        return digest(*self.state_dict().values())

    def describe(self) -> dict[str, Any]:
        """What a protocol says about the extractor."""
        return {
            "extractor": self.name,
            "weights": self.weights_hash,
            "dim": self.dim,
            "classes": self.num_classes,
            "resize": self.resize,
        }


class TwoSets(Metric):
    """A distance between real and generated features. States are named ``real_*`` and ``fake_*``.

    Args:
        keep_real: whether ``reset`` leaves the real set alone, so that it is computed once a run.
    """

    full_state_update = False

    def __init__(self, keep_real: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep_real = keep_real

    def reset(self) -> None:
        real = (
            {k: getattr(self, k) for k in self._defaults if k.startswith("real_")}
            if self.keep_real
            else {}
        )
        real = {
            k: [*v] if isinstance(v, list) else v for k, v in real.items()
        }  # Metric.reset empties lists in place
        super().reset()
        for name, value in real.items():
            setattr(self, name, value)


class KeptRows(TwoSets):
    """Keeps features in float64, each row with its number in the whole sample.

    Several processes may hold any share of the rows in any order: before use they are gathered,
    sorted by number, freed of repeated numbers and cut to the first ``keep``. So the value does not
    depend on who computed which row.

    Args:
        dim: length of one row. keep: rows numbered ``keep`` and above are not stored; None stores
            all.
    """

    def __init__(
        self, dim: int, keep: int | None = None, keep_real: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(keep_real, **kwargs)
        self.dim, self.keep = dim, keep
        for side in ("real", "fake"):
            self.add_state(f"{side}_features", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_rows", [], dist_reduce_fx="cat")
        self._begin()

    def _begin(self) -> None:
        """Empty pieces of the right shape and type, so that a process without rows can take part in
        a gather.
        """
        for side in ("real", "fake"):
            if not getattr(self, f"{side}_rows"):
                getattr(self, f"{side}_features").append(
                    torch.empty(0, self.dim, dtype=torch.float64, device=self.device)
                )
                getattr(self, f"{side}_rows").append(
                    torch.empty(0, dtype=torch.long, device=self.device)
                )

    def reset(self) -> None:
        super().reset()
        self._begin()

    def update(self, features: Tensor, rows: Tensor | int, real: bool = False) -> None:
        """Add features, (B, dim), numbered ``rows``, (B,), or from ``rows`` on."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"expected features (B, {self.dim}), got {tuple(features.shape)}")
        if isinstance(rows, int):
            rows = torch.arange(rows, rows + len(features))
        rows = rows.to(self.device)
        if self.keep is not None:
            features, rows = (
                features[(rows < self.keep).to(features.device)],
                rows[rows < self.keep],
            )
        side = "real" if real else "fake"
        getattr(self, f"{side}_features").append(features.detach().to(self.device, torch.float64))
        getattr(self, f"{side}_rows").append(rows.long())

    def kept(self, side: str) -> Tensor:
        """All rows of a side, (n, dim), in the order of their numbers."""
        features, rows = (
            dim_zero_cat(getattr(self, f"{side}_features")),
            dim_zero_cat(getattr(self, f"{side}_rows")),
        )
        rows, order = torch.sort(rows, stable=True)
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[1:] != rows[:-1]
        return features[order[first]][: self.keep]


def rounding(features: Tensor) -> Tensor:
    """The distance below which rows of features, (n, d), are the same: one image's differ in their
    last float32 digits from batch to batch.

    >>> bool(0 < rounding(torch.ones(1, 1)) < 1e-6)
    True
    """
    return 4 * torch.finfo(torch.float32).eps * features.norm(dim=1).max()
