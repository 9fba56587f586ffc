"""Generates the lists of options in the man pages from the click commands.

`cd tests; python -m docs.manpages` renews them; a test compares them. The other parts of the
pages are written by hand.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from docs.commandline import Option, group_options, verbs
from helpers.paths import ROOT

MAN = ROOT / "man"
BEGIN = '.\\" Made from the command line itself by: cd tests; python -m docs.manpages\n'
END = '.\\" End of what was made.\n'

_WIDTH = 78  # mandoc complains of input lines longer than 80


def pages() -> dict[Path, list[Option]]:
    """Return the options that each page lists."""
    found = {MAN / f"sipc-{verb}.1": options for verb, options in verbs().items()}
    return {MAN / "sipc.1": group_options(), **found}


def renewed(text: str, options: list[Option]) -> str:
    """Return the page with a new list."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"mark where the options belong: {BEGIN}{END}"
    return before + BEGIN + listed(options) + END + after


def listed(options: list[Option]) -> str:
    """Return a list of options in mdoc(7)."""
    items = [".Bl -tag -width Ds", *map(_item, options), ".El"]
    return "\n".join(items) + "\n"


def _item(option: Option) -> str:
    flags = " , ".join(f"Fl {_escaped(flag[1:])}" for flag in option.flags)
    value = ""
    if option.choices:
        value = " Ar " + " | ".join(option.choices)
    elif option.value:
        value = f" Ar {option.value}"
    return "\n".join([f".It {flags}{value}", *_sentences(option.help)])


def _sentences(text: str) -> list[str]:
    """Return input lines. Each sentence begins a new one, as mdoc requires."""
    lines: list[str] = []
    for sentence in re.split(r"(?<=\.) +", text):
        lines += textwrap.wrap(_escaped(sentence), _WIDTH, break_on_hyphens=False)
    return [f"\\&{line}" if line[0] in ".'" else line for line in lines]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


if __name__ == "__main__":
    for page, options in pages().items():
        page.write_text(renewed(page.read_text(), options))
