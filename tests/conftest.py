"""Every test runs offline and seeded, from an empty folder of its own."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import seed_everything


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    seed_everything(0, verbose=False)
    torch.set_num_threads(1)
