"""Ctrl-C, SIGTERM, a hangup and a second process: what a user sees, and what is on the disk."""

import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from tests.support import in_a_process
from zoo import fit
from zoo.core.files import alone_in

RUN = [
    *("--model", "gan", "--data", "toy2d", "--trainer.max_steps=100000", "--wandb.mode=disabled"),
    *("--trainer.enable_model_summary=false", "--sample_grid.every_n_steps=100000"),
    "--trainer.val_check_interval=1000",
]


started: list[subprocess.Popen] = []


def start(command, cwd, **options):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo.fit", *command],
        cwd=cwd,
        text=True,
        start_new_session=True,
        **streams,
    )
    started.append(process)
    return process


@pytest.fixture(autouse=True)
def nobody_is_left():
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for(path, process=None):
    deadline = time.time() + 200
    while not path.exists() and time.time() < deadline:
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def step_of(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.slow
def test_ctrl_c_saves_and_the_line_it_prints_goes_on(tmp_path):
    folder = tmp_path / "a run"  # the line is for a shell
    process = start([*RUN, f"--run_dir={folder}"], tmp_path)
    wait_for(folder / "metrics.csv", process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of the group
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGINT, said
    assert "Traceback" not in said
    stopped = step_of(folder)
    assert f"SIGINT at step {stopped}: saved {folder}/checkpoints/last.ckpt" in said
    assert f"the run is in {folder}" in said
    assert f"page         {folder}/index.html" in said and (folder / "index.html").is_file()
    (line,) = [x.strip() for x in said.splitlines() if x.startswith("    python -m zoo.fit")]
    again = shlex.split(line)
    assert again[:3] == ["python", "-m", "zoo.fit"]
    process = start(again[3:], tmp_path)
    time.sleep(3)
    deadline = time.time() + 200
    while len((folder / "metrics.csv").read_text().splitlines()) < stopped // 20 + 3:
        assert time.time() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGHUP, said
    assert said.count("--ckpt_path") == 1
    assert step_of(folder) > stopped


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 1.0, 2.5])
def test_ctrl_c_during_start_up_is_quiet(tmp_path, delay):
    process = start([*RUN, "--run_dir=run"], tmp_path)
    time.sleep(delay)
    assert not (tmp_path / "run" / "metrics.csv").exists()
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


@pytest.mark.slow
def test_a_hangup_saves_although_nobody_reads_any_more(tmp_path):
    read, write = os.pipe()
    process = start([*RUN, "--run_dir=run"], tmp_path, stdout=write, stderr=write)
    os.close(write)
    wait_for(tmp_path / "run" / "metrics.csv", process)
    os.close(read)  # the terminal is gone, and writing to it fails
    time.sleep(1)
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(timeout=100) == 128 + signal.SIGHUP
    assert step_of(tmp_path / "run") > 0
    assert (tmp_path / "run" / "index.html").is_file()


@pytest.mark.slow
def test_no_interrupt_is_lost_whenever_it_comes(tmp_path):
    """With a save at every step most moments are inside one, where pickling swallows exceptions."""
    outcome = []
    for trial in range(20):
        folder = tmp_path / str(trial)
        run = [*RUN, f"--run_dir={folder}", "--checkpoints.every_n_steps=1"]
        if (child := os.fork()) == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the command does
            os._exit(in_this_process(run))
        wait_for(folder / "checkpoints" / "last.ckpt")
        time.sleep(random.Random(trial).uniform(0, 0.5))
        os.kill(child, signal.SIGINT)
        outcome.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert step_of(folder) > 0
    assert outcome == [128 + signal.SIGINT] * 20


def in_this_process(run) -> int:
    try:
        return fit.main(run)
    except SystemExit as error:
        return error.code


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_loader_workers_do_not_die_of_a_signal_to_all(tmp_path, sent):
    process = start([*RUN, "--run_dir=run", "--data.num_workers=2"], tmp_path)
    wait_for(tmp_path / "run" / "metrics.csv", process)
    os.killpg(process.pid, sent)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + sent, said
    assert "Traceback" not in said
    assert step_of(tmp_path / "run") > 0


# -- two processes, one folder ---------------------------------------------------------------------
def test_a_folder_in_use_is_refused_until_its_process_is_gone(tmp_path, capsys):
    folder = tmp_path / "run"
    short = [*RUN[:-1], "--trainer.max_steps=3", "--trainer.enable_progress_bar=false"]
    assert in_a_process(lambda: fit.main([*short, f"--run_dir={folder}"])) == 0
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    read, write = os.pipe()
    if (holder := os.fork()) == 0:
        with alone_in(folder):
            if os.fork() == 0:  # as a loader's worker, which outlives a killed parent for a while
                os.close(write)
                time.sleep(20)
                os._exit(0)
            os.write(write, b"held")
            time.sleep(600)
    assert os.read(read, 4) == b"held"
    more = [*short, "--trainer.max_steps=6", f"--ckpt_path={folder}/checkpoints/last.ckpt"]
    capsys.readouterr()
    assert fit.main(more) == 2
    error = capsys.readouterr().err
    assert f"{folder} is in use by process {holder} on {socket.gethostname()}" in error
    assert "Traceback" not in error
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    after.pop(folder / ".lock")
    before.pop(folder / ".lock")
    assert after == before
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert in_a_process(lambda: fit.main(more)) == 0
    assert step_of(folder) == 6


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert fit.main([*RUN, f"--run_dir={tmp_path}/file/run"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/file/run cannot be the run's folder (Not a directory)" in error
    assert "name one with --run_dir=FOLDER" in error
    assert "Traceback" not in error


# -- several processes -----------------------------------------------------------------------------
@pytest.mark.ddp
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP])
def test_two_processes_stop_together(tmp_path, sent):
    process = start([*RUN, "--run_dir=run", "--trainer.devices=2"], tmp_path)
    wait_for(tmp_path / "run" / "metrics.csv", process)
    os.killpg(process.pid, sent)  # both get it, at different moments of their steps
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + sent, said
    assert "Traceback" not in said
    assert (
        said.count(f"{sent.name} at step {step_of(tmp_path / 'run')}: saved run/checkpoints") == 1
    )
