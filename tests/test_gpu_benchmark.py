"""The script for a GPU runs where there is none, and goes on where it stopped."""

import csv
import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["gpu.py", *words])
        module.main()
        with (tmp_path / f"gpu_{words[0]}.csv").open(newline="") as file:
            return [*csv.DictReader(file)]

    return run


@pytest.mark.slow
def test_the_smoke_runs_on_a_cpu_and_goes_on_where_it_stopped(gpu, capsys):
    words = ("smoke", "--device", "cpu", "--models", "gan")
    rows = gpu(*words)
    assert [row.pop("case") for row in rows] == ["gan, default", "gan, paper"]
    assert all(value == "ok" for row in rows for value in row.values()), rows
    capsys.readouterr()
    assert len(gpu(*words, "kmeans")) == 4
    assert "case=gan" not in capsys.readouterr().out


def test_without_a_gpu_it_is_one_line(gpu, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu("smoke")
    assert "no CUDA device here; --device cpu tries the script itself" in capsys.readouterr().err
