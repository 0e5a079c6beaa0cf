"""Whether him's intervals hold the rates that made the data.

    python benchmarks/intervals.py             20 data sets of predators and prey

Each set has its own seed, and so has the run on it, which is the documented one (``--data
lotka_volterra``). The table, results/intervals.md, has each rate's error and the share of sets
whose central 90 % of q holds the rate, beside the prior's.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from once import keep, run
from tqdm.auto import tqdm

from zoo.core import checkpoint
from zoo.data.lotka_volterra import LotkaVolterra
from zoo.gan.him import CENTRE, WIDTH

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs") / "intervals"
RATES = ("predators born", "predators die", "prey born", "prey eaten")
Z90 = statistics.NormalDist().inv_cdf(0.95)


def row_of(seed: int) -> dict[str, float]:
    """Errors of the four rates, in parts of them, and how many deviations of q they are off."""
    folder = RUNS / str(seed)
    run("him", ["--data=lotka_volterra", f"--data.seed={seed}"], seed, folder)
    model = checkpoint.load(folder / "checkpoints" / "last.ckpt")
    true = torch.tensor(LotkaVolterra().rates)
    found = model.simulator.rates(model.q.mean.detach())
    off = (found / true).log() / (WIDTH * model.q.log_std.detach().exp())
    errors = (found / true - 1).tolist()
    named = {f"error {name}": v for name, v in zip(RATES, errors, strict=True)}
    return {"set": seed, **named, **{f"z {n}": v for n, v in zip(RATES, off.tolist(), strict=True)}}


def table(rows: list[dict[str, float]]) -> str:
    """Markdown."""
    prior = [c / t for c, t in zip(CENTRE, LotkaVolterra().rates, strict=True)]
    lines = [
        f"# Rates of predators and prey, {len(rows)} data sets",
        "",
        "Made by `python benchmarks/intervals.py`: of each rate the median and the largest error, "
        "and the share of data sets whose central 90 % holds it.",
        "",
        "| rate | median error | largest | in the central 90 % | the prior's median is off by |",
        "|---|---|---|---|---|",
    ]
    for name, ratio in zip(RATES, prior, strict=True):
        errors = [abs(float(r[f"error {name}"])) for r in rows]
        inside = statistics.mean(abs(float(r[f"z {name}"])) <= Z90 for r in rows)
        lines.append(
            f"| {name} | {statistics.median(errors):.1%} | {max(errors):.1%} | {inside:.0%} | "
            f"{abs(ratio - 1):.0%} |"
        )
    every = [abs(float(r[f"z {n}"])) <= Z90 for r in rows for n in RATES]
    return "\n".join([*lines, f"| all | | | {statistics.mean(every):.0%} | |", ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=20)
    for seed in tqdm(range(parser.parse_args().sets)):
        rows = keep(RESULTS / "intervals.csv", [row_of(seed)], ("set",))
        (RESULTS / "intervals.md").write_text(table(rows))


if __name__ == "__main__":
    main()
