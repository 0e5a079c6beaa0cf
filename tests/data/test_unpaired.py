"""Two domains without pairs: no image is in both, what belongs together is known to validation
alone, and any base of images will do.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.support import Given
from zoo import registry
from zoo.core import DataSpec
from zoo.data.digits import Digits
from zoo.data.scene import COLOURS, MUTED
from zoo.data.unpaired import CHANGES, Unpaired, edges, invert, rot90


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
    with pytest.raises(ValueError, match="kind is one of invert, edges, rot90, colour, got 'blur'"):
        Unpaired(kind="blur")
    assert set(CHANGES) == {"invert", "edges", "rot90", "colour"}


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
