"""How things look to people: one line each, and nothing in it that a terminal obeys."""

from __future__ import annotations

import os

from simpleipc_cli.errors import SipcError

STDERR = 2


def printable(text: str) -> str:
    """Text that may hold anything, with whatever is not plain to read escaped.

    Loads no codec, as the error to report may be that no file can be opened.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def whole_text(text: str) -> str:
    """Text for JSON that everybody can read.

    Bytes of a path that are no text are half of a surrogate pair in Python, which JSON can
    write and strict readers refuse.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def error_line(verb: str, error: SipcError) -> str:
    """`sipc VERB: what happened: what to do about it`."""
    return printable(f"sipc {verb}: {error.text}" if verb else f"sipc: {error.text}")


def say(line: str, *, error_for_journal: bool = False) -> None:
    """Write a line to stderr, in one piece. Nobody to read it is no reason to fail.

    `error_for_journal` has it stored as an error where stderr is the journal.
    """
    data = line.encode("utf-8", "backslashreplace")
    if error_for_journal:
        from simpleipc_cli.cli.journal import (  # noqa: PLC0415 - a small send does without
            Priority,
            is_journal,
            with_priority,
        )

        if is_journal(STDERR):
            data = with_priority(data, Priority.ERROR)
    data += b"\n"
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass
