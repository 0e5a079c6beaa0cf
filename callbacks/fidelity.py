"""Distances between generated and real images, with the protocol that makes the numbers
comparable.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from callbacks.report import (
    Observer,
    image_fields,
    log_scalars,
    score_field,
    versions,
    write_protocol,
)
from zoo.core.batch import Batch
from zoo.core.column import column
from zoo.core.draw import BLOCK, draw_fields
from zoo.core.ema import averaged
from zoo.core.noise import seeded
from zoo.core.options import Count, Range, Whole
from zoo.core.spec import Label
from zoo.core.threads import machine
from zoo.metrics import (
    PRDC,
    AMScore,
    Extractor,
    FrechetDistance,
    Inception,
    InceptionScore,
    KernelDistance,
    ParzenWindow,
    choose,
)
from zoo.metrics.inception import inception_file
from zoo.metrics.parzen import GRID

Named = Literal["auto", "inception", "datanet", "pixels"]
Pair = Annotated[int, Range(2)]  # images, of which a covariance takes two
PATIENCE = 10.0  # seconds that an evaluation may take without a progress bar
WEAK = 0.5  # of held-out images, that a classifier is right about: below, its scores mean little
MANY = 10_000  # samples from which on KID and IS are computed as in the papers; KID keeps no more


class Fidelity(Observer):
    """Scores samples of an image model against the data at the end of every validation.

    For each extractor X: ``val/fid_X``, ``val/kid_X``, ``val/precision_X``, ``val/recall_X``,
    ``val/density_X``, ``val/coverage_X``; with class probabilities also ``val/is_X``, ``val/am_X``
    (the AM score), and ``val/classes_X``, how many classes receive at least 2 % of the samples; for
    models conditioned on the class ``val/cond_acc_X``, the share of samples that the extractor's
    classifier, which never saw one, gives their label. With ``parzen``, ``val/parzen_nats`` of
    held-out images and its window's ``val/parzen_sigma``. Only numbers of the Inception network
    stand without X. A score that these data or samples do not allow (too few rows, images all
    alike) is left out, with a line that says why. Of a model that makes several fields of images
    the first is scored under these names, each other, NAME, under ``val/fid_X_NAME``; so is what a
    translator of two domains makes of b on its way back, ``val/fid_X_a``. How they were
    measured is written to protocol.json and the W&B config, with what held-out images score in the
    samples' place, and how often a classifier of the data's own is right about them; where that is
    seldom, one line says that its scores mean little.

    Samples come in blocks of 64, dealt out to the processes in turn, each block from its own seed:
    the values do not depend on the number of processes. Real features are computed once a run. A
    model is told what rows of the reference split say, drawn with replacement.

    Args:
        extractor: "inception", "datanet" (a small network trained on the run's data), "pixels", or
            "auto": inception where its weights are found, else datanet.
        pixels: also score raw pixels. parzen: also a gaussian window on the samples' pixels
            (``zoo.metrics.parzen``).
        n_fake: generated images, over all processes. n_real: reference images; all by default.
            reference: their split.
        precision_recall_n: images of either kind for precision, recall, density and coverage. k:
            neighbours of the same.
        seed: of the samples.
        inception_weights: the weight file, or "download". enabled: whether it is done.
    """

    name = "fidelity"

    def __init__(
        self,
        extractor: Named = "auto",
        pixels: bool = True,
        n_fake: Pair = 1500,
        n_real: Pair | None = None,
        reference: Literal["train", "val", "test"] = "train",
        precision_recall_n: Pair = 750,
        k: Count = 3,
        seed: Whole = 0,
        inception_weights: str | None = None,
        parzen: bool = False,
        enabled: bool = True,
    ) -> None:
        for name, value in (
            ("n_fake", n_fake),
            ("n_real", n_real),
            ("precision_recall_n", precision_recall_n),
        ):
            if value is not None and value <= k:
                raise ValueError(f"fidelity: {name} is more than k={k}, got {value}")
        self.enabled = enabled
        self.extractor, self.pixels, self.parzen = extractor, pixels, parzen
        self.n_fake, self.n_real, self.reference = n_fake, n_real, reference
        self.precision_recall_n, self.k = precision_recall_n, k
        self.seed, self.inception_weights = seed, inception_weights
        self._scorers: list[_Scorer] = []
        self._window: ParzenWindow | None = None
        self._held_out: dict[str, Any] = {}
        self._data: Any = None
        self._others: dict[str, Fidelity] = {}  # of further fields

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        if self.extractor == "inception" and str(self.inception_weights) != "download":
            inception_file(self.inception_weights)  # a missing one fails before the first step

    def unserved(self, trainer: Any, module: Any) -> str:
        return score_field(trainer, module)[1]

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking and self.serves(trainer, module):
            with self.spared(trainer, "the scores"):
                log_scalars(trainer, module, self.scores(trainer, module))

    def scores(self, trainer: Any, module: Any) -> dict[str, float]:
        """All values by name, equal on all processes; all processes call it together."""
        first, *others = image_fields(module)
        values = self._scores(trainer, module, first, "fidelity")
        games = dict.fromkeys(others, module)
        if hasattr(module, "turned") and (back := module.turned()):
            games[back.makes[0]] = back
        for field, game in games.items():
            if field not in self._others:
                self._others[field] = copy.copy(self)
                self._others[field]._data = None
            found = self._others[field]._scores(trainer, game, field, f"fidelity of {field}")
            values |= {f"{name}_{field}": value for name, value in found.items()}
        return values

    # -- parts ------------------------------------------------------------------------------------
    def _scores(self, trainer: Any, module: Any, field: str, said: str) -> dict[str, float]:
        """The values of one field; how they were measured is written down as ``said``."""
        source, spec = trainer.datamodule, module.spec[field]
        # float64, which the metrics need, is not everywhere.
        device = module.device if module.device.type == "cuda" else torch.device("cpu")
        with torch.inference_mode(False), torch.no_grad():
            if self._data is not source:
                self._prepare(trainer, column(source, field), device)
                self._data = source
            told = self._told(module, source)
            labels = told.get("y") if isinstance(module.spec.fields.get("y"), Label) else None
            with averaged(trainer, module) as ema:
                for scorer in self._scorers:
                    scorer.reset()
                if self._window:
                    self._window.reset()
                for start, size in self._blocks(trainer, self.n_fake, "samples"):
                    rows = told.rows(slice(start, start + size), size)
                    made = draw_fields(module, size, self.seed, start=start, told=rows)
                    x = made[field].to(device)
                    for scorer in self._scorers:
                        scorer.update(x, spec, start, real=False)
                    if self._window:
                        self._window.update(spec.to_unit(x).flatten(1), start, real=False)
            values: dict[str, float] = {}
            if self._window:
                values |= self._taken("val/parzen_{}", {"nats, sigma": self._window.compute})
            for scorer in self._scorers:
                values |= self._taken(f"val/{{}}{scorer.suffix}", scorer.scores(labels))
        write_protocol(trainer, {said: self._protocol(trainer, module, field, ema)})
        return values

    def _prepare(self, trainer: Any, data: Any, device: torch.device) -> None:
        """Choose the extractors and compute the real features, once a run."""
        names = dict.fromkeys([self.extractor, *(["pixels"] if self.pixels else [])])
        bar = trainer.is_global_zero
        extractors = []
        for name in names:
            try:
                extractors.append(
                    choose(name, data, inception_weights=self.inception_weights, progress=bar)
                )
            except ValueError as error:
                self.say(f"scores by {name} left out: {error}")
        size = data.count(self.reference)
        self._n_real = size if self.n_real is None else min(self.n_real, size)
        papers = min(self.n_fake, self._n_real) >= MANY
        pairs = min(self.precision_recall_n, self._n_real, self.n_fake)
        self._scorers = [
            _Scorer.of(e.to(device), device, papers, pairs, self.k) for e in extractors
        ]
        for start, size in self._blocks(trainer, self._n_real, "reference images"):
            x = data.examples(size, self.reference, start)["x"].to(device)
            for scorer in self._scorers:
                scorer.update(x, data.spec, start, real=True)
        if self.parzen:
            self._window = ParzenWindow(data.spec.dim).to(device)
            for start, size in self._blocks(trainer, data.count("val"), "held-out images"):
                held_out = data.spec.to_unit(data.examples(size, "val", start)["x"])
                self._window.update(held_out.flatten(1).to(device), start, real=True)
        self._held_out = self._measured(trainer, data, device)

    def _measured(self, trainer: Any, data: Any, device: torch.device) -> dict[str, Any]:
        """What held-out images score in the samples' place, by the extractors that were made for
        these data, and how often their classes are right.
        """
        split = "test" if self.reference == "val" else "val"
        n = min(self.n_fake, data.count(split))
        scorers = [scorer for scorer in self._scorers if scorer.extractor.about_data]
        for start, size in self._blocks(trainer, n, "held-out images"):
            x = data.examples(size, split, start)["x"].to(device)
            for scorer in scorers:
                scorer.update(x, data.spec, start, real=False)
        papers = len(scorers) < len(self._scorers)  # Inception measures too
        better = "; Inception's mean more of photographs (--fidelity.extractor=inception)"
        labels = data.examples(n, split)["y"] if data.spec.num_classes else None
        scores: dict[str, float] = {}
        for scorer in scorers:
            name = scorer.extractor.name
            scores |= self._taken(f"{{}}_{name}", scorer.scores(labels), " of held-out images")
            accuracy = scores.pop(f"cond_acc_{name}", None)  # they are what their labels say
            scorer.about["held_out_accuracy"] = accuracy
            if accuracy is not None and accuracy < WEAK:
                self.say(
                    f"{name} classifies {accuracy:.0%} of held-out images rightly: its scores mean "
                    f"little here{'' if papers else better}"
                )
        return {"split": split, "n": n, "scores": scores}

    def _taken(
        self, named: str, scores: dict[str, Callable[[], dict[str, Tensor]]], of: str = ""
    ) -> dict[str, float]:
        """The values of scores that these rows allow; one line says of each other why not."""
        values: dict[str, float] = {}
        for group, take in scores.items():
            try:
                found = take()
            except (ValueError, torch.linalg.LinAlgError) as error:
                missing = ", ".join(named.format(k) for k in group.split(", "))
                self.say(f"{missing}{of} left out: {error}")
            else:
                values |= {named.format(k): float(v) for k, v in found.items()}
        return self.numbers(values, f"not a number for these samples{of}")

    def _blocks(self, trainer: Any, n: int, what: str) -> Any:
        """(start, size) of this process's blocks; a bar on the first process once it is clear that
        it takes long.
        """
        blocks = [(start, min(BLOCK, n - start)) for start in range(0, n, BLOCK)][
            trainer.global_rank :: trainer.world_size
        ]
        began, bar = time.monotonic(), None
        for done, block in enumerate(blocks):
            if (
                bar is None
                and done
                and trainer.is_global_zero
                and (time.monotonic() - began) / done * len(blocks) > PATIENCE
            ):
                from tqdm import tqdm

                bar = tqdm(total=len(blocks), initial=done, desc=f"fidelity, {what}", leave=False)
            yield block
            if bar is not None:
                bar.update()
        if bar is not None:
            bar.close()

    def _told(self, module: Any, data: Any) -> Batch:
        """What the model is told: rows of the reference split, drawn with replacement."""
        if not module.told:
            return Batch({}, self.n_fake)
        size, g = data.count(self.reference), seeded(self.seed, "labels")
        rows = torch.randint(size, (self.n_fake,), generator=g)
        parts = [data.evaluation_batch(self.reference, part) for part in rows.split(1024)]
        fields = {k: torch.cat([part[k] for part in parts]) for k in module.told}
        return Batch(fields, self.n_fake)

    def _protocol(self, trainer: Any, module: Any, field: str, ema: bool) -> dict[str, Any]:
        spec, first = module.spec, self._scorers[0] if self._scorers else None
        averages = next(
            (
                c.describe(module)
                for c in trainer.callbacks
                if ema and hasattr(c, "current_average")
            ),
            None,
        )
        return {
            "data": spec.name,
            "reference": self.reference,
            "n_real": self._n_real,
            "n_fake": self.n_fake,
            "quantised_to_levels": getattr(spec[field], "levels", None),
            "weights": {"ema": averages} if averages else "raw",
            "seed": self.seed,
            "labels": "drawn from the reference split's" if module.told else None,
            "extractors": {scorer.extractor.name: scorer.about for scorer in self._scorers},
            "held_out": self._held_out,
            **(first.protocol(self._n_real, self.n_fake) if first else {}),
            "parzen": {"held_out": "val", "sigmas": [*GRID]} if self.parzen else None,
            "machine": machine(),
            "versions": versions(),
        }


@dataclass
class _Scorer:
    """One extractor and its metrics."""

    extractor: Extractor
    about: dict[str, Any]
    fid: FrechetDistance
    kid: KernelDistance
    prdc: PRDC
    score: InceptionScore | None
    am: AMScore | None
    papers: bool

    @classmethod
    def of(
        cls, extractor: Extractor, device: torch.device, papers: bool, pairs: int, k: int
    ) -> _Scorer:
        """Metrics as the papers have them for many samples (KID: 100 subsets of 1000; IS: 10
        splits), else 50 of 200 and one split.
        """
        dim, classes = extractor.dim, extractor.num_classes
        subsets, size = (100, 1000) if papers else (50, 200)
        return cls(
            extractor,
            extractor.describe(),
            FrechetDistance(dim).to(device),
            KernelDistance(dim, subsets, size, keep=MANY).to(device),
            PRDC(dim, k, keep=pairs).to(device),
            InceptionScore(classes, 10 if papers else 1).to(device) if classes else None,
            AMScore(classes).to(device) if classes and extractor.about_data else None,
            papers,
        )

    @property
    def suffix(self) -> str:
        return "" if isinstance(self.extractor, Inception) else f"_{self.extractor.name}"

    def reset(self) -> None:
        for metric in (self.fid, self.kid, self.prdc, self.score, self.am):
            if metric is not None:
                metric.reset()

    def update(self, x: Tensor, spec: Any, start: int, real: bool) -> None:
        features, p = self.extractor(x, spec)
        self.fid.update(features, real=real)
        self.kid.update(features, start, real=real)
        self.prdc.update(features, start, real=real)
        if self.score is not None and p is not None and not real:
            self.score.update(p, start)
        if self.am is not None and p is not None:
            self.am.update(p, start, real=real)

    def scores(self, labels: Tensor | None) -> dict[str, Callable[[], dict[str, Tensor]]]:
        """How to take each score, or those that come together, by their names."""
        taken: dict[str, Callable[[], dict[str, Tensor]]] = {
            "fid": lambda: {"fid": self.fid.compute()},
            "kid": lambda: {"kid": self.kid.compute()[0]},
            "precision, recall, density, coverage": self.prdc.compute,
        }
        score, am = self.score, self.am
        if score is not None:
            taken["is"] = lambda: {"is": score.compute()[0]}
            if am is not None:
                taken["classes"] = lambda: {"classes": score.compute()[2]}
                taken["am"] = lambda: {"am": am.compute()[0]}
                if labels is not None:
                    taken["cond_acc"] = lambda: {"cond_acc": self._right(score, labels)}
        return taken

    @staticmethod
    def _right(score: InceptionScore, labels: Tensor) -> Tensor:
        with score.sync_context():  # the rows of all processes
            said = score.kept("fake").argmax(1)
        return (said == labels.to(said)).double().mean()

    def protocol(self, n_real: int, n_fake: int) -> dict[str, Any]:
        """What a protocol says about the scores."""
        return {
            "precision_recall": {"n": self.prdc.keep, "k": self.prdc.k},
            "kid": {
                "subsets": self.kid.subsets,
                "subset_size": min(self.kid.subset_size, n_real, n_fake),
                "of_first": MANY,
            },
            "is_splits": 10 if self.papers else 1,
        }
