"""What is said of a drawn scene is so: boxes, masks and keypoints by brute force, captions by hand,
graphs of scenes made by hand; and whatever is asked for, the scene stays the same.
"""

import hashlib
import math
from typing import get_args

import numpy as np
import pytest
import torch

from zoo.core import Label, Regions
from zoo.data.captions import (
    ALPHABET,
    GROUNDS,
    NAMES,
    PLACES,
    VOCABULARY,
    captions,
    chars,
    claims,
    matches,
    sentence,
    tokens,
)
from zoo.data.layouts import AREAS, OWN, boxes, keypoints, label_map, layout, masks
from zoo.data.scene import COLOURS, SHAPES, Options, Scene, Thing, draw, factors, mask, render
from zoo.data.scene_graph import OBJECTS, RELATIONS, graph, relation, triples
from zoo.data.shapes import FIELDS, Also, Shapes, ShapesDataset

TINY = {"size": 16, "n": 12, "n_val": 5, "n_test": 5}
ALL = get_args(Also)
CROWDED = Options(objects=(2, 4), background="horizon", transients=True)
IMAGES = {  # fingerprints of images and classes, as they were before there were other fields
    "ae04196efded669f": {},
    "68c9c367c37e3a1b": {
        "size": 16,
        "objects": (2, 4),
        "background": "horizon",
        "transients": True,
        "pointer": True,
        "hats": False,
    },
    "f610207ad04c0c07": {
        "size": 64,
        "objects": (1, 3),
        "background": "checker",
        "stripes": False,
    },
}


def thing(**changes):
    plain = {"shape": 0, "colour": 0, "radius": 0.2, "x": 0.5, "y": 0.5, "angle": 0.0}
    return Thing(**{**plain, "hat": False, "striped": False, "outlined": False, **changes})


def of(*things, background="plain", horizon=0.5):
    return Scene(things, background, (0, 1), horizon, (0.0,) * 5)


def crowds(n=40):
    return [draw(0, 0, i, CROWDED) for i in range(n)]


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return np.array_equal(np.asarray(a), np.asarray(b))


# -- determinism ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("print_", "options"), IMAGES.items(), ids=str)
def test_images_are_what_they_were(print_, options):
    few = {"n": 200, "n_val": 50, "n_test": 50, "seed": 3}
    data, found = Shapes(**few, **options), hashlib.sha256()
    for split in ("train", "val", "test"):
        for name in ("x", "y"):
            found.update(data.split(split)[name].numpy().tobytes())
    assert found.hexdigest()[:16] == print_


def test_a_field_depends_on_seed_split_and_item_alone():
    few, many = (ShapesDataset(n, 16, "val", [*FIELDS], 5, CROWDED) for n in (9, 30))
    forwards = [few[i] for i in range(9)]
    for i in (7, 2, 8, 0):
        assert same(few[i], forwards[i]) and same(many[i], forwards[i])
    others = [ShapesDataset(9, 16, "val", [*FIELDS], 6, CROWDED)]
    others.append(ShapesDataset(9, 16, "test", [*FIELDS], 5, CROWDED))
    for name in ("captions", "tokens", "boxes", "keypoints", "masks", "layout", "triples"):
        for other in others:
            assert not all(same(other[i][name], forwards[i][name]) for i in range(9))


def test_asking_for_fields_changes_no_image_and_no_other_field():
    plain = Shapes(**TINY, background="horizon", objects=(1, 3), transients=True)
    every = Shapes(**TINY, background="horizon", objects=(1, 3), transients=True, fields=ALL)
    for split in ("train", "val"):
        for name in plain.spec:
            assert torch.equal(plain.split(split)[name], every.split(split)[name])
    for name in ALL:
        alone = Shapes(
            **TINY, background="horizon", objects=(1, 3), transients=True, fields=(name,)
        )
        assert torch.equal(alone.split("train")[name], every.split("train")[name])


def test_an_option_moves_no_field_that_does_not_speak_of_it():
    full = Options((2, 4), "horizon", True, pointer=True)
    bare = Options((2, 4), "horizon", False, hats=False, stripes=False, outlines=False)
    for i in range(12):
        a, b = draw(0, 0, i, full), draw(0, 0, i, bare)
        for name in ("boxes", "keypoints", "masks", "layout", "graph", "identity"):
            assert same(FIELDS[name](a, 16), FIELDS[name](b, 16))
        for said, less in zip(captions(a), captions(b), strict=True):
            assert said.replace(" striped", "").replace(" with a hat", "") == less


# -- captions -------------------------------------------------------------------------------------
def test_every_caption_is_true_and_of_other_scenes_most_are_false():
    scenes = [draw(0, 0, i, Options(transients=True)) for i in range(300)]
    known = [factors(scene, 16) for scene in scenes]
    for scene, facts in zip(scenes, known, strict=True):
        said = captions(scene)
        assert len(said) == 5 and all(matches(c, facts) for c in said)
        assert all(any(hue in c.split() for hue in COLOURS) for c in said[:3])
    elsewhere = [matches(captions(a)[0], b) for a, b in zip(scenes, known[1:], strict=False)]
    assert np.mean(elsewhere) < 0.05


FACTS = factors(of(thing(shape=1, colour=7, radius=0.25, x=0.2, y=0.9, striped=True)), 16)


@pytest.mark.parametrize(
    "caption",
    [
        "an orange square",
        "the big orange striped box in the bottom left on a slate background",
        "a square",
        "a large square",
        "the striped square",
    ],
)
def test_the_oracle_takes_what_is_so(caption):
    assert matches(caption, FACTS)


@pytest.mark.parametrize(
    "caption",
    [
        "a orange square",
        "an red square",
        "a red square",
        "an orange circle",
        "a small square",
        "an orange square with a hat",
        "an orange square in the bottom right",
        "an orange square on the left",
        "an orange square on a sand background",
        "an orange",
        "orange square",
        "an orange square square",
        "an orange large square",
        "an orange square on a slate background in the bottom left",
        "an orange square ",
        "",
    ],
)
def test_the_oracle_refuses_what_is_not_so_or_not_said_so(caption):
    assert not matches(caption, FACTS)


def test_captions_are_of_the_first_object_and_the_first_colour():
    for scene in crowds(20):
        alone = Scene(
            scene.things[:1], "plain", scene.colours, 0.5, scene.transients, key=scene.key
        )
        assert captions(scene) == captions(alone)
        assert all(matches(c, factors(alone, 16)) for c in captions(scene))


def test_stripes_and_hats_are_named_only_where_they_are():
    for i in range(200):
        scene = draw(1, 0, i)
        first = scene.things[0]
        said = " ".join(captions(scene))
        assert first.hat or "hat" not in said
        assert first.striped or "striped" not in said


def test_parts_and_synonyms_come_as_often_as_stated():
    scenes = [draw(2, 0, i) for i in range(1500)]
    said = np.array([[claims(c) is not None and c for c in captions(s)] for s in scenes])

    def share(among, words):
        return np.mean([any(f" {w} " in f"{c} " for w in words) for c in said[among].flatten()])

    first = [s.things[0] for s in scenes]
    everyone = slice(None)
    assert share(everyone, PLACES) == pytest.approx(0.6, abs=0.03)
    assert share(everyone, ["background"]) == pytest.approx(0.6, abs=0.03)
    for name, word in (("hat", "hat"), ("striped", "striped")):
        has = np.array([getattr(t, name) for t in first])
        assert share(has, [word]) == pytest.approx(0.6, abs=0.04)
    coloured = [[any(h in c.split() for h in COLOURS) for c in row] for row in said]
    assert np.mean(coloured, 0) == pytest.approx([1, 1, 1, 0.6, 0.6], abs=0.04)
    assert np.mean([[c.startswith("the ") for c in row] for row in said]) == pytest.approx(
        0.5, abs=0.03
    )
    circles, squares = (np.array([t.shape == k for t in first]) for k in (0, 1))
    assert share(circles, ["circle"]) == pytest.approx(0.7, abs=0.05)
    assert share(circles, ["disc"]) == pytest.approx(0.15, abs=0.04)
    assert share(circles, ["ball"]) == pytest.approx(0.15, abs=0.04)
    assert share(squares, ["box"]) == pytest.approx(0.3, abs=0.05)
    small = np.array([t.radius < 0.18 for t in first])
    assert share(small, ["small"]) == pytest.approx(0.6 * 0.7, abs=0.05)
    assert share(small, ["tiny"]) == pytest.approx(0.6 * 0.15, abs=0.04)
    assert share(~small, ["small", "little", "tiny"]) == 0


def test_places_are_the_cells_of_a_grid():
    at = {
        (0.2, 0.2): "in the top left",
        (0.5, 0.2): "at the top",
        (0.8, 0.5): "on the right",
        (0.2, 0.5): "on the left",
        (0.5, 0.5): "in the middle",
        (0.8, 0.8): "in the bottom right",
    }
    for (x, y), where in at.items():
        facts = factors(of(thing(x=x, y=y)), 16)
        assert [p for p in PLACES if matches(f"a red circle {p}", facts)] == [where]


def test_tokens_and_letters_spell_the_captions():
    longest = 0
    for scene in crowds(60):
        said = captions(scene)
        words, letters = tokens(scene), chars(scene)
        assert words.shape == (5, 16) and letters.shape == (5, 201)
        assert tuple(map(sentence, words)) == said
        assert tuple("".join(ALPHABET[i] for i in row) for row in letters) == said
        for row in (*words, *letters):
            used = np.count_nonzero(row)
            assert (row[:used] > 0).all() and (row[used:] == 0).all()
        longest = max(longest, *(len(c.split()) for c in said))
    assert longest <= 16 and len(ALPHABET) == len({*ALPHABET}) == 71
    assert len(VOCABULARY) == len({*VOCABULARY}) and VOCABULARY[0] == ALPHABET[0] == ""
    most = "a large magenta striped circle with a hat in the top left on a slate background"
    assert len(most.split()) == 16 and claims(most) is not None


def test_captions_are_of_the_group_of_numbers_that_is_theirs():
    scene = draw(5, 1, 17)
    stream = np.random.SeedSequence(entropy=5, spawn_key=(1, 17, 2))
    u = np.random.Generator(np.random.PCG64(stream)).random((5, 11))
    first = scene.things[0]
    for caption, row in zip(captions(scene), u, strict=True):
        said = claims(caption)
        assert caption.startswith("the ") == (row[0] < 0.5)
        assert ("size" in said, "place" in said, "ground" in said) == (*(row[[1, 5, 6]] < 0.6),)
        assert ("hat" in said) == (first.hat and row[4] < 0.6)
        assert said.get("ground", scene.colours[0]) == scene.colours[0]
    assert len(GROUNDS) == 6 and len(NAMES) == len(SHAPES)


# -- places ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [16, 32])
def test_boxes_are_tight_around_whole_objects(size):
    at = (np.arange(20 * size) + 0.5) / (20 * size)
    for scene in crowds(15):
        found = boxes(scene, size)
        assert found.dtype == np.float32 and found.shape == (len(scene.things), 4)
        for box, one in zip(found, scene.things, strict=True):
            thin = SHAPES[one.shape] in ("triangle", "star")  # tips pass between the centres
            y, x = np.nonzero(mask(one, at[None], at[:, None]))
            tight = at[x.min()], at[y.min()], at[x.max()], at[y.max()]
            assert box == pytest.approx(tight, abs=(0.4 if thin else 0.2) / size)
            y, x = np.nonzero(masks(of(one), size)[0])
            pixels = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) / size
            assert abs(box - pixels).max() <= (1.5 if thin else 1) / size


def test_what_lies_outside_the_frame_is_cut_off():
    left, out = thing(x=0.05, radius=0.2), thing(x=-0.5, radius=0.2)
    assert boxes(of(left), 32)[0] == pytest.approx((0, 0.3, 0.25, 0.7), abs=0.01)
    assert boxes(of(out), 32)[0].tolist() == [0, 0, 0, 0]
    assert keypoints(of(left))[0, :, 2].tolist() == [1, 1, 1, 1, 0]  # its left side is outside


def test_a_mask_is_of_the_pixels_whose_centre_shows_the_object():
    shown = dict.fromkeys((0, 1), 0)
    for scene in crowds(10):
        found, labels = masks(scene, 16), label_map(scene, 16)
        for i in range(16):
            for j in range(16):
                x, y = np.array((j + 0.5) / 16), np.array((i + 0.5) / 16)
                inside = [k for k, one in enumerate(scene.things) if mask(one, x, y)]
                top = inside[-1] if inside else None
                assert found[:, i, j].tolist() == [int(k == top) for k in range(len(found))]
                below = "ground" if y > scene.horizon else "sky"
                area = below if top is None else SHAPES[scene.things[top].shape]
                assert AREAS[labels[i, j]] == area
                shown[min(len(inside), 1)] += 1
        assert found.dtype == np.uint8
    assert min(shown.values()) > 100


def test_a_layout_is_the_label_map_one_hot_with_ground_on_horizons_only():
    scene = crowds(1)[0]
    found = layout(scene, 32)
    assert found.shape == (8, 32, 32) and (found.sum(0) == 1).all()
    assert np.array_equal(found.argmax(0), label_map(scene, 32))
    ring = thing(shape=5, radius=0.3)
    flat, ground = of(ring), of(ring, background="horizon", horizon=0.25)
    assert {*np.unique(label_map(flat, 32))} == {0, 7}
    assert label_map(flat, 33)[16, 16] == 0 and label_map(ground, 33)[16, 16] == 1  # in its hole


def test_the_picture_shows_the_layout():
    """A pixel that the mask gives to a white disc is white; else it is the background's."""
    for i in range(10):
        x, y = draw(0, 0, i).things[0].x, draw(0, 0, i).things[0].y
        scene = of(thing(colour=6, x=x, y=y, radius=0.12))
        white = (render(scene, 64) > 200).all(0)
        assert (white != (masks(scene, 64)[0] > 0)).mean() < 0.01


def test_keypoints_turn_with_their_object():
    upright, turned = (keypoints(of(thing(angle=a)))[0, :, :2] for a in (0.0, math.pi / 2))
    assert upright == pytest.approx(0.5 + 0.2 * OWN, abs=1e-6)
    assert turned == pytest.approx(upright[[0, 2, 3, 4, 1]], abs=1e-6)  # clockwise: top to right
    for scene in crowds(10):
        for points, one in zip(keypoints(scene), scene.things, strict=True):
            away = np.hypot(points[:, 0] - one.x, points[:, 1] - one.y) / one.radius
            assert away == pytest.approx([0, 0.9, 0.9, 0.9, 0.9], abs=1e-4)
    top = keypoints(of(thing(shape=2, angle=1.0)))[0, 1]
    assert mask(thing(shape=2, angle=1.0), *top[:2, None])[0]  # near a triangle's apex


def test_a_keypoint_is_seen_unless_a_later_object_covers_it():
    first, small = thing(radius=0.2), thing(radius=0.05, x=0.5, y=0.5 - 0.18)
    assert keypoints(of(first, small))[0, :, 2].tolist() == [1, 0, 1, 1, 1]
    assert keypoints(of(small, first))[1, :, 2].tolist() == [1, 1, 1, 1, 1]
    assert keypoints(of(small, first))[0, 0, 2] == 0
    ring = thing(shape=5, radius=0.3)
    assert keypoints(of(small, ring))[0, 0, 2] == 0 and keypoints(of(first, ring))[0, 0, 2] == 1


# -- graphs ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("s", "o", "name"),
    [
        ({"x": 0.2}, {"x": 0.8}, "left of"),
        ({"x": 0.8}, {"x": 0.2}, "right of"),
        ({"y": 0.2}, {"y": 0.8}, "above"),
        ({"y": 0.8}, {"y": 0.2}, "below"),
        ({"x": 0.8, "y": 0.75}, {"x": 0.2, "y": 0.25}, "right of"),
        ({"x": 0.2, "y": 0.75}, {"x": 0.8, "y": 0.25}, "left of"),
        ({"x": 0.75, "y": 0.2}, {"x": 0.25, "y": 0.8}, "above"),
        ({"x": 0.25, "y": 0.8}, {"x": 0.75, "y": 0.2}, "below"),
        ({"radius": 0.1}, {"radius": 0.3}, "inside"),
        ({"radius": 0.3}, {"radius": 0.1}, "surrounding"),
        ({"x": 0.45, "radius": 0.25}, {"x": 0.55, "radius": 0.25}, "left of"),
    ],
)
def test_relations_are_those_of_the_rule(s, o, name):
    s, o = thing(**{"radius": 0.12, **s}), thing(**{"radius": 0.12, **o})
    assert relation(s, o, *boxes(of(s, o), 32)) == name


def test_diagonals_and_equal_boxes_belong_to_left_and_right():
    box = (0.0, 0.0, 1.0, 1.0)
    there = {(1, 1): "right of", (1, -1): "right of", (-1, 1): "left of", (-1, -1): "left of"}
    for (dx, dy), name in there.items():
        s, o = thing(x=0.5 + 0.25 * dx, y=0.5 + 0.25 * dy), thing()
        assert relation(s, o, box, box) == name
    within = (0.0, 0.1, 0.9, 0.9)  # not strictly: it touches the left side
    assert relation(thing(x=0.6), thing(), within, box) == "right of"


def test_a_graph_has_each_object_once_by_chance_and_once_in_the_image():
    others, forward = set(), []
    for scene in crowds(200):
        count, found = len(scene.things), graph(scene, 16)
        names = [OBJECTS[i] for i in found["objs"]]
        assert names == [*(SHAPES[t.shape] for t in scene.things), "__image__"]
        assert found["triples"].shape == (2 * count, 3)
        where = boxes(scene, 16)
        for k, (s, p, o) in enumerate(found["triples"][:count]):
            assert s != o and k in (s, o) and max(s, o) < count
            forward.append(s == k)
            others.add((count, k, s + o - k))
            a, b = scene.things[s], scene.things[o]
            assert RELATIONS[p] == relation(a, b, where[s], where[o])
        inside = RELATIONS.index("__in_image__")
        assert found["triples"][count:].tolist() == [[k, inside, count] for k in range(count)]
    assert others == {(n, k, j) for n in (2, 3, 4) for k in range(n) for j in range(n) if j != k}
    assert np.mean(forward) == pytest.approx(0.5, abs=0.06)
    assert triples(of(thing()), 16).tolist() == [[0, 7, 1]]


def test_a_graph_is_of_the_group_of_numbers_that_is_its_own():
    options = Options(objects=(4, 4))
    stream = np.random.SeedSequence(entropy=5, spawn_key=(1, 17, 6))
    u = np.random.Generator(np.random.PCG64(stream)).random((4, 2))
    found = triples(draw(5, 1, 17, options), 16)[:4, ::2]
    for k, (which, direction) in enumerate(u):
        other = [*range(k + 1, 4), *range(k)][int(3 * which)]
        assert found[k].tolist() == ([k, other] if direction < 0.5 else [other, k])


# -- other factors --------------------------------------------------------------------------------
def test_a_scene_with_another_factor_differs_in_nothing_else():
    scene = next(s for s in crowds() if len(s.things) == 3 and not any(t.striped for t in s.things))
    striped = scene.but(striped=True)
    before, after = factors(scene, 16), factors(striped, 16)
    assert after["striped"].all() and not before["striped"].any()
    assert [k for k in before if not same(before[k], after[k])] == ["striped"]
    for name in ("boxes", "masks", "layout", "keypoints", "graph"):
        assert same(FIELDS[name](scene, 16), FIELDS[name](striped, 16))
    x, y = (render(s, 16).astype(int) for s in (scene, striped))
    moved = (x != y).any(0)
    assert (
        moved.any()
        and not moved[masks(scene.but(), 128).reshape(-1, 16, 8, 16, 8).sum((0, 2, 4)) == 0].any()
    )


def test_one_object_can_turn_and_the_light_can_change():
    scene = crowds(1)[0]
    turned = scene.but(only=1, angle=1.25, pointer=True)
    before, after = factors(scene, 16), factors(turned, 16)
    assert [k for k in before if not same(before[k], after[k])] == ["angle"] and turned.pointer
    assert (before["angle"] != after["angle"]).tolist() == [
        k == 1 for k in range(len(scene.things))
    ]
    night = scene.but(transients=(1.0, 0, 0, 0, 0))
    assert night.things == scene.things and night.key == scene.key
    plain = scene.but(transients=(0.0,) * 5)
    assert render(night, 16).mean() == pytest.approx(render(plain, 16).mean() / 4, abs=1)
    with pytest.raises(TypeError, match="fog"):
        scene.but(fog=1.0)


# -- batches --------------------------------------------------------------------------------------
def test_the_data_module_serves_every_field_as_its_spec_says():
    data = Shapes(**TINY, objects=(1, 3), background="horizon", transients=True, fields=ALL)
    batch = data.examples(split="val")
    assert [*data.spec] == ["x", "y", *ALL]
    for name, field in data.spec.items():
        assert field.faults(batch[name]) == ""
    assert isinstance(data.spec["layout"], Regions) and isinstance(data.spec["identity"], Label)
    for i in range(5):
        scene, said = data.dataset("val").scene(i), data.captions("val", i)
        count = len(scene.things)
        assert tuple(map(sentence, batch["tokens"][i])) == said
        assert data.spec["identity"].name(int(batch["identity"][i])) == (
            f"{[*COLOURS][scene.things[0].colour]} {SHAPES[scene.things[0].shape]}"
        )
        assert batch["transients"][i].tolist() == pytest.approx(scene.transients)
        for name, rows in (("boxes", count), ("keypoints", count), ("masks", count)):
            assert same(batch[name][i, :rows].float(), FIELDS[name](scene, 16).astype(np.float32))
            assert not batch[name][i, rows:].any()
        assert (batch["objs"][i] > 0).sum() == count + 1
        related = batch["triples"][i, :, 1]
        assert (related > 0).sum() == (2 * count if count > 1 else 1)
    assert len({len(data.dataset("val").scene(i).things) for i in range(5)}) > 1


def test_scenes_of_one_object_have_graphs_of_one_edge():
    data = Shapes(**TINY, fields=("objs", "triples", "boxes", "masks"))
    assert data.spec["triples"].shape == (1, 3) and data.spec["objs"].shape == (2,)
    assert (data.examples()["triples"] == torch.tensor([0, 7, 1])).all()


def test_fields_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"shapes: fields is each one of .*boxes.*, got"):
        Shapes(fields=("captions",))
    with pytest.raises(ValueError, match="transients=true makes some"):
        Shapes(fields=("transients",))
