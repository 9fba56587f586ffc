"""The words that the package, README and man pages avoid, and where they occur.

`cd tests; python -m docs.vocabulary [CHECKOUT [PATH]]` lists the places.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.paths import ROOT

UNCLEAR = r"""
    whoever | whom(?:ever)? | who | nobody | (?:any|every|some)(?:body|one)
    anew | at will | behind | by itself | errors? of usage | mistakes? | the begin | be it
    so long | so many | so much | as far as | what is to be
    patience | patient(?:ly)? | blamed? | hurry | hurries | wish(?:es)? | deaf(?:en)?
    told | untold | tell(?:s|ing)? | heed(?:s|ed|ing)? | hear(?:s|d|ing)?
    look(?:s|ed|ing)? | speak(?:s|ing)? | spoken?
"""
"""Words for people that mean processes, and English that is hard to understand."""

METAPHORS = r"""
    bells? | chores? | cloakrooms? | crews? | crowds? | cutters? | desks? | doors? | doorbells?
    entrances? | fleets? | floors | flying | houses? | intakes? | judge(?:s|d|ment)? | keepers?
    last words? | lobby | lobbies | lookouts? | outlets? | ring(?:s|ing)? | rooms? | sights?
    stepwise | tend(?:s|ed|ing)? | watchwords?
"""
"""Metaphors for things that have a standard term."""

NOT_EVERYWHERE = r"""
    ulimit -u
"""
"""Commands that a shell of a usual system lacks: Debian's dash, in this case."""

NAMES = r"""
    give up | let go | least | moment | most | much | news | problem | remedy | renew | surplus
"""
"""Not allowed in identifiers only."""

ALLOWED = {
    r"looks? (?:a)?like": "resembles",
    r"speaks? simple-ipc": "a program speaks a protocol",
}
"""Patterns of standard terms that contain such a word."""


class Place(NamedTuple):
    """One use of one word."""

    file: str
    line: int
    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r}: {self.text}"


def _pattern(words: str) -> str:
    terms = [term.strip() for line in words.strip().splitlines() for term in line.split(" | ")]
    return "|".join(map(_over_lines, terms))


def _over_lines(term: str) -> str:
    """Allow the end of a line within a term, also of a comment's line."""
    return term.replace(" ", r"\s+(?:#:?\s+)?")


IN_TEXT = re.compile(
    rf"\b(?:{_pattern(UNCLEAR)}|{_pattern(METAPHORS)}|{_pattern(NOT_EVERYWHERE)})\b", re.I
)
IN_NAMES = re.compile(rf"\b(?:{_pattern(NAMES)})\b", re.I)
EXCEPTIONS = re.compile("|".join(map(_over_lines, ALLOWED)), re.I)


def _words(text: str) -> str:
    """Separate the words of identifiers, without changing the number of lines."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ").replace(r"\-", "-")


def places(name: str, text: str) -> Iterator[Place]:
    """Yield the places in one text."""
    lines = text.splitlines()
    words = EXCEPTIONS.sub(lambda match: "-" + "\n" * match[0].count("\n"), _words(text))
    for match in IN_TEXT.finditer(words):
        line = words.count("\n", 0, match.start())
        yield Place(name, line + 1, re.sub(r"[\s#:]+", " ", match[0]), lines[line].strip())
    if name.endswith(".py"):
        for word, line in _names(text):
            yield Place(name, line, word, lines[line - 1].strip())


def _names(text: str) -> list[tuple[str, int]]:
    """Return the identifiers with such a word, and their lines."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    names = {(token.string, token.start[0]) for token in tokens if token.type == tokenize.NAME}
    return sorted((name, line) for name, line in names if IN_NAMES.search(_words(name)))


def files(root: Path) -> list[Path]:
    """Return the files of a checkout to which this applies."""
    package = (path for path in (root / "simpleipc_cli").rglob("*") if path.suffix != ".pyc")
    found = [*package, *(root / "man").iterdir(), root / "README.md", root / "tests/README.md"]
    return sorted(path for path in found if path.is_file())


def places_in(root: Path) -> list[Place]:
    """Return the places in a checkout."""
    return [
        place
        for path in files(root)
        for place in places(str(path.relative_to(root)), path.read_text())
    ]


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    begin = sys.argv[2] if len(sys.argv) > 2 else ""
    for place in places_in(checkout):
        if place.file.startswith(begin):
            sys.stdout.write(f"{place}\n")
