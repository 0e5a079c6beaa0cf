"""Which digits look strange to a model that never saw one of the classes: AUROC of each class, left
out of training, against the nine others, on the test split.

    python benchmarks/anomaly.py                            models with a score, two densities
    python benchmarks/anomaly.py --models nice --seeds 0    any model with a score or a likelihood

Default networks and budgets on digits of 16x16 pixels and 17 levels, one CPU thread, a
``python -m zoo.fit --data.left_out=[c]`` for each class and seed, in runs/anomaly/MODEL-CLASS-SEED;
a folder that is finished is not run again, nor a row that is there scored again (--again does).
Rows are kept in results/anomaly.csv, anomaly.md is written from it.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from once import UNSEEN, Row, keep, kept, run, spread
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm.auto import tqdm

from zoo import registry
from zoo.check import Subject
from zoo.check.quiet import hush
from zoo.core import checkpoint
from zoo.core.draw import undisturbed
from zoo.core.noise import seeded
from zoo.metrics.auroc import auroc

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs") / "anomaly"
DATA = ["--data=digits", "--data.size=16", "--data.binarize=none"]
DENSITIES = ("pca", "vae")  # beside the models with a score of their own
CLASSES, DRAWS, COMPONENTS = 10, 20, 32
KEY = ("score", "left_out", "seed")
REFERENCES = {
    "nearest": "distance to the nearest training image",
    "components": f"error of {COMPONENTS} principal components",
    "mean": "distance to the mean of the training images",
}


def data_without(c: int) -> Any:
    data = Subject.of("kde", *DATA, f"--data.left_out=[{c}]").data()
    data.setup()
    return data


def detection(scores: Tensor, strange: Tensor) -> float:
    """AUROC as scikit-learn has it, which the zoo's own must agree with."""
    value = float(roc_auc_score(strange.numpy(), scores.double().numpy()))
    own = float(auroc(scores.double(), strange))
    assert abs(value - own) < 1e-9, f"roc_auc_score says {value}, zoo.metrics {own}"
    return value


def scores_of(model: Any, x: Tensor) -> dict[str, Tensor]:
    """By name, higher for stranger: the model's scores, or its negative log-likelihood or bound,
    the mean over draws of its noise.
    """
    name, can = model.entry.name, model.entry.can
    with undisturbed(model):
        if hasattr(model, "scores"):
            found = model.scores(x)
            return {name if k == "score" else f"{name}, {k}": v for k, v in found.items()}
        if "score" in can:
            return {name: model.score(x)}
        said, method = (
            ("log-likelihood", model.log_prob) if "log_prob" in can else ("elbo", model.elbo)
        )
        each = [method(x, generator=seeded(i, "anomaly")) for i in range(DRAWS)]
    return {f"{name}, negative {said}": -torch.stack(each).mean(0)}


def able(name: str) -> bool:
    entry = registry.entry(name)
    return not entry.told and bool({"score", "log_prob", "elbo"} & entry.can)


def rows_of(name: str, c: int, seed: int) -> list[Row]:
    folder = RUNS / f"{name}-{c}-{seed}"
    seconds = run(name, [*DATA, f"--data.left_out=[{c}]", UNSEEN], seed, folder)
    path = folder / "checkpoints" / "last.ckpt"
    model, test = checkpoint.load(path, ema=True), data_without(c).examples(split="test")
    steps = torch.load(path, weights_only=True)["global_step"]
    return [
        {
            "score": score,
            "left_out": c,
            "seed": seed,
            "auroc": detection(v, test["y"] == c),
            "model": name,
            "steps": steps,
            "seconds": seconds,
        }
        for score, v in scores_of(model, test["x"].to(model.float_dtype)).items()
    ]


def references(c: int) -> list[Row]:
    """What needs no training."""
    data = data_without(c)
    train, test = data.examples(), data.examples(split="test")
    a, b = (data.spec.to_unit(part["x"]).flatten(1).double() for part in (train, test))
    mean = a.mean(0)
    axes = torch.linalg.svd(a - mean, full_matrices=False)[2][:COMPONENTS].T
    left = (b - mean) - (b - mean) @ axes @ axes.T
    found = {
        "nearest": torch.cdist(b, a).min(1).values,
        "components": left.square().mean(1),
        "mean": (b - mean).norm(dim=1),
    }
    strange = test["y"] == c
    same = {"left_out": c, "seed": 0, "model": "", "steps": 0, "seconds": 0}
    return [
        {"score": REFERENCES[k], "auroc": detection(v, strange), **same} for k, v in found.items()
    ]


def write(rows: list[Row]) -> None:
    lines = [
        "# Strange digits",
        "",
        "AUROC of one class of digits (16x16, 17 levels), left out of training, against the nine "
        "others: the 180 test images, 15 to 23 of them of that class. Default networks, rates and "
        "steps, one CPU thread, last checkpoint; the vae's and pca's own defaults are of 8x8 "
        "pixels. Mean ± standard deviation over seeds; the last column is of the mean over "
        "classes. Of so few images an AUROC of .8 has a standard error of some .065 (Hanley and "
        "McNeil 1982) that the deviation over seeds leaves out, the mean of ten classes some .02. "
        f"A likelihood or bound is the mean of {DRAWS} draws of its noise. Seconds are of a shared "
        "machine. In italics: what needs no training.",
        "",
        "| score | steps | seconds | seeds | "
        + " | ".join(str(c) for c in range(CLASSES))
        + " | mean of classes |",
        "|---" * (CLASSES + 5) + "|",
    ]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["score"], []).append(row)

    def middle(score: str) -> float:
        return statistics.mean(float(r["auroc"]) for r in groups[score])

    for score in sorted(groups, key=middle, reverse=True):
        runs = groups[score]
        by_class = {
            c: [float(r["auroc"]) for r in runs if int(r["left_out"]) == c] for c in range(CLASSES)
        }
        seeds = sorted({int(r["seed"]) for r in runs})
        whole = [
            [float(r["auroc"]) for r in runs if int(r["seed"]) == seed] for seed in seeds
        ]  # of each seed
        means = [statistics.mean(v) for v in whole if len(v) == CLASSES]
        trained = runs[0]["model"] != ""
        seconds = statistics.mean(int(r["seconds"]) for r in runs)
        cells = [
            score.replace(runs[0]["model"], f"`{runs[0]['model']}`", 1)
            if trained
            else f"*{score}*",
            f"{int(runs[0]['steps']):,}" if trained else "",
            f"{seconds:.0f}" if trained else "",
            "-".join(sorted({str(len(v)) for v in by_class.values()})) if trained else "",
            *(spread(v, short) if v else "" for v in by_class.values()),
            f"**{spread(means, short)}**" if means else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    (RESULTS / "anomaly.md").write_text("\n".join(lines) + "\n")


def short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", help="instead of those with a score, pca and vae")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--classes", nargs="+", type=int, default=[*range(CLASSES)])
    parser.add_argument("--again", action="store_true", help="score what is in the table")
    args = parser.parse_args()
    hush()
    torch.set_num_threads(1)
    names = args.models or [*registry.list(can="score"), *DENSITIES]
    for name in names:
        if not able(name):
            raise SystemExit(f"{name} has neither a score nor a likelihood, or is told something")
    path = RESULTS / "anomaly.csv"
    rows = keep(path, [row for c in range(CLASSES) for row in references(c)], KEY)
    write(rows)
    runs = [(n, c, s) for s in args.seeds for n in names for c in args.classes]
    for name, c, seed in tqdm(runs):
        same = (name, str(c), str(seed))
        known = any((r["model"], r["left_out"], r["seed"]) == same for r in kept(path))
        if known and not args.again:
            continue
        write(keep(path, rows_of(name, c, seed), KEY))


if __name__ == "__main__":
    main()
