"""The parser behind ``zoo.fit``: LightningCLI with registry names, one-line errors, the run folder
and the right strategy.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from zoo import registry, runs, start
from zoo.config import CALLBACKS, KEYS, SECTIONS, Layered, UsageError, label
from zoo.core import GenerativeModule, checkpoint, compiled
from zoo.core.files import written_whole
from zoo.core.module import check_same
from zoo.core.options import ranges
from zoo.refusals import TRAINER, check_trainer, one_line, parameters, refused

ELSEWHERE = ("num_workers", "root")  # of the data: how fast and where from, not what
CSV, WANDB = "callbacks.loggers.CSVLogger", "callbacks.loggers.WandbLogger"


def named(path: str) -> Any:
    """A class by its path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


class WandbOptions:
    """Weights & Biases.

    Args:
        project: W&B project. name: of the run; the run folder's by default. entity: user or team.
            group: of the run. tags: of the run.
        mode: online, offline or disabled; by default online where a key and a server answer, else
            offline.
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: str | None = None,
    ) -> None:
        self.options = {
            "project": project,
            "name": name,
            "entity": entity,
            "group": group,
            "tags": tags,
            "mode": mode,
        }


class Parser(LightningArgumentParser):
    """A parser whose help has the ranges of arguments, as their types say them."""

    def add_class_arguments(self, kind: Any, key: str | None = None, *rest: Any, **kw: Any) -> Any:
        added = super().add_class_arguments(kind, key, *rest, **kw)
        said = {f"{key}.{name}": text for name, text in ranges(kind).items()} if key else {}
        for action in self._actions:
            if action.dest in said:
                action.help = f"{action.help or ''} [{said[action.dest]}]".strip()
        return added


class ZooCLI(LightningCLI):
    """LightningCLI over a ``Layered`` command line. ``sys.argv`` stays as it is: Lightning starts
    its other processes from it.
    """

    def __init__(self, layered: Layered) -> None:
        self.layered, self.ckpt_path = layered, layered.checkpoint
        self.claim: runs.Claim | None = None
        self.begun = False  # whether training has
        try:
            super().__init__(
                GenerativeModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                save_config_callback=None,
                parser_class=Parser,
                parser_kwargs={
                    "parser_mode": "omegaconf+",
                    "prog": "python -m zoo.fit",
                    "exit_on_error": False,
                    "allow_abbrev": False,
                },
            )
        except BaseException:
            self._leave_nothing()
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="folder of the run; runs/NAME-TIME by default",
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads of each process; null is torch's own choice",
        )
        parser.add_argument(
            "--reuse_memory",
            type=bool,
            default=True,
            help="keep freed memory for the next tensors: quicker steps, a higher peak (glibc)",
        )
        parser.add_argument(
            "--compile",
            type=bool,
            default=False,
            help="compile the networks at their first pass: a minute, then quicker steps on a GPU",
        )
        parser.add_class_arguments(WandbOptions, "wandb", instantiate=False)
        for key, path in CALLBACKS.items():
            parser.add_lightning_class_args(named(path), key)
        parser.set_defaults({"ema.decay": 0.0})  # averaging is asked for: --ema.decay=0.999
        parser.link_arguments(
            "data", "model.init_args.spec", lambda data: data.spec, apply_on="instantiate"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(self.layered.arguments)

    def before_instantiate_classes(self) -> None:
        if (threads := self.config.get("threads")) is not None:
            if threads < 1:
                raise UsageError(f"--threads is at least 1, got {threads}")
            torch.set_num_threads(threads)
        self._check_scripts()
        if self.config["reuse_memory"]:
            start.keep_freed_memory()
        self.run_dir = self._run_dir()
        os.environ[runs.FOLDER] = str(self.run_dir)

    def instantiate_classes(self) -> None:
        with named("callbacks.patience.waiting")("model and data"):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self.config_init["trainer"]
        check_trainer(options, self.layered.model, not self.model.automatic_optimization)
        self._check_processes(options)
        self.with_wandb = named(WANDB).wanted(self.config["wandb"]["mode"])
        if self.config["compile"]:
            compiled.compile_nets(self.model)
        self.model.settings, self.model.changes = self._settings(options), self.layered.changes
        if self.ckpt_path:
            saved = checkpoint.read(self.ckpt_path)
            check_same(saved, self.model)
            self._said_done(saved, options)
        if options.get("strategy") == "auto" and _processes(options) > 1:
            # A game's backward passes each touch one player, which plain ddp takes for an error
            # (docs/adversarial_loop.md).
            kwargs["strategy"] = (
                "ddp" if self.model.automatic_optimization else "ddp_find_unused_parameters_true"
            )
        kwargs["default_root_dir"] = str(self.run_dir)
        given = options.get("callbacks") or []
        self.patience = named("callbacks.patience.Patience")()
        first = [
            Begin(self),
            self.patience,
            *(given if isinstance(given, list) else [given]),
        ]
        if options.get("enable_progress_bar") in (None, True):
            first.append(named("callbacks.Progress")())
        options["callbacks"] = first
        if options.get("logger") in (None, True):
            kwargs["logger"] = [named(CSV)(self.run_dir)]
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise refused(dict(options.items()), error) from error

    def fit(self) -> None:
        """Train; the W&B run is ended whatever happens; a run that never began leaves nothing."""
        failed = True
        start.running()
        self.patience.wait("data and weights")
        try:
            self.trainer.fit(
                self.model, self.datamodule, ckpt_path=self.ckpt_path, weights_only=True
            )
            failed = False
        finally:
            self.patience.rest()
            for logger in self.trainer.loggers:
                if isinstance(logger, named(WANDB)):
                    logger.close(failed)
            if not self.begun or getattr(self.trainer, "fast_dev_run", False):
                self._leave_nothing()
            elif self.claim is not None:
                self.claim.release()

    # -- parts ------------------------------------------------------------------------------------
    def _check_scripts(self) -> None:
        """A TorchScript module is code, and a file may not name it: the command line does."""
        look = (self.config["model"].get("init_args") or {}).get("look") or {}
        named = self.layered.says("model.init_args.look.weights")
        if look.get("kind") == "jit" and not named:
            raise UsageError(
                "look.weights of a TorchScript module is code; if you trust that file, say "
                f"--model.look.weights={shlex.quote(look.get('weights', ''))}"
            )

    def _check_processes(self, options: Any) -> None:
        started, nodes = int(os.environ.get("WORLD_SIZE", 1)), int(options.get("num_nodes") or 1)
        if "TORCHELASTIC_RUN_ID" in os.environ and started != _processes(options):
            raise UsageError(
                f"torchrun started {started} processes on {nodes} node(s); say "
                f"--trainer.devices={started // nodes}"
            )

    def _settings(self, options: Any) -> dict[str, Any]:
        """What a run's numbers depend on beside the model's parameters, by option; as it was asked
        for, since what an interpolation resolves to may be a secret.
        """
        data = dict(self.written()["data"].get("init_args") or {})
        data.pop("batch_size", None)
        size = (self.config["data"].get("init_args") or {}).get("batch_size")
        said = {f"data.{k}": _what(v) for k, v in data.items() if k not in ELSEWHERE}
        for key in ("precision", "accumulate_grad_batches", "gradient_clip_val"):
            said[f"trainer.{key}"] = options.get(key)
        if size is not None:
            said["data.batch_size times processes"] = size * _processes(options)
        return json.loads(json.dumps(said, default=str))

    def _said_done(self, saved: dict[str, Any], options: Any) -> None:
        done, wanted = saved.get("global_step", 0), options.get("max_steps") or -1
        if 0 < wanted <= done:
            rank_zero_info(
                f"{self.ckpt_path} has done {done:,} of {wanted:,} steps; to train on, "
                f"say --trainer.max_steps=N"
            )

    def _run_dir(self) -> Path:
        """The run's folder; the first process makes it, exclusively where it chose the name."""
        if runs.is_child() and os.environ.get(runs.FOLDER):
            return Path(os.environ[runs.FOLDER])
        resumed = runs.folder_of(self.ckpt_path) if self.ckpt_path else None
        given = self.config.get("run_dir")
        wanted = Path(given).expanduser() if given else resumed
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("WANDB_RUN_ID")
        name = f"{label(self.layered.model)}-{job or time.strftime('%Y%m%d-%H%M%S')}"
        if wanted is None and (job or runs.is_child()):
            wanted = runs.RUNS / name
        if runs.is_child():
            return wanted or runs.RUNS / name
        self.claim = runs.Claim(wanted, name, self.ckpt_path is not None)
        if self.claim.note:
            rank_zero_info(self.claim.note)
        return self.claim.folder

    def _leave_nothing(self) -> None:
        if self.claim is not None:
            self.claim.undo()

    def written(self) -> dict[str, Any]:
        """The whole configuration as it was asked for: interpolations as they were written. Where
        the run lies is not part of it."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        config.pop("run_dir", None)
        for key, value in self.layered.asked().items():
            *path, last = key.split(".")
            inside = config
            for part in path:
                inside = inside.get(part) or {}
            if last in inside:
                inside[last] = _read(value)
        return config


class Begin(Callback):
    """Where training begins, all data and weights being there: config.yaml, protocol.json, the W&B
    run."""

    def __init__(self, cli: ZooCLI) -> None:
        self.cli = cli

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if trainer.global_step:
            self._begin(trainer)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """A new run's model has read its first examples, and files of weights, by now."""
        if not self.cli.begun and not trainer.fast_dev_run:
            self._begin(trainer)

    def _begin(self, trainer: Any) -> None:
        cli, config = self.cli, self.cli.written()
        if trainer.is_global_zero:
            with written_whole(cli.run_dir / "config.yaml") as file:
                file.write(yaml.safe_dump(config, sort_keys=False).encode())
        options = dict(cli.config["wandb"].items())
        ours = cli.config["trainer"].get("logger") in (None, True)
        if ours and cli.with_wandb:
            logger = named(WANDB)(cli.run_dir, **options)
            trainer.loggers = [*trainer.loggers, logger]
            flat = {
                k: {"name": getattr(cli.layered, k), **(config[k].get("init_args") or {})}
                for k in SECTIONS
            }
            logger.log_config({**config, **flat, **_git()})
        found = getattr(trainer.datamodule, "found", None)  # and what W&B has not heard yet
        named("callbacks.report.write_protocol")(trainer, {"data": found} if found else {})
        cli.begun = True


def build(layered: Layered) -> ZooCLI:
    """Everything up to the first step.

    Raises:
        UsageError: whatever the parser, the Trainer or a constructor objects to, in one line.
    """
    try:
        return ZooCLI(layered)
    except UsageError:
        raise
    except Exception as error:
        if os.environ.get("ZOO_DEBUG"):
            raise
        raise UsageError(one_line(error, layered)) from None


def options_of(layered: Layered | None) -> list[str]:
    """Every option of a command line, dotted: what a mistyped one may have meant."""
    known = [*KEYS, *TRAINER, *parameters(WandbOptions, "wandb")]
    for section, path in CALLBACKS.items():
        known += parameters(named(path), section)
    for section in SECTIONS if layered else ():
        path = layered.document[section]["class_path"] if layered else ""
        known += [f"{section}.{name}" for name in registry.parameters(named(path))]
    return known


def _git() -> dict[str, Any]:
    """The commit of the checkout that the zoo runs from, and whether it has local changes; nothing
    for an installed wheel.
    """

    def ask(*command: str) -> str:
        done = subprocess.run(
            ["git", *command],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        return {
            "git": {
                "commit": ask("rev-parse", "HEAD"),
                "changed": bool(ask("status", "--porcelain")),
            }
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def _read(value: Any) -> Any:
    """A mapping or list that the command line has as a text."""
    try:
        found = yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value
    return found if isinstance(found, (dict, list)) else value


def _what(value: Any) -> Any:
    """An option of the data without what says where from; of a base, some lie below it."""
    inside = isinstance(value, dict)
    return {k: v for k, v in value.items() if k not in ELSEWHERE} if inside else value


def _processes(options: Any) -> int:
    devices, accelerator = options.get("devices"), options.get("accelerator")
    if isinstance(devices, (list, tuple)):
        here = len(devices)
    elif str(devices) in ("auto", "-1", "None"):
        here = (
            max(torch.cuda.device_count(), 1) if accelerator in ("auto", "gpu", "cuda", None) else 1
        )
    else:
        here = len(str(devices).split(",")) if "," in str(devices) else int(devices)
    return here * int(options.get("num_nodes") or 1)
