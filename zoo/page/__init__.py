"""A run's page: ``RUN/index.html``, one file that a browser opens from the disk.

It is written from the run folder's files alone, so ``python -m zoo.page --ckpt RUN`` writes it
again at any time. What a folder holds is data: all of it is escaped, none of it is imported or run,
and the page itself can ask nobody for anything.
"""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import __version__

if TYPE_CHECKING:  # what brings torch is imported where it is used: --help answers at once
    from zoo.page.run import Run

PAGE, RECORD = "index.html", "run.json"
PACKAGES = ("torch", "lightning", "numpy")


def write(folder: Path) -> Path:
    """Write ``folder/index.html``; returns its path.

    Raises:
        ValueError: it is not the folder of a run. OSError: it cannot be written to.
    """
    from zoo.core.files import written_whole
    from zoo.page.run import Run

    html = page(Run(Path(folder)))
    path = Path(folder) / PAGE
    with written_whole(path) as file:
        file.write(html.encode())
    return path


def record(folder: Path, command: str, seconds: float) -> None:
    """Keep in ``folder/run.json`` what no other file says: the command, how long it took, when it
    ended, on what machine, and the versions; a resumed run adds to the seconds.
    """
    from zoo.core.files import written_whole
    from zoo.core.threads import machine
    from zoo.page.run import Run

    before = Run(Path(folder)).record
    spent = before.get("seconds", 0)
    seconds += spent if isinstance(spent, int | float) else 0
    said = {
        "command": before.get("command") or command,
        "resumed": bool(before),
        "seconds": round(seconds, 1),
        "ended": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
        "versions": {"zoo": __version__, "python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
    }
    with written_whole(Path(folder) / RECORD) as file:
        file.write((json.dumps(said, indent=2) + "\n").encode())


def page(run: Run) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader

    from zoo.page.curves import charts
    from zoo.page.pictures import frames, others
    from zoo.page.scores import cards, usual_of
    from zoo.page.story import breaks, changed, commands, default, facts, sections, sentence
    from zoo.standards import trivial

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"breaks": breaks, "sentence": sentence}
    shown, said = frames(run)
    rest, also = others(run)
    content: dict[str, Any] = {
        "run": run,
        "facts": facts(run),
        "sections": sections(run),
        "frames": shown,
        "frames_note": said,
        "cards": cards(run),
        "trivial": trivial(run.data_name),
        "usual_run": usual_of(run),
        "charts": charts(run),
        "pictures": rest,
        "pictures_note": also,
        "changed": changed(run),
        "usual": default(run) if run.model else "",
        "commands": commands(run),
        "style": (here / "page.css").read_text(),
        "script": (here / "page.js").read_text(),
    }
    return environment.get_template("page.html").render(content)
