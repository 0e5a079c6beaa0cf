"""Drawn heads: an item is a function of seed, split and number; geometry, labels and masks are what
is said of them.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from zoo.core import Attributes, Image, Label, Quantity, Vector
from zoo.data import heads as module
from zoo.data.head import COEFFICIENTS, IDENTITY, ITEM, POSES, draw
from zoo.data.heads import Heads
from zoo.data.portrait import grid, painted_longitude, render, visible

TINY = {"n": 12, "n_val": 5, "n_test": 5}
ALL = ("identity", "pose", "yaw", "age", "attributes", "coefficients", "frontal", "visible")
ADULT = {"age": 0.3, "yaw": 0.5}  # looks straight ahead


def faces(n=8, pose="aligned", **numbers):
    return draw(0, "train", range(n), pose).but(**numbers)


def directions(size, pose="aligned"):
    """Unit sphere coordinates x, y, z of the pixels' centres, NaN outside the head."""
    a, b = POSES[pose].axes
    at = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(at / a, -at / b)
    with np.errstate(invalid="ignore"):
        return x, y, np.sqrt(1 - x * x - y * y)


# -- determinism ----------------------------------------------------------------------------------
def test_an_item_does_not_depend_on_the_number_of_items_or_on_how_they_are_batched():
    few, many = Heads(**TINY), Heads(**{**TINY, "n": 30, "n_val": 9})
    assert torch.equal(few.split("train")["x"], many.split("train")["x"][:12])
    assert torch.equal(few.split("val")["x"], many.split("val")["x"][:5])
    for pose, size in (("aligned", 32), ("free", 64)):
        heads = draw(3, "test", range(40), pose)
        whole = render(heads, size)
        order = np.random.default_rng(0).permutation(40)
        parts = [render(heads.rows(rows), size) for rows in np.split(order, [1, 4, 21])]
        assert np.array_equal(np.concatenate(parts), whole[order])
        assert {0} < {*heads.age}  # children are drawn over a grid of their own


def test_splits_and_seeds_are_different_heads():
    a, b = Heads(**TINY), Heads(**TINY, seed=1)
    pictures = [d.split(s)["x"][:5] for d in (a, b) for s in ("train", "val", "test")]
    for i, one in enumerate(pictures):
        assert not any(torch.equal(p, q) for other in pictures[:i] for p in one for q in other)


def test_the_numbers_are_those_of_the_stated_generators():
    def stream(*key):
        sequence = np.random.SeedSequence(entropy=5, spawn_key=key)
        return np.random.Generator(np.random.PCG64(sequence)).random(16)

    alone, shared = draw(5, "val", [17]), draw(5, "val", [17], identities=7)
    assert (alone.person[0], shared.person[0]) == (3 * 17 + 1, int(7 * stream(1, 17, 0)[0]))
    for heads in (alone, shared):
        item, person = stream(1, 17, 0), stream(9, int(heads.person[0]))
        assert [heads.u[k][0] for k in ITEM] == [*item[: len(ITEM)]]
        assert [heads.u[k][0] for k in IDENTITY] == [*person[: len(IDENTITY)]]


def test_an_option_changes_no_other_factor():
    plain = draw(0, "train", range(30))
    for other in (draw(0, "train", range(30), "free"), draw(0, "train", range(30), identities=4)):
        assert all(np.array_equal(plain.u[k], other.u[k]) for k in ITEM)
    assert all(
        np.array_equal(plain.u[k], draw(0, "train", range(30), "free").u[k]) for k in IDENTITY
    )
    first = Heads(**TINY).split("train")["x"]
    for options in ({"label": "age"}, {"fields": ("frontal", "yaw")}, {"label": "none"}):
        assert torch.equal(Heads(**TINY, **options).split("train")["x"], first)


def test_people_are_the_same_in_all_their_pictures_and_splits():
    train, test = (draw(0, s, range(60), identities=3) for s in ("train", "test"))
    for heads in (train, test):
        for j in range(3):
            theirs = heads.rows(heads.person == j)
            skin = train.rows(train.person == j).skin[0]
            assert len(theirs) > 5 and (theirs.skin == skin).all()
            assert len({*theirs.yaw}) == len(theirs)


# -- geometry -------------------------------------------------------------------------------------
@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("yaw", [-1.0, -0.25, 0.0, 0.6, 1.0])
def test_the_longitude_painted_is_that_of_the_turned_head(pose, yaw):
    x, _, z = directions(96, pose)
    wanted = np.arctan2(
        x * math.cos(yaw) - z * math.sin(yaw), x * math.sin(yaw) + z * math.cos(yaw)
    )
    inside = ~np.isnan(z)
    found = painted_longitude(np.array([yaw]), grid(96, POSES[pose].axes))[0]
    assert np.array_equal(inside, grid(96, POSES[pose].axes).inside)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-6)


def test_a_head_that_looks_ahead_has_equal_halves_and_a_turned_one_shows_one_of_them():
    g = grid(192, POSES["free"].axes)
    ahead, right, left = painted_longitude(np.array([0.0, 1.0, -1.0]), g)
    np.testing.assert_allclose(ahead, -ahead[:, ::-1], atol=1e-6)
    assert (ahead[g.inside] > 0).mean() == pytest.approx(0.5, abs=1e-9)
    share = (1 - math.sin(1)) / 2  # of the disc beyond the half ellipse of u = 0: 8 to 92
    assert (right[g.inside] > 0).mean() == pytest.approx(share, abs=0.002)
    assert (left[g.inside] > 0).mean() == pytest.approx(1 - share, abs=0.002)


@pytest.mark.parametrize("pose", POSES)
def test_yaw_turns_the_face_to_its_side(pose):
    heads = faces(12, pose, age=0.99, skin=0.0, hat=0.9, glasses=0.0)
    columns = np.arange(32)

    def centre_of_ink(yaw):
        dark = (render(heads.but(yaw=yaw), 32)[:, :, 10:18, 6:26] < 60).all(1).sum((0, 1))
        return (dark * columns[6:26]).sum() / dark.sum()

    at = [centre_of_ink(yaw) for yaw in (0.35, 0.5, 0.65)]
    assert at[0] + 0.5 < at[1] < at[2] - 0.5


def test_a_head_lit_from_the_front_that_looks_ahead_is_its_own_mirror_image():
    heads = faces(20, yaw=0.5, light=0.5, iris=0.0)  # iris: the phase of the strands of hair
    picture = render(heads, 32).astype(int)
    assert abs(picture - picture[..., ::-1]).max() <= 1
    turned = render(heads.but(yaw=0.9), 32).astype(int)
    assert abs(turned - turned[..., ::-1]).mean() > 3


def test_both_sizes_are_pictures_of_the_same_head():
    for pose in POSES:
        heads = faces(24, pose)
        small, large = render(heads, 32).astype(float), render(heads, 64).astype(float)
        halved = large.reshape(24, 3, 32, 2, 32, 2).mean((3, 5))
        assert abs(halved - small).mean() < 2.5
        assert abs(np.roll(halved, 1, 0) - small).mean() > 20


def test_the_frontal_view_is_the_same_head_at_yaw_zero():
    data = Heads(pose="free", fields=("frontal", "yaw"), **TINY)
    part = data.split("train")
    zero = replace(data.factors("train"))
    zero.u["yaw"][:] = 0.5
    assert zero.yaw.tolist() == [0.0] * 12
    assert torch.equal(part["frontal"], torch.from_numpy(render(zero, 32)))
    far = part["yaw"].abs() > 0.3
    assert not any(
        torch.equal(x, f) for x, f in zip(part["x"][far], part["frontal"][far], strict=True)
    )


@pytest.mark.parametrize("size", [32, 64])
def test_the_visibility_mask_is_that_of_a_turned_sphere(size):
    heads = faces(10, "free", age=0.3)
    found = visible(heads, size)
    x, y, z = directions(size, "free")
    points = np.stack([x, y, z], -1)
    for mask, yaw in zip(found[:, 0], heads.yaw, strict=True):
        towards = Rotation.from_euler("y", yaw).apply(np.nan_to_num(points.reshape(-1, 3)))[:, 2]
        wanted = (towards.reshape(size, size) > 0) & ~np.isnan(z)
        assert np.array_equal(mask.astype(bool), wanted)
    full = ~np.isnan(z)
    assert np.array_equal(visible(heads.but(yaw=0.5), size)[0, 0].astype(bool), full)
    side = visible(heads.but(yaw=1.0), size)[0, 0].astype(bool)  # looks right: its right is hidden
    assert side[:, : size // 2].sum() == full[:, : size // 2].sum() and 0 < side.sum() < full.sum()
    child, adult = (visible(heads.but(yaw=0.5, age=a), size)[0].sum() for a in (0.1, 0.3))
    assert child / adult == pytest.approx(0.85**2, rel=0.03)


# -- what is known --------------------------------------------------------------------------------
def test_factors_have_their_stated_frequencies():
    heads = draw(0, "train", range(4000), "free")
    shares = heads.attributes.mean(0)
    assert shares[:4] == pytest.approx([0.3, 0.5, 0.2, 0.25], abs=0.03)
    assert 0.2 < shares[4] < 0.8
    assert np.bincount(heads.age) / 4000 == pytest.approx([1 / 6] * 6, abs=0.03)
    assert np.bincount(heads.direction) / 4000 == pytest.approx([0.2] * 5, abs=0.03)
    assert (heads.yaw.min(), heads.yaw.max()) == pytest.approx((-1.2, 1.2), abs=0.01)
    together = np.corrcoef(np.array([*heads.u.values()]))
    assert abs(together - np.eye(len(together))).max() < 0.08  # independent of each other


def test_coefficients_are_standardised_over_identities_and_end_in_smile_and_yaw():
    heads = draw(0, "train", range(6000), "free")
    c = heads.coefficients
    assert c.shape == (6000, len(COEFFICIENTS) + 2)
    assert c[:, :10].mean(0) == pytest.approx([0] * 10, abs=0.05)
    assert c[:, :10].std(0) == pytest.approx([1] * 10, abs=0.03)
    assert np.array_equal(c[:, 10], heads.attributes[:, 1]) and np.array_equal(c[:, 11], heads.yaw)
    assert abs(np.corrcoef(c[:, 0], heads.skin.mean(1))[0, 1]) > 0.97
    wide, narrow = (faces(4, mouth=m, smile=0.9, beard=0.9, **ADULT) for m in (1.0, 0.0))
    assert (wide.coefficients - narrow.coefficients).round(3).tolist() == [
        [0] * 7 + [round(math.sqrt(12), 3)] + [0] * 4
    ] * 4


def test_the_oldest_have_paler_hair_and_the_youngest_smaller_heads():
    old, grown = faces(40, age=0.99).hair, faces(40, age=0.3).hair
    assert (np.ptp(old, 1) < 0.02).all() and (old.mean(1) > grown.mean(1)).mean() > 0.9
    assert faces(1, age=0.1).scale[0] == 0.85 and faces(1, age=0.2).scale[0] == 1


@pytest.mark.parametrize(
    ("label", "classes"), [("look", 8), ("pose", 5), ("age", 6), ("identity", 4), ("none", 0)]
)
def test_labels_are_what_the_factors_say(label, classes):
    data = Heads(n=60, n_val=5, n_test=5, label=label, identities=4, pose="free")
    heads, names = data.factors("train"), data.class_names
    assert len(names) == len({*names}) == classes == data.spec.num_classes
    if label == "none":
        assert "y" not in data.spec and "classes" not in data.found
        return
    y = data.split("train")["y"].tolist()
    a = heads.attributes.astype(bool)
    for i, k in enumerate(y):
        if label == "look":
            worn = [
                w
                for w, has in zip(("glasses", "hat", "beard"), a[i, [0, 2, 3]], strict=True)
                if has
            ]
            assert names[k] == (" + ".join(worn) or "plain")
        elif label == "pose":
            assert abs(heads.yaw[i] - (k - 2) * 0.48) <= 0.24 + 1e-9
        else:
            assert k == (heads.age if label == "age" else heads.person)[i]
    every = torch.cat([data.split(s)["y"] for s in ("train", "val", "test")]).tolist()
    assert data.found["classes"] == {name: every.count(k) for k, name in enumerate(names)}


def test_every_field_is_of_its_kind_and_holds_what_it_says():
    data = Heads(fields=ALL, identities=3, pose="free", size=64, **TINY)
    kinds = dict(
        zip(ALL, [Label, Label, Quantity, Label, Attributes, Vector, Image, Image], strict=True)
    )
    assert data.spec.has(x=Image, y=Label, **kinds)
    batch, heads = data.examples(), data.factors("train")
    assert not [name for name, field in data.spec.items() if field.faults(batch[name])]
    assert batch["yaw"].tolist() == pytest.approx(heads.yaw.tolist())
    assert batch["attributes"].tolist() == heads.attributes.tolist()
    assert data.spec["attributes"].names == ("glasses", "smile", "hat", "beard", "dark hair")
    assert (data.spec["yaw"].unit, data.spec["visible"].levels) == ("rad", 2)


# -- what is seen ---------------------------------------------------------------------------------
REGIONS = {  # latitudes between which an attribute may change a head that looks ahead
    "glasses": (-0.25, 0.55),
    "smile": (-0.62, -0.15),
    "hat": (0.2, 2.0),
    "beard": (-2.0, -0.1),
}


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("pose", POSES)
def test_an_attribute_changes_the_picture_where_it_should_and_nowhere_else(name, pose):
    heads = faces(24, pose, **ADULT)
    off, on = (render(heads.but(**{name: u}), 64).astype(int) for u in (0.99, 0.0))
    changed = (abs(on - off) > 2).any(1)
    low, high = REGIONS[name]
    _, y, _ = directions(64, pose)
    v = np.arcsin(y.clip(-1, 1))
    assert not changed[:, (v < low) | (v > high)].any()
    assert (changed.sum((1, 2)) > 20).mean() > 0.9  # a beard of the skin's colour is hard to see


def test_a_smile_lifts_the_corners_of_the_mouth():
    heads = faces(12, beard=0.9, mouth=0.9, skin=0.0, **ADULT)
    rows = np.arange(64)[:, None]

    def height(smile, columns):
        """Of the middle of what is redder than skin, in pixels from the top."""
        r, g, _ = render(heads.but(smile=smile), 64).astype(float).transpose(1, 0, 2, 3)
        red = (r - 1.5 * g).clip(0)[:, 38:54, columns]
        return (red * rows[38:54]).sum() / red.sum()

    middle, corner = slice(30, 34), slice(20, 24)
    assert height(0.0, corner) < height(0.0, middle) - 1.5
    assert abs(height(0.9, corner) - height(0.9, middle)) < 1


def test_images_differ_between_identities():
    heads = faces(40, **dict.fromkeys(ITEM, 0.5))  # nothing differs but the person
    pictures = render(heads, 32).reshape(40, -1).astype(float)
    apart = abs(pictures[:, None] - pictures[None]).mean(-1)[~np.eye(40, dtype=bool)]
    assert apart.min() > 2 and np.median(apart) > 12


def test_colours_stay_within_what_bytes_hold():
    bright = faces(30, skin=0.0, backdrop=0.999, age=0.99)
    assert (render(bright, 32) == 255).mean() < 0.02


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 48}, "heads: size is one of 32, 64, got 48"),
        ({"pose": "side"}, "heads: pose is one of aligned, free, got 'side'"),
        ({"n": 0}, "heads: n is at least 1, got 0"),
        ({"label": "identity"}, "--data.identities=100"),
        ({"fields": ("identity",)}, "--data.identities=100"),
        ({"fields": ("nose",)}, "fields is each one of identity, pose"),
        ({"label": "hat"}, "label is one of look, pose, age, identity, none, got 'hat'"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(options, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        Heads(**options)


def test_many_heads_are_drawn_once_and_kept_and_a_changed_file_is_not_believed(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "SLOW", 1)
    drawn = []

    def counted(factors, size):
        drawn.append(len(factors))
        return render(factors, size)

    monkeypatch.setattr(module, "render", counted)
    first = Heads(**TINY).split("train")["x"]
    assert drawn == [12, 5, 5] and len([*tmp_path.iterdir()]) == 1
    assert torch.equal(Heads(**TINY, label="age").split("train")["x"], first)  # from the same file
    assert drawn == [12, 5, 5]
    for other in ({"seed": 1}, {"size": 64}, {"pose": "free"}, {"n": 13}, {"identities": 2}):
        Heads(**{**TINY, **other}).split("train")
    assert len([*tmp_path.iterdir()]) == 6
    del drawn[:]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged or was changed .*: drawn heads are drawn again"):
        assert torch.equal(Heads(**TINY).split("train")["x"], first)
    assert drawn == [12, 5, 5]
