"""The base of every model: the data specification, stateless noise, logging, and what a checkpoint
must say of itself.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from zoo.core.asked import ASKED, checked
from zoo.core.batch import Batch
from zoo.core.lightning import attached, last_step
from zoo.core.noise import Noise, mix
from zoo.core.options import bound, check_options
from zoo.core.spec import Image, Spec, Vector

# What changes in every step and is no part of a network.
PASSING = frozenset({"logs", "noise", "terms", "_step", "_micro", "_current_fx_name"})
FORMAT = 2  # of what a checkpoint says of itself; 1, of version 0.1.0 and before, had no number


class NonFiniteLoss(RuntimeError):
    """A loss, one of its terms or a weight is NaN or infinite; the message names it."""


class GenerativeModule(LightningModule):
    """A model of the zoo. Subclasses write likelihood, losses, ``sample`` and optimisers;
    everything else stands here.

    Attributes:
        spec: the data this model is built for.
        params: the constructor's arguments but ``spec``, as plain values; a checkpoint carries
            them.
        noise: the random numbers of the current training step (``zoo.core.noise``).
        terms: the last training step's named scalars, detached; what is logged as ``train/NAME``.
        watches: the terms that the progress bar shows in the steps that have them; none: losses.
        logs: whether the training step at hand is one that is logged; what is only looked at need
            not be computed in the others. Without a logger every step is one: whoever reads
            ``terms`` may want all.
        accepts: the fields that the data must have, by name, each of one of these kinds.
        first_examples: how many training examples ``initialise_from`` asks for; None is all.
        settings: what else the run's numbers depend on, by option; set by the command, kept in
            checkpoints. changes: whether a resumed run may differ in them.
    """

    entry: ClassVar[Any] = None  # set by @register
    watches: ClassVar[tuple[str, ...]] = ()
    accepts: ClassVar[Mapping[str, Any]] = {"x": (Vector, Image)}
    stubs: ClassVar[frozenset[str]] = frozenset({"sample", "inpaint"})  # methods that only refuse
    first_examples: ClassVar[int | None] = None
    params: dict[str, Any]
    noise_seed: Tensor
    settings: Mapping[str, Any] = {}
    changes = False
    logs = True

    def __new__(cls, *args: Any, **kwargs: Any):
        module = super().__new__(cls)
        if args or kwargs:  # copy and pickle call without arguments
            name = cls.entry.name if cls.entry else cls.__name__
            given = bound(cls, module, args, kwargs)
            # A class of one's own may make its spec itself.
            if "spec" in given and not isinstance(spec := given.pop("spec"), Spec):
                raise TypeError(
                    f"{name}: spec is a Spec such as DataSpec((1, 8, 8), 17), got {spec!r:.60}"
                )
            check_options(name, cls.__init__, given)
            module.__dict__["params"] = {k: plain(v) for k, v in given.items()}
        return module

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in {*ASKED} & vars(cls).keys():
            setattr(cls, name, checked(vars(cls)[name]))

    def __init__(self, spec: Spec) -> None:
        spec.require(self.model_name, **self.accepts)
        super().__init__()
        self.spec = spec
        self.terms: dict[str, Tensor] = {}
        self.noise = Noise(0)
        # One seed for the whole run, the same on every process, saved with the weights: resuming
        # continues the same noise.
        self.register_buffer("noise_seed", torch.tensor(mix(torch.initial_seed())))

    def __setattr__(self, name: str, value: Any) -> None:
        """As torch's, which asks of each value whether it is a parameter, a buffer or a network."""
        if name in PASSING:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As torch's; buffers in float64 are the state of controllers, whose small steps half
        precision would lose, and stay what they are in a model that is cast to 16 bits.
        """
        exact = {k: b for k, b in self.named_buffers() if b.dtype == torch.float64}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            if (cast := self.get_buffer(name)).itemsize == 2:
                owner, _, own = name.rpartition(".")
                setattr(self.get_submodule(owner), own, value.to(cast.device))
        return self

    @property
    def model_name(self) -> str:
        """The registry name, or the class's for a model that is not registered."""
        return self.entry.name if self.entry is not None else type(self).__name__

    # -- what it is told, and what it makes --------------------------------------------------------
    @property
    def told(self) -> tuple[str, ...]:
        """The fields that ``sample`` must be given, by name; its keyword arguments. Models that
        leave the choice to an option override it.
        """
        return self.entry.told if self.entry is not None else ()

    @property
    def makes(self) -> tuple[str, ...]:
        """The fields that ``sample`` returns."""
        return self.entry.makes if self.entry is not None else ("x",)

    def told_in(self, batch: Batch) -> dict[str, Any]:
        """Those fields of a batch: ``self.log_prob(x, **self.told_in(batch))``."""
        return {name: batch[name] for name in self.told}

    def told_faults(self, name: str, value: Tensor) -> str:
        """What is wrong with rows of a field that it is told; "" if nothing is."""
        return self.spec[name].faults(value)

    def check_told(self) -> None:
        """Raise a ``ValueError`` unless the data have every field that the model is told."""
        if missing := [name for name in self.told if name not in self.spec]:
            raise ValueError(
                f"{self.model_name} is told {', '.join(missing)}, got {self.spec}; choose data "
                f"that have "
                f"{'it' if len(missing) == 1 else 'them'}"
            )

    @property
    def step(self) -> int | None:
        """Generator steps done in the run at hand; None outside of one."""
        return self.trainer.global_step if attached(self) else None

    @property
    def differentiates_twice(self) -> bool:
        """Whether a loss holds the gradient of a network."""
        return False

    # -- what a data module asks ------------------------------------------------------------------
    def batches_per_step(self, step: int = 0) -> int:
        """Fresh minibatches of ``batch_size`` rows that training step ``step`` consumes."""
        return 1

    # -- one training step ------------------------------------------------------------------------
    def on_fit_start(self) -> None:
        self._seed = int(self.noise_seed)
        trainer: Any = self.trainer  # its class does not declare all of its attributes
        self._log_every = max(trainer.log_every_n_steps, 1)
        self._step, self._micro = -1, 0
        self._share = {
            "rank": self.global_rank,
            "world": trainer.world_size,
            "device": self.device,
            "dtype": self.float_dtype,
        }

    def on_train_start(self) -> None:
        wanted = type(self).initialise_from is not GenerativeModule.initialise_from
        trainer: Any = self.trainer
        if wanted and trainer.global_step == 0 and hasattr(trainer.datamodule, "examples"):
            first = trainer.datamodule.examples(self.first_examples)
            with torch.no_grad():
                self.initialise_from(first.to(self.device, self.float_dtype))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """A ``Batch``, of a loader that gives plain dicts too."""
        return Batch(batch) if isinstance(batch, dict) and not isinstance(batch, Batch) else batch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        step = self.trainer.global_step
        self._micro = self._micro + 1 if step == self._step else 0  # of one accumulated step
        self._step = step
        self.logs = not self.trainer.loggers or (step + 1) % self._log_every == 0
        # Dropout and other noise inside networks draws from the global generators: seed them for
        # this step and process.
        seed = mix(self._seed, "global", step, self._micro, self.global_rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def start_noise(self, phase: str, draw: int = 0, part: int = 0, parts: int = 1) -> None:
        """Point ``self.noise`` at the rows of this step, phase and micro-batch."""
        self.noise = Noise(
            self._seed, phase, self._step, self._micro, draw, part=part, parts=parts, **self._share
        )

    @property
    def float_dtype(self) -> torch.dtype:
        """The parameters' floating type."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def reduce(self, value: Tensor) -> Tensor:
        """Mean of a detached tensor over all processes; what every controller must be fed with."""
        if not attached(self) or self.trainer.world_size == 1:
            return value
        return self.trainer.strategy.reduce(value, reduce_op="mean")

    def shared_mean(self, value: Tensor) -> Tensor:
        """Mean over all processes of a tensor that a loss goes through. Its gradient is this
        process's own part, so that the average of the gradients over processes is that of the whole
        batch, whatever the loss makes of the mean."""
        own = value.detach()
        return value + (self.reduce(own.clone()) - own)

    def everyone(self, rows: Tensor, gradients: bool = False) -> Tensor:
        """The rows of all processes from each one's share, in the order of ``self.noise``: row r of
        process p is row r W + p.

        Args:
            gradients: what a process makes of another's rows reaches that one's parameters.
        """
        if self.noise.world == 1:
            return rows
        gathered: Any = self.all_gather(rows, sync_grads=gradients)
        if gathered.requires_grad:
            # Its backward receives in the gradient's own layout, whatever that is.
            gathered.register_hook(lambda g: g.contiguous())
        return gathered.transpose(0, 1).reshape(-1, *rows.shape[1:])

    def report(self, terms: dict[str, Tensor], step: int) -> None:
        """Keep a step's scalars for the callbacks, and log them as ``train/NAME`` every
        ``log_every_n_steps`` generator steps.

        Args:
            step: generator steps done, this one included; the x-axis of every logger.
        """
        self.terms = {k: v.detach() for k, v in terms.items()}
        if step % self._log_every == 0:
            values = {k: v.float() for k, v in self.terms.items()}
            # The same keys in every step, or Lightning objects.
            shown = self.watches or [k for k in values if k.startswith("loss")]
            for bar in (True, False):
                some = {f"train/{k}": v for k, v in values.items() if (k in shown) == bar}
                self.log_dict(some, prog_bar=bar, batch_size=1)
            self.log("step", exactly(step, self), batch_size=1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if last_step(self.trainer):  # a validation follows it, whatever val_check_interval is
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: callbacks read the validation batches and ask the model what it can do."""

    test_step = validation_step

    # -- using a model ----------------------------------------------------------------------------
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw n examples: (n, *spec.shape), in the units of ``spec``. A model that is told fields
        takes each as a keyword argument of its name, (n, ...); one that makes several returns a
        ``Batch`` of them. No gradient is kept.

        Args:
            generator: source of all randomness, on the model's device; None takes the global one.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot sample")

    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the dimensions where ``known`` is False, given the others: x completed, (B, *shape).

        Args:
            x: (B, *shape), read where known. known: booleans that broadcast to x.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot inpaint")

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Further named values of a validation batch, one for each example, (B,); their means are
        logged as ``val/NAME``.
        """
        return {}

    def initialise_from(self, batch: Batch) -> None:
        """Called once, before a run that starts from scratch, with (the first) training examples of
        every field: data-dependent initialisation. The same on every process."""

    # -- checkpoints ------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["zoo"] = {
            "format": FORMAT,
            "version": sys.modules["zoo"].__version__,
            "model": self.model_name,
            "params": self.params,
            "spec": self.spec.asdict(),
            "settings": self._conditions(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_same(checkpoint, self)
        was, now = checkpoint["zoo"].get("settings", {}), self._conditions()
        for key in was.keys() & now.keys():
            if was[key] != now[key]:
                said = f"the checkpoint has {key}={was[key]!r}, this run {now[key]!r}"
                if not self.changes:
                    raise ValueError(
                        f"{said}; repeat the original options, or go on as another run with "
                        "--allow_changes"
                    )
                rank_zero_info(f"{said}: another run from here on")

    def _conditions(self) -> dict[str, Any]:
        """The settings, and a mark of the data's files where they have one."""
        data = self.trainer.datamodule if attached(self) else None  # type: ignore[attr-defined]
        mark = (getattr(data, "found", None) or {}).get("fingerprint")
        return {**self.settings, **({"the data's files": mark} if mark else {})}


def exactly(step: int, module: LightningModule) -> Tensor:
    """A step as a value to log: ``self.log`` keeps a float64 tensor, and rounds plain numbers to
    float32, which has no odd ones above 2²⁴.
    """
    dtype = torch.float32 if module.device.type == "mps" else torch.float64
    return torch.tensor(step, dtype=dtype, device=module.device)


def defines(cls: type, capability: str) -> bool:
    """Whether a class has a method by this name that does more than refuse."""
    owner = next((c for c in cls.__mro__ if capability in vars(c)), None)
    return owner is not None and capability not in vars(owner).get("stubs", ())


def check_format(saved: dict[str, Any]) -> None:
    """Raise a ``ValueError`` unless what a checkpoint says of itself is in this version's form."""
    if saved.get("format") != FORMAT:
        wrote = saved.get("version", "0.1.0 or before")
        raise ValueError(
            f"the checkpoint was written by version {wrote} of the zoo, and this is version "
            f"{sys.modules['zoo'].__version__}, which reads it no more; train the model again, "
            "or use the version that wrote it"
        )


def check_same(checkpoint: dict[str, Any], module: GenerativeModule) -> None:
    """Raise a ``ValueError`` unless the checkpoint is of this model with these parameters and data.
    A parameter that is younger than the checkpoint counts as its default there."""
    saved = checkpoint.get("zoo")
    if saved is None:
        raise ValueError(
            "the checkpoint was not written by this zoo: it does not say which model it holds"
        )
    check_format(saved)
    if saved["model"] != module.model_name:
        raise ValueError(
            f"the checkpoint holds {saved['model']!r}, this run trains {module.model_name!r}"
        )
    young = {
        k: plain(p.default)
        for k, p in inspect.signature(type(module)).parameters.items()
        if p.default is not p.empty
    }

    def filled(params: dict[str, Any]) -> dict[str, Any]:
        both = (young | params).items()
        return {
            k: {**young[k], **v} if isinstance(v, dict) and isinstance(young.get(k), dict) else v
            for k, v in both
        }

    again = "repeat the original options, or pass --config RUN_FOLDER/config.yaml"
    was, now = filled(saved["params"]), filled(module.params)
    for key in {**was, **now}:
        if was.get(key) != now.get(key):
            raise ValueError(
                f"the checkpoint was trained with model.{key}={was.get(key)!r}, this run has "
                f"{now.get(key)!r}; {again}"
            )
    data = Spec.of(saved["spec"])
    if data != module.spec:
        raise ValueError(
            f"the checkpoint was trained on {data}, this run has {module.spec}; {again}"
        )


def plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists: what a checkpoint may hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value
