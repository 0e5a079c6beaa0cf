"""The house is open: a pair of unpaired domains, clips, and padded graphs with boxes train, are
shown, sampled and resumed from the command line, and no check, callback or command knows of them.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import TOYS, fit
from zoo.check import Subject
from zoo.core.draw import draw_fields, tell

TOY_FOLDER = Path(__file__).parent / "toys"
ROOT = Path(__file__).parent.parent
FIELDS = {
    "toy_domains.TwoWay": (("a", "b"), ("a", "b")),
    "toy_clips.ClipGAN": ((), ("x",)),
    "toy_graphs.GraphPainter": (("objects", "triples"), ("boxes", "x")),
}


def command(name, *options):
    """A command in a process of its own, as a stranger with these files would call it."""
    paths = [str(TOY_FOLDER), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "WANDB_MODE": "disabled"}
    words = [sys.executable, "-m", f"zoo.{name}", *map(str, options)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module", params=TOYS)
def run(request, tmp_path_factory):
    """A run folder of 24 steps, resumed at 12."""
    folder = tmp_path_factory.mktemp("run")
    data = Subject.of(request.param).data_class
    options = ["--model", request.param, "--data", data, f"--run_dir={folder}"]
    options += ["--trainer.val_check_interval=12", "--trainer.enable_progress_bar=false"]
    options += ["--trainer.log_every_n_steps=1", "--threads=1"]  # as in this process
    first = command("fit", *options, "--trainer.max_steps=12")
    assert first.returncode == 0, first.stderr
    last = folder / "checkpoints" / "last.ckpt"
    rest = command("fit", *options, "--trainer.max_steps=24", f"--ckpt_path={last}")
    assert rest.returncode == 0, rest.stderr
    return request.param, folder, first.stderr


@pytest.mark.slow
def test_it_trains_logs_and_says_in_one_line_what_is_not_scored(run):
    name, folder, said = run
    columns = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert any(c.startswith("train/loss_d") for c in columns) and "train/loss_g" in columns
    unserved = [line for line in said.splitlines() if "nothing here for" in line]
    assert len(unserved) == len(set(unserved)) > 0
    assert any(line.startswith("mode_coverage: ") for line in unserved)
    if name == "toy_clips.ClipGAN":
        assert any("fidelity: " in line and "videos" in line for line in unserved)
    else:  # pictures among what they make: scored like any
        assert any(c.startswith("val/fid_pixels") for c in columns)


@pytest.mark.slow
def test_the_sample_grid_shows_told_made_and_data(run):
    name, folder, _ = run
    told, made = FIELDS[name]
    picture = Image.open(folder / "samples" / "step_000024.png")
    columns = len(told) + 2 * len(made)
    assert picture.width > 30 * columns and picture.height > 12 * 36
    assert len(np.unique(np.asarray(picture))) > 2


@pytest.mark.slow
def test_it_is_sampled_from_the_command_line_and_a_row_is_the_same_in_every_form(run):
    name, folder, _ = run
    told, made = FIELDS[name]
    module = name.split(".")[0]
    for out, n in (("x.npz", 5), ("more.npz", 70), ("x.png", 5), ("files", 3)):
        done = command(
            "sample", "--ckpt", folder, "--import", module, "--n", n, "--out", folder / out
        )
        if out == "files" and "boxes" in made:
            assert done.returncode in (0, 2), done.stderr
            continue
        assert done.returncode == 0, done.stderr
    few, many = (np.load(folder / out) for out in ("x.npz", "more.npz"))
    assert set(few) == {*told, *made}
    for field in few:
        assert len(few[field]) == 5 and np.array_equal(few[field], many[field][:5])
    assert Image.open(folder / "x.png").height > 5 * 36


@pytest.mark.slow
def test_a_checkpoint_of_a_model_that_is_not_imported_says_what_to_do(run):
    _, folder, _ = run
    done = command("sample", "--ckpt", folder)
    assert done.returncode == 2 and "--import" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_run_resumed_equals_one_that_was_not(run):
    name, folder, _ = run
    subject = Subject.of(name)
    model = subject.model()
    fit(model, subject.data(), 24)
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(v, saved[k]) for k, v in model.state_dict().items())


def test_no_training_pair_of_the_domains_ever_exists_and_the_shorter_one_wraps():
    data = Subject.of("toy_domains.TwoWay").data()
    train = data.split("train")
    grey = train["a"].float() / 16
    red = 1 - train["b"][:, 1:2].float() / 255  # the digit that was painted
    apart = (grey[:, None] - red[None]).abs().amax((2, 3, 4))
    assert apart.min() > 0.1 and len(train["a"]) > len(train["b"])
    assert data.count("train") == len(train["a"])
    batch = data.examples()
    assert torch.equal(batch["b"][: data.count("train", 1)], train["b"].float())
    assert torch.equal(batch["b"][data.count("train", 1) :], train["b"][:20].float())


def test_each_domain_is_shuffled_by_a_permutation_of_its_own():
    from zoo.data.base import TrainingRows

    rows = iter(TrainingRows([40, 30], 10, lambda step: 1, 0, 0, 1))
    steps = [next(rows)[1] for _ in range(12)]
    a, b = (torch.cat([s[g] for s in steps]) for g in (0, 1))
    for domain, size in ((a, 40), (b, 30)):
        for epoch in domain.split(size):
            assert sorted(epoch.tolist()) == [*range(size)]
    assert not torch.equal(a[:30], b[:30])
    late = TrainingRows([40, 30], 10, lambda step: 1, 0, 0, 1)
    late.start = 7
    again = [r for _, r in zip(range(5), late, strict=False)]
    for (_, rows_again), rows_before in zip(again, steps[7:], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(rows_again, rows_before, strict=True))


def test_what_is_told_reaches_the_model_as_it_is():
    subject = Subject.of("toy_graphs.GraphPainter")
    model, data, asked = subject.model(), subject.data(), {}
    told = tell(model, 70, data)
    sample = model.sample

    def noted(n, *, objects, triples, generator=None):
        asked.setdefault("objects", []).append(objects)
        return sample(n, objects=objects, triples=triples, generator=generator)

    model.sample = noted
    draw_fields(model, 70, told=told)
    seen = torch.cat(asked["objects"])[:70]
    assert seen.dtype == torch.long and torch.equal(seen, told["objects"])
    first = data.examples(40, "val")["objects"]
    assert torch.equal(told["objects"], first[torch.arange(70) % 40])
