"""No stage of a run that may take more than five seconds is without a word: while it goes on, a
line is due (``callbacks.patience``) or the bar moves. No clock is asked: each stage is caught as it
goes on.
"""

import functools

import pytest

from callbacks import Fidelity, memorisation, patience
from zoo import fit, page
from zoo.core import GenerativeModule
from zoo.data.digits import Digits
from zoo.variational.vae import VAE

RUN = [
    *("--model=vae", "--model.width=16", "--trainer.max_steps=4", "--trainer.val_check_interval=2"),
    *("--trainer.enable_model_summary=false", "--wandb.mode=disabled"),
    *("--fidelity.n_fake=64", "--fidelity.extractor=pixels"),
]
STAGES = {
    "the model is built": (VAE, "__init__"),
    "data are read": (Digits, "load"),
    "weights are put to their place": (VAE, "configure_optimizers"),
    "the first step": (GenerativeModule, "on_train_batch_start"),
    "a validation": (VAE, "validation_step"),
    "pictures": (VAE, "sample"),
    "scores": (Fidelity, "scores"),
    "codes": (VAE, "encode"),
    "neighbours": (memorisation, "draw_fields"),
    "the page": (page, "write"),
}


@pytest.fixture
def waited(monkeypatch):
    """What is waited for, now."""
    now = []
    monkeypatch.setattr(patience.Waiting, "begin", lambda self: now.append(self.what))
    monkeypatch.setattr(patience.Waiting, "end", lambda self: now.remove(self.what))
    return now


def test_every_stage_of_a_run_is_named_while_it_goes_on(monkeypatch, tmp_path, waited):
    seen = {}

    def watch(stage, owner, name):
        own = getattr(owner, name)

        @functools.wraps(own)
        def watched(*args, **kwargs):
            seen.setdefault(stage, [*waited])
            return own(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    for stage, (owner, name) in STAGES.items():
        watch(stage, owner, name)
    assert fit.main([*RUN, f"--run_dir={tmp_path / 'run'}"]) == 0
    assert {*seen} == {*STAGES}
    assert all(seen.values()), seen
    assert not waited
