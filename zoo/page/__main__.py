"""``python -m zoo.page``: write the page of a run again, from its folder.

python -m zoo.page --ckpt runs/began-...
python -m zoo.page --ckpt last
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zoo import runs
from zoo.page import write
from zoo.pipes import quietly


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    parser = argparse.ArgumentParser(prog="python -m zoo.page", description="Write a run's page.")
    parser.add_argument("--ckpt", required=True, help="a run folder, or last: the newest run")
    args = parser.parse_args(arguments)
    try:
        folder = Path(args.ckpt).expanduser()
        if args.ckpt in runs.KEPT or folder.is_file():
            folder = runs.folder_of(runs.checkpoint_of(args.ckpt)) or folder
        print(write(folder))
    except (ValueError, OSError) as error:
        print(f"zoo.page: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(quietly(main))
