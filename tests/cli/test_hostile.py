"""Run folders and configs that a stranger made: they choose among classes, and execute nothing."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from zoo import explore, fit, probe, sample
from zoo.config import UsageError, layer
from zoo.core import checkpoint

ROOT = Path(__file__).parents[2]
SMALL = [
    "--model=vae",
    "--model.width=8",
    "--trainer.max_steps=2",
    "--trainer.enable_progress_bar=false",
    "--fidelity.n_fake=64",
    "--fidelity.extractor=pixels",
    "--wandb.mode=disabled",
]
COMMANDS = {
    "explore": (explore.main, ["reconstruct"]),
    "probe": (probe.main, ["--tune_seeds=0"]),
    "sample": (sample.main, ["--inpaint", "bottom"]),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "run"
    options = ["--model=made", *SMALL[2:], "--data.binarize=fixed", f"--run_dir={folder}"]
    assert fit.main(options) == 0
    return folder


@pytest.fixture
def shared(run, tmp_path, monkeypatch):
    """A copy of a run, and what a payload would leave: the file ``touched``, or a module that says
    it was imported."""
    (tmp_path / "payload.py").write_text("open('touched', 'w').close()\nclass Data: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "payload", raising=False)
    subprocess.run(["cp", "-r", str(run), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


def changed(folder: Path, **sections) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **sections}))
    return path


HOSTILE_DATA = [
    {"class_path": "os.system", "init_args": {"command": "touch touched"}},
    {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "touched"]}},
    {"class_path": "payload.Data"},
    {"class_path": "builtins.exec", "init_args": {"source": "open('touched', 'w')"}},
    {"class_path": "zoo.data.digits.os"},
    "payload.Data",
]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("data", HOSTILE_DATA, ids=str)
def test_no_command_calls_what_a_run_folder_names(shared, capsys, name, data):
    changed(shared, data=data)
    main, options = COMMANDS[name]
    assert main(["--ckpt", str(shared), *options]) == 2
    said = capsys.readouterr().err
    assert "a config may not name" in said
    assert "Traceback" not in said
    assert not Path("touched").exists()
    assert "payload" not in sys.modules


HOSTILE_SECTIONS = [
    {"model": {"class_path": "payload.Data"}},
    {"data": {"class_path": "os.system", "init_args": {"command": "touch touched"}}},
    {"trainer": {"callbacks": [{"class_path": "payload.Data"}]}},
    {"trainer": {"callbacks": ["payload.Data"]}},
    {"trainer": {"callbacks": "payload.Data"}},
    {"trainer": {"logger": {"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}}}},
    {"trainer": {"strategy": "payload.Data"}},
    {"trainer": {"strategy": "${wandb.project}"}, "wandb": {"project": "payload.Data"}},
    {
        "trainer": {
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.LambdaCallback",
                    "init_args": {"on_fit_start": "payload.Data"},
                }
            ]
        }
    },
    {
        "trainer": {
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.LambdaCallback",
                    "init_args": {"on_fit_start": "${wandb.project}"},
                }
            ]
        },
        "wandb": {"project": "payload.Data"},
    },
    {
        "trainer": {
            "logger": {
                "class_path": "lightning.pytorch.loggers.WandbLogger",
                "init_args": {"experiment": {"class_path": "payload.Data"}},
            }
        }
    },
    {"model": {"class_path": "dcgan", "init_args": {"loop": "payload.Data"}}},
    {"model": {"class_path": "dcgan", "init_args": {"loop": {"class_path": "payload.Data"}}}},
    {"model": {"class_path": "dcgan", "init_args": {"loop": "${wandb.project}"}}},
]


@pytest.mark.parametrize("sections", HOSTILE_SECTIONS, ids=str)
@pytest.mark.parametrize("way", ["--config", "--ckpt_path"])
def test_no_config_makes_training_call_or_import_anything(shared, capsys, sections, way):
    path = changed(shared, **sections)
    given = path if way == "--config" else shared
    named = [] if "model" in sections else ["--model=made"]
    assert fit.main([*named, f"{way}={given}", "--run_dir=elsewhere"]) == 2
    said = capsys.readouterr().err
    assert "a config may not name" in said
    assert "Traceback" not in said
    assert not Path("touched").exists()
    assert "payload" not in sys.modules
    assert not Path("elsewhere").exists()


PAYLOAD = {"class_path": "payload.Data"}
TEXT = '{"class_path": "payload.Data"}'
HOOKED = {"on_fit_start": "payload.Data"}
LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
PAIRS = {"class_path": "paired", "init_args": {"base": "shapes"}}
HIDDEN = [  # what the parser would find although no class path stands where one belongs
    {"trainer": {"logger.class_path": "payload.Data"}},
    {"trainer": {"callbacks.class_path": "payload.Data"}},
    {"trainer": {"logger": TEXT}},
    {"trainer": {"callbacks": f"[{TEXT}]"}},
    {"trainer": {"callbacks": [TEXT]}},
    {"trainer": {"callbacks": [[PAYLOAD]]}},
    {"trainer": {"logger": "other"}},
    {"trainer": {"callbacks": ["other.yaml"]}},
    {"trainer": {"strategy": "other"}},
    {"trainer": {"callbacks": [{"class_path": LAMBDA, "dict_kwargs": HOOKED}]}},
    {"trainer": {"callbacks": [{"class_path": "LambdaCallback", "init_args": HOOKED}]}},
    {"trainer": {"callbacks": [{"class_path": LAMBDA, "init_args": {"on_fit_start": PAYLOAD}}]}},
    {"trainer": {"logger": {"init_args": {"save_dir": "x"}}}},
    {"wandb": {"project": PAYLOAD}},
    {"model": {"class_path": "dcgan", "init_args": {"loop": TEXT}}},
    {"model": {"class_path": "dcgan", "init_args": {"loop.class_path": "payload.Data"}}},
    {"model": {"class_path": "dcgan", "dict_kwargs": {"loop": PAYLOAD}}},
    {"data": {**PAIRS, "init_args": {"options": {"n": PAYLOAD}}}},
    {"data": {**PAIRS, "init_args": {"options": {"n": TEXT}}}},
    {"data": {**PAIRS, "init_args": {"options": TEXT}}},
    {"data": {**PAIRS, "init_args": {"options": {"n": "class_path: payload.Data"}}}},
    {"data": {**PAIRS, "init_args": {"options": {"n": "${wandb.name}"}}}, "wandb": {"name": TEXT}},
    {"data": {**PAIRS, "init_args": {"options": {"n": "${oc.decode:${wandb.name}}"}}}},
    {"data": {"class_path": "paired", "init_args": {"base": "payload.Data"}}},
    {"data": {"class_path": "unpaired", "init_args": {"base": "payload.Data"}}},
    {"data": {"options": {"n": TEXT}}},
    {"run_dir": "payload.Data", "trainer": {"callbacks": [{"class_path": "${run_dir}"}]}},
]
FUNCTIONS = [  # of modules that may be named, and none of them a class of theirs
    "callbacks.checkpoint.signal.raise_signal",
    "callbacks.checkpoint.save_whole",
    "callbacks.report.write_protocol",
    "lightning.pytorch.loggers.csv_logs.os.remove",
]
HIDDEN += [
    {"trainer": {"callbacks": [{"class_path": LAMBDA, "init_args": {"on_fit_start": name}}]}}
    for name in FUNCTIONS
]


@pytest.mark.parametrize("sections", HIDDEN, ids=str)
def test_no_config_hides_what_the_parser_would_call_or_import(shared, capsys, sections):
    for name in ("other", "other.yaml"):
        Path(name).write_text(f"{TEXT}\n")
    given = changed(shared, **sections)
    named = [] if "model" in sections else ["--model=gan"]
    named += ["--data=paired"] if "options" in sections.get("data", {}) else []
    assert fit.main([*named, f"--config={given}", "--run_dir=elsewhere"]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert said.startswith("zoo.fit: error: ")
    assert not Path("touched").exists()
    assert "payload" not in sys.modules
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(
    "sections",
    [
        {"model": 3},
        {"model": {"class_path": 3}},
        {"data": ["digits"]},
        {"data": {"class_path": ["digits"]}},
        {"data": {"class_path": "digits", "init_args": ["size"]}},
        {"data": {"class_path": "digits", "init_args": {3: 4}}},
        {"trainer": {3: 4}},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [*COMMANDS, "fit"])
def test_a_section_of_another_form_is_one_line(shared, capsys, name, sections):
    given = changed(shared, **sections)
    if name == "fit":
        assert fit.main([f"--config={given}", "--run_dir=elsewhere"]) == 2
    else:
        main, options = COMMANDS[name]
        assert main(["--ckpt", str(shared), *options]) == 2
    said = capsys.readouterr().err
    assert f"error: {given}: " in said
    assert said.count("\n") == 1


def test_a_script_of_a_shared_folder_runs_where_the_command_line_names_it(shared, capsys):
    """TorchScript is code: ``torch.from_file`` writes to files, for one."""
    script = torch.jit.script(Script())
    script.save(shared / "net.pt")
    look = {"kind": "jit", "weights": str(shared / "net.pt")}
    given = changed(shared, model={"class_path": "id_cgan", "init_args": {"look": look}})
    document = yaml.safe_load(given.read_text()) | {"data": {"class_path": "paired"}}
    given.write_text(yaml.safe_dump(document))
    options = [f"--config={given}", "--trainer.max_steps=1", "--run_dir=elsewhere"]
    options += ["--data.options={n: 8, n_val: 4, n_test: 4}", "--data.batch_size=2"]
    assert fit.main(options) == 2
    said = capsys.readouterr().err
    assert not Path("written").exists()
    remedy = re.search(r"--model.look.weights=\S+", said).group()
    assert fit.main([*options, remedy]) == 0
    assert Path("written").exists()


class Script(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("written", True, 1, dtype=torch.float32)


@pytest.mark.parametrize(
    "sections",
    [{"ema": "other.yaml"}, {"trainer": "other.yaml"}, {"config": "other.yaml"}],
    ids=str,
)
def test_a_config_brings_in_no_other_file(shared, sections):
    Path("other.yaml").write_text("callbacks: payload.Data\n")
    with pytest.raises(UsageError, match=r"by name|no option"):
        layer(["--model=made", f"--config={changed(shared, **sections)}"])


def test_ordinary_objects_pass():
    callbacks = [
        {
            "class_path": "lightning.pytorch.callbacks.LearningRateMonitor",
            "init_args": {"logging_interval": "step"},
        },
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": "${oc.env:HOME}/x", "monitor": "val.loss"},
        },
        "LearningRateMonitor",
    ]
    document = {"model": "dcgan", "trainer": {"callbacks": callbacks, "strategy": "auto"}}
    from zoo import trust

    assert trust.check({**document, "model": {"class_path": "dcgan"}}) is None


def test_the_users_own_data_are_called_with_the_flag_only(shared, capsys):
    Path("mine.py").write_text(
        "from zoo.data.digits import Digits\nclass Mine(Digits):\n    pass\nclass Other: ...\n"
    )
    config = yaml.safe_load((shared / "config.yaml").read_text())
    changed(shared, data={**config["data"], "class_path": "mine.Mine"})
    command = ["--ckpt", str(shared), "--inpaint", "bottom", "--n=2", "--out=x.png"]
    assert sample.main(command) == 2
    assert "add --import mine" in capsys.readouterr().err
    assert sample.main([*command, "--import", "mine"]) == 0
    changed(shared, data={"class_path": "mine.Other"})
    assert sample.main([*command, "--import", "mine"]) == 2
    assert "mine.Other is no LightningDataModule" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "model: made\nx: !!python/object/apply:os.system ['touch touched']\n",
        "model: made\nx: !!python/name:os.system\n",
        "model: !!python/module:payload\n",
    ],
)
def test_yaml_tags_are_refused(shared, text):
    (shared / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match="not valid YAML"):
        layer([f"--config={shared / 'config.yaml'}"])
    assert not Path("touched").exists()


def test_aliases_do_not_expand_without_bound(tmp_path):
    lines = ["model: made", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    for text in ("\n".join(lines), "model: made\nwandb: &a\n  tags: *a\n"):
        (tmp_path / "bomb.yaml").write_text(text)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(UsageError, match="aliases"):
            layer([f"--config={tmp_path / 'bomb.yaml'}"])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


class Payload:
    def __reduce__(self):
        return os.system, ("touch touched",)


@pytest.mark.parametrize("name", [*COMMANDS, "fit"])
def test_a_pickle_in_a_checkpoint_is_not_run(shared, capsys, name):
    path = shared / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "callbacks": {"x": Payload()}}, path)
    if name == "fit":
        assert fit.main([f"--ckpt_path={shared}"]) == 2
    else:
        main, options = COMMANDS[name]
        assert main(["--ckpt", str(shared), *options]) == 2
    said = capsys.readouterr().err
    assert "is not a readable checkpoint" in said
    assert "Traceback" not in said
    assert not Path("touched").exists()


OTHER_DATA = {
    "another size": {"class_path": "digits", "init_args": {"size": 16}},
    "no images": {"class_path": "lotka_volterra"},
    "other fields": {"class_path": "unpaired"},
    "a variable that is not set": {"class_path": "digits", "init_args": {"size": "${oc.env:NOPE}"}},
}


@pytest.mark.parametrize("data", OTHER_DATA.values(), ids=OTHER_DATA)
@pytest.mark.parametrize("name", COMMANDS)
def test_data_of_another_run_are_one_line(shared, capsys, name, data):
    changed(shared, data=data)
    main, options = COMMANDS[name]
    assert main(["--ckpt", str(shared), *options]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "not of one run" in said or "NOPE" in said


EDITS = {
    "no parameters": lambda zoo: zoo.pop("params"),
    "parameters of another kind": lambda zoo: zoo.update(params=3),
    "an unknown parameter": lambda zoo: zoo["params"].update(widht=3),
    "a parameter of another kind": lambda zoo: zoo["params"].update(width="wide"),
    "another width": lambda zoo: zoo["params"].update(width=9),
    "no model": lambda zoo: zoo.pop("model"),
    "a list for a model": lambda zoo: zoo.update(model=["made"]),
    "a class for a model": lambda zoo: zoo.update(model="os.system"),
    "no data": lambda zoo: zoo.pop("spec"),
    "other data": lambda zoo: zoo.update(spec={"name": "x", "fields": {"x": {"kind": "Popen"}}}),
    "fields without kinds": lambda zoo: zoo.update(spec={"name": "x", "fields": {"x": {}}}),
    "a number for all": None,
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("command", ["sample", "fit"])
def test_an_edited_checkpoint_is_one_line(shared, capsys, command, edit):
    path = shared / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    if EDITS[edit] is None:
        content["zoo"] = 7
    else:
        EDITS[edit](content["zoo"])
    torch.save(content, path)
    if command == "sample":
        assert sample.main(["--ckpt", str(path), "--n=1", "--out=x.png"]) == 2
    else:
        assert fit.main([f"--ckpt_path={path}", "--trainer.max_steps=3"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(said) == 1
    assert len(said[0]) < 500
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        checkpoint.load(path)


def test_a_secret_of_the_environment_is_written_nowhere(tmp_path, monkeypatch, capsys):
    secret = "k3y-of-the-house"
    monkeypatch.setenv("HOUSE_KEY", secret)
    monkeypatch.setenv("STEPS_OF_A_STRANGER", secret)
    config = tmp_path / "shared.yaml"
    config.write_text(
        "wandb: {tags: ['${oc.env:HOUSE_KEY}'], mode: offline, project: '${oc.env:HOUSE_KEY}'}\n"
        "checkpoints: {every_n_steps: '${model.init_args.width}'}\n"
    )
    options = [*SMALL[:-1], f"--config={config}", f"--run_dir={tmp_path / 'run'}"]
    assert fit.main(options) == 0
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["wandb"]["project"] == "${oc.env:HOUSE_KEY}"
    assert written["wandb"]["tags"] == ["${oc.env:HOUSE_KEY}"]
    assert written["checkpoints"]["every_n_steps"] == "${model.init_args.width}"
    plain = [p for p in (tmp_path / "run").glob("*") if p.is_file()]
    assert plain and not any(secret in p.read_bytes().decode(errors="ignore") for p in plain)
    capsys.readouterr()
    asked = "--trainer.max_steps=${oc.env:STEPS_OF_A_STRANGER}"
    assert fit.main([*SMALL, f"--run_dir={tmp_path / 'again'}", asked]) == 2
    said = capsys.readouterr().err
    assert secret not in said
    assert "${oc.env:STEPS_OF_A_STRANGER}" in said


def test_options_of_a_base_may_come_from_the_environment(tmp_path, monkeypatch, capsys):
    """They are written as they were asked, in the checkpoint too; where from is no other run."""
    from PIL import Image

    for place in ("one", "other"):
        for i in range(6):
            (tmp_path / place / "photos").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / place / "photos" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE_OF_A_SECRET", str(tmp_path / "one" / "photos"))
    data = ["--data=paired", "--data.base=image_folder", "--data.size=8", "--data.kind=inpaint"]
    data += ["--data.options={root: '${oc.env:PLACE_OF_A_SECRET}'}", "--data.batch_size=2"]
    small = ["--model.width=4", "--model.levels=1", *SMALL[2:], "--run_dir=run"]
    assert fit.main(["--model=pix2pix", *data, *small]) == 0
    written = yaml.safe_load(Path("run/config.yaml").read_text())["data"]["init_args"]["options"]
    assert written == {"root": "${oc.env:PLACE_OF_A_SECRET}"}
    secret = str(tmp_path / "one")
    said = checkpoint.read("run/checkpoints/last.ckpt")["zoo"]
    assert secret not in str(said) and secret not in Path("run/metrics.csv").read_text()
    monkeypatch.setenv("PLACE_OF_A_SECRET", str(tmp_path / "other" / "photos"))
    assert fit.main(["--ckpt_path=run", "--trainer.max_steps=3"]) == 0
    Path("other/photos/3.png").unlink()
    assert fit.main(["--ckpt_path=run", "--trainer.max_steps=4"]) == 2
    assert "the data's files" in capsys.readouterr().err
