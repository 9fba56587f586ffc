"""The system calls of a server that runs cat for each request."""

from __future__ import annotations

import itertools
import os
import re
import signal
from pathlib import Path

from helpers.patience import without_limits
from helpers.procfs import children
from helpers.server import Server
from helpers.wire import ask

_REQUESTS = 20
# Under strace all takes longer.
_PROGRAM = without_limits(
    "handlers.exec._QUICK", "handlers.exec._QUICK_FOR", "server.quick_exchange._MAX_TIME"
)


def calls_of_a_request(folder: Path) -> list[str]:
    """Return the calls for a small request, as strace prints them, from one accept to the next.

    Of some requests the one with the fewest counts: one wait may report two events. The log is not
    counted.
    """
    trace = folder / "trace"
    wrapper = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace)]
    with Server(folder / "traced", "cat", program=_PROGRAM, wrapper=wrapper) as server:
        for _ in range(_REQUESTS):
            assert ask(folder / "traced", b"hi") == (b"hi", True)
        (traced,) = children(server.pid)
        os.kill(traced, signal.SIGTERM)
        assert server.wait() == 0
    lines = [line.split(None, 1) for line in trace.read_text().splitlines()]
    calls = [call for process, call in lines if process == str(traced)]
    of_log = r"<|write\(2,|poll\(\[\{fd=2,"  # and what resumes
    calls = [call for call in calls if not re.match(of_log, call)]
    accepts = [n for n, call in enumerate(calls) if re.match(r"accept4\(.*= \d+$", call)]
    requests = [calls[one:other] for one, other in itertools.pairwise(accepts)]
    # Another thread starts the handler of the first request.
    complete = [found for found in requests if any(call.startswith("wait4(") for call in found)]
    return min(complete, key=len)
