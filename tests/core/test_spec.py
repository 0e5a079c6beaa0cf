"""DataSpec: units there and back, and refusals that say what to do."""

import pytest
import torch

from zoo.core import DataSpec


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_survive_the_way_to_unit_and_signed_and_back(levels):
    spec, x = DataSpec((1, 1, levels), levels), torch.arange(float(levels)).view(1, 1, 1, -1)
    assert spec.to_unit(x).min() == 0
    assert spec.to_unit(x).max() == 1
    assert spec.to_signed(x).aminmax() == (-1, 1)
    assert torch.equal(spec.from_unit(spec.to_unit(x)), x)
    assert torch.equal(spec.from_signed(spec.to_signed(x)), x)


def test_generated_values_are_clamped_and_rounded_to_levels():
    spec = DataSpec((1,), 17)
    assert spec.from_signed(torch.tensor([-9.0, 9.0, 0.01])).tolist() == [0, 16, 8]


def test_real_values_pass_through():
    x = torch.randn(3, 2)
    assert torch.equal(DataSpec((2,)).to_signed(x), x)
    assert torch.equal(DataSpec((2,)).from_unit(x), x)


@pytest.mark.parametrize(
    ("spec", "wanted", "words"),
    [
        (DataSpec((2,)), {"image": True}, "choose image data"),
        (DataSpec((1, 8, 8), 17), {"image": False}, "toy2d"),
        (DataSpec((1, 8, 8), 17), {"levels": 2}, "--data.binarize=threshold"),
        (DataSpec((2,)), {"levels": True}, "realnvp"),
        (DataSpec((1, 8, 6), 17), {"square": True}, "crop or resize"),
        (DataSpec((1, 8, 8), 17), {"size": (16, 32)}, "--data.size=16"),
    ],
)
def test_a_refusal_names_the_model_the_data_and_the_remedy(spec, wanted, words):
    with pytest.raises(ValueError, match=words) as caught:
        spec.require("somegan", **wanted)
    assert "somegan" in str(caught.value)
    assert "x".join(map(str, spec.shape)) in str(caught.value)


@pytest.mark.parametrize(
    "bad", [{"shape": (1, 2)}, {"shape": (0, 8, 8)}, {"shape": (1, 8, 8), "levels": 1}]
)
def test_impossible_specs_are_refused(bad):
    with pytest.raises(ValueError, match="got"):
        DataSpec(**bad)


def test_a_spec_survives_a_checkpoint():
    spec = DataSpec((1, 8, 8), 17, 10, "digits 8x8")
    assert DataSpec(**spec.asdict()) == spec
