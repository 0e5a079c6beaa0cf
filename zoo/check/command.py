"""The command line of ``python -m zoo.check``; its help and its mistakes need no torch."""

from __future__ import annotations

import argparse
import os
import sys

from zoo import registry

EPILOG = """examples:
  python -m zoo.check began               one model
  python -m zoo.check my_models.RSGAN     a class of your own, by its path; --data says which data
                                          it is tried on where @register does not
  python -m zoo.check --all               every model
  python -m zoo.check --all --slow        also the gates of the default runs (minutes a model)

A check that does not apply to a model for a known reason stands in its waive=; a waived check that
passes is a failure too."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 1 if any check failed, 2 for a mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.check",
        description="Check that models keep the contract.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="models, or paths of classes of your own")
    parser.add_argument("--all", action="store_true", help="every model of the zoo")
    parser.add_argument("--data", help="the data of classes of your own: a name, or a class's path")
    parser.add_argument("--slow", action="store_true", help="also the gates of the default runs")
    parser.add_argument("--only", help="one check, by name")
    args = parser.parse_args(arguments)
    names = registry.list() if args.all else args.names
    if not names:
        parser.error("name a model, or --all")
    sys.path.insert(0, os.getcwd())  # classes of one's own lie where one is

    from zoo.check.run import run  # which brings torch

    return run(names, args)
