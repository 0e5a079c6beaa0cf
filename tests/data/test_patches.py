"""Patches of photographs: cut where the seed says, no pixel in two splits, whitened by the training
patches alone.
"""

import numpy as np
import pytest
import scipy.linalg
import sklearn.datasets
import torch
from sklearn.datasets import load_sample_images

from zoo.core import Image
from zoo.data.patches import Patches

FEW = {"n": 300, "n_val": 60, "n_test": 60}
SPLITS = ("train", "val", "test")


def rows(data, split="train"):
    return data.split(split)["x"].numpy()


def noise(data, split, i):
    """u of patch i, from the generator that is stated."""
    key = (SPLITS.index(split), i, 0)
    sequence = np.random.SeedSequence(entropy=data.seed, spawn_key=key)
    drawn = np.random.Generator(np.random.PCG64(sequence)).random(1 + data.spec.dim)
    return drawn[1:].reshape(data.spec.shape)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_no_pixel_is_in_two_splits(size, monkeypatch):
    """Photographs whose colours say which pixel it is: photograph and column."""
    column = np.arange(640)
    photographs = [np.zeros((427, 640, 3), np.uint8) for _ in range(2)]
    for k, p in enumerate(photographs):
        p[..., 0], p[..., 1], p[..., 2] = column // 256, column % 256, k

    class Fake:
        images = photographs

    monkeypatch.setattr(sklearn.datasets, "load_sample_images", Fake)
    data = Patches(size=size, channels="colour", n=3000, n_val=800, n_test=800)
    seen = {}
    for split in SPLITS:
        high, low, photograph = rows(data, split).astype(int).transpose(1, 0, 2, 3)
        columns = 256 * high + low
        assert (np.diff(columns, axis=-1) == 1).all()  # neighbours in the patch are neighbours
        assert (np.ptp(columns, axis=1) == 0).all() and (np.ptp(photograph, axis=(1, 2)) == 0).all()
        assert {*photograph.flatten()} == {0, 1}
        seen[split] = {*columns.flatten().tolist()}
    assert not (
        seen["train"] & seen["val"] | seen["train"] & seen["test"] | seen["val"] & seen["test"]
    )
    assert len(seen["train"]) > (400 if size > 1 else 200)


@pytest.mark.parametrize("channels", ["grey", "colour"])
def test_patches_are_parts_of_the_photographs(channels):
    photographs = np.stack(load_sample_images().images).astype(float)
    if channels == "grey":
        photographs = np.rint(photographs @ [0.299, 0.587, 0.114])[..., None]
    places = np.lib.stride_tricks.sliding_window_view(photographs, (8, 8), (1, 2))
    corners = places.reshape(-1, places.shape[3], 8, 8)[..., ::7, ::7].astype(np.uint8)
    there = {c.tobytes() for c in corners}
    for split in SPLITS:
        x = rows(Patches(channels=channels, **FEW), split)
        assert all(np.ascontiguousarray(p[..., ::7, ::7]).tobytes() in there for p in x)


def test_a_patch_depends_on_seed_split_and_number_alone():
    few, many = Patches(**FEW), Patches(**{**FEW, "n": 900})
    assert np.array_equal(rows(few), rows(many)[:300])
    assert not np.array_equal(rows(few), rows(Patches(**FEW, seed=1)))
    centred = Patches(**FEW, whiten="centred")
    wanted = [p / 256 + noise(centred, "train", i) / 256 for i, p in enumerate(rows(few))]
    wanted = np.array([p - p.mean() for p in wanted])
    np.testing.assert_allclose(rows(centred), wanted, atol=1e-6)
    assert abs(rows(centred).mean((1, 2, 3))).max() < 1e-6
    assert (
        abs(
            rows(centred) - (rows(few) / 256 - rows(few).mean((1, 2, 3), keepdims=True) / 256)
        ).max()
        < 2 / 256
    )


@pytest.mark.parametrize("channels", ["grey", "colour"])
def test_whitened_patches_are_white_by_the_training_patches_alone(channels):
    options = {"size": 4, "channels": channels, "n": 2000, "n_val": 400, "n_test": 50}
    raw, data = Patches(**options), Patches(**options, whiten="whitened")
    dim = data.spec.dim
    x = rows(data).reshape(-1, dim).astype(float)
    np.testing.assert_allclose(np.cov(x.T), np.eye(dim), atol=2e-3)
    assert abs(x.mean(0)).max() < 1e-3
    dequantised = {
        s: np.array([(p + noise(data, s, i)) / 256 for i, p in enumerate(rows(raw, s))])
        for s in ("train", "val")
    }
    train, val = (dequantised[s].reshape(-1, dim) for s in ("train", "val"))
    root = np.real(scipy.linalg.sqrtm(np.cov(train.T)))
    wanted = np.linalg.solve(root, (val - train.mean(0)).T).T
    np.testing.assert_allclose(rows(data, "val").reshape(-1, dim), wanted, atol=5e-3)
    found = np.cov(rows(data, "val").reshape(-1, dim).T)
    assert abs(found - np.eye(dim)).max() > 0.05  # white they are in the training split only
    other = Patches(**{**options, "n_val": 9}, whiten="whitened")
    assert np.array_equal(rows(other), rows(data))


@pytest.mark.parametrize(
    ("whiten", "levels"), [("raw", 256), ("centred", None), ("whitened", None)]
)
def test_the_spec_is_what_is_served(whiten, levels):
    data = Patches(size=6, channels="colour", whiten=whiten, **FEW)
    assert data.spec["x"] == Image((3, 6, 6), levels)
    x = data.examples(50)["x"]
    assert x.dtype == torch.float32 and not data.spec["x"].faults(x)
    assert data.found["rows"] == {"train": 300, "val": 60, "test": 60}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 65}, "size is at most 64, .* got 65"),
        ({"channels": "red"}, "channels is one of grey, colour, got 'red'"),
        ({"whiten": "zca"}, "whiten is one of raw, centred, whitened, got 'zca'"),
        ({"whiten": "whitened", "n": 64}, "got n=64; set --data.n=640"),
        ({"n_val": 0}, "n_val is at least 1, got 0"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(options, said):
    with pytest.raises(ValueError, match=said):
        Patches(**options)
    if "--data.n=640" in said:
        Patches(**{**options, "n": 640})
