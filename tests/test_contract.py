"""Every model keeps every check of the contract that applies to it: one line a model and check."""

import pytest

from tests.support import TOYS
from zoo import check, registry

NAMES = [
    *registry.list(),
    *TOYS,
]  # the zoo's, and three of kinds of data that the zoo has no model of
MARKS = ("", "ddp", "slow")


def cases():
    for name in NAMES:
        waived = check.waivers(name)
        for check_name in check.applicable(name, MARKS):
            mark = check.CHECKS[check_name][2]
            marks = [getattr(pytest.mark, mark)] if mark else []
            if reason := waived.get(check_name):
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            yield pytest.param(name, check_name, marks=marks, id=f"{name}-{check_name}")


@pytest.mark.parametrize(("name", "check_name"), [*cases()])
def test_contract(name, check_name, monkeypatch):
    monkeypatch.setattr(check.processes, "together", NAMES)
    function = check.CHECKS[check_name][0]
    # a check raises where the contract is broken
    assert function(check.Subject.of(name)) is None


def test_every_waiver_names_a_check_that_applies():
    for name in NAMES:
        waived = set(check.waivers(name))
        assert waived <= set(check.applicable(name, MARKS)), name
