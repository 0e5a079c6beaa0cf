"""One field of a data module as if it were all of it: for metrics and searches of that field."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.spec import Label, Spec


class Column:
    """A data module's field under the name x, with the class beside it where its rows have one: a
    domain without pairs has none of another's.

    Attributes:
        spec: of x (and y).
    """

    def __init__(self, data: Any, field: str) -> None:
        self.data, self.field = data, field
        together = next((g for g in getattr(data, "groups", ()) if field in g), ("y",))
        label = {"y": data.spec["y"]} if data.spec.has(y=Label) and "y" in together else {}
        name = data.spec.name if field == "x" else f"{data.spec.name} {field}"
        self.spec = Spec(name, x=data.spec[field], **label)

    def count(self, split: str = "train") -> int:
        """Rows of a split."""
        return self.data.count(split)

    def examples(self, n: int | None = None, split: str = "train", start: int = 0) -> Batch:
        """As the data module's."""
        return self._named(self.data.examples(n, split, start), split)

    def evaluation_batch(self, split: str, rows: Tensor) -> Batch:
        """As the data module's."""
        return self._named(self.data.evaluation_batch(split, rows), split)

    def _named(self, batch: Batch, split: str) -> Batch:
        kept = {k: batch[k] for k in self.spec if k != "x" and k in batch}
        return Batch({"x": batch[self.field], **kept}, batch.n)


class Answers(Column):
    """What belongs in domain b to images of domain a, as ``answers`` of the data says, under the
    name x, with the classes of a.
    """

    def __init__(self, data: Any) -> None:
        super().__init__(data, "a")
        self.spec = Spec(f"{data.spec.name} b", **{**self.spec, "x": data.spec["b"]})

    def _named(self, batch: Batch, split: str) -> Batch:
        named = super()._named(batch, split)
        return Batch({**named, "x": self.data.answers(split, batch)}, batch.n)


def column(data: Any, field: str) -> Any:
    """The data module itself for x, else one of its fields as x."""
    return data if field == "x" else Column(data, field)
