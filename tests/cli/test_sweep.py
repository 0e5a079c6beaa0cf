"""The sweep files work with the real ``wandb sweep`` and ``wandb agent``, and name parameters and
metrics that exist.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.wandb_server import Server
from zoo import registry

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_parameters_exist_and_the_command_names_a_model(path):
    sweep = yaml.safe_load(path.read_text())
    command = sweep["command"]
    entry = registry.entry(command[command.index("--model") + 1])
    for name in sweep["parameters"].keys() - {"seed_everything"}:
        section, _, parameter = name.partition(".")
        known = {"model": entry.parameters, "data": registry.entry(entry.data, "data").parameters}
        assert parameter in known[section], f"{name}: {entry.name} takes {known[section]}"
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["goal"] in ("minimize", "maximize")
    assert sweep["program"] == "zoo.fit"


@pytest.mark.slow
def test_a_real_agent_runs_two_settings_and_their_metrics_arrive(tmp_path):
    settings = [{"model.k": 1, "model.lr_g": 2e-4}, {"model.k": 2, "model.lr_g": 5e-4}]
    sweep = yaml.safe_load((ROOT / "sweeps" / "gan_k.yaml").read_text())
    short = [
        "--trainer.max_steps=4",
        "--trainer.log_every_n_steps=1",
        "--fidelity.n_fake=64",
        "--fidelity.extractor=pixels",
    ]
    sweep["command"][-1:] = [*short, "${args}"]
    (tmp_path / "gan_k.yaml").write_text(yaml.safe_dump(sweep))
    with Server(settings) as server:
        bin_dir = Path(sys.executable).parent
        env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        env |= {
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": "a" * 40,
            "WANDB_PROJECT": "zoo",
            "HOME": str(tmp_path),
            "PATH": f"{bin_dir}:{env['PATH']}",
            "PYTHONPATH": str(ROOT),
            "WANDB_AGENT_REPORT_INTERVAL": "0",
        }
        wandb = shutil.which("wandb", path=env["PATH"])

        def run(*arguments):
            return subprocess.run(
                [wandb, *arguments],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=400,
            )

        made = run("sweep", "gan_k.yaml")
        assert made.returncode == 0, made.stderr
        assert re.search(r"wandb agent me/zoo/s1", made.stdout + made.stderr)
        received = yaml.safe_load(server.sweeps[0])
        assert received["parameters"] == sweep["parameters"]
        assert received["metric"]["name"] == "val/fid_digitsnet"
        agent = run("agent", "me/zoo/s1")
        assert agent.returncode == 0, agent.stderr[-3000:]

    for number, setting in enumerate(settings, 1):
        run_id = f"run{number}"
        assert run_id in server.configs, (agent.stdout + agent.stderr)[-3000:]
        config = server.configs[run_id]
        assert config["model"]["k"] == setting["model.k"], agent.stderr[-2000:]
        assert config["model"]["lr_g"] == pytest.approx(setting["model.lr_g"])
        assert config["model"]["name"] == "dcgan"
        assert config["protocol"]["fidelity"]["n_fake"] == 64
        rows = server.history[run_id]
        losses = {
            row["trainer/global_step"]: row["train/loss_g"] for row in rows if "train/loss_g" in row
        }
        assert sorted(losses) == [1, 2, 3, 4], (agent.stdout + agent.stderr)[-3000:]
        assert any("val/fid_pixels" in row for row in rows)
        assert run_id in server.finished
        assert (tmp_path / "runs" / f"dcgan-{run_id}" / "metrics.csv").is_file()
    assert any("media/images/samples" in f for f in server.files)
