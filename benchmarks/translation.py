"""Models that make images of images, side by side on the same tasks, beside what needs no learning.

    python benchmarks/translation.py                   every task and model, three seeds
    python benchmarks/translation.py invert --seeds 0

Default networks, rates and steps of each model on data that another may have as its default; one
CPU thread; a ``python -m zoo.fit`` each, in runs/translation/TASK-MODEL-SEED; a folder that is
finished is not run again. Rows are kept in results/translation.csv, translation.md is written from
it. Numbers are those of the callback ``targets`` in the last validation.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

from once import Row, keep, kept, run, spread
from tqdm.auto import tqdm

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs") / "translation"
DIGITS = ["--data=unpaired", "--data.base=digits", "--data.size=16"]
SHAPES = ["--data=paired", "--data.base=shapes", "--data.size=32"]
TASKS: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "invert": (
        "digits 16x16 without pairs, dark on light",
        [*DIGITS, "--data.kind=invert"],
        ("cyclegan", "discogan", "dualgan", "dtn"),
    ),
    "rain": (
        "shapes 32x32 behind rain",
        [*SHAPES, "--data.kind=rain", "--data.batch_size=16"],
        ("pix2pix", "id_cgan"),
    ),
}
MEASURES = ("psnr", "ssim", "l1", "class_kept")
BESIDE = {
    "true": "what was wanted itself",
    "copy": "the source itself",
    "mean": "the mean training image",
}
EXACT = {"psnr_true": 100.0, "ssim_true": 1.0, "l1_true": 0.0}
KEY = ("task", "row", "seed")


def last(folder: Path) -> dict[str, float]:
    """The last value of each column of a run."""
    found: dict[str, float] = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found |= {k: float(v) for k, v in row.items() if v}
    return found


def rows_of(task: str, model: str, seed: int) -> list[Row]:
    """What the model reached, and what the callback says of trivial answers on the same rows."""
    folder = RUNS / f"{task}-{model}-{seed}"
    seconds = run(model, TASKS[task][1], seed, folder)
    values = last(folder)
    rows = []
    for who, row in (("", model), *BESIDE.items()):
        named = {m: f"{m}_{who}".rstrip("_") for m in MEASURES}
        of = {m: EXACT.get(n, values.get(f"val/{n}", math.nan)) for m, n in named.items()}
        rows.append({"task": task, "row": row, "seed": seed if not who else 0, **of})
        rows[-1]["seconds"] = seconds if not who else 0
    return rows


def write(rows: list[Row]) -> None:
    lines = [
        "# Images of images",
        "",
        "Means over the validation images, mean ± standard deviation over seeds; PSNR in dB, L1 on "
        "[0, 1], class kept by a classifier of true answers that never saw a sample. Default "
        "networks, rates and steps, one thread. Seconds on a machine that had other work.",
    ]
    for task, (what, _, _) in TASKS.items():
        of = [r for r in rows if r["task"] == task]
        if not of:
            continue
        lines += ["", f"## {task}: {what}", ""]
        lines += ["| | seeds | PSNR | SSIM | L1 | class kept | seconds |", "|---" * 7 + "|"]
        names = dict.fromkeys(r["row"] for r in of if r["row"] not in BESIDE.values())
        for name in (*sorted(names), *BESIDE.values()):
            own = [r for r in of if r["row"] == name]
            cells = [
                spread(
                    [float(r[m]) for r in own], "{:.2f}".format if m == "psnr" else "{:.3f}".format
                )
                for m in MEASURES
            ]
            taken = spread([float(r["seconds"]) for r in own], "{:.0f}".format)
            lines.append(
                f"| {name if name in BESIDE.values() else f'`{name}`'} | {len(own)} | "
                f"{' | '.join('' if 'nan' in c else c for c in cells)} | "
                f"{'' if name in BESIDE.values() else taken} |"
            )
    (RESULTS / "translation.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=[*TASKS], help=f"of {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    jobs = [(t, m, s) for t in args.tasks for s in args.seeds for m in TASKS[t][2]]
    for task, model, seed in tqdm(jobs):
        rows = keep(RESULTS / "translation.csv", rows_of(task, model, seed), KEY)
        write(rows)
    if not jobs:
        write(kept(RESULTS / "translation.csv"))


if __name__ == "__main__":
    main()
