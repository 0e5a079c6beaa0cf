"""The house rules that a machine can hold: who imports whom, where files lie, how long they are."""

import ast
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from zoo import registry

ROOT = Path(__file__).parent.parent
FILES = sorted((*(ROOT / "zoo").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")))
FAMILIES = set(registry.FAMILIES)
ROOMS = {"auxiliary", "nn", "core", "bases", "data", "metrics", "show", "check"}


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
    "bases": {"zoo.bases", "zoo.core", "zoo.nn"},
    "data": {"zoo.core", "zoo.data", "zoo.nn", "zoo.registry"},
    "metrics": {"zoo.core", "zoo.metrics"},
    "auxiliary": {"zoo.auxiliary", "zoo.core", "zoo.nn", "zoo.registry"},
    "family": {"zoo.auxiliary", "zoo.bases", "zoo.core", "zoo.nn", "zoo.registry"},
    "show": {"zoo.core", "zoo.metrics", "zoo.show"},
    "callbacks": {"zoo.core", "zoo.metrics", "zoo.show", "callbacks"},
    "check": {"zoo"},
    "page": {"zoo"},
    "command": {"zoo"},
}
FOREIGN = {  # libraries that stay out of a layer
    "package": {"torch", "lightning", "wandb"},
    "registry": {"torch", "lightning", "wandb", "numpy", "yaml", "omegaconf"},
    "nn": {"lightning", "wandb"},
    "core": {"wandb"},
    "bases": {"wandb"},
    "data": {"wandb"},
    "auxiliary": {"lightning", "wandb"},
    "family": {"wandb", "sklearn.datasets", "lightning"},
    "metrics": {"wandb", "lightning", "PIL", "matplotlib"},
    "show": {"wandb", "lightning"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_layers(path):
    here = layer(path)
    for name in imports(path):
        top = name.split(".")[0]
        if top in ("zoo", "callbacks"):
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
    assert entry.paper.where in " ".join(docstring.split())  # whatever the line breaks
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


def test_private_names_of_lightning_are_read_in_one_file_only():
    import lightning.pytorch as lightning
    from lightning.pytorch.core.optimizer import LightningOptimizer

    private = {
        n
        for cls in (lightning.Trainer, lightning.LightningModule, LightningOptimizer)
        for n in {*vars(cls), *cls.__init__.__code__.co_names}
        if re.match(r"_[a-z]", n)
    }
    private |= {"_trainer", "_signal_connector"}
    for path in FILES:
        if path.relative_to(ROOT).as_posix() == "zoo/core/lightning.py":
            continue
        tree = ast.parse(path.read_text())
        own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        stored = {
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
        }
        read = {
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)
        }
        odd = (read & private) - own - stored
        assert not odd, f"{path.name} reads Lightning's {sorted(odd)}"


def test_the_private_names_of_lightning_are_those_of_this_version():
    import importlib.metadata

    from lightning.pytorch.core.optimizer import LightningOptimizer

    assert importlib.metadata.version("lightning").startswith("2.6"), (
        "read zoo/core/lightning.py again"
    )
    optimiser = LightningOptimizer(torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], 0.1))
    assert callable(optimiser._on_before_step) and callable(optimiser._on_after_step)
    trainer = Trainer(logger=False, barebones=True, accelerator="cpu")
    assert trainer._signal_connector.received_sigterm is False
    assert trainer.fit_loop._data_fetcher is None
    assert callable(trainer.fit_loop.epoch_loop._should_check_val_fx)
    assert callable(trainer.fit_loop.epoch_loop.val_loop.reset_restart_stage)
    assert trainer.fit_loop.epoch_loop.max_steps == trainer.max_steps
    assert LightningModule()._trainer is None


def test_no_test_is_without_an_assertion():
    def asserts(function):
        text = ast.unparse(function)
        return any(word in text for word in ("assert", "raises", "warns", "likelihoods."))

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
