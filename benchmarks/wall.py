"""Where the time of a default run goes: start, training, the rest (validation, scores, pictures),
exit, in seconds and as the share that is not training.

    python benchmarks/wall.py began vae made              this tree
    python benchmarks/wall.py vae --beside ../before      two trees in turn, as before and after

Each run is a process of its own with a warm file cache and no feature network in its cache; trees
take turns, so what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
STAGES = ("start", "training", "rest", "exit")


def child(model: str, folder: str, options: list[str]) -> None:
    """One run; prints when its stages ended."""
    began = float(os.environ["BEGAN"])
    from zoo import fit, pipes

    def main() -> int:
        import lightning.pytorch as pl

        from zoo.core.module import GenerativeModule

        spent = {"training": 0.0}
        start, end = GenerativeModule.on_train_batch_start, pl.LightningModule.on_train_batch_end
        own_end = GenerativeModule.on_train_batch_end

        def on_start(self, batch, index):
            spent.setdefault("first", time.time())
            spent["at"] = time.perf_counter()
            return start(self, batch, index)

        def on_end(self, outputs, batch, index):
            spent["training"] += time.perf_counter() - spent["at"]
            return own_end(self, outputs, batch, index)

        assert own_end is not end
        GenerativeModule.on_train_batch_start = on_start
        GenerativeModule.on_train_batch_end = on_end
        status = fit.main(
            ["--model", model, f"--run_dir={folder}", "--wandb.mode=disabled", *options]
        )
        done = time.time()
        whole = done - spent.get("first", done)
        said = {"start": spent.get("first", done) - began, "training": spent["training"]}
        said |= {"rest": whole - spent["training"], "done": done}
        print("\nWALL " + json.dumps(said), flush=True)
        return status

    sys.exit(pipes.quietly(main))


def measure(tree: Path, model: str, options: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        own = {"PYTHONPATH": str(tree), "ZOO_CACHE": f"{scratch}/cache", "BEGAN": str(time.time())}
        words = [sys.executable, __file__, model, "--child", f"{scratch}/run", *options]
        done = subprocess.run(
            words,
            env={**os.environ, **own},
            cwd=scratch,
            capture_output=True,
            text=True,
            check=True,
        )
        ended = time.time()
    line = next(x for x in done.stdout.splitlines() if x.startswith("WALL "))
    said = json.loads(line.removeprefix("WALL "))
    return {**said, "exit": ended - said.pop("done")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--beside", type=Path, help="another tree of the zoo, measured in turn")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args, options = parser.parse_known_args()
    if args.child:
        return child(args.models[0], args.child, options)
    trees = {"this": HERE, **({"beside": args.beside.resolve()} if args.beside else {})}
    print(f"{'model':<12} {'tree':<7}" + "".join(f"{s:>10}" for s in STAGES) + "   not training")
    for model in args.models:
        for _ in range(args.repeats):
            for name, tree in trees.items():
                said = measure(tree, model, options)
                share = 1 - said["training"] / sum(said[s] for s in STAGES)
                columns = "".join(f"{said[s]:8.1f} s" for s in STAGES)
                print(f"{model:<12} {name:<7}{columns} {share:13.0%}", flush=True)


if __name__ == "__main__":
    main()
