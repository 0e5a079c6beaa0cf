"""What a type says is tested once, for every model: choices, ranges, nested and optional ones."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

import callbacks
from zoo import registry
from zoo.bases import LoopOptions
from zoo.core import DataSpec
from zoo.core.module import GenerativeModule
from zoo.core.options import (
    Count,
    Decay,
    Dropped,
    Factor,
    NonNegative,
    Positive,
    Range,
    Real,
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
        (Count, [1, 10**9], [0, -1, 1.5, float("nan"), "1", None, True], "at least 1"),
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
        (list[Count], [[3]], [[0]], "each at least 1"),
        (Sequence[Count], [], [8, "8", None], "a list"),
        (tuple[Count, ...], [], [8], "a list"),
        (tuple[Count, ...] | None, [None, [8]], [8], "a list or null"),
        (Decay, [0, 0.99], [1, -0.1], "in [0, 1)"),
        (Factor, [1, 0.5], [0, 1.1], "in (0, 1]"),
        (Real, [-3, 0, 0.5], [float("nan"), float("inf"), "1", None], "a number"),
        (Positive, [3], [float("inf")], "positive"),
        (bool, [True, False], ["false", 0, None], "true or false"),
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


# -- everyone's options ------------------------------------------------------------------------
OWNERS = {
    **{name: registry.get(name) for name in registry.list()},
    **{entry.name: registry.get(entry.name, "data") for entry in registry.data()},
    **{c.name: c for k in callbacks.__all__ if hasattr(c := getattr(callbacks, k), "name")},
}
RATES = ("lr", "lr_d", "lr_g", "lr_adv", "lr_label", "lr_mix", "pretrain_lr")
NOTHING = {  # whole numbers of which 0 is one, and what it means
    "aegan": {"stage_steps": "a generator that is given"},
    "ali": {"labels": "none"},
    "anogan": {"gamma": "the start"},
    "bigan": {"anneal_steps": "never"},
    "biggan": {"standing": "running averages", "attention": "none"},
    "progan": {"fade": "at once", "steady": "none"},
    "stylegan": {"fade": "at once", "steady": "none"},
    "aae": {"classes": "those of the data", "decay_every": "never"},
    "heads": {"identities": "each head a person of its own"},
    "began": {"halve_every": "never", "interval": "never", "vanishing_residual": "none"},
    "beta_tcvae": {"warmup_steps": "none"},
    "bayesian_gan": {"warm_up": "no Adam"},
    "categorical_vae": {"continuous": "no such codes"},
    "catgan": {"classes": "those of the data"},
    "ccgan": {"low_res": "none"},
    "discogan": {"bottleneck": "none", "curriculum": "none"},
    "dualgan": {"noisy": "none"},
    "affgan": {"blocks": "none", "warmup": "none"},
    "cyclegan": {"pool": "none", "decay_start": "at once", "decay_end": "never"},
    "pix2pix": {"noisy": "none", "decay_start": "at once", "decay_end": "never"},
    "paired": {"size": "the base's own"},
    "celeba": {"limit": "all"},
    "faces": {"limit": "all"},
    "paired_folder": {"jitter": "none"},
    "unpaired_folder": {"jitter": "none"},
    "cogan": {"share_g": "two GANs", "share_d": "two GANs"},
    "dbm": {"pretrain_steps": "none", "decay_steps": "never"},
    "ebgan": {"code": "as wide as the net", "margin_steps": "a constant margin"},
    "ffjord": {"exact": "always an estimate", "warmup": "none"},
    "glow": {"warmup": "none"},
    "gmvae": {"warmup_steps": "none"},
    "gsn": {"decay_steps": "never"},
    "iaf_vae": {"steps": "a Gaussian posterior"},
    "ian": {"kernels": "none", "decay_every": "never", "dilations": "a 1x1 kernel"},
    "ica": {"layers": "linear"},
    "improved_gan": {"kernels": "none", "decay_start": "at once", "decay_end": "never"},
    "infogan": {"categories": "those of the data", "continuous": "none", "noise": "none"},
    "pixelcnn": {"n": "only the masked layer"},
    "pixelrnn": {"n": "only the masked layer"},
    "pixelvae": {"n": "only the masked layer", "warmup_steps": "none"},
    "rbm": {"decay_steps": "never"},
    "realnvp": {"blocks": "plain nets"},
    "vae": {"warmup_steps": "none"},
    "vaegan": {"decay_every": "never"},
    "wgan_gp": {"decay_steps": "never"},
    "digits": {"shift": "none", "left_out": "class 0"},
    **{
        name: {"size": "as it is", "left_out": "class 0"}
        for name in ("cifar10", "fashion_mnist", "mnist")
    },
    "unpaired": {"size": "the base's own"},
    "ema": {"start": "at once"},
}


def numbers(cls):
    """(name, hint) of every option that is a number, or holds some."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        hint = hints.get(name)
        if {int, float} & {hint, *inside(hint)}:
            yield name, hint, parameter


def inside(hint):
    for part in typing.get_args(hint):
        yield part
        yield from inside(part)


@pytest.mark.parametrize("owner", OWNERS)
def test_every_number_says_what_it_may_be(owner):
    bare = [
        name
        for name, hint, _ in numbers(OWNERS[owner])
        if not any(isinstance(part, Range) for part in inside(hint))
    ]
    assert not bare, f"{owner}: {bare} take any number"


@pytest.mark.parametrize("owner", OWNERS)
def test_every_default_is_what_it_may_be(owner):
    for name, hint, parameter in numbers(OWNERS[owner]):
        if parameter.default is not parameter.empty:
            assert fault(hint, parameter.default) == "", name


@pytest.mark.parametrize("owner", OWNERS)
def test_absurd_numbers_are_refused_by_the_owners_and_the_options_name(owner):
    cls = OWNERS[owner]
    first = () if not issubclass(cls, GenerativeModule) else (DataSpec((1, 8, 8), 17, 10),)
    asks = inspect.signature(cls.__init__).parameters
    needed = {"root": "."} if "root" in asks and asks["root"].default is inspect._empty else {}
    for name, hint, _ in numbers(cls):
        whole = int in (hint, *inside(hint))
        values = [float("nan")]
        if Real not in (hint, *inside(hint)):
            values.append(-1)
        if name in RATES or (whole and name not in NOTHING.get(owner, ())):
            values.append(0)
        if name in ("seed", "num_workers"):
            values.remove(0)
        for value in values:
            if typing.get_origin(hint) is tuple:
                value = tuple(value for part in typing.get_args(hint) if part is not ...)
            elif typing.get_origin(hint) is Sequence:
                value = [value]
            with pytest.raises(ValueError, match=rf"^{owner}: {name} is .*, got ") as caught:
                cls(*first, **needed, **{name: value})
            assert "\n" not in str(caught.value)
