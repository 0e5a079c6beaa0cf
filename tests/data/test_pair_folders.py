"""One's own pairs and domains: what lies where, what is skipped, and every mistake of layout."""

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from zoo.core.noise import Noise
from zoo.data.base import told
from zoo.data.paired_folder import PairedFolder
from zoo.data.unpaired_folder import UnpairedFolder


def write(path, colour, width=20, height=20, second=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = colour
    if second is not None:
        pixels[:, width // 2 :] = second
    Picture.fromarray(pixels).save(path)


def side_by_side(root, n=4, split="train"):
    for i in range(n):
        write(root / split / f"{i}.png", (i, 10, 0), 40, 20, second=(i, 200, 0))


def two_folders(root, n=4, split="train"):
    for i in range(n):
        write(root / f"{split}A" / f"{i}.png", (i, 10, 0))
        write(root / f"{split}B" / f"{i}.jpg", (i * 20, 200, 0))


@pytest.mark.parametrize(("direction", "source", "x"), [("AtoB", 10, 200), ("BtoA", 200, 10)])
def test_halves_are_told_apart_by_the_direction(tmp_path, direction, source, x):
    side_by_side(tmp_path, 10)
    data = PairedFolder(str(tmp_path), direction, size=8)
    assert [data.count(s) for s in ("train", "val", "test")] == [8, 1, 1]
    batch = data.examples()
    assert (batch["source"][:, 1] == source).all() and (batch["x"][:, 1] == x).all()
    assert torch.equal(batch["source"][:, 0], batch["x"][:, 0])  # of one file
    assert batch["x"].shape == (8, 3, 8, 8)


def test_names_pair_two_folders_whatever_their_endings(tmp_path):
    two_folders(tmp_path, 5)
    two_folders(tmp_path, 2, "test")
    (tmp_path / "trainB" / "3.jpg").unlink()
    write(tmp_path / "trainB" / "other.png", (0, 0, 0))
    data = PairedFolder(str(tmp_path), size=8)
    batch = data.examples()
    assert data.count() == 4 and data.count("val") == data.count("test") == 2
    assert (batch["x"][:, 0, 0, 0] - 20 * batch["source"][:, 0, 0, 0]).abs().max() <= 2
    skipped = {k: v["first"] for k, v in data.found["skipped"].items()}
    assert skipped == {
        "no partner in trainB": ["3.png"],
        "no partner in trainA": ["other.png"],
    }
    assert "skipped 1: no partner in trainB: 3.png" in told(data.found)


def test_a_damaged_half_takes_its_pair_away_and_is_named(tmp_path):
    two_folders(tmp_path, 6)
    (tmp_path / "trainA" / "2.png").write_bytes(b"no image")
    data = PairedFolder(str(tmp_path), size=8)
    data.setup()
    assert "2.png (" in told(data.found) and "skipped 1: cannot be read" in told(data.found)
    kept = torch.cat([data.examples(split=s)["source"] for s in ("train", "val", "test")])
    assert sorted(kept[:, 0, 0, 0].tolist()) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("kind", [PairedFolder, UnpairedFolder])
def test_whatever_is_not_read_is_counted_and_named(tmp_path, kind):
    two_folders(tmp_path, 6)
    two_folders(tmp_path, 2, "test")
    for name in ("validation/1.png", "1.png", "trainA/below/9.png", "trainA/.1.png"):
        write(tmp_path / name, (0, 0, 0))
    (tmp_path / "trainB" / "notes.txt").write_text("no image")
    (tmp_path / "__MACOSX").mkdir()
    data = kind(str(tmp_path), size=8)
    data.setup()
    skipped = {k: v["first"] for k, v in data.found["skipped"].items()}
    assert skipped == {
        "beside the folders that are read": ["1.png", "validation"],
        "hidden or system files": ["__MACOSX", "trainA/.1.png"],
        "folders inside": ["trainA/below"],
        "no images by name": ["trainB/notes.txt"],
    }
    assert all("the" in note and "test serve as both" in note for note in data.found["notes"])
    assert data.found["notes"]


def test_files_of_one_name_are_no_two_pairs(tmp_path):
    two_folders(tmp_path, 4)
    write(tmp_path / "trainA" / "2.bmp", (0, 0, 0))
    data = PairedFolder(str(tmp_path), size=8)
    assert data.found["skipped"]["named as 2.bmp is"]["first"] == ["trainA/2.png"]


@pytest.mark.parametrize("kind", [PairedFolder, UnpairedFolder])
def test_what_states_more_than_the_limit_is_not_read(tmp_path, kind, monkeypatch):
    two_folders(tmp_path, 6)
    with (tmp_path / "trainA" / "1.png").open("wb") as file:
        file.truncate(3 << 30)
    write(tmp_path / "trainA" / "2.png", (0, 0, 0), 300, 300)
    read, sizes = type(tmp_path).read_bytes, []
    monkeypatch.setattr(
        type(tmp_path), "read_bytes", lambda p: sizes.append(len(b := read(p))) or b
    )
    data = kind(str(tmp_path), size=8, max_pixels=1000)
    data.setup()
    (skipped,) = data.found["skipped"].items()
    assert skipped[0] == "larger than --data.max_pixels=1000" and skipped[1]["number"] == 2
    assert max(sizes) < 10_000


def test_a_changed_file_is_noticed_and_what_was_done_to_one_is_said(tmp_path):
    for kind in (PairedFolder, UnpairedFolder):
        root = tmp_path / kind.__name__
        two_folders(root, 6)
        first = kind(str(root), size=8).found
        assert first["fingerprint"] == kind(str(root), size=8).found["fingerprint"]
        frames = [Picture.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
        frames[0].save(root / "trainA" / "1.png", save_all=True, append_images=frames[1:])
        other = kind(str(root), size=8).found
        assert other["fingerprint"] != first["fingerprint"] and not first["notes"]
        assert "1 images: only the first of several frames is used" in told(other)


def gradient(root):
    for side in "AB":
        for i in range(4):
            ramp = np.tile(np.arange(12, dtype=np.uint8) * 20, (12, 1))
            pixels = np.stack([ramp, ramp.T, np.full_like(ramp, i)], 2)
            path = root / f"train{side}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Picture.fromarray(pixels).save(path)


def test_pairs_are_cut_and_mirrored_alike_and_domains_each_on_its_own(tmp_path):
    gradient(tmp_path)
    rows, noise = torch.arange(2), Noise(0, "check")
    pairs = PairedFolder(str(tmp_path), size=8, jitter=4, flip=True)
    many = [pairs.transform(pairs.rows_of("train", [rows], rows), noise, True) for _ in range(20)]
    assert all(torch.equal(b["x"], b["source"]) for b in many)
    assert len({b["x"][0, 0, 0].sum().item() for b in many}) > 3  # places
    assert len({(b["x"][0, 0, 0, 0] < b["x"][0, 0, 0, -1]).item() for b in many}) == 2  # both ways
    middle = pairs.examples(2)["x"]
    for image in middle:
        assert image[0, 0].tolist() == image[1, :, 0].tolist() == [20 * i for i in range(2, 10)]
    apart = UnpairedFolder(str(tmp_path), size=8, jitter=4)
    index = [rows, rows]
    many = [apart.transform(apart.rows_of("train", index, rows), noise, True) for _ in range(20)]
    assert not all(torch.equal(b["a"][:, :2], b["b"][:, :2]) for b in many)


def test_domains_keep_their_own_numbers_and_splits(tmp_path):
    for i in range(10):
        write(tmp_path / "trainA" / f"{i}.png", (10, i, 0))
    for i in range(4):
        write(tmp_path / "trainB" / f"{i}.png", (200, i, 0))
    for i in range(2):
        write(tmp_path / "testB" / f"{i}.png", (250, i, 0))
    data = UnpairedFolder(str(tmp_path), size=8)
    assert [data.count("train", g) for g in (0, 1)] == [8, 4]
    assert [data.count("val", g) for g in (0, 1)] == [1, 2]
    batch = data.examples()
    assert (batch["a"][:, 0] == 10).all() and (batch["b"][:, 0] == 200).all()
    assert (data.examples(split="val")["b"][:, 0] == 250).all()


@pytest.mark.parametrize("kind", [PairedFolder, UnpairedFolder])
def test_every_mistake_of_layout_says_what_is_expected(tmp_path, kind):
    with pytest.raises(ValueError, match=r"is no folder; --data.root is one that holds train"):
        kind(str(tmp_path / "absent"))
    (tmp_path / "trainA").mkdir()
    with pytest.raises(ValueError, match="holds train"):
        kind(str(tmp_path))
    write(tmp_path / "trainA" / "0.png", (0, 0, 0))
    with pytest.raises(ValueError, match=r"no pairs in|no images in .*trainB"):
        kind(str(tmp_path))
    write(tmp_path / "trainB" / "0.png", (0, 0, 0))
    with pytest.raises(ValueError, match="need one each; add some"):
        kind(str(tmp_path)).setup()
    (tmp_path / "trainB" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="can be read"):
        kind(str(tmp_path)).setup()
