"""``zoo NAME ...`` is ``python -m zoo.NAME ...``: what is printed, the exit status, signals, other
processes; and what ``zoo`` answers itself."""

import ast
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import zoo
from zoo.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
SCRIPT = "import sys; from zoo.__main__ import main; sys.exit(main())"  # as pip writes it


@pytest.fixture
def script(tmp_path):
    """The console script, in a folder of its own as an environment's bin is."""
    path = tmp_path / "bin" / "zoo"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{SCRIPT}\n")
    path.chmod(0o755)
    return path


def run(*command, cwd=ROOT, **changes):
    """(exit status, stdout, stderr)."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **changes}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=cwd, env=env, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def module(name, *arguments, **how):
    return run(sys.executable, "-m", name, *arguments, **how)


def test_the_console_script_is_that_of_the_project():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"zoo": "zoo.__main__:main"}


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "*gan*"],
        ["ls", "--family", "gna"],
        ["ls", "no_such_model"],
        ["fit"],
        ["fit", "--help"],
        ["fit", "--model", "nope"],
        ["sample"],
        ["sample", "--help"],
        ["explore", "--ckpt", "a_run", "no_such_tool"],
        ["probe", "--ckpt"],
    ],
    ids=" ".join,
)
def test_a_command_is_the_module_to_the_letter(words, script):
    name, *arguments = words
    wanted = module(f"zoo.{name}", *arguments)
    assert any(wanted[1:])
    assert run(script, *words) == wanted
    assert module("zoo", *words) == wanted


def test_every_command_is_a_module_and_every_module_with_a_main_a_command():
    mains = {p.stem for p in ROOT.glob("zoo/[!_]*.py") if "\nif __name__ ==" in p.read_text()}
    mains |= {p.parent.name for p in ROOT.glob("zoo/*/__main__.py")}
    assert {*COMMANDS} - {"completion"} == mains


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=str)
def test_alone_it_says_what_there_is(words):
    code, said, wrong = module("zoo", *words)
    assert (code, wrong) == (0, "")
    assert all(f"  {name} " in said for name in COMMANDS)
    assert len(said.splitlines()) < 25 and max(map(len, said.splitlines())) <= 80


def test_the_examples_of_the_overview_are_commands_that_exist():
    from zoo.__main__ import EXAMPLES

    assert len(EXAMPLES) == 3
    assert all(line.split()[:1] == ["zoo"] and line.split()[1] in COMMANDS for line in EXAMPLES)


def test_its_version(script):
    assert run(script, "--version") == (0, f"zoo {zoo.__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("fti", "did you mean zoo fit?"),
        ("smaple", "did you mean zoo sample?"),
        ("began", "it is a model: zoo ls began, or zoo fit --model began"),
        ("--modle", "there are fit, sample, "),
        ("", "there are fit, sample, "),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest(word, hint):
    code, said, wrong = module("zoo", word)
    assert (code, said) == (2, "")
    assert wrong.startswith(f"zoo: error: there is no command {word!r}; {hint}")
    assert wrong.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--version"],
        ["nope"],
        ["ls"],
        ["ls", "--tree"],
        ["ls", "began"],
        ["ls", "--json"],
        ["--complete", "fit", "--model", "began", "--model."],
        ["--complete", "fit", "--trainer."],
        ["--complete", "fit", "--sample_grid."],
        ["--complete", "explore", ""],
        ["fit", "--help"],
        ["sample", "--help"],
        ["explore", "--help"],
        ["probe", "--help"],
        ["page", "--help"],
        ["pretrain", "--help"],
        ["check", "--help"],
        ["check"],
    ],
    ids=lambda words: " ".join(words) or "alone",
)
def test_no_torch_is_imported_to_answer(words):
    body = f"""
import atexit, sys
sys.argv[1:] = {words!r}
from zoo.__main__ import main
atexit.register(lambda: print("torch:", "torch" in sys.modules))
import os
leave, os._exit = os._exit, lambda status: None  # the handlers that were registered before it
main()"""
    assert run(sys.executable, "-c", body)[1].endswith("torch: False\n")


def test_a_reader_that_has_gone_is_no_error(script):
    for command in (str(script), f"{sys.executable} -m zoo"):
        line = f"set -o pipefail; {command} ls | head -n 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
        assert run("bash", "-c", line)[1:] in (("0\n", ""), (f"{128 + signal.SIGPIPE}\n", ""))


def test_modules_of_ones_own_lie_where_one_is(script, tmp_path):
    (tmp_path / "mine.py").write_text("import sys; print(sys.path[0])\n")
    words = ["fit", "--import", "mine", "--model", "nope"]
    wanted = module("zoo.fit", *words[1:], cwd=tmp_path)
    assert wanted[1] == f"{tmp_path}\n"
    assert run(script, *words, cwd=tmp_path) == wanted
    (tmp_path / "yaml.py").write_text("raise ImportError('not that of the library')\n")
    assert module("zoo.fit", *words[1:], cwd=tmp_path)[0] == 1  # it comes first
    assert run(script, *words, cwd=tmp_path)[0] == 1


def test_what_lightning_starts_its_other_processes_from(script, tmp_path):
    """The module behind the command is ``__main__``, with its spec and its arguments."""
    asks = "import __main__, sys\nprint([__main__.__spec__.name, *sys.argv[1:]])\n"
    (tmp_path / "mine.py").write_text(asks)
    words = ["--import", "mine", "--model", "nope"]
    for command in ([script], [sys.executable, "-m", "zoo"]):
        said = run(*command, "fit", *words, cwd=tmp_path)[1]
        assert ast.literal_eval(said) == ["zoo.fit", *words]


@pytest.mark.ddp
def test_two_processes_train_together(script, tmp_path):
    options = "--trainer.accelerator=cpu --trainer.devices=2 --trainer.max_steps=2".split()
    folder = tmp_path / "run"
    code, said, _ = run(
        script,
        "fit",
        "--model",
        "gan",
        *options,
        "--wandb.mode=disabled",
        f"--run_dir={folder}",
        cwd=tmp_path,
    )
    assert code == 0
    assert "gan: 2 steps" in said
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("bin", "run")] == []
