"""Run code as another user. This needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from helpers.command import environment
from helpers.waiting import TIMEOUT

NOBODY = 65534

# Import all modules first, as that user may be unable to read them.
_AS_NOBODY = f"""
import difflib, grp, os, resource, sys
from simpleipc_cli.cli import main, app
import simpleipc_cli.autostart
import simpleipc_cli.cli.probe.command
import simpleipc_cli.cli.send.command
import simpleipc_cli.cli.serve.command
import simpleipc_cli.handlers.exec
import simpleipc_cli.process.posix.background
import simpleipc_cli.process.posix.pidfile
import simpleipc_cli.transport.unix.listener
import simpleipc_cli.transport.unix.poller
sys.argv[0] = "sipc"
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
main()
"""
SIPC_AS_NOBODY = [sys.executable, "-c", _AS_NOBODY]
"""The start of a command line that runs sipc as the user nobody."""


def as_nobody(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
    """Run sipc as the user nobody to its end."""
    options.setdefault("env", environment())
    command = [*SIPC_AS_NOBODY, *map(str, arguments)]
    return subprocess.run(command, input=b"", capture_output=True, timeout=TIMEOUT, **options)


@contextmanager
def become(user: int) -> Iterator[None]:
    """Use only the permissions of this user. For tests with one thread."""
    before = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before)
