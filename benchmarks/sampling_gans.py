"""How fast large generators draw, in ratios to dcgan: default networks on digits of 16x16 pixels,
fully grown, untrained (a weight's value costs nothing).

    python benchmarks/sampling_gans.py     prints the table and writes results/sampling_gans.md

Every row is drawn once in turn, several rounds, on one thread; a ratio is that of medians. biggan
stands twice: with running averages, and with its default of 16 passes for standing statistics in
every call, which a larger call shares.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from zoo.check import Subject
from zoo.core.draw import draw_fields, tell

RESULTS = Path(__file__).parent / "results"
DATA = ["--data=digits", "--data.size=16", "--data.binarize=none"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dcgan": ("dcgan", {}),
    "progan, full size": ("progan", {}),
    "stylegan": ("stylegan", {}),
    "biggan, running averages": ("biggan", {"standing": 0}),
    "biggan, standing statistics": ("biggan", {}),
}
ROWS, ROUNDS = (64, 512), 9


def grown(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A default model at its full size, and its data."""
    subject = Subject.of(name, *DATA, small=False)
    data = subject.data()
    torch.manual_seed(0)
    model = subject.create(data.spec, **options).eval()
    if hasattr(model, "shown"):
        model.shown.fill_(1 << 40)
    return model, data


def main() -> None:
    torch.set_num_threads(1)
    there = {case: grown(*of) for case, of in CASES.items()}
    lines = [
        "# Sampling of large generators",
        "",
        f"Default networks on digits 16x16, fully grown, one thread; median of {ROUNDS} rounds in "
        "turn. A second's rows are of this machine; ratios are what compares.",
        "",
        "| generator | parameters of G | "
        + " | ".join(f"rows a second, {n} a call | of dcgan's" for n in ROWS)
        + " |",
        "|---" * (2 + 2 * len(ROWS)) + "|",
    ]
    times: dict[tuple[str, int], list[float]] = {}
    for n in ROWS:
        for round_ in range(ROUNDS + 1):
            for case, (model, data) in there.items():
                told = tell(model, n, data)
                start = time.perf_counter()
                draw_fields(model, n, told=told)
                if round_:  # the first one warms up
                    times.setdefault((case, n), []).append(time.perf_counter() - start)
    speed = {key: key[1] / statistics.median(of) for key, of in times.items()}
    for case, (model, _) in there.items():
        size = sum(p.numel() for p in model.g.parameters())
        cells = [f"{speed[case, n]:,.0f} | {speed[case, n] / speed['dcgan', n]:.2f}" for n in ROWS]
        lines.append(f"| {case} | {size:,} | {' | '.join(cells)} |")
    print("\n".join(lines))
    (RESULTS / "sampling_gans.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
