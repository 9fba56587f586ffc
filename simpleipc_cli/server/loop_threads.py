"""Runs the event loop of a server whose callbacks run on the event loop's own thread.

To pass a request to another thread costs more than a short callback takes. So the thread that runs
the event loop, the leader, also makes the calls. Another thread, the watcher, becomes the leader
when a call takes longer than a tick; the old leader then only completes that call. So a short
call changes no thread, and a long one delays other requests by about two ticks. (A callback that
computes in Python keeps the interpreter's lock for up to sys.getswitchinterval().)
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread
from time import monotonic, sleep

from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.handler import Call
from simpleipc_cli.system import MAX_WAIT

_TICK = 0.001  # seconds after which a call is long (tunable)
_MAX_CALLING = 0.01  # seconds of short calls in a row, without an event in between (tunable)
_MAX_IDLE_TICKS = 50  # without a call, after which the watcher sleeps until the next (tunable)


class LoopThreads:
    """The threads of one server."""

    def __init__(self, run_once: Callable[[], bool], calls: deque[Call]) -> None:
        """`run_once` runs the event loop once, adds to `calls`, and returns False at its end."""
        self._pid = os.getpid()
        self._run_once = run_once
        self._calls = calls
        self._ended = Event()
        self._failure: BaseException | None = None
        self._wake = Event()
        self._lock = Lock()  # for all that follows
        self._current: Call | None = None  # the leader's
        self._calls_made = 0
        self._has_watcher = False
        self._is_watcher_asleep = False

    def run(self) -> None:
        """Run the event loop to its end, in other threads. Raises what it raises, and SipcError."""
        try:
            Thread(target=self._lead, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            hint = "raise the limits of processes and memory"
            raise SipcError(f"no thread for the event loop: {error}", hint) from error
        while not self._ended.wait(MAX_WAIT):
            pass
        if self._failure is not None:
            raise self._failure

    def _lead(self, on_called: Callable[[], None] | None = None) -> None:
        """Run the event loop until it ends or another thread has become the leader.

        First, `on_called` is called, if any.
        """
        try:
            if on_called is not None:
                on_called()
            while True:
                end = monotonic() + _MAX_CALLING
                while self._calls and monotonic() < end:
                    if not self._make_call(self._calls.popleft()):
                        return
                if not self._run_once():
                    break
        except BaseException as failure:
            self._failure = failure
        self._ended.set()
        self._wake.set()

    def _make_call(self, current: Call) -> bool:
        """Make a call; return False if another thread has become the leader in the meantime."""
        run, on_called = current
        if (call := run.call) is None:  # it has been stopped
            return True
        if not self._has_watcher:
            self._start_watcher()
        with self._lock:
            self._current = current
            self._calls_made += 1
            if self._is_watcher_asleep:
                self._wake.set()
        call()
        if os.getpid() != self._pid:  # a fork of the callback: it must not serve
            os._exit(1)
        with self._lock:
            if self._current is not current:
                return False
            self._current = None
        on_called()
        return True

    def _start_watcher(self) -> None:
        with self._lock:
            if self._has_watcher:
                return
            try:
                Thread(target=self._watch, daemon=True).start()
                self._has_watcher = True
            except (RuntimeError, MemoryError):
                pass  # the next call tries again

    def _watch(self) -> None:
        """Become the leader when a call is long."""
        while not self._ended.is_set():
            if (call := self._take_long_call()) is not None:
                _, on_called = call
                self._lead(on_called)
                return
            self._wake.wait()
            with self._lock:
                self._wake.clear()
                self._is_watcher_asleep = False

    def _take_long_call(self) -> Call | None:
        """Take over from the leader of a long call; return None if there have been no calls."""
        last: Call | None = None
        calls_made = idle_ticks = 0
        while True:
            sleep(_TICK)
            with self._lock:
                current = self._current
                if current is not None and current is last and current[0].make_pollable():
                    self._current = None
                    self._has_watcher = False
                    return current
                last = current
                idle_ticks = idle_ticks + 1 if calls_made == self._calls_made else 0
                calls_made = self._calls_made
                if current is None and idle_ticks > _MAX_IDLE_TICKS:
                    self._is_watcher_asleep = not self._ended.is_set()
                    return None
