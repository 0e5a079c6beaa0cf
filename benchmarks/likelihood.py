"""Likelihoods in one table: models trained under a stated budget, on the test split, with what kind
of number each is.

    python benchmarks/likelihood.py digits                                     default runs of every
    model with a likelihood, seeds 0 1 2
    python benchmarks/likelihood.py race --seeds 0 1 2                         three minutes of
    MNIST each, freshly binarised
    python benchmarks/likelihood.py mnist --binarize fixed --minutes 5         MNIST rows; also
    stochastic, none (8 bits)
    python benchmarks/likelihood.py digits --models made nade --seeds 0        a part

Every run is a ``python -m zoo.fit`` in a process of its own; the command line stands in the table.
MNIST is read from --data (a folder torchvision reads) or ZOO_DATA. Rows are kept in
results/NAME.csv, NAME.md is written from it; a row that is there is not run again (--again does).
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from zoo import registry
from zoo.bases import Variational
from zoo.core import Image, checkpoint
from zoo.core.draw import draw, undisturbed
from zoo.core.likelihood import bits_per_dim
from zoo.looking import data_in
from zoo.metrics import FrechetDistance, choose
from zoo.standards import HALF, SPREAD, trivial

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "model options data seed kind nats iw_nats bits_per_dim fid parameters steps seconds threads"
).split()
DRAWS = {
    "digits": 500,
    "mnist": 200,
}  # of z, in the importance-weighted bound of models with latent variables
SAMPLES = 1500  # scored by the small feature network, against the training split
QUIET = [
    "--wandb.mode=disabled",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
UNSCORED = [
    "--trainer.limit_val_batches=0",
    "--latent_space.enabled=false",
    "--memorisation.enabled=false",
    "--sample_grid.every_n_steps=100000000",
]  # all of the time goes into training
MNIST: dict[
    str, list[str]
    # what differs from the defaults at 784 dimensions; averaged weights where they help
    # within minutes
] = {
    "fvsbn": ["--model.lr=2e-3", "--data.batch_size=100", "--ema.decay=0.999"],
    "nade": [
        "--model.hidden=100",
        "--model.lr=1.5e-2",
        "--data.batch_size=32",
        "--ema.decay=0.999",
    ],
    "made": [
        "--model.hidden=1000",
        "--model.lr=5e-3",
        "--data.batch_size=100",
        "--trainer.callbacks=callbacks.LinearDecay",  # the rate ends with the time
        "--trainer.callbacks.hold=0.4",
    ],
    "pixelcnn": ["--data.batch_size=32", "--ema.decay=0.99"],
    "gated_pixelcnn": ["--model.conditional=false", "--data.batch_size=32", "--ema.decay=0.99"],
    "vae": [
        "--model.latent=25",
        "--model.width=400",
        "--model.init=xavier",
        "--model.warmup_steps=2000",
        "--data.batch_size=100",
        "--ema.decay=0.999",
    ],
    "iaf_vae": [
        "--model.latent=25",
        "--model.width=400",
        "--model.hidden=400",
        "--model.context=100",
        "--model.free_bits=0.2",
        "--data.batch_size=100",
        "--ema.decay=0.999",
    ],
    "rbm": ["--model.hidden=200", "--model.decay_steps=30000", "--data.batch_size=100"],
    "realnvp": ["--model.width=32", "--data.batch_size=32"],
    "nice": ["--model.hidden=500", "--data.batch_size=100"],
}
OTHER_DATA = {
    "digits": [],
    "factor_grid": ["--data=digits", "--data.binarize=threshold"],
}  # to put a model's default run on digits
EIGHT_BITS = ["realnvp", "nice"]  # the others are run on binary images


def compared() -> list[str]:
    """Models with a likelihood, and the hybrids, whose samples are compared."""
    return [e.name for e in registry.entries() if e.likelihood != "none" or e.family == "hybrid"]


def train(name: str, options: list[str], seed: int, threads: int) -> dict[str, Any]:
    """One run in a process of its own, then the test split's mean."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = [
            sys.executable,
            "-m",
            "zoo.fit",
            "--model",
            name,
            *options,
            f"--seed_everything={seed}",
            f"--run_dir={folder}",
        ]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, *QUIET, f"--threads={threads}"], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        path = folder / "checkpoints" / "last.ckpt"
        model, data = checkpoint.load(path, ema=True), data_in(folder)
        steps = torch.load(path, weights_only=True)["global_step"]
        row = {
            "model": name,
            "data": model.spec.name,
            "seed": seed,
            "seconds": round(seconds),
            "steps": steps,
            "threads": threads,
        }
        return row | score(model, data)


@torch.no_grad()
def score(model: Any, data: Any, rows: int = 200) -> dict[str, Any]:
    """Means over the test split, summed in float64: the likelihood or its bound, and the
    importance-weighted bound of models with latent variables; and the distance of samples to the
    training split."""
    spec, can, digits = model.spec, model.entry.can, data.spec.name.startswith("digits")
    method = model.log_prob if "log_prob" in can else model.elbo if "elbo" in can else None
    size, sums = data.count("test"), {"nats": 0.0, "iw_nats": 0.0}
    weighted = isinstance(model, Variational) and "stochastic" not in spec.name
    with undisturbed(model):
        for start in tqdm(range(0, size, rows), desc="test split", leave=False, disable=digits):
            batch = data.examples(rows, split="test", start=start)
            told = model.told_in(batch)
            if method is not None:
                sums["nats"] += method(batch["x"], **told).double().sum().item()
            if weighted:
                bound = model.importance_bound(
                    batch["x"], DRAWS["digits" if digits else "mnist"], chunk=10, **told
                )
                sums["iw_nats"] += bound.double().sum().item()
    nats = sums["nats"] / size
    given = " given the label" if model.told else ""
    return {
        "kind": "none" if method is None else model.likelihood_kind + given,
        "nats": "" if method is None else nats,
        "iw_nats": sums["iw_nats"] / size if weighted else "",
        "bits_per_dim": float(bits_per_dim(torch.tensor(nats), spec.dim))
        if spec.has(x=Image) and method is not None
        else "",
        "fid": distance(model, data) if digits and "sample" in can else "",
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def distance(model: Any, data: Any) -> float:
    """Fréchet distance of samples to the training split in the small network's features; labels are
    drawn from the split's.
    """
    extractor, train = choose("datanet", data, progress=False), data.examples()
    g = torch.Generator().manual_seed(0)
    rows = torch.randint(train.n, (SAMPLES,), generator=g)
    told = {name: train[name][rows] for name in model.told}
    metric = FrechetDistance(extractor.dim)
    for x, real in ((train["x"], True), (draw(model, SAMPLES, told=told), False)):
        metric.update(extractor(x, data.spec)[0], real=real)
    return float(metric.compute())


def write(name: str, title: str, rows: list[dict[str, Any]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["model"], row["options"]), []).append(row)
    lines = [
        f"# {title}",
        "",
        f"Test split, mean over seeds (each seed after it). "
        f"{platform.processor() or platform.machine()}, CPU.",
        "",
    ]
    lines += [
        "| data | model | nll, nats | importance-weighted | bits/dim | kind | FID, small network "
        "| parameters | steps | seconds "
        "| differs from the default |",
        "|---" * 11 + "|",
    ]
    for (data, model, options), runs in sorted(
        groups.items(), key=lambda g: (g[0][0], _mean(g[1], "bits_per_dim"))
    ):
        each = " / ".join(f"{-float(r['nats']):.2f}" for r in runs if r["nats"] != "")
        nats = f"{-_mean(runs, 'nats'):.2f} ({each})" if each else ""
        bits = "" if runs[0]["bits_per_dim"] == "" else f"{_mean(runs, 'bits_per_dim'):.4f}"
        weighted = "" if not runs[0].get("iw_nats") else f"{-_mean(runs, 'iw_nats'):.2f}"
        fid = "" if not runs[0].get("fid") else f"{_mean(runs, 'fid'):.2f}"
        seconds = (
            "-".join(str(f(int(r["seconds"]) for r in runs)) for f in (min, max))
            if len(runs) > 1
            else str(runs[0]["seconds"])
        )
        said = f"`{options}`" if options else ""
        lines.append(
            f"| {data} | `{model}` | {nats} | {weighted} | {bits} | "
            f"{runs[0]['kind'].replace('_', ' ')} | {fid} "
            f"| {int(runs[0]['parameters']):,} "
            f"| {statistics.mean(int(r['steps']) for r in runs):,.0f} | {seconds} | {said} |"
        )
    for data in sorted({data for data, *_ in groups}):
        lines += references(data)
    if any(trivial(data) for data, *_ in groups):
        lines += [
            "",
            "In italics: the data themselves, and samplers and densities that know next to "
            "nothing ([trivial.py](../trivial.py)); the Gaussian's nats are its dequantised bound, "
            "those of independent pixels come from each pixel's frequencies.",
        ]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")


def references(data: str) -> list[str]:
    """Rows of the data themselves and of what knows next to nothing."""
    lines = []
    for name, values in trivial(data).items():
        nats, fid = values.get("test/nll_nats"), values.get("val/fid_digitsnet")
        bits = values.get("test/bits_per_dim")
        if name == SPREAD or (nats is None and fid is None):
            continue
        spread = trivial(data)[SPREAD].get("val/fid_digitsnet") if name == HALF else None
        cells = [
            data,
            f"*{name}*",
            "" if nats is None else f"{nats:.2f}",
            "",
            "" if bits is None else f"{bits:.4f}",
            "",
            ("" if fid is None else f"{fid:.2f}") + ("" if spread is None else f" ± {spread:.2f}"),
        ]
        lines.append(f"| {' | '.join(cells)} | | | | |")
    return lines


def _mean(runs: list[dict[str, Any]], column: str) -> float:
    return (
        statistics.mean(float(r[column]) for r in runs) if runs[0][column] != "" else float("inf")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["digits", "race", "mnist"])
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--binarize", default="fixed", choices=["fixed", "stochastic", "none"])
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, of MNIST runs")
    parser.add_argument("--data", help="folder of MNIST")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    name = args.what if args.what != "mnist" else f"mnist_{args.binarize.replace('none', '8bit')}"
    known = RESULTS / f"{name}.csv"

    def read() -> list[dict[str, Any]]:
        return [*csv.DictReader(known.open())] if known.is_file() else []

    if args.what == "digits":
        models, seeds, title = (
            args.models or compared(),
            args.seeds or [0, 1, 2],
            "Explicit models and hybrids on digits, default runs",
        )
    else:
        chosen = (
            EIGHT_BITS if args.binarize == "none" else [m for m in MNIST if m not in EIGHT_BITS]
        )
        models = args.models or (
            ["made", "nade", "fvsbn", "vae"] if args.what == "race" else chosen
        )
        seeds = args.seeds or [0]
        title = (
            "Three minutes of MNIST"
            if args.what == "race"
            else f"MNIST, {args.binarize} binarisation".replace("none binarisation", "8 bits")
        )
    for model, seed in tqdm([(m, s) for m in models for s in seeds]):
        options = OTHER_DATA.get(registry.entry(model).data, ["--data=digits"])
        if args.what != "digits":
            binarize = "stochastic" if args.what == "race" else args.binarize
            limit = f"00:00:{int(args.minutes):02d}:{round(args.minutes % 1 * 60):02d}"
            options = [
                *MNIST.get(model, []),
                "--data=mnist",
                f"--data.binarize={binarize}",
                f"--trainer.max_time={limit}",
            ]
        shown = " ".join(options)
        if not args.again and any(
            r["model"] == model and int(r["seed"]) == seed and r["options"] == shown for r in read()
        ):
            continue
        place = [f"--data.root={args.data}"] if args.data and args.what != "digits" else []
        extra = [*UNSCORED, *([] if args.what == "digits" else ["--trainer.max_steps=-1"])]
        row = train(
            model, [*options, *place, *extra], seed, args.threads if args.what != "digits" else 1
        ) | {"options": shown}
        rows = [
            r for r in read() if (r["model"], int(r["seed"]), r["options"]) != (model, seed, shown)
        ] + [row]
        write(name, title, rows)
        print(
            ", ".join(
                f"{k} {row[k]}"
                for k in ("model", "seed", "kind", "nats", "bits_per_dim", "steps", "seconds")
            )
        )


if __name__ == "__main__":
    main()
