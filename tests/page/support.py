"""A run folder made by hand, with what a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

from zoo.config import layer
from zoo.show.paint import DRAWN
from zoo.show.sheets import Panel, save, sheet


def made_run(folder: Path, steps: int = 5, model: str = "began") -> Path:
    """``steps`` sample pictures, of which number i is as dark as i, and curves by hand."""
    (folder / "samples").mkdir(parents=True)
    config = layer(
        [f"--model={model}", "--data=digits", "--model.gamma=0.7", "--trainer.max_steps=500"]
    )
    document = config.document
    document["model"]["init_args"] = {"gamma": 0.7, "loop": {"clip_d": None, "accumulate": 1}}
    document["trainer"]["max_steps"] = 500
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    rows = ["step,train/loss_d,val/fid_pixels,val/recall_pixels"]
    for i in range(1, steps + 1):
        step = 100 * i
        rows.append(f"{step},{1 / i},,")
        rows.append(f"{step},,{(i - 3) ** 2 + 1 + (i == 5) / 2},{i / steps}")
        picture(folder / f"samples/step_{step:06d}.png", 40 * i % 256, f"Samples at {step}")
        picture(folder / f"samples/reconstructions_{step:06d}.png", 9, "Reconstructions")
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    protocol = {"data": {"name": "digits 8x8", "rows": {"train": 1437, "val": 180}}}
    (folder / "protocol.json").write_text(json.dumps(protocol))
    return folder


def picture(path: Path, shade: int, title: str) -> None:
    cells = torch.full((4, 3, 8, 8), shade, dtype=torch.uint8)
    save(sheet(title, "said below", [[Panel(cells, 2, "drawn by began", DRAWN)]]), path)
