"""Run folders: which one is meant, and which of its checkpoints."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

RUNS = Path("runs")
FOLDER = "ZOO_RUN_DIR"  # tells the processes that Lightning starts where the run lies
RANKS = ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID")
KEPT = ("last", "best")  # the checkpoints of a run, by their short names


class NoRun(FileNotFoundError):
    """There is no such run or checkpoint; the message says what there is."""


def folders(model: str = "") -> list[Path]:
    """The runs under ``runs/``, of one model or of all, the one begun last at the end."""
    found = [p.parent for p in RUNS.glob(f"{model or '*'}-*/config.yaml")]
    return sorted(found, key=lambda p: ((p / "config.yaml").stat().st_mtime_ns, p.name))


def checkpoint_of(given: str | Path, model: str = "", folder: str | Path | None = None) -> Path:
    """The checkpoint that is meant.

    Args:
        given: a file, a run folder (its last), or "last" or "best": those of ``folder``, or of the
            newest run under ``runs/``.
        model: whose run, for "last" and "best"; any where it is empty.

    Raises:
        NoRun: there is none. A file is not looked for.
    """
    if str(given) not in KEPT:
        path = Path(given).expanduser()
        return _in(path, "last") if path.is_dir() else path
    if folder is not None:
        return _in(Path(folder).expanduser(), str(given))
    every = folders(model)
    if not every:
        whose = f" of {model}" if model else ""
        raise NoRun(f"there is no {given}.ckpt{whose} under {RUNS}/; give a file or a run folder")
    return _in(every[-1], str(given), every[:-1])


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in; None if it was moved elsewhere."""
    inside = checkpoint.absolute().parent.name == "checkpoints"
    return checkpoint.parent.parent if inside else None


def latest(pictures: list[Path]) -> Path | None:
    """The picture of the highest step: ``step_1000000.png`` comes after ``step_999500.png``."""
    return max(pictures, key=lambda p: int(re.sub(r"\D", "", p.stem) or 0), default=None)


def is_child() -> bool:
    """Whether this is not the first of several processes, whoever started them."""
    return any(int(os.environ.get(name) or 0) > 0 for name in RANKS)


class Claim:
    """A run's folder, made by this process and its own until the end; left as it was found if the
    run comes to nothing.

    Args:
        wanted: the folder, or None for ``runs/NAME``, ``runs/NAME-2`` ..., the first that is free.
        resumed: whether a run in it goes on.

    Raises:
        ValueError: it holds a run already, is in use, or cannot be made.
    """

    def __init__(self, wanted: Path | None, name: str, resumed: bool) -> None:
        from zoo.core.files import alone_in  # which brings torch

        self.folder, self.resumed, self.note = wanted or RUNS / name, resumed, ""
        self._parents = [p for p in self.folder.absolute().parents if not p.exists()]
        try:
            if wanted is None:
                self._first_free(name)
            else:
                self._made = not wanted.exists()
                wanted.mkdir(parents=True, exist_ok=True)
            self._before = {p.name for p in self.folder.iterdir()}
        except OSError as error:
            said = "it is a file" if isinstance(error, FileExistsError) else error.strerror
            raise ValueError(
                f"{self.folder} cannot be the run's folder ({said}); name one with --run_dir=FOLDER"
            ) from None
        self._alone = ExitStack()
        self._alone.enter_context(alone_in(self.folder))
        try:
            if not resumed and not self._made:
                self._set_aside()
            self._before |= {p.name for p in self.folder.iterdir() if p.name != ".lock"}
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others have it."""
        self._alone.close()

    def undo(self) -> None:
        """Remove what came after the claim, and the folders that it made."""
        self.release()
        if self.resumed:
            return
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in self._before:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path in [self.folder, *self._parents] if self._made else ():
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def _first_free(self, name: str) -> None:
        RUNS.mkdir(exist_ok=True)
        tries = 1
        while True:
            try:
                self.folder.mkdir()
                self._made = True
                return
            except FileExistsError:
                tries += 1
                self.folder = RUNS / f"{name}-{tries}"

    def _set_aside(self) -> None:
        """Refuse a run that can be resumed; what one that was never saved left makes room."""
        if any((self.folder / "checkpoints").glob("*.ckpt")):
            raise ValueError(
                f"{self.folder} already holds a run; resume it with --ckpt_path={self.folder}, or "
                "name another folder"
            )
        old = [self.folder / name for name in ("metrics.csv", "wandb_id", "samples")]
        old = [path for path in old if path.exists()]
        for path in old:
            number = 1
            while (kept := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
                number += 1
            path.rename(kept)
        if old:
            self.note = (
                f"{self.folder} holds a run without a checkpoint: it begins anew, and what there "
                f"was is kept as *-{number}"
            )


def _in(folder: Path, name: str, others: Sequence[Path] = ()) -> Path:
    path = folder / "checkpoints" / f"{name}.ckpt"
    if path.is_file():
        return path
    older = [p for p in others if (p / "checkpoints" / f"{name}.ckpt").is_file()]
    there = sorted(p.name for p in path.parent.glob("*.ckpt"))
    hint = f"; it has {', '.join(there)}" if there else ""
    if older:
        hint += f"; an older run that has one: {older[-1]}"
    raise NoRun(f"the run {folder} has no {name}.ckpt{hint}")
