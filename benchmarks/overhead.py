"""What the loop costs: time per generator step over a hand-written PyTorch loop with the same
networks and data.

    python benchmarks/overhead.py            the tiny net and the DCGAN at 32x32, batch 64

Both sides run in turn, repeated; each figure is a median. "bare" logs nothing; "logging" is the
default CSV logger, every 20 steps, with the progress bar's callback off (it is drawn at most every
20 steps).
"""

from __future__ import annotations

import argparse
import logging
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.nn import functional as F

from callbacks import NaNGuard
from callbacks.loggers import CSVLogger
from zoo import registry
from zoo.data.base import ZooDataModule
from zoo.data.digits import Digits
from zoo.data.toy2d import Toy2D


def by_hand(build: Callable[[], Any], data: ZooDataModule, steps: int) -> float:
    """Seconds per generator step of the plain loop: same networks, optimisers, loss and rows."""
    model = build()
    spec, d, g = model.spec, model.d.net, model.g
    optimisers = model.optimisers()
    x_all = spec.to_signed(data.examples()["x"])
    order = (
        torch.randperm(len(x_all))
        .repeat(steps * data.batch_size // len(x_all) + 1)
        .split(data.batch_size)
    )
    started = 0.0
    for step in range(steps + WARM_UP):
        if step == WARM_UP:
            started = time.perf_counter()
        x = x_all[order[step % (len(order) - 1)]]
        with torch.no_grad():
            fake = g(torch.randn(len(x), model.latent))
        optimisers["d"].zero_grad()
        (F.softplus(-d(x)).mean() + F.softplus(d(fake)).mean()).backward()
        optimisers["d"].step()
        for p in d.parameters():
            p.requires_grad_(False)
        optimisers["g"].zero_grad()
        F.softplus(-d(g(torch.randn(len(x), model.latent)))).mean().backward()
        optimisers["g"].step()
        for p in d.parameters():
            p.requires_grad_(True)
    return (time.perf_counter() - started) / steps


def by_trainer(build: Callable[[], Any], data: ZooDataModule, steps: int, log: bool) -> float:
    """Seconds per generator step of the zoo's loop."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=steps + WARM_UP,
            accelerator="cpu",
            devices=1,
            logger=CSVLogger(folder) if log else False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            check_val_every_n_epoch=None,
            log_every_n_steps=20 if log else 10**9,
            callbacks=[NaNGuard(), clock] if log else [clock],
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        trainer.fit(build(), data)
    return (clock.end - clock.start) / steps


class Clock(Callback):
    """Times the steps after the warm-up."""

    start = end = 0.0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == WARM_UP:
            self.start = time.perf_counter()
        self.end = time.perf_counter()


WARM_UP = 20
CASES: dict[str, tuple[Callable[[], tuple[Any, ZooDataModule]], int]] = {
    "tiny net (gan, MLP on the ring, batch 256)": (lambda: ("gan", Toy2D()), 400),
    "dcgan at 32x32, batch 64": (lambda: ("dcgan", Digits(size=32, batch_size=64)), 40),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    about = (
        f"torch {torch.__version__}, {platform.machine()}, {args.threads} thread(s), default malloc"
    )
    print(f"{about}, median of {args.repeats} interleaved repeats\n")
    print(
        "| case | by hand, ms | bare, ms | logging, ms | bare extra, ms | logging extra, ms | "
        "bare ratio |"
    )
    print("|---|---|---|---|---|---|---|")
    for label, (make, steps) in CASES.items():
        name, data = make()
        data.setup()

        def build(name: str = name, spec: Any = data.spec) -> Any:
            seed_everything(0, verbose=False)
            return registry.create(name, spec)

        times: dict[str, list[float]] = {"hand": [], "bare": [], "log": []}
        for _ in range(args.repeats):
            times["hand"].append(by_hand(build, data, steps))
            times["bare"].append(by_trainer(build, data, steps, log=False))
            times["log"].append(by_trainer(build, data, steps, log=True))
        hand, bare, log = (1000 * statistics.median(times[k]) for k in ("hand", "bare", "log"))
        extra = statistics.median(
            1000 * (b - h) for b, h in zip(times["bare"], times["hand"], strict=True)
        )
        extra_log = statistics.median(
            1000 * (b - h) for b, h in zip(times["log"], times["hand"], strict=True)
        )
        print(
            f"| {label} | {hand:.2f} | {bare:.2f} | {log:.2f} | {extra:.2f} | {extra_log:.2f} | "
            f"{bare / hand:.2f} |",
            flush=True,
        )
    print(
        f"\npeak memory of the process "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
