"""W&B knows by itself when it cannot be online; the CSV never loses a row."""

import csv
import os
import resource
import signal
import warnings

import pytest

from callbacks import loggers
from tests.support import in_a_process


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    for name in (
        "WANDB_API_KEY",
        "WANDB_IDENTITY_TOKEN_FILE",
        "WANDB_MODE",
        "WANDB_BASE_URL",
        "HTTPS_PROXY",
        "https_proxy",
        "NETRC",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def test_without_a_key_it_is_offline_and_says_why(nowhere):
    assert "no W&B API key" in loggers.unreachable()


def test_with_a_key_but_no_server_it_is_offline_and_says_why(nowhere, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert "127.0.0.1 does not answer" in loggers.unreachable(timeout=1)


def test_a_key_in_netrc_counts(nowhere, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert "does not answer" in loggers.unreachable(timeout=1)


def test_a_server_that_answers_means_online(nowhere, monkeypatch):
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        assert loggers.unreachable() == ""


def test_a_failing_start_falls_back_to_offline(monkeypatch, tmp_path):
    import wandb

    modes = []

    def init(**options):
        modes.append(options["mode"])
        if options["mode"] == "online":
            raise wandb.errors.CommError("context deadline exceeded")
        return type("Run", (), {"define_metric": lambda *a, **k: None, "id": "x"})()

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb, "init", init)
    logger = loggers.WandbLogger(tmp_path, mode="online")
    with pytest.warns(UserWarning, match=r"does not answer .*deadline.*: logging offline"):
        assert logger.experiment.id == "x"
    assert modes == ["online", "offline"]


def test_a_resumed_csv_keeps_its_rows_and_takes_new_columns(tmp_path):
    for rows in ([{"a": 1.0}, {"a": 2.0}], [{"a": 3.0, "b": 4.0}]):
        logger = loggers.CSVLogger(tmp_path)
        for step, row in enumerate(rows):
            logger.log_metrics(row, step)
        logger.save()
    with open(tmp_path / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [r["a"] for r in table] == ["1.0", "2.0", "3.0"]
    assert [r["b"] for r in table] == ["", "", "4.0"]


# -- modes of W&B ----------------------------------------------------------------------------------
@pytest.mark.parametrize("wrong", ["onlin", "Offline", "true"])
def test_a_mode_that_there_is_not_is_refused_with_the_choices(tmp_path, monkeypatch, wrong):
    for given, said_by in ((wrong, "--wandb.mode"), (None, "WANDB_MODE")):
        monkeypatch.setenv("WANDB_MODE", wrong)
        with pytest.raises(
            ValueError, match=f"{said_by} is online, offline or disabled, got '{wrong}'"
        ):
            loggers.WandbLogger(tmp_path, mode=given)
        with pytest.raises(ValueError, match=said_by):
            loggers.WandbLogger.wanted(given)


def test_online_without_a_key_is_refused_and_asks_nothing(nowhere, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"--wandb.mode=online needs a W&B API key.*wandb login"):
        loggers.WandbLogger(tmp_path, mode="online")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ValueError, match="WANDB_MODE=online needs"):
        loggers.WandbLogger(tmp_path)
    # Each remedy works.
    assert loggers.WandbLogger(tmp_path, mode="offline").why_offline == "--wandb.mode is offline"
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert loggers.WandbLogger(tmp_path, mode="online").why_offline == ""


@pytest.mark.parametrize(
    ("environment", "option", "wanted"),
    [
        ({"WANDB_DISABLED": "true"}, None, False),
        ({"WANDB_DISABLED": "1"}, None, False),
        ({"WANDB_DISABLED": "false"}, None, True),
        ({"WANDB_DISABLED": ""}, None, True),
        ({"WANDB_DISABLED": "true", "WANDB_MODE": "offline"}, None, False),
        ({"WANDB_DISABLED": "true"}, "offline", True),  # the command line wins
        ({"WANDB_MODE": "disabled"}, None, False),
        ({"WANDB_MODE": "dryrun"}, None, True),  # W&B's former word for offline
        ({}, "disabled", False),
        ({}, None, True),
    ],
)
def test_who_says_whether_wandb_is_used(monkeypatch, nowhere, environment, option, wanted):
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert loggers.WandbLogger.wanted(option) is wanted


# -- W&B in trouble --------------------------------------------------------------------------------
def test_a_folder_that_cannot_be_written_to_costs_wandb_and_not_the_run(tmp_path):
    (tmp_path / "file").write_text("no folder")
    logger = loggers.WandbLogger(tmp_path / "file" / "run", mode="offline")
    with pytest.warns(UserWarning, match=r"W&B cannot begin in .*/file/run \(.*without it"):
        logger.experiment.log({"a": 1})
    logger.log_metrics({"a": 1.0}, 1)
    logger.log_config({"b": 2})
    logger.close()


def test_wandb_that_fails_on_the_way_is_said_once(tmp_path, monkeypatch):
    import wandb

    class Run:
        id, dir = "x", str(tmp_path)

        def define_metric(self, *args, **options):
            pass

        def log(self, *args, **options):
            raise BrokenPipeError("the service is gone")

        def finish(self, **options):
            raise RuntimeError("nor can it end")

    monkeypatch.setattr(wandb, "init", lambda **options: Run())
    logger = loggers.WandbLogger(tmp_path, mode="offline")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(3):
            logger.log_metrics({"a": 1.0}, step)
        logger.log_image("samples", ["nowhere.png"], 3)
        logger.log_config({"b": 2})
        logger.close()
    (line,) = [str(w.message) for w in said if "W&B" in str(w.message)]
    assert line.startswith("W&B fails (BrokenPipeError: the service is gone); the run goes on")


# -- metrics.csv -----------------------------------------------------------------------------------
def table(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(folder, *rows):
    logger = loggers.CSVLogger(folder)
    for step, row in rows:
        logger.log_metrics(row, step)
    logger.save()
    return logger


@pytest.mark.parametrize("torn", ["2,0.", "2", "2,", "2,0.25", '2,"0.2', "2,0.25,1,1,1"])
def test_a_row_that_was_cut_off_is_dropped(tmp_path, torn):
    log(tmp_path, (1, {"a": 0.5}))
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write(torn)
    log(tmp_path, (3, {"a": 0.75}), (4, {"b": 1.0}))
    assert table(tmp_path) == [
        {"step": "1", "a": "0.5"},
        {"step": "3", "a": "0.75"},
        {"step": "4", "b": "1.0"},
    ]


def test_an_empty_file_is_begun_again(tmp_path):
    (tmp_path / "metrics.csv").touch()
    log(tmp_path, (1, {"a": 0.5}))
    assert table(tmp_path) == [{"step": "1", "a": "0.5"}]


def test_steps_after_the_checkpoint_do_not_stand_twice(tmp_path):
    rows = [(s, {"train/loss": float(s)}) for s in range(1, 8)]
    log(tmp_path, *rows, (4, {"val/fid": 1.0}), (6, {"val/fid": 2.0}))
    loggers.CSVLogger(tmp_path).resume(4, {"train/loss": 4.0})
    assert [r["step"] for r in table(tmp_path)] == ["1", "2", "3", "4", "4"]
    loggers.CSVLogger(tmp_path).resume(4, {"train/loss": 4.0}, validate=True)  # is done again
    assert [r["step"] for r in table(tmp_path)] == ["1", "2", "3", "4"]


def test_a_row_that_the_kill_forestalled_is_written_at_the_resume(tmp_path):
    log(tmp_path, (1, {"train/loss": 1.0}))
    loggers.CSVLogger(tmp_path).resume(2, {"train/loss": 2.0})
    assert table(tmp_path) == [
        {"step": "1", "train/loss": "1.0"},
        {"step": "2", "train/loss": "2.0"},
    ]


def test_a_kill_while_new_columns_arrive_costs_no_row(tmp_path):
    rows = [(s, {"a": float(s)}) for s in range(1, 2001)]
    logger = log(tmp_path, *rows)
    before = (tmp_path / "metrics.csv").read_bytes()

    def killed():
        # The kernel kills it when any file of its grows beyond half of the table.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))
        logger.log_metrics({"b": 1.0}, 2001)
        logger.save()

    assert in_a_process(killed) == -signal.SIGXFSZ
    assert (tmp_path / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("column", ["a", "b"])  # appended; all written anew
def test_a_full_disk_costs_no_row_and_is_said_once(tmp_path, column):
    logger = log(tmp_path, *((s, {"a": float(s)}) for s in range(1, 101)))
    before = (tmp_path / "metrics.csv").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, resource.RLIM_INFINITY))
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in (101, 102):
                logger.log_metrics({column: 1.0}, step)
                logger.save()
        assert (tmp_path / "metrics.csv").read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    (line,) = [str(w.message) for w in said]
    assert line.startswith(f"{tmp_path}/metrics.csv cannot be written (File too large)")
    logger.finalize("success")
    assert table(tmp_path)[-2:] == [{"step": "101", column: "1.0"}, {"step": "102", column: "1.0"}]
    assert len(table(tmp_path)) == 102
    assert os.listdir(tmp_path) == ["metrics.csv"]
