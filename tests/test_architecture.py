"""The house rules that a machine can hold: who imports whom, where files lie, how long they are."""

import ast
import re
from pathlib import Path

import pytest

from zoo import registry

ROOT = Path(__file__).parent.parent
FILES = sorted((*(ROOT / "zoo").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")))
FAMILIES = set(registry.FAMILIES)
PARTS = {"registry", "nn", "core", "data", "metrics", *FAMILIES}


def layer(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "callbacks":
        return "callbacks"
    if len(parts) == 2:
        return {"registry": "registry", "__init__": "package"}.get(parts[1], "command")
    return "family" if parts[1] in FAMILIES else parts[1]


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from (f"{base}.{a.name}" if base == "zoo" else base for a in node.names)


ALLOWED = {  # what of ours a layer may import
    "package": {"zoo.registry"},
    "registry": set(),
    "nn": {"zoo.nn"},
    "core": {"zoo.core", "zoo.nn", "zoo.registry"},
    "data": {"zoo.core", "zoo.data", "zoo.registry"},
    "metrics": {"zoo.core", "zoo.metrics"},
    "family": {"zoo.core", "zoo.nn", "zoo.registry"},
    "callbacks": {"zoo.core", "zoo.metrics", "callbacks"},
}
FOREIGN = {  # libraries that stay out of a layer
    "package": {"torch", "lightning", "wandb"},
    "registry": {"torch", "lightning", "wandb", "numpy", "yaml", "omegaconf"},
    "nn": {"lightning", "wandb"},
    "core": {"wandb"},
    "family": {"wandb", "sklearn.datasets"},
    "metrics": {"wandb", "lightning"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_layers(path):
    here = layer(path)
    for name in imports(path):
        top = name.split(".")[0]
        if top in ("zoo", "callbacks") and here in ALLOWED:
            assert any(name == a or name.startswith(a + ".") for a in ALLOWED[here]), (
                f"{here} imports {name}"
            )
        assert not any(name == f or name.startswith(f + ".") for f in FOREIGN.get(here, ())), (
            f"{here} imports {name}"
        )


def test_the_import_test_sees_what_it_forbids(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import torch\nfrom zoo import gan\nfrom zoo.gan.began import BEGAN\nimport wandb.sdk\n"
    )
    assert list(imports(bad)) == ["torch", "zoo.gan", "zoo.gan.began", "wandb.sdk"]


@pytest.mark.parametrize("name", registry.list())
def test_a_model_is_one_path_in_every_tree(name):
    family = registry.entry(name).family
    for path in (
        f"zoo/{family}/{name}.py",
        f"configs/{family}/{name}.yaml",
        f"configs/{family}/{name}.paper.yaml",
        f"tests/{family}/test_{name}.py",
    ):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", registry.list())
def test_a_model_file_can_be_read_beside_its_paper(name):
    entry = registry.entry(name)
    text = (ROOT / "zoo" / entry.family / f"{name}.py").read_text()
    assert text.count("\n") <= 450
    docstring = ast.get_docstring(ast.parse(text))
    assert entry.paper is not None
    assert entry.paper.where in docstring
    for part in ("Paper", "Model", "Objective", "Sampling"):
        assert f"\n{part}" in docstring, f"the docstring has no {part} paragraph"


@pytest.mark.parametrize("name", registry.list())
def test_a_constructors_objections_name_the_model(name):
    text = (ROOT / "zoo" / registry.entry(name).family / f"{name}.py").read_text()
    models = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.decorator_list
    ]
    constructors = [
        f
        for cls in models
        for f in cls.body
        if isinstance(f, ast.FunctionDef) and f.name == "__init__"
    ]
    raised = [
        ast.get_source_segment(text, n) or ""
        for f in constructors
        for n in ast.walk(f)
        if isinstance(n, ast.Raise) and n.exc
    ]
    assert constructors and all(re.search(rf"\b({name}|model_name)\b", source) for source in raised)


def test_no_test_is_without_an_assertion():
    def asserts(function):
        text = ast.unparse(function)
        return any(word in text for word in ("assert", "raises", "warns", "harness."))

    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert asserts(node), f"{path.name}: {node.name}"


def test_no_machine_paths_or_addresses():
    import subprocess

    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in files:
        if (
            name.endswith((".py", ".md", ".yaml", ".toml", ".txt", ".sh"))
            and name != "tests/test_architecture.py"
        ):
            text = (ROOT / name).read_text()
            for word in ("/home/", "/root/", "/Users/", "/simple/"):
                assert word not in text, f"{name} mentions {word}"
