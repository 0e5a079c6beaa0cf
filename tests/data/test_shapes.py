"""Drawn scenes: an item is a function of seed, split, number and options; what is drawn has the
geometry it says.
"""

import math

import numpy as np
import pytest
import torch

from zoo.data import scene as world
from zoo.data.scene import (
    ATTRIBUTES,
    COLOURS,
    MUTED,
    SHAPES,
    Options,
    Scene,
    Thing,
    draw,
    inside,
    render,
)
from zoo.data.shapes import FIELDS, Shapes, ShapesDataset

TINY = {"size": 16, "n": 12, "n_val": 5, "n_test": 5}
AREAS = {  # of the shape with circumradius 1, in closed form
    "circle": math.pi,
    "square": 2.0,
    "triangle": 3 * math.sqrt(3) / 4,
    "cross": 4 * 0.66 - 0.66**2,
    "star": 10 * 0.5 * 0.45 * math.sin(math.pi / 5),
    "ring": math.pi * (1 - 0.55**2),
}


def thing(**changes):
    plain = {
        "shape": 0,
        "colour": 6,
        "radius": 0.25,
        "x": 0.5,
        "y": 0.5,
        "angle": 0.0,
        "hat": False,
        "striped": False,
        "outlined": False,
    }
    return Thing(**{**plain, **changes})


def one(background="plain", transients=(0.0,) * 5, **changes):
    return Scene((thing(**changes),), background, (0, 1), 0.5, transients)


def parts(data, name="train"):
    return data.split(name)["x"]


def test_an_item_does_not_depend_on_the_number_of_items_or_the_order_of_reading():
    few, many = Shapes(**TINY), Shapes(**{**TINY, "n": 30, "n_val": 9})
    assert torch.equal(parts(few), parts(many)[:12])
    assert torch.equal(parts(few, "val"), parts(many, "val")[:5])
    data = few.dataset("train", ["image"])
    for i in (7, 2, 11):
        assert torch.equal(
            (torch.from_numpy(data[i]["image"]) * 255).round(), parts(few)[i].float()
        )


def test_splits_and_seeds_are_different_scenes():
    a, b = Shapes(**TINY), Shapes(**TINY, seed=1)
    assert not torch.equal(parts(a)[:5], parts(a, "val"))
    assert not torch.equal(parts(a, "val"), parts(a, "test"))
    assert not torch.equal(parts(a), parts(b))


def test_switching_an_option_off_changes_no_other_factor():
    full = [draw(0, 0, i, Options(background="horizon", transients=True)) for i in range(40)]
    bare = [draw(0, 0, i, Options(hats=False, stripes=False, outlines=False)) for i in range(40)]
    for a, b in zip(full, bare, strict=True):
        assert {**vars(a.things[0]), "hat": 0, "striped": 0, "outlined": 0} == {**vars(b.things[0])}
        assert (a.colours, a.horizon) == (b.colours, b.horizon)
    assert any(s.things[0].hat for s in full) and any(any(s.transients) for s in full)
    several = [draw(0, 0, i, Options(objects=(2, 4))) for i in range(40)]
    assert [s.things[0] for s in several] == [draw(0, 0, i).things[0] for i in range(40)]
    assert {len(s.things) for s in several} == {2, 3, 4}


def test_the_numbers_are_those_of_the_stated_generator():
    sequence = np.random.SeedSequence(entropy=5, spawn_key=(1, 17, 0))
    u = np.random.Generator(np.random.PCG64(sequence)).random(48)
    found = draw(5, 1, 17).things[0]
    r = 0.12 + 0.18 * u[3]
    assert (found.shape, found.colour) == (int(6 * u[1]), int(8 * u[2]))
    assert (found.radius, found.x, found.y) == pytest.approx(
        (r, r + (1 - 2 * r) * u[4], r + (1 - 2 * r) * u[5])
    )
    assert found.angle == pytest.approx(math.tau * u[44])
    assert (found.hat, found.striped, found.outlined) == (u[45] < 0.5, u[46] < 0.3, u[47] < 0.3)


def test_factors_have_their_stated_frequencies():
    scenes = [draw(0, 0, i, Options(transients=True)) for i in range(2000)]
    things = [s.things[0] for s in scenes]
    for values, n in (
        ([t.shape for t in things], 6),
        ([t.colour for t in things], 8),
        ([s.colours[0] for s in scenes], 6),
    ):
        assert np.bincount(values, minlength=n) / 2000 == pytest.approx([1 / n] * n, abs=0.03)
    for name, share in (("hat", 0.5), ("striped", 0.3), ("outlined", 0.3)):
        assert np.mean([getattr(t, name) for t in things]) == pytest.approx(share, abs=0.035)
    assert np.mean([t.radius for t in things]) == pytest.approx(0.21, abs=0.004)
    transients = np.array([s.transients for s in scenes])
    assert (transients == 0).mean(0) == pytest.approx([0.5] * 5, abs=0.035)
    assert all(s.colours[0] != s.colours[1] for s in scenes)


def test_objects_keep_apart_better_than_chance():
    def room(scene):
        a, b = scene.things
        return math.hypot(a.x - b.x, a.y - b.y) - a.radius - b.radius

    together = [room(draw(0, 0, i, Options(objects=(2, 2)))) > 0 for i in range(300)]
    alone = [draw(0, 0, i).things[0] for i in range(600)]
    strangers = [
        room(Scene((a, b), "plain", (0, 1), 0.5, ())) > 0
        for a, b in zip(alone[::2], alone[1::2], strict=True)
    ]
    assert np.mean(together) > 0.65 > 0.35 > np.mean(strangers)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_area_and_its_centre(shape):
    axis = (np.arange(800) + 0.5) / 400 - 1
    covered = inside(shape, *np.broadcast_arrays(axis[None] * 1.1, axis[:, None] * 1.1))
    assert covered.mean() * 2.2**2 == pytest.approx(AREAS[shape], rel=0.01)
    y, x = np.nonzero(covered)
    assert (x.mean(), y.mean()) == pytest.approx((399.5, 399.5), abs=0.5)


@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("shape", range(6))
def test_a_rendered_object_covers_its_area_around_its_centre(shape, angle):
    white = render(one(shape=shape, angle=angle, x=0.45, y=0.55), 64).astype(float)
    ground = np.array(MUTED[0])[:, None, None]
    share = ((white - ground) / (240 - ground)).mean(0)  # of each pixel that the object covers
    assert share.sum() / 64**2 == pytest.approx(AREAS[SHAPES[shape]] * 0.25**2, rel=0.03)
    at = (np.arange(64) + 0.5) / 64
    centroid = (share.sum(0) @ at / share.sum(), share.sum(1) @ at / share.sum())
    assert centroid == pytest.approx((0.45, 0.55), abs=0.004)


def test_the_triangle_points_up_and_turns_clockwise():
    def rows(angle):
        covered = (render(one(shape=2, angle=angle), 64) == 240).all(0)
        return covered.sum(1), covered.sum(0)

    widths, _ = rows(0.0)
    assert widths[widths > 0][0] < widths[widths > 0][-1]  # narrow above, wide below
    _, heights = rows(math.pi / 2)
    assert heights[heights > 0][0] > heights[heights > 0][-1]  # the apex is now on the right


def test_pixels_have_the_colours_they_should():
    scene = one(shape=1, colour=0, radius=0.3)
    x = render(scene, 16)
    assert tuple(x[:, 8, 8]) == COLOURS["red"] and tuple(x[:, 0, 0]) == MUTED[0]
    striped = render(one(shape=1, colour=0, radius=0.3, striped=True), 64)
    lighter = tuple(math.floor((v + 255) / 2 + 0.5) for v in COLOURS["red"])
    assert {tuple(striped[:, 32, j]) for j in (33, 38)} == {
        COLOURS["red"],
        lighter,
    }  # q_x = 0.08 and 0.34
    outlined = render(one(radius=0.3, outlined=True), 64)
    assert (
        tuple(outlined[:, 32, 32 + 18]) == (0, 0, 0)
        and tuple(outlined[:, 32, 32]) == COLOURS["white"]
    )


def test_the_hat_sits_upright_on_whatever_angle():
    with_hat, without = (
        render(one(shape=0, angle=2.0, hat=h, y=0.6), 64).astype(int) for h in (True, False)
    )
    black = 1 - (with_hat / without).mean(0)  # of each pixel that the hat covers
    y, x = np.nonzero(black)
    assert black.sum() / 64**2 == pytest.approx(0.5 * 0.9 * 0.6 * 0.25**2, rel=0.03)
    assert y.max() / 64 == pytest.approx(0.35, abs=0.02) and x.mean() == pytest.approx(31.5)
    assert (with_hat[:, int(0.32 * 64), 32] == 0).all()


def test_later_objects_cover_earlier_ones():
    scene = Scene((thing(colour=0), thing(colour=2, radius=0.1)), "plain", (0, 1), 0.5, (0.0,) * 5)
    assert tuple(render(scene, 32)[:, 16, 16]) == COLOURS["blue"]


def test_pixels_are_rounded_half_up_once():
    canvas = world.backdrop(one("gradient"), 64)
    mean = canvas.reshape(16, 4, 16, 4, 3).mean((1, 3))
    x = render(one("gradient", radius=0.12), 16)
    assert np.array_equal(x[:, :, 0].T, np.floor(255 * mean[:, 0] + 0.5 + 1e-9))
    image = ShapesDataset(3, 16)[1]["image"]
    assert image.dtype == np.float32 and np.array_equal(
        np.round(image * 255) / np.float32(255), image
    )


def test_transients_act_as_written():
    plain, n = render(one("horizon"), 32) / 255, 32
    sky, ground, thing_at = (slice(None), 0, 0), (slice(None), n - 1, 0), (slice(None), 16, 16)

    def lit(**strengths):
        return (
            render(one("horizon", tuple(strengths.get(k, 0.0) for k in world.TRANSIENTS)), 32) / 255
        )

    assert lit(night=1.0)[sky] == pytest.approx(0.25 * plain[sky], abs=3e-3)
    assert lit(fog=1.0)[thing_at] == pytest.approx(0.3 * plain[thing_at] + 0.56, abs=3e-3)
    assert lit(warm=0.5)[sky] == pytest.approx(plain[sky] * [1.15, 1, 0.85], abs=3e-3)
    snow = lit(snow=0.5)
    assert snow[ground] == pytest.approx(0.6 * plain[ground] + 0.4, abs=3e-3)
    assert np.array_equal(snow[sky], plain[sky]) and np.array_equal(snow[thing_at], plain[thing_at])
    assert lit(wet=1.0)[ground] == pytest.approx(0.7 * plain[ground], abs=3e-3)


@pytest.mark.parametrize("background", world.BACKGROUNDS)
def test_every_background_can_be_drawn_at_every_size(background):
    for size in world.SIZES:
        x = render(one(background), size)
        assert x.shape == (3, size, size) and x.dtype == np.uint8
        assert (len(np.unique(x[:, :, 0])) > 3) == (
            background in ("gradient", "checker", "horizon")
        )  # the left edge


def test_fields_tell_of_the_same_scene():
    data = Shapes(**TINY, objects=(1, 3)).dataset("val", [*FIELDS])
    for i in range(5):
        item, scene = data[i], data.scene(i)
        first = scene.things[0]
        assert item["factors"]["radius"].tolist() == [t.radius for t in scene.things]
        assert (
            item["class_id"] == first.shape and item["identity"] == 8 * first.shape + first.colour
        )
        named = dict(zip(ATTRIBUTES, item["attributes"], strict=True))
        assert named[SHAPES[first.shape]] == 1 and named[[*COLOURS][first.colour]] == 1
        assert (
            item["attributes"][:17].sum() == 3
            and named["small"] == (first.radius < 0.18)
            and named["large"] == (first.radius >= 0.24)
        )
        assert named["left"] == (first.x < 0.5) and named["several"] == (len(scene.things) > 1)
    assert len(ATTRIBUTES) == 24
    dark, light = (Scene((thing(),), "plain", (c, 0), 0.5, (0.0,) * 5) for c in (5, 4))
    where = ATTRIBUTES.index("dark background")
    assert (world.attributes(dark, 16)[where], world.attributes(light, 16)[where]) == (1, 0)


def test_the_data_module_serves_what_its_spec_says():
    data = Shapes(**TINY, background="checker", hats=False)
    batch = data.examples()
    assert batch["x"].shape == (12, *data.spec.shape) and (
        data.spec.levels,
        data.spec.num_classes,
    ) == (256, 6)
    assert batch["y"].tolist() == [draw(0, 0, i).things[0].shape for i in range(12)]
    assert data.spec.name == "shapes 16x16 (checker, no hats)"
    assert batch["x"].aminmax().max <= 255 and torch.equal(batch["x"], batch["x"].round())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Shapes(size=24), "16, 32, 64, 128, got 24"),
        (lambda: Shapes(n=0), "shapes: n is at least 1, got 0"),
        (lambda: Shapes(objects=(2, 1)), r"got \[2, 1\]"),
        (lambda: Shapes(background="sea"), "got 'sea'"),
        (lambda: ShapesDataset(3, fields=["voxel"]), "got 'voxel'"),
    ],
)
def test_bad_values_are_refused_with_the_choices(build, words):
    with pytest.raises(ValueError, match=words):
        build()
