"""Pieces of HTML and SVG, made so that text cannot become markup by mistake.

What is not Markup is escaped, whoever wrote it: a path, a setting, a condition. Knows
nothing of what a report says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|[mun]?s\b)")
_OPTION = re.compile(r"--[a-z-]+")
_VOID = frozenset({"br", "meta"})


class Markup(str):
    """Text that is markup already, and safe."""

    __slots__ = ()


def printable(text: str) -> str:
    """Text with everything escaped that cannot be seen, or has no place in a file of text.

    Those are controls, line ends, marks that turn the direction of writing, and the halves
    of characters in which Python keeps the bytes of a path that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def element(tag: str, *content: str, **attributes: str | float) -> Markup:
    """An element; content and attributes are escaped unless they are Markup.

    An attribute's underscores are hyphens, but for one at its end, which keeps a name from
    being one of Python's: class_, aria_hidden. One whose value is empty is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_text(_number(value))}"'
        for name, value in attributes.items()
        if value != ""
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(content)}</{tag}>")


def join(pieces: Iterable[str]) -> Markup:
    """Pieces one behind the other; escaped unless they are Markup."""
    return Markup("".join(map(_text, pieces)))


def bound(text: str) -> Markup:
    """Text, escaped, in which no line ends before a unit or within the name of an option."""
    text = _BEFORE_UNIT.sub("&nbsp;", _text(text))
    return Markup(_OPTION.sub(r'<span class="whole">\g<0></span>', text))


def percent(value: float) -> str:
    """A coordinate from 0 to 100, as part of a width or a height."""
    return f"{_number(value)}%"


def _number(value: str | float) -> str:
    """A coordinate with two decimals, which are far below what a screen can show."""
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return text if isinstance(text, Markup) else escape(printable(text))
