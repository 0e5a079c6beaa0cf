"""Every name that a model's file gives a value, under whatever options, has a sentence."""

import ast
from pathlib import Path

import pytest

from zoo import registry
from zoo.metrics.meanings import meaning

ROOT = Path(registry.__file__).parent
# Keys of such functions that are not logged: a phase's field, turns, a picture.
NOT_LOGGED = {"fake", "pre1", "pre2", "joint", "components: principal axes"}
NOT_LOGGED |= {"score", "residual", "discrimination"}  # of images, by which AUROC is logged


def told_of(function):
    """The names that a function of named values returns."""
    keys = [k for d in ast.walk(function) if isinstance(d, ast.Dict) for k in d.keys]
    keys += [
        s.slice
        for s in ast.walk(function)
        if isinstance(s, ast.Subscript) and getattr(s.value, "id", "") in ("terms", "values")
    ]
    return {k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str)}


def in_the_source(path):
    """Every name of a file's functions that return named tensors, or are a controller."""
    named = ("Terms", "dict[str, Tensor]")
    functions = [f for f in ast.walk(ast.parse(path.read_text())) if isinstance(f, ast.FunctionDef)]
    telling = [
        f
        for f in functions
        if f.name == "after_cycle" or (f.returns and ast.unparse(f.returns) in named)
    ]
    return set().union(*map(told_of, telling)) - NOT_LOGGED


FILES = [ROOT / e.family / f"{e.name}.py" for e in registry.entries()]
FILES = [f for f in [*FILES, *(ROOT / "bases").glob("[!_]*.py")] if f.is_file()]


def test_the_names_are_found_in_the_source():
    keys = set().union(*map(in_the_source, FILES))
    assert {"k_t", "kl", "gsnn", "d_acc_recon", "nll_single_mask", "loss"} <= keys


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_whatever_a_file_names_has_a_sentence(path):
    assert [k for k in in_the_source(path) if not meaning(f"train/{k}").sentence] == []


@pytest.mark.parametrize(
    "name", ["lr_d", "lr_ae", "grad_norm_c", "loss_g", "history_d", "walkback_bce_3"]
)
def test_values_of_a_player_have_a_sentence(name):
    assert meaning(f"train/{name}").sentence
