"""Run code as another user. This needs root."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from helpers.command import environment
from helpers.waiting import TIMEOUT

NOBODY = 65534


class User(int):
    """The user id of this process, with a unique text, so that no other program uses its folder."""

    def __new__(cls):
        return super().__new__(cls, os.geteuid())

    def __init__(self) -> None:
        self.name = f"test-{uuid.uuid4().hex}"

    def __format__(self, spec: str) -> str:
        return self.name


# Import all modules first, as that user may be unable to read them.
_AS_USER = """
import difflib, grp, json, os, resource, sys, tempfile
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
user = int(sys.argv.pop(1))
os.setgroups([]); os.setgid(user); os.setuid(user)
main()
"""


def sipc_as(user: int) -> list[str]:
    """Return the start of a command line that runs sipc as this user, who need not exist."""
    return [sys.executable, "-c", _AS_USER, str(user)]


SIPC_AS_NOBODY = sipc_as(NOBODY)


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
