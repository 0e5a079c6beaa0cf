"""Completion: what the words may become, against the parsers themselves, and in real shells."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.complete import OPTIONS, SHELLS, STUBS, complete, stub

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("sa", ["sample"]),
        ("--v", ["--version"]),
        ("fit --mo", ["--model", "--model.help", "--model.", "--mode_coverage."]),
        ("fit --model bega", ["began"]),
        ("fit --model=bega", ["--model=began"]),
        ("fit --data fact", ["factor_grid"]),
        ("fit --model.help bega", ["began"]),
        ("fit --model gan --model.mom", ["--model.momentum_end=", "--model.momentum_steps="]),
        ("fit --model=gan --model.mom", ["--model.momentum_end=", "--model.momentum_steps="]),
        ("fit --model gan --model=began --model.gam", ["--model.gamma="]),
        ("fit --model gan --model.loop.r", ["--model.loop.r1=", "--model.loop.replay="]),
        ("fit --model gan --model.arch=", ["--model.arch=small", "--model.arch=maxout"]),
        ("fit --model gan --model.arch ma", ["maxout"]),
        ("fit --model began --model.skip=t", ["--model.skip=true"]),
        ("fit --model gan --data.ki", ["--data.kind="]),  # of toy2d, its default
        ("fit --model gan --data digits --data.ki", []),
        ("fit --model gan --data digits --data.bi", ["--data.binarize="]),
        ("fit --model began --preset=p", ["--preset=paper"]),
        ("fit --model ica --preset p", ["paper", "patches"]),
        ("fit --model nope --model.", ["--model.help"]),
        ("fit --model nope --preset=", []),
        ("fit --trainer.max_s", ["--trainer.max_steps="]),
        ("fit --ema.dec", ["--ema.decay="]),
        ("fit --wandb.mo", ["--wandb.mode="]),
        ("fit --config some", []),
        ("fit --model gan --model.width=1", []),
        ("explore mani", ["manifold"]),
        ("sample --inpaint bo", ["bottom"]),
        ("sample --raw --ck", ["--ckpt"]),
        ("ls --data dig", ["digits"]),
        ("ls --can rec", ["reconstruct"]),
        ("check bega", ["began"]),
        ("completion z", ["zsh"]),
        ("nope x", []),
    ],
)
def test_what_the_last_word_may_become(words, wanted):
    assert complete(words.split()) == wanted


@pytest.mark.parametrize(
    "words", [[], [""], ["fit", ""], ["ls", ""], ["fit", "--model", ""]], ids=str
)
def test_an_empty_word_may_become_anything(words):
    assert len(complete(words)) > 7


@pytest.mark.parametrize("option", ["--ckpt_path", "--ckpt"])
def test_run_folders_the_newest_first(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    for minute, name in enumerate(("gan-1", "vae-1", "gan-2")):
        config = tmp_path / "runs" / name / "config.yaml"
        config.parent.mkdir(parents=True)
        config.touch()
        os.utime(config, (60 * minute, 60 * minute))
    command = "fit --model gan" if option == "--ckpt_path" else "sample"
    every = (
        ["runs/gan-2", "runs/gan-1"]
        if "fit" in command
        else ["runs/gan-2", "runs/vae-1", "runs/gan-1"]
    )
    assert complete([*command.split(), option, ""]) == ["last", "best", *every]
    assert complete([*command.split(), f"{option}=runs/gan-2"]) == [f"{option}=runs/gan-2"]


@pytest.mark.parametrize("command", sorted({*OPTIONS} - {"fit", "completion"}))
def test_options_are_those_of_the_command(command, capsys):
    name = f"zoo.{command}.__main__" if command == "page" else f"zoo.{command}"
    with pytest.raises(SystemExit):
        importlib.import_module(name).main(["--help"])
    said = capsys.readouterr().out
    assert {*re.findall(r"^  (?:-h, )?(--\w+)", said, re.MULTILINE)} == {*OPTIONS[command].split()}


def test_options_of_fit_are_those_of_its_parser():
    from zoo.cli import options_of
    from zoo.config import layer

    words = ["fit", "--model", "gan", "--data", "digits"]
    offered = {o.rstrip("=") for o in complete([*words, "--"]) if not o.endswith(".")}
    for group in [o for o in complete([*words, "--"]) if o.endswith(".")]:
        offered |= {o.rstrip("=") for o in complete([*words, group])}
    offered = {o for o in offered if not o.startswith("--model.loop.")} | {"--model.loop"}
    ours = {"--preset", "--config", "--allow_changes", "--import", "--print_config", "--help"}
    ours |= {"--model.help", "--data.help"}
    groups = {o.partition(".")[0] for o in offered if "." in o}
    known = {f"--{o}" for o in options_of(layer(words[1:]))}
    assert offered - ours == known - (groups - {"--model", "--data"})


def test_every_option_of_the_help_of_fit_is_offered():
    from zoo.fit import HELP

    for option in re.findall(r"--[\w.]+", HELP):
        stem = option if not option.isupper() else ""
        stem = re.sub(r"[A-Z]+$|=.*", "", stem)
        assert complete(["fit", "--model", "gan", stem]), option


# -- shells ---------------------------------------------------------------------------------------
@pytest.fixture
def shell(tmp_path):
    """Run a script in a shell in which ``zoo`` is the console script."""
    script = tmp_path / "zoo"
    main = "import sys; from zoo.__main__ import main; sys.exit(main())"
    script.write_text(f"#!{sys.executable}\n{main}\n")
    script.chmod(0o755)

    def run(*command):
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60
        )
        assert done.stderr == ""
        return done.stdout

    return run


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("zoo fit --model bega", "began"),
        ("zoo fit --model=bega", "began"),  # bash takes what follows = for a word
        ("zoo fit --model began --model.gam", "--model.gamma="),
        ("zoo fit --model gan --model.arch=m", "maxout"),
        ("zoo expl", "explore"),
        ("zoo ls *", ""),
    ],
)
def test_bash(shell, line, wanted):
    body = """source <(zoo completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
_zoo zoo
echo "${COMPREPLY[*]}" """
    assert shell("bash", "--norc", "-c", body, "bash", line).split() == wanted.split()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh(shell):
    body = """autoload -Uz compinit; compinit -u
source <(zoo completion zsh)
compadd() { print -l -- "${@[(r)--,-1]}" }
words=(zoo fit --model bega) CURRENT=4
_zoo
print $_comps[zoo]"""
    assert shell("zsh", "-f", "-c", body).split() == ["--", "--", "began", "_zoo"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("zoo fit --model=bega", "--model=began"),
        ("zoo ls digi", "digits"),
        ("zoo page --ckpt /us", "/usr/"),
    ],
)
def test_fish(shell, line, wanted):
    body = f"zoo completion fish | source; complete -C '{line}'"
    assert shell("fish", "--no-config", "-c", body).split() == [wanted]


def test_each_shell_has_its_part(shell):
    for name in SHELLS:
        assert shell("zoo", "completion", name) == (STUBS / f"zoo.{name}").read_text()
    assert shell("zoo", "completion", "--help").startswith("usage: zoo completion bash|zsh|fish")


@pytest.mark.parametrize(
    ("words", "said"), [([], "say which"), (["tcsh"], "got 'tcsh'"), (["zsh", "x"], "got 'zsh x'")]
)
def test_another_shell_is_one_line(words, said, capsys):
    assert stub(words) == 2
    wrong = capsys.readouterr().err
    assert wrong == f"zoo: error: zoo completion takes bash, zsh, fish; {said}\n"
