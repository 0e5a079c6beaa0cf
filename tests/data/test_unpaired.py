"""Two domains without pairs: no image is in both, what belongs together is known to validation
alone, and any base of images will do.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.support import Given
from zoo import registry
from zoo.core import DataSpec
from zoo.data import head, portrait, scene, unpaired
from zoo.data.base import apart
from zoo.data.digits import Digits
from zoo.data.pointers import pointers
from zoo.data.scene import COLOURS, MUTED
from zoo.data.unpaired import CHANGES, DRAWINGS, Unpaired, edges, invert, rot90


def images(batch, name):
    return {tuple(row.flatten().int().tolist()) for row in batch[name]}


def test_no_image_is_in_both_domains_and_every_one_is_in_one():
    for split in ("train", "val", "test"):
        data, base = Unpaired(kind="invert"), Digits()
        rows = data.split(split)
        together = torch.cat([rows["a"], rows["b"]]).sort().values
        assert torch.equal(together, torch.arange(base.count(split)))
        whole = data.examples(split=split)
        a, b = images(whole, "a"), images({"b": 16 - whole["b"]}, "b")
        x = base.examples(split=split)["x"]
        assert a | b == images({"x": x}, "x") and len(a & b) <= 1  # of digits drawn twice alike


def test_a_is_the_base_and_b_is_changed_and_the_class_is_that_of_a():
    data, base = Unpaired(kind="rot90", size=16), Digits(size=16)
    rows, batch, x = data.split("val"), data.examples(split="val"), base.examples(split="val")
    assert torch.equal(batch["a"], x["x"][rows["a"]])
    assert torch.equal(batch["y"], x["y"][rows["a"]])
    turned = torch.from_numpy(np.rot90(x["x"][rows["b"]].numpy(), axes=(2, 3)).copy())
    assert torch.equal(batch["b"], turned)


def test_what_belongs_to_a_is_known_in_validation_and_test_only():
    data = Unpaired(kind="invert")
    for split in ("val", "test"):
        batch = data.examples(20, split)
        assert torch.equal(batch["oracle_b"], 16 - batch["a"])
        assert not torch.equal(batch["oracle_b"], batch["b"])
    assert "oracle_b" not in data.examples(20)
    assert "oracle_b" not in next(iter(data.train_dataloader()))
    assert "oracle_b" in next(iter(data.val_dataloader()))


def test_edges_are_where_scipy_erodes():
    x = Digits(size=16).examples(30)["x"]
    bright = (x >= 8.5).numpy()[:, 0]
    cross = ndimage.generate_binary_structure(2, 1)
    inner = np.stack([ndimage.binary_erosion(v, cross, border_value=1) for v in bright])
    assert np.array_equal((edges(x, 17) == 16).numpy()[:, 0], bright & ~inner)
    assert set(edges(x, 17).unique().tolist()) == {0, 16}


def test_changes_are_of_levels():
    x = torch.randint(256, (3, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(invert(x, 256), 255 - x) and torch.equal(invert(invert(x, 256), 256), x)
    assert torch.equal(rot90(rot90(rot90(rot90(x, 256), 256), 256), 256), x)
    assert torch.equal(rot90(x, 256)[0, 0, 0], x[0, 0, :, -1])


def test_each_domain_is_shuffled_on_its_own_and_a_run_resumes_in_the_middle():
    def batches(start, n):
        loader = Unpaired(batch_size=50).train_dataloader()
        loader.sampler.start = start
        found = [loader.dataset[item] for item in itertools.islice(loader.sampler, n)]
        return [torch.cat([b["a"], b["b"]]) for b in found]

    whole = batches(0, 20)
    for again, before in zip(batches(17, 3), whole[17:], strict=True):
        assert torch.equal(again, before)
    data = Unpaired(batch_size=50)
    numbers = [n for _, n in itertools.islice(data.train_dataloader().sampler, 14)]
    a, b = (torch.cat([n[g] for n in numbers]) for g in (0, 1))
    assert a.unique().numel() == b.unique().numel() == 700
    assert (a == b).float().mean() < 0.02  # row i of a seldom meets row i of b


def test_the_bases_augmentation_is_of_each_domain_and_comes_before_the_change(monkeypatch):
    class Louder(Given):
        def transform(self, batch, noise, training):
            batch["x"] = batch["x"] + noise.integers(batch.n, high=5)[:, None, None, None]
            return batch

    monkeypatch.setattr(registry, "get", lambda name, kind: lambda **_: Louder(spec, x))
    spec, x = DataSpec((1, 2, 2), 17), torch.zeros(40, 1, 2, 2)
    data = Unpaired("mine", "invert", batch_size=20)
    batch = next(iter(data.train_dataloader()))
    louder, quieter = batch["a"][:, 0, 0, 0], batch["b"][:, 0, 0, 0]
    assert set(louder.tolist()) == {0, 1, 2, 3, 4} and set(quieter.tolist()) == {12, 13, 14, 15, 16}
    assert not torch.equal(louder, 16 - quieter)
    assert data.groups == (("a",), ("b",)) and "y" not in data.spec


def test_what_has_no_levels_or_is_not_square_or_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="unpaired models images"):
        Unpaired("toy2d")
    with pytest.raises(registry.UnknownName, match="unknown data 'digit'; did you mean: digits"):
        Unpaired("digit")
    with pytest.raises(ValueError, match=r"kind is one of invert, .*, yaw, got 'blur'"):
        Unpaired(kind="blur")
    assert set(CHANGES) == {"invert", "edges", "rot90", "colour"}
    assert set(DRAWINGS) == {"stripes", "glasses", "yaw"}


def test_coloured_digits_are_one_ink_on_one_darker_ground_that_the_image_picks():
    data = Unpaired(kind="colour", size=16)
    rows = data.examples(split="val")
    a, b = rows["a"] / 16, rows["oracle_b"] / 16
    assert data.spec["a"] == data.spec["b"] and a.shape[1] == 3
    assert torch.equal(a[:, 0], a[:, 2])
    grounds = [colour * 0.6 / 255 for colour in torch.tensor(MUTED).float()]
    inks = [colour / 255 for colour in torch.tensor([*COLOURS.values()]).float()]
    found = set()
    for grey, image in zip(a, b, strict=True):
        share = grey[0].flatten()
        best = min(
            ((ink[:, None] - ground[:, None]) * share + ground[:, None] - image.flatten(1))
            .abs()
            .max()
            .item()
            for ink in inks
            for ground in grounds
        )
        assert best < 0.5 / 16 + 1e-5
        found.add(tuple(image.flatten(1)[:, share.argmax()].tolist()))
    assert len(found) > 6
    assert torch.equal(data.oracle(rows["a"][:5].flip(0)), rows["oracle_b"][:5].flip(0))
    assert data.examples(100)["b"].std(1).mean() > 0.5  # colour in training's b too


def test_colour_is_given_to_grey_images_alone():
    with pytest.raises(ValueError, match=r"set --data\.kind=invert"):
        Unpaired(base="shapes", kind="colour")


# -- what is drawn ---------------------------------------------------------------------------------
FEW = {"n": 60, "n_val": 40, "n_test": 30}
BASES = {"stripes": "shapes", "glasses": "heads", "yaw": "heads"}


def drawn(kind, **options):
    return Unpaired(BASES[kind], kind, batch_size=10, options={**FEW, **options})


def dealt(n):
    """Items of either domain."""
    return (v.tolist() for v in apart(torch.arange(n)))


@pytest.mark.parametrize("kind", BASES)
def test_drawn_domains_have_no_pair_and_are_the_same_in_every_batching(kind):
    data, again = drawn(kind), drawn(kind)
    for split, n in (("train", 60), ("val", 40), ("test", 30)):
        whole = data.examples(split=split)
        assert whole.n == n // 2 == data.count(split) and ("oracle_b" in whole) == (
            split != "train"
        )
        one = again.evaluation_batch(split, torch.tensor([7, 2]))
        assert all(torch.equal(one[k], whole[k][[7, 2]]) for k in whole if k != "index")
        of_a, of_b = dealt(n)
        assert not {*of_a} & {*of_b}
    rows = data.examples(split="val")
    assert not images(rows, "a") & images(rows, "b") and len(images(rows, "b")) == 20
    assert torch.equal(data.answers("val", rows), rows["oracle_b"])
    batch = next(iter(data.train_dataloader()))
    assert "oracle_b" not in batch and images(batch, "a") <= images(data.examples(), "a")


def test_stripes_are_drawn_into_the_same_scenes_and_nothing_else_changes():
    data, (of_a, of_b) = drawn("stripes"), dealt(40)
    rows = data.examples(split="val")
    scenes = [scene.draw(0, 1, i) for i in range(40)]
    assert {s.things[0].striped for s in scenes} == {True, False}
    for k, i in enumerate(of_a):
        thing = scenes[i].things[0]
        plain, striped = (
            dataclasses.replace(scenes[i], things=(dataclasses.replace(thing, striped=on),))
            for on in (False, True)
        )
        assert np.array_equal(rows["a"][k].numpy(), scene.render(plain, 32))
        assert np.array_equal(rows["oracle_b"][k].numpy(), scene.render(striped, 32))
        assert rows["y"][k] == thing.shape
        changed = (rows["a"][k] != rows["oracle_b"][k]).any(0)
        row, column = changed.numpy().nonzero()
        far = np.hypot((column + 0.5) / 32 - thing.x, (row + 0.5) / 32 - thing.y)
        assert changed.any() and far.max() <= 1.1 * thing.radius + 1 / 32
        assert (rows["oracle_b"][k] >= rows["a"][k]).all()  # stripes are lighter
    for k, i in enumerate(of_b):
        other = scenes[i].but(striped=True)
        assert np.array_equal(rows["b"][k].numpy(), scene.render(other, 32))


def test_glasses_are_put_on_the_same_heads_and_the_class_is_what_else_they_wear():
    data, (of_a, of_b) = drawn("glasses"), dealt(40)
    rows, heads = data.examples(split="val"), head.draw(0, "val", range(40))
    bare, worn = (
        dataclasses.replace(heads, u={**heads.u, "glasses": np.full(40, v)}) for v in (0.99, 0.01)
    )
    assert np.array_equal(rows["a"].numpy(), portrait.render(bare.rows(of_a), 32))
    assert np.array_equal(rows["oracle_b"].numpy(), portrait.render(worn.rows(of_a), 32))
    assert np.array_equal(rows["b"].numpy(), portrait.render(worn.rows(of_b), 32))
    looks = [data.class_names[y] for y in rows["y"]]
    hats, beards = (heads.has(name)[of_a] for name in ("hat", "beard"))
    wanted = [
        " + ".join(n for n, on in (("hat", h), ("beard", b)) if on) or "plain"
        for h, b in zip(hats, beards, strict=True)
    ]
    assert looks == wanted and len(data.class_names) == 4 and len({*looks}) == 4
    changed = (rows["a"] != rows["oracle_b"]).any(1)
    assert changed.flatten(1).any(1).all()
    assert not changed[:, 22:].any() and not changed[:, :6].any()  # mouths, and hats


def test_a_square_turns_as_the_head_does():
    data, (of_a, of_b) = drawn("yaw"), dealt(40)
    rows, yaw = data.examples(split="val"), head.draw(0, "val", range(40), "free").yaw
    for field, items in (("oracle_b", of_a), ("b", of_b)):
        found = []
        for image in rows[field].numpy():  # the dot's middle, by another route
            dot = (image.min(0) > 160).astype(float)
            y, x = ndimage.center_of_mass(dot)
            found.append(np.arctan2(x - 15.5, 15.5 - y))
        assert np.abs(np.array(found) - yaw[items]).max() < 0.06
        read = data.angles["yaw"](rows[field] / 255).numpy()
        assert np.abs(read - yaw[items]).max() < 0.015
    assert yaw[of_a].min() < -0.8 and yaw[of_a].max() > 0.8
    fifths = np.digitize(yaw[of_a], [-0.72, -0.24, 0.24, 0.72])
    assert rows["y"].tolist() == fifths.tolist() and data.class_names[0] == "far left"
    assert np.array_equal(rows["a"].numpy(), portrait.render(head.draw(0, "val", of_a, "free"), 32))


def test_but_for_its_angle_a_pointer_is_always_the_same_and_a_quarter_turn_is_exact():
    x = pointers([0.0, np.pi / 2, 0.3, 0.3 + np.pi], 32)
    assert torch.equal(x[0].rot90(-1, (1, 2)), x[1])
    assert torch.equal(x[2].flip(1, 2), x[3])
    assert x[0, :, 6, 16].min() > 240  # white above
    assert torch.equal(x[0, :, 16, 16], torch.tensor([50, 90, 220], dtype=torch.uint8))


@pytest.mark.parametrize("kind", BASES)
def test_a_base_that_does_not_draw_it_is_refused_and_the_remedy_works(kind):
    with pytest.raises(ValueError, match=r"set --data\.base=\w+") as caught:
        Unpaired(kind=kind)
    base = str(caught.value).rpartition("=")[2]
    data = Unpaired(base, kind, options=FEW)
    assert data.kind == kind and not hasattr(data, "oracle") and data.count("test") == 15


def test_options_reach_the_base_and_its_classes_follow():
    data = drawn("glasses", label="age", pose="free", size=64)
    assert data.spec["a"].shape == (3, 64, 64) and len(data.class_names) == 6
    of_a, _ = dealt(40)
    age = head.draw(0, "val", range(40)).age[of_a]
    assert data.examples(split="val")["y"].tolist() == age.tolist()
    bare = drawn("glasses", label="none")
    assert "y" not in bare.spec and "y" not in bare.examples(3) and bare.class_names == ()
    assert Unpaired(size=16, options={"size": 8}).spec["a"].shape[1:] == (8, 8)


def test_what_takes_long_to_draw_is_kept_for_these_options_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(unpaired, "KEPT", 0)
    first = drawn("yaw").examples(split="val")
    assert len([*tmp_path.glob("unpaired-*.pt")]) == 1
    with monkeypatch.context() as m:
        m.setattr(Unpaired, "_pictures", lambda *_: pytest.fail("drawn again"))
        again = drawn("yaw").examples(split="val")
    assert all(torch.equal(again[k], first[k]) for k in first)
    other = Unpaired("heads", "yaw", seed=1, options=FEW).examples(split="val")
    assert not torch.equal(other["a"], first["a"]) and not torch.equal(other["b"], first["b"])
    drawn("yaw", n=80).setup()
    assert len([*tmp_path.glob("unpaired-*.pt")]) == 3


def test_clutter_is_behind_a_digit_that_is_known():
    data = Unpaired(kind="clean", size=16)
    val, base = data.examples(split="val"), Digits(size=16).examples(split="val")
    of_a, of_b = apart(torch.arange(len(base["x"])))
    assert torch.equal(val["oracle_b"], base["x"][of_a])
    assert torch.equal(val["b"][: len(of_b)], base["x"][of_b])
    assert torch.equal(val["y"], base["y"][of_a]) and "oracle_b" not in data.examples(4)
    assert data.spec["a"].shape == (3, 16, 16) and data.spec["b"].shape == (1, 16, 16)
    assert not hasattr(data, "oracle")


def test_a_cluttered_image_is_an_ink_over_a_turned_half_as_strong_one_over_a_slope():
    inks = [torch.tensor(c).double() / 255 for c in COLOURS.values()]
    grounds = [torch.tensor(c).double() / 255 * 0.6 for c in MUTED]
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    x[..., 2:5, 3] = 16  # upside down and moved it is in rows 11 to 13 of column 11
    found = unpaired.cluttered(x, 17)[0] / 16
    near = {"atol": 0.5 / 16 + 1e-9, "rtol": 0}
    ink = found[:, 3, 3]
    (first,) = [i for i, c in enumerate(inks) if torch.allclose(c, ink, **near)]
    left, right = found[:, 0, 0], found[:, 0, 15]
    ends = [
        (a, b)
        for a in grounds
        for b in grounds
        if torch.allclose(a, left, **near) and torch.allclose(b, right, **near) and a is not b
    ]
    assert ends
    behind = [
        i
        for i, c in enumerate(inks)
        for a, b in ends
        if torch.allclose((a + 11 / 15 * (b - a) + c) / 2, found[:, 12, 11], **near)
    ]
    assert behind and first not in behind
    assert torch.equal(found[:, 12, 11], found[:, 11, 11])
    assert not torch.allclose(found[:, 12, 11], found[:, 10, 11], **near)
    again = unpaired.cluttered(x.expand(3, -1, -1, -1), 17) / 16
    assert torch.equal(again[1], found)
