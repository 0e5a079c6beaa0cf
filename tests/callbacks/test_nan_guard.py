"""A non-finite term stops the run at once, by name, and no checkpoint holds what it has spoilt."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import Checkpoints, NaNGuard
from tests.callbacks.fakes import SPEC, Pair, run, squares
from zoo.core.module import NonFiniteLoss


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_the_term_its_value_and_the_step_are_named(value):
    model = Pair(SPEC)
    model.spoil = {3: value}
    with pytest.raises(
        NonFiniteLoss,
        match=rf"step 3: extra={value} is not finite \(the others: loss_d=.*Lower the learning "
        rf"rate",
    ):
        run(model, squares(), 10, NaNGuard())


def test_no_checkpoint_is_written_after_it_whatever_the_order_of_callbacks():
    model = Pair(SPEC)
    model.spoil = {4: "nan"}
    with pytest.raises(NonFiniteLoss, match=r"last good state is checkpoints/last\.ckpt"):
        run(
            model,
            squares(),
            10,
            Checkpoints(every_n_steps=1),
            NaNGuard(),
            enable_checkpointing=True,
        )
    assert torch.load("checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def test_a_spoilt_checkpoint_is_not_called_good():
    def spoil(trainer, module):
        if trainer.global_step == 2:
            module.g.weight.data.fill_(float("nan"))
            trainer.save_checkpoint("checkpoints/last.ckpt")  # by whoever does not look

    model = Pair(SPEC)
    model.spoil = {2: "nan"}
    first = Callback()
    first.on_train_batch_end = lambda trainer, module, *_: spoil(trainer, module)
    with pytest.raises(NonFiniteLoss) as said:
        run(model, squares(), 10, first, NaNGuard(), enable_checkpointing=True)
    assert Path("checkpoints/last.ckpt").is_file()
    assert "last.ckpt" not in str(said.value)


def test_without_the_guard_the_spoilt_state_would_be_saved():
    model = Pair(SPEC)
    model.spoil = {4: "nan"}
    run(model, squares(), 4, Checkpoints(every_n_steps=1), enable_checkpointing=True)
    assert torch.load("checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_finite_runs_are_left_alone():
    assert run(Pair(SPEC), squares(), 5, NaNGuard()).global_step == 5
    assert not Path("checkpoints").exists()


def test_on_a_gpu_it_looks_every_few_steps_and_at_the_last(monkeypatch):
    looked = []
    guard = NaNGuard(every_n_steps=3)
    isfinite = torch.Tensor.isfinite
    monkeypatch.setattr(
        torch.Tensor,
        "isfinite",
        lambda self: (looked.append(trainer.global_step), isfinite(self))[1],
    )

    class Trainer:
        max_steps, world_size = 8, 1
        max_epochs, is_last_batch = -1, False

    class Model:
        device, terms = torch.device("cuda"), {"loss": torch.zeros(())}

    trainer = Trainer()
    for trainer.global_step in range(1, 9):
        guard.on_train_batch_end(trainer, Model(), None, None, 0)
    assert looked == [3, 6, 8]
