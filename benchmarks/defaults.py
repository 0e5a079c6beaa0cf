"""The documented default runs: trains each model as ``python -m zoo.fit --model NAME`` does, and
keeps its last values in configs/defaults.json, by which farewells and pages say what is normal.

    python benchmarks/defaults.py                     every model that the file lacks
    python benchmarks/defaults.py began vae --again   these, anew
    python benchmarks/defaults.py --keep runs/defaults    and keep the run folders (family_sheet.py)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from zoo import registry
from zoo.check.gates import last_metrics
from zoo.config import folder
from zoo.core import checkpoint
from zoo.standards import FILE

ALSO = {
    "began": ("digits",),
    "beta_vae": ("digits",),
    "ica": ("patches",),
}  # data with a default configuration of their own


def run(model: str, data: str | None, target: Path) -> None:
    words = ["--model", model, *(["--data", data] if data else []), f"--run_dir={target}"]
    quiet = ["--wandb.mode=disabled", "--trainer.enable_progress_bar=false"]
    done = subprocess.run(
        [sys.executable, "-m", "zoo.fit", *words, *quiet], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{model}: {done.stderr.splitlines()[-1:]}")


def found(target: Path) -> tuple[str, dict]:
    """What a run folder says: the data's name, and the rest."""
    saved = checkpoint.read(target / "checkpoints" / "last.ckpt")
    config = yaml.safe_load((target / "config.yaml").read_text())
    values = last_metrics(target / "metrics.csv")
    kept = {k: float(f"{v:.6g}") for k, v in values.items() if k.startswith("val/")}
    said = {
        "steps": saved["global_step"],
        "seed": config["seed_everything"],
        "values": kept,
        "machine": json.loads((target / "run.json").read_text()).get("machine", ""),
    }
    return saved["zoo"]["spec"]["name"], said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="*", help="all by default")
    parser.add_argument("--again", action="store_true", help="also those that the file has")
    parser.add_argument(
        "--keep", type=Path, help="folder of run folders; one that is there is read"
    )
    args = parser.parse_args()
    path = folder() / FILE
    known = json.loads(path.read_text()) if path.is_file() else {}
    for model in args.models or registry.list():
        for data in (None, *ALSO.get(model, ())):
            name = f"{model}-{data}" if data else model
            if not args.again and len(known.get(model, {})) > bool(data):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                target = (args.keep or Path(scratch)) / name
                if not (target / "checkpoints" / "last.ckpt").is_file():
                    run(model, data, target)
                of, said = found(target)
            known.setdefault(model, {})[of] = said
            path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
            print(
                f"{name}: {said['steps']:,} steps on {of}, {len(said['values'])} values", flush=True
            )


if __name__ == "__main__":
    main()
