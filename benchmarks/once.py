"""What scripts of this folder share: runs that are made once, and rows that are kept."""

from __future__ import annotations

import csv
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
QUIET = [
    "--wandb.mode=disabled",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--latent_space.enabled=false",
    "--memorisation.enabled=false",
    "--sample_grid.every_n_steps=100000000",
    "--threads=1",
]
UNSEEN = "--trainer.limit_val_batches=0"  # an option: all of the time goes into training


def run(name: str, options: Sequence[str], seed: int, folder: Path) -> int:
    """Seconds of a ``zoo.fit`` in a process of its own; a folder that is finished is not run
    again.
    """
    done = folder / "seconds.txt"
    if not done.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
        command = [sys.executable, "-m", "zoo.fit", "--model", name, *options, *QUIET]
        command += [f"--seed_everything={seed}", f"--run_dir={folder}"]
        start = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{ended.stderr[-2000:]}")
        done.write_text(f"{time.perf_counter() - start:.0f}")
    return int(done.read_text())


def kept(path: Path) -> list[Row]:
    """The rows of a table, none where there is none."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def keep(path: Path, rows: Sequence[Row], key: Sequence[str]) -> list[Row]:
    """All rows of the table once these, which replace those of the same key, are among them; in the
    order of their keys.
    """
    known = {tuple(str(r[k]) for k in key): r for r in (*kept(path), *rows)}
    together = [r for _, r in sorted(known.items())]
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*together[0]])
        writer.writeheader()
        writer.writerows(together)
    return together


def spread(values: Sequence[float], shown: Callable[[float], str] = "{:.2f}".format) -> str:
    """Mean and, of more than one, standard deviation."""
    middle = shown(statistics.mean(values))
    return f"{middle} ± {shown(statistics.stdev(values))}" if len(values) > 1 else middle
