"""DataSpec: units there and back, and refusals that say what to do."""

import numpy as np
import pytest
import torch

from zoo.core import (
    Attributes,
    Batch,
    Boxes,
    DataSpec,
    Image,
    Keypoints,
    Label,
    Quantity,
    Regions,
    Series,
    Spec,
    Tokens,
    Triples,
    Vector,
    Video,
    Volume,
)
from zoo.core import spec as core_spec
from zoo.core.spec import Field


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
        (DataSpec((2,)), {"x": Image}, "choose image data"),
        (DataSpec((1, 8, 8), 17), {"x": Vector}, "toy2d"),
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
    assert Spec.of(spec.asdict()) == spec


SCENES = Spec(
    "scenes",
    x=Image((3, 8, 8), 256),
    objects=Tokens((5,), 9),
    triples=Tokens((6, 3), 8),
    boxes=Boxes(5),
)
KINDS = [
    Vector(4),
    Vector((4,), 3),
    Image((3, 4, 4), 256),
    Regions((3, 4, 4), names=("sky", "ground", "star")),
    Video((2, 1, 4, 4), 17),
    Volume((1, 3, 4, 5), 2),
    Series((7, 2)),
    Tokens((5,), 9),
    Tokens((2, 3), 4),
    Tokens((2,), 3, ("", "a", "b")),
    Triples((6, 3), 8, objects=4),
    Label(10),
    Label(2, names=("cat", "dog")),
    Attributes((3,), ("hat", "beard", "glasses")),
    Boxes(5),
    Keypoints((3, 5, 3)),
    Quantity((2,), "GeV", 1.0, 100.0),
    Quantity((2,), names=("snow", "fog")),
    Quantity(unit="s"),
]


@pytest.mark.parametrize("field", KINDS, ids=str)
def test_an_example_of_a_field_has_no_faults_and_a_spoilt_one_has(field):
    x = field.example(50, torch.Generator().manual_seed(0))
    assert x.shape == (50, *field.shape) and field.faults(x) == ""
    assert field.dim == x[0].numel() and x.unique().numel() > 1
    assert "shape" in field.faults(x[..., None])
    if x.is_floating_point():
        x.view(-1)[3] = float("nan")
        assert "finite" in field.faults(x)


@pytest.mark.parametrize(
    ("field", "bad", "said"),
    [
        (Image((1, 1, 1), 4), 4.0, "levels 0..3"),
        (Image((1, 1, 1), 4), 1.5, "levels 0..3"),
        (Image((1, 1, 1), 4), -1.0, "levels 0..3"),
        (Tokens((1,), 3), 3, "outside 0..2"),
        (Tokens((1,), 3), 1.0, "not whole numbers"),
        (Label(3), -1, "outside 0..2"),
        (Attributes((1,)), 0.5, "neither 0 nor 1"),
        (Keypoints((1, 1, 3)), -0.5, "places outside [0, 1]"),
        (Keypoints((1, 1, 3)), 0.5, "neither 0 nor 1"),
        (Triples((1, 3), 3, objects=9), 3, "relations outside 0..2"),
        (Triples((1, 3), 9, objects=3), 3, "ends outside 0..2"),
        (Triples((1, 3), 3, objects=3), -1, "outside 0..2"),
        (Quantity((1,), "GeV", 1.0, 2.0), 2.5, "[1, 2] GeV"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(field, bad, said):
    assert said in field.faults(torch.tensor(bad).expand(2, *field.shape))


def test_boxes_have_their_corners_in_order_and_inside():
    good = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]])
    assert Boxes(1).shape == (1, 4) and Boxes(1).faults(good) == ""
    for bad in (good[..., [2, 1, 0, 3]], good[..., [0, 3, 2, 1]], good + 0.7):
        assert "corners" in Boxes(1).faults(bad)


def test_labels_begin_at_0_and_words_of_a_sequence_at_1():
    g = torch.Generator().manual_seed(0)
    assert set(Label(3).example(99, g).tolist()) == {0, 1, 2}
    assert set(Tokens((2,), 3).example(99, g).flatten().tolist()) == {1, 2}


def test_relations_begin_at_1_and_ends_at_0():
    triples = Triples((2, 3), 4, objects=2).example(99, torch.Generator().manual_seed(0))
    assert {*triples[..., 1].flatten().tolist()} == {1, 2, 3}
    assert {*triples[..., ::2].flatten().tolist()} == {0, 1}


def test_the_short_form_is_a_spec_of_x_and_y():
    assert DataSpec((1, 8, 8), 17, 10, "digits") == Spec(
        "digits", x=Image((1, 8, 8), 17), y=Label(10)
    )
    assert DataSpec((2,)) == Spec("data", x=Vector((2,)))
    assert [*SCENES] == ["x", "objects", "triples", "boxes"] and SCENES.num_classes == 0
    assert SCENES.has(x=Image, objects=Tokens) and not SCENES.has(x=Vector)
    assert SCENES.has(x=(Vector, Image)) and not SCENES.has(y=Label)


def test_every_kind_survives_a_checkpoint_and_an_unknown_one_is_named():
    spec = Spec("all", **{f"f{i}": field for i, field in enumerate(KINDS)})
    assert Spec.of(spec.asdict()) == spec and hash(Spec.of(spec.asdict())) == hash(spec)
    said = spec.asdict()
    said["fields"]["f0"]["kind"] = "Odour"
    with pytest.raises(ValueError, match=r"of the kind Odour.*import the module"):
        Spec.of(said)


def test_a_kind_of_ones_own_is_one_class():
    known = core_spec.KINDS

    class Angle(Field):
        what = "angles"

    try:
        spec = Spec("turns", x=Angle((3,)))
        assert Spec.of(spec.asdict()) == spec and "angles" in str(spec)
    finally:
        del known["Angle"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Image((8, 8)), "(C, H, W)"),
        (lambda: Video((3, 8, 8)), "(T, C, H, W)"),
        (lambda: Series((7,)), "(T, D)"),
        (lambda: Boxes((5, 3)), "(N, 4)"),
        (lambda: Label(0), "at least 1"),
        (lambda: Attributes((2,), ("one",)), "names"),
        (lambda: Tokens((2,), 3, ("one",)), "3 words have as many names"),
        (lambda: Quantity((2,), names=("one",)), "2 numbers have as many names"),
        (lambda: Triples((2, 4), 3), "(T, 3)"),
        (lambda: Triples((2, 3), 3, objects=0), "at least 1 object"),
        (lambda: Regions((2, 4, 4), names=("one",)), "2 regions have as many names"),
        (lambda: Keypoints((2, 5, 2)), "(N, P, 3)"),
        (lambda: Image((1, 0, 8)), "positive"),
    ],
)
def test_impossible_fields_are_refused(make, said):
    with pytest.raises(ValueError, match=r"got|have") as caught:
        make()
    assert said in str(caught.value)


def test_what_a_model_needs_is_named_with_what_there_is():
    with pytest.raises(ValueError, match=r"sg2im needs boxes called boxes, got faces.*; choose"):
        Spec("faces", x=Image((3, 8, 8), 256)).require("sg2im", x=Image, boxes=Boxes)
    with pytest.raises(ValueError, match=r"gan models vectors or images, got scenes.*; choose"):
        Spec("scenes", a=Image((3, 8, 8), 256)).require("gan", x=(Vector, Image))
    with pytest.raises(ValueError, match="has no x"):
        _ = Spec("pairs", a=Image((3, 8, 8), 256)).shape
    with pytest.raises(TypeError, match="x is a Field such as"):
        Spec("pairs", x=(3, 8, 8))


def test_a_batch_splits_chooses_and_counts_its_rows_without_knowing_what_they_mean():
    batch = SCENES.example(6, seed=1)
    batch["index"] = torch.arange(6)
    assert batch.n == 6 and Batch({}, 4).n == 4 and Batch({}, 4).chunk(2)[1].n == 2
    parts = batch.chunk(3)
    assert [p.n for p in parts] == [2, 2, 2]
    assert torch.equal(torch.cat([p["triples"] for p in parts]), batch["triples"])
    few = batch.only(("objects",))
    assert set(few) == {"objects", "index"} and few.n == 6
    assert set(batch.only(())) == {"index"}
    assert batch.rows(torch.tensor([5, 0]))["index"].tolist() == [5, 0]
    assert batch.rows(batch["index"] > 3).n == 2
    with pytest.raises(KeyError, match="no energy; it has x, objects"):
        batch.only(("energy",))
    with pytest.raises(ValueError, match="equally many rows"):
        Batch({"x": torch.zeros(3), "y": torch.zeros(2)})
    moved = batch.to("cpu", torch.float64)
    assert moved["x"].dtype == torch.float64 and moved["objects"].dtype == torch.long


def test_a_batch_stays_one_through_lightnings_transfer():
    from lightning_utilities.core.apply_func import apply_to_collection

    batch = SCENES.example(6)
    moved = apply_to_collection(batch, torch.Tensor, lambda t: t.clone())
    assert isinstance(moved, Batch) and moved.n == 6 and set(moved) == set(batch)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DataSpec(5), "a data shape is a tuple of whole sizes, got 5"),
        (lambda: DataSpec((1.5, 8, 8)), r"whole sizes, got \(1.5, 8, 8\)"),
        (lambda: DataSpec("abc"), "whole sizes, got 'abc'"),
        (lambda: Image(None), "the shape of images is a tuple of whole sizes, got None"),
        (lambda: DataSpec((1, 8, 8), 2.5), "levels is at least 2, .* got 2.5"),
        (lambda: DataSpec((1, 8, 8), 2, -1), "labels have at least 1 word, got -1"),
        (lambda: DataSpec((1, 8, 8), 2, 2.5), "labels have at least 1 word, got 2.5"),
    ],
)
def test_sizes_levels_and_classes_are_whole_numbers(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_whole_numbers_of_any_type_are_kept_as_plain_ones():
    spec = DataSpec(torch.Size([1, 8, 8]), np.int64(17), np.int64(10))
    plain = [*spec.shape, spec.levels, spec.num_classes]
    assert {type(v) for v in plain} == {int} and Spec.of(spec.asdict()) == spec
