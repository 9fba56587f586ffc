"""`sipc serve --background`: what becomes of the two processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode
from simpleipc_cli.cli.stdio import format_error, print_error
from simpleipc_cli.errors import SipcError
from simpleipc_cli.process import ReadyPipe, daemonize, describe


def in_background(serve: Callable[[Callable[[], None]], int], max_wait: float | None) -> int:
    """Serve in a child; the status for whoever started it, at the end also the child's.

    `serve` gets what to call once it listens. Raises SipcError: TimedOut if that took longer
    than `max_wait` seconds.
    """
    half = daemonize([sys.executable, *sys.orig_argv[1:]], os.environ)
    if isinstance(half, ReadyPipe):
        return serve(half.notify)
    status = half.wait(max_wait)
    if status is None:
        return ExitCode.OK
    if status < 0:
        how = describe(status)[1]
        error = SipcError(
            f"the server was {how} before it listened", "find out what sent the signal"
        )
        print_error(format_error("serve", error))
        return SIGNALLED - status
    return status
