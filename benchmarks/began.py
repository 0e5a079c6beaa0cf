"""How BEGAN's default settings were found: each setting, and what its samples are.

    python benchmarks/began.py digits                       every setting that has no row yet
    python benchmarks/began.py heads --only "gamma 0.8"     one, anew

Each is ``python -m zoo.fit --model began`` with the options below, on one thread. The last
validation's k_t, M_global, classes (looks, of heads), precision and recall go to
results/began_DATA.csv, and as a table to results/began_DATA.md.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm.auto import tqdm

from zoo.check.gates import PLAIN, last_metrics
from zoo.standards import SPREAD, trivial

RESULTS = Path(__file__).parent / "results"
COLUMNS = ["setting", "seed", "steps", "k_t", "m_global", "classes", "precision", "recall"]
COLUMNS += ["seconds", "options"]
SCORES = {"precision": "val/precision_pixels", "recall": "val/recall_pixels"}
CLASSES = {"heads": "val/classes_headsnet", "digits": "val/classes_pixels"}
NAMED = {"heads": "heads 32x32 (aligned)", "digits": "digits 8x8"}  # in configs/trivial.json
QUIET = ["--wandb.mode=disabled", "--trainer.enable_progress_bar=false", "--threads=1", *PLAIN]

# By data: a name, the options of the model (with "data", "steps" and "ema" of the run), the seeds.
SETTINGS: dict[str, list[tuple[str, dict[str, float | str], tuple[int, ...]]]] = {
    "heads": [
        ("default", {}, (0, 1, 2)),
        (
            "width 768, D 2e-4",
            {"width": 768, "lr_d": 2e-4},
            (0,),
        ),
        ("gamma 0.8, code 128, averaged weights", {"gamma": 0.8, "code": 128, "ema": 0.99}, (0,)),
        ("twice as long, halved half as often", {"halve_every": 2000, "steps": 6000}, (0,)),
        (
            "code 96, D 2e-4, G 1.5e-3, twice as long",
            {"code": 96, "lr_d": 2e-4, "lr_g": 1.5e-3, "halve_every": 2000, "steps": 6000},
            (0,),
        ),
        (
            "code 48, D 5e-4, G 1.5e-3",
            {"code": 48, "lr_d": 5e-4, "lr_g": 1.5e-3, "halve_every": 1300, "steps": 4000},
            (0,),
        ),
    ],
    "digits": [
        ("default", {}, (0, 1, 2)),
        ("the paper's gamma 0.5", {"gamma": 0.5}, (0,)),
        ("gamma 0.95", {"gamma": 0.95}, (0,)),
        ("equal rates of 5e-4", {"lr_d": 5e-4, "lr_g": 5e-4}, (0,)),
        ("equal rates, three steps of D", {"lr_d": 5e-4, "lr_g": 5e-4, "k": 3}, (0,)),
        ("code 8", {"code": 8}, (0,)),
        ("momentum 0.5", {"beta1": 0.5}, (0,)),
        ("width 512", {"width": 512}, (0,)),
        ("rates constant", {"halve_every": 0}, (0,)),
        ("squared error", {"eta": 2}, (0,)),
        ("batches of 160", {"data.batch_size": 160}, (0,)),
        ("noise of 0.15 on D's inputs", {"loop.instance_noise": 0.15}, (0,)),
    ],
}


def words(options: dict[str, float | str]) -> list[str]:
    """Options of the command line."""
    others = {
        "steps": "trainer.max_steps",
        "ema": "ema.decay",
        "data.batch_size": "data.batch_size",
    }
    return [f"--{others.get(k, f'model.{k}')}={v}" for k, v in options.items()]


def train(data: str, name: str, options: dict[str, float | str], seed: int) -> dict[str, object]:
    """A run in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        where = [f"--run_dir={scratch}/run", f"--seed_everything={seed}", "--data", data]
        command = [sys.executable, "-m", "zoo.fit", "--model", "began", *where, *words(options)]
        start = time.perf_counter()
        done = subprocess.run([*command, *QUIET], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        seconds = time.perf_counter() - start
        rows = Path(scratch) / "run" / "metrics.csv"
        last = last_metrics(rows)
    found = {column: round(last[key], 3) for column, key in SCORES.items()}
    return {
        "setting": name,
        "seed": seed,
        "steps": int(last["step"]),
        "k_t": round(last["train/k_t"], 3),
        "m_global": round(last["train/m_global"], 4),
        "classes": int(last[CLASSES[data]]),
        **found,
        "seconds": round(seconds),
        "options": " ".join(words(options)),
    }


def write(data: str, rows: list[dict[str, object]]) -> None:
    with (RESULTS / f"began_{data}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    shown = [*COLUMNS[:8], "options"]
    lines = [
        f"# BEGAN on {data}: settings",
        "",
        "`python benchmarks/began.py " + data + "`; options differ from the default run's.",
        "",
        f"| {' | '.join(shown)} |",
        "|---" * len(shown) + "|",
    ]
    for row in rows:
        told = f"`{row['options']}`" if row["options"] else ""
        lines.append(f"| {' | '.join([*(str(row[c]) for c in shown[:-1]), told])} |")
    for name, values in trivial(NAMED[data]).items():
        if name != SPREAD:
            scores = [values[CLASSES[data]], *(values[key] for key in SCORES.values())]
            cells = [f"*{name}*", *[""] * 4, *(f"{v:.3g}" for v in scores), ""]
            lines.append(f"| {' | '.join(cells)} |")
    (RESULTS / f"began_{data}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=[*SETTINGS])
    parser.add_argument("--only", help="the setting of this name, anew")
    args = parser.parse_args()
    path = RESULTS / f"began_{args.data}.csv"
    kept: dict[tuple[str, int], dict[str, object]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            kept = {(r["setting"], int(r["seed"])): dict(r) for r in csv.DictReader(file)}
    jobs = [(name, o, seed) for name, o, seeds in SETTINGS[args.data] for seed in seeds]
    if args.only and args.only not in {name for name, *_ in jobs}:
        names = ", ".join(repr(name) for name, *_ in SETTINGS[args.data])
        parser.error(f"--only={args.only!r}: there are {names}")
    for name, options, seed in tqdm(jobs):
        if name == args.only if args.only else (name, seed) not in kept:
            kept[name, seed] = train(args.data, name, options, seed)
            write(args.data, [kept[n, s] for n, _, s in jobs if (n, s) in kept])


if __name__ == "__main__":
    main()
