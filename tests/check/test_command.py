"""``zoo.check`` as a user meets it: a mistake is one line, and never a success."""

import pytest

from zoo.check import CHECKS, main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gan", "--only", "nothing"], "there is no check 'nothing'; "),
        (
            ["gan", "--only", "seed_matter"],
            "there is no check 'seed_matter'; did you mean seed_matters?",
        ),
        (["gan", "--only", "learns"], "the check learns applies to none of gan (--slow runs it)"),
        (["gan", "kde", "--only", "is_causal"], "the check is_causal applies to none of gan, kde"),
        (["gam"], "unknown model 'gam'"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_check_that_is_not_there_or_does_not_apply_fails_in_one_line(words, said, capsys):
    assert main(words) == 2
    out, wrong = capsys.readouterr()
    assert out == "" and wrong.startswith(f"zoo.check: error: {said}") and wrong.count("\n") == 1


def test_what_holds_is_counted(capsys):
    assert main(["gan", "--only", "seed_matters"]) == 0
    assert capsys.readouterr().out.endswith("\n1 of 1 checks hold\n")
    assert "seed_matters" in CHECKS
