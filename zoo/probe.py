"""``python -m zoo.probe``: what the features of a trained model are good for.

    python -m zoo.probe --ckpt runs/vae-.../checkpoints/last.ckpt
    python -m zoo.probe --ckpt RUN_FOLDER --labels 1 10 all --seeds 20 --out probe.json

Linear probe: multinomial logistic regression on features standardised by the training split, its L2
strength chosen by cross-validation within the labelled part; beside it the same on raw pixels, on
as many principal components, and on the features of new random weights. Few labels: the model under
a linear head, all of it trained ("finetune"), the head alone ("frozen"), and all of it from new
weights ("scratch", the control), on the same examples for the same number of steps.

Labelled examples are the first n of each class in an order that the seed gives, so larger sets
contain smaller ones. Accuracies are on the run's validation split, from which nothing is chosen.
Where the data's factors are known, MIG and the FactorVAE score follow.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.looking import data_of, look, model_of
from zoo.pipes import quietly

STRENGTHS = [10.0**k for k in range(-3, 4)]  # sklearn's C, the inverse of the L2 weight
FOLDS = 5
ENCODERS = 5  # of random weights that are probed on all labels, the slowest fit of all
BATCH = 32  # of fine-tuning
SCORE_SEEDS = 5
Rows = list[dict[str, Any]]  # table, row, labels, mean, spread, values


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    said = "Classify with the features of a trained model."
    return look("probe", said, arguments, _options, _checked)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        nargs="+",
        default=["1", "2", "5", "10", "50", "all"],
        help="labelled examples of each class",
    )
    parser.add_argument("--seeds", type=int, default=10, help="labelled sets of the linear probe")
    parser.add_argument(
        "--tune_seeds",
        type=int,
        default=5,
        help="labelled sets of the fine-tuning; 0 leaves it out",
    )
    parser.add_argument(
        "--steps", type=int, default=200, help="optimiser steps of every mode of fine-tuning"
    )
    parser.add_argument(
        "--out", type=Path, help="also write the numbers, single seeds too, to a .json or .csv file"
    )


def _checked(args: argparse.Namespace) -> None:
    if args.seeds < 2 or args.tune_seeds < 0 or args.tune_seeds == 1 or args.steps < 1:
        raise ValueError(
            "--seeds is at least 2, --tune_seeds 0 or at least 2, --steps at least 1, "
            f"got {args.seeds}, {args.tune_seeds} and {args.steps}"
        )
    if args.out is not None and args.out.suffix not in (".json", ".csv"):
        raise ValueError(f"--out is a .json or a .csv file, got {args.out}")
    _probe(args, [_label(text) for text in args.labels])


def _label(text: str) -> int | None:
    """Labels a class; None is all of them."""
    if text != "all" and not (text.isdigit() and int(text) > 0):
        raise ValueError(f"--labels are numbers of examples of each class, or all; got {text!r}")
    return None if text == "all" else int(text)


def _probe(args: argparse.Namespace, sizes: Sequence[int | None]) -> None:
    from tqdm.auto import tqdm

    from zoo.core.transfer import extract

    model = model_of(args)
    data = data_of(args, model)
    train, val = data.examples(), data.examples(split="val")
    known = hasattr(data, "factor_names")
    if "x" not in train:
        raise ValueError(f"{data.spec.name} has no x to take features of; it has {data.spec}")
    if "y" not in train and not known:
        raise ValueError(
            f"{data.spec.name} has neither labels nor known factors; probe a run on labelled data "
            f"such as digits"
        )
    rows: Rows = []
    width = extract(model, val["x"][:2]).shape[1]
    print(f"{model.entry.name} on {data.spec.name}: {width} features")
    if "y" in train:
        for size in sizes:
            subset(
                train["y"], size, 0
            )  # an impossible size is an error before the work, not after it
        few = sum(size is not None for size in sizes)
        fits = 4 * args.seeds * few + (3 + min(args.seeds, ENCODERS)) * (len(sizes) - few)
        tuned, why = tuning_table(model, train, val, sizes, args.tune_seeds, args.steps)
        with tqdm(total=fits, desc="linear probe", leave=False) as bar:
            rows += _ticked(linear_table(model, train, val, sizes, args.seeds), bar)
        with tqdm(
            total=len(sizes) * args.tune_seeds * (1 if why else 3), desc="few labels", leave=False
        ) as bar:
            rows += _ticked(tuned, bar)
        print(
            f"accuracy in % on {len(val['x'])} validation examples, mean ± s.d. of the labelled "
            f"sets"
        )
        _print(
            f"linear probe, {args.seeds} sets", [r for r in rows if r["table"] == "linear"], sizes
        )
        if args.tune_seeds:
            _print(
                f"few labels, {args.steps} steps, {args.tune_seeds} sets",
                [r for r in rows if r["table"] == "few labels"],
                sizes,
            )
            _print(
                "paired difference ± s.e.", [r for r in rows if r["table"] == "difference"], sizes
            )
            if why:
                print(f"\n{why}")
    if known:
        rows += (found := disentanglement(model, data))
        print(
            f"\ndisentanglement on the whole grid of {len(data)} images"
            + ("" if found else f": {model.entry.name} has no code")
        )
        for r in found:
            print(
                f"  {r['row']:<20} {r['mean']:6.3f}"
                + (
                    f" ± {r['spread']:.3f}, {len(r['values'])} seeds"
                    if len(r["values"]) > 1
                    else ""
                )
            )
    if args.out is not None:
        _write(args, model, data, rows)


# -- protocol ------------------------------------------------------------------------------------
def subset(y: Any, size: int | None, seed: int) -> Any:
    """Rows of the labelled examples: the first ``size`` of each class in the order of this seed, or
    all.
    """
    import torch

    from zoo.core.noise import seeded

    chosen = []
    for c in y.unique().tolist():
        of = torch.nonzero(y == c)[:, 0]
        if size is not None and size > len(of):
            raise ValueError(
                f"--labels {size} is too many: class {c} has {len(of)} training examples; leave "
                f"it out or take all"
            )
        chosen.append(of[torch.randperm(len(of), generator=seeded(seed, "labelled", c))][:size])
    return torch.cat(chosen)


def fit_probe(h: Any, y: Any, seed: int = 0) -> Any:
    """Logistic regression on standardised features h (N, F), C chosen by cross-validation on these
    rows alone: of equals the smallest, and 1 where a class has a single example."""
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    from zoo.core import threads

    folds = min(FOLDS, int(np.unique(y, return_counts=True)[1].min()))
    with warnings.catch_warnings(), threads.as_torch():
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = 1.0
        if folds > 1:
            right = np.zeros(len(STRENGTHS))
            for learn, check in StratifiedKFold(folds, shuffle=True, random_state=seed).split(h, y):
                probe = LogisticRegression(max_iter=100, warm_start=True)
                for i, c in enumerate(
                    STRENGTHS
                ):  # each from the solution of the stronger penalty before it
                    right[i] += (
                        probe.set_params(C=c).fit(h[learn], y[learn]).predict(h[check]) == y[check]
                    ).sum()
            best = STRENGTHS[int(right.argmax())]
        return LogisticRegression(C=best, max_iter=500).fit(h, y)


def probe_accuracy(
    train: Any, y: Any, val: Any, y_val: Any, rows: Any, seed: int = 0, together: bool = False
) -> float:
    """Accuracy on (val, y_val) of a probe on the given rows of (train, y), all standardised by the
    whole of ``train``.

    Args:
        together: one scale for all features, for principal components, whose last ones would
            otherwise be magnified noise.
    """
    import torch

    mean, std = train.double().mean(0), train.double().std(0)
    if together:
        std = std.square().mean().sqrt().expand(len(std))
    std = torch.where(std > 0, std, 1.0)
    a, b = ((h.double() - mean) / std for h in (train[rows], val))
    # A penalised solution lies in the span of its examples: the same problem in fewer dimensions.
    if len(a) < a.shape[1]:
        basis = torch.linalg.qr(a.T)[0]
        a, b = a @ basis, b @ basis
    a, b = a.float().numpy(), b.float().numpy()
    return float((fit_probe(a, y[rows].numpy(), seed).predict(b) == y_val.numpy()).mean())


def linear_table(
    model: Any, train: Any, val: Any, sizes: Sequence[int | None], seeds: int
) -> Iterator[dict[str, Any] | None]:
    """The linear probe's rows; None after each accuracy, for a progress bar."""
    from zoo.core.transfer import extract, fresh

    x, x_val = train["x"], val["x"]
    pair = extract(model, x), extract(model, x_val)
    width = pair[0].shape[1]
    components = _principal(x.flatten(1), x_val.flatten(1), width)
    pca = f"PCA-{components[0].shape[1]}"
    given = {model.entry.name: pair, "raw data": (x.flatten(1), x_val.flatten(1)), pca: components}
    for name, (h, h_val) in given.items():
        for size in sizes:
            values: list[float] = []
            for seed in range(seeds if size is not None else 1):  # all labels are one set
                labelled = subset(train["y"], size, seed)
                values.append(
                    probe_accuracy(
                        h, train["y"], h_val, val["y"], labelled, seed, together=name == pca
                    )
                )
                yield None
            yield _row("linear", name, size, values)
    found: dict[int | None, list[float]] = {size: [] for size in sizes}
    for seed in range(seeds):
        other = fresh(model, seed, train)
        h, h_val = extract(other, x), extract(other, x_val)
        for size in sizes if seed < ENCODERS else [s for s in sizes if s is not None]:
            found[size].append(
                probe_accuracy(h, train["y"], h_val, val["y"], subset(train["y"], size, seed), seed)
            )
            yield None
    for size in sizes:
        yield _row("linear", "random weights", size, found[size])


def tuning_table(
    model: Any, train: Any, val: Any, sizes: Sequence[int | None], seeds: int, steps: int
) -> tuple[Iterable[dict[str, Any] | None], str]:
    """The rows of the three modes and of their paired differences; what is left out, and why."""
    from zoo.core.transfer import MODES, Classifier, fit_classifier

    classes = int(train["y"].max()) + 1
    modes: tuple[str, ...] = MODES
    why = ""
    try:
        Classifier(model, classes)
    except ValueError as error:
        modes, why = ("frozen",), f"{error}"

    def rows() -> Iterator[dict[str, Any] | None]:
        for size in sizes if seeds else ():
            found: dict[str, list[float]] = {mode: [] for mode in modes}
            for seed in range(seeds):
                labelled = subset(train["y"], size, seed)
                x, y = train["x"][labelled], train["y"][labelled]
                for mode in modes:
                    initial = train if mode == "scratch" else None
                    classifier = fit_classifier(
                        model,
                        x,
                        y,
                        classes,
                        mode,
                        steps=steps,
                        batch_size=BATCH,
                        seed=seed,
                        initial=initial,
                    )
                    found[mode].append(classifier.accuracy(val["x"], val["y"]))
                    yield None
            for mode in modes:
                yield _row("few labels", mode, size, found[mode])
            for mode in modes if "scratch" in modes else ():
                if mode != "scratch":
                    gain = [a - b for a, b in zip(found[mode], found["scratch"], strict=True)]
                    yield _row("difference", f"{mode} - scratch", size, gain, standard_error=True)

    return rows(), why


def disentanglement(model: Any, data: Any) -> Rows:
    """MIG, by both estimators where there is a posterior, and the FactorVAE score of the code over
    the whole grid of factors.
    """
    import torch

    from zoo.core.draw import undisturbed
    from zoo.core.transfer import extract
    from zoo.metrics.disentanglement import factor_vae_score, mig_discrete, mig_q

    if "encode" not in model.entry.can:
        return []
    x, factors = data.grid()
    codes = extract(model, x)
    found = [_row("disentanglement", "mig_discrete", None, [mig_discrete(codes, factors)])]
    if getattr(model, "gaussian", False) and not model.told:
        with undisturbed(model):
            parts = [model.posterior(p.to(model.device, model.float_dtype)) for p in x.split(512)]
        if all(
            isinstance(p, tuple) and len(p) == 2 and p[0].shape == p[1].shape and p[0].ndim == 2
            for p in parts
        ):
            mu, log_var = (torch.cat([p[i].cpu() for p in parts]) for i in range(2))
            found.append(
                _row(
                    "disentanglement",
                    "mig_q",
                    None,
                    [mig_q(mu, log_var, factors, seed=s) for s in range(SCORE_SEEDS)],
                )
            )
    scores = [factor_vae_score(codes, factors, seed=s) for s in range(SCORE_SEEDS)]
    return [*found, _row("disentanglement", "factor_vae_score", None, scores)]


def _principal(x: Any, x_val: Any, width: int) -> list[Any]:
    """The first principal components of x, at most ``width``, of both."""
    import torch

    mean = x.double().mean(0)
    _, _, directions = torch.linalg.svd(x.double() - mean, full_matrices=False)
    return [(part.double() - mean) @ directions[:width].T for part in (x, x_val)]


# -- output --------------------------------------------------------------------------------------
def _row(
    table: str, row: str, size: int | None, values: list[float], standard_error: bool = False
) -> dict[str, Any]:
    mean = math.fsum(values) / len(values)
    spread = (
        math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
        if len(values) > 1
        else 0.0
    )
    if standard_error:
        spread /= math.sqrt(len(values))
    return {
        "table": table,
        "row": row,
        "labels": "all" if size is None else size,
        "mean": mean,
        "spread": spread,
        "values": values,
    }


def _ticked(rows: Iterable[dict[str, Any] | None], bar: Any) -> Rows:
    found = []
    for row in rows:
        if row is None:
            bar.update()
        else:
            found.append(row)
    return found


def _print(title: str, rows: Rows, sizes: Sequence[int | None]) -> None:
    if not rows:
        return
    columns = ["all" if size is None else size for size in sizes]
    names = [*dict.fromkeys(r["row"] for r in rows)]
    left = max(len(n) for n in (*names, title)) + 2
    print(
        f"\n{title:<{left}}"
        + "".join(f"{c if c == 'all' else f'{c} a class':>14}" for c in columns)
    )
    for name in names:
        cells = {r["labels"]: r for r in rows if r["row"] == name}
        sign = "+" if rows[0]["table"] == "difference" else ""
        print(f"{name:<{left}}" + "".join(f"{_cell(cells[c], sign):>14}" for c in columns))


def _cell(row: dict[str, Any], sign: str) -> str:
    spread = f"{100 * row['spread']:4.1f}" if len(row["values"]) > 1 else "   -"
    return f"{100 * row['mean']:{sign}.1f} ± {spread}"


def _write(args: argparse.Namespace, model: Any, data: Any, rows: Rows) -> None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "model": model.entry.name,
        "data": data.spec.name,
        "checkpoint": str(args.ckpt),
        "steps": args.steps,
    }
    with args.out.open("w", newline="") as file:
        if args.out.suffix == ".json":
            json.dump({**about, "rows": rows}, file, indent=1)
        else:
            writer = csv.DictWriter(file, [*about, *rows[0]])
            writer.writeheader()
            writer.writerows(
                {**about, **row, "values": " ".join(f"{v:.6g}" for v in row["values"])}
                for row in rows
            )
    print(f"\n{args.out}")


if __name__ == "__main__":
    sys.exit(quietly(main))
