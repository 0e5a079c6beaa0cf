"""Targets are measured against what was wanted, and no trivial answer gains anything."""

import pytest
import torch

from callbacks import Targets
from tests.callbacks.fakes import Painter, entry, run
from zoo.data.paired import Paired
from zoo.data.unpaired import Unpaired
from zoo.metrics import extractors
from zoo.metrics.targets import answers


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 300)


class Answering(Painter):
    """Answers every source by a function of it."""

    entry = entry("answering", can={"sample", "translate"}, told=("source",))
    accepts: dict = {}

    def __init__(self, data, answer):
        super().__init__(data.spec)
        self.answer = answer

    def translate(self, source):
        return self.answer(source)

    def sample(self, n, *, source, generator=None):
        return self.translate(source)


class Changing(Answering):
    entry = entry("changing", can={"sample", "translate"}, told=("a",), makes=("b",))

    def sample(self, n, *, a, generator=None):
        return self.translate(a)


def found(model, data, **options):
    trainer = run(model, data, 1, Targets(**options), every=1)
    return {k.removeprefix("val/"): v.item() for k, v in trainer.callback_metrics.items()}


def shrunk():
    return Paired(kind="sr2", size=16, options={"n": 300, "n_val": 60})


def test_each_trivial_answer_scores_as_it_is_said_to_and_gains_nothing():
    data = shrunk()
    spec, mean = data.spec, data.examples()["x"].mean(0) / 255
    tried = answers(torch.zeros(1, 3, 8, 8), mean)

    def by(name):
        source = spec["source"]
        return lambda s: answers(source.to_unit(s), mean)[name] * 255

    for name in tried:
        values = found(Answering(data, by(name)), data, n=40)
        for k in ("psnr", "ssim", "l1"):
            assert values[k] == pytest.approx(values[f"{k}_{name}"], rel=1e-4), (k, name)
        if name == "copy":
            row, first = data.examples(1, "val"), found(Answering(data, by(name)), data, n=1)
            error = by(name)(row["source"]) - row["x"]
            wanted = -10 * (error / 255).square().mean().log10().item()
            assert first["psnr"] == pytest.approx(wanted, abs=0.05)
            assert abs(first["psnr"] - values["psnr"]) > 0.2
        assert values["psnr_gain"] < 1e-3 and values["ssim_gain"] < 1e-3
        assert values["l1_share"] > 0.999


def test_the_truth_gains_all_there_is_and_keeps_the_class():
    data = Unpaired(kind="invert")
    values = found(Changing(data, data.oracle), data, n=100)
    assert values["psnr"] == 100 and values["ssim"] == pytest.approx(1) and values["l1"] == 0
    assert values["l1_share"] == 0 and values["class_kept"] > 0.85
    assert values["class_kept"] == values["class_kept_true"]
    rows = data.examples(100, "val")
    error = ((rows["a"] - rows["oracle_b"]) / 16).square().flatten(1).mean(1)
    assert values["psnr_copy"] == pytest.approx((-10 * error.log10()).mean().item(), rel=1e-4)
    other = found(Changing(data, lambda a: data.oracle(a.roll(1, 0))), data, n=100)
    assert other["class_kept_true"] == values["class_kept_true"]  # whatever was made
    assert other["class_kept"] < 0.4 and other["psnr_gain"] < 10
    assert other["psnr_gain"] == pytest.approx(
        other["psnr"] - max(other["psnr_copy"], other["psnr_mean"])
    )


def test_data_without_an_answer_and_other_models_are_left_alone():
    data = shrunk()
    trainer = type("T", (), {"datamodule": data})
    model = Answering(data, lambda s: s)
    assert Targets().unserved(trainer, model) == "" and not Targets().concerns(Painter())
    trainer.datamodule = Unpaired(kind="invert")
    trainer.datamodule.setup()
    trainer.datamodule.evaluation_batch = lambda split, rows: {"a": rows, "b": rows}
    changing = Changing(Unpaired(kind="invert"), lambda a: a)
    assert "do not know what b belongs to a row of a" in Targets().unserved(trainer, changing)


def test_a_kept_angle_may_be_mirrored_and_one_picture_reaches_one_answer():
    data = Unpaired("heads", "yaw", options={"n": 40, "n_val": 60, "n_test": 2})
    rows = data.examples(split="val")
    wanted = rows["oracle_b"]
    values = {
        name: found(Changing(data, lambda a, x=x: x), data, n=30)
        for name, x in {
            "right": wanted,
            "mirrored": wanted.flip(3),
            "shuffled": wanted[torch.randperm(30, generator=torch.Generator().manual_seed(1))],
            "one": wanted[:1].expand(30, -1, -1, -1),
        }.items()
    }
    kept = {name: v["yaw_correlation"] for name, v in values.items()}
    assert kept["right"] == pytest.approx(1) and kept["mirrored"] > 0.99
    assert kept["shuffled"] < 0.5 and kept["one"] < 0.01
    reach = {name: v["mode_coverage"] for name, v in values.items()}
    assert reach["right"] == reach["shuffled"] == 1 and reach["one"] == pytest.approx(1 / 30)
    assert values["mirrored"]["l1"] > 0.03 and values["right"]["class_kept"] > 0.5
    other = Unpaired()
    assert "yaw_correlation" not in found(Changing(other, other.oracle), other, n=5)
