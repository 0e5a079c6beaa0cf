"""Sources are what they are said to be, belong to their images, and stay so."""

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from zoo.core import Image
from zoo.core.noise import Noise
from zoo.data.paired import Paired
from zoo.data.scene import TRANSIENTS, render
from zoo.data.shapes import Shapes
from zoo.data.spoiled import hole, outlines, streaks
from zoo.data.unpaired import Unpaired

FEW = {"n": 40, "n_val": 20, "n_test": 20}
ANY = ("colorize", "sr2", "sr4", "inpaint", "rain")


def paired(kind, **options):
    return Paired(kind=kind, options=dict(FEW), **options)


def test_grey_is_pillows_luminance():
    batch = paired("colorize").examples(8)
    for x, s in zip(batch["x"], batch["source"], strict=True):
        picture = Picture.fromarray(x.byte().permute(1, 2, 0).numpy()).convert("L")
        assert np.abs(np.array(picture).astype(int) - s[0].int().numpy()).max() <= 1
    white = colorsys.rgb_to_yiq(1, 1, 1)[0]
    assert math.isclose(white, 0.299 + 0.587 + 0.114)


def test_a_small_image_is_the_exact_mean_of_blocks():
    for kind, s in (("sr2", 2), ("sr4", 4)):
        data = paired(kind)
        batch = data.examples(8)
        blocks = batch["x"].reshape(8, 3, 32 // s, s, 32 // s, s).double().mean((3, 5)) / 255
        assert data.spec["source"] == Image((3, 32 // s, 32 // s), 255 * s * s + 1)
        assert torch.allclose(data.spec["source"].to_unit(batch["source"].double()), blocks)


def test_a_torn_image_is_whole_outside_and_plain_inside():
    batch = paired("inpaint").examples(8)
    x, s, inside = batch["x"], batch["source"], batch["mask"].bool().expand(-1, 3, -1, -1)
    assert batch["mask"].sum((1, 2, 3)).tolist() == [256] * 8
    assert torch.equal(x[~inside], s[~inside])
    for image, source, where in zip(x, s, inside, strict=True):
        for c in range(3):
            mean = image[c][~where[c]].mean().round().item()
            assert source[c][where[c]].unique().tolist() == [mean]
    assert hole(32, 32)[0, 8:24, 8:24].all()


def test_rain_only_brightens_and_is_as_strong_as_measured():
    batch = Paired(kind="rain", options={"n": 300, "n_val": 20, "n_test": 20}).examples(300)
    x, s = batch["x"] / 255, batch["source"] / 255
    assert (s >= x).all()
    noise = -10 * (x - s).square().flatten(1).mean(1).log10()
    assert 19 < noise.mean() < 21 and 14 < noise.quantile(0.05) < 17
    assert 25 < noise.quantile(0.95) < 29


def test_a_streak_is_where_its_numbers_put_it():
    rain = streaks(0, 0, 5, 32)
    assert rain.max() <= 0.7 and rain.min() == 0
    for item in range(20):
        values = streaks(0, 0, item, 32)
        assert 0.3 <= values.max() <= 0.7
        large = streaks(0, 0, item, 64).reshape(32, 2, 32, 2).mean((1, 3))
        assert np.corrcoef(large.ravel(), values.ravel())[0, 1] > 0.9  # of any size the same rain


def test_lines_are_where_a_neighbour_differs():
    labels = torch.randint(3, (4, 9, 7), generator=torch.Generator().manual_seed(0))
    found = outlines(labels)[:, 0]
    for b, i, j in np.ndindex(4, 9, 7):
        around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        near = [labels[b, p, q] for p, q in around if 0 <= p < 9 and 0 <= q < 7]
        assert found[b, i, j] == int(all(v == labels[b, i, j] for v in near))


@pytest.mark.parametrize("kind", ANY)
def test_images_are_the_bases_and_sources_do_not_depend_on_their_number(kind):
    few, more = paired(kind), Paired(kind=kind, options={**FEW, "n": 50})
    base = Shapes(**FEW)
    for split, n in (("train", 40), ("val", 20), ("test", 20)):
        rows, plain = few.examples(split=split), base.examples(split=split)
        assert torch.equal(rows["x"], plain["x"]) and torch.equal(rows["y"], plain["y"])
        assert torch.equal(rows["source"], more.examples(n, split)["source"])
    own, other = few.examples(10), few.examples(10, "val")
    assert not torch.equal(own["source"], other["source"])
    assert torch.equal(paired(kind).examples(10)["source"], own["source"])


def test_other_splits_and_seeds_have_other_rain():
    def rain(seed, split):
        data = paired("rain", seed=seed)
        return data.split(split)["rain"][:5]

    first = rain(0, "train")
    assert not torch.equal(first, rain(0, "val")) and not torch.equal(first, rain(1, "train"))
    assert not torch.equal(first[0], first[1])
    wanted = torch.from_numpy(streaks(1, 2, 3, 32)).float()
    assert torch.equal(rain(1, "test")[3, 0], wanted)


def test_a_flip_is_of_the_pair_and_in_training_only():
    data = paired("inpaint", flip=True)
    rows = torch.arange(40)
    plain = data.examples(40)
    noise = Noise(0, "check")
    batch = data.transform(data.rows_of("train", [rows], rows), noise, training=True)
    same = (batch["x"] == plain["x"]).flatten(1).all(1)
    assert 5 < same.sum() < 35
    for k in ("x", "source"):
        turned = torch.where(same[:, None, None, None], plain[k], plain[k].flip(-1))
        assert torch.equal(batch[k], turned), k
    assert torch.equal(data.examples(40)["x"], Shapes(**FEW).examples(40)["x"])


def test_frontal_views_are_those_of_the_same_heads():
    data = Paired(base="heads", kind="frontal", options={**FEW, "pose": "free"})
    batch = data.examples(8)
    again = Paired(base="heads", kind="frontal", options={**FEW, "pose": "free"}).base
    rows = again.examples(8)
    assert torch.equal(batch["source"], rows["x"]) and torch.equal(batch["x"], rows["frontal"])
    assert not torch.equal(batch["x"], batch["source"])


def blended(**options):
    few = {**FEW, **options.pop("options", {})}
    return Paired(kind="blend", options=few, **options)


def test_a_patch_is_the_same_scene_under_other_transients():
    data = blended()
    rows = data.examples(20)
    inside = rows["mask"].bool().expand(-1, 3, -1, -1)
    assert torch.equal(rows["x"], rows["destination"])
    assert torch.equal(rows["source"][inside], rows["pasted"][inside])
    assert torch.equal(rows["source"][~inside], rows["x"][~inside])
    assert torch.equal(inside[0, 0], hole(32, 32)[0].bool())
    for i in range(20):
        scene = data.base.dataset("train").scene(i)
        assert scene.background == "horizon"
        assert torch.equal(rows["x"][i], torch.from_numpy(render(scene, 32)).float())
        u = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, i, 5))).random(10)
        other = [v if there >= 0.5 else 0.0 for there, v in u.reshape(-1, 2)]
        again = torch.from_numpy(render(scene.but(transients=tuple(other)), 32)).float()
        assert torch.equal(rows["pasted"][i], again)
    differ = (rows["pasted"] != rows["x"]).flatten(1).any(1)
    assert differ.float().mean() > 0.8 and len(TRANSIENTS) == 5


def test_patches_depend_on_seed_split_and_item_alone_and_move_nothing_else():
    rows, more = blended().examples(20), blended(options={"n": 60}).examples(20)
    for name in ("x", "source", "pasted", "mask"):
        assert torch.equal(rows[name], more[name])
    base = Shapes(**FEW, background="horizon", transients=True)
    assert torch.equal(rows["x"], base.examples(20)["x"])
    for other in (blended(seed=1).examples(20), blended().examples(20, "val")):
        assert not torch.equal(other["pasted"], rows["pasted"])
    plain = blended(options={"background": "plain"})
    assert plain.base.options.background == "plain" and plain.base.options.transients


def test_all_images_of_a_patch_are_mirrored_alike():
    data, rows = blended(flip=True), torch.arange(40)
    plain = data.examples(40)
    batch = data.transform(data.rows_of("train", [rows], rows), Noise(0, "check"), training=True)
    turned = (batch["x"] != plain["x"]).flatten(1).any(1)[:, None, None, None]
    assert 5 < turned.sum() < 35
    for name in ("x", "source", "pasted", "destination", "mask"):
        assert torch.equal(batch[name], torch.where(turned, plain[name].flip(-1), plain[name]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base": "heads", "kind": "blend"}, "set --data.base=shapes"),
        ({"kind": "blend", "options": {"transients": False}}, "transients=true makes some"),
        ({"base": "digits", "kind": "colorize"}, "only colour images"),
        ({"base": "digits", "kind": "labels"}, "set --data.base=shapes"),
        ({"base": "shapes", "kind": "frontal"}, "set --data.base=heads"),
        ({"base": "patches", "kind": "sr4", "size": 10}, "multiples of 4"),
        ({"base": "toy2d", "kind": "rain"}, "paired (rain) "),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_remedy(options, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        Paired(**options)


@pytest.mark.parametrize("kind", [Paired, Unpaired])
def test_what_was_found_of_the_base_is_said_too(tmp_path, kind):
    for i in range(20):
        Picture.new("RGB", (8, 8), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_text("no image")
    with_kind = {"kind": "inpaint"} if kind is Paired else {"kind": "invert"}
    made = {"base": "image_folder", "size": 8, "options": {"root": str(tmp_path)}, **with_kind}
    with pytest.warns(UserWarning, match="1 of 21"):
        found = kind(**made).found
    assert found["skipped"]["cannot be read"]["number"] == 1
    assert found["root"] == str(tmp_path)
    assert ("source" if kind is Paired else "b") in found["fields"]
    (tmp_path / "3.png").unlink()
    with pytest.warns(UserWarning, match="1 of 20"):
        assert kind(**made).found["fingerprint"] != found["fingerprint"]


def test_domains_of_a_single_image_are_refused_with_their_number(tmp_path):
    for i in range(6):
        Picture.new("RGB", (8, 8), (20 * i, 0, 0)).save(tmp_path / f"{i}.png")
    data = Unpaired("image_folder", size=8, options={"root": str(tmp_path)})
    with pytest.raises(ValueError, match=r"val of .* has 1 image, and a and b need one each"):
        data.setup()


@pytest.mark.parametrize("kind", [Paired, Unpaired])
@pytest.mark.parametrize(
    ("base", "options", "said"),
    [
        ("image_folder", {}, r"its base image_folder, by --data.options: .*'root'"),
        ("digits", {"nn": 3}, r"its base digits, by --data.options: .*'nn'"),
        ("digits", {"batch_size": 3}, "set --data.batch_size itself"),
        ("paired", {}, "is made of single images, and not of paired"),
        ("unpaired", {}, "is made of single images, and not of unpaired"),
    ],
)
def test_what_is_wrong_with_the_base_is_said_with_its_name(kind, base, options, said):
    with pytest.raises(ValueError, match=rf"^{kind.entry.name}.*{said}"):
        kind(base, "inpaint" if kind is Paired else "invert", options=options)
