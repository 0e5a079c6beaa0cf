"""The edits still fit the files that they edit."""

import ast

import pytest

from tests.mutants.edits import ROOT, SHARED, books, edits

EVERY = {name: [*edits(path)] for name, path in books().items()}


@pytest.mark.parametrize("name", EVERY)
def test_every_passage_occurs_once_and_the_edit_is_another_program(name):
    for edit in EVERY[name]:
        text = (ROOT / edit.file).read_text()
        after = edit.applied(text)
        assert edit.breaks, edit
        assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(text)), edit.breaks


@pytest.mark.parametrize("name", EVERY)
def test_the_tests_that_an_edit_names_are_there(name):
    for edit in EVERY[name]:
        assert edit.tests, edit.breaks
        assert all((ROOT / t).is_file() for t in edit.tests), edit.tests


@pytest.mark.parametrize("name", [n for n, e in EVERY.items() if e and e[0].family != SHARED])
def test_a_model_has_six_edits_that_matter(name):
    proper = [e for e in EVERY[name] if not e.why]
    assert len(proper) >= 6
    assert len({e.breaks for e in EVERY[name]}) == len(EVERY[name])


def test_an_equal_edit_says_why():
    assert all(e.why.strip() for some in EVERY.values() for e in some if e.why)
