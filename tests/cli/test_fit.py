"""``zoo.fit`` as a user meets it: the run folder, resuming, overrides, and every mistake as one
clear line.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.wandb_files import records
from zoo import fit, registry, sample
from zoo.core import DataSpec, checkpoint
from zoo.core.module import FORMAT, check_same

ROOT = Path(__file__).parents[2]
FAST = [
    "--trainer.max_steps=4",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--fidelity.n_fake=64",
    "--fidelity.extractor=pixels",
    "--sample_grid.every_n_steps=2",
    "--sample_grid.n=9",
]
BEGAN = ["--model", "began", "--data", "digits", "--model.width=16", *FAST]


def rows(folder) -> list[dict[str, str]]:
    with open(Path(folder) / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def error_of(capsys, *arguments: str) -> str:
    """The one line that a mistake prints."""
    capsys.readouterr()
    assert fit.main([*arguments]) == 2
    text = capsys.readouterr().err
    line = [x for x in text.splitlines() if x.startswith("zoo.fit: error:")]
    assert len(line) == 1, text
    assert "Traceback" not in text
    return line[0]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("began") / "run"
    assert fit.main([*BEGAN, f"--run_dir={folder}", "--wandb.mode=offline"]) == 0
    return folder


def test_the_run_folder_holds_all_of_a_run(run_folder):
    for name in (
        "config.yaml",
        "metrics.csv",
        "protocol.json",
        "wandb_id",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    ):
        assert (run_folder / name).is_file(), name
    pictures = sorted(p.name for p in (run_folder / "samples").iterdir())
    at_the_end = [
        "interpolation_images_linear",
        "interpolation_samples_linear",
        "neighbours",
        "traversals",
    ]
    often = [f"{name}_00000{step}.png" for name in ("reconstructions", "step") for step in (2, 4)]
    assert pictures == sorted([*often, *(f"{name}_000004.png" for name in at_the_end)])
    assert len(list((run_folder / "wandb").glob("offline-run-*/*.wandb"))) == 1


def test_a_run_ends_with_its_page(run_folder):
    html = (run_folder / "index.html").read_text()
    assert html.startswith("<!doctype html>") and html.count('data-step="') == 2
    said = json.loads((run_folder / "run.json").read_text())
    assert said["command"].startswith(
        "python -m zoo.fit --model began --data digits --model.width=16"
    )
    assert (
        0 < said["seconds"] < 600 and said["versions"]["torch"] == torch.__version__.split("+")[0]
    )


def test_a_page_that_cannot_be_written_costs_one_line(tmp_path, capsys, monkeypatch):
    def broken(folder):
        raise OSError("the disk is full")

    monkeypatch.setattr("zoo.page.write", broken)
    assert fit.main([*BEGAN, f"--run_dir={tmp_path / 'run'}", "--wandb.mode=disabled"]) == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("  no page")]
    folder = tmp_path / "run"
    assert lines == [
        f"  no page was written (OSError: the disk is full); python -m zoo.page --ckpt {folder}"
    ]
    assert (folder / "checkpoints" / "last.ckpt").is_file()


def test_metrics_stand_on_the_generators_steps(run_folder):
    losses = {int(r["step"]): r["train/loss_g"] for r in rows(run_folder) if r["train/loss_g"]}
    assert sorted(losses) == [1, 2, 3, 4]
    scores = {int(r["step"]): r["val/fid_pixels"] for r in rows(run_folder) if r["val/fid_pixels"]}
    assert list(scores) == [4]  # a run ends with a validation, whatever val_check_interval is


def test_wandb_received_config_protocol_metrics_and_pictures(run_folder):
    history, config = records(next((run_folder / "wandb").glob("offline-run-*/*.wandb")))
    assert config["model"]["name"] == "began"
    assert config["model"]["width"] == 16
    assert config["data"]["size"] == 8
    assert config["protocol"]["fidelity"]["n_fake"] == 64
    steps = [row["trainer/global_step"] for row in history if "train/loss_d" in row]
    assert steps == [1, 2, 3, 4]
    shown = [
        row["trainer/global_step"] for row in history if any(k.startswith("samples") for k in row)
    ]
    assert shown == [2, 4]
    words = [row["samples.captions"] for row in history if "samples.captions" in row]
    title = "Samples of began beside the data · digits 8x8"
    assert words == [[f"{title} · step {i} · raw weights · seed 0"] for i in (2, 4)]


def test_the_checkpoint_is_plain_and_names_its_model(run_folder):
    content = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["zoo"]["model"] == "began"
    assert content["zoo"]["params"]["width"] == 16
    assert content["global_step"] == 4


@pytest.mark.parametrize(("out", "made"), [("grid.png", 1), ("many", 5), ("x.npz", 1)])
def test_sampling_from_the_run(run_folder, tmp_path, out, made):
    assert sample.main(["--ckpt", str(run_folder), "--n", "5", "--out", str(tmp_path / out)]) == 0
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == made
    if out.endswith("npz"):
        import numpy as np

        x = np.load(files[0])["x"]
        assert x.shape == (5, 1, 8, 8)
        assert x.dtype == np.uint8
        assert x.max() <= 16


def test_a_samples_row_does_not_depend_on_how_many_are_drawn(run_folder, tmp_path):
    import numpy as np

    drawn = []
    for n in (3, 70):
        sample.main(
            [
                "--ckpt",
                str(run_folder),
                "--n",
                str(n),
                "--seed",
                "4",
                "--out",
                str(tmp_path / f"{n}.npz"),
            ]
        )
        drawn.append(np.load(tmp_path / f"{n}.npz")["x"])
    assert (drawn[0] == drawn[1][:3]).all()


def test_resuming_continues_the_same_run_bit_for_bit(tmp_path):
    straight, halves = tmp_path / "straight", tmp_path / "runs" / "began-halves"
    assert fit.main([*BEGAN, f"--run_dir={straight}", "--trainer.max_steps=7"]) == 0
    assert fit.main([*BEGAN, f"--run_dir={halves}", "--trainer.max_steps=3"]) == 0
    run_id = (halves / "wandb_id").read_text()
    os.chdir(tmp_path)
    assert fit.main([*BEGAN, "--ckpt_path=last", "--trainer.max_steps=7"]) == 0
    a, b = (
        torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (straight, halves)
    )
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key]), key
    steps = [int(r["step"]) for r in rows(halves) if r["train/loss_g"]]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert (halves / "wandb_id").read_text() == run_id


def test_averaged_weights_are_kept_and_sampled(tmp_path):
    assert fit.main([*BEGAN, f"--run_dir={tmp_path}/e", "--ema.decay=0.9"]) == 0
    path = tmp_path / "e" / "checkpoints" / "last.ckpt"
    raw, averaged = (checkpoint.load(path, ema=e).state_dict() for e in (False, True))
    names = torch.load(path, weights_only=True)["ema"]
    assert names.keys() == {n for n in raw if n.startswith("g.")}
    assert all(
        torch.equal(averaged[n], names[n]) and not torch.equal(raw[n], names[n]) for n in names
    )
    assert (
        json.loads((tmp_path / "e" / "protocol.json").read_text())["fidelity"]["weights"]["ema"][
            "decay"
        ]
        == 0.9
    )


def test_a_printed_config_reproduces_itself(capsys, tmp_path):
    def printed(*arguments):
        with pytest.raises(SystemExit) as stop:
            fit.main([*arguments, "--print_config"])
        assert stop.value.code in (0, None)
        return yaml.safe_load(capsys.readouterr().out)

    first = printed(
        "--model", "began", "--model.k=3", "--model.loop.clip_d=0.5", "--trainer.max_steps=9"
    )
    assert first["model"]["init_args"]["k"] == 3
    assert first["model"]["init_args"]["loop"]["clip_d"] == 0.5
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(first))
    assert printed("--config", str(tmp_path / "again.yaml")) == first


def test_an_interpolation_follows_the_command_line(tmp_path):
    (tmp_path / "i.yaml").write_text(
        "model: {init_args: {latent: '${data.init_args.batch_size}'}}\n"
    )
    arguments = [
        *BEGAN,
        f"--run_dir={tmp_path}/i",
        f"--config={tmp_path}/i.yaml",
        "--data.batch_size=7",
        "--trainer.max_steps=1",
    ]
    assert fit.main(arguments) == 0
    assert (
        checkpoint.read(tmp_path / "i" / "checkpoints" / "last.ckpt")["zoo"]["params"]["latent"]
        == 7
    )


def test_epochs_are_passes_over_the_data(tmp_path):
    arguments = [
        *BEGAN,
        f"--run_dir={tmp_path}/x",
        "--data.batch_size=500",
        "--trainer.max_epochs=3",
    ]
    arguments.remove("--trainer.max_steps=4")
    assert fit.main(arguments) == 0
    assert (
        checkpoint.read(tmp_path / "x" / "checkpoints" / "last.ckpt")["global_step"] == 6
    )  # 1437 // 500 steps an epoch


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.gamma=abc"], "--model.gamma: expected float, got 'abc'"),
        (["--model.gamma=2"], "gamma is in (0, 1], got 2"),
        (["--trainer.max_stepz=3"], "did you mean --trainer.max_steps"),
        (["--fidelty.n_fake=3"], "did you mean --fidelity.n_fake?"),
        (["--fidelity.n_fak=3"], "did you mean --fidelity.n_fake?"),
        (["--modle", "x"], "did you mean --model?"),
        (["--trainer.max_steps=abc"], "--trainer.max_steps: expected int, got 'abc'"),
        (["--data", "toy2d"], "began models images"),
        (["--data", "image_folder", "--data.root=/nowhere"], "no images at /nowhere"),
        (["--trainer.gradient_clip_val=1"], "--model.loop.clip_d"),
        (["--trainer.accumulate_grad_batches=2"], "--model.loop.accumulate"),
        (["--ckpt_path=nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        (["--ckpt_path=last"], "there is no last.ckpt of began under runs/"),
        (["--threads=0"], "--threads is at least 1, got 0"),
        (["--sample_grid.every_n_steps=0"], "every_n_steps"),
        (["--wandb.mode=disabled", "--bits_per_dim.require=true"], "began assigns no likelihood"),
        (["--wandb.mode=onlin"], "--wandb.mode is online, offline or disabled, got 'onlin'"),
        (["--checkpoints.monitor=val/kl"], "--checkpoints.mode=min or --checkpoints.mode=max"),
    ],
)
def test_a_mistake_is_one_line_before_any_training(capsys, tmp_path, arguments, words):
    assert words in error_of(capsys, *BEGAN, *arguments)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_run_folder_is_not_used_twice_but_to_resume(capsys, run_folder):
    before = (run_folder / "metrics.csv").read_text()
    assert "already holds a run" in error_of(capsys, *BEGAN, f"--run_dir={run_folder}")
    assert (run_folder / "metrics.csv").read_text() == before


def test_processes_started_from_outside_must_be_counted(capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--trainer.devices=2" in error_of(capsys, *BEGAN)


def test_resuming_with_other_parameters_is_refused_by_name(capsys, run_folder):
    path = run_folder / "checkpoints" / "last.ckpt"
    assert "model.gamma=1.0, this run has 0.5" in error_of(
        capsys, *BEGAN, f"--ckpt_path={path}", "--model.gamma=0.5"
    )


def test_a_parameter_younger_than_the_checkpoint_counts_as_its_default():
    model = registry.create("dcgan", DataSpec((1, 8, 8), 17))
    params = {k: v for k, v in model.params.items() if k != "prior"}
    params["loop"] = {k: v for k, v in params["loop"].items() if k != "r1"}
    said = {"model": "dcgan", "params": params, "spec": model.spec.asdict()}
    old = {"zoo": {"format": FORMAT, **said}}
    assert check_same(old, model) is None
    for changed, said in (
        ({"prior": "sphere"}, "model.prior='uniform', this run has 'sphere'"),
        ({"loop": {"r1": 2.0}}, "'r1': 2.0"),
    ):
        with pytest.raises(ValueError, match=said):
            check_same(old, registry.create("dcgan", model.spec, **changed))


def test_corrupt_and_foreign_checkpoints_are_refused(capsys, run_folder, tmp_path):
    whole = (run_folder / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "code.ckpt")
    assert "cut.ckpt is not a readable checkpoint" in error_of(
        capsys, *BEGAN, f"--ckpt_path={tmp_path}/cut.ckpt"
    )
    assert "was not written by this zoo" in error_of(
        capsys, *BEGAN, f"--ckpt_path={tmp_path}/foreign.ckpt"
    )
    assert "not a readable checkpoint" in error_of(
        capsys, *BEGAN, f"--ckpt_path={tmp_path}/code.ckpt"
    )
    assert sample.main(["--ckpt", str(tmp_path / "cut.ckpt")]) == 2
    assert "not a readable checkpoint" in capsys.readouterr().err


def test_a_non_finite_loss_stops_by_name_and_spares_the_last_good_checkpoint(capsys, tmp_path):
    folder = tmp_path / "nan"
    arguments = [
        *BEGAN,
        f"--run_dir={folder}",
        "--model.lr_g=1e38",
        "--trainer.max_steps=60",
        "--checkpoints.every_n_steps=1",
    ]
    message = error_of(capsys, *arguments)
    assert "is not finite" in message
    assert "loss" in message or "recon" in message
    assert "--ckpt_path=" in message
    assert (folder / "index.html").is_file()
    good = checkpoint.read(folder / "checkpoints" / "last.ckpt")
    assert all(v.isfinite().all() for n, v in good["state_dict"].items() if n != "m_best")


def test_help_lists_a_models_parameters(capsys):
    with pytest.raises(SystemExit):
        fit.main(["--model.help", "began"])
    text = capsys.readouterr().out
    assert "diversity ratio" in text
    assert "--model.init_args.lambda_k" in text or "lambda_k" in text


def test_help_says_what_values_may_be(capsys):
    with pytest.raises(SystemExit):
        fit.main(["--model.help", "began"])
    text = " ".join(capsys.readouterr().out.split())
    for option, said in (
        ("--model.k K", "[at least 1]"),
        ("--model.gamma GAMMA", "[in (0, 1]]"),
        ("--model.loop.clip_d CLIP_D", "[positive]"),
        ("--model.arch {mlp,conv}", "'conv'], default: mlp"),
    ):
        here = text.split(f"{option} ")[-1].split("--model.")[0]
        assert said in here, option


def test_an_unreachable_server_means_offline_within_seconds(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    started = time.time()
    assert fit.main([*BEGAN, f"--run_dir={tmp_path}/off"]) == 0
    assert time.time() - started < 60
    assert list((tmp_path / "off" / "wandb").glob("offline-run-*"))


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "zoo.fit", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.ddp
def test_four_processes_on_a_machine_without_gpus_make_one_run(tmp_path):
    process = start(
        "--model",
        "began",
        *FAST,
        "--trainer.devices=4",
        "--trainer.max_steps=20",
        "--run_dir=four",
        cwd=tmp_path,
    )
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    assert checkpoint.read(tmp_path / "four" / "checkpoints" / "last.ckpt")["global_step"] == 20
    assert len(list((tmp_path / "four" / "wandb").glob("offline-run-*"))) == 1
    assert output.count("train on") == 1
    assert [int(r["step"]) for r in rows(tmp_path / "four") if r["train/loss_g"]] == list(
        range(1, 21)
    )


@pytest.mark.ddp
def test_two_processes_resume_bit_for_bit(tmp_path):
    two = ["--trainer.devices=2", "--data.batch_size=16"]
    for folder, steps, more in (
        ("a", 6, []),
        ("b", 3, []),
        ("b", 6, ["--ckpt_path=b/checkpoints/last.ckpt"]),
    ):
        process = start(
            *BEGAN, *two, f"--run_dir={folder}", f"--trainer.max_steps={steps}", *more, cwd=tmp_path
        )
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output[-3000:]
    a, b = (checkpoint.read(tmp_path / f / "checkpoints" / "last.ckpt") for f in "ab")
    assert a["global_step"] == b["global_step"] == 6
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key]), key


@pytest.mark.slow
def test_sigterm_saves_and_leaves_cleanly_and_the_run_goes_on(tmp_path):
    arguments = [
        *BEGAN,
        "--run_dir=stop",
        "--trainer.max_steps=100000",
        "--sample_grid.every_n_steps=100000",
    ]
    process = start(*arguments, cwd=tmp_path)
    metrics = tmp_path / "stop" / "metrics.csv"
    deadline = time.time() + 200
    while not metrics.is_file() and time.time() < deadline:
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, output[-2000:]
    stopped = checkpoint.read(tmp_path / "stop" / "checkpoints" / "last.ckpt")["global_step"]
    assert stopped > 0
    assert rows(tmp_path / "stop")[-1]["step"] == str(stopped)
    os.chdir(tmp_path)
    assert (
        fit.main(
            [
                *arguments,
                "--ckpt_path=stop/checkpoints/last.ckpt",
                f"--trainer.max_steps={stopped + 3}",
            ]
        )
        == 0
    )
    assert (
        checkpoint.read(tmp_path / "stop" / "checkpoints" / "last.ckpt")["global_step"]
        == stopped + 3
    )


@pytest.mark.ddp
def test_sigterm_at_different_moments_stops_two_processes_together(tmp_path):
    arguments = [
        *BEGAN,
        "--run_dir=stop",
        "--trainer.devices=2",
        "--trainer.max_steps=100000",
        "--sample_grid.every_n_steps=100000",
    ]
    process = start(*arguments, cwd=tmp_path)
    metrics = tmp_path / "stop" / "metrics.csv"
    deadline = time.time() + 200
    while not metrics.is_file() and time.time() < deadline:
        time.sleep(0.5)
    process.send_signal(
        signal.SIGTERM
    )  # the first process passes it on to the second, which gets it later
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, output[-2000:]
    assert checkpoint.read(tmp_path / "stop" / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_a_save_cut_short_leaves_the_former_checkpoint(run_folder, tmp_path):
    from callbacks.checkpoint import WholeFiles

    path = tmp_path / "last.ckpt"
    path.write_bytes((run_folder / "checkpoints" / "last.ckpt").read_bytes())
    before = path.read_bytes()

    class Torn(dict):
        def __reduce__(self):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        WholeFiles().save_checkpoint({"state_dict": Torn(a=1)}, path)
    assert path.read_bytes() == before
