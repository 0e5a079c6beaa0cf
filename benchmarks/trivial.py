"""What scores mean on a dataset: those of the data themselves and of samplers and densities that
know next to nothing (``zoo.check.trivial``), measured as ``zoo.fit`` measures a model's.

    python benchmarks/trivial.py heads
    python benchmarks/trivial.py digits --data.size=16 --keep    in configs/trivial.json, for pages
    python benchmarks/trivial.py mnist --data.root=DIR --densities --keep     likelihoods alone
    python benchmarks/trivial.py gates                           results/gates.md: gates beside them

Of images, held-out ones count once each, where a run draws as many as of a model, so repeats some;
and one half of the training images is held against the other, the mean over five halvings and their
standard deviation: what the metric says of two samples of the data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks.fidelity import BLOCK, Fidelity, _Scorer
from zoo import registry
from zoo.check import Subject, trivial
from zoo.check.quiet import hush
from zoo.config import folder
from zoo.core import Image
from zoo.core.noise import seeded
from zoo.metrics import choose
from zoo.standards import HALF, HELD_OUT, SPREAD, TRIVIAL, standard

RESULT = Path(__file__).parent / "results" / "gates.md"
HALVINGS = 5


def themselves(data: Any) -> dict[str, dict[str, float]]:
    """What images of the data score against others of them."""
    x, seen = data.examples()["x"], dict[str, float]()
    unseen = torch.cat([data.examples(split=split)["x"] for split in ("val", "test")])
    found: dict[str, list[float]] = {}
    for name in ("datanet", "pixels"):
        extractor = choose(name, data, progress=False)
        for metric, value in scores(extractor, unseen, x, data.spec).items():
            seen[f"val/{metric}_{extractor.name}"] = value
        for i in range(HALVINGS):
            order = torch.randperm(len(x), generator=seeded(i, "halves"))
            one, other = x[order].chunk(2)
            for metric, value in scores(extractor, one, other, data.spec).items():
                found.setdefault(f"val/{metric}_{extractor.name}", []).append(value)
    means = {k: statistics.mean(v) for k, v in found.items()}
    spread = {k: statistics.stdev(v) for k, v in found.items()}
    return {HELD_OUT: seen, HALF: means, SPREAD: spread}


def scores(extractor: Any, made: Tensor, real: Tensor, spec: Any) -> dict[str, float]:
    options = Fidelity()
    pairs = min(options.precision_recall_n, len(made), len(real))
    scorer = _Scorer.of(extractor, torch.device("cpu"), False, pairs, options.k)
    for images, of_data in ((real, True), (made[: options.n_fake], False)):
        for start in range(0, len(images), BLOCK):
            scorer.update(images[start : start + BLOCK], spec, start, real=of_data)
    taken = scorer.scores(None).values()
    return {k: float(v) for take in taken for k, v in take().items()}


def of_data(
    name: str, options: list[str], densities: bool = False
) -> tuple[str, dict[str, dict[str, float]]]:
    """The data's name, and all rows, or those of likelihoods alone."""
    subject = Subject.of("kde", "--data", name, *options)
    data = subject.data()
    data.setup()
    if densities:
        models = {kind: trivial.Trivial(data.spec, kind, data) for kind in trivial.DENSITIES}
        found = {kind: trivial.likelihoods(m, data, mass=True) for kind, m in models.items()}
        return data.spec.name, found
    found = trivial.rows(subject, mass=True)
    rows = {HELD_OUT: found["held_out"]} | {k: v for k, v in found.items() if k != "held_out"}
    if data.spec.has(x=Image):
        rows |= themselves(data)
    return data.spec.name, rows


def show(rows: dict[str, dict[str, float]]) -> None:
    metrics = [*dict.fromkeys(k for values in rows.values() for k in values)]
    print(f"{'':<30}" + "".join(f"{row:>26}" for row in rows))
    for metric in metrics:
        cells = [
            f"{values[metric]:26.4g}" if metric in values else f"{'':26}"
            for values in rows.values()
        ]
        print(f"{metric:<30}" + "".join(cells))


def gates() -> str:
    """Every gate that a sampler or density can be asked for, beside the trivial rows."""
    kinds = ["held_out", *trivial.KINDS]
    head = ["model", "data", "gate", "default run", HELD_OUT, *trivial.KINDS]
    lines = [
        "# Gates beside trivial rows",
        "",
        "What each default run must reach, what it reaches on seed 0, and what the same callbacks "
        "say of held-out data and of samplers and densities that know next to nothing "
        "(`zoo/check/trivial.py`). A row must fail one gate of its model at least "
        "(`python -m zoo.check --slow NAME --only gates_refuse_trivial_rows`), held-out data none. "
        "Empty: it has no such number. Baselines are rows of this kind themselves.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for name in registry.list():
        subject = Subject.of(name, small=False)
        data, rows = subject.data().spec.name, trivial.rows(subject)
        usual = standard(name, data)
        for metric, sign, bound in subject.entry.learns:
            if not any(metric in values for values in rows.values()):
                continue
            reached = usual.values.get(metric) if usual else None
            values = [reached, *(rows.get(kind, {}).get(metric) for kind in kinds)]
            cells = ["" if v is None else f"{v:.3g}" for v in values]
            gate = f"`{metric.removeprefix('val/')}` {sign} {bound:g}"
            lines.append(f"| `{name}` | {data} | {gate} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def keep(data: str, rows: dict[str, dict[str, float]]) -> None:
    path = folder() / TRIVIAL
    known = json.loads(path.read_text()) if path.is_file() else {}
    short = {row: {k: float(f"{v:.4g}") for k, v in of.items()} for row, of in rows.items()}
    path.write_text(json.dumps(dict(sorted((known | {data: short}).items())), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help='a dataset, or "gates"')
    parser.add_argument("--keep", action="store_true", help=f"in configs/{TRIVIAL}")
    parser.add_argument("--densities", action="store_true", help="likelihoods alone")
    args, options = parser.parse_known_args()
    hush()
    torch.set_num_threads(1)
    if args.data == "gates":
        RESULT.write_text(gates())
        return
    name, rows = of_data(args.data, options, args.densities)
    print(name)
    show(rows)
    if args.keep:
        keep(name, rows)


if __name__ == "__main__":
    sys.exit(main())
