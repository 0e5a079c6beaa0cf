"""What a batch holds: named fields. A field knows its shape, its units, a random example, and what
is wrong with a tensor.

A new kind of data is one subclass of ``Field`` here or in a file of one's own, one tile in
``zoo.show.tiles``, and one data module.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.core.batch import Batch

KINDS: dict[str, type[Field]] = {}  # by class name, for reading a spec back from a checkpoint


@dataclass(frozen=True)
class Field:
    """One entry of a batch, a tensor (B, *shape). What is ragged is padded, so that rows split,
    chunk and are dealt out to processes like any other.

    Attributes:
        what: the plural by which messages call it. remedy: which data have it.
    """

    shape: Any = ()  # a tuple of sizes; one number will do for one dimension

    what: ClassVar[str] = "values"
    form: ClassVar[str] = ""  # of the shape, for messages; "" is any
    remedy: ClassVar[str] = "choose data that have them"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        KINDS[cls.__name__] = cls

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        object.__setattr__(self, "shape", _sizes(shape, f"the shape of {self.what}"))
        wanted = self.form.count(",") + (not self.form.endswith(",)")) if self.form else None
        if wanted not in (None, len(self.shape)) or any(s < 1 for s in self.shape):
            raise ValueError(
                f"the shape of {self.what} is {self.form or 'any'} with positive sizes, "
                f"got {self.shape}"
            )

    @property
    def dim(self) -> int:
        """Number of scalars in one example."""
        return math.prod(self.shape)

    def example(self, n: int, g: torch.Generator) -> Tensor:
        """n random valid rows, (n, *shape)."""
        return torch.randn(n, *self.shape, generator=g)

    def faults(self, x: Tensor) -> str:
        """What is wrong with x, (B, *shape), as rows of this field; "" if nothing is."""
        if tuple(x.shape[1:]) != self.shape:
            return f"rows of shape {tuple(x.shape[1:])}, not {self.shape}"
        return "" if x.isfinite().all() else "values that are not finite"

    def asdict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {k: [*v] if isinstance(v, tuple) else v for k, v in own.items()}
        return {"kind": type(self).__name__, **plain}

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.what}".strip()


@dataclass(frozen=True)
class Levels(Field):
    """Values that are integer **levels** 0..levels-1 (17 for digits, 256 for 8-bit images, 2 for
    binarised ones), never a rescaled range: each model converts with ``to_unit`` or ``to_signed``,
    and ``sample`` returns levels again. ``levels=None`` is real-valued data, which pass unchanged.
    """

    levels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is not None and (self.levels != int(self.levels) or self.levels < 2):
            raise ValueError(
                f"levels is at least 2, or None for real-valued data, got {self.levels}"
            )
        if self.levels is not None:
            object.__setattr__(self, "levels", int(self.levels))

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [0, 1]; real values unchanged."""
        return x if self.levels is None else x / (self.levels - 1)

    def to_signed(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1]; real values unchanged."""
        return x if self.levels is None else x * (2 / (self.levels - 1)) - 1

    def from_unit(self, v: Tensor) -> Tensor:
        """[0, 1] to the nearest level, clamped; real values unchanged. The quantisation every
        generated image passes through.
        """
        if self.levels is None:
            return v
        return (v * (self.levels - 1)).round().clamp(0, self.levels - 1)

    def from_signed(self, v: Tensor) -> Tensor:
        """[-1, 1] to the nearest level, clamped; real values unchanged."""
        return v if self.levels is None else self.from_unit((v + 1) / 2)

    def example(self, n: int, g: torch.Generator) -> Tensor:
        if self.levels is None:
            return super().example(n, g)
        return torch.randint(self.levels, (n, *self.shape), generator=g).float()

    def faults(self, x: Tensor) -> str:
        if (said := super().faults(x)) or self.levels is None:
            return said
        inside = x.numel() == 0 or (x.min() >= 0 and x.max() <= self.levels - 1)
        whole = torch.equal(x, x.round())
        return "" if inside and whole else f"values that are not levels 0..{self.levels - 1}"

    def __str__(self) -> str:
        units = f"{self.levels} levels" if self.levels else "real-valued"
        return f"{super().__str__()}, {units}"


@dataclass(frozen=True)
class Vector(Levels):
    """(D,): points of R^D, or vectors of levels."""

    what = "vectors"
    form = "(D,)"
    remedy = "choose vector data such as toy2d"

    def __str__(self) -> str:
        return super().__str__().replace(" vectors", "-d vectors")


@dataclass(frozen=True)
class Image(Levels):
    """(C, H, W)."""

    what = "images"
    form = "(C, H, W)"
    remedy = "choose image data such as digits"


@dataclass(frozen=True)
class Regions(Image):
    """(N, H, W): N regions of a picture, each pixel of one 1 or 0. An image of 2 levels to models.

    Args:
        names: of the regions, for captions; none by default.
    """

    levels: int | None = 2
    names: tuple[str, ...] = ()
    what = "regions"
    form = "(N, H, W)"
    remedy = "choose data with masks"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", tuple(self.names))
        if self.names and len(self.names) != self.shape[0]:
            raise ValueError(
                f"{self.shape[0]} regions have as many names or none, got {self.names}"
            )


@dataclass(frozen=True)
class Video(Levels):
    """(T, C, H, W): T frames, each an image."""

    what = "videos"
    form = "(T, C, H, W)"
    remedy = "choose video data"

    @property
    def frame(self) -> Image:
        """One of its frames."""
        return Image(self.shape[1:], self.levels)


@dataclass(frozen=True)
class Volume(Levels):
    """(C, D, H, W): voxels."""

    what = "volumes"
    form = "(C, D, H, W)"
    remedy = "choose voxel data"


@dataclass(frozen=True)
class Series(Levels):
    """(T, D): T points in time of D values each."""

    what = "series"
    form = "(T, D)"
    remedy = "choose sequence data"


@dataclass(frozen=True)
class Tokens(Field):
    """(...,) words 0..words-1, int64. In sequences and sets word 0 is padding.

    Args:
        names: of the words 0, 1, ..., for captions; none by default. Where all are letters, they
            are read without spaces.
    """

    words: int = 2
    names: tuple[str, ...] = ()
    what = "tokens"
    remedy = "choose data with words"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", tuple(self.names))
        if self.words < 1 or self.words != int(self.words):
            raise ValueError(f"{self.what} have at least 1 word, got {self.words}")
        object.__setattr__(self, "words", int(self.words))
        if self.names and len(self.names) != self.words:
            raise ValueError(f"{self.words} words have as many names or none, got {self.names}")

    def name(self, word: int) -> str:
        """What a word is called, or its number."""
        return self.names[word] if self.names else str(word)

    def example(self, n: int, g: torch.Generator) -> Tensor:
        first = min(1, self.words - 1) if self.shape else 0
        return torch.randint(first, self.words, (n, *self.shape), generator=g)

    def faults(self, x: Tensor) -> str:
        if said := super().faults(x):
            return said
        if x.is_floating_point() or x.is_complex():
            return f"values of {x.dtype}, not whole numbers"
        inside = x.numel() == 0 or (x.min() >= 0 and x.max() < self.words)
        return "" if inside else f"values outside 0..{self.words - 1}"

    def __str__(self) -> str:
        return f"{super().__str__()}, {self.words} words"


@dataclass(frozen=True, init=False)
class Label(Tokens):
    """(): one class a row, 0..words-1."""

    what = "labels"
    remedy = "choose labelled data such as digits, or toy2d with labelled=true"

    def __init__(
        self, words: int, shape: tuple[int, ...] = (), names: tuple[str, ...] = ()
    ) -> None:
        object.__setattr__(self, "shape", tuple(shape))
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "names", names)
        self.__post_init__()

    def __str__(self) -> str:
        return f"{self.words} classes"


@dataclass(frozen=True)
class Triples(Tokens):
    """(T, 3): edges of a graph as subject, relation, object. The ends are places among the objects,
    from 0; relation 0 is padding.

    Args:
        words: relations, the padding included. objects: places that an end may be.
    """

    objects: int = 1
    what = "triples"
    form = "(T, 3)"
    remedy = "choose data with graphs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape[1] != 3:
            raise ValueError(f"the shape of triples is (T, 3), got {self.shape}")
        if self.objects < 1:
            raise ValueError(f"triples are of at least 1 object, got {self.objects}")

    def example(self, n: int, g: torch.Generator) -> Tensor:
        triples = super().example(n, g)
        triples[..., ::2] = torch.randint(self.objects, (n, self.shape[0], 2), generator=g)
        return triples

    def faults(self, x: Tensor) -> str:
        if said := Tokens(self.shape, max(self.words, self.objects)).faults(x):
            return said
        if bool((x[..., 1] >= self.words).any()):
            return f"relations outside 0..{self.words - 1}"
        inside = bool((x[..., ::2] < self.objects).all())
        return "" if inside else f"ends outside 0..{self.objects - 1}"


@dataclass(frozen=True)
class Attributes(Field):
    """(N,): N attributes, each 0 or 1.

    Args:
        names: of the attributes, for captions; none by default.
    """

    names: tuple[str, ...] = ()
    what = "attributes"
    form = "(N,)"
    remedy = "choose data with attributes"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", tuple(self.names))
        if self.names and len(self.names) != self.dim:
            raise ValueError(
                f"{self.dim} attributes have {self.dim} names or none, got {self.names}"
            )

    def example(self, n: int, g: torch.Generator) -> Tensor:
        return torch.randint(2, (n, *self.shape), generator=g).float()

    def faults(self, x: Tensor) -> str:
        if said := super().faults(x):
            return said
        return "" if ((x == 0) | (x == 1)).all() else "values that are neither 0 nor 1"


@dataclass(frozen=True)
class Boxes(Field):
    """(N, 4): x0, y0, x1, y1 in [0, 1], x0 <= x1 and y0 <= y1. ``Boxes(N)`` will do."""

    what = "boxes"
    form = "(N, 4)"
    remedy = "choose data with boxes"

    def __post_init__(self) -> None:
        if isinstance(self.shape, int):
            object.__setattr__(self, "shape", (self.shape, 4))
        super().__post_init__()
        if self.shape[1] != 4:
            raise ValueError(f"the shape of boxes is (N, 4), got {self.shape}")

    def example(self, n: int, g: torch.Generator) -> Tensor:
        ends = torch.rand(n, self.shape[0], 2, 2, generator=g).sort(2).values  # low, high; x, y
        return ends.flatten(2)

    def faults(self, x: Tensor) -> str:
        if said := super().faults(x):
            return said
        inside = bool(((x >= 0) & (x <= 1)).all())
        ordered = bool((x[..., :2] <= x[..., 2:]).all())
        return "" if inside and ordered else "corners outside [0, 1], or x1 < x0 or y1 < y0"


@dataclass(frozen=True)
class Keypoints(Field):
    """(N, P, 3): P named places on each of N objects, x and y in [0, 1], and 1 where they are seen
    or 0. Rows of zeros are padding.
    """

    what = "keypoints"
    form = "(N, P, 3)"
    remedy = "choose data with keypoints"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape[2] != 3:
            raise ValueError(f"the shape of keypoints is (N, P, 3), got {self.shape}")

    def example(self, n: int, g: torch.Generator) -> Tensor:
        points = torch.rand(n, *self.shape, generator=g)
        points[..., 2] = points[..., 2].round()
        return points

    def faults(self, x: Tensor) -> str:
        if said := super().faults(x):
            return said
        if not ((x >= 0) & (x <= 1)).all():
            return "places outside [0, 1]"
        seen = x[..., 2]
        return "" if ((seen == 0) | (seen == 1)).all() else "points seen by neither 0 nor 1"


@dataclass(frozen=True)
class Quantity(Field):
    """(...,): real numbers of a unit within [low, high], e.g. an energy in GeV.

    Args:
        unit: for captions. low, high: what values may be. names: of the numbers, for captions; none
            by default.
    """

    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    names: tuple[str, ...] = ()
    what = "quantities"
    remedy = "choose data that measure it"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", tuple(self.names))
        if self.names and len(self.names) != self.dim:
            raise ValueError(f"{self.dim} numbers have as many names or none, got {self.names}")

    def example(self, n: int, g: torch.Generator) -> Tensor:
        low = self.low if math.isfinite(self.low) else -1.0
        high = self.high if math.isfinite(self.high) else low + 1.0
        return low + (high - low) * torch.rand(n, *self.shape, generator=g)

    def faults(self, x: Tensor) -> str:
        if said := super().faults(x):
            return said
        inside = bool(((x >= self.low) & (x <= self.high)).all())
        return "" if inside else f"values outside [{self.low:g}, {self.high:g}] {self.unit}".strip()

    def __str__(self) -> str:
        return f"{super().__str__()} in {self.unit or 'no unit'}"


def _sizes(shape: Any, what: str) -> tuple[int, ...]:
    """A shape as plain whole numbers."""
    try:
        return tuple(map(operator.index, shape))
    except TypeError:
        raise ValueError(f"{what} is a tuple of whole sizes, got {shape!r:.60}") from None


class Spec(Mapping[str, Field]):
    """The data a model is built for, field by field: ``Spec("digits", x=Image((1, 8, 8), 17),
    y=Label(10))``.

    ``x`` is what is generated, ``y`` the class; everything else has a name of its own. Batches hold
    one tensor a field, (B, *shape), and ``index``, int64 row numbers. ``shape``, ``levels``,
    ``dim`` and the changes of units are short for those of ``x``.

    Args:
        name: which data this is, as it should stand in a results table.
    """

    # Not a dataclass: the command line would take one for a group of options.
    def __init__(self, name: str = "data", /, **fields: Field) -> None:
        for key, field in fields.items():
            if not isinstance(field, Field):
                raise TypeError(
                    f"{name}: {key} is a Field such as Image((3, 32, 32), 256), got {field!r}"
                )
        self.name, self.fields = name, fields

    def __getitem__(self, name: str) -> Field:
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    # -- short for x and y -------------------------------------------------------------------------
    @property
    def x(self) -> Any:
        """The field that is generated."""
        if "x" not in self.fields:
            raise ValueError(f"{self} has no x; name the fields by spec[...]")
        return self.fields["x"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example of x."""
        return self.x.shape

    @property
    def levels(self) -> int | None:
        """Of x."""
        return getattr(self.x, "levels", None)

    @property
    def dim(self) -> int:
        """Scalars in one example of x."""
        return self.x.dim

    @property
    def num_classes(self) -> int:
        """Classes of y; 0 without labels."""
        y = self.fields.get("y")
        return y.words if isinstance(y, Label) else 0

    def to_unit(self, x: Tensor) -> Tensor:
        return self.x.to_unit(x)

    def to_signed(self, x: Tensor) -> Tensor:
        return self.x.to_signed(x)

    def from_unit(self, v: Tensor) -> Tensor:
        return self.x.from_unit(v)

    def from_signed(self, v: Tensor) -> Tensor:
        return self.x.from_signed(v)

    # -- what a model asks -------------------------------------------------------------------------
    def has(self, **kinds: Any) -> bool:
        """Whether there are fields of these names, each of its kind, or one of its kinds."""
        return all(isinstance(self.fields.get(name), kind) for name, kind in kinds.items())

    def require(
        self,
        model: str,
        *,
        levels: Any = ...,
        square: bool = False,
        size: tuple[int, ...] = (),
        **kinds: Any,
    ) -> None:
        """Raise a ``ValueError`` naming the model, these data and the remedy, unless the data are
        what the model takes: ``spec.require("dcgan", x=Image)``.

        Args:
            levels: of x: an exact number, ``True`` for any number, ``None`` for real-valued data
                only.
            square: height equals width. size: allowed widths. kinds: of the fields by name, one or
                a tuple of which any will do.
        """
        problem = None
        for name, kind in kinds.items():
            if not isinstance(self.fields.get(name), kind):
                any_of = kind if isinstance(kind, tuple) else (kind,)
                of = " or ".join(k.what for k in any_of)
                problem = f"models {of}" if name == "x" else f"needs {of} called {name}"
                remedy = any_of[-1].remedy
                break
        else:
            if levels is True and self.levels is None:
                problem = "models discrete data"
                remedy = "choose data with levels, or a density model such as realnvp"
            elif levels is None and self.levels is not None:
                problem, remedy = "models real-valued data", "choose real-valued data such as toy2d"
            elif isinstance(levels, int) and levels is not True and self.levels != levels:
                binary = "binarise it (--data.binarize=threshold)"
                problem = f"models data with {levels} levels"
                remedy = binary if levels == 2 else "choose other data"
            elif square and self.shape[-1] != self.shape[-2]:
                problem = "models square images"
                remedy = "crop or resize the images to a square (--data.size=N)"
            elif size and self.shape[-1] not in size:
                problem = f"models images of size {', '.join(map(str, size))}"
                remedy = f"resize them (--data.size={size[0]})"
        if problem:
            raise ValueError(f"{model} {problem}, got {self}; {remedy}")

    def example(self, n: int, seed: int = 0) -> Batch:
        """n random valid rows of every field."""
        g = torch.Generator().manual_seed(seed)
        return Batch({name: field.example(n, g) for name, field in self.fields.items()}, n)

    def asdict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint; ``Spec.of(values)`` is the way back."""
        return {"name": self.name, "fields": {k: f.asdict() for k, f in self.fields.items()}}

    @staticmethod
    def of(values: dict[str, Any]) -> Spec:
        """From ``asdict``.

        Raises:
            ValueError: a field is of a kind that is not known here.
        """
        fields = {}
        for name, said in values["fields"].items():
            kind, rest = said["kind"], {k: v for k, v in said.items() if k != "kind"}
            if kind not in KINDS:
                raise ValueError(
                    f"the field {name} is of the kind {kind}, which is none of {', '.join(KINDS)}; "
                    "import the module that defines it first"
                )
            rest = {k: tuple(v) if isinstance(v, list) else v for k, v in rest.items()}
            fields[name] = KINDS[kind](**rest)
        return Spec(values["name"], **fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spec) or self.name != other.name:
            return False
        return [*self.fields.items()] == [*other.fields.items()]

    def __hash__(self) -> int:
        return hash((self.name, *self.fields.items()))

    def __repr__(self) -> str:
        return f"Spec({self.name!r}, {', '.join(f'{k}={f!r}' for k, f in self.fields.items())})"

    def __str__(self) -> str:
        rest = {k: f for k, f in self.fields.items() if k not in ("x", "y")}
        said = [str(self.fields["x"])] if "x" in self.fields else []
        if not said and "y" in self.fields:
            rest = {"y": self.fields["y"], **rest}
        return f"{self.name}: " + "; ".join([*said, *(f"{k} {f}" for k, f in rest.items())])


class DataSpec(Spec):
    """The short form of a ``Spec`` of one x and perhaps a class.

    Args:
        shape: (C, H, W) for images, (D,) for vectors.
        levels: number of grey levels L; None for real-valued data.
        num_classes: number of class labels; 0 for unlabelled data.
        name: which data this is, e.g. ``"digits 8x8 binarised (threshold)"``.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        name: str = "data",
    ) -> None:
        shape = _sizes(shape, "a data shape")
        if len(shape) not in (1, 3) or min(shape) < 1:
            raise ValueError(
                f"a data shape is (C, H, W) or (D,) with positive sizes, got {shape}; "
                "other kinds of data are a Spec of fields"
            )
        x: Field = Image(shape, levels) if len(shape) == 3 else Vector(shape, levels)
        super().__init__(name, x=x, **({"y": Label(num_classes)} if num_classes else {}))
