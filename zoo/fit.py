"""``python -m zoo.fit --model NAME``: train a model of the zoo.

    python -m zoo.fit --model began
    python -m zoo.fit --model began --model.gamma=0.7 --model.k=2 --data mnist --trainer.devices=4
    python -m zoo.fit --model dcgan --data image_folder --data.root=~/photos --data.size=32
    python -m zoo.fit --model began --preset paper --print_config
    python -m zoo.fit --model began --ckpt_path last

A thin room over LightningCLI: registry names, layered configs (``zoo.config``), the right strategy,
loggers and callbacks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from zoo import registry
from zoo.config import Layered, UsageError, layer
from zoo.pipes import quietly
from zoo.runs import is_child

READ_BY_OTHERS = {"--print_config", "-h", "--help"}  # what these print

HELP = """usage: python -m zoo.fit --model NAME [options]

  --model NAME            a model of the zoo (below); --model.PARAMETER=VALUE sets its parameters
  --data NAME             the data (below), --data.PARAMETER=VALUE; every model has a default
  --preset paper          the paper's own setting instead of the small one
  --config FILE           a YAML file under the command line; may be repeated
  --trainer.OPTION=VALUE  anything of the Trainer: --trainer.devices=4, --trainer.max_steps=5000
  --ckpt_path PATH        resume from a checkpoint or a run folder, with the run's own options;
                          "last" takes this model's newest run
  --allow_changes         resume although the data's or the trainer's options differ
  --import MODULE         a module of your own whose classes config files may name
  --run_dir FOLDER        where everything of the run goes (default runs/NAME-TIME)
  --threads N             CPU threads of each process
  --reuse_memory=false    give freed memory back: a lower peak, slower steps on a CPU
  --compile=true          compile the networks at their first pass, for quicker steps on a GPU
  --wandb.OPTION=VALUE    project, name, entity, group, tags, mode
  --sample_grid. --fidelity. --bits_per_dim. --ema. --checkpoints.   options of the callbacks
  --print_config          print the merged configuration and stop
  --model.help NAME       a model's parameters;  --model NAME --help: everything
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or (
        set(arguments) & {"-h", "--help"}
        and not any(a.startswith(("--model", "--config", "-c")) for a in arguments)
    ):
        print(HELP + overview())
        return 0 if arguments else 2
    try:
        return run(layer(arguments), arguments)
    except UsageError as error:
        return _fail(str(error))


def overview() -> str:
    """The names that --model and --data take."""
    lines = ["models"]
    for family in dict.fromkeys(e.family for e in registry.entries()):
        lines.append(f"  {family:<15} {' '.join(registry.list(family=family))}")
    return "\n".join([*lines, "data", *(f"  {e.name:<15} {e.about}" for e in registry.data())])


def run(layered: Layered, arguments: list[str]) -> int:
    """Parse, build and fit."""
    for hushed in (
        ".*treespec.*",
        ".*litlogger.*",
        ".*not resumable.*",
        ".*does not have many workers.*",
        ".*srun.*",
        ".*barrier.*",
        ".*overridden `on_before_batch_transfer`.*",
        ".*number of training batches .* is smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=hushed)
    for source in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.pytorch.{source}").addFilter(_worth_reading)

    if "torch" not in sys.modules and not is_child() and not {*arguments} & READ_BY_OTHERS:
        print(f"{layered.model} on {layered.data}: loading torch and Lightning", flush=True)

    from zoo.cli import build
    from zoo.core.processes import leave_group
    from zoo.refusals import WHERE, mistakes, one_line

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli = build(layered)
    started = time.time()
    try:
        cli.fit()
    except SystemExit:  # a signal; what there is has been saved
        _leave_page(cli, arguments, started)
        raise
    except Exception as error:  # of the model, its data, a callback: each says what to do
        if os.environ.get("ZOO_DEBUG") or (cli.begun and not isinstance(error, mistakes())):
            raise
        leave_group(together=False)
        _leave_page(cli, arguments, started)
        return _fail(f"{one_line(error, layered)} {WHERE}")
    leave_group()
    if cli.trainer.is_global_zero:
        seconds = time.time() - started
        said = _farewell(cli, seconds, _page(cli, arguments, seconds))
        letters = sys.stdout.encoding or "utf-8"
        print(said.encode(letters, "replace").decode(letters))
    return 0


def _worth_reading(record: logging.LogRecord) -> bool:
    return not any(
        words in record.getMessage() for words in ("litlogger", "`weights_only` was not set")
    )


def _farewell(cli: Any, seconds: float, page: str) -> str:
    from zoo.farewell import farewell

    trainer = cli.trainer
    values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    found = [c.best for c in trainer.callbacks if hasattr(c, "best")]
    best = (found[0].metric, found[0].score) if found else ("", None)
    folder, data = Path(trainer.default_root_dir), cli.model.spec.name
    return farewell(cli.model, data, trainer.global_step, seconds, folder, values, best, page)


def _leave_page(cli: Any, arguments: list[str], started: float) -> None:
    """The page of a run that ends before its time, where it has begun."""
    if cli.begun and cli.trainer.is_global_zero:
        said = _page(cli, arguments, time.time() - started)
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(said, flush=True)


def _page(cli: Any, arguments: list[str], seconds: float) -> str:
    """Write the run's page; its path, or in one line why there is none."""
    from zoo import page
    from zoo.cli import named
    from zoo.core.because import because

    folder = Path(cli.trainer.default_root_dir)
    if not (folder / "config.yaml").is_file():
        return "  no page: nothing of this run was kept"
    try:
        command = shlex.join(["python", "-m", "zoo.fit", *arguments])
        with named("callbacks.patience.waiting")("the page"):
            page.record(folder, command, seconds)
            return f"  page         {page.write(folder)}"
    except Exception as error:  # a page is no reason to lose a run
        if os.environ.get("ZOO_DEBUG"):
            raise
        return f"  no page was written ({because(error)}); python -m zoo.page --ckpt {folder}"


def _fail(message: str) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"zoo.fit: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # libraries are imported: no traceback of them
    sys.exit(quietly(main))
