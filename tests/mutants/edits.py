"""Mutants: one-line edits of the mathematics that the tests must notice.

``tests/mutants/FAMILY/NAME.txt`` holds those of a model, ``tests/mutants/NAME.txt`` those of what
all share (core, nn, metrics, callbacks). An entry says what the edit breaks, then what is taken out
and what is put in; entries are apart by an empty line:

    samples are the mean of p(x | z)
    - return self.decoder.sample(params)
    + return self.decoder.mean(params)

``- `` and ``+ `` are followed by a passage as it stands in the file, or a part of a line; it must
occur once. Before them may stand ``@ FILE`` (whose passage it is; at first the model's own file)
and ``? TESTS`` (further files of tests that hold it); both hold until they are said again, a lone
``?`` ends them. ``= WHY`` marks an edit that changes nothing that anyone could see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo import registry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHARED = "shared"


@dataclass(frozen=True)
class Edit:
    """One mutant.

    Attributes:
        book: the model's name, or that of the file of shared ones. family: or "shared".
        breaks: what it breaks, in words. file: that is edited, from the root of the repository.
        passage, replacement: what is taken out and put in. why: of an equivalent edit.
        tests: files of tests that are to notice.
    """

    book: str
    family: str
    breaks: str
    file: str
    passage: str
    replacement: str
    why: str = ""
    tests: tuple[str, ...] = ()

    def applied(self, text: str) -> str:
        """The file's text with the edit.

        Raises:
            ValueError: the passage does not occur once.
        """
        if (n := text.count(self.passage)) != 1:
            said = f"{self.file}: {self.passage!r} ({self.breaks}) occurs {n} times"
            raise ValueError(f"{said}; an edit's passage must occur once")
        return text.replace(self.passage, self.replacement)


def books() -> dict[str, Path]:
    """The files of edits, by name."""
    return {path.stem: path for path in sorted(HERE.rglob("*.txt"))}


def edits(path: Path) -> Iterator[Edit]:
    """The edits of one file."""
    family = path.parent.name if path.parent != HERE else SHARED
    own = [f"tests/{family}/test_{path.stem}.py"] if family != SHARED else []
    file = registry.entry(path.stem).module.replace(".", "/") + ".py" if own else ""
    further: list[str] = []
    for block in path.read_text().strip().split("\n\n"):
        said: dict[str, list[str]] = {"@": [], "?": [], "=": [], "-": [], "+": [], "": []}
        for line in block.splitlines():
            sign = line[:1] if line[1:2] in ("", " ") and line[:1] in said else ""
            said[sign].append(line[2:] if sign else line)
        file = said["@"][0] if said["@"] else file
        further = [t for t in said["?"] if t] if said["?"] else further
        if said["-"]:
            breaks, why = " ".join(said[""]), " ".join(said["="])
            out, into = "\n".join(said["-"]), "\n".join(said["+"])
            yield Edit(path.stem, family, breaks, file, out, into, why, (*own, *further))
