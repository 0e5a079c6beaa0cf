"""Samplers and densities that know next to nothing of the data, and what gates make of them.

``Trivial`` is a model like any other to the callbacks, so its scores are measured as a model's are;
of a model that makes other fields than x, by the first one alone:

    uniform      every level equally likely; every place of the data's square, for points
    gaussian     one normal distribution with the mean and covariance of the data; of levels its
                 dequantised bound
    independent  each pixel from the same place of another example; of densities a normal
                 distribution for each value, of masses the frequencies of its levels
    mean         the mean example, always the same
    circle       points of the plane at the data's mean distance from the origin, without noise
    held_out     validation and test examples: what a perfect model would score
"""

from __future__ import annotations

import functools
import json
import math
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from zoo import trust
from zoo.check.checks import meets
from zoo.check.subject import Given, Subject
from zoo.check.subject import found as found_class
from zoo.config import CALLBACKS, layer
from zoo.core import GenerativeModule, Image
from zoo.core.column import column
from zoo.core.likelihood import dequantise, log_frequencies, row_noise

LOOKING = ("fidelity", "mode_coverage")  # callbacks that gates rest on
KINDS = ("uniform", "gaussian", "independent", "mean", "circle")
DENSITIES = KINDS[:3]
# Gates on these are held against the trivial likelihoods too, all in nats of an example, the less
# the better but where they are bounds from below.
NATS = {"val/nll_nats": 1, "val/iw_nll": 1, "val/csl_nats": 1, "val/elbo": -1}


class Trivial(GenerativeModule):
    """One of ``KINDS``, or "held_out".

    Args:
        kind: which. data: whose training examples it is made of. told: what it is told, to which
            held-out data alone listen.
    """

    told: Any = ()

    def __init__(self, spec: Any, kind: str, data: Any, told: tuple[str, ...] = ()) -> None:
        super().__init__(spec)
        self.kind, self.told = kind, told
        self.unit = nn.Parameter(torch.ones(()))  # float_dtype and device are those of a parameter
        self.rows = data.examples()["x"].float()
        held_out = [data.examples(split=s) for s in ("val", "test")]
        self.other = torch.cat([batch["x"] for batch in held_out]).float()
        self.labels = torch.cat([batch["y"] for batch in held_out]) if "y" in told else None
        self.mu = self.values(self.rows).double().mean(0)

    @functools.cached_property
    def cov(self) -> Tensor:
        return torch.atleast_2d(torch.cov(self.values(self.rows).double().T))

    def values(self, x: Tensor) -> Tensor:
        """(B, D) on the scale of the normal distribution: levels in their middle on [0, 1]."""
        levels = self.spec.levels
        return (x if levels is None else (x + 0.5) / levels).flatten(1)

    # -- samples ----------------------------------------------------------------------------------
    def sample(self, n: int, *, generator: torch.Generator | None = None, **told: Tensor) -> Tensor:
        made: Callable[..., Tensor] = getattr(self, f"_{self.kind}")
        heard = {"y": told["y"]} if self.kind == "held_out" and "y" in told else {}
        x = made(n, generator, **heard).float()
        return x.view(n, *self.spec.shape)

    def _uniform(self, n: int, g: Any) -> Tensor:
        if (levels := self.spec.levels) is not None:
            return torch.randint(levels, (n, self.spec.dim), generator=g)
        low, high = self.rows.amin(0), self.rows.amax(0)
        return low + (high - low) * torch.rand(n, self.spec.dim, generator=g)

    def _gaussian(self, n: int, g: Any) -> Tensor:
        """Sums of the centred rows with normal weights, whose covariance is the rows' own."""
        v = self.values(self.rows).double()
        weights = torch.randn(n, len(v), generator=g, dtype=torch.float64) / math.sqrt(len(v) - 1)
        v = self.mu + weights @ (v - self.mu)
        levels = self.spec.levels
        return v if levels is None else (v * levels).floor().clamp(0, levels - 1)

    def _independent(self, n: int, g: Any) -> Tensor:
        at = torch.randint(len(self.rows), (n, self.spec.dim), generator=g)
        return self.rows.flatten(1).gather(0, at)

    def _mean(self, n: int, g: Any) -> Tensor:
        mean = self.rows.flatten(1).mean(0)
        return (mean if self.spec.levels is None else mean.round()).expand(n, -1)

    def _circle(self, n: int, g: Any) -> Tensor:
        angle = math.tau * torch.rand(n, generator=g)
        radius = self.rows.norm(dim=1).mean()
        return radius * torch.stack([angle.cos(), angle.sin()], 1)

    def _held_out(self, n: int, g: Any, y: Tensor | None = None) -> Tensor:
        score = torch.rand(n, len(self.other), generator=g)
        if y is not None:
            score = score * (self.labels == y.cpu()[:, None])  # of the class that is asked for
        return self.other[score.argmax(1)]

    # -- likelihoods ------------------------------------------------------------------------------
    def nats(self, x: Tensor, mass: bool = True) -> Tensor:
        """-log P(x), (B,), or its bound from a dequantised density unless ``mass``."""
        levels = self.spec.levels
        if self.kind == "uniform":
            if levels is None:
                low, high = self.rows.amin(0), self.rows.amax(0)
                return (high - low).log().sum().expand(len(x))
            return torch.full((len(x),), self.spec.dim * math.log(levels))
        if self.kind == "independent" and levels is not None and mass:
            log_p = log_frequencies(self.rows, levels)
            return -log_p.gather(1, x.flatten(1).long().T).sum(0)
        cov = self.cov if self.kind == "gaussian" else self.cov.diag().diag()
        constant = 0.0
        if levels is None:
            v = x.flatten(1).double()
        else:
            cov = cov + torch.eye(len(cov)).double() / (12 * levels**2)  # of the noise
            u = row_noise(torch.rand, x, x.shape[1:])
            y, constant = dequantise(x, levels, u)
            v = y.flatten(1).double()
        normal = torch.distributions.MultivariateNormal(self.mu, cov)
        return -(normal.log_prob(v) + constant)


def rows(subject: Subject, mass: bool | None = None) -> dict[str, dict[str, float]]:
    """What each trivial row, and held-out data, score where the model's gates look, by metric.

    Args:
        mass: whether independent levels are judged by their frequencies, not by the bound of a
            density; as the model is, by default.
    """
    document = layer(["--model", subject.name]).document if subject.inside else {}
    callbacks = {name: document.get(name) or {} for name in LOOKING}
    if mass is None:
        mass = subject.entry.likelihood != "dequantised_bound"
    model = subject.model()
    scored = callbacks, mass, model.told, model.makes[0]
    return _measured(json.dumps([subject.data_class, subject.data_params, *scored]))


class Field(Given):
    """A data module's field alone, as x.

    Args:
        data: a data module that has it. field: its name.
    """

    def __init__(self, data: Any, field: str) -> None:
        self.of = column(data, field)
        super().__init__(self.of.spec)

    def load(self) -> dict[str, Any]:
        parts = {name: self.of.examples(split=name) for name in ("train", "val", "test")}
        return {name: {k: part[k] for k in self.spec} for name, part in parts.items()}


@functools.cache  # models share their data
def _measured(key: str) -> dict[str, dict[str, float]]:
    data_class, params, options, mass, told, field = json.loads(key)
    data = trust.class_of(data_class, "data", [])(**params)
    data = data if field == "x" else Field(data, field)
    data.setup()
    found = {}
    plane = not data.spec.has(x=Image) and data.spec.dim == 2
    for kind in ("held_out", *KINDS):
        if (kind == "circle" and not plane) or (kind == "independent" and plane):
            continue  # coordinates of a grid are independent
        known = tuple(name for name in told if name in data.spec)  # of a field alone, its class
        model = Trivial(data.spec, kind, data, known).eval()
        callbacks = [found_class(CALLBACKS[name])(**options[name]) for name in LOOKING]
        with tempfile.TemporaryDirectory() as scratch:  # for what callbacks write
            trainer = Trainer(
                default_root_dir=scratch,
                accelerator="cpu",
                devices=1,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                callbacks=callbacks,
            )
            trainer.validate(model, data, verbose=False)
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        if kind in DENSITIES:
            values |= likelihoods(model, data, mass)
        found[kind] = values
    return found


def likelihoods(model: Trivial, data: Any, mass: bool) -> dict[str, float]:
    """What a density or mass of a trivial model says of validation and test examples."""
    x, unseen = (data.examples(split=s)["x"].float() for s in ("val", "test"))
    nats, tested = (model.nats(rows, mass).mean().item() for rows in (x, unseen))
    values = {"test/nll_nats": tested} | {name: sign * nats for name, sign in NATS.items()}
    if data.spec.has(x=Image):
        values["val/bits_per_dim"] = nats / (data.spec.dim * math.log(2))
        values["test/bits_per_dim"] = tested / (data.spec.dim * math.log(2))
    return values


def passes(gates: Any, values: dict[str, float]) -> bool | None:
    """Whether values pass every gate that they speak of; None where they speak of none."""
    spoken = [(m, s, t) for m, s, t in gates if m in values]
    if not spoken:
        return None
    return all(meets(values[m], s, t) for m, s, t in spoken)
