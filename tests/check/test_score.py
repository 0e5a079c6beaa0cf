"""The check of scores catches scores that depend on companions, mode, time or leave a trace."""

import dataclasses

import pytest
import torch

from zoo.check.everyone import check_scores_are_each_rows_own
from zoo.check.subject import Subject
from zoo.gan.anogan import AnoGAN


class Together(AnoGAN):
    def score(self, x):
        v = x.flatten(1).mean(1)
        return v - v.mean()


class Moody(AnoGAN):
    def score(self, x):
        return x.flatten(1).mean(1) + float(self.training)


class Random(AnoGAN):
    def score(self, x):
        return x.flatten(1).mean(1) + torch.rand(len(x))


class Learning(AnoGAN):
    def score(self, x):
        self.noise_seed += 1
        return x.flatten(1).mean(1)


class Plain(AnoGAN):
    def score(self, x):
        return x.flatten(1).mean(1)


def subject(cls):
    found = Subject.of("anogan")
    return dataclasses.replace(found, cls=cls, model_params={"width": 8})


@pytest.mark.parametrize("cls", [Together, Moody, Random, Learning])
def test_bad_scores_are_caught(cls):
    with pytest.raises(AssertionError):
        check_scores_are_each_rows_own(subject(cls))


def test_scores_of_a_row_by_itself_pass():
    assert check_scores_are_each_rows_own(subject(Plain)) is None
