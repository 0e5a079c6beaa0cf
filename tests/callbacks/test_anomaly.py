"""How well strange classes are told from the others, of models that score, and of nothing else."""

import torch
from sklearn.metrics import roc_auc_score

from callbacks import Anomaly
from tests.callbacks.fakes import SPEC, Free, Recorder, entry, run
from tests.support import Given
from zoo.core import DataSpec

LABELLED = DataSpec(SPEC.shape, SPEC.levels, 3)


class Scorer(Free):
    """Scores by the mean pixel; it never saw class 2."""

    entry = entry("scorer", can={"sample", "score"}, told=())

    def __init__(self, spec, seen=(True, True, False)):
        super().__init__(spec)
        self.register_buffer("seen", torch.tensor(seen))

    def score(self, x):
        assert not self.training
        return x.flatten(1).mean(1)


class Parted(Scorer):
    def scores(self, x):
        return {"score": self.score(x), "other": -self.score(x)}


def data():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(30) % 3
    x = torch.randint(LABELLED.levels, (30, *LABELLED.shape), generator=g).float()
    return Given(LABELLED, x, y)


def truth(n: int = 30) -> float:
    batch = data().examples(n, "val")
    return roc_auc_score(batch["y"] == 2, batch["x"].flatten(1).mean(1))


def test_the_area_of_the_unseen_class_is_logged_at_every_validation():
    logger = Recorder()
    found = run(Scorer(LABELLED), data(), 4, Anomaly(), every=2, logger=logger).callback_metrics
    assert abs(found["val/auroc"].item() - truth()) < 1e-6
    assert logger.steps("val/auroc") == [2, 4]
    few = run(Scorer(LABELLED), data(), 1, Anomaly(n=12), every=1).callback_metrics
    assert abs(few["val/auroc"].item() - truth(12)) < 1e-6 and truth(12) != truth()


def test_parts_of_a_score_have_areas_of_their_own():
    found = run(Parted(LABELLED), data(), 1, Anomaly(), every=1).callback_metrics
    assert abs(found["val/auroc"].item() + found["val/auroc_other"].item() - 1) < 1e-6


def test_models_without_scores_and_runs_without_strangers_are_left_alone():
    everything = Scorer(LABELLED, seen=(True, True, True))
    for model in (Free(LABELLED), everything):
        assert "val/auroc" not in run(model, data(), 1, Anomaly(), every=1).callback_metrics
