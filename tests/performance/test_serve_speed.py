"""The speed of `sipc serve`, compared with similar servers and the smallest possible one.

Nothing here is a limit: machines differ, and other people use them, too. The figures are
stated at the end of the run, and what would be absurd fails.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, monotonic_ns

import pytest
from helpers.command import SIPC, environment
from helpers.procfs import peak_memory
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import connect, packets
from performance.asking import Speed, measure
from performance.bare import Echo
from performance.machine import SCALE, coming_first

pytestmark = pytest.mark.performance

ROUNDS = 3 if SCALE > 1 else 1
SECONDS = 0.5 if SCALE > 1 else 0.1
"""How long a run lasts; there are some fifty, or twenty."""

CLIENTS = (1, 8)
WORKER = f"{sys.executable} {Path(__file__).with_name('echo_worker.py')}"


@dataclass(frozen=True)
class Side:
    """A server to compare: a command that serves at PATH, and the format of its requests."""

    name: str
    command: tuple[str, ...]
    speech: str = "packets"
    package: str = ""
    """The Debian package that it needs."""


def sipc_serve(name: str, *options: str) -> Side:
    return Side(name, (SIPC, "serve", "-q", *options, "PATH"))


SIDES = [
    Side("s6-ipcserver, cat", ("s6-ipcserver", "-c", "1000", "PATH", "cat"), "bytes", "s6"),
    Side(
        "socat, fork and cat",
        ("socat", "UNIX-LISTEN:PATH,fork,backlog=1000", "EXEC:cat"),
        "bytes",
        "socat",
    ),
    sipc_serve("--exec cat", "--exec", "cat"),
    sipc_serve("--exec cat --prestart 8", "--exec", "cat", "--prestart", "8"),
    sipc_serve("--worker, in Python", "--worker", WORKER),
    sipc_serve("--worker cat", "--worker", "cat"),
]
BARE = "a bare loop in Python, in-process"
S6, EXEC, PRESTART, IN_PYTHON = (SIDES[number].name for number in (0, 2, 3, 4))


@contextmanager
def running(side: Side, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for one run; wait until it has answered a first request."""
    command = [part.replace("PATH", str(path)) for part in side.command]
    process = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(path), "it to listen")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT)
        path.unlink(missing_ok=True)


def listens(path: Path) -> bool:
    try:
        connect(path).close()
    except OSError:
        return False
    return True


def one_round(folder: Path, found: dict[tuple[str, int], list[Speed]]) -> None:
    """Measure the sides in turn, so that other activity of the machine affects them alike."""
    for clients in CLIENTS:
        with Echo(folder / "bare", 1):
            speed = measure(folder / "bare", clients, SECONDS, "packets")
        (folder / "bare").unlink()
        found.setdefault((BARE, clients), []).append(speed)
        for side in SIDES:
            if shutil.which(side.command[0]) is not None:
                with running(side, folder / "side"):
                    speed = measure(folder / "side", clients, SECONDS, side.speech)
                found.setdefault((side.name, clients), []).append(speed)


def start_of_cat() -> float:
    """Return the microseconds to start cat and read its response, without a server."""
    took = []
    for _ in range(50):
        began = monotonic_ns()
        subprocess.run(["cat"], input=b"twenty bytes of text", stdout=subprocess.PIPE, check=True)
        took.append((monotonic_ns() - began) / 1000)
    return median(took)


def test_the_run_states_the_speed_of_serve_and_of_comparable_servers(folder, state):
    found: dict[tuple[str, int], list[Speed]] = {}
    with coming_first():
        for _ in range(ROUNDS):
            one_round(folder, found)
        start = start_of_cat()
    rates = {key: median(speed.rate for speed in speeds) for key, speeds in found.items()}
    for clients in CLIENTS:
        for name in (BARE, *(side.name for side in SIDES)):
            state(f"{name}, {clients} clients", row(found.get((name, clients)), rates, clients))
    for side in SIDES:
        if (side.name, 1) not in rates:
            state(side.name, f"not measured: install Debian's {side.package}")
    p50 = median(speed.p50 for speed in found[PRESTART, 1])
    state("prestart's p50, of the time that starting cat takes", f"{p50 / start:.2f}")
    assert rates[IN_PYTHON, 1] > rates[EXEC, 1]


def row(speeds: list[Speed] | None, rates: dict[tuple[str, int], float], clients: int) -> str:
    """Return a rate, its times, and its ratio to the rates of others, as text."""
    if speeds is None:
        return "missing"
    rate = median(speed.rate for speed in speeds)
    p50 = median(speed.p50 for speed in speeds)
    p99 = median(speed.p99 for speed in speeds)
    text = f"{rate:>7,.0f}/s, p50 {p50:>6,.0f} us, p99 {p99:>6,.0f} us"
    for name, short in ((S6, "s6"), (BARE, "bare")):
        if (name, clients) in rates:
            text += f", {rate / rates[name, clients]:.2f} of {short}"
    return text


BIG = 1 << 30 if SCALE > 1 else 1 << 27
CHUNK = packets(bytes(65516) * 16)
COUNT = BIG // (65516 * 16)
FLAT = 64 << 20


def echoed(path: Path) -> float:
    """Return the seconds for a gigabyte in both directions, read as fast as written."""
    began = monotonic()
    with connect(path) as connection:
        connection.settimeout(None)  # the reader shares it, and is to wait
        reader = subprocess.Popen(
            [sys.executable, "-c", READ],
            stdin=connection.fileno(),
            stdout=subprocess.PIPE,
        )
        for _ in range(COUNT):
            connection.sendall(CHUNK)
        connection.sendall(b"0000")
        connection.shutdown(socket.SHUT_WR)
        tail = reader.communicate(timeout=TIMEOUT * 4)[0]
    assert tail == b"0000"
    return monotonic() - began


READ = """
import os
tail = b""
while piece := os.read(0, 1 << 20):
    tail = (tail + piece)[-4:]
os.write(1, tail)
"""
"""A program that reads its input to the end, and writes the last bytes of it."""


def test_the_run_states_the_time_of_a_gigabyte_through_a_worker_and_through_exec(folder, state):
    took: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    with coming_first():
        for _ in range(ROUNDS):
            for side in (sipc_serve("--exec cat", "--exec", "cat"),
                         sipc_serve("--worker cat", "--worker", "cat")):  # fmt: skip
                with running(side, folder / "side") as server:
                    took.setdefault(side.name, []).append(echoed(folder / "side"))
                    peaks[side.name] = peak_memory(server.pid)
    for name, seconds in took.items():
        rate = BIG / median(seconds) / 2**20
        state(
            f"{BIG >> 20} MiB through {name}", f"{rate:,.0f} MiB/s, {peaks[name] / 2**20:.0f} MiB"
        )
    ratio = median(took["--exec cat"]) / median(took["--worker cat"])
    state("a worker's rate, of --exec's, with as much", f"{ratio:.2f}")
    assert max(peaks.values()) < FLAT
