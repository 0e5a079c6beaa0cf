"""The edges of the command line: mistakes, options that mean nothing, folders, resuming; each one
line with a remedy, and every remedy works when followed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.test_fit import error_of, rows
from zoo import fit, runs, sample
from zoo.core import checkpoint

ROOT = Path(__file__).parents[2]
FAST = [
    "--trainer.max_steps=4",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--fidelity.n_fake=64",
    "--fidelity.extractor=pixels",
    "--memorisation.enabled=false",
    "--latent_space.enabled=false",
    "--wandb.mode=disabled",
]
VAE = ["--model=vae", "--model.width=8", *FAST]
GAN = ["--model=gan", *FAST]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edges") / "runs" / "vae-done"
    assert fit.main([*VAE, f"--run_dir={folder}", "--model.latent=3"]) == 0
    return folder


@pytest.fixture
def done(finished, tmp_path):
    subprocess.run(["cp", "-r", str(finished.parent), str(tmp_path)], check=True)
    return Path("runs/vae-done")


# -- mistakes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.devices=0"], "--trainer.devices is at least 1, or auto, got 0"),
        (
            ["--trainer.max_steps=-5"],
            "max_steps is at least -1 (-1 for no limit), got -5",
        ),
        (["--trainer.val_check_interval=0"], "--trainer.val_check_interval is a number of steps"),
        (["--trainer.val_check_interval=-1"], "at least 1, got -1"),
        (["--trainer.val_check_interval=0.5"], "at least 1, got 0.5"),
        (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches is at least 1, got 0"),
        (["--trainer.num_nodes=0"], "--trainer.num_nodes is at least 1, got 0"),
        (["--trainer.log_every_n_steps=0"], "--trainer.log_every_n_steps is at least 1, got 0"),
        (["--trainer.enable_checkpointing=false"], "--checkpoints.every_n_steps=N"),
        (["--trainer.overfit_batches=1"], "--data image_folder --data.root=FOLDER"),
        (["--trainer.precision=17"], "--trainer.precision"),
        (["--trainer.accelerator=gpu"], "--trainer.accelerator=auto"),
        (["--trainer.accelerator=quantum"], "--trainer.accelerator"),
        (["--trainer.strategy=dpp"], "--trainer.strategy"),
        (["--trainer.limit_val_batches=-1"], "limit_val_batches"),
        (["--trainer.max_time=soon"], "max_time"),
        (["--trainer.callbacks=Nonsense"], "--trainer.callbacks"),
        (["--trainer.devices=two"], "--trainer.devices is at least 1, or auto, got two"),
        (["--trainer.plugins=nosuch"], "--trainer.plugins: "),
        (["--trainer.profiler=nosuch"], "--trainer.profiler=nosuch"),
        (["--model=no_models.Foo", "--data=toy2d"], "No module named 'no_models'"),
        (["--model=os.system", "--data=toy2d"], "os.system does not correspond to a subclass"),
        (["--data=os.system"], "os.system does not correspond to a subclass"),
        (["--model.lr=0"], "vae: lr is positive, got 0"),
        (["--model.latent=0"], "vae: latent is at least 1, got 0"),
        (["--model.width=-3"], "vae: width is at least 1, got -3"),
        (["--data.batch_size=0"], "digits: batch_size is at least 1, got 0"),
        (["--fidelity.n_fake=0"], "fidelity: n_fake is at least 2, got 0"),
        (["--wandb.mode=onlin"], "--wandb.mode is online, offline or disabled, got 'onlin'"),
        (["--checkpoints.monitor=val/fidd"], "--checkpoints.mode=min or --checkpoints.mode=max"),
        (["--trainer={}"], "--trainer is a group; say --trainer.OPTION=VALUE, or --config FILE"),
        (["--seed=3"], "unknown option --seed; did you mean --seed_everything?"),
        (["--batch_size=3"], "did you mean --data.batch_size?"),
        (["--max_steps=3"], "did you mean --trainer.max_steps?"),
        (["--lr=1"], "did you mean --model.lr?"),
        (["--gpus=2"], "did you mean --trainer.devices?"),
        (["--import=no.such.module"], "--import no.such.module: it cannot be imported"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_no_folder(capsys, options, words):
    if torch.cuda.is_available() and "gpu" in options[0]:
        pytest.skip("there is one")
    said = error_of(capsys, *VAE, *options)
    assert words in said
    assert len(said) < 700
    assert not Path("runs").exists()


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_plain_ddp_is_refused_for_games_with_what_works(capsys, strategy):
    assert "--trainer.strategy=auto" in error_of(capsys, *GAN, f"--trainer.strategy={strategy}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"modl": "vae"}, "there is no option 'modl'; did you mean model?"),
        ({"trainr": {"max_steps": 3}}, "did you mean trainer?"),
        ({"trainer": {"max_step": 3}}, "did you mean --trainer.max_steps?"),
        ({"fidelity": {"n_fakes": 3}}, "did you mean --fidelity.n_fake?"),
        ({"trainer": {"max_steps": "abc"}}, "--trainer.max_steps: expected int, got 'abc'"),
        ({"model": {"latent": "abc"}}, "--model.latent: expected int, got 'abc'"),
        ({"data": {"size": [1]}}, "--data.size"),
        ({"seed_everything": "abc"}, "--seed_everything"),
        ({"trainer": [1]}, "trainer holds its options by name, got [1]"),
        ({"fidelity": {"n_fake": "many"}}, "--fidelity.n_fake: expected int, got 'many'"),
    ],
    ids=str,
)
def test_a_mistake_in_a_config_is_named_and_not_the_whole_file(capsys, content, words):
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    said = error_of(capsys, *VAE, "--config=mine.yaml")
    assert words in said
    assert len(said) < 250
    assert not Path("runs").exists()


def test_a_sweeps_none_is_null(capsys):
    options = ["--model.loop.clip_d=None", "--model.loop.clip_g=null", "--trainer.max_time=None"]
    assert fit.main([*GAN, *options, "--run_dir=x"]) == 0
    assert checkpoint.read("x/checkpoints/last.ckpt")["zoo"]["params"]["loop"]["clip_d"] is None


def test_one_callback_of_lightnings_is_enough():
    watched = ["--trainer.callbacks=LearningRateMonitor", "--trainer.log_every_n_steps=1"]
    assert fit.main([*VAE, *watched, "--run_dir=x"]) == 0
    assert any(value for row in rows("x") for key, value in row.items() if "lr-" in key)


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nowhere/run"])
def test_a_folder_that_cannot_be_is_one_line_with_the_remedy(capsys, folder):
    Path("file").write_text("")
    said = error_of(capsys, *VAE, f"--run_dir={folder}")
    assert folder in said
    assert "--run_dir=FOLDER" in said


# -- nothing is left of a run that never began -----------------------------------------------------
LATE = [
    ["--data=image_folder", "--data.root=nowhere"],
    ["--fidelity.extractor=inception", "--fidelity.inception_weights=nowhere.pth"],
    ["--bits_per_dim.require=true", "--model=gan", "--model.latent=2"],
    ["--model.likelihood=categorical", "--data=toy2d"],
]


@pytest.mark.parametrize("options", LATE, ids=str)
@pytest.mark.parametrize("folder", [None, "mine/run", "there"])
def test_what_fails_before_the_first_step_leaves_nothing(capsys, options, folder):
    Path("there").mkdir()
    Path("there/notes.txt").write_text("mine")
    before = sorted(str(p) for p in Path().rglob("*"))
    given = [f"--run_dir={folder}"] if folder else []
    offline = [o for o in VAE if o != "--wandb.mode=disabled"]
    error_of(capsys, *offline, "--wandb.mode=offline", *options, *given)
    assert sorted(str(p) for p in Path().rglob("*")) == before


def test_a_trial_run_leaves_nothing_and_promises_nothing(capsys):
    for options in (["--trainer.fast_dev_run=true"], ["--trainer.max_steps=0"]):
        assert fit.main([*VAE, *options]) == 0
        said = capsys.readouterr().out
        assert "no checkpoint was written" in said
        assert "metrics.csv" not in said
        assert not Path("runs").exists()


def test_two_runs_of_one_second_have_two_folders(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    claims = [runs.Claim(None, "vae-20260101-000000", False) for _ in range(3)]
    assert len({c.folder for c in claims}) == 3
    for claim in claims[::-1]:
        claim.undo()
    assert not Path("runs").exists()


# -- the farewell ----------------------------------------------------------------------------------
def test_the_farewell_names_what_exists_and_its_command_works(capsys):
    assert fit.main([*VAE, "--run_dir=a folder/run 1"]) == 0
    said = capsys.readouterr().out
    (path,) = re.findall(r"^  page +(.*)$", said, re.M)
    assert Path(path) == Path("a folder/run 1/index.html") and Path(path).is_file()
    command = shlex.split(re.search(r"python -m zoo\.sample (.*)", said).group(1))
    assert sample.main(command) == 0
    assert Path("samples.png").is_file()


def test_a_million_steps_come_after_less():
    pictures = [Path(f"step_{n:06d}.png") for n in (999_500, 1_000_000, 500)]
    assert runs.latest(pictures) == Path("step_1000000.png")


# -- resuming --------------------------------------------------------------------------------------
def test_a_run_is_resumed_with_its_own_options_by_its_folder_or_as_the_last(done, capsys):
    for given, steps in ((str(done), 6), ("last", 8), (f"{done}/checkpoints/last.ckpt", 10)):
        assert fit.main([f"--ckpt_path={given}", f"--trainer.max_steps={steps}"]) == 0
        content = checkpoint.read(done / "checkpoints" / "last.ckpt")
        assert content["global_step"] == steps
        assert content["zoo"]["params"]["latent"] == 3
    assert fit.main(["--model=vae", "--ckpt_path=last", "--trainer.max_steps=11"]) == 0
    assert not [p for p in Path("runs").iterdir() if p.name != "vae-done"]


def test_a_finished_run_says_how_to_train_on(done, caplog):
    assert fit.main([f"--ckpt_path={done}"]) == 0
    assert "has done 4 of 4 steps; to train on, say --trainer.max_steps=N" in caplog.text


def test_a_runs_config_begins_another_run_and_not_the_same_again(done):
    assert fit.main([f"--ckpt_path={done}", "--trainer.max_steps=5"]) == 0
    written = yaml.safe_load((done / "config.yaml").read_text())
    assert not {"ckpt_path", "run_dir"} & set(written)
    assert fit.main([f"--config={done}/config.yaml"]) == 0
    new = [p for p in Path("runs").iterdir() if p != done]
    assert [p.name.partition("-")[0] for p in new] == ["vae"]
    content = checkpoint.read(new[0] / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 5
    assert sample.main(["--ckpt=last", "--n=1"]) == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data.seed=1", "data.seed=0, this run 1"),
        ("--data.size=16", "trained on"),
        ("--data.batch_size=7", "data.batch_size times processes"),
        ("--data.shift=1", "data.shift=0, this run 1"),
        ("--trainer.precision=64-true", "trainer.precision"),
        ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches=1, this run 2"),
        ("--trainer.gradient_clip_val=0.5", "trainer.gradient_clip_val"),
        ("--model.latent=4", "model.latent=3, this run has 4"),
    ],
)
def test_another_run_is_not_taken_for_the_same(done, capsys, option, words):
    before = (done / "checkpoints" / "last.ckpt").read_bytes()
    said = error_of(capsys, f"--ckpt_path={done}", "--trainer.max_steps=6", option)
    assert words in said
    assert (done / "checkpoints" / "last.ckpt").read_bytes() == before


def test_changes_that_are_allowed_are_said(done, caplog):
    options = [f"--ckpt_path={done}", "--trainer.max_steps=6", "--data.seed=1", "--allow_changes"]
    assert fit.main(options) == 0
    assert "data.seed=0, this run 1: another run from here on" in caplog.text
    content = checkpoint.read(done / "checkpoints" / "last.ckpt")
    assert content["zoo"]["settings"]["data.seed"] == 1
    assert content["global_step"] == 6


def test_images_that_are_gone_make_another_run(capsys, caplog):
    from PIL import Image

    Path("photos").mkdir()
    for i in range(30):
        Image.new("L", (8, 8), 8 * i).save(f"photos/{i}.png")
    options = ["--data=image_folder", "--data.root=photos", "--data.size=8", "--data.batch_size=4"]
    assert fit.main([*VAE, *options, "--run_dir=x"]) == 0
    assert checkpoint.read("x/checkpoints/last.ckpt")["zoo"]["settings"]["the data's files"]
    for i in range(15):
        Path(f"photos/{i}.png").unlink()
    assert "the data's files" in error_of(capsys, "--ckpt_path=x", "--trainer.max_steps=6")
    allowed = ["--ckpt_path=x", "--trainer.max_steps=6", "--allow_changes"]
    assert fit.main(allowed) == 0
    assert "another run from here on" in caplog.text
    written = json.loads(Path("x/protocol.json").read_text())
    assert written["data"]["images"] == 15


def test_what_changes_no_number_may_change(done):
    options = ["--data.num_workers=1", "--threads=2", "--sample_grid.n=4", "--trainer.max_steps=6"]
    assert fit.main([f"--ckpt_path={done}", *options]) == 0


def test_a_run_without_a_checkpoint_is_no_dead_end(done, capsys, caplog):
    early = Path("runs/vae-early")
    subprocess.run(["cp", "-r", str(done), str(early)], check=True)
    os.utime(early / "config.yaml")
    for path in (early / "checkpoints").iterdir():
        path.unlink()
    said = error_of(capsys, "--model=vae", "--ckpt_path=last")
    assert "runs/vae-early has no last.ckpt" in said
    assert f"an older run that has one: {done}" in said
    old = (early / "metrics.csv").read_text()
    assert fit.main([*VAE, f"--run_dir={early}"]) == 0
    assert "it begins anew" in caplog.text
    assert (early / "metrics-1.csv").read_text() == old
    assert max(int(r["step"]) for r in rows(early)) == 4


# -- sampling --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device=cuda:7"], "--device"),
        (["--device=quantum"], "--device"),
        (["--n=1000000000"], "of memory"),
        (["--n=0"], "--n is at least 1, got 0"),
        (["--out=x.jpeg"], "--out is a .png, a .npz or a folder"),
        (["--out=/proc/nowhere/x.png"], "/proc/nowhere"),
    ],
    ids=str,
)
def test_sampling_refuses_in_one_line(done, capsys, options, words):
    assert sample.main(["--ckpt", str(done), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_new_samples_do_not_mix_with_old_ones(done, capsys):
    command = ["--ckpt", str(done), "--out=folder"]
    assert sample.main([*command, "--n=5"]) == 0
    assert sample.main([*command, "--n=3"]) == 2
    assert "folder holds 5 images already" in capsys.readouterr().err
    assert len([*Path("folder").glob("*.png")]) == 5


@pytest.mark.parametrize("module", ["ls", "fit --help", "check --help"])
def test_a_closed_pipe_is_no_error(module):
    command = f"{sys.executable} -m zoo.{module} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


# -- remedies --------------------------------------------------------------------------------------
FOLLOWED = [  # a mistake, what its message names, and the command that follows it
    ([*GAN, "--trainer.strategy=ddp"], "--trainer.strategy=auto", ["--trainer.strategy=auto"]),
    ([*GAN, "--trainer.accumulate_grad_batches=2"], "--model.loop.accumulate", None),
    ([*GAN, "--trainer.gradient_clip_val=2"], "--model.loop.clip_d", None),
    ([*GAN, "--trainer.gradient_clip_val=2"], "--model.loop.clip_g", None),
    ([*VAE, "--trainer.enable_checkpointing=false"], "--checkpoints.every_n_steps", None),
    ([*VAE, "--trainer.accelerator=gpu"], "--trainer.accelerator=auto", ["auto"]),
    ([*VAE, "--seed=3"], "--seed_everything", None),
    ([*VAE, "--batch_size=3"], "--data.batch_size", None),
    ([*VAE, "--fidelty.n_fake=70"], "--fidelity.n_fake", ["--fidelity.n_fake=70"]),
    ([*VAE, "--trainer.max_step=3"], "--trainer.max_steps", None),
    ([*VAE, "--model.latnt=3"], "--model.latent", None),
    ([*VAE, "--threads=0"], "--threads is at least 1", ["--threads=1"]),
]


@pytest.mark.parametrize(("command", "named", "then"), FOLLOWED, ids=lambda x: str(x)[-40:])
def test_the_remedy_that_is_named_works(capsys, command, named, then):
    if torch.cuda.is_available() and "gpu" in command[-1]:
        pytest.skip("there is one")
    assert named in error_of(capsys, *command)
    follow = then or [f"{named}=2"]
    assert fit.main([*command[:-1], *(f for f in follow if f.startswith("--")), "--run_dir=x"]) == 0


def test_the_remedies_of_a_used_folder_and_of_changes_work(done, capsys):
    said = error_of(capsys, *VAE, f"--run_dir={done}")
    remedy = re.search(r"--ckpt_path=\S+(?=,)", said).group()
    assert fit.main([remedy, "--trainer.max_steps=5"]) == 0
    said = error_of(capsys, remedy, "--trainer.max_steps=6", "--data.seed=3")
    allowed = re.search(r"--allow_changes", said).group()
    assert fit.main([remedy, "--trainer.max_steps=6", "--data.seed=3", allowed]) == 0


def test_few_images_are_trained_on_as_the_message_says(capsys):
    from PIL import Image

    Path("few").mkdir()
    for i in range(12):
        Image.new("L", (8, 8), 20 * i).save(f"few/{i}.png")
    said = error_of(capsys, *VAE, "--trainer.overfit_batches=1")
    remedy = re.search(r"--data image_folder --data\.root=", said).group()
    options = [*f"{remedy}few".split(), "--data.size=8", "--data.batch_size=4"]
    assert fit.main([*VAE, *options]) == 0


FILES = {  # options that name a file which a model reads before its first step
    "no checkpoint": ["--model=aegan", "--model.init_from=none.ckpt"],
    "a table for a checkpoint": ["--model=aegan", "--model.init_from=table.csv"],
    "no weights": ["--model.look.kind=vgg16", "--model.look.weights=none.pt"],
    "other weights": ["--model.look.kind=vgg16", "--model.look.weights=other.pt"],
    "a list for weights": ["--model.look.kind=vgg16", "--model.look.weights=list.pt"],
    "a table for a script": ["--model.look.kind=jit", "--model.look.weights=table.csv"],
    "a script of another shape": ["--model.look.kind=jit", "--model.look.weights=narrow.pt"],
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("options", FILES.values(), ids=FILES)
def test_a_file_that_a_model_cannot_read_is_one_line_and_leaves_no_folder(capsys, options):
    Path("table.csv").write_text("path,age\n")
    torch.save({"a": torch.zeros(2)}, "other.pt")
    torch.save([1, 2], "list.pt")
    torch.jit.trace(torch.nn.Linear(3, 3), torch.zeros(1, 3)).save("narrow.pt")
    if "aegan" not in options[0]:
        few = ["--data.options={n: 8, n_val: 4, n_test: 4}", "--data.batch_size=2"]
        options = ["--model=id_cgan", *few, *options]
    said = error_of(capsys, *options, *FAST, "--run_dir=x")
    assert any(name in said for name in (".ckpt", ".csv", ".pt", "vgg16"))
    assert not Path("x").exists()
