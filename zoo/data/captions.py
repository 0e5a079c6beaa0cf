"""What is said of a drawn scene: captions, their words and letters, and whether a caption is true.

A caption is of the first object,

    [a|the] (size)? (colour)? (striped)? shape (with a hat)? (place)? (on a COLOUR background)?

and says nothing that is not so: "striped" only of striped objects, and of unstriped ones nothing.
Each optional part that could be said is said with probability .6; the colour always in the first
three of five captions. Of a word with synonyms another one is taken with probability .3. The
background's colour is its first one: the sky's of a horizon, the upper end of a gradient's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.keyed import numbers
from zoo.data.scene import CAPTIONS, COLOURS, Array, Scene, size_word

SAID, SURE = 5, 3  # captions of a scene, and the first of them that name the colour
KEPT, OTHER = 0.6, 0.3  # probabilities of an optional part, and of a synonym
NUMBERS = 11  # random numbers of a caption
LENGTH, LETTERS = 16, 201  # words and characters of a caption, at most
SIZES = (("small", "little", "tiny"), ("medium",), ("large", "big"))
NAMES = (
    ("circle", "disc", "ball"),
    ("square", "box"),
    ("triangle",),
    ("cross",),
    ("star",),
    ("ring",),
)
GROUNDS = ("slate", "sand", "sage", "mauve", "silver", "brown")  # names of ``scene.MUTED``
PLACES = (  # from the upper left, row by row
    "in the top left",
    "at the top",
    "in the top right",
    "on the left",
    "in the middle",
    "on the right",
    "in the bottom left",
    "at the bottom",
    "in the bottom right",
)
HUES = tuple(COLOURS)
SYNONYMS = (*SIZES, *NAMES)
VOCABULARY = (
    "",  # padding
    *dict.fromkeys(
        word
        for part in ("a an the", *map(" ".join, SYNONYMS), *HUES, "striped with hat", *PLACES)
        for word in part.split()
    ),
    *GROUNDS,
    "background",
)
ALPHABET = ("", *string.ascii_lowercase, *string.digits, *string.punctuation, " ", "\n")
WORDS, CODES = ({w: i for i, w in enumerate(of)} for of in (VOCABULARY, ALPHABET))


def captions(scene: Scene, size: int = 0) -> tuple[str, ...]:
    """Five captions."""
    seed, *item = scene.key
    u = numbers(seed, (*item, CAPTIONS), SAID * NUMBERS).reshape(SAID, NUMBERS)
    return tuple(_caption(scene, row, sure=i < SURE) for i, row in enumerate(u))


def _caption(scene: Scene, u: Array, sure: bool) -> str:
    thing = scene.things[0]
    definite = u[0] < 0.5
    sized, coloured, striped, hatted, placed, grounded = u[1:7] < KEPT
    parts = (
        _word(SIZES[size_word(thing.radius)], *u[7:9]) if sized else "",
        HUES[thing.colour] if sure or coloured else "",
        "striped" if thing.striped and striped else "",
        _word(NAMES[thing.shape], *u[9:11]),
        "with a hat" if thing.hat and hatted else "",
        PLACES[place(thing.x, thing.y)] if placed else "",
        f"on a {GROUNDS[scene.colours[0]]} background" if grounded else "",
    )
    said = " ".join(filter(None, parts))
    return f"{'the' if definite else 'an' if said[0] in 'aeiou' else 'a'} {said}"


def _word(synonyms: Sequence[str], other: float, which: float) -> str:
    """The first, or with probability ``OTHER`` one of the others."""
    first, *rest = synonyms
    return rest[int(which * len(rest))] if rest and other < OTHER else first


def place(x: float, y: float) -> int:
    """The cell of a 3x3 grid, 0..8, row by row."""
    return 3 * min(int(3 * y), 2) + min(int(3 * x), 2)


# -- as numbers -----------------------------------------------------------------------------------
def tokens(scene: Scene, size: int = 0) -> Array:
    """The words of each caption as places in ``VOCABULARY``, (5, 16) int64; 0 is padding."""
    return _coded([[WORDS[w] for w in caption.split()] for caption in captions(scene)], LENGTH)


def chars(scene: Scene, size: int = 0) -> Array:
    """The letters of each caption as places in ``ALPHABET``, (5, 201) int64; 0 is padding, then
    come the 70 letters.
    """
    return _coded([[CODES[c] for c in caption] for caption in captions(scene)], LETTERS)


def _coded(rows: Sequence[Sequence[int]], length: int) -> Array:
    coded = np.zeros((len(rows), length), np.int64)
    for row, codes in zip(coded, rows, strict=True):
        row[: len(codes)] = codes
    return coded


def sentence(row: Iterable[int]) -> str:
    """A caption from its tokens."""
    return " ".join(VOCABULARY[int(i)] for i in row if i)


# -- the oracle -----------------------------------------------------------------------------------
def _any(words: Iterable[str]) -> str:
    return "|".join(words)


GRAMMAR = re.compile(
    r"(?:the|a(?! [aeiou])|an(?= [aeiou]))"
    rf"(?: (?P<size>{_any(map(_any, SIZES))}))?"
    rf"(?: (?P<colour>{_any(HUES)}))?"
    r"(?P<striped> striped)?"
    rf" (?P<shape>{_any(map(_any, NAMES))})"
    r"(?P<hat> with a hat)?"
    rf"(?: (?P<place>{_any(PLACES)}))?"
    rf"(?: on a (?P<ground>{_any(GROUNDS)}) background)?"
)


def claims(caption: str) -> dict[str, Any] | None:
    """What a caption says, of size (0 small, 1 medium, 2 large), colour, shape, place, ground
    (their numbers), striped and hat (True); None if it is no caption.
    """
    if not (found := GRAMMAR.fullmatch(caption)):
        return None
    said = {k: v for k, v in found.groupdict().items() if v}
    numbered: dict[str, Sequence[Sequence[str]]] = {
        "size": SIZES,
        "colour": [[hue] for hue in HUES],
        "shape": NAMES,
        "place": [[place] for place in PLACES],
        "ground": [[ground] for ground in GROUNDS],
    }
    return {
        k: next(i for i, same in enumerate(numbered[k]) if v in same) if k in numbered else True
        for k, v in said.items()
    }


def matches(caption: str, factors: Mapping[str, Any]) -> bool:
    """Whether a text is a caption, and all it says is so.

    Args:
        factors: as ``zoo.data.scene.factors`` gives them; the first object's count.
    """
    first = {k: np.atleast_1d(v)[0] for k, v in factors.items()}
    known = {
        "size": size_word(first["radius"]),
        "place": place(first["x"], first["y"]),
        "ground": first["colours"],
        **{k: first[k] for k in ("colour", "shape", "striped", "hat")},
    }
    said = claims(caption)
    return said is not None and all(known[k] == v for k, v in said.items())
