"""Remembered values follow the tensors they depend on."""

import torch

from zoo.core.remember import Remembered


def test_value_is_computed_again_only_after_a_change():
    weight, calls, remembered = torch.ones(2), [], Remembered()

    def compute():
        calls.append(1)
        return float(weight.sum())

    assert [remembered([weight], compute) for _ in range(3)] == [2.0] * 3 and len(calls) == 1
    weight[0] = 5
    assert remembered([weight], compute) == 6.0 and len(calls) == 2
    remembered([weight.double()], compute)
    assert len(calls) == 3
