"""From a command line to layers: names, overrides, presets, and mistakes in one line, all before
torch is imported.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zoo.config import UsageError, folder, layer, merge

ROOT = Path(__file__).parents[2]


def write(path: Path, content) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_a_name_brings_its_config_and_its_class():
    layered = layer(["--model", "began"])
    assert layered.document["model"]["class_path"] == "zoo.gan.began.BEGAN"
    assert layered.document["data"]["class_path"] == "zoo.data.heads.Heads"
    own = yaml.safe_load((folder() / "gan" / "began.yaml").read_text())
    assert layered.document["trainer"]["max_steps"] == own["trainer"]["max_steps"]
    assert layered.document["trainer"]["num_sanity_val_steps"] == 0  # from base.yaml


def test_no_papers_run_keeps_the_small_ones_single_thread():
    for preset in sorted(folder().glob("*/*.paper.yaml")):
        name = preset.name.split(".")[0]
        assert layer(["--model", name, "--preset=paper"]).document.get("threads") is None, name


def test_both_spellings_of_a_parameter_reach_the_parser():
    layered = layer(
        ["--model=began", "--model.k=3", "--model.init_args.gamma", "0.7", "--trainer.max_steps=9"]
    )
    assert layered.options == [
        "--model.k=3",
        "--model.init_args.gamma=0.7",
        "--trainer.max_steps=9",
    ]


def test_a_preset_lies_over_the_small_config_and_user_files_over_both(tmp_path):
    paper = layer(["--model", "began", "--preset", "paper"]).document
    assert paper["model"]["init_args"]["arch"] == "conv"
    assert paper["data"]["class_path"] == "zoo.data.image_folder.ImageFolder"
    mine = write(
        tmp_path / "mine.yaml",
        {"model": {"init_args": {"gamma": 0.25}}, "trainer": {"max_steps": 7}},
    )
    both = layer(["--config", mine, "--model", "began", "--preset=paper"]).document
    assert both["model"]["init_args"]["gamma"] == 0.25
    assert both["model"]["init_args"]["arch"] == "conv"
    assert both["trainer"]["max_steps"] == 7


def test_a_config_file_may_name_model_and_data_in_short(tmp_path):
    path = write(tmp_path / "run.yaml", "model: began\ndata: {size: 64}\n")
    layered = layer(["--config", path])
    assert layered.model == "began"
    assert layered.document["data"] == {
        "class_path": "zoo.data.heads.Heads",
        "init_args": {"size": 64, "batch_size": 32},
    }


@pytest.mark.parametrize("asked", [["--data", "digits"], ["--config", "mine.yaml"]])
def test_data_of_their_own_default_run_bring_its_config_in_place_of_the_models(asked, tmp_path):
    write(tmp_path / "mine.yaml", "data: digits\n")
    document = layer(["--model", "began", *asked]).document
    own = yaml.safe_load((folder() / "gan" / "began.digits.yaml").read_text())
    assert document["data"]["class_path"] == "zoo.data.digits.Digits"
    assert document["trainer"]["max_steps"] == own["trainer"]["max_steps"]
    assert "init_args" not in document["model"]
    other = layer(["--model", "began", *asked, "--model.k=2", "--data.size=16"])
    assert other.options == ["--model.k=2", "--data.size=16"]
    faces = layer(["--model", "began", "--data", "image_folder"]).document
    assert faces["model"]["init_args"]["width"] == 512  # the model's own, on any other data


def test_other_data_drop_the_old_ones_parameters_but_keep_the_batch_size():
    document = layer(["--model", "began", "--data", "mnist"]).document
    assert document["data"] == {
        "class_path": "zoo.data.mnist.MNIST",
        "init_args": {"batch_size": 32},
    }


def test_epochs_on_the_command_line_lift_the_step_limit():
    assert (
        layer(["--model", "began", "--trainer.max_epochs=3"]).document["trainer"]["max_steps"] == -1
    )


def test_interpolations_are_left_for_the_parser(tmp_path):
    path = write(
        tmp_path / "i.yaml", {"model": {"init_args": {"latent": "${data.init_args.batch_size}"}}}
    )
    assert (
        layer(["--model", "began", "--config", path]).document["model"]["init_args"]["latent"]
        == "${data.init_args.batch_size}"
    )


def test_data_options_of_a_file_are_of_the_data_that_the_command_line_names(tmp_path):
    path = write(tmp_path / "d.yaml", {"data": {"size": 16}})
    of = layer(["--model", "gan", "--data", "digits", "--config", path]).document["data"]
    assert of["init_args"]["size"] == 16
    path = write(tmp_path / "d.yaml", {"data": {"class_path": "shapes", "init_args": {"n": 5}}})
    of = layer(["--model", "gan", "--data", "digits", "--config", path]).document["data"]
    assert "n" not in of.get("init_args", {})


def test_merging_replaces_lists_and_scalars_and_descends_into_dicts():
    assert merge({"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "e": {}}) == {
        "a": {"b": 1, "c": [3]},
        "d": 1,
        "e": {},
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which model"),
        (["--model", "bgan"], "unknown model 'bgan'; did you mean: "),
        (["--model", "began", "--data", "digit"], "unknown data 'digit'; did you mean: digits"),
        (
            ["--model", "began", "--model.gama=0.3"],
            r"--model.gama: began has no such parameter; did you mean --model.gamma\?",
        ),
        (["--model", "began", "--model.init_args.gama=0.3"], r"did you mean --model.gamma\?"),
        (
            ["--model", "began", "--data.sise=8"],
            r"--data.sise: heads has no such parameter; did you mean --data.size\?",
        ),
        (
            ["--model", "began", "--preset", "papier"],
            "began has no preset 'papier'; it has digits, paper",
        ),
        (["--model", "began", "--config", "nowhere.yaml"], "no config file nowhere.yaml"),
        (["--model"], "--model needs a value"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(arguments, words):
    with pytest.raises(UsageError, match=words) as caught:
        layer(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n", "must hold a mapping"),
        ("model: {init_args: {gama: 1}}", "did you mean --model.gamma"),
    ],
)
def test_a_broken_file_is_one_line_with_its_name(tmp_path, text, words):
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(UsageError, match=words) as caught:
        layer(["--model", "began", "--config", path])
    assert "\n" not in str(caught.value)


def test_a_misspelt_file_suggests_its_neighbour(tmp_path):
    write(tmp_path / "sweep.yaml", {})
    with pytest.raises(UsageError, match=r"did you mean .*sweep.yaml"):
        layer(["--model", "began", "--config", str(tmp_path / "swep.yaml")])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [(["--help"], 0, "began"), (["--model", "bgan"], 2, "did you mean"), ([], 2, "usage")],
)
def test_help_and_unknown_names_answer_without_torch(arguments, status, words):
    code = (
        f"import sys; from zoo import fit; s = fit.main({arguments!r}); assert 'torch' not in "
        f"sys.modules; sys.exit(s)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == status, out.stderr
    assert words in out.stdout + out.stderr
    assert "Traceback" not in out.stderr
