"""The threads of a server: each carries one exchange at a time to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.server.connection import Exchange
from simpleipc_cli.server.jobs import Jobs
from simpleipc_cli.server.log import Log

_JOIN_PATIENCE = 5.0  # seconds for threads that are to end at once, at will


class Crew:
    """Threads, started as there is work for them; there is one for each who needs one."""

    def __init__(self, *, log: Log, on_over: Callable[[Exchange], None]) -> None:
        """`on_over` is called by a thread with each that is over."""
        self._log = log
        self._on_over = on_over
        self._jobs: Jobs[Exchange | None] = Jobs()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._carried = 0  # exchanges that have a thread or wait for one, under the lock
        self._no_thread = False  # the system has no threads, and it has been said

    @property
    def is_stuck(self) -> bool:
        """Whether somebody waits and there is not one thread."""
        return bool(self._carried) and not self._threads

    @property
    def is_over(self) -> bool:
        """Whether no thread is left."""
        return not any(thread.is_alive() for thread in self._threads)

    def take(self, exchange: Exchange) -> None:
        """Carry this one on."""
        with self._lock:
            self._carried += 1
        self._jobs.put(exchange)
        self.add_thread()

    def add_thread(self) -> None:
        """See that there are as many threads as exchanges; for the main thread."""
        if len(self._threads) >= self._carried:
            return
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more: try again in a while
            if not self._no_thread:
                self._no_thread = True
                self._log.problem(f"{error}: allow more with ulimit -u, or give fewer --threads")
            return
        self._threads.append(thread)

    def drop(self) -> None:
        """End all who wait, now that the server ends: without a single thread nobody else would."""
        for exchange in self._jobs.drop():
            if exchange is not None:
                self._carry(exchange)

    def end(self) -> None:
        """Let all threads end; those in the middle of a request have been told to."""
        for _ in self._threads:
            self._jobs.put(None)
        patience = Deadline(_JOIN_PATIENCE)
        for thread in self._threads:
            thread.join(patience.remaining())

    def _work(self) -> None:
        """A thread's life: one exchange after the other."""
        while (exchange := self._jobs.get()) is not None:
            self._carry(exchange)
            del exchange  # not kept while there is no other

    def _carry(self, exchange: Exchange) -> None:
        exchange.carry_on()
        with self._lock:
            self._carried -= 1
        self._on_over(exchange)
