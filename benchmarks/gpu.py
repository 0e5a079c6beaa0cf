"""The zoo on a GPU: does every model run there, how quick is it, does sampling gain from graphs.

    python benchmarks/gpu.py smoke       20 steps of every default run and paper preset: finite,
                                         the same twice in a row, resumed bit for bit, under NCCL
                                         with one process, in bf16-mixed
    python benchmarks/gpu.py speed       images a second and peak memory of six models at 32 and 64
                                         pixels beside a hand-written loop with the same networks:
                                         eager, bf16, channels last, compiled
    python benchmarks/gpu.py sampling    cached sampling of the autoregressive models with and
                                         without CUDA graphs

Rows are kept in results/gpu_TASK.csv, and what is there is not measured again, so a task can be
run in pieces: --minutes 9 stops before the tenth (--again forgets the rows). results/gpu_TASK.md is
written from them. All figures are ratios within one run. --device cpu tries the script itself.

On a bare machine: pip install --no-index --find-links WHEELS -e . -c constraints.txt
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import registry
from zoo.bases import AutoregressiveModule
from zoo.check import Given, Subject, fit
from zoo.check.everyone import paper_spec
from zoo.check.quiet import hush
from zoo.core import DataSpec
from zoo.core.compiled import compile_nets
from zoo.core.likelihood import bits_per_dim, dequantise
from zoo.nn.gaussian import kl_standard, reparameterise

RESULTS = Path(__file__).parent / "results"
STEPS = 20
Row = dict[str, Any]


# -- smoke ---------------------------------------------------------------------------------------
def smoke(device: str, models: list[str]) -> Iterator[tuple[str, Callable[[], Row]]]:
    for name in models:
        yield f"{name}, default", lambda name=name: tried(Subject.of(name), device)
        yield (
            f"{name}, paper",
            lambda name=name: tried(Subject.of(name, "--preset", "paper"), device, paper=True),
        )


def tried(subject: Subject, device: str, paper: bool = False) -> Row:
    """Each way of training 20 steps: "ok", or the first line of what fails."""
    data = Random(paper_spec(subject)) if paper else subject.data()
    found: Row = {"finite": "", "resumes": "", "nccl": "", "bf16": ""}
    steps = STEPS if not paper else STEPS // 2

    def state(steps: int, folder: str = "", **options: Any) -> dict[str, Tensor]:
        seed_everything(0, verbose=False)
        model = subject.create(data.spec)
        trainer = subject.fit(model, steps, data, accelerator=device, **options)
        if folder:
            trainer.save_checkpoint(f"{folder}/half.ckpt")
        bad = [k for k, v in model.state_dict().items() if not v.isfinite().all()]
        if bad:
            raise ArithmeticError(f"not finite after {steps} steps: {', '.join(bad[:3])}")
        return {k: v.detach().cpu() for k, v in model.state_dict().items()}

    def resumes() -> None:
        with tempfile.TemporaryDirectory() as folder:
            whole = state(steps, deterministic=True)
            state(steps // 2, folder, deterministic=True)
            again = state(steps, deterministic=True, ckpt_path=f"{folder}/half.ckpt")
        if apart := [k for k, v in whole.items() if not torch.equal(v, again[k])]:
            raise AssertionError(f"after resuming {len(apart)} tensors differ: {apart[0]}")

    def nccl() -> None:
        try:
            state(4, strategy="ddp_find_unused_parameters_true")
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    tries = {
        "finite": lambda: state(steps),
        "resumes": resumes,
        "nccl": nccl,
        "bf16": lambda: state(4, precision="bf16-mixed"),
    }
    for key, run in tries.items():
        try:
            run()
            found[key] = "ok"
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            found[key] = f"{type(error).__name__}: {lines[0][:140]}"
        torch.cuda.empty_cache() if device == "gpu" else None
    return found


class Random(Given):
    """Random rows of a spec, a few for each step."""

    def __init__(self, spec: Any, rows: int = 64, batch_size: int = 8) -> None:
        made = {name: field.example(rows, torch.Generator()) for name, field in spec.fields.items()}
        super().__init__(spec, fields=made, batch_size=batch_size)


# -- speed ---------------------------------------------------------------------------------------
FORMS = ("eager", "bf16", "channels_last", "compiled")
TIMED = {"dcgan": 64, "began": 64, "wgan_gp": 64, "vae": 64, "pixelcnn": 16, "glow": 16}  # batch
OPTIONS = {"began": {"arch": "mlp"}, "vae": {"net": "conv", "likelihood": "dlogistic"}}
WARM = 10


def speed(device: str, models: list[str]) -> Iterator[tuple[str, Callable[[], Row]]]:
    for name in [m for m in TIMED if m in models]:
        for side in (32, 64):
            for form in FORMS:
                yield (
                    f"{name}, {side}x{side}, {form}",
                    lambda n=name, s=side, f=form: timed(n, s, f, device),
                )


def timed(name: str, side: int, form: str, device: str, repeats: int = 3) -> Row:
    """The zoo's loop and the one by hand in turn; medians."""
    where = torch.device("cuda" if device == "gpu" else "cpu")
    batch, spec = TIMED[name], DataSpec((3, side, side), 256)
    data = Random(spec, 8 * batch, batch)
    steps = 30 if device == "gpu" else 3

    def build() -> Any:
        seed_everything(0, verbose=False)
        model = registry.create(name, spec, **OPTIONS.get(name, {}))
        if form == "compiled":
            compile_nets(model)
        return model.to(memory_format=torch.channels_last) if form == "channels_last" else model

    precision = "bf16-mixed" if form == "bf16" else "32-true"
    times: dict[str, list[float]] = {"zoo": [], "hand": []}
    memory: dict[str, float] = {}
    try:
        for _ in range(repeats):
            for who in times:
                if where.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                if who == "zoo":
                    clock = Clock(where)
                    options = {"accelerator": device, "precision": precision, "callbacks": [clock]}
                    fit(build(), data, WARM + steps, **options)
                    times[who].append((clock.end - clock.start) / steps)
                else:
                    times[who].append(by_hand(name, build(), data, steps, where, form))
                if where.type == "cuda":
                    memory[who] = torch.cuda.max_memory_allocated() / 2**20
    except Exception as error:
        return {"fails": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:140]}"}
    zoo, hand = (statistics.median(v) for v in times.values())
    return {
        "images/s": round(batch / zoo, 1),
        "by hand": round(batch / hand, 1),
        "ratio": round(zoo / hand, 2),
        "MiB": round(memory["zoo"]) if memory else "",
        "MiB by hand": round(memory["hand"]) if memory else "",
        "fails": "",
    }


class Clock(Callback):
    """Times the steps after the warm-up."""

    start = end = 0.0

    def __init__(self, where: torch.device) -> None:
        self.where = where

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == WARM:
            self.start = now(self.where)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self.end = now(self.where)


def now(where: torch.device) -> float:
    if where.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def by_hand(name: str, model: Any, data: Any, steps: int, where: torch.device, form: str) -> float:
    """Seconds a step of a plain loop with the model's networks, optimisers and rows."""
    model = model.to(where)
    rows = data.examples()["x"].to(where)
    size, game = data.batch_size, name in GAMES
    turn = GAMES[name] if game else LOSSES[name]
    optimisers = model.optimisers() if game else {"": model.configure_optimizers()}
    started = 0.0
    for step in range(WARM + steps):
        if step == WARM:
            started = now(where)
        x = rows[torch.arange(step * size, (step + 1) * size) % len(rows)]
        with torch.autocast(where.type, torch.bfloat16, enabled=form == "bf16"):
            if game:
                turn(model, x, optimisers)
                continue
            loss = turn(model, x)
        optimisers[""].zero_grad()
        loss.backward()
        optimisers[""].step()
    return (now(where) - started) / steps


def move(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def codes(model: Any, x: Tensor) -> Tensor:
    return torch.randn(len(x), model.latent, device=x.device)


def frozen(net: nn.Module, yes: bool) -> None:
    for p in net.parameters():
        p.requires_grad_(not yes)


def dcgan(m: Any, x: Tensor, o: Any) -> None:
    x, d = m.spec.to_signed(x), m.d.net
    with torch.no_grad():
        fake = m.g(codes(m, x))
    move(F.softplus(-d(x)).mean() + F.softplus(d(fake)).mean(), o["d"])
    frozen(d, True)
    move(F.softplus(-d(m.g(codes(m, x)))).mean(), o["g"])
    frozen(d, False)


def began(m: Any, x: Tensor, o: Any) -> None:
    x, d, z = m.spec.to_signed(x), m.d.net, 2 * torch.rand(len(x), m.latent, device=x.device) - 1
    with torch.no_grad():
        fake = m.g(z)

    def error(v: Tensor) -> Tensor:
        return m.d(v).mean()

    real, made = error(x), error(fake)
    k = float(m.k_t)
    move(real - k * made, o["d"])
    frozen(d, True)
    loss = error(m.g(z))
    move(loss, o["g"])
    frozen(d, False)
    m.k_t.copy_((m.k_t + m.lambda_k * (m.gamma * real.detach() - loss.detach())).clamp(0, 1))


def wgan_gp(m: Any, x: Tensor, o: Any) -> None:
    x, d = m.spec.to_signed(x), m.d.net
    for _ in range(m.k):
        with torch.no_grad():
            fake = m.g(codes(m, x))
        t = torch.rand(len(x), 1, 1, 1, device=x.device)
        between = (t * x + (1 - t) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(d(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        move(d(fake).mean() - d(x).mean() + m.lam * penalty, o["d"])
    frozen(d, True)
    move(-d(m.g(codes(m, x))).mean(), o["g"])
    frozen(d, False)


def vae(m: Any, x: Tensor) -> Tensor:
    mu, log_var = m.posterior(x)
    z = reparameterise(mu, log_var, torch.randn_like(mu))
    return (kl_standard(mu, log_var).sum(1) - m.head.log_prob(m.decoder(z), x, None)).mean()


def pixelcnn(m: Any, x: Tensor) -> Tensor:
    logits = m.conditionals(x)
    return F.cross_entropy(logits.flatten(0, 1), x.flatten().long())


def glow(m: Any, x: Tensor) -> Tensor:
    y, constant = dequantise(x, 256, torch.rand_like(x))
    z, log_det = m.forward_flow(y - 0.5)
    base = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    return bits_per_dim(base + log_det + constant, m.spec.dim).mean()


GAMES: dict[str, Callable[[Any, Tensor, Any], None]] = {
    "dcgan": dcgan,
    "began": began,
    "wgan_gp": wgan_gp,
}
LOSSES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "vae": vae,
    "pixelcnn": pixelcnn,
    "glow": glow,
}


# -- sampling ------------------------------------------------------------------------------------
def sampling(device: str, models: list[str]) -> Iterator[tuple[str, Callable[[], Row]]]:
    for name in models:
        if issubclass(registry.get(name), AutoregressiveModule):
            yield name, lambda name=name: graphed(name, device)


def graphed(name: str, device: str, n: int = 64, repeats: int = 5) -> Row:
    """Seconds for n samples: as ever, and replayed from one captured graph."""
    where = torch.device("cuda" if device == "gpu" else "cpu")
    subject = Subject.of(name)
    model = subject.model().to(where).eval()
    told = {k: torch.arange(n, device=where) % model.spec[k].words for k in model.told}
    u = model.draw_uniforms(n)

    def once() -> Tensor:
        return model.generate(u, told)[0]

    with torch.no_grad():
        once()
        plain = []
        for _ in range(repeats):
            started = now(where)
            out = once()
            plain.append(now(where) - started)
        row: Row = {"seconds": round(statistics.median(plain), 4), "graph": "", "ratio": ""}
        if where.type != "cuda":
            return row | {"fails": "no CUDA here"}
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept = once()
            replayed = []
            for _ in range(repeats):
                started = now(where)
                graph.replay()
                replayed.append(now(where) - started)
            if not torch.equal(kept, out):
                return row | {"fails": "the graph draws other samples"}
        except Exception as error:
            return row | {"fails": f"{type(error).__name__}: {str(error).splitlines()[0][:140]}"}
    took = statistics.median(replayed)
    return row | {"graph": round(took, 4), "ratio": round(row["seconds"] / took, 1), "fails": ""}


# -- the table -----------------------------------------------------------------------------------
TASKS = {"smoke": smoke, "speed": speed, "sampling": sampling}


def written(task: str, rows: list[Row], about: str) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(RESULTS / f"gpu_{task}.csv", "w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)
    lines = [f"# {task}: {about}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(str(row.get(c, '')) for c in columns)} |" for row in rows]
    (RESULTS / f"gpu_{task}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=[*TASKS])
    parser.add_argument("--models", nargs="*", default=registry.list())
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop before so many")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--again", action="store_true", help="forget the rows that are there")
    args = parser.parse_args()
    if args.device == "gpu" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu tries the script itself")
    warnings.filterwarnings("ignore")
    hush()
    began, slowest = time.monotonic(), 0.0
    name = torch.cuda.get_device_name() if args.device == "gpu" else "CPU"
    about = f"{name}, torch {torch.__version__}"
    path, rows = RESULTS / f"gpu_{args.task}.csv", list[Row]()
    if path.is_file() and not args.again:
        with open(path, newline="") as file:
            rows = [*csv.DictReader(file)]
    done = {row["case"] for row in rows}
    for case, work in TASKS[args.task](args.device, args.models):
        if case in done:
            continue
        started = time.monotonic()
        if started - began + slowest > 60 * args.minutes:
            print("stopped in time; the same command goes on")
            break
        rows.append({"case": case, **work()})
        slowest = max(slowest, time.monotonic() - started)
        print("  ".join(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
        written(args.task, rows, about)


if __name__ == "__main__":
    main()
