"""Run one measurement, from its plan to its report, with generators in separate processes.

One process can use only one processor, because of Python's global lock. Even a single generator
gets its own process, because drawing the progress must not disturb the load. Each process reads its
plan and its start time from standard input; the end of that input ends the load. It writes one line
per report to standard output. Other lines there are from Python, such as an error at the start.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic_ns
from typing import IO, Any

from simpleipc_cli import system
from simpleipc_cli.bench.generator import (
    Generator,
    LoadPlan,
    Progress,
    Results,
    interval_of,
)
from simpleipc_cli.bench.report import Report, Settings
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, errno_hint
from simpleipc_cli.process import describe
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.text import json_safe

_START_DELAY = 20_000_000  # nanoseconds from the last process being ready to the load (tunable)
_STOP_TIMEOUT = 5.0  # seconds before a process that does not stop is killed
_PROGRESS_INTERVAL = 0.1  # seconds; also the delay before Ctrl-C is noticed (tunable)
_OTHER_DESCRIPTORS = 24  # descriptors of a process, not counting its connections (tunable)
_DESCRIPTORS_PER_PROCESS = 2  # in the parent: both pipes
_CHUNK = 1 << 16  # bytes per read
_REPORT = b"\0"  # the first byte of each line that is a report
_LIMITS = "check the limits of the system (ulimit -a)"

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from simpleipc_cli.bench.processes import main; main()"
)


def measure(
    plan: LoadPlan, processes: int, rate: float | None, on_progress: Callable[[Progress], bool]
) -> Report:
    """Generate the load in at most `processes` processes, and return the report.

    A `rate` (requests per second) makes the loop an open one. `on_progress` is called about ten
    times a second, and returns whether to end the load; the report is then a partial one. Raises
    SipcError if the load cannot be generated.
    """
    if rate is not None:
        plan = replace(plan, interval=interval_of(rate))
    plans = split(plan, processes)
    _raise_descriptor_limit(max(share.concurrency for share in plans), len(plans))
    started_at = datetime.now().astimezone().isoformat(timespec="seconds")
    with GeneratorProcesses() as generators:
        partial = generators.start(plans, on_progress) or generators.run(on_progress)
    return Report(
        path=plan.path,
        started_at=started_at,
        settings=Settings(
            concurrency=plan.concurrency,
            processes=len(plans),
            requests=plan.requests,
            duration=plan.duration,
            rate=rate,
            warmup=plan.warmup,
            timeout=plan.timeout,
            **_request_settings(plan),
        ),
        results=generators.results,
        partial=partial,
    )


def _request_settings(plan: LoadPlan) -> dict[str, Any]:
    """Return the settings that describe the requests."""
    payloads = plan.payloads
    expects = plan.expect is not None
    if payloads is None:
        return {"size": len(plan.payload) if plan.size is None else plan.size, "expects": expects}
    return {
        "size": round(payloads.size / len(payloads.data)),
        "payloads": len(payloads.data),
        "payload_bytes": payloads.size,
        "data_file": json_safe(payloads.source),
        "order": payloads.order,
        "expects": expects or payloads.expected is not None,
    }


def _raise_descriptor_limit(connections: int, processes: int) -> None:
    """Raise the descriptor limit, which the processes inherit, if needed."""
    limit = DescriptorLimit()
    needed, what, hint = max(
        (connections, f"{connections} at once", "--processes or a lower --concurrency"),
        (_DESCRIPTORS_PER_PROCESS * processes, f"{processes} processes", "fewer --processes"),
    )
    needed += _OTHER_DESCRIPTORS
    if needed > limit.current:
        limit.raise_to_maximum()
    if needed > limit.current:
        raise SipcError(
            f"{what} need {needed} descriptors, but the limit is {limit.current}",
            f"raise it with ulimit -n, or use {hint}",
        )


def split(plan: LoadPlan, processes: int) -> list[LoadPlan]:
    """Split a plan into one plan per process, at most one process per concurrent request.

    Together their requests are due at the same times as those of the given plan.
    """
    processes = min(processes, plan.concurrency, plan.requests or processes)
    # Request number `first` is the first one after the warm-up: its process gets the first share.
    first = -(-plan.warmup // plan.interval) if plan.interval is not None else 0
    return [
        replace(
            plan,
            concurrency=_share(plan.concurrency, processes, number),
            requests=None
            if plan.requests is None
            else _share(plan.requests, processes, (number - first) % processes),
            interval=None if plan.interval is None else plan.interval * processes,
            offset=0 if plan.interval is None else plan.interval * number,
            payloads=plan.payloads and plan.payloads.share((number - first) % processes, processes),
        )
        for number in range(processes)
    ]


def _share(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


class GeneratorProcesses:
    """Processes that generate load together. As a context manager, it ends all of them."""

    def __init__(self) -> None:
        self._processes: list[_Process] = []
        self._running: set[_Process] = set()
        self._latest: dict[_Process, Progress] = {}
        self.results = Results()
        """Those of the processes that have ended their load, merged."""
        self._reports: SimpleQueue[Any] = SimpleQueue()

    def __enter__(self) -> GeneratorProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end_load()
        deadline = Deadline(_STOP_TIMEOUT)
        for process in self._processes:
            process.end(deadline)

    def start(self, plans: list[LoadPlan], on_progress: Callable[[Progress], bool]) -> bool:
        """Start a process for each plan, which generates no load yet.

        `on_progress` is called after each start, and returns whether to start no more. Return what
        it returned last. Raises SipcError.
        """
        for plan in plans:
            process = _Process(self._reports)
            self._processes.append(process)
            process.send(plan)
            if on_progress(Progress()):
                return True
        return False

    def run(self, on_progress: Callable[[Progress], bool]) -> bool:
        """Run the load; return whether `on_progress` ended it by returning True.

        Raises SipcError if a process dies or cannot go on, because its results are lost.
        """
        while len(self._latest) < len(self._processes):  # each reports when it is ready
            if on_progress(self._progress(_PROGRESS_INTERVAL)):
                return True
        self._running = set(self._processes)
        begin = monotonic_ns() + _START_DELAY
        for process in self._processes:
            process.send(begin)
        while self._running:
            if on_progress(self._progress(_PROGRESS_INTERVAL)):
                self._stop()
                return True
        return False

    def _stop(self) -> None:
        """End the load now, but keep the results."""
        for process in self._running:
            process.end_load()
        deadline = Deadline(_STOP_TIMEOUT)
        while self._running and not deadline.expired():
            self._progress(deadline.remaining() or 0.0)

    def _progress(self, timeout: float) -> Progress:
        """Take the reports that have arrived; wait for the first one."""
        try:
            while True:
                process, report = self._reports.get(timeout=timeout)
                timeout = 0.0
                if isinstance(report, Exception):
                    raise report
                if isinstance(report, Results):
                    self._running.remove(process)
                    self.results.merge(report)
                else:
                    self._latest[process] = report
        except Empty:
            pass
        latest = self._latest.values()
        return Progress(
            answered=sum(one.answered for one in latest),
            failed=sum(one.failed for one in latest),
            elapsed=max((one.elapsed for one in latest), default=0),
        )


class _Process:
    """A generator process, and the thread that reads its output."""

    def __init__(self, reports: SimpleQueue[Any]) -> None:
        """Start it. It puts itself and each of its reports into a queue. Raises SipcError."""
        self._reports = reports
        # Without -P, Python would import modules from the working directory first.
        isolation = "-I" if sys.flags.isolated else "-P"
        try:
            # The process inherits the blocked signals: a terminal or CI system signals all
            # processes of a group.
            with system.BlockedSignals():
                self._popen = subprocess.Popen(
                    [sys.executable, isolation, "-c", _PROGRAM, *sys.path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            self._input: Any = self._popen.stdin
            self._output: Any = self._popen.stdout
            self._reader = Thread(target=self._read, daemon=True)
            self._reader.start()
        except OSError as error:
            hint = errno_hint(error, "use fewer --processes")
            raise SipcError(f"cannot start another process: {error.strerror}", hint) from None
        except RuntimeError:
            self._popen.kill()
            self._popen.communicate()
            raise SipcError("cannot start another thread", "use fewer --processes") from None

    def send(self, message: LoadPlan | int) -> None:
        """Send the plan or the start time."""
        try:
            self._input.write(pickle.dumps(message))
            self._input.flush()
        except BrokenPipeError:
            pass  # the process has ended; the thread reports why

    def end_load(self) -> None:
        """Make it end its load, if it has started; may be called again."""
        try:
            self._input.close()
        except OSError:
            pass  # the process has ended

    def end(self, deadline: Deadline) -> None:
        """Wait until it has ended, after end_load(); kill it after the deadline."""
        self._reader.join(deadline.remaining())
        if self._popen.poll() is None:
            self._popen.kill()
        self._reader.join()
        self._popen.wait()
        self._output.close()

    def _read(self) -> None:
        """Put its reports into the queue; if the last one has no results, then also an error."""
        line, error_line, report = b"", b"", None
        try:
            while data := os.read(self._output.fileno(), _CHUNK):
                *lines, line = (line + data).split(b"\n")
                for whole in lines:
                    if whole.startswith(_REPORT):
                        report = _decoded(whole)
                        self._reports.put((self, report))
                    elif b"rror" in whole:
                        error_line = whole
            status = self._popen.wait()
            if not isinstance(report, Results):
                death = _death(status, error_line.decode(errors="replace"))
                self._reports.put((self, death))
        except OSError as error:
            self._reports.put((self, error))


def _death(status: int, error_line: str) -> SipcError:
    text = f"a load generator process died, {describe(status)[1]}"
    if not error_line:
        return SipcError(text, "check whether the system killed it")
    return SipcError(f"{text}, and wrote: {error_line}", _LIMITS)


def _decoded(line: bytes) -> Any:
    return pickle.loads(b64decode(line.removeprefix(_REPORT)))  # noqa: S301 - from a child process


def main() -> None:
    """Run a generator process."""
    # With thousands of requests in flight a garbage collection takes milliseconds, which would
    # count as time of the server. The generator creates no reference cycles.
    gc.disable()
    system.ignore_interrupt()
    try:
        generate(sys.stdin.buffer, sys.stdout.buffer)
    except (EOFError, BrokenPipeError):
        pass  # the parent has ended


def generate(commands: IO[bytes], reports: IO[bytes]) -> None:
    """Generate the load that the parent process requests, and report to it.

    Raises EOFError, BrokenPipeError if the parent ends.
    """

    def report(what: Progress | Results | SipcError) -> bool:
        reports.write(_REPORT + b64encode(pickle.dumps(what)) + b"\n")
        reports.flush()
        return bool(end_of_load.poll(0))

    end_of_load = system.fd_poll(commands.fileno(), writing=False)
    plan = pickle.load(commands)  # noqa: S301 - of the parent
    report(Progress())
    begin = pickle.load(commands)  # noqa: S301 - of the parent
    result: Results | SipcError
    try:
        result = Generator(plan, begin, on_progress=report).run()
    except BrokenPipeError:
        raise
    except OSError as error:
        result = SipcError(f"cannot generate load: {error.strerror}", errno_hint(error, _LIMITS))
    except SipcError as error:
        result = error
    report(result)
