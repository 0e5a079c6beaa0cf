"""Compiled networks are the same networks."""

import pytest
import torch

from tests.support import Given, fit
from zoo import registry
from zoo.core import DataSpec
from zoo.core.compiled import compile_nets, nets

IMAGES = DataSpec((1, 8, 8), 17)


def test_the_networks_of_a_game_are_those_of_its_players_and_of_a_model_its_parts():
    gan = registry.create("gan", DataSpec((2,)))
    assert {id(n) for n in nets(gan)} == {id(gan.g), id(gan.d.net)}
    flow = registry.create("nice", IMAGES, couplings=3)
    assert [*nets(flow)] == [*flow.couplings]


@pytest.mark.parametrize(
    ("name", "options"), [("wgan_gp", {}), ("gan", {"loop": {"r1": 1.0}}), ("lsgan", None)]
)
def test_a_penalty_that_differentiates_twice_is_refused(name, options):
    model = registry.create(name, DataSpec((2,)), **(options or {}))
    if options is None:
        assert not model.differentiates_twice
        return
    with pytest.raises(ValueError, match=rf"--compile=true: {name} pays.*leave --compile out"):
        compile_nets(model)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spec"), [("gan", DataSpec((2,))), ("vae", IMAGES)])
def test_compiled_training_is_that_of_the_eager_networks(name, spec, tmp_path):
    rows = (
        torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
        if spec.levels is None
        else torch.randint(17, (32, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    )
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = registry.create(name, spec)
        before = set(model.state_dict())
        assert compile_nets(model) > 0 if compiled else True
        fit(model, Given(spec, rows, batch_size=8), 4)
        assert set(model.state_dict()) == before  # so checkpoints know nothing of it
        ends.append(model.state_dict())
        assert model.sample(3).shape == (3, *spec.shape)
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-4, atol=1e-5)
