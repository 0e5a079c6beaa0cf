"""The gates of the default runs."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from zoo.check.checks import check
from zoo.check.subject import Subject

# No pictures: they are no part of a gate, and leave no trace in what is.
PLAIN = [f"--{name}.enabled=false" for name in ("memorisation", "latent_space")]
PLAIN += [f"--sample_grid.every_n_steps={10**9}"]


@check(lambda cls, entry: bool(entry.learns), mark="slow")
def check_learns(subject: Subject) -> None:
    """The default run reaches its gates."""
    from zoo import fit as command

    with tempfile.TemporaryDirectory() as scratch:
        options = ["--model", subject.name, f"--run_dir={scratch}/run", "--wandb.mode=disabled"]
        if not subject.inside:
            options += ["--data", subject.data_class]
        options += ["--trainer.enable_progress_bar=false", *PLAIN]
        assert command.main(options) == 0, "the default run failed"
        values = last_metrics(Path(scratch) / "run" / "metrics.csv")
    for metric, sign, threshold in subject.entry.learns:
        assert metric in values, f"{metric} was not logged; there are {sorted(values)}"
        value = values[metric]
        good = value < threshold if sign == "<" else value > threshold
        assert good, f"{metric} is {value:.4g}, the gate is {sign} {threshold}"


def last_metrics(path: Path) -> dict[str, float]:
    """The last value of each column of a metrics.csv."""
    out: dict[str, float] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            out |= {k: float(v) for k, v in row.items() if v}
    return out
