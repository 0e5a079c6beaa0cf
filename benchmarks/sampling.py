"""Cached sampling against naive ancestral sampling: the same model, weights, noise and batch,
eager, in one interleaved run.

    python benchmarks/sampling.py                      all cases; writes results/sampling.md and
    .csv
    python benchmarks/sampling.py --only pixelcnn      those whose name contains it
    python benchmarks/sampling.py --whole              also run the naive sampler to its end where
    it takes under five minutes

Naive sampling is D full passes over the image (a pixel's channels are drawn together by
pixelcnn_pp: H W passes). Its time is D times the median of forward passes that are timed between
the repeats of the cached sampler; --whole checks that product. Both sides use the process's malloc
setting, which the table states, and the same number of threads.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo import registry
from zoo.core import DataSpec

RESULTS = Path(__file__).parent / "results"
COLUMNS = "case shape parameters batch forward_s naive_s cached_s ratio bar forwards".split()


@dataclass
class Case:
    """A model, its size, and how many times quicker than naive its cache should be; ``bar`` 0 is
    only reported.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 16
    bar: float = 0
    shape: tuple[int, int, int] = (1, 28, 28)
    levels: int = 2
    note: str = ""


CASES = [
    Case("fvsbn"),
    Case("nade", {"hidden": 500}),
    Case("made", {"hidden": 8000, "direct": False}, bar=40),
    Case("pixelcnn", {"n": 6, "h": 24, "head": 112}, bar=35),
    Case("pixelcnn", {"n": 2, "h": 8, "head": 56}, batch=64, bar=60, note="small"),
    Case("pixelcnn", {"n": 2, "h": 8, "head": 56}, note="small"),
    Case("gated_pixelcnn", {"n": 10, "p": 125, "head": 96, "conditional": False}, bar=100),
    Case("pixelcnn_pp", bar=10, shape=(1, 32, 32), levels=256),
    Case("pixelcnn_pp", bar=10, shape=(3, 32, 32), levels=256),
    Case("pixelrnn", {"variant": "row_lstm"}, bar=10),
    Case("pixelrnn", {"variant": "diagonal_bilstm"}, bar=10),
    Case("multiscale_pixelrnn"),
]


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.no_grad()
def measure(case: Case, repeats: int, whole: bool) -> dict[str, Any]:
    spec = DataSpec(case.shape, case.levels)
    torch.manual_seed(0)
    model = registry.create(case.name, spec, **case.options).eval()
    x = torch.randint(case.levels, (case.batch, *case.shape)).float()
    forward = (
        (lambda: model.parameters_of(x, None))
        if case.name == "pixelcnn_pp"
        else (lambda: model.conditionals(x))
    )

    def draw(cache):
        return model.sample(case.batch, generator=torch.Generator().manual_seed(0), cache=cache)

    passes = spec.dim if case.name != "pixelcnn_pp" else spec.dim // spec.shape[0]
    forward(), draw(True)
    forwards, cached = [], []
    for _ in range(repeats):
        forwards += [seconds(forward) for _ in range(2)]
        cached.append(seconds(lambda: draw(True)))
    one, fast = statistics.median(forwards), statistics.median(cached)
    row = {
        "case": case.name
        + "".join(f" {k}={v}" for k, v in case.options.items())
        + (f" ({case.note})" if case.note else ""),
        "shape": "x".join(map(str, case.shape)) + f", {case.levels} levels",
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": case.batch,
        "forward_s": one,
        "naive_s": passes * one,
        "cached_s": fast,
        "ratio": passes * one / fast,
        "bar": case.bar,
        "forwards": fast / one,
    }
    if whole and row["naive_s"] < 300:
        print(
            f"  naive run to its end: {seconds(lambda: draw(False)):.2f} s, {passes} forwards: "
            f"{row['naive_s']:.2f} s"
        )
    return row


@torch.no_grad()
def nade(repeats: int = 5) -> list[str]:
    """What nade promises: sampling linear in D, and a likelihood without a loop."""
    times = {}
    for side in (28, 40):  # D = 784 and 1600
        model = registry.create("nade", DataSpec((1, side, side), 2), hidden=500).eval()
        times[side] = statistics.median(
            seconds(lambda m=model: m.sample(16)) for _ in range(repeats)
        )
    growth = times[40] / times[28] / (1600 / 784)
    spec, out = DataSpec((1, 28, 28), 2), {}
    x = torch.randint(2, (16, 1, 28, 28)).float()
    for chunk in (16, 1):
        torch.manual_seed(0)
        model = registry.create("nade", spec, hidden=500, chunk=chunk).eval()
        model.log_prob(x)
        out[chunk] = statistics.median(
            seconds(lambda m=model: m.log_prob(x)) for _ in range(repeats)
        )
    return [
        f"nade, hidden 500: sampling 1600 dimensions takes {times[40] / times[28]:.2f} times as "
        f"long as 784: {growth:.2f} of linear.",
        f"nade, hidden 500, batch 16: log_prob {out[16] * 1e3:.0f} ms in chunks of 16, "
        f"{out[1] * 1e3:.0f} ms as a loop over dimensions: "
        f"{out[1] / out[16]:.1f} times quicker (bar 5).",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for case in CASES:
        if args.only in case.name:
            row = measure(case, args.repeats, args.whole)
            rows.append(row)
            said = (
                f"{row['case']} {row['shape']} {row['parameters']:,} parameters, batch "
                f"{row['batch']}"
            )
            one, slow, fast = (
                f"{key} {row[key + '_s']:.3f} s" for key in ("forward", "naive", "cached")
            )
            costs = f"{one}, {slow}, {fast}, {row['ratio']:.0f}x, {row['forwards']:.1f} forwards"
            print(said, costs, sep=", ", flush=True)
    promised = nade() if args.only in "nade" else []
    print("\n".join(promised))
    if args.only:
        return
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "sampling.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    malloc = (
        " ".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_"))
        or "default malloc"
    )
    lines = [
        "# Cached against naive sampling",
        "",
        f"Median of {args.repeats}; {args.threads} thread(s), {platform.machine()}, torch "
        f"{torch.__version__}, {malloc}, both sides alike. "
        "Naive is the number of dimensions (pixels, for pixelcnn_pp) times a forward pass. Both "
        "draw the same integers (tests).",
        "",
        "| model | data | parameters | batch | forward | naive | cached | quicker | bar | cost in "
        "forwards |",
        "|---" * 10 + "|",
    ]
    for r in rows:
        bar = f"{r['bar']:.0f}" if r["bar"] else ""
        lines.append(
            f"| {r['case']} | {r['shape']} | {r['parameters']:,} | {r['batch']} | "
            f"{r['forward_s'] * 1e3:.1f} ms | {r['naive_s']:.1f} s "
            f"| {r['cached_s']:.2f} s | {r['ratio']:.0f}x | {bar} | {r['forwards']:.1f} |"
        )
    (RESULTS / "sampling.md").write_text("\n".join([*lines, "", *promised]) + "\n")


if __name__ == "__main__":
    main()
