"""The registry: names, suggestions, isolation of broken files, no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from zoo import ls, registry
from zoo.core import DataSpec, GenerativeModule
from zoo.registry import Paper, register

ROOT = Path(__file__).parents[2]


def test_listing_filters_by_glob_family_taxonomy_and_capability():
    assert {"began", "wgan", "wgan_gp"} <= set(registry.list("*gan*"))
    assert set(registry.list(family="gan")) >= {"began", "gan", "dcgan"}
    assert "began" not in registry.list(taxonomy="explicit")
    assert "began" in registry.list(can="encode")
    assert "gan" not in registry.list(can={"sample", "encode"})
    assert registry.list("nothing*") == []
    assert "began" in registry.search("boundary equilibrium")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"can": "smaple"}, "can='smaple' is none of .*; did you mean sample"),
        ({"can": ["sample", "encod"]}, "can='encod' is none of .*; did you mean encode"),
        ({"family": "gna"}, "family='gna' is none of .*; did you mean gan"),
        ({"taxonomy": "implicit dirct"}, "taxonomy='implicit dirct' .*mean implicit direct"),
    ],
)
def test_a_mistyped_filter_is_no_empty_list(asked, said, capsys):
    with pytest.raises(ValueError, match=said):
        registry.list(**asked)
    if isinstance(asked.get("can", ""), str):
        ((key, value),) = asked.items()
        assert ls.main([f"--{key}", value]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("spec", [(1, 8, 8), [2], None, 784, {"x": (1, 8, 8)}])
def test_create_takes_a_spec_and_nothing_else(spec):
    for name in registry.list():
        with pytest.raises(TypeError, match=rf"^{name}: spec is a Spec such as DataSpec\("):
            registry.create(name, spec)


def test_entry_read_from_the_source_equals_the_decorators():
    for name in registry.list():
        read, made = registry.entry(name), registry.get(name).entry
        for field in (
            "name",
            "family",
            "module",
            "cls",
            "paper",
            "taxonomy",
            "likelihood",
            "can",
            "data",
            "learns",
            "waive",
        ):
            assert getattr(read, field) == getattr(made, field), (name, field)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(registry.UnknownName, match=r"unknown model 'bgan'; did you mean: .*began"):
        registry.entry("bgan")
    with pytest.raises(registry.UnknownName, match="unknown data 'digit'; did you mean: digits"):
        registry.entry("digit", "data")
    for odd in (None, 3, ("gan",)):
        with pytest.raises(registry.UnknownName, match="unknown model"):
            registry.create(odd, DataSpec((2,)))


def test_create_checks_parameter_names():
    spec = DataSpec((1, 8, 8), 17)
    assert registry.create("began", spec, gamma=0.7).gamma == 0.7
    with pytest.raises(TypeError, match="did you mean gamma"):
        registry.create("began", spec, gama=0.7)


def test_listing_imports_no_torch():
    code = "import sys; from zoo import ls; ls.main(['--tree']); assert 'torch' not in sys.modules"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "implicit direct" in out
    assert "began" in out


def test_a_users_model_registers_and_a_taken_name_is_refused():
    try:

        @register(
            "mine",
            family="gan",
            taxonomy="implicit direct",
            can={"sample"},
            paper=Paper("Me", "Mine", 2026),
        )
        class Mine(GenerativeModule):
            def __init__(self, spec: DataSpec, width: int = 3) -> None:
                super().__init__(spec)

        assert "mine" in registry.list(family="gan")
        assert registry.create("mine", DataSpec((2,)), width=4).params == {"width": 4}
        with pytest.raises(ValueError, match="already taken"):

            @register("mine", family="gan", taxonomy="implicit direct")
            class Other(GenerativeModule):
                pass

        with pytest.raises(ValueError, match="'began' is already taken"):
            register("began", family="gan", taxonomy="implicit direct")(Mine)
    finally:
        registry._added.clear()


def zoo_at(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(registry, "ROOT", path)
    registry._scan.cache_clear()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    for family in ("gan", "flow"):
        (tmp_path / family).mkdir()
    yield lambda: zoo_at(tmp_path, monkeypatch)
    monkeypatch.undo()
    registry._scan.cache_clear()


GOOD = (
    '@register("{}", taxonomy="implicit direct", can={{"sample"}})\nclass A:\n    def '
    "__init__(self, spec, width=1): ...\n"
)


def test_a_broken_file_breaks_only_itself_and_says_so(tmp_path, elsewhere):
    (tmp_path / "gan" / "good.py").write_text(GOOD.format("good"))
    (tmp_path / "gan" / "bad.py").write_text("class (:\n")
    elsewhere()
    with pytest.warns(UserWarning, match=r"bad.py is left out"):
        assert registry.list() == ["good"]
    assert registry.entry("good").parameters == ("width",)
    with pytest.raises(ImportError, match="broken: SyntaxError"):
        registry.entry("bad")


def test_a_name_in_two_families_is_refused(tmp_path, elsewhere):
    for family in ("gan", "flow"):
        (tmp_path / family / "twice.py").write_text(GOOD.format("twice"))
    elsewhere()
    with pytest.raises(ValueError, match="'twice' is registered twice"):
        registry.list()


@pytest.mark.parametrize(
    "text", [GOOD.format("other"), GOOD.format("wrong").replace("implicit direct", "magic")]
)
def test_a_wrong_name_or_taxonomy_leaves_the_file_out(tmp_path, elsewhere, text):
    (tmp_path / "gan" / "wrong.py").write_text(text)
    elsewhere()
    with pytest.warns(UserWarning, match="left out"):
        assert registry.list() == []
