"""Mode coverage is logged for mixtures, and for nothing else."""

import pytest
import torch

from callbacks import EMA, ModeCoverage
from tests.callbacks.fakes import POINTS, Free, Painter, Recorder, Witness, run, squares
from tests.support import Given
from zoo.data.toy2d import Toy2D


class Ring(Free):
    """Samples three of eight components, and a tenth of its samples nowhere near any."""

    def sample(self, n, *, generator=None):
        data = Toy2D()
        which = torch.randint(3, (n,), generator=generator)
        x = data.centres[which] + data.std * torch.randn(n, 2, generator=generator)
        return torch.where(torch.rand(n, 1, generator=generator) < 0.1, torch.zeros(2), x).to(
            self.float_dtype
        )


def test_modes_and_shares_are_logged_on_generator_steps_without_a_trace():
    logger, coverage = Recorder(), ModeCoverage()
    witness = Witness(coverage)
    trainer = run(Ring(POINTS), Toy2D(size=1000), 4, coverage, EMA(), every=2, logger=logger)
    found = trainer.callback_metrics
    assert found["val/modes"] == 3
    assert found["val/hq"].item() == pytest.approx(0.9, abs=0.03)
    assert found["val/hq_strict"].item() == pytest.approx(
        0.9 * (1 - 2.718281828 ** (-4.5)), abs=0.03
    )
    assert logger.steps("val/modes") == [2, 4] and witness.calls > 0


def test_data_without_centres_and_images_are_left_alone():
    for model, data in (
        (Free(POINTS), Given(POINTS, torch.randn(20, 2))),
        (Free(), squares()),
        (Ring(POINTS), Toy2D("moons", size=100)),
    ):
        trainer = run(model, data, 1, ModeCoverage(), every=1)
        assert "val/modes" not in trainer.callback_metrics


def test_a_conditional_model_is_asked_for_each_labels_own_mode():
    class Turned(Painter):
        """Points of the right component for even labels, of the next one for odd ones."""

        def sample(self, n, *, y, generator=None):
            return Toy2D().centres[(y + y % 2) % 8].to(self.float_dtype)

    data = Toy2D(size=1000, labelled=True)
    found = run(Turned(data.spec), data, 1, ModeCoverage(), every=1).callback_metrics
    assert (
        found["val/own_mode"] == pytest.approx(0.5)
        and found["val/modes"] == 4
        and found["val/hq"] == 1
    )
