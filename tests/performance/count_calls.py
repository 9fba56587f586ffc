"""Count the Python calls that `sipc serve --exec cat` makes for a request of two bytes.

Run as `python -m performance.count_calls [--list] [HANDLER...]` from the tests' folder. Counted are
calls into the package, and how often one leads from a module to another, from the accept to the log
record. `--list` prints every call. HANDLER are options in place of `--exec cat`.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from simpleipc_cli.client import exchange
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.transport import connect

MAX_CALLS = 160
MAX_MODULE_CHANGES = 60

_HANDLER = ("--exec", "cat")
_TIMEOUT = 30.0
_REQUESTS = 40

# Runs a server whose log of calls, one line each, goes to a file.
_TRACED_SERVER = """
import json, sys, threading
import simpleipc_cli
from simpleipc_cli.cli import main
from simpleipc_cli.handlers import exec
from simpleipc_cli.server import quick_exchange

exec._QUICK = quick_exchange._MAX_TIME = 3600.0  # a busy machine may start a process slowly
package = simpleipc_cli.__file__.rpartition("/")[0] + "/"
file, sys.argv[:] = sys.argv[1], ["sipc", *sys.argv[2:]]
calls, started, requests = [], [], [[]]

def on_event(frame, event, argument):
    if event != "call" or not frame.f_code.co_filename.startswith(package):
        return
    module = frame.f_code.co_filename[len(package):]
    if frame.f_code.co_name == "accept" and len(requests) > len(started):
        started.append(calls.clear())
    calls.append((module, frame.f_code.co_name))
    if frame.f_code.co_name == "request" and module.startswith("cli/"):
        requests.append(list(calls))

threading.setprofile(on_event)
sys.setprofile(on_event)
try:
    main()
finally:
    sys.setprofile(None)
    with open(file, "w") as output:
        # The first loads modules and starts threads, the last stops the server.
        json.dump(min(requests[3:-1], key=len), output)
"""


class Call(NamedTuple):
    """One call of a Python function of the package."""

    module: str
    function: str


def calls_of_a_request(*handler: str) -> list[Call]:
    """Return the calls that a server makes for a request, from the accept to the log record.

    They are fewer if two events come at once, so of some requests the one with the fewest counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, calls = f"{folder}/server.sock", Path(folder, "calls")
        arguments = ["serve", path, *(handler or _HANDLER), "--count", str(_REQUESTS)]
        command = [sys.executable, "-c", _TRACED_SERVER, str(calls), *arguments]
        environment = {"PATH": "/usr/bin:/bin"}  # each folder in it costs a call
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as server:
            assert server.stderr is not None
            server.stderr.readline()  # "listening on"
            for _ in range(_REQUESTS):
                stream = connect(path, Deadline(_TIMEOUT))
                exchange(stream, b"hi", None, lambda _: None, Deadline(_TIMEOUT))
                server.stderr.readline()  # the request's record
            server.stderr.read()
        assert server.returncode == 0
        return [Call(*call) for call in json.loads(calls.read_text())]


def module_changes(calls: list[Call]) -> int:
    """Count the calls that are in another module than the call before them."""
    modules = [call.module for call in calls]
    return sum(one != other for one, other in itertools.pairwise(modules))


def main() -> None:
    """Print both numbers."""
    handler = sys.argv[1:]
    if must_list := handler[:1] == ["--list"]:
        del handler[0]
    calls = calls_of_a_request(*handler)
    lines = [f"{call.module:32}{call.function}" for call in calls if must_list]
    lines.append(f"{len(calls)} calls (at most {MAX_CALLS})")
    lines.append(f"{module_changes(calls)} changes of module (at most {MAX_MODULE_CHANGES})")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
