"""Makes the load in several processes at once, so that Python's lock is not what is measured.

Also one process is a process of its own: drawing a screen must not disturb the measuring.
Beside them Python keeps a small helper (its resource tracker) until the parent ends.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic_ns

from simpleipc_cli import system
from simpleipc_cli.bench.generator import Generator, LoadPlan, Results
from simpleipc_cli.bench.timeline import TimeBucket
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport import new_connection_watcher

_HEAD_START = 20_000_000  # nanoseconds until the load begins once all processes are ready, at will
_SOON = 5.0  # seconds in which a process that was told to stop does so


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known while the load goes on."""

    answered: int
    failed: int
    elapsed: int
    """Nanoseconds since the end of the warm-up."""
    recent: TimeBucket
    """The times of what ended since the progress before."""


INITIAL_PROGRESS = Progress(answered=0, failed=0, elapsed=0, recent=TimeBucket())


def divide(plan: LoadPlan, processes: int) -> list[LoadPlan]:
    """A plan's share for each process; no more processes than requests at once.

    Together they are due exactly when those of the one plan would be.
    """
    processes = min(processes, plan.concurrency, plan.requests or processes)
    # Whoever is due first behind the warm-up has the first request that counts.
    first = -(-plan.warmup // plan.interval) if plan.interval is not None else 0
    plans = []
    for number in range(processes):
        share = _share(plan.concurrency, processes, number)
        plans.append(
            replace(
                plan,
                concurrency=share,
                requests=None
                if plan.requests is None
                else _share(plan.requests, processes, (number - first) % processes),
                interval=None if plan.interval is None else plan.interval * processes,
                offset=0 if plan.interval is None else plan.interval * number,
            )
        )
    return plans


def _share(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


class GeneratorProcesses:
    """Processes that make load together."""

    def __init__(self, plans: list[LoadPlan], heed: Callable[[], None] = lambda: None) -> None:
        """Starts one process for each plan; none makes load yet.

        `heed` is called between starts and may raise, as `tell` of run() may.
        """
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._running: list[Connection] = []  # those from which more is to come
        self._done: list[Results] = []
        self._latest: dict[int, tuple[int, int, int]] = {}
        try:
            for plan in plans:
                heed()
                with system.block_terminal_signals():
                    self._start(plan)
        except BaseException:
            self.close()
            raise

    def _start(self, plan: LoadPlan) -> None:
        context = get_context("spawn")
        try:
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            with theirs:
                process = context.Process(target=_generate, args=(plan, theirs), daemon=True)
                process.start()
        except OSError as error:
            raise SipcError(
                f"cannot start another process: {error.strerror}",
                "allow more with ulimit -u and -n, or give fewer --processes",
            ) from None
        self._processes.append(process)

    def run(self, tell: Callable[[Progress], None], pause: float) -> None:
        """Make the load to its end; `tell` is called at least every `pause` seconds.

        `tell` may raise, and break_off() follow. A signal handler should not: what it
        interrupts may be half of a message. Raises SipcError if a process dies or cannot go
        on; its load cannot be vouched for.
        """
        starting = self._connections[:]
        while starting:
            for connection in _ready(starting, pause):
                _receive(connection)
                starting.remove(connection)
            tell(INITIAL_PROGRESS)
        self._running = self._connections[:]
        begin = monotonic_ns() + _HEAD_START
        for connection in self._connections:
            _send(connection, begin)
        while self._running:
            tell(self._progress(pause))

    def _progress(self, pause: float) -> Progress:
        """Take what has come."""
        recent = TimeBucket()
        for connection in _ready(self._running, pause):
            found = _receive(connection)
            if isinstance(found, Results):
                self._running.remove(connection)
                self._done.append(found)
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
        deadline = Deadline(_SOON)
        while self._running and not deadline.passed():
            self._progress(deadline.remaining() or 0.0)

    def tally(self) -> Results:
        """All that was counted, added up."""
        whole = Results()
        for tally in self._done:
            whole.merge(tally)
        return whole

    def busiest(self) -> float:
        """The share of its time that the busiest process was on a processor, 0 to 1."""
        return max((tally.cpu / tally.wall for tally in self._done if tally.wall), default=0.0)

    def close(self) -> None:
        """No process is left. May be called again."""
        for connection in self._connections:
            connection.close()  # which they take for an order to stop
        deadline = Deadline(_SOON)
        while self._processes:
            process = self._processes.pop()
            process.join(deadline.remaining())
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


@contextmanager
def fleet(
    plans: list[LoadPlan], heed: Callable[[], None] = lambda: None
) -> Iterator[GeneratorProcesses]:
    """Processes for the time of a `with`. For `heed` see Fleet."""
    started = GeneratorProcesses(plans, heed)
    try:
        yield started
    finally:
        started.close()


def _ready(connections: list[Connection], pause: float) -> list[Connection]:
    """Those from which something can be received, once there are any, or `pause` is over."""
    found = wait(connections, pause)
    return [connection for connection in connections if connection in found]


def _receive(connection: Connection):  # type: ignore[no-untyped-def]
    try:
        found = connection.recv()
    except (EOFError, OSError):  # a reset, or half of a message
        raise _died() from None
    if isinstance(found, SipcError):
        raise found
    return found


def _send(connection: Connection, order: object) -> None:
    try:
        connection.send(order)
    except OSError:
        raise _died() from None


def _died() -> SipcError:
    return SipcError("a process that makes the load has died", "look for what may have killed it")


def _generate(plan: LoadPlan, connection: Connection) -> None:
    """The life of a process. Signals from the terminal are for the one that started it."""
    # With thousands in flight, looking for garbage in circles takes milliseconds, and an answer
    # that comes meanwhile would seem to take longer. The load makes no such garbage.
    gc.disable()
    system.ignore_interrupt()
    try:
        connection.send("ready")
        begin = connection.recv()
        if begin is None:
            connection.send(Results())
            return
        connection.send(_made(plan, begin, connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the one that wanted to know has gone


def _made(plan: LoadPlan, begin: int, connection: Connection) -> Results | SipcError:
    """What was counted, or why that cannot go on."""
    line = new_connection_watcher(connection)

    def tell(*told: object) -> None:
        # The load does not stop because a terminal does, or whoever draws on it.
        if not line.is_writable():
            raise BlockingIOError
        connection.send(told)

    try:
        return Generator(plan, begin, stop=line.fileno(), report=tell).run()
    except (BrokenPipeError, ConnectionResetError):
        raise  # nobody is interested any more
    except OSError as error:
        return SipcError(
            f"cannot make the load: {error.strerror}", "see what the system is short of"
        )
    except SipcError as error:
        return error
    finally:
        line.close()
