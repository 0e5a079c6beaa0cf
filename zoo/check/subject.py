"""What is checked: a model with its default data, as a command line would train it."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from omegaconf import OmegaConf
from torch import Tensor

from zoo import registry
from zoo.config import folder, layer, merge
from zoo.core import Batch, GenerativeModule, Spec
from zoo.core.module import defines
from zoo.data.base import Split, ZooDataModule
from zoo.registry import CAPABILITIES

SMALL = "digits"  # data on which a step takes little


@dataclass
class Subject:
    """A model of the zoo, or a class of one's own, with its data.

    Attributes:
        name: the registry name, or the path of a class from outside the zoo. cls: the class.
        inside: whether the zoo's own folders hold it, with configs.
    """

    name: str
    entry: registry.Entry
    cls: Any
    model_params: dict[str, Any]
    data_class: str
    data_params: dict[str, Any]
    trainer_params: dict[str, Any]
    inside: bool = True

    @classmethod
    def of(cls, name: str, *options: str, small: bool = True) -> Subject:
        """As ``python -m zoo.fit --model NAME OPTIONS`` would train it; of the options, those of
        the model and the data count.

        Args:
            name: a registry name, or MODULE.CLASS of a model from outside the zoo, whose @register
                names its data, or which ``--data`` does.
            small: a model with a default run on digits beside another is taken on those.
        """
        outside = "." in name
        model_class = found(name)
        entry = entry_of(model_class)
        words = [*options]
        if not any(o.startswith("--data") for o in options):
            on_digits = folder() / entry.family / f"{name}.{SMALL}.yaml"
            if outside and entry.data:
                words = ["--data", entry.data, *words]
            elif small and not outside and on_digits.is_file():
                words = ["--data", SMALL, *words]
        layered = layer(["--model", name, *words])
        document = layered.document
        for option in layered.options:
            change: Any = OmegaConf.to_container(OmegaConf.from_dotlist([option[2:]]))
            for section in {"model", "data"} & {*change}:
                document[section] = merge(document[section], {"init_args": change[section]})
        clip = ("gradient_clip_val", "gradient_clip_algorithm")
        trainer = {k: v for k, v in document["trainer"].items() if k in clip}
        model, data = document["model"].get("init_args", {}), document["data"]
        params = data.get("init_args", {})
        return cls(
            name, entry, model_class, model, data["class_path"], params, trainer, not outside
        )

    @property
    def command(self) -> tuple[str, ...]:
        """What ``of`` takes to find it again in another process, default options."""
        return (self.name,)

    def data(self, **changes: Any) -> Any:
        """Its data module."""
        return found(self.data_class)(**{**self.data_params, **changes})

    def create(self, spec: Spec, **changes: Any) -> Any:
        """The model for data of this spec, with its config's parameters and these changes."""
        made = self.cls(spec, **{**self.model_params, **changes})
        made.check_told()
        return made

    def model(self, spec: Spec | None = None, seed: int = 0) -> Any:
        """The model for its own data (or this spec), from a seed."""
        seed_everything(seed, verbose=False)
        return self.create(spec or self.data().spec)

    def fit(self, model: GenerativeModule, steps: int, data: Any = None, **options: Any) -> Trainer:
        """``fit`` on its own data, with the clipping of its config."""
        return fit(model, data or self.data(), steps, **{**self.trainer_params, **options})

    def batch(self, n: int = 8) -> Batch:
        """The first training rows of its data."""
        return self.data().examples(n)


def found(path: str) -> Any:
    """A class by its registry name or its dotted path.

    Raises:
        ValueError: there is none.
    """
    if "." not in path:
        return registry.get(path)
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} is no class that can be imported from here ({error}); run from the folder of "
            "its file, or put that folder on PYTHONPATH"
        ) from None


def entry_of(cls: Any) -> registry.Entry:
    """A class's entry; of one that is not registered, what its methods say."""
    if cls.entry is not None:
        return dataclasses.replace(cls.entry, parameters=registry.parameters(cls))
    can = frozenset(c for c in CAPABILITIES if defines(cls, c))
    path = f"{cls.__module__}.{cls.__qualname__}"
    return registry.Entry(
        path, "", cls.__module__, cls.__qualname__, can=can, parameters=registry.parameters(cls)
    )


def fit(model: Any, data: Any, steps: int, **options: Any) -> Trainer:
    """Train without logger, bar, validation or checkpoints for ``steps`` generator steps; returns
    the trainer.
    """
    ckpt_path = options.pop("ckpt_path", None)
    quiet = {
        "max_steps": steps,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "check_val_every_n_epoch": None,
        "val_check_interval": 10**9,
        "use_distributed_sampler": False,
    }
    trainer = Trainer(**{**quiet, **options})
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


class Given(ZooDataModule):
    """A data module over given tensors; the same rows serve as train, val and test.

    Args:
        x, y: the fields by that name. fields: of any other spec.
    """

    def __init__(
        self,
        spec: Spec,
        x: Tensor | None = None,
        y: Tensor | None = None,
        batch_size: int = 16,
        fields: dict[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(batch_size, **options)
        short = {"x": x, "y": y}
        self._spec = spec
        self._split = {k: v for k, v in short.items() if v is not None} | (fields or {})

    @property
    def spec(self) -> Spec:
        return self._spec

    def load(self) -> dict[str, Split]:
        return dict.fromkeys(("train", "val", "test"), self._split)
