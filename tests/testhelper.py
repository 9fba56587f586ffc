"""The commands of git's own test helper: a handler that speaks them, and what they say."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

WIRE = Path(__file__).with_name("wire")
BIG = b"".join(b"big: %075d\n" % number for number in range(10_000))


def handler() -> str:
    """A command for `serve --exec`."""
    path = Path(__file__).with_name("interop") / "simple_ipc_handler.py"
    return shlex.join([sys.executable, "-IS", str(path)])
