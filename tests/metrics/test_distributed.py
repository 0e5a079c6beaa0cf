"""Two processes that share the rows get what one process gets from all of them, for every
metric.
"""

import os
import runpy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from zoo.check.processes import launch
from zoo.core.processes import from_rank_zero
from zoo.core.spec import DataSpec
from zoo.metrics import PRDC, DataNet, FrechetDistance, InceptionScore, KernelDistance, extractors
from zoo.metrics.neighbours import nearest

pytestmark = pytest.mark.ddp
SPEC = DataSpec((1, 6, 6), 4, 2, "shapes")


def rows(seed, n=101, d=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def metrics(rank=0, world=1):
    """Every metric over blocks of 8 rows, dealt out in turn; process 1 sees its blocks in reverse
    order.
    """
    real, fake = rows(0), rows(1) + 0.5
    found = {}
    for metric in (
        FrechetDistance(5),
        KernelDistance(5, 7, 30),
        PRDC(5, keep=60),
        InceptionScore(5, 3),
    ):
        for x, is_real in ((real, True), (fake, False)):
            if isinstance(metric, InceptionScore):
                x = x.softmax(1)
            blocks = [slice(i, i + 8) for i in range(0, len(x), 8)][rank::world]
            for block in reversed(blocks) if rank else blocks:
                where = {} if isinstance(metric, FrechetDistance) else {"rows": block.start}
                metric.update(x[block], **where, real=is_real)
        value = metric.compute()
        values = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, tuple)
            else (value,)
        )
        found[type(metric).__name__] = torch.stack([v.double() for v in values])
    lonely = KernelDistance(5, 7, 30)  # all rows on process 0
    if rank == 0:
        lonely.update(real, 0, real=True)
        lonely.update(fake, 0)
    found["lonely"] = torch.stack(lonely.compute())
    blocks = [(i, real[i : i + 8]) for i in range(0, len(real), 8)][rank::world]
    found["nearest"] = torch.cat(nearest(fake, blocks, 3))
    return found


def work(folder):
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = metrics(rank, 2)
    extractors.STEPS = 20
    trained = []
    train = DataNet._train
    DataNet._train = lambda self, *a: (trained.append(1), train(self, *a))
    torch.manual_seed(rank)
    x = torch.randint(
        0, 4, (30, 1, 6, 6), generator=torch.Generator().manual_seed(rank)
    ).float()  # process 0's data count
    net = DataNet(
        SPEC, x, torch.arange(30) % 2, cache=Path(folder) / f"cache{rank}", progress=False
    )
    found["trained"], found["features"] = (
        torch.tensor(len(trained)),
        net(torch.ones(1, 1, 6, 6), SPEC)[0],
    )
    try:
        from_rank_zero(lambda: 1 / 0)
    except (ZeroDivisionError, RuntimeError) as error:
        found["error"] = torch.tensor("ZeroDivisionError" in f"{type(error).__name__}: {error}")
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch(runpy.run_path, 2, __file__, {"folder": str(folder)}, "__member__")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(
    "name", ["FrechetDistance", "KernelDistance", "PRDC", "InceptionScore", "lonely", "nearest"]
)
def test_two_processes_agree_with_one(two, name):
    one = metrics()[name]
    for found in two:
        assert torch.allclose(found[name], one, rtol=1e-10, atol=0), name


def test_the_feature_network_is_trained_on_the_first_process_and_equal_on_all(two):
    assert [int(found["trained"]) for found in two] == [1, 0]
    assert torch.equal(two[0]["features"], two[1]["features"])


def test_an_error_of_the_first_process_is_an_error_of_all(two):
    assert all(found["error"] for found in two)


if __name__ == "__member__":
    work(folder)  # noqa: F821
