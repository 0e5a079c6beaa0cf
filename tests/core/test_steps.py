"""The steps that loggers are given are whole numbers without rounding, also above 2^24, where
float32 has no odd ones.
"""

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import BitsPerDim, Memorisation
from tests.callbacks.fakes import SPEC, Gauss, Pair, Recorder, run, squares

LATE = 2**24


def resumed(model, path, steps, *callbacks, **options):
    """A run that goes on from step LATE."""
    run(model, squares(), 1).save_checkpoint(path)
    saved = torch.load(path, weights_only=False)
    saved["global_step"] = LATE
    loop = saved["loops"]["fit_loop"]
    batches = loop["epoch_loop.batch_progress"]["total"]
    optim = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    manual = loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]
    for counts in (batches, optim, manual):
        counts.update(ready=LATE, completed=LATE)
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = LATE
    torch.save(saved, path)
    return run(
        model, squares(), LATE + steps, *callbacks, ckpt_path=path, log_every_n_steps=1, **options
    )


@pytest.mark.slow  # the rows of all steps before are counted
def test_training_and_validation_log_every_step_as_it_is():
    for model, evaluation in (
        (Gauss(SPEC), BitsPerDim()),
        (Pair(SPEC), Memorisation(n=2, n_fake=4, extractor="pixels")),
    ):
        logger = Recorder()
        trainer = resumed(model, "late.ckpt", 5, evaluation, logger=logger, every=1)
        assert isinstance(trainer, Trainer) and trainer.global_step == LATE + 5
        assert logger.steps("train/loss") == [LATE + i for i in range(1, 6)]
        assert set(logger.steps("val/")) <= set(logger.steps("train/loss"))
        assert logger.steps("val/")[-1] == LATE + 5
