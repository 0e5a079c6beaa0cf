"""The README is true: its table is the registry's, its commands parse, its files exist."""

import re
import shlex
from pathlib import Path

import pytest

from zoo import ls, registry
from zoo.config import layer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODELS = (ROOT / "docs" / "models.md").read_text()


def between(name: str, text: str = MODELS) -> str:
    return text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0].strip()


def test_the_table_of_models_is_what_the_command_writes():
    assert between("models") == ls.markdown([*registry.entries()]), (
        "run `python -m zoo.ls --markdown` and paste it"
    )


def test_the_readme_names_every_model():
    assert between("families", README) == ls.families([*registry.entries()])


def test_every_model_has_a_row_of_measured_results():
    rows = re.findall(r"^\| `(\w+)` \|", between("defaults"), re.M)
    assert rows == [e.name for e in registry.entries()]


def test_the_readme_is_short():
    assert README.count("\n") < 150


@pytest.mark.parametrize("command", re.findall(r"python -m zoo\.fit (--[^#\n`]+)", README))
def test_every_fit_command_parses(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "began-before"  # what --ckpt_path last is about
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "config.yaml").write_text("model: began\n")
    layered = layer(shlex.split(command.strip()))
    assert registry.entry(layered.model)


def test_every_file_it_names_exists():
    for path in re.findall(
        r"\((docs/[^)]+)\)|`(docs/[\w./]+|[A-Z]+\.md|sweeps/\w+\.yaml)`", README
    ):
        name, _, section = (path[0] or path[1]).partition("#")
        assert (ROOT / name).exists(), name
        if section:
            heads = re.findall(r"^#+ (.+)$", (ROOT / name).read_text(), re.MULTILINE)
            assert section in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads]
