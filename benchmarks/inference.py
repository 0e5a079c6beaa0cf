"""Models that infer codes: whether the digit comes back from its code, and what the code knows.

    python benchmarks/inference.py                          games and hybrids, and three yardsticks
    python benchmarks/inference.py --models gmvae iaf_vae    any that encodes and reconstructs

Default networks and budgets on digits of 16x16 pixels and 17 levels, three seeds, one CPU thread; a
``python -m zoo.fit`` each, in runs/inference/MODEL-SEED; a folder that is finished is not run
again, nor a row that is there scored again (--again does). Rows are kept in results/inference.csv,
inference.md is written from it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from once import UNSEEN, Row, keep, kept, run, spread
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from zoo import registry
from zoo.check import Subject
from zoo.check.quiet import hush
from zoo.core import checkpoint
from zoo.core.draw import undisturbed
from zoo.core.noise import seeded
from zoo.metrics import choose

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs") / "inference"
DATA = ["--data=digits", "--data.size=16", "--data.binarize=none"]
BESIDE = ("autoencoder", "pca", "vae")
KEY = ("model", "latent", "seed")
MEASURED = ("error", "permuted", "same", "nearest", "probe")
SEARCHES = {"anogan": ["--data.left_out=[]"]}  # its default run leaves a class out
MARKS = {"anogan": "¹", "cvae_gan": "²"}


def able(name: str) -> bool:
    """Whether the model has a code of an example, by an encoder or by search, and makes an example
    of it."""
    entry = registry.entry(name)
    codes = "encode" in entry.can or hasattr(registry.get(name), "search")
    return entry.makes == ("x",) and "reconstruct" in entry.can and codes


def usual() -> list[str]:
    """Games and hybrids whose default run is on digits and whose codes are their generator's."""
    found = [
        e.name
        for e in registry.entries()
        if e.family in ("gan", "hybrid")
        and e.data == "digits"
        and able(e.name)
        and ("decode" in e.can or "encode" not in e.can)
    ]
    return [*found, *BESIDE]


def codes(model: Any, x: Tensor) -> Tensor:
    """The code that stands for each example, without noise and without its label."""
    with undisturbed(model):
        return (model.encode if "encode" in model.entry.can else model.search)(x).flatten(1)


def errors(made: Tensor, x: Tensor) -> dict[str, float]:
    """Squared error a pixel of reconstructions of images in [0, 1], (N, D) each; and with those of
    another image's code, the mean over all pairs."""
    every = torch.cdist(made.double(), x.double()).square() / x.shape[1]
    own, n = every.diagonal(), len(x)
    other = (every.sum() - own.sum()) / (n * (n - 1))
    return {"error": float(own.mean()), "permuted": float(other)}


def known(train: Tensor, y: Tensor, test: Tensor, of_test: Tensor) -> dict[str, float]:
    """Accuracy of the nearest training code's class, and of a linear probe on standardised
    codes."""
    nearest = KNeighborsClassifier(1)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    a, b = train.double().numpy(), test.double().numpy()
    return {
        name: float(judge.fit(a, y.numpy()).score(b, of_test.numpy()))
        for name, judge in (("nearest", nearest), ("probe", probe))
    }


class Judge:
    """The class that the small network of the data sees in images in [0, 1], (N, D)."""

    def __init__(self, data: Any) -> None:
        self.net, self.spec = choose("datanet", data, progress=False), data.spec

    def accuracy(self, v: Tensor, y: Tensor) -> float:
        x = self.spec.from_unit(v.float()).view(len(v), *self.spec.shape)
        return float((self.net(x, self.spec)[1].argmax(1) == y).double().mean())


def row_of(name: str, seed: int, data: Any, judge: Judge) -> Row:
    folder = RUNS / f"{name}-{seed}"
    seconds = run(name, [*DATA, *SEARCHES.get(name, []), UNSEEN], seed, folder)
    path = folder / "checkpoints" / "last.ckpt"
    model = checkpoint.load(path, ema=True)
    train, test = data.examples(), data.examples(split="test")
    a, b = (part["x"].to(model.float_dtype) for part in (train, test))
    start = time.perf_counter()
    of_train = codes(model, a)
    each = (time.perf_counter() - start) / len(a)
    with undisturbed(model):
        made = model.reconstruct(b)
    made, real = (data.spec.to_unit(v).flatten(1) for v in (made, b))
    return {
        "model": name,
        "latent": of_train.shape[1],
        "seed": seed,
        **errors(made, real),
        "same": judge.accuracy(made, test["y"]),
        **known(of_train, train["y"], codes(model, b), test["y"]),
        "steps": torch.load(path, weights_only=True)["global_step"],
        "seconds": seconds,
        "ms": f"{1000 * each:.3f}",
    }


def references(
    latents: set[int], data: Any, judge: Judge, seeds: tuple[int, ...] = (0, 1, 2)
) -> list[Row]:
    """What needs no training: the mean, all pixels, and as many principal components or random
    directions as a model has codes.
    """
    train, test = data.examples(), data.examples(split="test")
    a, b = (data.spec.to_unit(part["x"]).flatten(1).double() for part in (train, test))
    mean = a.mean(0)
    axes = torch.linalg.svd(a - mean, full_matrices=False)[2].T

    def row(model: str, seed: int, latent: int, basis: Tensor | None, found: Row) -> Row:
        """Of an orthonormal basis of what is kept, (D, latent)."""
        found = dict.fromkeys(MEASURED, "") | found
        if basis is not None:
            of_train, of_test = ((v - mean) @ basis for v in (a, b))
            made = of_test @ basis.T + mean
            found |= errors(made, b) | {"same": judge.accuracy(made, test["y"])}
            found |= known(of_train, train["y"], of_test, test["y"])
        same = {"model": model, "latent": latent, "seed": seed}
        return {**same, **found, "steps": 0, "seconds": 0, "ms": ""}

    flat = mean.expand_as(b)
    of_mean = errors(flat, b) | {"same": judge.accuracy(flat, test["y"])}
    of_pixels = known(a, train["y"], b, test["y"]) | {"same": judge.accuracy(b, test["y"])}
    rows = [row("mean image", 0, 0, None, of_mean)]
    rows.append(row("all pixels", 0, a.shape[1], None, of_pixels))
    for latent in sorted(n for n in latents if n < a.shape[1]):
        rows.append(row("principal components", 0, latent, axes[:, :latent], {}))
        for seed in seeds:
            draw = torch.randn(
                a.shape[1], latent, generator=seeded(seed, "random projection"), dtype=a.dtype
            )
            rows.append(row("random projection", seed, latent, torch.linalg.qr(draw)[0], {}))
    return rows


def write(rows: list[Row], path: Path) -> None:
    lines = [
        "# Codes of digits",
        "",
        "16x16 digits, 17 levels; default networks, rates and steps, last checkpoint, one CPU "
        "thread; mean ± standard deviation over seeds, on the 180 test images. The own defaults of "
        "`aae`, `autoencoder`, `bigan`, `pca` and `vae` are of 8x8 pixels (the vae's binary). "
        "Error: squared error a pixel of images in [0, 1]; of another: with the reconstructions of "
        "the other test images; class: the share of reconstructions in which the small network of "
        "`val/fid_digitsnet` sees the image's class. 1-NN: the class of the nearest of 1,437 "
        "training codes; probe: logistic regression on standardised codes. Codes are without "
        "noise, and no label is given. An accuracy of .95 of 180 images has a standard error of "
        ".016 that the deviation over seeds leaves out. Seconds are of a shared machine. In "
        "italics: what needs no training.",
        "",
        "| model | code | seeds | error | of another | class | 1-NN | probe | steps | seconds "
        "| ms a code |",
        "|---" * 11 + "|",
    ]
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], int(row["latent"])), []).append(row)

    def place(key: tuple[str, int]) -> tuple[bool, float, float]:
        runs = groups[key]
        trained = int(runs[0]["steps"]) > 0
        if not trained:
            return True, {"mean image": 0, "all pixels": 1}.get(key[0], 2 + key[1]), len(runs)
        return False, statistics.mean(float(r["error"]) for r in runs), 0.0

    for name, latent in sorted(groups, key=place):
        runs = groups[name, latent]
        trained = int(runs[0]["steps"]) > 0
        cells = [f"`{name}`{MARKS.get(name, '')}" if trained else f"*{name}*"]
        cells += [str(latent) if latent else "", str(len(runs))]
        for column in MEASURED:
            values = [float(r[column]) for r in runs if r[column] != ""]
            places = 4 if column in ("error", "permuted") else 3
            cells.append(spread(values, lambda v, p=places: _short(v, p)) if values else "")
        if trained:
            seconds = statistics.mean(int(r["seconds"]) for r in runs)
            each = statistics.mean(float(r["ms"]) for r in runs)
            cells += [f"{int(runs[0]['steps']):,}", f"{seconds:.0f}", f"{each:.2g}"]
        else:
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "¹ By search, 100 steps of Adam on each code. ² Learns from the labels: its own classifier "
        "says the class, and the code what the class does not.",
    ]
    path.write_text("\n".join(lines) + "\n")


def _short(value: float, places: int) -> str:
    said = f"{value:.{places}f}"
    return said[1:] if said.startswith("0.") else said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", help="instead of the usual ones")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="score what is in the table")
    args = parser.parse_args()
    hush()
    torch.set_num_threads(1)
    names = args.models or usual()
    for name in names:
        if not able(name):
            raise SystemExit(f"{name} has no code of an image, or makes no image of one")
    data = Subject.of("kde", *DATA).data()
    data.setup()
    judge = Judge(data)
    table, page = RESULTS / "inference.csv", RESULTS / "inference.md"
    for seed, name in tqdm([(s, n) for s in args.seeds for n in names]):
        there = any((r["model"], r["seed"]) == (name, str(seed)) for r in kept(table))
        if there and not args.again:
            continue
        write(keep(table, [row_of(name, seed, data, judge)], KEY), page)
    latents = {int(r["latent"]) for r in kept(table) if int(r["steps"])}
    write(keep(table, references(latents, data, judge), KEY), page)


if __name__ == "__main__":
    main()
