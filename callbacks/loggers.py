"""Where metrics go: Weights & Biases, offline by itself when it cannot be online, and always a CSV
in the run folder.
"""

from __future__ import annotations

import csv
import netrc
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch import loggers
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn


class CSVLogger(loggers.CSVLogger):
    """``metrics.csv`` in the run folder; a resumed run appends to it (Lightning's deletes it)."""

    _experiment: ExperimentWriter | None

    def __init__(self, folder: str | Path) -> None:
        super().__init__(save_dir=str(folder), name="", version="", flush_logs_every_n_steps=50)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = _Appending(self.log_dir)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: config.yaml holds them."""


class _Appending(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class WandbLogger(loggers.WandbLogger):
    """One W&B run for the whole job. Goes offline, saying so, without a key or when the server does
    not answer: never a hang.

    Args:
        folder: run folder; the W&B files lie in its ``wandb`` folder, and the run's id in
            ``wandb_id`` so that a resumed run continues it.
        project, name, entity, group, tags: as in ``wandb.init``.
        mode: "online", "offline" or None to find out (WANDB_MODE counts).
    """

    def __init__(
        self,
        folder: str | Path,
        project: str | None = None,
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: str | None = None,
    ) -> None:
        folder = Path(folder)
        mode = mode or os.environ.get("WANDB_MODE") or None
        self.why_offline = (
            "" if mode == "online" else "WANDB_MODE is offline" if mode else unreachable()
        )
        super().__init__(
            name=name or folder.name,
            save_dir=str(folder),
            id=_run_id(folder),
            project=project or os.environ.get("WANDB_PROJECT", "zoo"),
            offline=bool(self.why_offline),
            entity=entity,
            group=group,
            tags=tags,
            settings=wandb.Settings(
                init_timeout=30, finish_timeout=120, quiet=bool(self.why_offline)
            ),
        )
        self.folder = folder

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None and wandb.run is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._experiment = self._start("offline" if self._offline else "online")
            except (wandb.errors.Error, OSError) as error:
                if self._offline:
                    raise
                rank_zero_warn(
                    f"W&B does not answer ({str(error).splitlines()[0]}): logging offline"
                )
                self.why_offline = "the W&B server did not answer"
                self._experiment = self._start("offline")
        return super().experiment

    def _start(self, mode: str) -> Any:
        self._offline = mode == "offline"
        options = {
            k: v for k, v in self._wandb_init.items() if v is not None
        }  # a None that W&B has retired makes it warn
        run = wandb.init(**{**options, "mode": mode})
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        (self.folder / "wandb_id").write_text(run.id)
        return run

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Add to the run's config."""
        self.experiment.config.update(config, allow_val_change=True)

    @rank_zero_only
    def close(self, failed: bool = False) -> None:
        """End the run; what remains to be sent is sent, for two minutes at most."""
        if self._experiment is None:
            return
        files = Path(self._experiment.dir).parent
        self._experiment.finish(exit_code=int(failed))
        self._experiment = None
        if self._offline:
            rank_zero_info(
                f"W&B ran offline ({self.why_offline}); to upload this run:\n    wandb sync {files}"
            )


def unreachable(timeout: float = 3.0) -> str:
    """Why W&B cannot be online: no key, or no answer from its server within ``timeout`` seconds.
    Empty if it can.
    """
    url = urlparse(os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url)
    if not _has_key(url.hostname or ""):
        return "no W&B API key; `wandb login` stores one"
    if proxied := os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        url = urlparse(proxied)
    try:
        socket.create_connection(
            (url.hostname or "", url.port or (443 if url.scheme == "https" else 80)), timeout
        ).close()
    except OSError as error:
        return f"{url.hostname} does not answer: {error}"
    return ""


def _has_key(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_id(folder: Path) -> str | None:
    if os.environ.get("WANDB_RUN_ID"):
        return os.environ["WANDB_RUN_ID"]
    stored = folder / "wandb_id"
    return stored.read_text().strip() if stored.is_file() else None
