"""Real datasets and the user's own images: right units, clear errors, nothing lost in silence."""

import io
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.cifar10 import CIFAR10
from zoo.data.image_folder import ImageFolder
from zoo.data.mnist import MNIST

SHARED = Path(__file__).parents[3] / "shared" / "data"
ROOT = next(
    (p for p in (Path(os.environ.get("ZOO_DATA", "/nowhere")), SHARED) if (p / "MNIST").is_dir()),
    None,
)
real = pytest.mark.skipif(ROOT is None, reason="MNIST is not under ZOO_DATA")


@real
def test_mnist_has_its_published_sizes_and_mean():
    data = MNIST(root=str(ROOT))
    assert [len(data.split(s)["x"]) for s in ("train", "val", "test")] == [50_000, 10_000, 10_000]
    both = torch.cat([data.split("train")["x"], data.split("val")["x"]]).float()
    assert (both / 255).mean() == pytest.approx(
        0.1307, abs=1e-4
    )  # the constant of torchvision's examples
    assert data.spec.shape == (1, 28, 28)
    assert data.spec.levels == 256


@real
def test_mnist_resizes_and_binarises():
    data = MNIST(root=str(ROOT), size=16, binarize="threshold")
    assert data.examples(10)["x"].shape == (10, 1, 16, 16)
    assert data.spec.levels == 2
    assert set(data.examples(100)["x"].unique().tolist()) == {0, 1}


@pytest.mark.parametrize("cls", [MNIST, CIFAR10])
def test_missing_data_without_network_say_where_to_put_them(tmp_path, monkeypatch, cls):
    import torchvision

    def refuse(self):
        raise OSError("Name or service not known")

    monkeypatch.setattr(getattr(torchvision.datasets, cls.dataset), "download", refuse)
    with pytest.raises(FileNotFoundError, match=r"--data.root or ZOO_DATA") as caught:
        cls(root=str(tmp_path)).setup()
    assert str(tmp_path) in str(caught.value)
    assert "Name or service not known" in str(caught.value)


def picture(size=(20, 14), mode="RGB", seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
    kinds = [
        ((20, 14), "RGB", "png"),
        ((9, 30), "L", "jpg"),
        ((16, 16), "RGBA", "png"),
        ((40, 11), "P", "gif"),
        ((8, 8), "1", "bmp"),
    ]
    for i in range(20):
        size, mode, suffix = kinds[i % len(kinds)]
        picture(size, mode, i).save(root / ("cat" if i % 2 else "dog") / f"{i:02d}.{suffix}")
    return root


def test_any_size_mode_and_format_becomes_what_the_spec_says(folder):
    for channels in (1, 3):
        data = ImageFolder(str(folder), size=12, channels=channels)
        batch = data.examples()
        assert batch["x"].shape[1:] == (channels, 12, 12) == data.spec.shape
        assert batch["x"].max() <= 255
        assert torch.equal(batch["x"], batch["x"].round())
        assert data.spec.num_classes == 2
        assert set(batch["y"].tolist()) == {0, 1}
        assert sum(len(data.split(s)["x"]) for s in ("train", "val", "test")) == 20


def test_labels_are_the_innermost_folders(folder):
    data = ImageFolder(str(folder), size=8)
    data.setup()
    labels = {n: Path(n).parent.name for n in data.names}
    assert data.classes == ["cat", "dog"]
    assert sum(v == "cat" for v in labels.values()) == sum(
        (data.split(s)["y"] == 0).sum().item() for s in ("train", "val", "test")
    )


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_hold_the_same_images_as_the_folder(folder, tmp_path, kind):
    path = tmp_path / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for p in folder.rglob("*.*"):
                archive.write(p, p.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as archive:
            archive.add(folder, arcname=".")
    a, b = ImageFolder(str(folder), size=8), ImageFolder(str(path), size=8)
    assert torch.equal(a.examples()["x"], b.examples()["x"])
    assert torch.equal(a.examples()["y"], b.examples()["y"])


def test_decoding_on_demand_gives_what_lies_in_memory(folder, monkeypatch):
    a = ImageFolder(str(folder), size=8)
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", 0)
    b = ImageFolder(str(folder), size=8, num_workers=2, batch_size=4)
    assert torch.equal(a.examples()["x"], b.examples()["x"])
    batch = next(iter(b.train_dataloader()))
    assert torch.equal(batch["x"], a.examples()["x"][batch["index"]])


def test_unreadable_files_are_counted_listed_and_skipped(folder):
    (folder / "cat" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    buffer = io.BytesIO()
    picture((64, 64)).save(buffer, "PNG")
    (folder / "dog" / "cut.png").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (folder / "notes.txt").write_text("not an image")
    data = ImageFolder(str(folder), size=8)
    with pytest.warns(UserWarning, match=r"2 of 22 images cannot be read") as caught:
        data.setup()
    assert "torn.png" in str(caught[0].message)
    assert "cut.png" in str(caught[0].message)
    assert sum(len(data.split(s)["x"]) for s in ("train", "val", "test")) == 20


def test_named_splits_are_kept(tmp_path):
    for split, n in (("train", 6), ("test", 3)):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "b").mkdir(parents=True)
        for i in range(n):
            picture(seed=i).save(tmp_path / split / "ab"[i % 2] / f"{i}.png")
    data = ImageFolder(str(tmp_path), size=8)
    assert [len(data.split(s)["x"]) for s in ("train", "val", "test")] == [6, 3, 3]
    assert data.classes == ["a", "b"]


def test_first_rows_of_named_splits_are_of_several_classes(tmp_path):
    for split in ("train", "val"):
        for label in "abc":
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(8):
                picture(seed=i).save(tmp_path / split / label / f"{i}.png")
    data, again = (ImageFolder(str(tmp_path), size=8) for _ in range(2))
    for split in ("train", "val"):
        assert len(set(data.examples(8, split)["y"].tolist())) == 3
        assert torch.equal(data.split(split)["y"], again.split(split)["y"])
        assert data.split(split)["y"].bincount().tolist() == [8, 8, 8]


@pytest.mark.parametrize("kind", ["missing", "empty", "not an archive", "all bad"])
def test_a_hopeless_root_is_one_clear_error(tmp_path, kind):
    root = tmp_path / "x"
    if kind != "missing":
        root.mkdir()
    if kind == "not an archive":
        root = tmp_path / "x.tar"
        root.write_text("no")
    if kind == "all bad":
        for i in range(4):
            (root / f"{i}.png").write_bytes(b"junk")
    words = {
        "missing": "no images at",
        "empty": "holds no images",
        "not an archive": "readable zip or tar",
        "all bad": "none of the 4 images",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, FileNotFoundError), match=words[kind]):
            ImageFolder(str(root)).setup()
