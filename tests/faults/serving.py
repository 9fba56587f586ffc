"""Servers under test: system calls fail while they start, while they serve, while they stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

from faults import judge
from faults.judge import Case, judge_answer, judge_log
from helpers import workers
from helpers.command import SIPC, environment
from helpers.injection import STOPPED, Fault, Strace, wait_until_stopped
from helpers.procfs import MARK, children, descriptors, processes, state
from helpers.waiting import wait_until
from helpers.wire import connect, decode, is_listening, message, receive_all

SMALL = b"hello"
LARGE = bytes(range(256)) * 1200
ENDS = "ends"
WORKER = f"{workers.WORKER} echo"
HANDLER = f"cat && echo end >>{ENDS}"
SERVERS = {
    "exec": ("--exec", HANDLER),
    "worker": ("--worker", WORKER),
    "prestart": ("--exec", HANDLER, "--prestart", "2"),
    # One thread, as strace does not follow one that starts later.
    "whole": ("--exec", HANDLER, "--whole-request", "--threads", "1"),
}
ON_LOOP = str(Path(__file__).with_name("on_loop.py"))
KEPT = {"exec": 0, "worker": 2, "prestart": 2, "whole": 0}
"""The number of processes that a server without requests may keep after two requests."""


class Served:
    """A `sipc serve` that is stopped before its first line, and its log in a file."""

    def __init__(self, folder: Path, scenario: str, program: str = SIPC) -> None:
        self.folder = folder
        self.path = folder / "sock"
        self.scenario = scenario
        self.mark = uuid.uuid4().hex
        self._log = folder / "log"
        self.sent_whole = 0
        self._open: Counter[str] = Counter()
        options = ["--threads", "2", "--kill-after", "1s", "-v", *SERVERS[scenario]]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", STOPPED, program, "serve", str(self.path), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                env=environment(**{MARK: self.mark}),
            )
        self.pid = self.process.pid
        wait_until_stopped(self.pid)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def is_up(self) -> bool:
        """Wait until the server listens or has ended; return whether it listens."""

        def settled() -> bool:
            said = "listening on" in self.log
            return said or self.process.poll() is not None or is_listening(self.path)

        wait_until(settled, "it to listen or to end", judge.LIMIT)
        return self.process.poll() is None

    def ask(self, payload: bytes) -> tuple[bytes, bool]:
        """Send a whole request; a connection that fails is a truncated response."""
        wire = b""
        with suppress(ConnectionError, FileNotFoundError):
            with connect(self.path) as connection:
                connection.settimeout(judge.LIMIT)
                self.sent_whole += 1
                with suppress(BrokenPipeError):
                    connection.sendall(message(payload))
                wire = receive_all(connection)
        return decode(wire)

    def use(self, case: Case) -> None:
        """Send two requests, and half a request whose client closes."""
        for payload in SMALL, LARGE:
            try:
                judge_answer(case, f"{len(payload)} bytes", payload, *self.ask(payload))
            except TimeoutError:
                case.must(False, f"a request of {len(payload)} bytes hangs")
        with suppress(ConnectionError, FileNotFoundError):
            with connect(self.path) as connection:
                connection.sendall(message(SMALL)[:-4])

    def check_alive(self, case: Case) -> None:
        """Require that the server works after a fault, and no handler accepted half a request."""
        if self.process.poll() is not None:
            case.must(False, f"the server ended with status {self.process.returncode}")
            return
        try:
            case.must(self.ask(SMALL) == (SMALL, True), "the server does not go on")
        except TimeoutError:
            case.must(False, "the server hangs afterwards")
        for what, settled in ("children", self._has_no_zombie), ("descriptors", self._has_no_more):
            try:
                wait_until(settled, what, judge.LIMIT / 4)
            except AssertionError:
                case.must(False, f"{what} that stay: {self._kept()}")
            except (FileNotFoundError, ProcessLookupError):
                return  # the server has ended: the next request notices

    def note_descriptors(self) -> None:
        """Record the open descriptors as those of a server without requests."""
        self._open = Counter(map(kind, descriptors(self.pid)))

    def _has_no_zombie(self) -> bool:
        with suppress(FileNotFoundError, ProcessLookupError):  # a child that is reaped now
            return all(state(child) != "Z" for child in children(self.pid))
        return self.process.poll() is not None

    def _kept(self) -> list[str]:
        return sorted((Counter(map(kind, descriptors(self.pid))) - self._open).elements())

    def _has_no_more(self) -> bool:
        return not self._open or not self._kept()

    def check_ends(self, case: Case) -> None:
        ends = self.folder / ENDS
        seen = ends.read_text().count("end") if ends.exists() else 0
        case.must(seen <= self.sent_whole, "a handler took half a request for whole")

    def stop(self, case: Case) -> None:
        """Require that two SIGTERMs end the server, which leaves no process and no file."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(judge.LIMIT / 4)
        self.check_stopped(case)

    def check_stopped(self, case: Case) -> None:
        case.must(self.process.poll() is not None, "two SIGTERM do not end the server")
        self.process.kill()
        case.status = self.process.wait()
        try:
            wait_until(lambda: not processes(self.mark), "no process left", judge.LIMIT / 4)
        except AssertionError:
            case.must(False, f"processes left: {processes(self.mark)}")
            for pid in processes(self.mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        case.said = self.log.splitlines()[-12:]
        self.check_ends(case)
        left = [entry.name for entry in self.folder.iterdir() if entry.name not in KNOWN]
        case.must(not left, f"files left: {left}")


KNOWN = {"log", ENDS, "trace"}


def start(folder: Path, scenario: str) -> Served:
    """Start a server that has answered a request, so that its threads have started."""
    served = Served(folder, scenario, program=ON_LOOP)
    served.go_on()
    assert served.is_up(), served.log
    for payload in SMALL, LARGE:
        assert served.ask(payload) == (payload, True), served.log
    wait_until(lambda: len(children(served.pid)) <= KEPT[scenario], "handlers to end")
    if not KEPT[scenario]:  # else a process may be starting at that time
        served.note_descriptors()
    return served


def kind(name: str) -> str:
    """Return the kind of file that a descriptor is, without its number."""
    return name.partition(":[")[0]


def count_running(served: Served, fault: Fault) -> list[str]:
    """Return the calls of the traced threads while the server is in use."""
    case = Case(served.scenario, fault)
    with Strace(served.pid, served.folder / "trace", fault, inject=False) as strace:
        served.use(case)
        served.check_alive(case)
    assert not case.broken, case
    return strace.calls()


def fail_running(served: Served, fault: Fault) -> Case:
    """Let a call fail while the server serves."""
    case = Case(served.scenario, fault)
    before = len(served.log)
    with Strace(served.pid, served.folder / "trace", fault) as strace:
        served.use(case)
    case.injected = strace.injected()
    served.check_alive(case)
    served.check_ends(case)
    judge_log(case, served.log[before:])
    return case


def calls_at(folder: Path, scenario: str, phase: str) -> list[str]:
    """Return the calls of a server that starts, or that stops."""
    fault = Fault("all", "EIO")
    case, calls = _at(folder, scenario, fault, phase, inject=False)
    assert not case.broken, case
    return calls


def fail_at(folder: Path, scenario: str, fault: Fault, phase: str) -> Case:
    """Let a call fail while the server starts or stops."""
    return _at(folder, scenario, fault, phase, inject=True)[0]


def _at(
    folder: Path, scenario: str, fault: Fault, phase: str, *, inject: bool
) -> tuple[Case, list[str]]:
    case = Case(f"{scenario}-{phase}", fault)
    served = start(folder, scenario) if phase == "stop" else Served(folder, scenario)
    try:
        with Strace(served.pid, folder / "trace", fault, inject=inject) as strace:
            if phase == "start":
                served.go_on()
                try:
                    served.is_up()
                except AssertionError:
                    case.must(False, "it neither listens nor ends")
            else:
                with connect(served.path) as connection:
                    connection.sendall(message(SMALL)[:-4])
                    served.stop(case)
        case.injected = strace.injected()
        if phase == "start":
            if served.process.poll() is None:
                served.use(case)
                served.check_alive(case)
            served.stop(case)
        judge_log(case, served.log)
    finally:
        served.process.kill()
        served.process.wait()
    return case, strace.calls()
