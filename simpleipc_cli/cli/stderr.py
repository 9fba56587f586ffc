"""How things look to people: one line each, and nothing in it that a terminal obeys."""

from __future__ import annotations

import os

from simpleipc_cli.errors import SipcError
from simpleipc_cli.text import printable

STDERR = 2


def format_error(verb: str, error: SipcError) -> str:
    """`sipc VERB: what happened: what to do about it`."""
    return printable(f"sipc {verb}: {error.text}" if verb else f"sipc: {error.text}")


def print_error(line: str) -> None:
    """Write a line to stderr, in one piece. Nobody to read it is no reason to fail."""
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass
