"""``zoo ls``: lists, cards and JSON, and what is read from source files against what the imported
classes say."""

import dataclasses
import inspect
import json
import re

import pytest

from zoo import registry
from zoo.card import _said, card, default_run, facts
from zoo.core.options import ranges
from zoo.ls import main
from zoo.sources import parameters, sections

EVERY = (*registry.entries(), *registry.data())
KEYS = (
    "name kind family taxonomy about paper likelihood can told makes data learns parameters waive"
).split()
some = pytest.mark.parametrize("entry", EVERY, ids=lambda e: e.name)


def imported(entry):
    return registry.get(entry.name, "data" if entry.family == "data" else "model")


def flat(kind):
    """(name, default) of a constructor's parameters, groups of options by dotted names."""
    for name, p in inspect.signature(kind).parameters.items():
        if dataclasses.is_dataclass(p.default):
            yield from ((f"{name}.{k}", v) for k, v in dataclasses.asdict(p.default).items())
        elif name != "spec":
            yield name, p.default


# -- source files against imported classes ---------------------------------------------------------
@some
def test_names_and_defaults_are_those_of_the_imported_class(entry):
    read = [
        (p.name, inspect.Parameter.empty if p.required else p.default) for p in parameters(entry)
    ]
    assert read == [*flat(imported(entry))]


@some
def test_ranges_are_those_of_the_imported_class(entry):
    said = ranges(imported(entry))
    assert said or not parameters(entry)
    types = {p.name: p.type for p in parameters(entry)}
    for name, text in said.items():
        assert text in types[name], (name, text, types[name])


@some
def test_choices_are_those_of_the_imported_class(entry):
    from typing import Literal, get_args, get_origin, get_type_hints

    hints = get_type_hints(imported(entry).__init__)
    for p in parameters(entry):
        if get_origin(hints.get(p.name)) is Literal:
            assert p.choices == tuple(map(str, get_args(hints[p.name])))
        elif hints.get(p.name) is bool:
            assert p.choices == ("true", "false")
        assert not p.choices or p.type == " | ".join(p.choices)


def test_sentences_are_those_of_the_docstring():
    said = {p.name: p.doc for p in parameters(registry.entry("began"))}
    assert said["gamma"] == "diversity ratio γ in (0, 1]."
    assert said["lr_d"] == "learning rate of D." and said["lr_g"] == "of G."
    assert said["beta1"] == said["beta2"] == "Adam's decays."  # two names share one
    assert said["loop.r1"].startswith("γ of the penalty (γ/2) E‖∇_x s(x)‖²")


def test_nearly_every_parameter_has_a_sentence():
    without = [(e.name, p.name) for e in EVERY for p in parameters(e) if not p.doc]
    told_of_with_another = {"steps", "tol", "kernel", "equilibrium", "beta_constant"}
    assert {name for _, name in without} <= told_of_with_another | {"momentum_steps"}


def test_lines_that_the_source_breaks_for_its_width_are_one():
    parts = sections(registry.entry("gan"))
    assert parts["Objective"][0].endswith("ascent of the value function V, equation 1.")
    assert parts["Objective"][1].startswith('G:  -E log D(G(z_G)) (g_loss="nonsat"')
    assert parts["Objective"][2] == '    E log(1 - D(G(z_G))) (g_loss="minimax").'
    assert sections(registry.entry("began"))["Objective"][1].startswith("G:  L(G(z_G))")


# -- cards ----------------------------------------------------------------------------------------
@some
def test_a_card_fits_a_terminal_and_says_what_there_is(entry):
    text = card(entry)
    words = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    for said in (entry.about, *(p.name for p in parameters(entry) if "loop." not in p.name)):
        assert " ".join(said.split()) in words
    for check, reason in entry.waive.items():
        assert f"{check}: {' '.join(reason.split())}" in words
    for metric, sign, bound in entry.learns:
        assert f"{metric} {sign} {bound:g}" in words
    if entry.paper:
        assert entry.paper.title in words and (entry.paper.url or entry.paper.where) in words


@some
def test_the_line_to_train_it_is_taken(entry):
    from zoo.config import layer

    line = card(entry).splitlines()[-1].split()
    assert line[:2] == ["zoo", "fit"]
    words = ["gan" if w == "MODEL" else w for w in line[2:]]
    layered = layer(words)
    assert entry.name in (layered.model, layered.data)


def test_a_card_has_the_default_run(capsys):
    assert main(["gan"]) == 0
    said = capsys.readouterr().out
    rows = {r[1]: r[2] for r in re.finditer(r"^  (\w+) {2,}(.+)$", said, re.MULTILINE)}
    assert rows["data"] == "toy2d (kind=ring, batch_size=256)"
    assert rows["steps"] == "4,000"
    assert rows["reaches"] == "val/modes > 6.5; val/hq > 0.6"
    assert rows["presets"] == "--preset paper"
    assert rows["g_loss"] == "nonsat  [nonsat | minimax]"
    assert rows["lr_decay"] == "1.000004  [float, at least 1]"
    assert rows["latent"] == "null  [int, at least 1 | null]"
    assert "  D:  -E log D(x)" in said


def test_a_card_has_the_values_of_the_default_run(capsys):
    main(["began"])
    said = capsys.readouterr().out
    assert re.search(r"^  latent +32, 128 in the default run  \[int, at least 1\]", said, re.M)
    assert re.search(r"^  gamma +1.0  \[", said, re.M)


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda e: e.name)
def test_a_default_run_sets_what_the_class_takes_and_json_has_it(entry):
    chosen = default_run(entry)
    said = {p["name"]: p for p in facts(entry)["parameters"]}
    assert set(chosen) <= set(said)
    for name, p in said.items():
        assert p["default_run"] == chosen.get(name, p["default"])
        if name in chosen and p["default_run"] != p["default"]:
            assert f"{_said(chosen[name])} in the default run" in " ".join(card(entry).split())


# -- the command ----------------------------------------------------------------------------------
def asked(capsys, *words):
    status = main([*words])
    done = capsys.readouterr()
    return status, done.out, done.err


def test_a_name_is_shown_and_a_pattern_listed(capsys):
    assert asked(capsys, "gan") == (0, card(registry.entry("gan")) + "\n", "")
    assert asked(capsys, "digits") == (0, card(registry.entry("digits", "data")) + "\n", "")
    assert asked(capsys, "digits", "--data") == asked(capsys, "digits")
    for words in (["gan*"], ["[g]an"], ["gan", "--tree"], ["gan", "--can", "sample"]):
        status, said, _ = asked(capsys, *words)
        assert status == 0 and said.endswith("\n1 model\n")
    assert asked(capsys, "fact*", "--data")[1].split()[0] == "factor_grid"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["beagn"], "nothing matches 'beagn'; did you mean began, ebgan, bigan?"),
        (["digit"], "nothing matches 'digit'; did you mean digits?"),
        (["gan", "--family", "flow"], "nothing matches 'gan' with --family"),
        (["nothing*", "--data"], "nothing matches 'nothing*'"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest(capsys, words, said):
    assert asked(capsys, *words) == (1, "", said + "\n")
    assert asked(capsys, *words, "--json") == (1, "[]\n", said + "\n")


@pytest.mark.parametrize("option", ["--tree", "--markdown", "--family=gan", "--can=sample"])
def test_options_of_models_do_not_apply_to_data(capsys, option):
    wanted = f"zoo.ls: error: {option.partition('=')[0]} does not apply to data\n"
    assert asked(capsys, "--data", option) == (2, "", wanted)


# -- JSON -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], registry.list()),
        (["*gan*", "--can", "encode"], registry.list("*gan*", can="encode")),
        (["--family", "flow"], registry.list(family="flow")),
        (["--taxonomy", "explicit"], registry.list(taxonomy="explicit")),
        (["began"], ["began"]),
        (["digits"], ["digits"]),
        (["--data"], [e.name for e in registry.data()]),
        (["m*", "--data"], ["mnist"]),
    ],
    ids=lambda v: " ".join(v)[:30] or "all",
)
def test_json_has_what_a_list_has(capsys, words, wanted):
    status, said, wrong = asked(capsys, *words, "--json")
    assert (status, wrong) == (0, "")
    assert sorted(e["name"] for e in json.loads(said)) == sorted(wanted)


@some
def test_json_is_the_registry(entry):
    said = json.loads(json.dumps(facts(entry)))
    assert [*said] == KEYS
    assert said["kind"] == ("data" if entry.family == "data" else "model")
    for key in ("name", "family", "taxonomy", "about", "likelihood", "data", "waive"):
        assert said[key] == getattr(entry, key)
    for key in ("can", "told", "makes"):
        assert {*said[key]} == {*getattr(entry, key)}
    assert said["learns"] == [[*gate] for gate in entry.learns]
    assert said["paper"] == (
        entry.paper and {**dataclasses.asdict(entry.paper), "url": entry.paper.url}
    )
    names = [p["name"].partition(".")[0] for p in said["parameters"]]
    assert tuple(dict.fromkeys(names)) == registry.parameters(imported(entry))
    assert all(
        [*p] == "name type default default_run required doc".split() for p in said["parameters"]
    )
