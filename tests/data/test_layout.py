"""Splits and classes are what the folders say; what is left out is counted by its reason."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.image_folder import ImageFolder


def put(root: Path, *names: str, start: int = 0) -> Path:
    """Images of one colour each, numbered from ``start`` in the order of the names."""
    for i, name in enumerate(names, start):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(root / name)
    return root


def many(*folders: str, n: int = 4) -> list[str]:
    return [f"{folder}/{i}.png".lstrip("/") for folder in folders for i in range(n)]


def rows(data: ImageFolder) -> dict[str, set[int]]:
    """The colours of each split's images."""
    data.setup()
    return {
        s: {int(v) for v in data.examples(split=s)["x"][:, 0, 0, 0]}
        for s in ("train", "val", "test")
    }


def opened(root: Path, **options) -> ImageFolder:
    return ImageFolder(str(root), size=8, channels=1, **options)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("TRAINING", "validation", "testing"),
        ("train", "valid", "test"),
        ("train", "dev", "test"),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("below", ["", "photos/", "a/b/"])
@pytest.mark.parametrize("classes", [("",), ("/cat", "/dog")], ids=["plain", "classes"])
def test_folders_named_after_splits_are_the_splits(tmp_path, words, below, classes):
    folders = [f"{below}{word}{c}" for word in words for c in classes]
    data = opened(put(tmp_path, *many(*folders)))
    n = 4 * len(classes)
    assert rows(data) == {
        "train": {*range(n)},
        "val": {*range(n, 2 * n)},
        "test": {*range(2 * n, 3 * n)},
    }
    assert data.classes == [c[1:] for c in classes if c]
    assert any("are the splits" in note for note in data.found["notes"])


def test_splits_below_each_class_are_the_splits(tmp_path):
    data = opened(put(tmp_path, *many("cat/train", "dog/train", "cat/test", "dog/test")))
    found = rows(data)
    assert data.classes == ["cat", "dog"]
    assert found["train"] == {*range(8)} and found["test"] == {*range(8, 16)}
    y = data.examples(split="test")
    assert {int(x): int(c) for x, c in zip(y["x"][:, 0, 0, 0], y["y"], strict=True)} == {
        **dict.fromkeys(range(8, 12), 0),
        **dict.fromkeys(range(12, 16), 1),
    }


def test_split_names_in_one_class_alone_are_said_not_to_be_splits(tmp_path):
    data = opened(put(tmp_path, *many("cat/train", "cat/test", "dog/asleep", n=5)))
    rows(data)
    assert data.found["images"] == 15 and data.found["rows"]["test"] == 2
    assert any("the folder test, train is not taken for a split" in n for n in data.found["notes"])


def test_a_missing_split_is_the_other_one_and_never_training_images(tmp_path):
    data = opened(put(tmp_path, *many("train", "Test")))
    found = rows(data)
    assert found["val"] == found["test"] == {4, 5, 6, 7} and found["train"] == {0, 1, 2, 3}
    assert "there is no split val: the images of test serve as both" in data.found["notes"]


@pytest.mark.parametrize("below", ["", "photos/", "a/b/"])
def test_images_outside_the_splits_are_left_out_and_counted(tmp_path, below):
    folders = [f"{below}{name}" for name in ("train", "test", "extra")]
    data = opened(put(tmp_path, *many(*folders), f"{below}cover.png"))
    assert rows(data)["train"] == {0, 1, 2, 3}
    assert data.found["skipped"]["in none of the splits"]["number"] == 5


@pytest.mark.parametrize("folders", [("train", "car", "bus"), ("val", "test")])
def test_a_folder_that_is_no_split_after_all_is_named(tmp_path, folders):
    data = opened(put(tmp_path, *many(*folders)))
    rows(data)
    assert data.classes == sorted(folders)
    assert any(f"{folders[0]}" in n and "not taken for a split" in n for n in data.found["notes"])


def test_unreadable_training_images_do_not_make_test_images_train(tmp_path):
    put(tmp_path, *many("train", "test"))
    for file in (tmp_path / "train").iterdir():
        file.write_bytes(b"junk")
    with (
        pytest.warns(UserWarning, match="4 of 8"),
        pytest.raises(ValueError, match="no image of the split train can be read"),
    ):
        opened(tmp_path).setup()


HIDDEN = [".ipynb_checkpoints", "__MACOSX", "__MACOSX/cat", ".thumbs/dog", "cat/.cache"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_hidden_and_system_folders_are_no_classes(tmp_path, kind):
    root = put(tmp_path / "photos", *many("cat", "dog"), *many(*HIDDEN, n=1), "cat/._0.png")
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            for path in root.rglob("*.png"):
                archive.write(path, path.relative_to(tmp_path))
        with zipfile.ZipFile(tmp_path / "photos.zip", "a") as archive:
            archive.writestr("__MACOSX/photos/._cat", b"")
        root = tmp_path / "photos.zip"
    data = opened(root)
    assert data.classes == ["cat", "dog"] and len(data.names) == 8
    n = len(HIDDEN) + 1 + (kind == "zip")
    assert data.found["skipped"]["hidden or system files"]["number"] == n


def test_an_image_beside_the_class_folders_does_not_drop_the_classes(tmp_path):
    put(tmp_path, *many("cat", "dog"), "cover.png")
    data = opened(tmp_path)
    assert data.classes == ["cat", "dog"] and sum(data.found["rows"].values()) == 8
    (said,) = data.found["skipped"].items()
    assert said[1] == {"number": 1, "first": ["cover.png"]} and "--data.labels=false" in said[0]
    everything = opened(tmp_path, labels=False)
    assert everything.classes == [] and sum(everything.found["rows"].values()) == 9
    assert "y" not in everything.spec


def test_test_images_without_classes_do_not_drop_those_of_training(tmp_path):
    data = opened(put(tmp_path, *many("train/cat", "train/dog", "test")))
    assert data.classes == ["cat", "dog"]
    assert rows(data)["train"] | rows(data)["val"] | rows(data)["test"] == {*range(8)}
    data = opened(put(tmp_path / "b", *many("train", "test/cat", "test/dog")))
    assert data.classes == [] and rows(data)["train"] == {0, 1, 2, 3}


@pytest.mark.parametrize("n", range(3, 12))
@pytest.mark.parametrize("share", [0.1, 0.33, 0.49])
def test_a_few_images_give_every_split_at_least_one(tmp_path, n, share):
    found = rows(opened(put(tmp_path, *many("", n=n)), val=share, test=share))
    assert all(found.values()) and sum(map(len, found.values())) == n
    assert set.union(*found.values()) == {*range(n)}


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_images_are_refused_in_one_line(tmp_path, n):
    with pytest.raises(ValueError, match=rf"has {n} readable images; .* at least 3"):
        opened(put(tmp_path, *many("", n=n))).setup()


def test_links_are_followed_and_dead_ones_counted(tmp_path):
    put(tmp_path / "elsewhere", *many("cat"))
    put(tmp_path / "photos", *many("dog"), start=4)
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "photos" / "dog" / "again").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = opened(tmp_path / "photos")
    assert data.classes == ["cat", "dog"] and len(data.names) == 8
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    assert opened(tmp_path / "photos").found["skipped"] == {
        "links to nothing": {"number": 1, "first": ["dog/gone.png"]},
        "links to folders that are listed already": {"number": 1, "first": ["dog/again"]},
        "no regular files": {"number": 1, "first": ["pipe.png"]},
    }


def test_what_is_no_image_and_what_has_no_decoder_are_counted(tmp_path):
    put(tmp_path, *many(""))
    for name in ("a.txt", "b.txt", "c.svg", "README"):
        (tmp_path / name).write_text("words")
    data = opened(tmp_path)
    assert data.found["skipped"]["no decoder for .svg"]["number"] == 1
    assert any("3 files are no images" in n and "2 .txt" in n for n in data.found["notes"])


def test_metadata_beside_the_images_labels_them(tmp_path):
    put(tmp_path, *many("train", "test"))
    for split, words in (("train", "abab"), ("test", "bbaa")):
        lines = [f"{i}.png,{word},a cat" for i, word in enumerate(words)]
        text = "\n".join(["file_name,label,text", *lines, "99.png,a,nothing"])
        (tmp_path / split / "metadata.csv").write_text(text)
    data = opened(tmp_path)
    assert data.classes == ["a", "b"] and rows(data)["test"] == {4, 5, 6, 7}
    for split, first, words in (("train", 0, "abab"), ("test", 4, "bbaa")):
        batch = data.examples(split=split)
        colours = batch["x"][:, 0, 0, 0].long() - first
        assert batch["y"].tolist() == ["ab".index(words[i]) for i in colours]
    assert data.found["skipped"]["listed in train/metadata.csv but not there"]["number"] == 1


def test_the_order_of_a_folder_is_that_of_its_sorted_names(tmp_path):
    names = many("b", "a", n=10)
    data = opened(put(tmp_path, *names))
    colour = {name: i for i, name in enumerate(names)}
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    wanted = [colour[sorted(names)[i]] for i in order[:16]]
    assert data.examples()["x"][:, 0, 0, 0].tolist() == wanted


@pytest.mark.parametrize("text", ["a,b\n1,2", "", "\xff\xfe", '"'])
def test_a_metadata_file_of_other_things_is_left_out_and_said(tmp_path, text):
    put(tmp_path, *many("cat", "dog"))
    (tmp_path / "metadata.csv").write_bytes(text.encode("latin-1"))
    data = opened(tmp_path)
    assert data.classes == ["cat", "dog"]
    assert any(n.startswith("metadata.csv is not used: ") for n in data.found["notes"])
    with pytest.raises(ValueError, match=r"metadata\.csv"):
        opened(tmp_path, label_column="kind")
