"""The parser behind ``zoo.fit``: LightningCLI with registry names, one-line errors, the run folder
and the right strategy.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from zoo import registry
from zoo.config import Layered, UsageError
from zoo.core import GenerativeModule, checkpoint
from zoo.core.files import alone_in
from zoo.core.module import check_same
from zoo.core.options import ranges

CALLBACKS = {  # by class path: the callbacks import the zoo, not the zoo them
    "sample_grid": "callbacks.SampleGrid",
    "fidelity": "callbacks.Fidelity",
    "mode_coverage": "callbacks.ModeCoverage",
    "bits_per_dim": "callbacks.BitsPerDim",
    "memorisation": "callbacks.Memorisation",
    "latent_space": "callbacks.LatentSpace",
    "ema": "callbacks.EMA",
    "nan_guard": "callbacks.NaNGuard",
    "checkpoints": "callbacks.Checkpoints",
}
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
        self.layered = layered
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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="folder of the run; runs/NAME-TIME by default",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help='checkpoint to resume; "last" and "best" take the newest run',
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads of each process; null is torch's own choice",
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
        self.ckpt_path = self._checkpoint()
        self.run_dir = self._run_dir()
        if self.ckpt_path is None and not _is_child() and (self.run_dir / "metrics.csv").is_file():
            resume = self.run_dir / "checkpoints" / "last.ckpt"
            raise UsageError(
                f"{self.run_dir} already holds a run; resume it with --ckpt_path={resume}, or "
                f"name another folder"
            )
        os.environ["ZOO_RUN_DIR"] = str(self.run_dir)  # read by the processes that Lightning starts

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self.config_init["trainer"]
        self._check_trainer(options)
        if self.ckpt_path:
            try:
                check_same(checkpoint.read(self.ckpt_path), self.model)
            except (ValueError, FileNotFoundError) as error:
                raise UsageError(str(error)) from None
        if options.get("strategy") == "auto" and _processes(options) > 1:
            # A game's backward passes each touch one player, which plain ddp takes for an error
            # (docs/adversarial_loop.md).
            kwargs["strategy"] = (
                "ddp" if self.model.automatic_optimization else "ddp_find_unused_parameters_true"
            )
        kwargs["default_root_dir"] = str(self.run_dir)
        if options.get("logger") in (None, True):
            kwargs["logger"] = self._loggers()
        if options.get("enable_progress_bar") in (None, True):
            progress = named("callbacks.Progress")()
            options["callbacks"] = [*(options.get("callbacks") or []), progress]
        return super().instantiate_trainer(**kwargs)

    def fit(self) -> None:
        """Train; the W&B run is ended whatever happens."""
        failed = True
        try:
            first = getattr(rank_zero_only, "rank", 0) == 0
            with alone_in(self.run_dir) if first else nullcontext():
                self._record()
                self.trainer.fit(
                    self.model, self.datamodule, ckpt_path=self.ckpt_path, weights_only=True
                )
            failed = False
        finally:
            for logger in self.trainer.loggers:
                if isinstance(logger, named(WANDB)):
                    logger.close(failed)

    # -- parts ------------------------------------------------------------------------------------
    def _loggers(self) -> list[Any]:
        options = dict(self.config["wandb"].items())
        wandb = [named(WANDB)] if named(WANDB).wanted(options["mode"]) else []
        return [named(CSV)(self.run_dir), *(logger(self.run_dir, **options) for logger in wandb)]

    def _check_trainer(self, options: Any) -> None:
        name, started, nodes = (
            self.layered.model,
            int(os.environ.get("WORLD_SIZE", 1)),
            int(options.get("num_nodes") or 1),
        )
        if "TORCHELASTIC_RUN_ID" in os.environ and started != _processes(options):
            raise UsageError(
                f"torchrun started {started} processes on {nodes} node(s); say "
                f"--trainer.devices={started // nodes}"
            )
        if not self.model.automatic_optimization:
            if options.get("gradient_clip_val"):
                instead = "--model.loop.clip_d and --model.loop.clip_g"
                raise UsageError(
                    f"--trainer.gradient_clip_val does not apply to {name}, whose players are "
                    f"stepped one by one; use {instead}"
                )
            if (options.get("accumulate_grad_batches") or 1) > 1:
                raise UsageError(
                    f"--trainer.accumulate_grad_batches does not apply to {name}; use "
                    f"--model.loop.accumulate"
                )

    def _checkpoint(self) -> Path | None:
        wanted = self.config.get("ckpt_path")
        if not wanted:
            return None
        if wanted not in ("last", "best"):
            return Path(wanted).expanduser()
        given = os.environ.get("ZOO_RUN_DIR") if _is_child() else self.config.get("run_dir")
        folders = (
            [Path(given)] if given else [*Path("runs").glob(f"{_label(self.layered.model)}-*")]
        )
        found = sorted(
            (f / "checkpoints" / f"{wanted}.ckpt" for f in folders),
            key=lambda p: p.stat().st_mtime if p.is_file() else 0,
        )
        if not found or not found[-1].is_file():
            raise UsageError(
                f"there is no {wanted}.ckpt of {self.layered.model} under {given or 'runs/'}; "
                f"give --ckpt_path a file"
            )
        return found[-1]

    def _run_dir(self) -> Path:
        if _is_child() and os.environ.get("ZOO_RUN_DIR"):
            return Path(os.environ["ZOO_RUN_DIR"])
        if given := self.config.get("run_dir"):
            return Path(given).expanduser()
        if self.ckpt_path is not None and self.ckpt_path.parent.name == "checkpoints":
            return self.ckpt_path.parent.parent
        job = (
            os.environ.get("SLURM_JOB_ID")
            or os.environ.get("WANDB_RUN_ID")
            or time.strftime("%Y%m%d-%H%M%S")
        )
        folder = Path("runs") / f"{_label(self.layered.model)}-{job}"
        tries = 1
        while folder.exists() and not os.environ.get("SLURM_JOB_ID"):
            tries += 1
            folder = folder.with_name(f"{_label(self.layered.model)}-{job}-{tries}")
        return folder

    @rank_zero_only
    def _record(self) -> None:
        """config.yaml in the run folder, and the same in W&B."""
        text = self.parser.dump(self.config, skip_unset=False)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        (self.run_dir / "config.yaml").write_text(text)
        for logger in self.trainer.loggers:
            if isinstance(logger, named(WANDB)):
                config = yaml.safe_load(text)
                flat = {
                    k: {**{"name": config[k]["class_path"]}, **(config[k].get("init_args") or {})}
                    for k in ("model", "data")
                }
                flat["model"]["name"], flat["data"]["name"] = self.layered.model, self.layered.data
                logger.log_config({**config, **flat, **_git()})


def build(layered: Layered) -> ZooCLI:
    """Everything up to the first step.

    Raises:
        UsageError: whatever the parser or a constructor objects to, in one line.
    """
    try:
        return ZooCLI(layered)
    except (ArgumentError, ValueError, TypeError, FileNotFoundError, ImportError, OSError) as error:
        if os.environ.get("ZOO_DEBUG"):
            raise
        raise UsageError(_one_line(error)) from None


def _one_line(error: BaseException) -> str:
    """What a parser's or constructor's nested error is about, with the nearest name for an unknown
    option.
    """
    messages = [str(error)]
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
        messages.append(str(error))
    outer, inner = messages[0], messages[-1]
    if unknown := re.search(r"nrecognized arguments: --([\w.]+)", inner):
        name = unknown.group(1)
        section, _, rest = name.partition(".")
        inside = {"trainer": Trainer, "wandb": WandbOptions}.get(section)
        if section in CALLBACKS:
            inside = named(CALLBACKS[section])
        known = (
            [f"{section}.{p}" for p in inspect.signature(inside).parameters]
            if inside
            else _top_level()
        )
        near = registry.suggest(name, known) or registry.suggest(section, known)
        hint = (
            f"did you mean --{near[0]}{'.' + rest if rest and '.' not in near[0] else ''}?"
            if near
            else "see python -m zoo.fit --help"
        )
        return f"unknown option --{name}; {hint}"
    if typed := re.match(r"Expected an? (.+?)\. Got value: (.*)", inner):
        keys = [k for m in messages for k in re.findall(r'Parser key "([\w.]+)"', m)]
        path = ".".join(dict.fromkeys([keys[0], keys[-1]])) if keys else "a value"
        if choices := re.match(r"typing\.Literal\[(.*)\]$", typed.group(1)):
            words = ", ".join(re.findall(r"'([^']*)'", choices.group(1)))
            return f"--{path} is one of {words}, got {typed.group(2)!r}"
        wanted = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", typed.group(1))
        return f"--{path}: expected {wanted}, got {typed.group(2)!r}"
    return " ".join((inner or outer).split())[:600]


def _top_level() -> list[str]:
    return [
        *"model data trainer config preset ckpt_path run_dir threads seed_everything print_config "
        "wandb".split(),
        *CALLBACKS,
    ]


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


def _is_child() -> bool:
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 or int(os.environ.get("NODE_RANK", 0)) > 0


def _label(model: str) -> str:
    return model.rsplit(".", 1)[-1]
