"""Wait for events on Windows, where the system reports completed operations, not readiness.

What is polled is a *source*, which has a number, its descriptor. A pipe's source keeps a read
going, so that "readable" means "has been read"; a wakeup event is a flag. One thread of the process
takes all completions from a completion port and notifies the sources, which notify the pollers
where they are registered. So a poller has no limit of sources, while a thread of Windows can wait
for 64 objects only.
"""

from __future__ import annotations

import _thread
from abc import ABC, abstractmethod
from collections import deque
from itertools import count
from math import ceil
from time import monotonic, sleep

from simpleipc_cli.transport.base import HANGUP, READ
from simpleipc_cli.transport.base_polling import Latch, Poller, WakeupEvent
from simpleipc_cli.transport.windows import win32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LONGEST_WAIT = 86400.0  # seconds; a wait's number for milliseconds ends at 49 days
_MAX_SLEEP = 0.5  # seconds; Ctrl-Break, other than Ctrl-C, is seen between two sleeps
_FOR_EVER = 0xFFFFFFFF
_MOMENT = 0.0005  # seconds between looks at an outcome (tunable)
_SHORT, _LONG = 0.1, 30.0  # seconds to wait for it (tunable); see CompletionPort

_numbers = count(1 << 16)  # never those of the C runtime's files, so that a mix-up is seen
_sources: dict[int, Pollable] = {}


class Pollable(ABC):
    """Something to poll. Its methods are called from several threads."""

    def __init__(self) -> None:
        self.descriptor = next(_numbers)
        self._watchers: set[WinPoller] = set()
        _sources[self.descriptor] = self

    @abstractmethod
    def ready(self, wanted: int) -> int:
        """Return the events that are ready. A later change of the wanted ones is notified."""

    def notify(self) -> None:
        """Report a possible change. Takes no lock: a signal handler may call it."""
        for poller in tuple(self._watchers):
            poller.wake(self.descriptor)

    def watched_by(self, poller: WinPoller) -> None:
        self._watchers.add(poller)

    def unwatched_by(self, poller: WinPoller) -> None:
        self._watchers.discard(poller)

    def unregister(self) -> None:
        """Remove the source; its number is never used again."""
        _sources.pop(self.descriptor, None)


def is_hung_up(descriptor: int) -> bool:
    """Return whether the other end has closed the connection."""
    source = _sources.get(descriptor)
    return source is None or bool(source.ready(0) & HANGUP)


class _Event:
    """Wakes up a thread. Closed with its last reference, as it may be set until then."""

    def __init__(self) -> None:
        self.handle: int = win32.overlapped.CreateEvent(None, False, False, None)

    def set(self) -> None:
        win32.overlapped.SetEvent(self.handle)

    def __del__(self) -> None:
        win32.api.CloseHandle(self.handle)


class WinPoller(Poller):
    """Polls sources. Used by one thread at a time, woken by any."""

    def __init__(self) -> None:
        """Costs nothing before it first has to wait."""
        self._wanted: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._news: deque[int] = deque()  # notified, not looked at yet; append() is atomic
        self._hot: set[int] = set()  # sources that may be ready
        self._asleep = False
        self._event: _Event | None = None

    def wake(self, descriptor: int) -> None:
        """Note that a source may be ready. For any thread."""
        self._news.append(descriptor)
        event = self._event
        if self._asleep and event is not None:
            event.set()

    def register(
        self, descriptor: int, events: int, callback: Callable[[int], object] | None = None
    ) -> None:
        if callback is not None:
            self._callbacks[descriptor] = callback
        if self._wanted.get(descriptor) != events:
            self._wanted[descriptor] = events
            _sources[descriptor].watched_by(self)
            self._hot.add(descriptor)

    def unregister(self, descriptor: int) -> None:
        if self._wanted.pop(descriptor, None) is not None:
            self._callbacks.pop(descriptor, None)
            self._hot.discard(descriptor)
            source = _sources.get(descriptor)
            if source is not None:
                source.unwatched_by(self)

    def discard(self, descriptor: int) -> None:
        self.unregister(descriptor)

    def dispatch(self, timeout: float | None) -> None:
        callbacks = self._callbacks
        ready = [(number, events, callbacks.get(number)) for number, events in self.wait(timeout)]
        for number, events, callback in ready:
            if callback is not None and callbacks.get(number) is callback:
                callback(events)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        found = self._look()
        if found or timeout == 0:
            return found
        end = monotonic() + (_LONGEST_WAIT if timeout is None else min(timeout, _LONGEST_WAIT))
        event = self._event = self._event or _Event()
        self._asleep = True  # before the look: a later notification sets the event
        try:
            while not (found := self._look()) and (left := end - monotonic()) > 0:
                # In the main thread Ctrl-C ends this wait; it would not WaitForSingleObject.
                millis = ceil(min(left, _MAX_SLEEP) * 1000)
                win32.api.WaitForMultipleObjects([event.handle], False, millis)
        except InterruptedError:  # Ctrl-C, in the main thread: return, so that its handler runs
            pass
        finally:
            self._asleep = False
        return found

    def _look(self) -> list[tuple[int, int]]:
        """Return the sources that are ready, of those that may be."""
        hot = self._hot
        while self._news:
            hot.add(self._news.popleft())
        found = []
        for descriptor in tuple(hot):
            source, wanted = _sources.get(descriptor), self._wanted.get(descriptor)
            flags = 0
            if source is not None and wanted is not None:
                flags = source.ready(wanted) & (wanted | HANGUP)
            if flags:
                found.append((descriptor, flags))
            else:
                hot.discard(descriptor)
        return found

    def close(self) -> None:
        for descriptor in tuple(self._wanted):
            self.unregister(descriptor)
        self._event = None


class WinWakeupEvent(WakeupEvent, Pollable):
    """A flag."""

    def __init__(self) -> None:
        super().__init__()
        self._is_set = False

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - changes are notified anyway
        return READ if self._is_set else 0

    def fileno(self) -> int:
        return self.descriptor

    def set(self) -> None:
        self._is_set = True
        self.notify()

    def clear(self) -> None:
        self._is_set = False

    def close(self) -> None:
        self.unregister()


class WinLatch(Latch, Pollable):
    """A flag that is never taken back."""

    def __init__(self) -> None:
        super().__init__()
        self._set = False

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - changes are notified anyway
        return HANGUP if self._set else 0

    def fileno(self) -> int:
        return self.descriptor

    def set(self) -> None:
        self._set = True
        self.notify()

    def is_set(self) -> bool:
        return self._set

    def close(self) -> None:
        self._set = True
        self.unregister()


class CompletionPort:
    """The process's completion port, and the thread that empties it."""

    def __init__(self) -> None:
        """Starts the thread. Raises OSError."""
        native = win32.overlapped
        self._port = native.CreateIoCompletionPort(native.INVALID_HANDLE_VALUE, 0, 0, 1)
        self._lock = _thread.allocate_lock()
        # By address. Kept until they are done: the system writes into them.
        self._going: dict[int, tuple[Any, Callable[[Any], None]]] = {}
        self._unwritten: list[Any] = []
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise OSError(0, str(error)) from None

    def attach(self, handle: int) -> None:
        """What is done on this handle is told here. Raises OSError."""
        win32.overlapped.CreateIoCompletionPort(handle, self._port, 0, 0)

    def start(self, begin: Callable[[Any], object], done: Callable[[Any], None]) -> Any:
        """Begin an operation, by handing `begin` what stands for it, which is returned.

        `done` is called with it, from the port's thread. Raises what `begin` does: then, and
        if that returns True, the operation is over, and `done` will not be called.
        """
        operation = win32.overlapped.Overlapped(0)
        with self._lock:  # the thread must not see its end before it is known
            if begin(operation) is not True:
                self._going[operation.address] = operation, done
        return operation

    def wait_for(self, process: int, done: Callable[[Any], None]) -> int:
        """Call `done` once a process has ended; the number is for Windows to end the wait with."""
        waits = []

        def begin(operation: Any) -> None:
            waits.append(
                win32.overlapped.RegisterWaitWithQueue(
                    process, self._port, operation.address, _FOR_EVER
                )
            )

        self.start(begin, done)
        return int(waits[0])

    def _run(self) -> None:
        while True:
            found = win32.overlapped.GetQueuedCompletionStatus(self._port, _FOR_EVER)
            if found is None:
                continue
            with self._lock:
                operation, done = self._going.pop(found[3], (None, None))
            if done is not None:
                error, size = found[:2]
                self._wait_until_written(operation, _LONG if size and not error else _SHORT)
                done(operation)

    def _wait_until_written(self, operation: Any, patience: float) -> None:
        """See that the outcome is in its place.

        Wine tells a moment before that: the thread that began it has to write it down, and with
        it the bytes that were read, which takes as long as that gets no processor. They must
        not be taken for the end of what comes. What was cancelled because its thread was just
        ending may never be written down: that is "pending" for ever.
        """
        end = monotonic() + patience
        while operation.pending:
            if monotonic() >= end:
                self._unwritten.append(operation)  # should it be written yet: the memory is there
                return
            sleep(_MOMENT)


_port: CompletionPort | None = None
_making = _thread.allocate_lock()


def completion_port() -> CompletionPort:
    """The port, made when it is first needed. Raises OSError."""
    global _port  # noqa: PLW0603 - one a process: each costs a thread
    with _making:
        if _port is None:
            _port = CompletionPort()
        return _port
