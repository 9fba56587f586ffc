"""Elements of HTML and SVG, built so that text cannot become markup by mistake.

Every string that is not Markup is escaped. Knows nothing about reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from simpleipc_cli.text import printable

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|[mun]?s\b)")
_OPTION = re.compile(r"--[a-z-]+")
_VOID = frozenset({"br", "meta"})


class Markup(str):
    """Text that is already safe markup."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | float) -> Markup:
    """Return an element; content and attributes are escaped unless they are Markup.

    Underscores in attribute names become hyphens; one at the end is dropped (class_).
    Attributes with an empty value are left out.
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
    """Concatenate pieces; they are escaped unless they are Markup."""
    return Markup("".join(map(_text, pieces)))


def no_break(text: str) -> Markup:
    """Escape text and prevent line breaks before a unit or within the name of an option."""
    text = _BEFORE_UNIT.sub("&nbsp;", _text(text))
    return Markup(_OPTION.sub(r'<span class="whole">\g<0></span>', text))


def percent(value: float) -> str:
    """Format a coordinate from 0 to 100 as part of a width or a height."""
    return f"{_number(value)}%"


def _number(value: str | float) -> str:
    """Format a coordinate with two decimals, far finer than a screen shows."""
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return text if isinstance(text, Markup) else escape(printable(text))
