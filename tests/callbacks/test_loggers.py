"""W&B knows by itself when it cannot be online; the CSV never loses a row."""

import csv

import pytest

from callbacks import loggers


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
