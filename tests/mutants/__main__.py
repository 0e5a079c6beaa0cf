"""Are the tests tested? Applies each edit in a scratch copy and runs the tests that must notice.

    python -m tests.mutants vae gan     of these models
    python -m tests.mutants core        of a file of shared edits
    python -m tests.mutants             all (hours)
    python -m tests.mutants vae --only "the mean"    those whose words hold this

An edit is killed by the tests named in its file, then by the contract of its model (``--slow``:
also by what trains for long). Ends with 1 where one survives, where one's passage is no longer in
its file, or where the tests fail without it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

import zoo.cli  # noqa: F401  (libraries that every fork then has)
from tests.mutants.edits import ROOT, SHARED, Edit, books, edits
from zoo import check

COPIED = ("zoo", "callbacks", "configs", "tests", "benchmarks", "pyproject.toml", "README.md")
OURS = ("zoo", "callbacks", "tests", "benchmarks")
LIMIT = 900  # seconds for one run of tests; what does not end is noticed


def copy(target: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


def noticed(tree: Path, edit: Edit, slow: bool, quick: bool) -> str:
    """The test that fails in a tree, "" for none."""
    own = [t for t in edit.tests if (tree / t).is_file()]
    rounds = [[*own]] if own else []
    marks = ("", "ddp", "slow") if slow else ("",)
    if edit.family != SHARED and not quick:
        checks = check.applicable(edit.book, marks)
        name = "tests/test_contract.py::test_contract"
        rounds.append([f"{name}[{edit.book}-{c}]" for c in checks])
    if slow and own:
        rounds.append([*own, "-m", "slow or ddp"])
    return next((found for words in rounds if (found := failing(tree, words, slow))), "")


def failing(tree: Path, words: list[str], slow: bool) -> str:
    """Pytest in a fork, which has the libraries already and takes our own packages from the
    tree.
    """
    every = ["-m", ""] if "-m" not in words and slow else []
    quiet = ["-x", "-q", "-n", "0", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    report = tree / "report.txt"
    if (child := os.fork()) == 0:
        os.setsid()
        os.chdir(tree)
        for name in [n for n in sys.modules if n.split(".")[0] in OURS]:
            del sys.modules[name]
        sys.path[:] = [str(tree), *(p for p in sys.path if p not in ("", str(ROOT)))]
        sys.dont_write_bytecode = True
        os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(report, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os._exit(pytest.main([*quiet, *every, *words]))
    until = time.time() + LIMIT
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.time() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "does not end"
        time.sleep(0.05)
    status = os.waitstatus_to_exitcode(ended[1])
    if status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ""
    said = report.read_text(errors="replace")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    return found[1] if found else f"pytest ends with {status}: {said[-200:]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", help="models, or files of shared edits")
    parser.add_argument("--only", default="", help="edits whose words hold this")
    parser.add_argument("--quick", action="store_true", help="without the contract")
    parser.add_argument("--slow", action="store_true", help="also by what trains for long")
    args = parser.parse_args()
    known = books()
    if unknown := [n for n in args.names if n not in known]:
        print(f"no edits of {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    killed, total, bad = Counter[str](), Counter[str](), 0
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        copy(tree)
        for name in args.names or known:
            chosen = [e for e in edits(known[name]) if args.only in e.breaks]
            proper = [e for e in chosen if not e.why]
            if proper and (fault := noticed(tree, proper[0], args.slow, args.quick)):
                print(f"FAILS     {name:<20} {fault} fails without an edit", flush=True)
                bad += 1
                continue
            for edit in chosen:
                if edit.why:
                    print(f"equal     {name:<20} {edit.breaks}: {edit.why}", flush=True)
                    continue
                total[edit.family] += 1
                path, started = tree / edit.file, time.time()
                try:
                    before = path.read_text()
                    after = edit.applied(before)
                except (OSError, ValueError) as error:
                    print(f"STALE     {name:<20} {error}", flush=True)
                    bad += 1
                    continue
                path.write_text(after)
                try:
                    by = noticed(tree, edit, args.slow, args.quick)
                finally:
                    path.write_text(before)
                killed[edit.family] += bool(by)
                bad += not by
                said = f"killed    {name:<20} {edit.breaks}: {by}"
                said = said if by else f"SURVIVES  {name:<20} {edit.breaks}"
                print(f"{said} ({time.time() - started:.0f} s)", flush=True)
    print("\n| family | edits | killed |\n|---|---|---|")
    for family in total:
        print(f"| {family} | {total[family]} | {killed[family]} |")
    print(f"| all | {total.total()} | {killed.total()} |")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
