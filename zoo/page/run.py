"""A run folder, read. Its files may come from anywhere: what is damaged or too large is left out,
and said.
"""

from __future__ import annotations

import csv
import io
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo import registry
from zoo.config import UsageError, read
from zoo.next_steps import class_path
from zoo.runs import latest

LARGEST = 64 * 2**20  # bytes of a file of text that is read
KEYS = 400  # of curves
HUGE = 1e300  # no score


class Run:
    """The folder of a run.

    Attributes:
        config: config.yaml. record: run.json. protocol: protocol.json. Empty where there is none.
        model, data: entries of the registry, None for classes of one's own.
        notes: what was left out.

    Raises:
        ValueError: it is no run folder, or its config.yaml cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, list[str]()
        path = folder / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{folder} is not the folder of a run: it has no config.yaml")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path} is too large for a config")
        try:
            self.config = read(path)
        except UsageError as error:
            raise ValueError(str(error)) from None
        self.record, self.protocol = self._json("run.json"), self._json("protocol.json")
        self.model = self._entry("model", registry.entries())
        self.data = self._entry("data", registry.data())

    @property
    def name(self) -> str:
        """The registry name, or the class path, of the model."""
        return self.model.name if self.model else self.class_path("model") or "a model"

    @property
    def data_name(self) -> str:
        """As the data call themselves, or the registry name."""
        found = self.protocol.get("data")
        if isinstance(found, dict) and isinstance(found.get("name"), str):
            return found["name"]
        return self.data.name if self.data else self.class_path("data")

    def class_path(self, section: str) -> str:
        return class_path(self.config, section)

    @cached_property
    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Every logged number by step, finite ones only."""
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return {}
        if path.stat().st_size > LARGEST:
            self.notes.append(f"metrics.csv is left out: it is larger than {LARGEST >> 20} MiB")
            return {}
        found: dict[str, list[tuple[int, float]]] = {}
        rows = csv.DictReader(io.StringIO(path.read_text(errors="replace"), newline=""))
        try:
            for row in rows:
                if not (step := row.get("step") or "").isdecimal() or len(step) > 15:
                    continue
                for key, text in row.items():
                    if key and key != "step" and text and isinstance(text, str):
                        _add(found, key, int(step), text)
        except csv.Error as error:
            self.notes.append(f"metrics.csv is damaged ({error}); what stands before it is shown")
        return found

    @property
    def steps(self) -> int:
        """The last step that was logged or drawn."""
        logged = [points[-1][0] for points in self.series.values()]
        drawn = latest([*(self.folder / "samples").glob("step_*.png")])
        return max([*logged, step_of(drawn) if drawn else 0], default=0)

    def text(self, name: str) -> str:
        """A file of text, as it is."""
        path = self.folder / name
        if path.stat().st_size > LARGEST // 64:
            return f"{name} has {path.stat().st_size:,} bytes: too many for a page"
        return path.read_text(errors="replace")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            if not path.is_file() or path.stat().st_size > LARGEST:
                return {}
            found = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):
            self.notes.append(f"{name} is damaged and left out")
            return {}
        return found if isinstance(found, dict) else {}

    def _entry(self, section: str, entries: Any) -> Any:
        path = self.class_path(section)
        return next((e for e in entries if path in (e.class_path, e.name)), None)


def step_of(path: Path) -> int:
    """The step in a picture's name; 0 without one."""
    digits = path.stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 16 else 0


def _add(found: dict[str, list[tuple[int, float]]], key: str, step: int, text: str) -> None:
    try:
        value = float(text)
    except ValueError:
        return
    if abs(value) < HUGE and (key in found or len(found) < KEYS):
        found.setdefault(key, []).append((step, value))
