"""Every model keeps every check of the contract that applies to it: one line a model and check."""

import pytest

from zoo import check, registry

NAMES = registry.list()


def cases():
    for name in NAMES:
        for check_name in check.applicable(name, ("", "ddp", "slow")):
            mark = check.CHECKS[check_name][2]
            marks = [getattr(pytest.mark, mark)] if mark else []
            if reason := registry.entry(name).waive.get(check_name):
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            yield pytest.param(name, check_name, marks=marks, id=f"{name}-{check_name}")


@pytest.mark.parametrize(("name", "check_name"), [*cases()])
def test_contract(name, check_name, monkeypatch):
    monkeypatch.setattr(check, "together", tuple(NAMES))
    function = check.CHECKS[check_name][0]
    assert function(check.Subject.of(name)) is None  # a check raises where the contract is broken


def test_every_waiver_names_a_check_that_applies():
    for name in NAMES:
        waived = set(registry.entry(name).waive)
        assert waived <= set(check.applicable(name, ("", "ddp", "slow"))), name
