"""Where metrics go: Weights & Biases, offline by itself when it cannot be online, and always a CSV
in the run folder.
"""

from __future__ import annotations

import csv
import io
import netrc
import os
import shlex
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch import loggers
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from zoo.core.files import written_whole

MODES = {"online": "online", "offline": "offline", "disabled": "disabled"} | {
    "run": "online",
    "dryrun": "offline",
}  # with W&B's old words
NO = ("", "0", "false", "no", "off", "n", "f")


class CSVLogger(loggers.CSVLogger):
    """``metrics.csv`` in the run folder; a resumed run appends to it (Lightning's deletes it). A
    disk that fails costs no row and ends no run: rows wait for the next write.
    """

    _experiment: _Table | None

    def __init__(self, folder: str | Path) -> None:
        super().__init__(save_dir=str(folder), name="", version="", flush_logs_every_n_steps=50)

    @property
    @rank_zero_experiment
    def experiment(self) -> _Table:
        if self._experiment is None:
            self._experiment = _Table(self.log_dir)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None and (lost := len(self._experiment.metrics)):
            rank_zero_warn(f"{lost} rows could not be written to {self._experiment.path}")

    @rank_zero_only
    def resume(self, step: int, row: Mapping[str, float], validate: bool = False) -> None:
        """Drop the rows after ``step``, where a resumed run begins and writes them again.

        Args:
            row: of that step, for a run that was killed before it was logged. validate: its
                validation is still to be done, so values of one that was cut short go too.
        """
        self.experiment.cut(step, validate)
        if row and not self.experiment.has(step, next(iter(row))):
            self.log_metrics({**row}, step)
            self.save()


class _Table(ExperimentWriter):
    """Appends rows; where a new column arrives the whole file is replaced, in one act."""

    def __init__(self, log_dir: str) -> None:
        self._failed = False
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        self.path = Path(self.metrics_file_path)
        if self.path.is_file():
            self.metrics_keys, rows, whole = _read(self.path)
            if not whole:  # a last row that was cut off would be glued to the next
                self._write(rows)

    def save(self) -> None:
        if not self.metrics:
            return
        known = [*self.metrics_keys]
        new = self._record_new_keys()
        try:
            if new or not self.path.is_file():
                old = _read(self.path)[1] if self.path.is_file() else []
                self._write([*old, *self.metrics])
            else:
                self._append()
        except OSError as error:
            self.metrics_keys = known
            if not self._failed:
                rank_zero_warn(
                    f"{self.path} cannot be written ({error.strerror or error}); the run goes on, "
                    f"and rows are kept until it can. Make room on the disk, or make it writable"
                )
            self._failed = True
            return
        self.metrics, self._failed = [], False

    def cut(self, step: int, validate: bool) -> None:
        """Drop the rows after a step, and its validation."""
        if not self.path.is_file():
            return
        _, rows, _ = _read(self.path)
        kept = [r for r in rows if int(r["step"]) <= step]
        if validate:
            kept = [r for r in kept if int(r["step"]) < step or not _of_validation(r)]
        if len(kept) < len(rows):
            self._write(kept)

    def has(self, step: int, key: str) -> bool:
        """Whether a value stands in a step's row."""
        rows = _read(self.path)[1] if self.path.is_file() else []
        return any(r["step"] == str(step) and r.get(key) for r in rows)

    def _append(self) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.metrics_keys).writerows(self.metrics)
        size = self.path.stat().st_size
        try:
            with open(self.path, "ab", buffering=0) as file:
                left = memoryview(text.getvalue().encode())
                while left:
                    left = left[file.write(left) :]
        except OSError:
            os.truncate(self.path, size)  # no half row
            raise

    def _write(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        with written_whole(self.path) as file:
            file.write(text.getvalue().encode())


def _read(path: Path) -> tuple[list[str], list[dict[str, str]], bool]:
    """Columns, rows that are whole, and whether all are."""
    text = path.read_bytes().decode(errors="replace")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    keys, rows = (lines[0], lines[1:]) if lines else ([], [])
    at = keys.index("step") if "step" in keys else 0
    good = [row for row in rows if len(row) == len(keys) and row[at].isdecimal()]
    whole = text.endswith("\n") and len(good) == len(rows)
    return keys, [dict(zip(keys, row, strict=True)) for row in good], whole


def _of_validation(row: dict[str, str]) -> bool:
    return any(value and key.startswith("val/") for key, value in row.items())


class WandbLogger(loggers.WandbLogger):
    """One W&B run for the whole job. Goes offline, saying so, without a key or when the server does
    not answer, and does without W&B where its folder cannot be written to or it fails on the way:
    it neither waits nor ends a run.

    Args:
        folder: run folder; the W&B files lie in its ``wandb`` folder, and the run's id in
            ``wandb_id`` so that a resumed run continues it.
        project, name, entity, group, tags: as in ``wandb.init``.
        mode: "online", "offline", "disabled" or None to find out (WANDB_MODE and WANDB_DISABLED
            count).

    Raises:
        ValueError: another mode; or "online" without a key, where W&B would ask and wait.
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
        said_by, mode = self._mode(mode)
        if mode == "online" and not _has_key(urlparse(_server()).hostname or ""):
            raise ValueError(
                f"{said_by}=online needs a W&B API key: `wandb login` or WANDB_API_KEY gives one; "
                f"or say --wandb.mode=offline"
            )
        self.why_offline = "" if mode == "online" else f"{said_by} is {mode}" if mode else ""
        if not mode:
            self.why_offline = unreachable()
        self._lost = False
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
        self.folder, self.disabled = folder, mode == "disabled"

    @classmethod
    def wanted(cls, mode: str | None) -> bool:
        """Whether W&B is to be used at all.

        Raises:
            ValueError: a mode that there is not.
        """
        return cls._mode(mode)[1] != "disabled"

    @staticmethod
    def _mode(given: str | None) -> tuple[str, str]:
        """Who says which mode; ("", "") where nobody does."""
        said_by, mode = "--wandb.mode", given or ""
        if not mode and os.environ.get("WANDB_DISABLED", "").lower() not in NO:
            return "WANDB_DISABLED", "disabled"
        if not mode:
            said_by, mode = "WANDB_MODE", os.environ.get("WANDB_MODE", "")
        if mode and mode not in MODES:
            raise ValueError(f"{said_by} is online, offline or disabled, got {mode!r}")
        return (said_by, MODES[mode]) if mode else ("", "")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None and wandb.run is None:
            mode = "disabled" if self.disabled else "offline" if self._offline else "online"
            try:
                self._experiment = self._start(mode)
            except (wandb.errors.Error, OSError) as error:
                why = (str(error).splitlines() or [type(error).__name__])[0]
                if mode == "online" and not isinstance(error, OSError):
                    self.why_offline = "the W&B server did not answer"
                    rank_zero_warn(f"W&B does not answer ({why}): logging offline")
                    self._experiment = self._start("offline")
                else:
                    rank_zero_warn(
                        f"W&B cannot begin in {self.folder} ({why}); the run goes on without it, "
                        f"and its numbers stand in metrics.csv"
                    )
                    self._experiment = self._start("disabled")
        return super().experiment

    def _start(self, mode: str) -> Any:
        self._offline, self.disabled = mode == "offline", mode == "disabled"
        if not self.disabled:
            self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            k: v for k, v in self._wandb_init.items() if v is not None
        }  # a None that W&B has retired makes it warn
        run = wandb.init(**{**options, "mode": mode})
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        if not self.disabled:
            (self.folder / "wandb_id").write_text(run.id)
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **more: Any) -> None:
        self._try(super().log_image, key, images, step, **more)

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Add to the run's config."""
        self._try(lambda: self.experiment.config.update(config, allow_val_change=True))

    @rank_zero_only
    def close(self, failed: bool = False) -> None:
        """End the run; what remains to be sent is sent, for two minutes at most."""
        if self._experiment is None:
            return
        files = Path(self._experiment.dir).parent
        self._try(self._experiment.finish, exit_code=int(failed))
        self._experiment = None
        if self._offline and not self._lost:
            rank_zero_info(
                f"W&B ran offline ({self.why_offline}); to upload this run:\n"
                f"    wandb sync {shlex.quote(str(files))}"
            )

    def _try(self, what: Callable[..., Any], *args: Any, **options: Any) -> None:
        if self._lost:
            return
        try:
            what(*args, **options)
        except Exception as error:  # whatever W&B raises: the run is worth more
            self._lost = True
            rank_zero_warn(
                f"W&B fails ({type(error).__name__}: {error}); the run goes on without it, and its "
                f"numbers stand in {self.folder / 'metrics.csv'}"
            )


def unreachable(timeout: float = 3.0) -> str:
    """Why W&B cannot be online: no key, or no answer from its server within ``timeout`` seconds.
    Empty if it can.
    """
    url = urlparse(_server())
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


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url


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
