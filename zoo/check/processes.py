"""Checks over several processes: two with half the batch each train as one, and resume exactly."""

from __future__ import annotations

import functools
import importlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.check.checks import check, plays
from zoo.check.everyone import resume
from zoo.check.quiet import hush
from zoo.check.subject import Subject
from zoo.core.processes import leave_group

LIKELIHOODS = ("val/nll_nats", "val/elbo")
together: list[str] = []  # models whose two-process runs share one launch


@check(mark="ddp")
def check_ddp_equal(subject: Subject) -> None:
    """Two processes with half the batch each train as one process with all of it (float64, below
    1e-12), hold the same weights and buffers to the last bit, and validate to 1e-5.
    """
    names = together if subject.name in together else [subject.name]
    found = ddp_differences(tuple(names))[subject.name]
    assert not isinstance(found, str), f"two processes failed: {found}"
    assert found[0] < 1e-12, f"parameters differ by {found[0]:.2g}"
    assert found[1] < 1e-5, f"val/nll_nats or val/elbo differs by {found[1]:.2g}"


@functools.cache
def ddp_differences(names: tuple[str, ...], steps: int = 4) -> dict[str, tuple[float, float] | str]:
    """For each model: the largest difference of a parameter or buffer between one process and two,
    and that of the likelihood.

    Args:
        names: as ``Subject.of`` takes them, each followed by options if need be: "gan --model.k=2".
    """
    with tempfile.TemporaryDirectory() as scratch:
        launch(_train_in_group, 2, names, steps, scratch)
        out: dict[str, tuple[float, float] | str] = {}
        for name in names:
            paths = [Path(scratch) / f"{name}.{rank}.pt" for rank in range(2)]
            two, other = (
                torch.load(path, weights_only=True) if path.is_file() else "no result"
                for path in paths
            )
            if isinstance(two, str) or isinstance(other, str):
                out[name] = str(two if isinstance(two, str) else other)
                continue
            if apart := [n for n, v in two.items() if not torch.equal(v, other[n])]:
                out[name] = f"the two processes hold different {', '.join(apart)}"
                continue
            one = _train_double(Subject.of(*name.split()), steps, 1)
            gaps = {
                n: (v.double() - two[n].double()).abs().max().item()
                for n, v in one.items()
                if v.numel()
            }
            weights = max(v for n, v in gaps.items() if n not in LIKELIHOODS)
            out[name] = weights, max([0.0, *(gaps.get(n, 0.0) for n in LIKELIHOODS)])
    return out


def _train_double(subject: Subject, steps: int, world: int, **options: Any) -> dict[str, Tensor]:
    """The state after a few steps in float64, and the validation's likelihood."""
    batch = subject.data().batch_size // 2 * 2
    model = subject.model().double()
    if subject.entry.can & {"log_prob", "elbo"}:
        callback = importlib.import_module("callbacks.bits_per_dim").BitsPerDim()
        options |= {"callbacks": [callback], "limit_val_batches": 3}
    with tempfile.TemporaryDirectory() as scratch:
        options |= {"precision": "64-true", "default_root_dir": scratch}
        trainer = subject.fit(model, steps, subject.data(batch_size=batch // world), **options)
    said = {n: v for n, v in trainer.callback_metrics.items() if n in LIKELIHOODS}
    return {n: v.clone() for n, v in (model.state_dict() | said).items()}


def _train_in_group(names: tuple[str, ...], steps: int, scratch: str) -> None:
    for name in names:
        try:
            subject = Subject.of(*name.split())
            strategy = strategy_for(subject)
            result: Any = _train_double(subject, steps, 2, devices=2, strategy=strategy)
        except Exception as error:  # reported as this model's failure
            result = f"{type(error).__name__}: {error}"
        torch.save(result, Path(scratch) / f"{name}.{os.environ['LOCAL_RANK']}.pt")


def resume_in_group(names: tuple[str, ...], scratch: str) -> None:
    """In each of two processes: resume every model; "equal" or what differs is in SCRATCH/NAME."""
    os.environ["ZOO_CHECK_FOLDER"] = scratch
    for name in names:
        subject = Subject.of(name)
        try:
            resume(subject, devices=2, strategy=strategy_for(subject))
            outcome = "equal"
        except Exception as error:  # reported as this model's failure
            outcome = f"{type(error).__name__}: {error}"
        if os.environ["LOCAL_RANK"] == "0":
            (Path(scratch) / name).write_text(outcome)


def strategy_for(subject: Subject) -> str:
    """Lightning's strategy; a game's backward passes each touch one player."""
    return "ddp_find_unused_parameters_true" if plays(subject.cls, subject.entry) else "ddp"


def launch(function: Callable[..., None], world: int, *args: Any) -> None:
    """Run a function in ``world`` new gloo processes that Lightning takes for its own."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torch.multiprocessing.spawn(_member, (function, world, port, args), nprocs=world)


def _member(
    rank: int, function: Callable[..., None], world: int, port: int, args: tuple[Any, ...]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank))
    os.environ.update(NODE_RANK="0", WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    hush()
    try:
        function(*args)
    except BaseException:
        leave_group(together=False)
        raise
    leave_group()
