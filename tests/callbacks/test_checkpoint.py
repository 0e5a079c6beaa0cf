"""``last`` and ``best`` are what their names say, on the generator's clock."""

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import Checkpoints
from tests.support import Given, fit
from zoo.core import DataSpec
from zoo.gan.began import BEGAN

SPEC = DataSpec((1, 8, 8), 17)


class Score(Callback):
    """Logs a scripted metric at each validation."""

    def __init__(self, name, values):
        self.name, self.values = name, iter(values)

    def on_validation_epoch_end(self, trainer, module):
        module.log(self.name, next(self.values))


def run(folder, name, values, steps=6, **options):
    keeper = Checkpoints(**{"every_n_steps": 4, **options})
    data = Given(SPEC, torch.randint(0, 17, (40, 1, 8, 8)).float())
    model = BEGAN(SPEC, latent=4, code=4, width=8)
    fit(
        model,
        data,
        steps,
        callbacks=[Score(name, values), keeper],
        default_root_dir=str(folder),
        limit_val_batches=1,
        val_check_interval=2,
        enable_checkpointing=True,
    )
    return {
        p.stem: torch.load(p, weights_only=True)["global_step"]
        for p in (folder / "checkpoints").iterdir()
    }


def test_last_is_the_end_and_best_the_lowest_distance(tmp_path):
    assert run(tmp_path, "val/fid_pixels", [3.0, 1.0, 2.0]) == {"last": 6, "best": 4}


def test_a_likelihood_is_better_when_higher_and_a_nan_is_never_best(tmp_path):
    assert run(tmp_path, "val/elbo", [-30.0, float("nan"), -20.0]) == {"last": 6, "best": 6}
    assert run(tmp_path / "b", "val/elbo", [-20.0, float("nan"), -30.0]) == {"last": 6, "best": 2}


def test_last_knows_the_best_score_of_its_own_step(tmp_path):
    run(tmp_path, "val/fid_pixels", [3.0, 2.0, 1.0], every_n_steps=2)
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = [v for k, v in content["callbacks"].items() if k.startswith("Checkpoints")]
    assert state == {"best_score": 1.0, "best_metric": "val/fid_pixels"}


def test_an_explicit_monitor_wins(tmp_path):
    assert run(tmp_path, "val/other", [1.0, 5.0, 2.0], monitor="val/other", mode="max")["best"] == 4


def test_without_a_metric_there_is_only_last(tmp_path):
    assert run(tmp_path, "val/unheard_of", [1.0, 1.0, 1.0]) == {"last": 6}


def test_the_best_score_survives_a_checkpoint():
    keeper, again = Checkpoints(), Checkpoints()
    keeper.best_score, keeper.best_metric = 1.5, "val/fid_pixels"
    again.load_state_dict(keeper.state_dict())
    assert again._monitored({"val/fid_pixels": 2.0, "val/nll_nats": 1.0}) == (
        "val/fid_pixels",
        "min",
    )
    assert again.best_score == 1.5


@pytest.mark.parametrize("bad", [{"every_n_steps": 0}, {"mode": "lowest"}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=f"checkpoints.{next(iter(bad))}"):
        Checkpoints(**bad)
