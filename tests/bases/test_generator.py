"""The base of the games with one generator: units of what its networks see, and paths of codes."""

import pytest
import torch
from torch import nn

from zoo.bases.generator import GeneratorModule
from zoo.core import DataSpec


class Bare(GeneratorModule):
    """x = z."""

    def __init__(self, spec, **options):
        super().__init__(spec, **options)
        self.g = nn.Identity()


@pytest.mark.parametrize(("unit", "seen"), [(True, [0, 0.5, 1]), (False, [-1, 0, 1])])
def test_networks_see_levels_in_their_units_and_give_them_back(unit, seen):
    model, x = Bare(DataSpec((1, 1, 3), 3), unit=unit), torch.arange(3.0).view(1, 1, 1, 3)
    assert model.scaled(x).flatten().tolist() == pytest.approx(seen)
    assert torch.equal(model.from_codes(model.scaled(x)), x)


@pytest.mark.parametrize(("prior", "middle"), [("uniform", 0.5), ("normal", 0.5**0.5)])
def test_the_path_between_codes_is_that_of_their_prior(prior, middle):
    model, (a, b) = Bare(DataSpec((2,)), prior=prior), torch.eye(2).split(1)
    path = model.interpolate(a, b, frames=3)[0]
    torch.testing.assert_close(path, torch.cat([a, torch.full((1, 2), middle), b]))
