"""On two processes the callbacks report what they report on one, write once, and stop together."""

import json
import os
import runpy
from pathlib import Path
from unittest import mock

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import EMA, BitsPerDim, Fidelity, NaNGuard, SampleGrid
from zoo.bases import LikelihoodModule
from zoo.check.processes import launch
from zoo.core import Spec
from zoo.core.likelihood import row_noise
from zoo.core.module import NonFiniteLoss
from zoo.data.digits import Digits
from zoo.gan.began import BEGAN
from zoo.gan.cgan import CGAN
from zoo.metrics import extractors
from zoo.registry import Entry

pytestmark = pytest.mark.ddp


class Gauss(LikelihoodModule):
    """Has a likelihood, a term of a random estimate, and a loss that is NaN on the second process
    at step 3.
    """

    entry = Entry("gauss", "flow", "", "", can=frozenset({"log_prob"}), likelihood="exact_mass")

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.m = torch.nn.Parameter(torch.ones(()))

    def log_prob(self, x, *, generator=None):
        return -(x - self.m).square().flatten(1).sum(1) / 2

    def evaluate(self, batch, generator=None):
        return {"estimate": row_noise(torch.rand, batch["x"], (1,), generator)[:, 0]}

    def loss(self, batch):
        nll = -self.log_prob(batch["x"]).mean()
        spoilt = self.trainer.global_step == 2 and self.global_rank == self.trainer.world_size - 1
        return {"loss": nll, "extra": nll * float("nan") if spoilt else nll}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


@mock.patch.object(extractors, "STEPS", 30)
def evaluate(world, folder):
    """Every validation value of both models, untrained."""
    options = {
        "accelerator": "cpu",
        "devices": world,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": folder,
    }
    if world > 1:
        options["strategy"] = "ddp_find_unused_parameters_true"
    data, found = Digits(), {}
    torch.manual_seed(0)
    for model in (CGAN(data.spec), BEGAN(data.spec, width=16), Gauss(data.spec)):
        callbacks = [Fidelity(n_fake=150, n_real=300, precision_recall_n=100), BitsPerDim()]
        trainer = Trainer(callbacks=callbacks, **options)
        trainer.validate(model, data, verbose=False)
        found |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    torch.manual_seed(0)
    training = {
        "max_steps": 6,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "check_val_every_n_epoch": None,
        "val_check_interval": 10**9,
    }
    trainer = Trainer(
        callbacks=[SampleGrid(every_n_steps=1, n=4), EMA(decay=0.5)],
        **options,
        **{**training, "max_steps": 2},
    )
    trainer.fit(BEGAN(data.spec, width=16), data)
    try:
        Trainer(callbacks=[NaNGuard()], **options, **training).fit(Gauss(data.spec), data)
        found["stopped"] = ""
    except NonFiniteLoss as error:
        found["stopped"] = str(error)
    return found


def member(folder):
    rank = os.environ["LOCAL_RANK"]
    os.environ["ZOO_CACHE"] = f"{folder}/cache{rank}"
    found = evaluate(2, folder)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch(runpy.run_path, 2, __file__, {"folder": str(folder)}, "__member__")
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_every_value_is_that_of_one_process(two, tmp_path):
    one, (first, second) = evaluate(1, str(tmp_path)), two[1]
    assert (
        first.keys() == one.keys()
        and {"val/fid_digitsnet", "val/kid_pixels", "val/nll_nats", "val/estimate"} <= one.keys()
        and "val/cond_acc_digitsnet" in one
    )
    for name in one.keys() - {"stopped"}:
        assert first[name] == second[name] == pytest.approx(one[name], rel=1e-6, abs=1e-7), name


def test_all_processes_stop_at_the_same_step_and_one_names_the_term(two):
    stopped = [found["stopped"] for found in two[1]]
    assert all(message.startswith("step 3: ") for message in stopped)
    assert "term of another process" in stopped[0] and "extra=nan" in stopped[1]


def test_one_process_writes(two):
    folder = two[0]
    pictures = {p.name for p in (folder / "samples").iterdir()}
    assert pictures == {
        f"{kind}_{step:06d}.png" for kind in ("step", "reconstructions") for step in (1, 2)
    }
    assert [p.name for p in folder.glob("cache*")] == [
        "cache0"
    ]  # the feature network was trained once
    assert json.loads((folder / "protocol.json").read_text())["likelihood_kind"] == "exact_mass"


if __name__ == "__member__":
    member(folder)  # noqa: F821
