"""What a type says is tested once, for every model: choices, ranges, nested and optional ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from zoo.bases import LoopOptions
from zoo.core import DataSpec
from zoo.core.module import GenerativeModule
from zoo.core.options import (
    Count,
    Dropped,
    NonNegative,
    Positive,
    Range,
    Share,
    Whole,
    check_fields,
    fault,
)


@pytest.mark.parametrize(
    ("hint", "good", "bad", "said"),
    [
        (Literal["a", "b"], ["a"], ["c", 1, None], "one of a, b"),
        (Literal[4, 5], [4, 5], [6, "4"], "one of 4, 5"),
        (Count, [1, 10**9], [0, -1, 1.5, "1", None, True], "at least 1"),
        (Whole, [0, 3], [-1], "not negative"),
        (Positive, [1e-9, 3], [0, -1.0, float("nan")], "positive"),
        (NonNegative, [0, 0.5], [-1e-9], "not negative"),
        (Share, [0, 0.3, 1], [-0.1, 1.1], "in [0, 1]"),
        (Dropped, [0, 0.99], [1, 1.0], "in [0, 1)"),
        (Annotated[float, Range(0, 1, above=True)], [1, 0.1], [0], "in (0, 1]"),
        (Annotated[float, Range(1, above=True)], [1.1], [1], "above 1"),
        (Count | None, [None, 2], [0], "at least 1 or null"),
        (tuple[Count, Share], [(1, 0.5), [2, 0]], [(0, 0.5), (1, 2), (1,)], ""),
        (tuple[Count, ...], [(1, 2, 3), ()], [(1, 0)], "each at least 1"),
        (Sequence[Count], [(1, 2), [3]], [[0]], "each at least 1"),
        (float, ["anything"], [], ""),
    ],
    ids=str,
)
def test_a_value_is_what_its_type_says(hint, good, bad, said):
    for value in good:
        assert fault(hint, value) == "", value
    for value in bad:
        assert fault(hint, value) and said in fault(hint, value), value


class Model(GenerativeModule):
    def __init__(
        self,
        spec,
        arch: Literal["mlp", "conv"] = "mlp",
        k: Count = 1,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec)


def test_a_model_refuses_by_its_name_before_anything_is_built():
    spec = DataSpec((2,))
    assert Model(spec, "conv", k=3).params["k"] == 3
    with pytest.raises(ValueError, match=r"^Model: arch is one of mlp, conv, got 'rnn'$"):
        Model(spec, arch="rnn")
    with pytest.raises(ValueError, match=r"^Model: k is at least 1, got 0$"):
        Model(spec, "mlp", 0)


@dataclass(frozen=True)
class Options:
    rate: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "some.")


def test_a_dataclass_of_options_tests_itself_and_says_whose_it_is():
    with pytest.raises(ValueError, match=r"^some.rate is positive, got 0$"):
        Options(0)
    with pytest.raises(ValueError, match=r"^loop.label_smooth is in \(0.5, 1\], got 0.5$"):
        LoopOptions(label_smooth=0.5)
    with pytest.raises(ValueError, match=r"^loop.clip_d is positive or null, got 0.0$"):
        LoopOptions(clip_d=0.0)
