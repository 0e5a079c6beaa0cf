"""The picture of what is strange: ranked by score, with the area where strangers are known."""

import torch
from sklearn.metrics import roc_auc_score

from tests.support import Given
from zoo.core import DataSpec
from zoo.gan.anogan import AnoGAN
from zoo.show.anomalies import ranked, strangers

SPEC = DataSpec((1, 8, 8), 17, 3)


class ByMean(AnoGAN):
    """Scores by the mean pixel; makes black images."""

    def score(self, x):
        return x.flatten(1).mean(1)

    def residual(self, x):
        self.shown = x
        return torch.zeros_like(x), x


def setting():
    model = ByMean(SPEC, width=8)
    model.seen[:2] = True
    x = torch.randint(17, (30, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    return model, Given(SPEC, x, torch.arange(30) % 3)


def test_columns_run_from_the_least_score_to_the_greatest():
    model, data = setting()
    ranked(model, data, 4)
    means = model.shown.flatten(1).mean(1)
    batch = data.examples(30, "test")
    every = batch["x"].flatten(1).mean(1)
    assert len(means) == 4 and torch.equal(means, means.sort().values)
    kinds = [every[batch["y"] != 2], every[batch["y"] == 2]]  # two columns of each
    ends = torch.cat([torch.stack([v.min(), v.max()]) for v in kinds]).sort().values
    torch.testing.assert_close(means, ends)


def test_the_area_is_that_of_the_classes_never_seen():
    model, data = setting()
    _, area = ranked(model, data, 4)
    batch = data.examples(30, "test")
    truth = roc_auc_score(batch["y"] == 2, batch["x"].flatten(1).mean(1))
    assert abs(area - truth) < 1e-9


def test_without_strangers_there_is_no_area():
    model, data = setting()
    assert strangers(model, torch.tensor([0, 1, 1])) is None
    assert strangers(model, torch.tensor([2, 2])) is None and strangers(model, None) is None
    assert strangers(model, torch.tensor([2, 0])).tolist() == [True, False]
    model.seen[:] = True
    assert ranked(model, data, 4)[1] is None
