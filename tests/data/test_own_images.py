"""Own images in a run: what was found is said, and what vanishes ends it in one line."""

import json
import logging
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_utilities.core import rank_zero
from PIL import Image

from zoo import fit, registry
from zoo.data.digits import Digits
from zoo.data.image_folder import ImageFolder
from zoo.data.mnist import MNIST
from zoo.data.toy2d import Toy2D


@pytest.fixture
def photos(tmp_path) -> Path:
    """30 images of two classes, a torn one and a text file."""
    root = tmp_path / "photos"
    for i in range(30):
        path = root / ("cat" if i % 2 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (root / "cat" / "torn.png").write_bytes(b"junk")
    (root / "notes.txt").write_text("words")
    return root


@pytest.fixture
def said(caplog):
    """What the first process tells the user."""
    lines: list[str] = []
    keep = logging.Handler()
    keep.emit = lambda record: lines.append(record.getMessage())
    caplog.set_level(logging.INFO, logger=rank_zero.log.name)
    rank_zero.log.addHandler(keep)
    yield lines
    rank_zero.log.removeHandler(keep)


@pytest.fixture
def on_demand(monkeypatch):
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", 0)


def quiet(root: Path, **options) -> ImageFolder:
    data = ImageFolder(str(root), size=8, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.split("train")
    return data


# -- what was found --------------------------------------------------------------------------------
def test_what_was_found_is_printed_once_and_is_plain_values(photos, said):
    data = quiet(photos)
    data.setup()
    data.setup("fit")
    (text,) = said
    assert text.startswith("data: photos 8x8: 3x8x8 images, 256 levels")
    for words in ("train 24, val 3, test 3", "cat 15, dog 15", "skipped 1: cannot be read", "torn"):
        assert words in text
    assert "1 files are no images by their names: 1 .txt" in text
    found = data.found
    assert json.loads(json.dumps(found)) == found
    assert found["rows"] == {"train": 24, "val": 3, "test": 3} and found["images"] == 30
    assert found["classes"] == {"cat": 15, "dog": 15}


@pytest.mark.parametrize("data", [Digits(), Toy2D(size=100)], ids=["digits", "toy2d"])
def test_every_data_module_says_what_it_serves(data, said):
    data.setup()
    rows = {s: len(data.split(s)["x"]) for s in ("train", "val", "test")}
    fields = {name: type(data.spec[name]).__name__.lower() for name in data.split("train")}
    told = {"name": data.spec.name, "spec": str(data.spec), "fields": fields, "rows": rows}
    assert data.found == told
    assert said == [f"data: {data.spec}; " + ", ".join(f"{s} {n:,}" for s, n in rows.items())]


def test_processes_other_than_the_first_say_nothing(photos, said, monkeypatch):
    monkeypatch.setattr(rank_zero.rank_zero_only, "rank", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(str(photos), size=8).setup()
    assert said == []


def test_the_fingerprint_follows_names_sizes_and_splits_alone(photos, tmp_path, on_demand):
    first = quiet(photos).found["fingerprint"]
    assert first == quiet(photos, flip=True, binarize="threshold").found["fingerprint"]
    copy = photos.rename(tmp_path / "elsewhere")
    assert quiet(copy).found["fingerprint"] == first
    assert quiet(copy, val=0.2).found["fingerprint"] != first
    moved = (copy / "cat" / "01.png").rename(copy / "dog" / "01.png")
    assert quiet(copy).found["fingerprint"] != first
    moved.rename(copy / "cat" / "01.png")
    assert quiet(copy).found["fingerprint"] == first
    data = (copy / "cat" / "01.png").read_bytes()
    (copy / "cat" / "01.png").write_bytes(data + b"\0")
    assert quiet(copy).found["fingerprint"] != first
    (copy / "cat" / "01.png").unlink()
    assert quiet(copy).found["fingerprint"] != first


# -- binarised -------------------------------------------------------------------------------------
@pytest.mark.parametrize("memory", [0, 1 << 30], ids=["on demand", "in memory"])
def test_binarised_images_are_what_the_word_says(photos, monkeypatch, memory):
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", memory)
    grey = quiet(photos, channels=1).examples()["x"]
    threshold = quiet(photos, channels=1, binarize="threshold")
    assert torch.equal(threshold.examples()["x"], (grey >= 128).float())
    fixed = quiet(photos, channels=1, binarize="fixed", batch_size=24)
    drawn = fixed.examples()["x"]
    assert set(drawn.unique().tolist()) == {0, 1} and not torch.equal(drawn, (grey >= 128).float())
    batch = next(iter(fixed.train_dataloader()))
    assert torch.equal(batch["x"], drawn[batch["index"]])
    stochastic = quiet(photos, channels=1, binarize="stochastic", batch_size=24)
    loader, total = iter(stochastic.train_dataloader()), torch.zeros_like(grey)
    for _, batch in zip(range(400), loader, strict=False):
        total[batch["index"]] += batch["x"]
    assert (total / 400 - grey / 255).abs().max() < 0.13
    assert (total / 400 - grey / 255).mean().abs() < 5e-3
    for data in (threshold, fixed, stochastic):
        assert data.spec.levels == 2 and f"binarised ({data.binarize})" in data.spec.name


def test_binarised_on_demand_and_in_memory_are_the_same_draw(photos, monkeypatch):
    a = quiet(photos, binarize="fixed").examples()["x"]
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", 0)
    assert torch.equal(a, quiet(photos, binarize="fixed").examples()["x"])


@pytest.mark.parametrize("model", ["rbm", "dbm", "bs_gan", "fvsbn"])
def test_the_remedy_of_models_of_binary_data_works_when_followed(photos, model):
    with pytest.raises(ValueError, match="binaris") as caught:
        registry.create(model, quiet(photos, channels=1).spec)
    asked = re.search(r"--data\.(\w+)=(\w+)", str(caught.value))
    option = dict([asked.groups()]) if asked else {"binarize": "threshold"}
    registry.create(model, quiet(photos, channels=1, **option).spec)


def test_an_unknown_binarisation_is_refused(photos):
    with pytest.raises(ValueError, match=r"binarize is one of none, threshold.*, got 'soft'"):
        ImageFolder(str(photos), binarize="soft")


# -- what vanishes ---------------------------------------------------------------------------------
def vanish(root: Path, how: str) -> None:
    for file in root.rglob("*.png"):
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(b"junk")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_images_that_vanish_during_training_are_one_line(photos, on_demand, workers, how):
    data = quiet(photos, num_workers=workers, batch_size=4)
    loader = iter(data.train_dataloader())
    next(loader)
    vanish(photos, how)
    with pytest.raises(ValueError, match=r"photos: .*\.png could be read when the run") as caught:
        [next(loader) for _ in range(50)]
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert "resume the run" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_whose_images_vanish_ends_in_one_line(
    photos, on_demand, workers, capsys, monkeypatch, tmp_path
):
    load = ImageFolder.load

    def load_and_lose(self):
        splits = load(self)
        self._look_at = lambda part: None
        vanish(photos, "gone")
        return splits

    monkeypatch.setattr(ImageFolder, "load", load_and_lose)
    arguments = "--model wgan_gp --data image_folder --data.size=8 --trainer.max_steps=3"
    more = [f"--data.root={photos}", f"--run_dir={tmp_path / 'run'}", "--wandb.mode=disabled"]
    more += [f"--data.num_workers={workers}", "--trainer.enable_progress_bar=false"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fit.main([*arguments.split(), *more]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x.lower()]
    assert line.startswith("zoo.fit: error: ") and "could be read when the run began" in line


@pytest.mark.parametrize("kind", ["gone", "empty", "all torn", "now a file"])
def test_images_that_vanished_before_a_resume_are_one_line(photos, kind):
    quiet(photos)
    if kind == "all torn":
        vanish(photos, "damaged")
    else:
        photos.rename(photos.with_name("moved"))
    if kind == "empty":
        photos.mkdir()
    if kind == "now a file":
        photos.write_text("")
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        quiet(photos)
    assert str(photos) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_damaged_files_of_a_known_dataset_are_one_line(tmp_path, name):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", 60), ("t10k", 10)):
        images = b"\0\0\x08\x03" + b"".join(v.to_bytes(4, "big") for v in (n, 28, 28))
        labels = b"\0\0\x08\x01" + n.to_bytes(4, "big")
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images + bytes(n * 784))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels + bytes(n))
    assert MNIST(root=str(tmp_path)).found["rows"] == {"train": 50, "val": 10, "test": 10}
    whole = (folder / name).read_bytes()
    for cut in (whole[:0], whole[:3], whole[:40], whole[:-9]):
        (folder / name).write_bytes(cut)
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            MNIST(root=str(tmp_path)).setup()
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_no_terminal_can_show_are_said_all_the_same(photos, said):
    os.rename(bytes(photos / "cat" / "torn.png"), bytes(photos / "cat") + b"/t\xe9\x1b\n.png")
    quiet(photos).setup()
    assert "cat/t???.png" in said[0]
    assert len(quiet(photos).found["fingerprint"]) == 16


def test_options_that_do_not_apply_are_refused_or_said(photos):
    with pytest.raises(ValueError, match=r"has no columns: --data\.image_column and"):
        ImageFolder(str(photos), label_column="kind")
    with pytest.raises(ValueError, match="label_column=kind says which classes, labels=false"):
        ImageFolder(str(photos), label_column="kind", labels=False)
    for split in ("train", "test"):
        (photos / split).mkdir()
    (photos / "cat").rename(photos / "train" / "cat")
    (photos / "dog").rename(photos / "test" / "dog")
    assert not any("--data.val" in note for note in quiet(photos).found["notes"])
    notes = quiet(photos, val=0.2).found["notes"]
    assert "--data.val and --data.test are not used: the data have splits" in notes


def test_each_image_has_a_fixed_draw_of_its_own(tmp_path):
    for i in range(6):
        Image.fromarray(np.full((8, 8), 128, np.uint8)).save(tmp_path / f"{i}.png")
    x = quiet(tmp_path, channels=1, binarize="fixed").examples()["x"].flatten(1)
    assert len(x.unique(dim=0)) == len(x) == 4
