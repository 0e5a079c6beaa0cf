"""An evaluation that fails, a disk that is full or a logger that refuses costs a run in training
that one evaluation, and a line.
"""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from callbacks import BitsPerDim, Fidelity, LatentSpace, Memorisation, ModeCoverage, SampleGrid
from callbacks.report import write_protocol
from tests.callbacks.fakes import POINTS, SPEC, Gauss, Painter, Pair, Recorder, entry, run, squares
from tests.support import Given
from zoo.data.digits import Digits
from zoo.data.toy2d import Toy2D
from zoo.metrics import extractors
from zoo.variational.vae import VAE


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 5)


class Failing(Painter):
    """Whatever it is asked for fails."""

    entry = entry("failing", can={"sample", "reconstruct", "inpaint", "log_prob"}, told=())

    def fail(self, *args, **kwargs):
        raise RuntimeError("out of memory:\nmany\nlines")

    sample = reconstruct = inpaint = log_prob = encode = decode = fail


FIDELITY = {"n_fake": 20, "precision_recall_n": 10}
OBSERVERS = {
    "sample_grid": lambda: SampleGrid(every_n_steps=1, n=4),
    "fidelity": lambda: Fidelity(**FIDELITY),
    "memorisation": lambda: Memorisation(n=2, n_fake=10),
    "mode_coverage": lambda: ModeCoverage(n=50),
    "bits_per_dim": lambda: BitsPerDim(),
}


def setting(name):
    """A failing model and its data."""
    if name == "mode_coverage":
        data = Toy2D(size=60, batch_size=8)
        return Failing(data.spec), data
    return Failing(SPEC), squares()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_model_that_fails_in_an_evaluation_trains_on_as_without_it(name, caplog):
    model, data = setting(name)
    torch.manual_seed(3)
    model, _ = setting(name)
    trainer = run(model, data, 3, OBSERVERS[name](), every=1)
    said = [r for r in caplog.messages if "RuntimeError: out of memory:" in r]
    parts = {"sample_grid": 3}.get(name, 1)  # pictures, each of its own
    assert trainer.global_step == 3 and len(said) == parts  # once, though it failed three times
    assert all(r.startswith(f"{name}: ") and "training goes on" in r for r in said)
    assert all("\n" not in r for r in said)
    torch.manual_seed(3)
    alone, _ = setting(name)
    run(alone, data, 3, every=1)
    assert torch.equal(weights(model), weights(alone))


def test_pictures_of_codes_that_fail_are_said_in_one_line(caplog, monkeypatch):
    def fail(self, z, *args, **kwargs):
        raise RuntimeError("no picture of\nthese codes")

    monkeypatch.setattr(VAE, "decode", fail)
    data = Digits()
    trainer = run(VAE(data.spec, width=4), data, 2, LatentSpace())
    said = [r for r in caplog.messages if "RuntimeError: no picture of" in r]
    assert trainer.global_step == 2 and len(said) == 1
    assert said[0].startswith("latent_space: pictures of the latent space left out")


def test_an_error_is_an_error_outside_of_training():
    model, data = setting("fidelity")
    trainer = run(model, data, 1, Fidelity(**FIDELITY), every=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.validate(model, data, verbose=False)


@pytest.fixture
def full(monkeypatch):
    """A disk on which half a picture finds room."""
    save = Image.Image.save

    def cut(self, file, *args, **kwargs):
        save(self, file, *args, **kwargs)
        file.truncate(20)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", cut)


def test_a_full_disk_costs_pictures_and_leaves_no_half_of_one(full):
    everything = SampleGrid(every_n_steps=1, n=4), Memorisation(n=2, n_fake=10)
    with pytest.warns(UserWarning, match="No space left.*without pictures") as caught:
        trainer = run(Pair(SPEC), squares(), 3, *everything, every=3)
    assert trainer.global_step == 3 and not [p for p in Path("samples").rglob("*") if p.is_file()]
    said = [str(w.message) for w in caught if "without pictures" in str(w.message)]
    assert len(said) == 2 and all("\n" not in r for r in said)  # one of each callback


def test_a_protocol_that_cannot_be_written_is_said(monkeypatch):
    write_protocol(run(Pair(SPEC), squares(), 1), {"first": 1})

    def refuse(part, path):
        assert Path(part).read_text()  # all was written
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(UserWarning, match=r"protocol\.json or logged \(OSError: .*Read-only"):
        trainer = run(Pair(SPEC), squares(), 2, Fidelity(**FIDELITY), every=2)
    assert "val/fid_pixels" in trainer.callback_metrics
    assert json.loads(Path("protocol.json").read_text()) == {"first": 1}
    assert [p.name for p in Path().iterdir() if p.name.startswith("protocol")] == ["protocol.json"]


class Refusing(Recorder):
    """Takes nothing."""

    def log_image(self, key, images, step=None):
        raise ConnectionError("the server is gone")


def test_a_logger_that_takes_no_picture_keeps_the_file():
    with pytest.warns(UserWarning, match="ConnectionError: the server is gone"):
        trainer = run(Pair(SPEC), squares(), 2, SampleGrid(every_n_steps=1), logger=Refusing())
    assert trainer.global_step == 2
    assert {p.name for p in Path("samples").iterdir()} == {"step_000001.png", "step_000002.png"}


def test_a_search_after_a_run_without_validation_that_cannot_be_logged_is_said(caplog):
    class Full(Recorder):
        def log_metrics(self, metrics, step=None):
            raise OSError(errno.ENOSPC, "No space left on device")

    trainer = run(Pair(SPEC), squares(), 2, Memorisation(n=2, n_fake=10), logger=Full())
    assert trainer.global_step == 2
    assert any("the nearest training images left out" in r for r in caplog.messages)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_every_evaluation_takes_few_images(n, caplog):
    data = Given(SPEC, squares(n).examples()["x"], torch.arange(n) % 3, batch_size=1)
    memorisation = Memorisation(n=2, n_fake=10, k=5)
    trainer = run(Pair(SPEC), data, 2, memorisation, SampleGrid(every_n_steps=1), every=1)
    assert trainer.global_step == 2 and "val/nn_auc_pixels" in trainer.callback_metrics
    assert Path("samples/neighbours_000002.png").is_file()
    said = [r for r in caplog.messages if "neighbours of each sample" in r]
    assert len(said) == (n < 5) and not any("training goes on" in r for r in caplog.messages)


def test_vectors_and_densities_are_evaluated_on_few_rows():
    data = Given(POINTS, torch.randn(3, 2), batch_size=1)
    trainer = run(Gauss(POINTS), data, 2, BitsPerDim(), every=1)
    assert trainer.callback_metrics["val/nll_nats"].isfinite()
