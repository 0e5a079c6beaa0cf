"""Every value that a model of the zoo logs is explained, and what is said to be better is."""

import re

import pytest
import torch

from callbacks.fidelity import _Scorer
from zoo import registry, standards
from zoo.core import DataSpec
from zoo.metrics import Pixels
from zoo.metrics.meanings import OF_SAMPLES, OTHERS, PARTS, extractor_of, meaning

EVERY = {**OF_SAMPLES, **OTHERS}
LOG_P = re.compile(r"(?:a \w*\s?\w+ bound of )?(-?)[EΣ ]*log [pP]")


def explained(key):
    found = meaning(key)
    return bool(found.sentence) or found.title != key.rpartition("/")[2]


def test_a_meaning_is_one_of_words_and_titles_are_not_shared():
    assert not OF_SAMPLES.keys() & OTHERS.keys()
    for key, found in EVERY.items():
        assert found.title and len(found.title) <= 45 and len(found.sentence) <= 170, key
        assert found.better is None or found.better in ("higher", "lower", 0.0, 0.5, 0.9, 1.0), key
    titles = [m.title for m in OF_SAMPLES.values()]
    assert len(titles) == len({*titles})


def test_every_gate_is_explained_and_asks_for_what_is_better():
    for entry in registry.entries():
        for key, sign, _ in entry.learns:
            found = meaning(key)
            assert explained(key), (entry.name, key)
            wrong = {"<": "higher", ">": "lower"}[sign]
            assert found.better != wrong, (entry.name, key)


def test_signs_and_units_are_those_of_what_is_logged():
    """Masses are at most 1, so what is said to be a log p is below 0 in every default run."""
    seen = set()
    for runs in standards.every().values():
        for data, run in runs.items():
            for key, value in run.values.items() if data.startswith(("digits", "factor")) else ():
                found = meaning(key)
                if said := LOG_P.match(found.sentence):
                    seen.add(key)
                    assert (value > 0) == (said[1] == "-"), (key, value, found)
                    assert found.better == ("lower" if value > 0 else "higher"), key
    assert seen >= {"val/recon", "val/elbo", "val/nll_nats", "val/iw_nll", "val/pseudo_nll"}
    for name in ("nice", "glow", "realnvp"):
        values = standards.every()[name]["digits 8x8"].values
        parts = values["val/prior_bpd"] + values["val/logdet_per_dim"]
        assert parts == pytest.approx(values["val/bits_per_dim"], abs=1e-4)
        assert "bits" in meaning("val/logdet_per_dim").title


def test_every_score_of_samples_is_explained_with_its_extractor():
    x, y = torch.randint(17, (20, 1, 8, 8)).float(), torch.arange(20) % 2
    extractor = Pixels(DataSpec((1, 8, 8), 17, 2), x, y)
    scorer = _Scorer.of(extractor, torch.device("cpu"), False, 5, 3)
    names = {n for group in scorer.scores(y) for n in group.split(", ")}
    assert names == {
        "fid",
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "is",
        "classes",
    } | {
        "am",
        "cond_acc",
    }
    for name in [*names, "nn_ratio", "nn_rate", "nn_auc"]:
        for extractor in ("_headsnet", "_pixels", ""):
            assert meaning(f"val/{name}{extractor}") is OF_SAMPLES[name]
        assert extractor_of(f"{name}_my_net") == "my_net"


def test_what_is_unknown_has_its_own_name_and_nothing_is_claimed():
    found = meaning("val/what_i_measure")
    assert (found.title, found.sentence, found.better) == ("what_i_measure", "", None)
    assert meaning("mine/fid").title == "mine/fid"
    assert {meaning(f"{part}/fid").title for part in PARTS} == {"Fréchet distance"}


def test_players_are_named():
    assert meaning("train/loss_d").title == "loss of D"
    assert meaning("train/lr_ae").title == "learning rate of the auto-encoder"
    assert meaning("train/grad_norm_g").title == "gradient norm of G"
    assert meaning("train/grad_norm").title == "slope of the critic"  # wgan_gp's own


def test_docs_and_code_name_no_score_without_a_meaning():
    from pathlib import Path

    root = Path(__file__).parents[2]
    text = "\n".join(p.read_text() for p in [*root.glob("docs/*.md"), root / "README.md"])
    for key in {*re.findall(r"`(?:val|train)/([a-z_0-9]+)`", text)}:
        assert explained(f"val/{key}"), key
