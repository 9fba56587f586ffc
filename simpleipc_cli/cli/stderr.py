"""How things look to people: one line each, and nothing in it that a terminal obeys."""

from __future__ import annotations

import os

from simpleipc_cli.errors import SipcError
from simpleipc_cli.text import printable

STDERR = 2


def format_error(verb: str, error: SipcError) -> str:
    """`sipc VERB: what happened: what to do about it`."""
    return printable(f"sipc {verb}: {error.text}" if verb else f"sipc: {error.text}")


def print_error(line: str, *, error_for_journal: bool = False) -> None:
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
