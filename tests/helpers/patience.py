"""Programs that run sipc without some of its time limits, which no option changes.

A busy machine may suspend a test or a server for longer than such a limit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from helpers.waiting import wait_until

_CODE = """
import sys
from importlib import import_module
from simpleipc_cli.cli import main

for name in {names!r}:
    module, _, limit = name.rpartition(".")
    module = import_module("simpleipc_cli." + module)
    assert isinstance(getattr(module, limit), float)
    setattr(module, limit, 3600.0)
{then}
sys.argv[0] = "sipc"
main()
"""


def without_limits(*names: str, then: str = "") -> tuple[str, str, str]:
    """Return a program in which these limits are an hour; it runs the code `then` before sipc."""
    return sys.executable, "-c", _CODE.format(names=names, then=then)


DRAIN = ("server.acceptor.DRAIN_IDLE_TIMEOUT", "server.exchange_state.DRAIN_IDLE_TIMEOUT")
"""The time in which a client must send, once the server stops."""
LINGER = ("server.exchange_state.LINGER", "handlers.worker.LINGER")
"""The time in which a handler that has exited must close its output, or a worker that has
answered must read its input."""
LOCK = ("transport.unix.lock._TIMEOUT", "transport.unix.lock._STALE_AFTER")
"""The time for which a server waits for PATH.lock, and the age at which it removes it."""
GRACE = ("process.posix.background._GRACE_PERIOD",)
"""The time in which a server in the background must end after a signal of its parent."""

STOPS_ITSELF = """
import os, signal
from simpleipc_cli.server.acceptor import Acceptor

def begin_drain(self, begin_drain=Acceptor.begin_drain):
    begin_drain(self)
    os.kill(os.getpid(), signal.SIGSTOP)

Acceptor.begin_drain = begin_drain
"""
"""Code: the server suspends itself once it has begun to stop, as on a machine that is suspended."""

_CLOCK = """
import os
from time import monotonic
from simpleipc_cli.server import dispatcher, exchange

start = monotonic()
dispatcher.monotonic = exchange.monotonic = lambda: start + os.stat({file!r}).st_size
"""


class Clock:
    """The clock by which a server limits the times of a request. Only the test advances it."""

    def __init__(self, file: Path) -> None:
        """Use the size of this file as the time, in seconds."""
        self._file = file
        file.touch()
        self.program = without_limits(then=_CLOCK.format(file=str(file)))
        """The program of the server."""

    def advance(self, seconds: int) -> None:
        os.truncate(self._file, self._file.stat().st_size + seconds)

    def advance_until(self, state: Callable[[], object], what: str) -> None:
        """Advance again and again, as a timeout may begin at any time."""
        wait_until(lambda: state() or self.advance(1), what)
