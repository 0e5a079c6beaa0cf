"""The last words of a run: scores by what they are about, beside the default's; lines to paste."""

import importlib
import re
import shlex

import pytest
import torch

from zoo import fit, registry, standards
from zoo.core import DataSpec
from zoo.farewell import commands, farewell, scores
from zoo.page.run import Run
from zoo.page.story import commands as page_commands
from zoo.standards import Standard

MODEL = registry.create("vae", DataSpec((1, 4, 4), 2))
USUAL = Standard("data", 1000, 0, {"val/fid_pixels": 2.0, "val/nn_auc_net": 0.5, "val/elbo": -10.0})
VALUES = {
    "val/fid_net": 1.5,
    "val/fid_pixels": 4.0,
    "val/elbo": -9.9,
    "val/nn_auc_net": 0.9,
    "val/mine": 3.0,
}


def test_scores_stand_under_what_they_are_about_with_extractors_side_by_side():
    lines = scores(VALUES, None)
    at = {line.strip().split(",")[0].split("  ")[0]: i for i, line in enumerate(lines)}
    order = ["likelihood", "evidence lower bound", "do samples look like the data?"]
    order += ["Fréchet distance", "are they new?", "nearer to training than to held-out images"]
    assert [at[w] for w in [*order, "more", "mine"]] == [*range(8)]
    assert re.search(r"lower is better +net 1\.5   pixels 4$", lines[3])
    assert "0.5 is best" in lines[5] and "better" not in lines[7]


def test_values_are_judged_beside_the_default_in_their_own_direction():
    text = "\n".join(scores(VALUES, USUAL))
    assert "pixels 4 worse than 2" in text
    assert "-9.9 alike" in text and "net 0.9 worse than 0.5" in text
    better = "\n".join(scores({"val/fid_pixels": 1.0, "val/elbo": -5.0}, USUAL))
    assert "1 better than 2" in better and "-5 better than -10" in better
    assert "net 1.5" in text and "net 1.5 " not in text.replace("net 1.5   ", "")


def test_the_whole_says_steps_best_against_last_page_and_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(standards, "every", lambda: {"vae": {"data": USUAL}})
    (tmp_path / "a run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "a run" / "checkpoints" / "last.ckpt").touch()
    best = ("val/fid_pixels", 1.25)
    said = farewell(MODEL, "data", 1234, 75.0, tmp_path / "a run", VALUES, best, "  page  P")
    assert said.splitlines()[1] == "vae: 1,234 steps on data in 75 seconds"
    assert "beside the documented default: 1,000 steps on data" in said
    assert "best.ckpt    Fréchet distance (pixels) 1.25, in the end 4" in said
    lines = said.splitlines()
    assert lines[lines.index("  page  P") + 1].startswith("  draw more ")
    for command in ("zoo.sample --ckpt", "zoo.explore --ckpt", "zoo.fit --ckpt_path"):
        assert f"{command} '{tmp_path}/a run'" in said
    assert "--trainer.max_steps=2468" in said
    other = farewell(MODEL, "other", 10, 200.0, tmp_path, VALUES, best, "")
    assert "documented default" not in other and "3.3 minutes" in other
    assert other.splitlines()[-1] == "  no checkpoint was written"


def test_commands_fit_the_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    blind = registry.create("autoencoder", DataSpec((1, 8, 8), 17))
    assert not any("zoo.sample" in line for line in commands(blind, tmp_path, 5))
    own = type("Mine", (torch.nn.Module,), {"entry": None, "__module__": "my_models"})()
    assert [line.split()[0] for line in commands(own, tmp_path, 5)] == ["train"]
    assert commands(own, tmp_path, 5)[0].endswith("--import my_models")


OWN = """
from zoo.data.digits import Digits
from zoo.data.toy2d import Toy2D
class Points(Toy2D):
    pass
class Mine(Digits):
    pass
"""


@pytest.mark.parametrize(
    ("model", "data", "wanted"),
    [
        ("gan", "mine_too.Points", ["draw", "train"]),
        ("gan", "toy2d", ["draw", "train"]),
        ("kde", "digits", ["draw", "complete", "look", "train"]),
        ("made", "mine_too.Mine", ["draw", "complete", "look", "train"]),
        pytest.param(
            *("vae", "mine_too.Mine", ["draw", "look", "probe", "train"]), marks=pytest.mark.slow
        ),
        ("cyclegan", "unpaired", ["draw", "train"]),
        ("him", "linear_regression", ["draw", "train"]),
        ("him", "lotka_volterra", ["draw", "train"]),
    ],
)
def test_every_line_of_the_farewell_and_of_the_page_works(
    tmp_path, monkeypatch, capsys, model, data, wanted
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_too.py").write_text(OWN)
    options = ["--trainer.max_steps=2", "--wandb.mode=disabled", "--fidelity.n_fake=64"]
    options += [
        "--fidelity.extractor=pixels",
        "--memorisation.enabled=false",
        "--sample_grid.n=4",
        "--run_dir=a run",
    ]
    assert fit.main([f"--model={model}", f"--data={data}", *options]) == 0
    lines = re.findall(r"^  (\w+) .*?(python -m zoo\..*)$", capsys.readouterr().out, re.M)
    assert [word for word, _ in lines] == wanted
    shown = [line for _, line in page_commands(Run(tmp_path / "a run"))]
    for line in dict.fromkeys([*(line for _, line in lines), *shown]):
        name, *arguments = shlex.split(line)[2:]
        name = "zoo.page.__main__" if name == "zoo.page" else name
        command = importlib.import_module(name).main
        quick = ["--tune_seeds=0", "--seeds=2"] if "probe" in line else []
        assert command([*arguments, *quick]) == 0, (line, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("value", "usual", "better", "said"),
    [(1.0, 2.0, "lower", "better"), (0.3, 0.5, 1.0, "worse"), (5.0, 1.0, None, "")],
)
def test_verdicts(value, usual, better, said):
    assert standards.verdict(value, usual, better) == said
