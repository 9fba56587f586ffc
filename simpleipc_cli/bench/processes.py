"""Run one measurement, from its plan to its report, with generators in processes of their own.

Several processes, because Python's global lock limits one; and always at least one, because
drawing the progress must not disturb the load. `multiprocessing` adds a small helper process (its
resource tracker) until the parent ends. Knows no screen and no files.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic_ns

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
from simpleipc_cli.system.fd_limit import DescriptorLimit

_START_DELAY = 20_000_000  # nanoseconds from when all processes are ready to the load (tunable)
_STOP_TIMEOUT = 5.0  # seconds until a process that should stop is killed
_PROGRESS_INTERVAL = 0.1  # seconds, which is also how soon Ctrl-C is noticed (tunable)
_OTHER_DESCRIPTORS = 24  # descriptors of a process besides its connections, with a reserve
_DESCRIPTORS_PER_PROCESS = 2  # in the parent: a connection, and one that reports the end


class Interrupted(Exception):
    """Raised by `on_progress` to end the load early; not an error."""


def measure(
    plan: LoadPlan, processes: int, rate: float | None, on_progress: Callable[[Progress], None]
) -> Report:
    """Generate the load in at most `processes` processes, and return the report.

    A `rate` (requests per second) makes the loop an open one. `on_progress` is called about ten
    times a second. If it raises Interrupted, the load ends, and the report is a partial one.
    Raises SipcError if the load cannot be generated.
    """
    if rate is not None:
        plan = replace(plan, interval=interval_of(rate))
    plans = split(plan, processes)
    _raise_descriptor_limit(max(share.concurrency for share in plans), len(plans))
    started_at = datetime.now().astimezone().isoformat(timespec="seconds")
    results, partial = Results(), False
    try:
        with GeneratorProcesses(plans, lambda: on_progress(Progress())) as running:
            try:
                running.run(on_progress, _PROGRESS_INTERVAL)
            except Interrupted:
                partial = True
                running.stop()
            results = running.results()
    except Interrupted:  # before all processes had started
        partial = True
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
            size=len(plan.payload) if plan.size is None else plan.size,
            expects=plan.expect is not None,
        ),
        results=results,
        partial=partial,
    )


def _raise_descriptor_limit(connections: int, processes: int) -> None:
    """Raise the limit on open files, which the processes inherit, if needed."""
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
    """Split a plan into one per process; no more processes than requests at once.

    Together their requests are due exactly when those of the one plan would be.
    """
    processes = min(processes, plan.concurrency, plan.requests or processes)
    # Number `first` has the first request that is due after the warm-up: it gets the first share.
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
        )
        for number in range(processes)
    ]


def _share(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


class GeneratorProcesses:
    """Processes that generate load together; a context manager that ends all of them."""

    def __init__(
        self, plans: list[LoadPlan], check_cancelled: Callable[[], None] = lambda: None
    ) -> None:
        """Start one process per plan; none generates load yet.

        `check_cancelled` is called between starts and may raise.
        """
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._running: list[Connection] = []
        self._done: list[Results] = []
        self._latest: dict[int, Progress] = {}
        try:
            for plan in plans:
                check_cancelled()
                with system.block_terminal_signals():
                    self._start(plan)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GeneratorProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, plan: LoadPlan) -> None:
        context = get_context("spawn")
        try:
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            with theirs:
                process = context.Process(target=_process_main, args=(plan, theirs), daemon=True)
                process.start()
        except OSError as error:
            raise SipcError(
                f"cannot start another process: {error.strerror}",
                errno_hint(error, "use fewer --processes"),
            ) from None
        self._processes.append(process)

    def run(self, on_progress: Callable[[Progress], None], interval: float) -> None:
        """Run the load to its end; call `on_progress` at least every `interval` seconds.

        `on_progress` may raise, and stop() may follow. A signal handler must not raise: it
        could interrupt a message halfway. Raises SipcError if a process dies or cannot go on,
        because its results are lost.
        """
        starting = self._connections[:]
        while starting:
            for connection in _ready(starting, interval):
                _receive(connection)
                starting.remove(connection)
            on_progress(Progress())
        self._running = self._connections[:]
        begin = monotonic_ns() + _START_DELAY
        for connection in self._connections:
            try:
                connection.send(begin)
            except OSError:
                raise _process_died() from None
        while self._running:
            on_progress(self._progress(interval))

    def _progress(self, timeout: float) -> Progress:
        """Receive the reports and results that have arrived."""
        for connection in _ready(self._running, timeout):
            received = _receive(connection)
            if isinstance(received, Results):
                self._running.remove(connection)
                self._done.append(received)
            else:
                self._latest[connection.fileno()] = received
        latest = self._latest.values()
        return Progress(
            answered=sum(one.answered for one in latest),
            failed=sum(one.failed for one in latest),
            elapsed=max((one.elapsed for one in latest), default=0),
        )

    def stop(self) -> None:
        """End the load now and keep the results."""
        for connection in self._running:
            try:
                connection.send(None)
            except OSError:
                pass  # it has already ended
        deadline = Deadline(_STOP_TIMEOUT)
        while self._running and not deadline.expired():
            self._progress(deadline.remaining() or 0.0)

    def results(self) -> Results:
        """Return the merged results of all processes."""
        merged = Results()
        for results in self._done:
            merged.merge(results)
        return merged

    def close(self) -> None:
        """End all processes; may be called again."""
        for connection in self._connections:
            connection.close()  # the process stops on end of file
        deadline = Deadline(_STOP_TIMEOUT)
        while self._processes:
            process = self._processes.pop()
            process.join(deadline.remaining())
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


def _ready(connections: list[Connection], timeout: float) -> list[Connection]:
    """Wait until there is something to receive; return those connections."""
    found = wait(connections, timeout)
    return [connection for connection in connections if connection in found]


def _receive(connection: Connection):  # type: ignore[no-untyped-def]
    try:
        received = connection.recv()
    except (EOFError, OSError):  # a reset, or half of a message
        raise _process_died() from None
    if isinstance(received, SipcError):
        raise received
    return received


def _process_died() -> SipcError:
    return SipcError("a load generator process died", "check whether the system killed it")


def _process_main(plan: LoadPlan, connection: Connection) -> None:
    """Run a generator process. Signals from the terminal are for the parent process."""
    # With thousands of requests in flight a garbage collection takes milliseconds, which would
    # count as the server's. The generator creates no reference cycles.
    gc.disable()
    system.ignore_interrupt()
    try:
        connection.send("ready")
        begin = connection.recv()
        if begin is None:
            connection.send(Results())
            return
        connection.send(_run_generator(plan, begin, connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has ended


def _run_generator(plan: LoadPlan, begin: int, connection: Connection) -> Results | SipcError:
    """Return the results, or the error that ended the load."""
    poll = system.fd_poll(connection.fileno(), writing=True)

    def on_progress(progress: Progress) -> None:
        # A parent that cannot draw, for example on a halted terminal, must not block the load.
        if poll.poll(0):
            connection.send(progress)

    try:
        return Generator(plan, begin, is_stopped=connection.poll, on_progress=on_progress).run()
    except (BrokenPipeError, ConnectionResetError):
        raise  # the parent has ended
    except OSError as error:
        return SipcError(
            f"cannot generate load: {error.strerror}",
            errno_hint(error, "check the limits of the system (ulimit -a)"),
        )
    except SipcError as error:
        return error
