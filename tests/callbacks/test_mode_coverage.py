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


@pytest.mark.parametrize(
    ("radius", "least", "modes", "hq"), [(0.6, 10, 2, 1), (0.6, 11, 1, 1), (0.4, 10, 1, 10 / 64)]
)
def test_what_is_near_and_how_many_reach_a_mode_are_as_asked(radius, least, modes, hq):
    class Beside(Free):
        """Ten points on the first centre, the others half a unit from the second."""

        def sample(self, n, *, generator=None):
            first, second = Toy2D().centres[:2].to(self.float_dtype)
            aside = second * 1.25  # of radius 2
            return torch.cat([first.expand(10, 2), aside.expand(n - 10, 2)])

    coverage = ModeCoverage(n=64, radius=radius, least=least)
    found = run(Beside(POINTS), Toy2D(size=1000), 1, coverage, every=1).callback_metrics
    assert found["val/modes"] == modes and found["val/hq"] == pytest.approx(hq)


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
        """Points of the right component, but for labels 0 and 4 of the next one."""

        def sample(self, n, *, y, generator=None):
            return Toy2D().centres[y + (y % 4 == 0)].to(self.float_dtype)

    data = Toy2D(size=1000, labelled=True)
    found = run(Turned(data.spec), data, 1, ModeCoverage(), every=1).callback_metrics
    assert (
        found["val/own_mode"] == pytest.approx(0.75)  # 312 and 313 of 2,500 are not
        and found["val/modes"] == 6
        and found["val/hq"] == 1
    )
