"""Wait for events on Windows, where the system reports completed operations, not readiness.

A poller polls *pollables*. Each has a number, its descriptor. The pollable of a pipe keeps a read
pending: it is readable when the read has completed. A wakeup event is a flag. One thread of the
process takes all completions from a completion port and notifies the pollables; these notify their
pollers. So the number of pollables has no limit, while a Windows thread can wait for only 64
objects.
"""

from __future__ import annotations

import _thread
import os
from abc import ABC, abstractmethod
from collections import deque
from itertools import count
from math import ceil
from time import monotonic, sleep

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport.base import HANGUP, READ, WRITE
from simpleipc_cli.transport.base_server import FileReader, FileWriter, Poller, WakeupEvent
from simpleipc_cli.transport.windows import win32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue
    from typing import Any

    _Call = tuple[Callable[..., object], object]

_MAX_TIMEOUT = 86400.0  # seconds; the system's limit is 49 days (32 bits of milliseconds)
_MAX_SLEEP = 0.5  # seconds; unlike Ctrl-C, Ctrl-Break does not interrupt a wait
_INFINITE = 0xFFFFFFFF
# Seconds to wait for the result of an operation without data, and of one with data; seconds between
# two checks of the result (tunable).
_OUTCOME_TIMEOUT, _DATA_TIMEOUT, _POLL_INTERVAL = 0.1, 30.0, 0.0005

_CHUNK = 64 * 1024  # bytes per read or write (tunable)
_WRITE_TIMEOUT = 0.2  # seconds to wait for a fast reader after a write (tunable)

_numbers = count(1 << 16)  # differ from the C runtime's file numbers, to detect errors
_pollables: dict[int, Pollable] = {}


class Pollable(ABC):
    """An object that pollers can poll. Several threads call its methods."""

    def __init__(self) -> None:
        self.descriptor = next(_numbers)
        self.pollers: set[WinPoller] = set()
        _pollables[self.descriptor] = self

    def fileno(self) -> int:
        return self.descriptor

    @abstractmethod
    def ready(self, wanted: int) -> int:
        """Return the ready events. When an event in `wanted` changes later, notify() is called."""

    def notify(self) -> None:
        """Report a possible change to the pollers. Takes no lock: a signal handler may call it."""
        for poller in tuple(self.pollers):
            poller.wake(self.descriptor)

    def unregister(self) -> None:
        """Remove the pollable from all pollers. Its number is never reused."""
        _pollables.pop(self.descriptor, None)


def is_hung_up(descriptor: int) -> bool:
    """Return whether the other end has closed the connection."""
    pollable = _pollables.get(descriptor)
    return pollable is None or bool(pollable.ready(0) & HANGUP)


class _Event:
    """A Windows event object. Closed with its last reference, as other threads may set it."""

    def __init__(self) -> None:
        self.handle: int = win32.overlapped.CreateEvent(None, False, False, None)

    def __del__(self) -> None:
        win32.api.CloseHandle(self.handle)


class WinPoller(Poller):
    """Polls any number of pollables."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._notified: deque[int] = deque()  # to poll at the next wait(); append() is atomic
        self._maybe_ready: set[int] = set()
        self._is_waiting = False
        self._event: _Event | None = None

    def wake(self, descriptor: int) -> None:
        """Record that a pollable may be ready. Any thread may call this."""
        self._notified.append(descriptor)
        event = self._event
        if self._is_waiting and event is not None:
            win32.overlapped.SetEvent(event.handle)

    def register(
        self, descriptor: int, events: int, callback: Callable[[int], object] | None = None
    ) -> None:
        if callback is not None:
            self._callbacks[descriptor] = callback
        if self._wanted.get(descriptor) != events:
            self._wanted[descriptor] = events
            _pollables[descriptor].pollers.add(self)
            self._maybe_ready.add(descriptor)

    def unregister(self, descriptor: int) -> None:
        if self._wanted.pop(descriptor, None) is not None:
            self._callbacks.pop(descriptor, None)
            self._maybe_ready.discard(descriptor)
            pollable = _pollables.get(descriptor)
            if pollable is not None:
                pollable.pollers.discard(self)

    def discard(self, descriptor: int) -> None:
        self.unregister(descriptor)

    def dispatch(self, timeout: float | None) -> None:
        callbacks = self._callbacks
        ready = [(number, events, callbacks.get(number)) for number, events in self.wait(timeout)]
        for number, events, callback in ready:
            if callback is not None and callbacks.get(number) is callback:
                callback(events)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        found = self._ready_events()
        if found or timeout == 0:
            return found
        end = monotonic() + (_MAX_TIMEOUT if timeout is None else min(timeout, _MAX_TIMEOUT))
        event = self._event = self._event or _Event()
        self._is_waiting = True  # before polling: a later notification sets the event
        try:
            while not (found := self._ready_events()) and (left := end - monotonic()) > 0:
                # In the main thread Ctrl-C interrupts this call, but not WaitForSingleObject.
                millis = ceil(min(left, _MAX_SLEEP) * 1000)
                win32.api.WaitForMultipleObjects([event.handle], False, millis)
        except InterruptedError:  # Ctrl-C, in the main thread: return, so that its handler runs
            pass
        finally:
            self._is_waiting = False
        return found

    def _ready_events(self) -> list[tuple[int, int]]:
        """Poll the descriptors that may be ready."""
        maybe_ready = self._maybe_ready
        while self._notified:
            maybe_ready.add(self._notified.popleft())
        found = []
        for descriptor in tuple(maybe_ready):
            pollable, wanted = _pollables.get(descriptor), self._wanted.get(descriptor)
            flags = 0
            if pollable is not None and wanted is not None:
                flags = pollable.ready(wanted) & (wanted | HANGUP)
            if flags:
                found.append((descriptor, flags))
            else:
                maybe_ready.discard(descriptor)
        return found

    def close(self) -> None:
        for descriptor in tuple(self._wanted):
            self.unregister(descriptor)
        self._event = None


new_poller = new_scalable_poller = WinPoller


class WinWakeupEvent(Pollable, WakeupEvent):
    """A flag that pollers can poll."""

    def __init__(self) -> None:
        super().__init__()
        self._is_set = False

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - every change calls notify()
        return READ if self._is_set else 0

    def set(self) -> None:
        self._is_set = True
        self.notify()

    def is_set(self) -> bool:
        return self._is_set

    def clear(self) -> None:
        self._is_set = False

    def close(self) -> None:
        self.unregister()


class ThreadedFile(Pollable):
    """A file with a thread that makes one read or write call at a time.

    On Windows, a standard stream is mostly a pipe: the system does not report whether a write would
    block, and a blocked read cannot be interrupted. The thread does not keep the process running.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._file = descriptor
        self._calls: SimpleQueue[_Call] | None = None  # once it has a thread
        self._busy = _thread.allocate_lock()  # held while a call runs
        self._outcome: Any = None  # the last call's result, or its OSError

    def _start(self, function: Callable[..., object], argument: object) -> None:
        """Start `function(descriptor, argument)`. The file must be idle, its last outcome taken.

        Raises SipcError.
        """
        if self._calls is None:
            from queue import SimpleQueue  # noqa: PLC0415 - the fast path does not need it

            calls: SimpleQueue[_Call] = SimpleQueue()
            try:
                _thread.start_new_thread(self._run, (calls,))
            except RuntimeError as error:
                raise SipcError(f"cannot wait for a file: {error}", "close some programs") from None
            self._calls = calls
        self._busy.acquire()
        self._calls.put((function, argument))

    def _run(self, calls: SimpleQueue[_Call]) -> None:
        while True:
            function, argument = calls.get()
            try:
                self._outcome = function(self._file, argument)
            except OSError as error:
                self._outcome = error
            self._busy.release()
            self.notify()

    @property
    def _is_idle(self) -> bool:
        return not self._busy.locked()

    def _take_outcome(self) -> Any:
        """Return the outcome of the last call, once, then None. Raises OSError."""
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, OSError):
            raise outcome
        return outcome


class WinFileReader(ThreadedFile, FileReader):
    """Reads a file in a thread; pollers can poll it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._left = b""

    def ready(self, wanted: int) -> int:
        if self._left or (self._is_idle and self._outcome is not None):
            return READ
        if wanted & READ and self._is_idle:
            self._start(os.read, _CHUNK)
        return 0

    def read_nowait(self, limit: int) -> bytes:
        if not self._left:
            found: bytes | None = self._take_outcome() if self._is_idle else None
            if found is None:
                raise BlockingIOError
            self._left = found
        data, self._left = self._left[:limit], self._left[limit:]
        return data


class WinFileWriter(ThreadedFile, FileWriter):
    """Writes to a file in a thread; pollers can poll it."""

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - every change calls notify()
        return WRITE if self._is_idle else 0

    def write_nowait(self, payload: memoryview) -> int:
        """Write; wait for a short time, in case the reader is fast."""
        written = 0
        while self._is_idle:
            written += self._take_outcome() or 0
            if written == len(payload):
                break
            piece = bytes(payload[written : written + _CHUNK])
            self._start(os.write, piece)
            if self._busy.acquire(timeout=_WRITE_TIMEOUT):
                self._busy.release()
        return written


class CompletionPort:
    """The process's completion port, and the thread that takes completions from it."""

    def __init__(self) -> None:
        """Raises OSError."""
        native = win32.overlapped
        self._port = native.CreateIoCompletionPort(native.INVALID_HANDLE_VALUE, 0, 0, 1)
        self._lock = _thread.allocate_lock()
        # Operations by address. Kept until they are complete: the system writes into them.
        self._pending: dict[int, tuple[Any, Callable[[Any], None]]] = {}
        self._without_outcome: list[Any] = []
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise OSError(0, str(error)) from None

    def attach(self, handle: int) -> None:
        """Receive the completions of a handle's operations. Raises OSError."""
        win32.overlapped.CreateIoCompletionPort(handle, self._port, 0, 0)

    def start(self, begin: Callable[[Any], object], on_done: Callable[[Any], None]) -> Any:
        """Create an operation, start it by `begin(operation)`, and return it.

        The port's thread then calls `on_done(operation)`, unless `begin` returns True or raises an
        exception: these mean that the operation has ended.
        """
        operation = win32.overlapped.Overlapped(0)
        with self._lock:  # the thread must not see the completion before the entry is made
            if begin(operation) is not True:
                self._pending[operation.address] = operation, on_done
        return operation

    def wait_for(self, process: int, on_exit: Callable[[Any], None]) -> int:
        """Call `on_exit` when a process has exited; return a handle for UnregisterWait()."""
        waits = []

        def begin(operation: Any) -> None:
            waits.append(
                win32.overlapped.RegisterWaitWithQueue(
                    process, self._port, operation.address, _INFINITE
                )
            )

        self.start(begin, on_exit)
        return int(waits[0])

    def _run(self) -> None:
        while True:
            found = win32.overlapped.GetQueuedCompletionStatus(self._port, _INFINITE)
            if found is None:
                continue
            with self._lock:
                operation, on_done = self._pending.pop(found[3], (None, None))
            if on_done is not None:
                error, size = found[:2]
                has_data = size and not error
                self._wait_for_outcome(operation, _DATA_TIMEOUT if has_data else _OUTCOME_TIMEOUT)
                on_done(operation)

    def _wait_for_outcome(self, operation: Any, timeout: float) -> None:
        """Wait until an operation is no longer pending.

        Wine reports a completion before it has stored the result and the data that was read.
        Without the wait, a read would seem to return the end of the stream. If an operation was
        cancelled because its thread exited, Wine may never store the result.
        """
        end = monotonic() + timeout
        while operation.pending:
            if monotonic() >= end:
                self._without_outcome.append(operation)  # the system may still write into it
                return
            sleep(_POLL_INTERVAL)


_port: CompletionPort | None = None
_port_lock = _thread.allocate_lock()


def completion_port() -> CompletionPort:
    """Return the process's completion port, created at first use. Raises OSError."""
    global _port  # noqa: PLW0603 - each port needs a thread
    with _port_lock:
        if _port is None:
            _port = CompletionPort()
        return _port
