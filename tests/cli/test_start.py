"""How commands start and end: the exit status is what it was, exit handlers run, nothing written is
lost, and garbage is collected in training.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from zoo import start

ROOT = Path(__file__).parents[2]


def ended(body, *arguments):
    """(exit status, output) of a command whose main is this body."""
    script = f"""
import sys
from zoo.pipes import quietly
def main():
{body}
if __name__ == "__main__":
    sys.exit(quietly(main))
"""
    lines = [sys.executable, *arguments, "-c", script]
    done = subprocess.run(lines, capture_output=True, text=True, cwd=ROOT, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("  return 0", 0),
        ("  return 2", 2),
        ("  sys.exit()", 0),
        ("  sys.exit(3)", 3),
        ("  sys.exit('what is wrong')", 1),
        ("  raise KeyboardInterrupt", 130),
        ("  raise ValueError('what is wrong')", 1),
    ],
)
def test_the_exit_status_is_the_commands(body, status):
    code, _, said = ended(body)
    assert code == status
    assert ("what is wrong" in said) == ("what is wrong" in body)


def test_handlers_run_and_what_was_printed_is_there():
    body = "  import atexit; atexit.register(print, 'later'); print('main', end=' '); return 0"
    assert ended(body)[:2] == (0, "main later\n")


def test_the_collector_rests_until_training_begins():
    body = """
  import gc
  from zoo import start
  before = gc.isenabled()
  start.running()
  print(before, gc.isenabled(), gc.get_freeze_count() > 0)
  return 0"""
    assert ended(body)[1] == "False True True\n"


def test_freed_memory_is_kept_where_glibc_can_and_nowhere_else(monkeypatch):
    monkeypatch.setattr(start.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert start.keep_freed_memory() is False


@pytest.mark.skipif(start.platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_stays_with_the_process():
    body = """
  import resource
  from zoo import start
  if {kept}: assert start.keep_freed_memory()
  def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20): bytearray(2**26)[::4096]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
  bytearray(2**26)[::4096]
  print(faults())
  return 0"""
    kept, given_back = (int(ended(body.format(kept=k))[1]) for k in (True, False))
    assert kept < 100 < 1000 < given_back


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which the driver knows")
def test_where_there_is_no_gpu_the_driver_is_not_asked_at_every_step():
    import zoo.core.lightning  # noqa: F401

    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "0"


def test_every_command_of_the_zoo_ends_this_way():
    for path in [*ROOT.glob("zoo/*.py"), ROOT / "zoo/check/__main__.py"]:
        source = path.read_text()
        if "__main__" in source and "sys.exit" in source:
            calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
            names = {n.func.id for n in calls if isinstance(n.func, ast.Name)}
            assert "quietly" in names, path


def fitted(*options):
    """(exit status, stdout, stderr) of ``zoo.fit --model gan`` with these options."""
    words = [sys.executable, "-m", "zoo.fit", "--model", "gan", *options]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_a_run_says_at_once_what_it_begins():
    code, said, wrong = fitted("--trainer.devices=0")
    assert (code, said) == (2, "gan on toy2d: loading torch and Lightning\n")
    assert wrong.splitlines()[-1].startswith("zoo.fit: error: --trainer.devices is at least 1")


def test_what_others_read_begins_with_nothing_else():
    code, said, _ = fitted("--print_config")
    assert code == 0 and yaml.safe_load(said)["model"]["class_path"] == "zoo.gan.gan.GAN"
