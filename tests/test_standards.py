"""What is documented of the default runs and of trivial samplers is of these models and data."""

import math
from pathlib import Path

import pytest

from zoo import registry, standards
from zoo.metrics.meanings import OF_SAMPLES, meaning
from zoo.standards import standard, trivial


def test_every_model_has_its_default_run_and_it_reaches_its_gate():
    found = standards.every()
    assert {*found} == {*registry.list()}
    for entry in registry.entries():
        reached = []
        for run in found[entry.name].values():
            assert run.seed == 0 and run.steps > 0
            assert all(math.isfinite(v) for v in run.values.values()) and "val/" not in run.values
            judged = [g for g in entry.learns if g[0].startswith("val/") and g[0] in run.values]
            good = [run.values[k] < x if s == "<" else run.values[k] > x for k, s, x in judged]
            reached.append(bool(judged) and all(good))
        gates = [k for k, *_ in entry.learns if k.startswith("val/")]
        assert any(reached) or not gates, entry.name


def test_a_run_on_other_data_has_no_standard():
    assert standard("began", "digits 16x16") is None and standard("nobody", "digits 8x8") is None
    assert standard("began", "digits 8x8").steps == 9000


def test_the_data_score_better_than_what_knows_next_to_nothing():
    for data in ("digits 8x8", "heads 32x32 (aligned)"):
        rows = trivial(data)
        assert {"held-out data", "half against half", "gaussian", "mean"} <= {*rows}
        for key, value in rows["held-out data"].items():
            name = key.removeprefix("val/")
            assert meaning(key) in OF_SAMPLES.values(), key
            if name.startswith(("fid", "coverage", "am")):
                better = meaning(key).better
                others = [rows[k][key] for k in ("independent", "uniform", "mean")]
                assert value < min(others) if better == "lower" else value > max(others), key
    assert trivial("what nobody measured") == {}


# -- tables ---------------------------------------------------------------------------------------
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SPEED = {"flows", "sampling", "sampling_gans"}  # these compare with loops and libraries
OF_DATA = ("held-out data", "half against half", "what was wanted itself", "all pixels")
OF_NOTHING = ("gaussian", "independent", "the mean", "mean image", "circle", "the prior's median")


@pytest.mark.parametrize("table", sorted(RESULTS.glob("*.md")), ids=lambda path: path.stem)
def test_a_table_of_quality_has_rows_of_the_data_and_of_what_knows_nothing(table):
    if table.stem in SPEED:
        pytest.skip("of speed")
    text = table.read_text()
    assert any(row in text for row in OF_NOTHING)
    # a likelihood has no value of the data themselves; strangeness is of classes; rates are known
    bound_only = table.stem.startswith(("mnist", "race", "anomaly", "intervals"))
    assert bound_only or any(row in text for row in OF_DATA)
