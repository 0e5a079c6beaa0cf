"""Small models, data and a logger for the callbacks' tests."""

from __future__ import annotations

import torch
from lightning.pytorch.loggers.logger import Logger
from torch import nn

from tests.support import Given, fit
from zoo.bases import AdversarialModule, LikelihoodModule, LossModule, Phase
from zoo.core import DataSpec, Image, Spec
from zoo.registry import Entry

SPEC = DataSpec((1, 4, 4), 5, 3, "squares 4x4")
POINTS = DataSpec((2,), None, 0, "points")


def squares(n=50, spec=SPEC):
    """Data whose images are constant: level y + 1."""
    y = torch.arange(n) % 3
    return Given(
        spec, (y + 1.0)[:, None, None, None].expand(n, *spec.shape).clone(), y, batch_size=8
    )


def entry(name, **metadata):
    return Entry(
        name,
        "gan",
        __name__,
        name,
        taxonomy="implicit direct",
        **{k: frozenset(v) if k == "can" else v for k, v in metadata.items()},
    )


class Painter(LossModule):
    """Constant images of level y, or noise of its own; batch norm and dropout would show a trace of
    an evaluation.
    """

    entry = entry("painter", can={"sample", "reconstruct"}, told=("y",))

    def __init__(self, spec: Spec = SPEC) -> None:
        super().__init__(spec)
        self.net = nn.Sequential(
            nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)
        )

    def loss(self, batch):
        return {"loss": self.net(self.noise.normal(batch.n, 2)).square().mean()}

    def sample(self, n, *, y, generator=None):
        z = self.net(
            torch.randn(n, 2, generator=generator, device=self.device, dtype=self.float_dtype)
        )
        torch.rand(1)  # a careless draw from the global state
        if self.spec.has(x=Image):
            return (
                y.to(z.dtype)[:, None, None, None].expand(n, *self.spec.shape)
                + 0 * z[:, :1, None, None]
            )
        return z[:, : self.spec.dim]

    def reconstruct(self, x):
        return (x + 1 + 0 * torch.rand_like(x)).clamp(max=self.spec.levels - 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Free(Painter):
    """The same without labels: levels drawn at random."""

    entry = entry("free", can={"sample"})

    def sample(self, n, *, generator=None):
        z = self.net(
            torch.randn(n, 2, generator=generator, device=self.device, dtype=self.float_dtype)
        )
        if not self.spec.has(x=Image):
            return z[:, : self.spec.dim]
        levels = torch.randint(1, 4, (n, *self.spec.shape), generator=generator, device=self.device)
        return levels.to(z.dtype) + 0 * z[:, :1, None, None]

    def reconstruct(self, x):
        raise AssertionError("not declared, so not to be called")


class Gauss(LikelihoodModule):
    """log p(x) known by hand: -|x - m|²/2 summed over pixels; terms and a random part."""

    entry = entry("gauss", can={"log_prob"}, likelihood="exact_mass")

    def __init__(self, spec: Spec = SPEC) -> None:
        super().__init__(spec)
        self.m = nn.Parameter(torch.zeros(()))

    def log_prob(self, x, *, generator=None):
        return -(x - self.m).square().flatten(1).sum(1) / 2

    def evaluate(self, batch, generator=None):
        return {
            "first": batch["x"].flatten(1)[:, 0],
            "random": torch.rand(batch.n, generator=generator),
        }

    def loss(self, batch):
        return {"loss": (batch["x"] - self.m).square().mean()}

    def configure_optimizers(self):
        return torch.optim.SGD([self.m], 0.1)


class Bound(Gauss):
    entry = entry("bound", can={"elbo"}, likelihood="lower_bound")

    def elbo(self, x, *, generator=None):
        return Gauss.log_prob(self, x) - 1

    def log_prob(self, x, *, generator=None):
        raise AssertionError("not declared, so not to be called")


class Pair(AdversarialModule):
    """A game of two numbers: g and d move by one gradient step each."""

    entry = entry("pair", can={"sample"})

    def __init__(self, spec: Spec, k: int = 1) -> None:
        super().__init__(spec)
        self.g, self.d, self.k = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), k
        nn.init.ones_(self.g.weight)
        self.register_buffer("count", torch.zeros(()))
        self.spoil: dict[int, str] = {}

    def players(self):
        return {"d": self.d, "g": self.g}

    def phases(self):
        return [
            Phase("d", self.d_loss, repeat=self.k, critic=True),
            Phase("g", self.g_loss, reads=()),
        ]

    def d_loss(self, batch):
        return {"loss": self.d.weight.square().sum() + 0 * batch["x"].sum()}

    def g_loss(self, batch):
        extra = self.noise.normal(batch.n, 1).mean()
        return {"loss": self.g.weight.square().sum() / 2, "extra": extra}

    def after_cycle(self, terms):
        self.count += 1
        if self.trainer.global_step in self.spoil:
            terms["extra"] = torch.tensor(float(self.spoil[self.trainer.global_step]))

    def sample(self, n, *, generator=None):
        z = torch.rand(n, *self.spec.shape, generator=generator, dtype=self.float_dtype)
        return self.spec.from_unit(z * self.g.weight.abs())

    def optimisers(self):
        return {p: torch.optim.SGD(self.parameters_of(p), 0.1) for p in ("d", "g")}


class Recorder(Logger):
    """Keeps what it is given."""

    name, version = "recorder", "0"

    def __init__(self) -> None:
        super().__init__()
        self.metrics, self.images = [], []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, dict(metrics)))

    def log_image(self, key, images, step=None):
        self.images.append((step, key, images))

    def steps(self, prefix):
        return [
            step for step, metrics in self.metrics if any(k.startswith(prefix) for k in metrics)
        ]


def run(model, data, steps, *callbacks, every=None, **options):
    """Train with these callbacks in the current folder, validating every ``every`` steps."""
    checking = {"val_check_interval": every, "limit_val_batches": 1.0} if every else {}
    return fit(
        model, data, steps, callbacks=[*callbacks], default_root_dir=".", **{**checking, **options}
    )


def state(module):
    """Everything an evaluation might disturb."""
    tensors = {k: v.clone() for k, v in module.state_dict().items()}
    return tensors, [m.training for m in module.modules()], torch.get_rng_state()


def same(a, b):
    return (
        all(torch.equal(v, b[0][k]) for k, v in a[0].items())
        and a[1] == b[1]
        and torch.equal(a[2], b[2])
    )


class Witness:
    """Wraps a callback's hooks: each must leave the model and the random state as it found them."""

    def __init__(self, callback):
        self.calls = 0
        for hook in (
            "on_train_batch_end",
            "on_validation_batch_end",
            "on_validation_epoch_end",
            "on_train_end",
        ):
            setattr(callback, hook, self._watched(getattr(callback, hook)))

    def _watched(self, hook):
        def watched(trainer, module, *args, **kwargs):
            module.train()
            torch.manual_seed(11)
            before = state(module)
            hook(trainer, module, *args, **kwargs)
            assert same(before, state(module))
            self.calls += 1

        return watched
