"""A run that is killed, wherever that may be, and resumed leaves what an uninterrupted run does."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

import callbacks
from tests.support import in_a_process
from zoo import fit

ROOT = Path(__file__).parents[1]
RUN = [
    *("--model", "cvae", "--data", "digits"),
    *("--trainer.max_steps=8", "--trainer.val_check_interval=3", "--trainer.log_every_n_steps=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--fidelity.extractor=pixels", "--fidelity.n_fake=64", "--memorisation.extractor=pixels"),
    *("--sample_grid.every_n_steps=2", "--sample_grid.n=9", "--checkpoints.every_n_steps=2"),
    *("--wandb.mode=disabled", "--ema.decay=0.9"),
]


def die() -> None:
    os._exit(9)


def before(owner, name, when=lambda *a, **k: True):
    """Die instead of calling."""

    def install():
        real = getattr(owner, name)

        def called(*args, **options):
            if when(*args, **options):
                die()
            return real(*args, **options)

        setattr(owner, name, called)

    return install


def after(owner, name, when=lambda *a, **k: True):
    """Die right after calling."""

    def install():
        real = getattr(owner, name)

        def called(*args, **options):
            real(*args, **options)
            if when(*args, **options):
                die()

        setattr(owner, name, called)

    return install


def at(step):
    """Arguments that begin with self and a trainer, or with a trainer, at this step."""
    return lambda *args, **_: next(a for a in args if isinstance(a, Trainer)).global_step == step


def saving(name, step):
    return lambda trainer, path, **_: Path(path).name == name and trainer.global_step == step


C = callbacks.Checkpoints
POINTS = {
    "in a batch of a validation": before(callbacks.BitsPerDim, "on_validation_batch_end", at(6)),
    "in the scores of a validation": before(callbacks.Fidelity, "scores", at(6)),
    "after the first validation, before best": before(C, "on_validation_end", at(3)),
    "after a validation, before best": before(C, "on_validation_end", at(6)),
    "between best and last": after(Trainer, "save_checkpoint", saving("best.ckpt", 6)),
    "in the last validation": before(callbacks.Fidelity, "scores", at(8)),
    "after the last validation, before best": before(C, "on_validation_end", at(8)),
    "after the last best": after(Trainer, "save_checkpoint", saving("best.ckpt", 8)),
    "after a save, before the row of its step": after(C, "on_train_batch_end", at(4)),
    "after the last save, before its row": after(C, "on_train_batch_end", at(8)),
    "in a save, before the name": before(
        os, "replace", lambda a, b: b.name == "last.ckpt" and b.exists()
    ),
    "before a picture": before(callbacks.SampleGrid, "_write", lambda self, *a: self._done == 4),
    "between pictures": after(callbacks.SampleGrid, "_write", lambda self, *a: self._done == 6),
    "in the pictures of the end": before(callbacks.LatentSpace, "on_train_end"),
    "in the last save": before(C, "on_train_end"),
}


def kept(folder: Path) -> dict:
    """Everything of a run that may not depend on interruptions."""

    def content(path):
        saved = torch.load(path, weights_only=True)
        return {k: v for k, v in saved.items() if k not in ("loops", "epoch")}  # Lightning's clocks

    files = [p for p in folder.rglob("*") if p.is_file()]
    return {
        "names": sorted(str(p.relative_to(folder)) for p in files),
        "rows": list(csv.reader((folder / "metrics.csv").open(newline=""))),
        "pictures": {p.name: p.read_bytes() for p in files if p.suffix == ".png"},
        "protocol": (folder / "protocol.json").read_text(),
        **{p.name: content(p) for p in files if p.suffix == ".ckpt"},
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert in_a_process(lambda: fit.main([*RUN, f"--run_dir={folder}"])) == 0
    return kept(folder)


QUICK = ("between best and last", "in the last validation")


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=[] if p in QUICK else pytest.mark.slow) for p in POINTS]
)
def test_a_killed_run_leaves_all_that_an_uninterrupted_one_does(point, uninterrupted, tmp_path):
    folder = tmp_path / "run"

    def killed():
        POINTS[point]()
        return fit.main([*RUN, f"--run_dir={folder}"])

    assert in_a_process(killed) == 9
    last = folder / "checkpoints" / "last.ckpt"
    again = [f"--ckpt_path={last}"] if last.is_file() else []
    assert in_a_process(lambda: fit.main([*RUN, f"--run_dir={folder}", *again])) == 0
    now = kept(folder)
    for what, value in uninterrupted.items():
        assert same(value, now[what]), what


SCRIPT = """
import os, signal, sys
import callbacks
from zoo import fit

scores = callbacks.Fidelity.scores

def killed(self, trainer, module):
    if trainer.global_step == int(os.environ["KILL_AT"]) and trainer.is_global_zero:
        os.killpg(0, signal.SIGKILL)
    return scores(self, trainer, module)

callbacks.Fidelity.scores = killed
sys.exit(fit.main(sys.argv[1:]))
"""


@pytest.mark.ddp
@pytest.mark.parametrize("step", [6, 8])
def test_two_processes_make_up_for_it_too(tmp_path, step):
    (tmp_path / "train.py").write_text(SCRIPT)

    def train(folder, kill_at, *more):
        two = ["--trainer.devices=2", "--data.batch_size=16", f"--run_dir={folder}"]
        return subprocess.run(
            [sys.executable, "train.py", *RUN, "--model", "vae", *two, *more],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KILL_AT": str(kill_at)},
            timeout=400,
            start_new_session=True,
        ).returncode

    assert train("straight", -1) == 0
    assert train("halves", step) == -signal.SIGKILL
    assert train("halves", -1, "--ckpt_path=halves/checkpoints/last.ckpt") == 0
    straight, halves = kept(tmp_path / "straight"), kept(tmp_path / "halves")
    for what, value in straight.items():
        assert same(value, halves[what]), what
