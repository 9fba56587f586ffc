"""How things look to people: one line each, and nothing in it that a terminal obeys."""

from __future__ import annotations

import os

from simpleipc_cli.errors import SipcError

STDERR = 2


def printable(text: str) -> str:
    """Text that may hold anything, with whatever is not plain to read escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
        for char in text
    )


def whole_text(text: str) -> str:
    """Text for JSON that everybody can read.

    Bytes of a path that are no text are half of a surrogate pair in Python, which JSON can
    write and strict readers refuse.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def error_line(verb: str, error: SipcError) -> str:
    """`sipc VERB: what happened: what to do about it`."""
    return printable(f"sipc {verb}: {error.text}" if verb else f"sipc: {error.text}")


def say(line: str) -> None:
    """Write a line to stderr, in one piece. Nobody to read it is no reason to fail."""
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass
