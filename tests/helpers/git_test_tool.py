"""The commands of git's own test helper: a handler that speaks them, and what they say."""

from __future__ import annotations

import shlex
import sys

from helpers.paths import TESTS

BIG = b"".join(b"big: %075d\n" % number for number in range(10_000))


def handler() -> str:
    """A command for `serve --exec`."""
    path = TESTS / "interop/simple_ipc_handler.py"
    return shlex.join([sys.executable, "-IS", str(path)])
