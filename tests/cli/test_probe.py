"""``zoo.probe``: which examples are labelled, what is fitted on them, what stands beside it, what
is printed.
"""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import sem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn

from zoo import fit, probe, registry
from zoo.core import Batch, DataSpec, GenerativeModule
from zoo.data.digits import Digits

SPEC = DataSpec((1, 8, 8), 17, 10)
FIT = [
    "--trainer.max_steps=3",
    "--trainer.enable_progress_bar=false",
    "--wandb.mode=disabled",
    "--fidelity.n_fake=64",
    "--fidelity.extractor=pixels",
    "--sample_grid.n=16",
    "--memorisation.enabled=false",
]
QUICK = ["--labels", "1", "5", "--seeds", "3", "--tune_seeds", "3", "--steps", "3"]


class Identity(GenerativeModule):
    entry = SimpleNamespace(name="identity", can={"encode"})

    def encode(self, x):
        return x.flatten(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe") / "vae"
    assert fit.main(["--model=vae", "--data=digits", *FIT, f"--run_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def digits():
    data = Digits()
    return data.examples(), data.examples(split="val")


@pytest.fixture
def two_strengths(monkeypatch):
    """The choice among many has a test of its own; elsewhere it only takes time."""
    monkeypatch.setattr(probe, "STRENGTHS", (0.01, 1.0))


def finished(rows):
    return [r for r in rows if r is not None]


def test_labelled_sets_are_stratified_nested_and_of_their_seed(digits):
    y = digits[0]["y"]
    sets = [probe.subset(y, n, 4) for n in (1, 2, 5, 50)]
    for n, rows in zip((1, 2, 5, 50), sets, strict=True):
        assert torch.bincount(y[rows]).tolist() == [n] * 10
    for small, large in zip(sets, sets[1:], strict=False):
        assert {*small.tolist()} < {*large.tolist()}
    assert probe.subset(y, None, 4).sort().values.tolist() == [*range(1437)]
    assert torch.equal(sets[2], probe.subset(y, 5, 4)) and not torch.equal(
        sets[2], probe.subset(y, 5, 5)
    )


def test_no_validation_image_is_ever_labelled(digits, monkeypatch):
    train, val = digits
    seen = []
    monkeypatch.setattr(
        "zoo.core.transfer.fit_classifier",
        lambda m, x, y, *a, **k: seen.append(x) or SimpleNamespace(accuracy=lambda x, y: 0.0),
    )
    monkeypatch.setattr(
        probe,
        "probe_accuracy",
        lambda h, y, v, w, rows, *a, **k: seen.append(train["x"][rows]) or 0.0,
    )
    model = registry.create("vae", SPEC, width=8)
    finished(probe.linear_table(model, train, val, [1, None], 2))
    finished(probe.tuning_table(model, train, val, [1, None], 2, 5)[0])
    held = {row.numpy().tobytes() for row in val["x"]}
    assert len(seen) == 13 + 12 and not any(
        row.numpy().tobytes() in held for x in seen for row in x
    )


def test_the_probe_is_fitted_on_the_labelled_rows_alone(digits, monkeypatch):
    train, val = digits
    rows, given = probe.subset(train["y"], 5, 0), []
    whole = probe.fit_probe
    monkeypatch.setattr(
        probe, "fit_probe", lambda h, y, seed: given.append((h, y)) or whole(h, y, seed)
    )
    x = train["x"].flatten(1)
    first = probe.probe_accuracy(x, train["y"], val["x"].flatten(1), val["y"], rows)
    probe.probe_accuracy(x, train["y"], val["x"].flatten(1).flip(0), val["y"], rows)
    assert (
        np.array_equal(given[0][0], given[1][0])
        and given[0][1].tolist() == train["y"][rows].tolist()
    )
    assert first > 0.5


def test_the_strength_is_the_one_that_a_grid_search_finds(digits):
    train, _ = digits
    rows = probe.subset(train["y"], 20, 0)
    h, y = (train["x"][rows].flatten(1) / 16).double().numpy(), train["y"][rows].numpy()
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    search = GridSearchCV(LogisticRegression(max_iter=5000), {"C": probe.STRENGTHS}, cv=folds).fit(
        h, y
    )
    assert search.best_params_["C"] == probe.fit_probe(h, y, 3).C
    assert (
        probe.fit_probe(h[::20], y[::20]).C == 1.0
    )  # one example of each class leaves nothing to validate on


def test_wide_features_give_what_they_give_without_the_change_of_basis(digits):
    train, val = digits
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(64, 300, generator=g, dtype=torch.float64)
    h, h_val = (part["x"].flatten(1).double() @ wide for part in (train, val))
    rows = probe.subset(train["y"], 3, 0)
    a, b = (((part - h.mean(0)) / h.std(0)).numpy() for part in (h, h_val))
    straight = (
        probe.fit_probe(a[rows], train["y"][rows].numpy()).predict(b) == val["y"].numpy()
    ).mean()
    assert probe.probe_accuracy(h, train["y"], h_val, val["y"], rows) == pytest.approx(
        straight, abs=0.012
    )


def test_features_of_the_identity_are_the_raw_row_exactly(digits, two_strengths):
    rows = finished(probe.linear_table(Identity(SPEC), *digits, [5], 2))
    values = {
        name: [r["values"] for r in rows if r["row"] == name]
        for name in ("identity", "raw data", "random weights")
    }
    assert values["identity"] == values["raw data"] == values["random weights"]


def test_principal_components_are_scikit_learns(digits):
    from sklearn.decomposition import PCA

    x, x_val = (part["x"].flatten(1) for part in digits)
    reference = PCA(5).fit(x.double().numpy())
    for part, found in zip((x, x_val), probe._principal(x, x_val, 5), strict=True):
        assert np.allclose(
            found.abs().numpy(), np.abs(reference.transform(part.double().numpy())), atol=1e-6
        )


def test_permuted_labels_give_chance(digits, two_strengths):
    train, val = digits
    order = torch.randperm(1437, generator=torch.Generator().manual_seed(0))
    shuffled = Batch(train | {"y": train["y"][order]})
    model = registry.create("vae", SPEC, width=32)
    rows = finished(probe.linear_table(model, shuffled, val, [5], 6))
    rows += finished(probe.tuning_table(model, shuffled, val, [5], 6, 20)[0])
    rows = [r for r in rows if r["table"] != "difference"]
    assert len(rows) == 7
    for r in rows:
        assert r["mean"] == pytest.approx(0.1, abs=0.08), r["row"]


def test_every_mode_has_the_same_examples_and_steps_and_leaves_the_model_alone(digits, monkeypatch):
    from zoo.core import transfer

    calls, whole = [], transfer.fit_classifier
    monkeypatch.setattr(
        transfer,
        "fit_classifier",
        lambda m, x, y, c, mode, **o: calls.append((mode, x, y, o)) or whole(m, x, y, c, mode, **o),
    )
    model = registry.create("dcgan", SPEC, width=4)

    def fingerprint():
        return hashlib.sha256(
            b"".join(v.numpy().tobytes() for v in model.state_dict().values())
        ).hexdigest()

    before = fingerprint()
    finished(probe.tuning_table(model, *digits, [2], 2, 4)[0])
    assert fingerprint() == before and len(calls) == 6
    for group in (calls[:3], calls[3:]):
        assert [c[0] for c in group] == ["finetune", "frozen", "scratch"]
        assert all(torch.equal(c[1], group[0][1]) and torch.equal(c[2], group[0][2]) for c in group)
        assert {(c[3]["steps"], c[3]["batch_size"], c[3]["seed"]) for c in group} == {
            (4, probe.BATCH, group[0][3]["seed"])
        }


def test_features_without_gradients_are_tuned_frozen_only_and_it_is_said(digits):
    class Fixed(Identity):
        def __init__(self, spec):
            super().__init__(spec)
            self.linear = nn.Linear(64, 3)

        @torch.no_grad()
        def encode(self, x):
            return self.linear(x.flatten(1))

    rows, why = probe.tuning_table(Fixed(SPEC), *digits, [1], 2, 2)
    assert [r["row"] for r in finished(rows)] == ["frozen"]
    assert "pass no gradient" in why


def test_the_command_prints_every_row_and_writes_every_seed(run, tmp_path, capsys, two_strengths):
    out = tmp_path / "new" / "probe.json"
    assert probe.main(["--ckpt", str(run), *QUICK, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for word in (
        "vae on digits",
        "180 validation",
        "raw data",
        "PCA-8",
        "random weights",
        "finetune",
        "frozen",
        "scratch",
        "5 a class",
    ):
        assert word in said
    document = json.loads(out.read_text())
    rows = {(r["table"], r["row"], r["labels"]): r for r in document["rows"]}
    assert len(rows) == 2 * (4 + 3 + 2) and document["steps"] == 3
    for n in (1, 5):
        values = {
            mode: np.array(rows["few labels", mode, n]["values"])
            for mode in ("finetune", "frozen", "scratch")
        }
        gain = rows["difference", "finetune - scratch", n]
        assert gain["mean"] == pytest.approx((values["finetune"] - values["scratch"]).mean())
        assert gain["spread"] == pytest.approx(sem(values["finetune"] - values["scratch"]))
        linear = rows["linear", "vae", n]
        assert (
            linear["spread"] == pytest.approx(np.std(linear["values"], ddof=1))
            and len(linear["values"]) == 3
        )


def test_all_labels_are_one_set_and_csv_has_a_line_a_row(run, tmp_path, capsys, two_strengths):
    out = tmp_path / "probe.csv"
    arguments = [
        "--ckpt",
        str(run),
        "--labels",
        "2",
        "all",
        "--seeds",
        "2",
        "--tune_seeds",
        "0",
        "--out",
        str(out),
    ]
    assert probe.main(arguments) == 0
    said = capsys.readouterr().out
    assert "few labels" not in said and "±    -" in said
    lines = out.read_text().splitlines()
    assert (
        lines[0].startswith("model,data,checkpoint,steps,table,row,labels,mean")
        and len(lines) == 1 + 8
    )
    first = out.read_text()
    assert probe.main(arguments) == 0
    assert out.read_text() == first


def test_known_factors_are_scored_by_both_estimators(tmp_path, capsys):
    folder, out = tmp_path / "grid", tmp_path / "grid.json"
    data = [
        "--data=factor_grid",
        "--data.size=16",
        "--data.shapes=[square]",
        "--data.rotations=1",
        "--data.scales=[0.2,0.28]",
    ]
    assert fit.main(["--model=vae", *data, *FIT, "--model.latent=3", f"--run_dir={folder}"]) == 0
    assert probe.main(["--ckpt", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert (
        "whole grid of 128 images" in said and "linear probe" not in said
    )  # squares alone have no classes
    rows = {r["row"]: r["values"] for r in json.loads(out.read_text())["rows"]}
    assert {k: len(v) for k, v in rows.items()} == {
        "mig_discrete": 1,
        "mig_q": 5,
        "factor_vae_score": 5,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "0"], "or all; got '0'"),
        (["--labels", "5", "500"], "--labels 500 is too many: class 0 has"),
        (["--seeds", "1"], "--seeds is at least 2"),
        (["--out", "probe.txt"], "--out is a .json or a .csv file, got probe.txt"),
    ],
)
def test_impossible_requests_are_one_line(run, capsys, options, message):
    assert probe.main(["--ckpt", str(run), *options]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("vae", "toy2d", "has neither labels nor known factors"),
        ("made", "digits", "made has no features"),
    ],
)
def test_what_cannot_be_probed_is_one_line(tmp_path, capsys, model, data, message):
    assert (
        fit.main([f"--model={model}", f"--data={data}", *FIT[:3], f"--run_dir={tmp_path / 'run'}"])
        == 0
    )
    capsys.readouterr()
    assert probe.main(["--ckpt", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
