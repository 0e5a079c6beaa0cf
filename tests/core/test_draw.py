"""Drawing: every row once, from its own noise and its own class, without a trace."""

import pytest
import torch

from zoo.core import Batch, DataSpec, GenerativeModule
from zoo.core.draw import BLOCK, complete, draw, tell, undisturbed
from zoo.registry import Paper, register

SPEC = DataSpec((2,), num_classes=3)


@register(
    "echo",
    paper=Paper("Echo", "Echo", 2000, "none"),
    about="noise, and the class that it was told",
    taxonomy="implicit direct",
    told=("y",),
    can={"sample", "inpaint"},
)
class Echo(GenerativeModule):
    def __init__(self, spec):
        super().__init__(spec)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.drop = torch.nn.Dropout(0.5)

    def sample(self, n, *, y, generator=None):
        noise = torch.rand(n, generator=generator)
        return torch.stack([noise, y.to(noise.dtype)], 1)

    def inpaint(self, x, known, *, y=None, generator=None):
        told = torch.full_like(x, -1.0) if y is None else y.to(x)[:, None].expand_as(x)
        return torch.where(known, x, told)


def test_classes_come_in_turn_by_row_number_over_all_blocks():
    n = 2 * BLOCK + 5
    rows = draw(Echo(SPEC), n, seed=1)
    assert rows[:, 1].tolist() == [i % 3 for i in range(n)]
    late = draw(Echo(SPEC), 7, seed=1, start=BLOCK + 1)
    assert late[:, 1].tolist() == [(BLOCK + 1 + i) % 3 for i in range(7)]


def test_no_two_rows_of_any_blocks_or_seeds_have_the_same_noise():
    n = 2 * BLOCK + 5
    first, other = (draw(Echo(SPEC), n, seed=seed)[:, 0] for seed in (1, 2))
    assert len(torch.cat([first, other]).unique()) == 2 * n


@pytest.mark.parametrize(("start", "n"), [(0, 3), (10, 60), (60, 10), (64, 64), (63, 2)])
def test_a_row_is_the_same_wherever_drawing_begins_and_hears_what_it_is_told(start, n):
    whole = draw(Echo(SPEC), 2 * BLOCK, seed=1)
    told = {"y": torch.arange(n).flip(0) % 3}
    part = draw(Echo(SPEC), n, seed=1, start=start, told=told)
    assert torch.equal(part[:, 0], whole[start : start + n, 0])
    assert torch.equal(part[:, 1], told["y"].float())


def test_completions_hear_what_they_are_told():
    x, known = torch.zeros(3, 2), torch.tensor([True, False])
    filled = complete(Echo(SPEC), x, known, told={"y": torch.tensor([2, 0, 1])})
    assert filled.tolist() == [[0, 2], [0, 0], [0, 1]]


def test_drawing_leaves_modes_and_the_random_state_as_they_were():
    model = Echo(SPEC)
    model.drop.eval()
    before = torch.get_rng_state()
    with undisturbed(model):
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(3)
    assert model.training and not model.drop.training and torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_model_is_told_are_all_classes_in_turn():
    told = tell(Echo(SPEC), 5)
    assert isinstance(told, Batch) and told["y"].tolist() == [0, 1, 2, 0, 1]
