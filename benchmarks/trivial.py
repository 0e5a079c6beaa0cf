"""What scores mean on a dataset: those of the data themselves and of samplers that know next to
nothing, measured as ``zoo.fit`` measures a model's.

    python benchmarks/trivial.py heads
    python benchmarks/trivial.py digits --data.size=16 --keep    in configs/trivial.json, for pages

Rows: validation and test images; one half of the training images against the other half; a Gaussian
with the mean and covariance of the pixels, rounded to levels; every pixel from an image of its own
(independent pixels); uniform levels; the mean image.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import yaml
from torch import Tensor

from callbacks.fidelity import BLOCK, Fidelity, _Scorer
from zoo import trust
from zoo.config import folder, layer
from zoo.core.noise import seeded
from zoo.metrics import choose
from zoo.standards import TRIVIAL

Sampler = Callable[[int], Tensor]


def gaussian(x: Tensor, spec: Any, seed: int = 0) -> Sampler:
    """Images from one normal distribution over the pixels of x."""
    v = spec.to_unit(x).flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(v.T))
    root = vectors * values.clamp(min=0).sqrt()

    def draw(n: int) -> Tensor:
        z = torch.randn(n, v.shape[1], generator=seeded(seed, "gaussian"), dtype=torch.float64)
        return spec.from_unit((v.mean(0) + z @ root.T).float().view(n, *spec.shape))

    return draw


def independent(x: Tensor, spec: Any, seed: int = 0) -> Sampler:
    """Each value from the same place of an image drawn for it alone."""

    def draw(n: int) -> Tensor:
        rows = torch.randint(len(x), (n, spec.dim), generator=seeded(seed, "independent"))
        return x.flatten(1).gather(0, rows).view(n, *spec.shape)

    return draw


def uniform(x: Tensor, spec: Any, seed: int = 0) -> Sampler:
    """Every level equally likely."""
    g = seeded(seed, "uniform")
    return lambda n: torch.randint(spec.levels, (n, *spec.shape), generator=g).float()


def mean(x: Tensor, spec: Any, seed: int = 0) -> Sampler:
    """The mean image."""
    return lambda n: x.mean(0, keepdim=True).round().expand(n, *spec.shape)


def rows(data: Any) -> Iterator[tuple[str, Sampler, Tensor]]:
    """Names, samplers, and what they are compared with."""
    x, spec = data.examples()["x"], data.spec
    held_out = torch.cat([data.examples(split=s)["x"] for s in ("val", "test")])
    half = len(x) // 2
    yield "held-out images", lambda n: held_out[:n], x
    yield "half against half", lambda n: x[:half][:n], x[half:]
    for sampler in (gaussian, independent, uniform, mean):
        yield sampler.__name__, sampler(x, spec), x


def measure(
    extractor: Any, made: Tensor, real: Tensor, spec: Any, options: Fidelity
) -> dict[str, float]:
    papers = min(len(made), len(real)) >= 10_000
    pairs = min(options.precision_recall_n, len(made), len(real))
    scorer = _Scorer.of(extractor, torch.device("cpu"), papers, pairs, options.k)
    for images, of_data in ((real, True), (made, False)):
        for start in range(0, len(images), BLOCK):
            scorer.update(images[start : start + BLOCK], spec, start, real=of_data)
    found: dict[str, float] = {}
    for take in scorer.scores(None).values():
        found |= {k: float(v) for k, v in take().items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", help="a dataset of images")
    parser.add_argument("--keep", action="store_true", help="in configs/trivial.json")
    parser.add_argument("--n", type=int, default=1500, help="images of each row, at most")
    args, options = parser.parse_known_args()
    torch.set_num_threads(1)
    document = layer(["--model", "kde", "--data", args.data, *options])
    words = {o.partition("=")[0].removeprefix("--data."): o.partition("=")[2] for o in options}
    kind = trust.class_of(document.document["data"]["class_path"], "data", [])
    data: Any = kind(**{k: yaml.safe_load(v) for k, v in words.items()})
    kept: dict[str, dict[str, float]] = {}
    for name in ("datanet", "pixels"):
        extractor = choose(name, data)
        print(f"\n{data.spec}; features of {extractor.name}")
        head = False
        for row, sampler, real in rows(data):
            found = measure(extractor, sampler(args.n), real, data.spec, Fidelity())
            kept.setdefault(row, {}).update(
                {f"val/{k}_{extractor.name}": float(f"{v:.4g}") for k, v in found.items()}
            )
            if not head:
                print(f"{'':<26}" + "".join(f"{k:>11}" for k in found))
                head = True
            print(f"{row:<26}" + "".join(f"{v:11.3f}" for v in found.values()), flush=True)
    if args.keep:
        path = folder() / TRIVIAL
        known = json.loads(path.read_text()) if path.is_file() else {}
        known[data.spec.name] = kept
        path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
