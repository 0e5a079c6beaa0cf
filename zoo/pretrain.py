"""``python -m zoo.pretrain``: train the networks that models and metrics look through.

    python -m zoo.pretrain                     what there is
    python -m zoo.pretrain --net percep        train one, unless it is kept
    python -m zoo.pretrain --net all

They are trained on data that come with the zoo, once, and kept in $ZOO_CACHE; a model that needs
one trains it itself.
"""

from __future__ import annotations

import argparse
import sys
import time

from zoo.pipes import quietly

NETS = (
    "percep",
    "ident",
    "text",
    "digitcls",
    "agecls",
)  # of ``zoo.auxiliary``, which imports torch


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.pretrain", description="Train the networks that models look through."
    )
    parser.add_argument("--net", help="its name, or all; without, the names are listed")
    asked = parser.parse_args(arguments).net

    from zoo import auxiliary, registry

    nets = auxiliary.NETS
    if asked is None:
        wide = max(map(len, nets))
        print(*(f"{name:<{wide}}  {of.about}" for name, of in nets.items()), sep="\n")
        return 0
    if asked not in (*nets, "all"):
        near = registry.suggest(asked, nets, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(nets)}"
        print(f"zoo.pretrain: error: there is no network {asked!r}; {hint}", file=sys.stderr)
        return 2
    for name in nets if asked == "all" else [asked]:
        try:
            _train(nets[name])
        except (ValueError, OSError) as error:
            print(f"zoo.pretrain: error: {error}", file=sys.stderr)
            return 2
    return 0


def _train(recipe) -> None:
    from zoo.auxiliary import net

    file, start = recipe.file(recipe.of()), time.monotonic()
    there = file.is_file()
    found = net(recipe.name)
    took = "kept" if there else f"trained in {time.monotonic() - start:.0f} s"
    print(f"{recipe.name}: {recipe.about}")
    print(f"  right       {recipe.score(found):.3f} of the time on validation images of")
    print(f"              {recipe.module().spec}")
    print(f"  by chance   {recipe.chance():.3f}")
    print(f"  weights     {file} ({took})")


if __name__ == "__main__":
    sys.exit(quietly(main))
