"""Every extractor that needs no download measures: the further images are from the data, the worse
their scores.
"""

import io
import itertools
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zoo.core.spec import DataSpec
from zoo.data.digits import Digits
from zoo.data.heads import Heads
from zoo.metrics import DataNet, FrechetDistance, Pixels, extractors
from zoo.metrics.inception_score import inception_score
from zoo.metrics.prdc import prdc

PHOTOGRAPHS = "cifar10_jpeg.tar"
ROOTS = (os.environ.get("ZOO_DATA", "/nowhere"), Path(__file__).parents[3] / "shared" / "data")
FOUND = next((file for root in ROOTS if (file := Path(root) / PHOTOGRAPHS).is_file()), None)
STEPS = {"digitsnet": 200, "digitsnet without labels": 200, "headsnet": 300}


def noise(x, y, step, levels):
    g = torch.Generator().manual_seed(0)
    return (x + 0.2 * step * levels * torch.randn(x.shape, generator=g)).clamp(0, levels), y


def blur(x, y, step, levels):
    for _ in range((0, 1, 2, 4)[step] * x.shape[-1] // 8):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return x, y


def shuffle(x, y, step, levels):
    """A quarter, a half and all of 16 patches change places, others in each image."""
    width, g = x.shape[-1] // 4, torch.Generator().manual_seed(0)
    patches = F.unfold(x, width, stride=width)  # (n, one patch, 16)
    order = torch.rand(len(x), 16, generator=g).argsort(1)
    chosen = order[:, : (0, 4, 8, 16)[step]]
    places = torch.arange(16).expand_as(order).scatter(1, chosen, chosen.roll(1, 1))
    moved = patches.gather(2, places[:, None].expand_as(patches))
    return F.fold(moved, x.shape[-1], width, stride=width), y


def drop(x, y, step, levels):
    """All classes, three quarters of them, a half, a quarter; as many images, which repeat."""
    classes = int(y.max()) + 1
    rows = (y >= step * classes // 4).nonzero()[:, 0]
    return x[rows.repeat(len(x))[: len(x)]], y


@pytest.fixture(scope="module")
def yardsticks(tmp_path_factory):
    """By name: an extractor, the images it compares with, and others of the same data."""
    made = {}

    def yardstick(name):
        if name in made:
            return made[name]
        data = Heads(n=600, n_val=300, label="pose") if "heads" in name else Digits()
        train = data.examples(600)
        fresh = data.examples(300, "val") if "heads" in name else data.examples(600, start=600)
        spec, y = data.spec, train["y"]
        if "without" in name:
            spec, y = DataSpec(spec.shape, spec.levels, 0, spec.name), None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(extractors, "STEPS", STEPS.get(name, 0))
            if "pixels" in name:
                net = Pixels(spec, train["x"], y)
            else:
                net = DataNet(spec, train["x"], y, tmp_path_factory.mktemp("kept"), progress=False)
        made[name] = net, spec, train["x"], fresh
        return made[name]

    return yardstick


def ladder(net, spec, real, x, y, corrupt):
    """Scores, of which more is better, of images corrupted in three steps."""
    scores = {"fid": [], "coverage": [], "is": []}
    real = torch.cat([net(part, spec)[0] for part in real.split(256)])
    for step in range(4):
        worse = corrupt(x, y, step, spec.levels - 1)[0]
        features, p = net(worse, spec)
        fid = FrechetDistance(net.dim)
        fid.update(real, real=True)
        fid.update(features)
        scores["fid"].append(-float(fid.compute()))
        scores["coverage"].append(float(prdc(real[: len(features)], features)["coverage"]))
        if p is not None:
            scores["is"].append(float(inception_score(p, 1)[0]))
    return {kind: values for kind, values in scores.items() if values}


def fall(values):
    return all(a > b or a == b == 0 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("corrupt", [noise, blur, shuffle, drop])
@pytest.mark.parametrize(
    "name",
    [
        "pixels",
        "digitsnet",
        "digitsnet without labels",
        pytest.param("headsnet", marks=pytest.mark.slow),
    ],
)
def test_scores_get_worse_step_by_step(name, corrupt, yardsticks):
    net, spec, real, fresh = yardsticks(name)
    scores = ladder(net, spec, real, fresh["x"], fresh["y"], corrupt)
    assert all(fall(values) for values in scores.values()), scores


def photographs():
    """CIFAR-10 in JPEG: 10,000 training images and 1,000 others, of all classes in equal number."""
    parts, counts = {"train": ([], []), "test": ([], [])}, {}
    with tarfile.open(FOUND) as archive:
        for member in archive:
            split, kind = Path(member.name).parts[-3:-1] if member.isfile() else ("", "")
            counts[split, kind] = counts.get((split, kind), 0) + 1
            if split in parts and counts[split, kind] <= (1000 if split == "train" else 100):
                picture = Image.open(io.BytesIO(archive.extractfile(member).read()))
                parts[split][0].append(np.asarray(picture.convert("RGB")))
                parts[split][1].append(kind)
    kinds = sorted({kind for _, kind in counts if kind})
    return [
        (
            torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).float(),
            torch.tensor([kinds.index(kind) for kind in y]),
        )
        for x, y in parts.values()
    ]


@pytest.mark.slow
@pytest.mark.skipif(FOUND is None, reason=f"{PHOTOGRAPHS} is not under ZOO_DATA")
def test_photographs_train_a_network_that_sees_when_they_are_blurred(tmp_path):
    (x, y), (fresh, classes) = photographs()
    spec = DataSpec((3, 32, 32), 256, 10, "photographs")
    net = DataNet(spec, x, y, tmp_path, progress=False)
    right = (net(fresh, spec)[1].argmax(1) == classes).double().mean()
    assert net.describe()["larger_network"] and right > 0.55  # the first one: .46
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: len(fresh)]
    for corrupt in (noise, blur, shuffle):
        scores = ladder(net, spec, x[order], fresh, classes, corrupt)
        assert all(fall(values) for values in scores.values()), (corrupt.__name__, scores)
