"""Clients under test: `send`, `send --lines`, `probe` and `bench`."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

from faults import judge
from faults.judge import Case, judge_client
from helpers.command import SIPC, environment
from helpers.injection import STOPPED, Fault, Strace, wait_until_stopped
from helpers.procfs import MARK, processes
from helpers.scripted_server import ScriptedServer
from helpers.waiting import wait_until
from helpers.wire import receive_wire

LARGE = bytes(range(256)) * 1200
LINES = b"".join(b"line %d\n" % number for number in range(30))

CLIENTS: dict[str, tuple[list[str], bytes, bytes | None]] = {
    "send": (["send", "sock"], LARGE, LARGE),
    "send-file": (["send", "sock", "--data-file", "request", "-o", "response"], b"", LARGE),
    "lines": (["send", "sock", "--lines", "-j", "2"], LINES, LINES),
    "probe": (["probe", "sock"], b"", b"sock: listening\n"),
    "probe-ask": (["probe", "sock", "-d", "hi", "--expect", "hi"], b"", None),
    "bench": (["bench", "sock", "-n", "20", "-c", "2", "-d", "hi", "--quiet"], b"", None),
    "bench-json": (["bench", "sock", "-n", "9", "-d", "hi", "--json", "response"], b"", None),
}
"""Arguments, standard input, and the standard output of success, where that is known."""


def echo(connection) -> None:
    """Echo each whole request; a client under test may close at any time."""
    with suppress(ConnectionError, ValueError):
        wire = receive_wire(connection)
        if wire.endswith(b"0000"):
            connection.sendall(wire)


def run(folder: Path, scenario: str, fault: Fault, case: Case, *, inject: bool) -> list[str]:
    """Run a client to its end; return the traced calls."""
    arguments, given, expected = CLIENTS[scenario]
    (folder / "request").write_bytes(LARGE)
    mark = uuid.uuid4().hex
    command = [sys.executable, "-P", STOPPED, SIPC, *arguments]
    with ScriptedServer(folder / "sock", echo):
        client = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment(**{MARK: mark}),
        )
        try:
            wait_until_stopped(client.pid)
            with Strace(client.pid, folder / "trace", fault, inject=inject) as strace:
                client.send_signal(signal.SIGCONT)
                output, errors = b"", b""
                try:
                    output, errors = client.communicate(given, judge.LIMIT)
                except subprocess.TimeoutExpired:
                    case.must(False, "it hangs")
        finally:
            client.kill()
            client.communicate()
        case.status = client.returncode
    case.injected = strace.injected()
    response = folder / "response"
    if expected is None:
        expected = output
    if "-o" in arguments:
        case.must(response.exists() == (case.status == 0), "a response file that should not be")
        output = response.read_bytes() if response.exists() else b""
    if scenario == "lines" and case.status and output.endswith(b"\n"):
        # A record that fails has an output line with the received part of its response.
        pairs = zip(LINES.splitlines(), output.splitlines(), strict=False)
        if all(whole.startswith(line) for whole, line in pairs):
            expected = output
    if scenario == "probe" and output != expected:
        # Its report of a failure is on standard output.
        expected, output, errors = b"", b"", b"sipc probe: " + output + errors
    judge_client(case, expected, output, errors.decode(errors="replace"))
    left = {entry.name for entry in folder.iterdir()} - {"request", "response", "trace", "sock"}
    case.must(not left, f"files left: {left}")
    try:
        wait_until(lambda: not processes(mark), "no process left", judge.LIMIT / 4)
    except AssertionError:
        case.must(False, f"processes left: {processes(mark)}")
    return strace.calls()


def calls_of(folder: Path, scenario: str) -> list[str]:
    """Return the calls that a client makes without a fault."""
    fault = Fault("all", "EIO")
    case = Case(scenario, fault)
    calls = run(folder, scenario, fault, case, inject=False)
    assert not case.broken, case
    return calls


def fail(folder: Path, scenario: str, fault: Fault) -> Case:
    """Let a call fail."""
    case = Case(scenario, fault)
    run(folder, scenario, fault, case, inject=True)
    return case
