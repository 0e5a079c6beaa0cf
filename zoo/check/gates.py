"""The gates of the default runs."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from zoo.check import trivial
from zoo.check.checks import check, meets
from zoo.check.subject import Subject
from zoo.metrics.meanings import extractor_of

Gates = tuple[tuple[str, str, float], ...]  # as in ``learns``

# No pictures, and no validation but the last: they leave no trace in what a gate reads. One thread:
# two, where other processes want the cores, took thirteen times as long.
PLAIN = [f"--{name}.enabled=false" for name in ("memorisation", "latent_space", "film")]
PLAIN += ["--threads=1"] + [
    f"--{often}={10**9}" for often in ("sample_grid.every_n_steps", "trainer.val_check_interval")
]


@check(lambda cls, entry: bool(entry.learns), mark="slow")
def check_learns(subject: Subject) -> None:
    """The default run reaches its gates."""
    from zoo import fit as command

    with tempfile.TemporaryDirectory() as scratch:
        options = ["--model", subject.name, f"--run_dir={scratch}/run", "--wandb.mode=disabled"]
        if not subject.inside:
            options += ["--data", subject.data_class]
        options += ["--trainer.enable_progress_bar=false", *PLAIN]
        if not any(extractor_of(metric.rpartition("/")[2]) for metric, *_ in subject.entry.learns):
            options += ["--fidelity.enabled=false"]
        assert command.main(options) == 0, "the default run failed"
        reached(Path(scratch) / "run", subject.entry.learns)


def reached(run: Path, gates: Gates) -> None:
    """Raise an ``AssertionError`` unless the last values of a run folder pass the gates."""
    values = last_metrics(run / "metrics.csv")
    for metric, sign, threshold in gates:
        assert metric in values, f"{metric} was not logged; there are {sorted(values)}"
        value = values[metric]
        said = f"{metric} is {value:.4g}, the gate is {sign} {threshold}"
        assert meets(value, sign, threshold), said


@check(
    lambda cls, entry: bool(entry.learns) and entry.family not in ("baseline", "", "data"),
    mark="slow",
)
def check_gates_refuse_trivial_rows(subject: Subject) -> None:
    """Data that the model never saw pass its gates on samples; none of the samplers and densities
    that know next to nothing passes all gates that speak of it. Baselines are such rows themselves.
    """
    gates = subject.entry.learns
    default = Subject.of(subject.name, small=False) if subject.inside else subject
    (_, held_out), *others = trivial.rows(default).items()
    assert trivial.passes(gates, held_out) is not False, f"held-out data fail the gates: {held_out}"
    for kind, values in others:
        said = ", ".join(f"{m} {values[m]:.3g}" for m, _, _ in gates if m in values)
        assert not trivial.passes(gates, values), f"a trivial row ({kind}) passes them: {said}"


def last_metrics(path: Path) -> dict[str, float]:
    """The last value of each column of a metrics.csv."""
    out: dict[str, float] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            out |= {k: float(v) for k, v in row.items() if v}
    return out
