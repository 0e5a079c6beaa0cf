"""The progress bar shows what a model's paper watches: terms that the model logs."""

import pytest
import torch

from tests.support import fit
from zoo import registry
from zoo.bases import LikelihoodModule
from zoo.check import Subject
from zoo.core import GenerativeModule
from zoo.metrics.meanings import meaning


class Both(GenerativeModule):
    """It logs three terms, and nothing learns."""

    def __init__(self, spec):
        super().__init__(spec)
        self.w = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.start_noise("train")
        one = self.w * 0 + 1
        self.report({"loss": one, "kl": 2 * one, "other": 3 * one}, self.trainer.global_step + 1)
        return one

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class Kept(Both):
    watches = ("kl", "now and then")

    def report(self, terms, step):
        super().report({**terms, "now and then": terms["kl"]} if step == 2 else terms, step)


@pytest.mark.parametrize(
    ("kind", "shown"), [(Both, {"train/loss"}), (Kept, {"train/kl", "train/now and then"})]
)
def test_the_bar_shows_what_is_watched_or_else_the_losses(kind, shown):
    data = Subject.of("gan").data()
    trainer = fit(kind(data.spec), data, 3, log_every_n_steps=1)
    assert {*trainer.progress_bar_metrics} - {"v_num"} == shown
    logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
    assert {"train/loss": 1, "train/kl": 2, "train/other": 3}.items() <= logged.items()


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.list())
def test_a_model_logs_what_it_watches_and_every_value_of_it_is_explained(name):
    subject = Subject.of(name)
    data = subject.data()
    model = subject.model(data.spec)
    subject.fit(model, 2, data)
    watched = {*model.watches}
    if type(model).watches is LikelihoodModule.watches:  # which it is, the data say
        assert watched & model.terms.keys()
    else:
        assert watched and watched <= model.terms.keys()
    with torch.no_grad():
        values = model.eval().evaluate(data.examples(4, "val"))
    for key in (*(f"train/{k}" for k in model.terms), *(f"val/{k}" for k in values)):
        found = meaning(key)
        assert found.sentence or found.title != key.rpartition("/")[2], key
