"""Running checks, as ``python -m zoo.check NAME`` does."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from dataclasses import dataclass

import torch

from zoo import registry, start
from zoo.check import densities, everyone, games, gates, processes  # noqa: F401 (each has checks)
from zoo.check.checks import CHECKS
from zoo.check.quiet import hush
from zoo.check.subject import Subject, entry_of, found
from zoo.config import UsageError


@dataclass
class Result:
    """What one check said of one model."""

    name: str
    check: str
    outcome: str  # passed, failed, waived
    detail: str
    seconds: float


def applicable(name: str, marks: tuple[str, ...] = ("", "ddp")) -> list[str]:
    """The checks that apply to a model, of these marks."""
    cls = found(name)
    entry = entry_of(cls)
    return [c for c, (_, applies, mark) in CHECKS.items() if mark in marks and applies(cls, entry)]


def waivers(name: str) -> dict[str, str]:
    """A model's waived checks, each with its reason."""
    return entry_of(found(name)).waive


def run_check(subject: Subject, check_name: str) -> Result:
    """Run one check on one model; a waived check that passes has failed."""
    function, _, _ = CHECKS[check_name]
    waiver = subject.entry.waive.get(check_name)
    started = time.time()
    try:
        function(subject)
        outcome, detail = "passed", ""
        if waiver:
            outcome = "failed"
            detail = f"waived ({waiver}) but it passes: remove the waiver"
    except Exception as error:
        text = str(error) or traceback.format_exc().splitlines()[-1]
        said = text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
        outcome, detail = ("waived", waiver) if waiver else ("failed", said)
    return Result(subject.name, check_name, outcome, detail, time.time() - started)


def run(names: list[str], args: argparse.Namespace) -> int:
    """Check these models as the command line says; returns the exit status."""
    marks = ("", "ddp", "slow") if args.slow else ("", "ddp")
    try:
        if args.only is not None and args.only not in CHECKS:
            near = registry.suggest(args.only, CHECKS)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CHECKS)}"
            raise ValueError(f"there is no check {args.only!r}; {hint}")
        options = ["--data", args.data] if args.data else []
        subjects = [Subject.of(name, *options) for name in names]
        wanted = {
            s.name: [c for c in applicable(s.name, marks) if args.only in (None, c)]
            for s in subjects
        }
        if not any(wanted.values()):
            slow = " (--slow runs it)" if CHECKS[args.only][2] == "slow" and not args.slow else ""
            raise ValueError(f"the check {args.only} applies to none of {', '.join(names)}{slow}")
    except (registry.UnknownName, ImportError, ValueError, UsageError) as error:
        print(f"zoo.check: error: {error}", file=sys.stderr)
        return 2
    hush()
    start.running()
    torch.set_num_threads(1)  # the nets are small, and processes share the cores
    processes.together[:] = [] if args.data else names
    failed = total = 0
    wide = max(len(s.name) for s in subjects)
    signs = {"passed": "ok", "failed": "FAILED", "waived": "waived"}
    for subject in subjects:
        for check_name in wanted[subject.name]:
            result = run_check(subject, check_name)
            total, failed = total + 1, failed + (result.outcome == "failed")
            said = f"{signs[result.outcome]:<7}{subject.name:<{wide}}  {check_name:<42}"
            print(f"{said}{result.seconds:6.1f} s  {result.detail}", flush=True)
    print(f"\n{total - failed} of {total} checks hold")
    return int(failed > 0)
