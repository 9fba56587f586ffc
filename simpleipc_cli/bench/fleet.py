"""Makes the load in several processes at once, so that Python's lock is not what is measured.

Also one process is a process of its own: drawing a screen must not disturb the measuring.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from time import monotonic_ns

from simpleipc_cli.bench.load import Generator, Plan, Tally
from simpleipc_cli.bench.timeline import Slot
from simpleipc_cli.errors import SipcError

_HEAD_START = 20_000_000  # nanoseconds until the load begins once all processes are ready, at will
_SOON = 5.0  # seconds in which a process that was told to stop does so


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known while the load goes on."""

    answered: int
    failed: int
    elapsed: int
    """Nanoseconds since the end of the warm-up."""
    recent: Slot
    """The times of what ended since the progress before."""


def divide(plan: Plan, processes: int) -> list[Plan]:
    """A plan's share for each process; no more processes than requests at once."""
    processes = min(processes, plan.concurrency, plan.requests or processes)
    plans = []
    for number in range(processes):
        share = _share(plan.concurrency, processes, number)
        plans.append(
            replace(
                plan,
                concurrency=share,
                requests=None
                if plan.requests is None
                else _share(plan.requests, processes, number),
                interval=None if plan.interval is None else plan.interval * processes,
                offset=0 if plan.interval is None else plan.interval * number,
            )
        )
    return plans


def _share(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


class Fleet:
    """Processes that make load together."""

    def __init__(self, plans: list[Plan]) -> None:
        """Starts one process for each plan; none makes load yet."""
        context = get_context("spawn")
        self._processes = []
        self._connections: list[Connection] = []
        self._running: list[Connection] = []  # those from which more is to come
        self._done: list[Tally] = []
        self._latest: dict[int, tuple[int, int, int]] = {}
        for plan in plans:
            ours, theirs = context.Pipe()
            process = context.Process(target=_generate, args=(plan, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)

    def run(self, tell: Callable[[Progress], None], pause: float) -> None:
        """Make the load to its end; `tell` is called at least every `pause` seconds.

        Raises SipcError if a process dies; its load cannot be vouched for.
        """
        for connection in self._connections:
            _receive(connection)
        begin = monotonic_ns() + _HEAD_START
        for connection in self._connections:
            connection.send(begin)
        self._running = self._connections[:]
        while self._running:
            tell(self._progress(pause))

    def _progress(self, pause: float) -> Progress:
        """Take what has come."""
        recent = Slot()
        for connection in wait(self._running, pause):
            assert isinstance(connection, Connection)  # noqa: S101
            found = _receive(connection)
            if isinstance(found, Tally):
                self._done.append(found)
                self._running.remove(connection)
                continue
            answered, failed, elapsed, slot = found
            self._latest[connection.fileno()] = (answered, failed, elapsed)
            recent.add(slot)
        latest = self._latest.values()
        return Progress(
            answered=sum(answered for answered, _, _ in latest),
            failed=sum(failed for _, failed, _ in latest),
            elapsed=max((elapsed for _, _, elapsed in latest), default=0),
            recent=recent,
        )

    def break_off(self) -> None:
        """End the load now; what was counted so far is kept."""
        for connection in self._running:
            try:
                connection.send(None)
            except OSError:
                pass  # it has ended by itself
        deadline = monotonic_ns() + int(_SOON * 1e9)
        while self._running and monotonic_ns() < deadline:
            self._progress(_SOON)

    def tally(self) -> Tally:
        """All that was counted, added up."""
        whole = Tally()
        for tally in self._done:
            whole.merge(tally)
        return whole

    def busiest(self) -> float:
        """The share of its time that the busiest process was on a processor, 0 to 1."""
        return max((tally.cpu / tally.wall for tally in self._done if tally.wall), default=0.0)

    def close(self) -> None:
        """No process is left."""
        for connection in self._connections:
            connection.close()  # which they take for an order to stop
        for process in self._processes:
            process.join(_SOON)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


@contextmanager
def fleet(plans: list[Plan]) -> Iterator[Fleet]:
    """Processes for the time of a `with`."""
    started = Fleet(plans)
    try:
        yield started
    finally:
        started.close()


def _receive(connection: Connection):  # type: ignore[no-untyped-def]
    try:
        return connection.recv()
    except EOFError:
        raise SipcError(
            "a process that makes the load has died", "look for what may have killed it"
        ) from None


def _generate(plan: Plan, connection: Connection) -> None:
    """The life of a process. Signals from the terminal are for the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection.send("ready")
        begin = connection.recv()
        if begin is None:
            connection.send(Tally())
            return
        generator = Generator(
            plan, begin, stop=connection.fileno(), report=lambda *told: connection.send(told)
        )
        connection.send(generator.run())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the one that wanted to know has gone
