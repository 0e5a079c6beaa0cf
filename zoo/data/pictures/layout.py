"""What folders say: splits by the names train, val and test, classes by the innermost folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zoo.data.pictures.source import Item, Source

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
Folders = tuple[str, ...]


@dataclass
class Layout:
    """The split and the class of each item, by the item's number.

    Attributes:
        kept: numbers of the items that are used. splits: "train", "val" or "test" of each, or
            nothing where splits are to be cut. labels: numbers of classes, or nothing.
        skipped, notes: what was left out, and what is worth a line.
    """

    kept: list[int]
    splits: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def lay_out(source: Source, labelled: bool) -> Layout:
    """Splits and classes of a source's items: what it states itself, else what its folders say.

    Args:
        labelled: whether classes are wanted.
    """
    items = source.items
    layout = Layout([*range(len(items))])
    folders = _unwrapped([(*i.name.split("/")[:-1],) if source.named else () for i in items])
    splits, folders = _splits(items, folders, layout)
    _leave_out(layout, items, splits, "in none of the splits")
    labels = _labels(items, folders)
    stated = {labels[i] for i in layout.kept} - {None}
    if labelled and stated and (len(stated) > 1 or source.class_names):
        with_class = {splits[i] for i in layout.kept if labels[i] is not None}
        if "train" in splits and "train" not in with_class:
            layout.notes.append("images for training lie in no class folder: there are no classes")
        else:
            why = "without a class (--data.labels=false takes all images, without classes)"
            _leave_out(layout, items, labels, why)
            _number(layout, labels, source.class_names)
    given = [splits[i] for i in layout.kept]
    layout.splits = [s for s in given if s is not None]
    return layout


def _unwrapped(folders: list[Folders]) -> list[Folders]:
    """Without the folders in which everything lies, such as the one that ``zip -r`` makes."""
    while folders and all(folders) and len({f[0] for f in folders}) == 1:
        folders = [f[1:] for f in folders]
    return folders


def _splits(
    items: Sequence[Item], folders: list[Folders], layout: Layout
) -> tuple[list[str | None], list[Folders]]:
    """The split of each item and the folders that are left; all None where none are stated."""
    stated = [SPLITS.get(str(item.split).lower()) for item in items]
    if "train" in stated and len({*stated} - {None}) > 1:
        return stated, folders
    level = _level_of_splits(folders)
    if level is None:
        alike = sorted({part for f in folders for part in f if part.lower() in SPLITS})
        if alike:
            layout.notes.append(
                f"the folder {', '.join(alike)} is not taken for a split: splits are folders train "
                "and val or test, side by side"
            )
        return [None] * len(items), folders
    names = [f[level] if len(f) > level else "" for f in folders]
    found = sorted({n for n in names if n.lower() in SPLITS})
    layout.notes.append(f"the folders {', '.join(found)} are the splits")
    rest = [f[:level] + f[level + 1 :] for f in folders]
    return [SPLITS.get(n.lower()) for n in names], rest


def _level_of_splits(folders: list[Folders]) -> int | None:
    """How deep folders of splits lie: where train stands beside val or test. Other folders may
    stand beside them at the top only.
    """
    for level in range(max(map(len, folders), default=0)):
        names = {f[level].lower() for f in folders if len(f) > level}
        known = {SPLITS.get(name) for name in names}
        if "train" in known and len(known - {None}) > 1 and (level == 0 or None not in known):
            return level
    return None


def _labels(items: Sequence[Item], folders: Sequence[Folders]) -> list[str | int | None]:
    """What the source states, or the innermost folders where it states nothing."""
    if any(item.label is not None for item in items):
        return [item.label for item in items]
    return [f[-1] if f else None for f in folders]


def _leave_out(
    layout: Layout, items: Sequence[Item], values: Sequence[object], reason: str
) -> None:
    """Skip the items without a value, where others have one."""
    without = [i for i in layout.kept if values[i] is None]
    if without and len(without) < len(layout.kept):
        layout.skipped[reason] = [items[i].name for i in without]
        layout.kept = [i for i in layout.kept if values[i] is not None]


def _number(layout: Layout, labels: Sequence[str | int | None], names: list[str]) -> None:
    """Number the classes: as the source names them, else in the order of their names."""
    stated = [label for i in layout.kept if (label := labels[i]) is not None]
    if names and all(isinstance(v, int) and 0 <= v < len(names) for v in stated):
        layout.classes, layout.labels = names, [int(v) for v in stated]
        return
    order = sorted({*stated}, key=lambda v: (isinstance(v, str), v))
    number = {label: i for i, label in enumerate(order)}
    layout.classes, layout.labels = [str(v) for v in order], [number[v] for v in stated]
