"""The edits still fit the files that they edit."""

import ast
import re

import pytest

from tests.mutants import __main__ as command
from tests.mutants.edits import HERE, ROOT, SHARED, Edit, books, edits
from zoo import registry

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


@pytest.mark.parametrize("name", registry.list())
def test_every_model_has_six_edits_that_matter(name):
    proper = [e for e in EVERY[name] if not e.why]
    assert len(proper) >= 6
    assert len({e.breaks for e in EVERY[name]}) == len(EVERY[name])


def test_the_documented_table_counts_these_edits():
    text = (ROOT / "docs" / "reproducing.md").read_text()
    rows = re.findall(r"^\| (.+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    counts = [[int(n.replace(",", "")) for n in numbers] for _, *numbers in rows]
    proper = sum(not e.why for some in EVERY.values() for e in some)
    assert rows[-1][0] == "all" and counts[-1] == [len(EVERY), proper, proper]
    assert [sum(column) for column in zip(*counts[:-1], strict=True)] == counts[-1]


def test_an_equal_edit_says_why():
    assert all(e.why.strip() for some in EVERY.values() for e in some if e.why)


def test_an_edit_that_no_longer_fits_is_one_line_and_the_others_are_tried(monkeypatch, capsys):
    def noticed(tree, *_):
        return "" if (tree / "law.py").read_text() == "a = 1\n" else "test_law"

    passages = {"law.py": ["b = 1", "a = 1"], "gone.py": ["a = 1"]}
    own = [
        Edit("own", SHARED, f"{p} in {f}", f, p, "a = 2")
        for f, some in passages.items()
        for p in some
    ]
    monkeypatch.setattr(command, "books", lambda: {"own": HERE / "own.txt"})
    monkeypatch.setattr(command, "edits", lambda path: own)
    monkeypatch.setattr(command, "copy", lambda tree: (tree / "law.py").write_text("a = 1\n"))
    monkeypatch.setattr(command, "noticed", noticed)
    for chosen, words, status in (
        ("", ["STALE", "killed", "STALE"], 1),
        ("b = 1", ["STALE"], 1),
        ("a = 1 in law", ["killed"], 0),
    ):
        monkeypatch.setattr("sys.argv", ["mutants", "own", "--only", chosen])
        assert command.main() == status
        said, table = capsys.readouterr().out.split("\n\n")
        assert [line.split()[0] for line in said.splitlines()] == words
        assert f"| all | {len(words)} | {words.count('killed')} |" in table
