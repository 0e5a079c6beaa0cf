"""Every GAN of the zoo under one budget: who covers the modes, whose samples are near the data, who
collapses, and how fast.

    python benchmarks/gans.py ring                     8 gaussians on a ring, seeds 0 1 2
    python benchmarks/gans.py grid                     25 gaussians on a grid
    python benchmarks/gans.py digits                   16x16 digits, scored by the small feature
    network
    python benchmarks/gans.py speed                    generator steps a second on ring and digits,
    in turns
    python benchmarks/gans.py sheet                    contact sheets, one row a model
    python benchmarks/gans.py k runs/                  table and plot of the runs that
    sweeps/gan_k.yaml made python benchmarks/gans.py digits --models began dcgan --seeds 0 --jobs 2

The budget is generator steps and batch size; learning rates, k and networks are each model's
defaults. Every run is a ``python -m zoo.fit`` in a process of its own, in
runs/gans/TASK/MODEL-SEED; a folder that is finished is not run again. Tables are written to
results/gans_TASK.md and .csv.
"""

from __future__ import annotations

import argparse
import csv
import functools
import inspect
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback
from once import keep, kept, run
from tqdm.auto import tqdm

from zoo import registry
from zoo.check import Subject
from zoo.check.quiet import hush
from zoo.core import checkpoint
from zoo.core.draw import draw
from zoo.looking import data_in
from zoo.show.paint import DATA, DRAWN, Shades, rgb
from zoo.show.points import scatter
from zoo.show.sheets import Panel, save, sheet
from zoo.standards import HALF, SPREAD, trivial

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs") / "gans"


@dataclass(frozen=True)
class Task:
    """Data and budget.

    Args:
        title: of the table. data: options. steps: of the generator. every: between validations.
            metrics: logged names by column; the first decides what the best validation is, and
                ``lower`` whether less of it is better.
    """

    title: str
    data: list[str]
    steps: int
    every: int
    metrics: dict[str, str]
    lower: bool

    def better(self, a: float, b: float) -> bool:
        return a < b if self.lower else a > b

    def collapsed(self, best: float, last: float) -> bool:
        """The last validation is far worse than the best: twice the distance, or half the modes."""
        return last > 2 * best if self.lower else last <= best / 2


POINTS = {"modes": "val/modes", "hq": "val/hq", "hq_strict": "val/hq_strict"}
IMAGES = {
    name: f"val/{key}_digitsnet"
    for name, key in {
        "fd": "fid",
        "is": "is",
        "classes": "classes",
        "precision": "precision",
        "recall": "recall",
    }.items()
}
TASKS = {
    "ring": Task(
        "8 gaussians on a ring",
        ["--data=toy2d", "--data.kind=ring", "--data.labelled=true", "--data.batch_size=256"],
        3000,
        500,
        POINTS,
        False,
    ),
    "grid": Task(
        "25 gaussians on a grid",
        ["--data=toy2d", "--data.kind=grid", "--data.labelled=true", "--data.batch_size=256"],
        6000,
        1000,
        POINTS,
        False,
    ),
    "digits": Task(
        "digits, 16x16",
        ["--data=digits", "--data.size=16", "--data.binarize=none", "--data.batch_size=64"],
        1000,
        250,
        IMAGES,
        True,
    ),
}
SETTINGS = {  # what a model needs for these data, or for so few steps
    "bs_gan": ["--model.mode=continuous"],
    "bayesian_gan": ["--model.warm_up=500"],
}
ON_POINTS = {  # its class's own values, where its default run is one of images
    "infogan": ["arch=small", "width=null", "noise=20", "lr_d=5e-4"],
}
LABELS = dict.fromkeys(("acgan", "biggan", "cgan", "lapgan"), "¹")
LABELS |= dict.fromkeys(("am_gan", "improved_gan"), "²")
USE = {"¹": "sampled by class", "²": "learns from the labels"}


def options_of(name: str, task: str) -> list[str]:
    entry, own = registry.entry(name), SETTINGS.get(name, [])
    if TASKS[task].metrics is POINTS:
        own = [*own, *(f"--model.{option}" for option in ON_POINTS.get(name, []))]
    if "stage_steps" in entry.parameters:
        options = inspect.signature(registry.get(name)).parameters
        stages = options["stages"].default if "stages" in options else 1
        own = [*own, f"--model.stage_steps={TASKS[task].steps // stages}"]
    return [*TASKS[task].data, *own]


def makes_x(name: str) -> bool:
    """Whether a model makes x from codes, and perhaps a class."""
    entry = registry.entry(name)
    return "sample" in entry.can and entry.makes == ("x",) and not {*entry.told} - {"y"}


@functools.cache  # the table asks after each run
def players(task: str) -> list[str]:
    """GANs whose networks take the task's data."""
    names = []
    for name in registry.list(family="gan"):
        if not makes_x(name):
            continue
        subject = Subject.of(name, *options_of(name, task))
        try:
            subject.model()
        except ValueError:
            continue
        names.append(name)
    return names


def train(name: str, task: str, seed: int) -> Path:
    """The folder of a finished run."""
    folder, plan = RUNS / task / f"{name}-{seed}", TASKS[task]
    budget = [
        f"--trainer.max_steps={plan.steps}",
        f"--trainer.val_check_interval={plan.every}",
    ]
    scores = ["--fidelity.pixels=false"] if task == "digits" else []
    run(name, [*options_of(name, task), *budget, *scores], seed, folder)
    return folder


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every logged metric."""
    out: dict[str, list[tuple[int, float]]] = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key != "step":
                    out.setdefault(key, []).append((int(float(row["step"] or 0)), float(value)))
    return out


def row_of(folder: Path, name: str, task: str, seed: int) -> dict[str, Any]:
    """Last values, and those of the best validation."""
    logged, plan = curves(folder), TASKS[task]
    first = next(iter(plan.metrics.values()))
    best = 0
    for i, (_, value) in enumerate(logged[first]):
        best = i if plan.better(value, logged[first][best][1]) else best
    row: dict[str, Any] = {"model": name, "seed": seed}
    for column, key in plan.metrics.items():
        row[column], row[f"best_{column}"] = logged[key][-1][1], logged[key][best][1]
    column = next(iter(plan.metrics))
    row["collapsed"] = int(plan.collapsed(row[f"best_{column}"], row[column]))
    return row | {
        "best_step": logged[first][best][0],
        "seconds": int((folder / "seconds.txt").read_text()),
    }


def table(task: str) -> None:
    """Write results/gans_TASK.csv and .md from the finished runs; rows of models that have none
    here stay as they are."""
    plan, names, path = TASKS[task], registry.list(family="gan"), RESULTS / f"gans_{task}.csv"
    new = [
        row_of(folder, name, task, int(folder.name.rsplit("-", 1)[1]))
        for name in names
        for folder in sorted((RUNS / task).glob(f"{name}-[0-9]*"))
        if (folder / "seconds.txt").is_file()
    ]
    rows = keep(path, new, ("model", "seed"))
    first, *others = plan.metrics
    groups = {
        name: [r for r in rows if r["model"] == name]
        for name in names
        if any(r["model"] == name for r in rows)
    }
    order = sorted(
        groups,
        key=lambda n: (
            (1 if plan.lower else -1) * _mean(groups[n], first) - 1e-3 * _mean(groups[n], others[0])
        ),
    )
    speeds = read_speeds(task)
    head = [
        "model",
        f"{first}, last",
        "each seed",
        f"{first}, best",
        *(f"{c}, last" for c in others),
        "collapsed runs",
        "steps/s",
    ]
    batch = next(o for o in plan.data if "batch_size" in o).split("=")[1]
    lines = [
        f"# GANs on {plan.title}",
        "",
        f"{plan.steps:,} generator steps of {batch} rows (and k times as many of D as a model "
        f"asks for), default networks and rates, one "
        f"CPU thread; a validation every {plan.every:,} steps. Mean ± standard deviation over "
        f"seeds. Collapsed: the last validation is far "
        f"worse than the run's best "
        f"({'more than twice its distance' if plan.lower else 'at most half of its modes'}). "
        f"Steps/s: generator "
        f"steps{' (on the ring)' if task == 'grid' else ''}, in brackets relative to "
        f"`{REFERENCE[task]}`.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for name in order:
        runs = groups[name]
        each = " / ".join(_short(float(r[first]), first) for r in runs)
        label = f"`{name}`{LABELS.get(name, '')}"
        cells = [
            label,
            _spread(runs, first),
            each,
            _spread(runs, f"best_{first}"),
            *(_spread(runs, c) for c in others),
        ]
        lines.append(
            f"| {' | '.join(cells)} | {sum(int(r['collapsed']) for r in runs)} of {len(runs)} | "
            f"{speeds.get(name, '')} |"
        )
    lines += references(task)
    lines += [
        "",
        f"{', '.join(f'{mark} {use}' for mark, use in USE.items())}; the others see no labels. In "
        "italics: the data themselves, and samplers that know next to nothing "
        "([trivial.py](../trivial.py)).",
    ]
    other = [name for name in names if not makes_x(name)]
    for why, absent in (
        (
            "since their networks take images only",
            [name for name in names if name not in (*players(task), *other)],
        ),
        ("which make or are told something else than x and its class", other),
    ):
        if absent:
            lines += ["", f"Not here, {why}: {', '.join(f'`{n}`' for n in absent)}."]
    (RESULTS / f"gans_{task}.md").write_text("\n".join(lines) + "\n")


def references(task: str) -> list[str]:
    """Rows of the data themselves and of trivial samplers, the best first."""
    plan = TASKS[task]
    known = trivial(Subject.of("gan", *plan.data).data().spec.name)
    first, *others = plan.metrics
    lines = list[tuple[list[float], str]]()
    for name, values in known.items():
        if plan.metrics[first] not in values or name == SPREAD:
            continue
        cells = of_trivial(known, name, plan.metrics)
        line = ["*" + name + "*", cells[first], "", "", *(cells[c] for c in others), "", ""]
        order = [values[plan.metrics[c]] for c in (first, others[0])]
        lines.append((order, f"| {' | '.join(line)} |"))
    return [line for _, line in sorted(lines, reverse=not plan.lower)]


def of_trivial(known: dict[str, Any], name: str, metrics: dict[str, str]) -> dict[str, str]:
    """A row's cells; of halves of the data with their spread."""
    values, spread = known[name], known[SPREAD] if name == HALF else {}
    return {
        c: _middle(values[k], c) + (f" ± {spread[k]:.2f}" if k in spread else "")
        for c, k in metrics.items()
    }


def _mean(runs: list[dict[str, Any]], column: str) -> float:
    return statistics.mean(float(r[column]) for r in runs)


def _short(value: float, column: str) -> str:
    return f"{value:.0f}" if column.endswith(("modes", "classes")) else f"{value:.2f}"


def _middle(value: float, column: str) -> str:
    return f"{value:.1f}" if column.endswith(("modes", "classes")) else f"{value:.2f}"


def _spread(runs: list[dict[str, Any]], column: str) -> str:
    values = [float(r[column]) for r in runs]
    middle = _middle(statistics.mean(values), column)
    return f"{middle} ± {statistics.stdev(values):.2f}" if len(values) > 1 else middle


# -- speed ---------------------------------------------------------------------------------------
REFERENCE = {"ring": "gan", "grid": "gan", "digits": "dcgan"}


class Clock(Callback):
    """Seconds between two generator steps."""

    def __init__(self, first: int) -> None:
        self.first, self.start, self.seconds = first, 0.0, 0.0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.first:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - self.start


def speed(tasks: list[str], names: list[str] | None, rounds: int = 5, steps: int = 60) -> None:
    """Generator steps a second, every model in turn, several rounds; the median of the rounds, and
    of the ratios within a round. Rows of models that are not measured stay as they are.
    """
    hush()
    torch.set_num_threads(1)
    rows = []
    for task in tasks:
        models = [n for n in players(task) if names is None or n in names or n == REFERENCE[task]]
        rates: dict[str, list[float]] = {name: [] for name in models}
        for _ in tqdm(range(rounds), desc=task):
            for name in models:
                subject, clock = Subject.of(name, *options_of(name, task)), Clock(steps // 3)
                subject.fit(subject.model(), steps, callbacks=[clock])
                rates[name].append((steps - steps // 3) / clock.seconds)
        for name in models:
            ratio = statistics.median(
                a / b for a, b in zip(rates[name], rates[REFERENCE[task]], strict=True)
            )
            rows.append(
                {
                    "task": task,
                    "model": name,
                    "steps_per_second": round(statistics.median(rates[name]), 1),
                    "ratio": round(ratio, 3),
                }
            )
    keep(RESULTS / "gans_speed.csv", rows, ("task", "model"))


def read_speeds(task: str) -> dict[str, str]:
    """Of the ring for the grid too: the networks and batches are the same."""
    measured = "ring" if task == "grid" else task
    rows = [r for r in kept(RESULTS / "gans_speed.csv") if r["task"] == measured]
    return {
        r["model"]: f"{float(r['steps_per_second']):.0f} ({float(r['ratio']):.2f})" for r in rows
    }


# -- pictures ------------------------------------------------------------------------------------
def pictures(seed: int = 0, columns: int = 16) -> None:
    """results/gans_digits.png: a row of data, and one of samples for each model; gans_ring.png and
    gans_grid.png: its points over the data."""
    rows: dict[tuple[str, str], torch.Tensor] = {}
    for name in registry.list(family="gan"):
        folder = RUNS / "digits" / f"{name}-{seed}"
        if not (folder / "seconds.txt").is_file():
            continue
        model = checkpoint.load(folder / "checkpoints" / "last.ckpt", ema=True)
        if not rows:
            data = data_in(folder).examples(columns)["x"]
            spec, shades = model.spec, Shades(model.spec["x"], data)
            rows["data", DATA] = rgb(data, shades)
        rows[name, DRAWN] = rgb(draw(model, columns, 0), shades)
    said = f"{TASKS['digits'].steps:,} generator steps each, training seed {seed}"
    if rows:
        cells = torch.cat([*rows.values()])
        panel = Panel(cells, columns, "a row of the data, then one a model", DRAWN, [*rows])
        title = f"Every GAN on {spec.name}"
        save(sheet(title, said, [[panel]], size=(1600, 4000)), RESULTS / "gans_digits.png")
    for task in ("ring", "grid"):
        plots = {}
        for name in registry.list(family="gan"):
            folder = RUNS / task / f"{name}-{seed}"
            if (folder / "seconds.txt").is_file():
                model = checkpoint.load(folder / "checkpoints" / "last.ckpt", ema=True)
                data = data_in(folder).examples(1000)["x"]
                plots[name] = scatter(draw(model, 1000, 0), data, side=480)
        if plots:
            panel = Panel([*plots.values()], 3, "drawn, over the data", captions=[*plots])
            title, said = f"Every GAN on the {task}", f"training seed {seed}"
            save(sheet(title, said, [[panel]], size=(1600, 4000)), RESULTS / f"gans_{task}.png")


# -- the sweep over k ----------------------------------------------------------------------------
def beside(data: str, metrics: dict[str, str]) -> list[str]:
    """Rows of the data themselves and of trivial samplers, for the table over k."""
    known = trivial(data)
    rows = {name: of_trivial(known, name, metrics) for name in known if name != SPREAD}
    return [f"| *{name}* |  | {' | '.join(cells.values())} |  |" for name, cells in rows.items()]


def sweep_over_k(folder: Path) -> None:
    """results/gan_k.md and gan_k.png from the run folders of sweeps/gan_k.yaml."""
    metrics = {
        name: f"val/{name}_digitsnet" for name in ("fid", "is", "classes", "precision", "recall")
    }
    groups: dict[tuple[float, int], list[dict[str, float]]] = {}
    for config in sorted(folder.glob("dcgan-*/config.yaml")):
        given = yaml.safe_load(config.read_text())
        parameters, images = given["model"]["init_args"], given["data"]
        logged = curves(config.parent) if (config.parent / "metrics.csv").is_file() else {}
        if not images["class_path"].endswith("Digits") or images["init_args"]["size"] != 16:
            continue  # another run of dcgan
        if any(key not in logged or logged[key][-1][0] < 1000 for key in metrics.values()):
            continue  # cut off
        groups.setdefault((parameters["lr_g"], parameters["k"]), []).append(
            {n: logged[key][-1][1] for n, key in metrics.items()}
        )
    if not groups:
        raise SystemExit(
            f"no finished runs dcgan-* in {folder}; wandb sweep sweeps/gan_k.yaml, then wandb "
            f"agent, make them"
        )
    lines = [
        "# Discriminator steps per generator step",
        "",
        "`dcgan` on 16x16 digits, 1,000 generator steps whatever k is (so k times the work of D), "
        "by `wandb sweep sweeps/gan_k.yaml` and "
        "`wandb agent`. Mean ± standard deviation over seeds at the last step, in the small "
        "network's features.",
        "",
        "| lr_g | k | FD | IS | classes | precision | recall | runs |",
        "|---" * 8 + "|",
    ]
    for (lr, k), runs in sorted(groups.items()):
        cells = [_spread(runs, name) for name in metrics]
        lines.append(f"| {lr:g} | {k} | {' | '.join(cells)} | {len(runs)} |")
    lines += beside("digits 16x16", metrics)
    (RESULTS / "gan_k.md").write_text("\n".join(lines) + "\n")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name, label in zip(
        figure.subplots(1, 3),
        ("fid", "is", "recall"),
        ("Fréchet distance", "IS", "recall"),
        strict=True,
    ):
        for lr in sorted({lr for lr, _ in groups}):
            ks = sorted(k for other, k in groups if other == lr)
            values = [[r[name] for r in groups[lr, k]] for k in ks]
            spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
            axis.errorbar(
                ks,
                [statistics.mean(v) for v in values],
                spread,
                marker="o",
                capsize=3,
                label=f"lr_g {lr:g}",
            )
        axis.set(xlabel="k", ylabel=label, xticks=sorted({k for _, k in groups}))
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(RESULTS / "gan_k.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*TASKS, "speed", "sheet", "k"])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs"), help="of the sweep's runs, for k"
    )
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    if args.what == "speed":
        speed(["ring", "digits"], args.models)
    elif args.what == "sheet":
        pictures()
    elif args.what == "k":
        sweep_over_k(args.folder)
    else:
        able = players(args.what)
        if unable := sorted({*(args.models or [])} - {*able}):
            parser.error(
                f"{', '.join(unable)}: not a GAN that takes these data; there are {', '.join(able)}"
            )
        wanted = [(m, args.what, s) for m in args.models or able for s in args.seeds]
        with ThreadPoolExecutor(args.jobs) as pool:
            for _ in tqdm(
                pool.map(lambda job: train(*job), wanted), total=len(wanted), desc=args.what
            ):
                table(args.what)


if __name__ == "__main__":
    main()
