"""Accepts connections, lets them wait for a thread, and stops without losing one.

The main thread accepts, and waits for the first byte of each connection, for whoever says
nothing must cost nothing. A connection that has spoken goes to a pool of threads, each of
which answers one request at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from enum import Enum
from queue import SimpleQueue
from time import monotonic

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.connection import Exchange
from simpleipc_cli.server.descriptors import DescriptorLimit
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.limits import DRAIN_SILENCE, Limits
from simpleipc_cli.server.lobby import Lobby
from simpleipc_cli.server.log import Log, Outcome, Record
from simpleipc_cli.server.stages import Stages, Workspace
from simpleipc_cli.transport import (
    READ,
    Listener,
    OutOfDescriptors,
    Stream,
    new_bell,
    new_wide_poller,
)

_PATH_CHECK = 0.4  # seconds between looks at the path: twice within the promised second
_NO_ROOM_PAUSE = 0.1  # seconds before accepting is tried again without descriptors, at will
_ACCEPT_AT_ONCE = 256  # connections accepted before others get their turn, at will
_DESCRIPTORS_A_REQUEST = 6  # both ends of two pipes, pidfd and spool, the connection apart
_DESCRIPTORS_OF_OURS = 24  # standard streams, listener, poller, bell, latches, and some air
LEAST_DESCRIPTORS = _DESCRIPTORS_OF_OURS + _DESCRIPTORS_A_REQUEST + 2
"""How many descriptors a server must be allowed at least."""

_YOUNG = 0.1  # seconds in which a connection's first byte may be on its way, at will
_JOIN_PATIENCE = 5.0  # seconds for threads that are to end at once, at will


class Ending(Enum):
    """Why the server has ended, and how well."""

    DRAINED = "everything was answered"
    UNFINISHED = "requests were ended before they were answered"
    LOST = "the path was taken away or replaced"


class Server:
    """Serves one listener until told to stop."""

    def __init__(
        self,
        listener: Listener,
        path: str,
        *,
        handler: Handler,
        limits: Limits,
        log: Log,
        descriptors: DescriptorLimit,
        watch: Callable[[Stream, str], Stream] | None = None,
    ) -> None:
        """Takes over the listener; `path` is its absolute path. Raises OSError.

        `watch` may put something between a connection and its exchange, for people who want to
        see; it is told the request's id, and may not raise.
        """
        self._listener = listener
        self._path = path
        self._handler = handler
        self._limits = limits
        self._log = log
        self._descriptors = descriptors
        self._watch = watch

        self._bell = new_bell()
        self._stages = Stages()
        self._poller = new_wide_poller()
        self._poller.watch(self._bell.fileno(), READ)
        self._poller.watch(self._listener.fileno(), READ)

        self._lobby = Lobby(self._poller)
        self._spoken: SimpleQueue[tuple[Stream, str] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unanswered = 0  # connections that have spoken and are not done, under the lock
        self._requests = 0

        self.signals = 0
        """How often stop() was called."""
        self._stopping = False  # somebody or something has asked for it
        self._accepting = True  # no stop has begun
        self._queue_open = True  # somebody may still wait in the kernel's queue
        self._paused_until: float | None = None  # no room: accept nobody before this
        self._short = False  # there is no room, and it has been said
        self._no_thread = False  # the system has no threads, and it has been said
        self._path_checked = monotonic()
        self._drain_deadline = Deadline(None)
        self._ending = Ending.DRAINED

    def stop(self) -> None:
        """Begin to stop; called again, stop at once. From any thread or signal handler."""
        self.signals += 1
        self._stopping = True
        if self.signals > 1:
            self._stages.hurry.set()  # here, too: the end of the handler may be waited for
        self._bell.ring()

    def run(self) -> Ending:
        """Serve until stopped, and until everybody has been answered."""
        try:
            self._handler.begin()
            while not self._is_done():
                self._turn()
        finally:
            self._end()
        return self._ending

    def close(self) -> None:
        """Free what is left. stop() must not be called any more."""
        if not any(thread.is_alive() for thread in self._threads):
            self._bell.close()
            self._stages.close()

    def _is_done(self) -> bool:
        return not self._queue_open and not self._unanswered and not self._lobby

    def _turn(self) -> None:
        """Wait for something, and see to it."""
        for descriptor, _ in self._poller.wait(self._pause()):
            if descriptor == self._bell.fileno():
                self._bell.quiet()
            elif descriptor in self._lobby:
                self._on_silent(descriptor)
            elif self._accepting:
                self._accept(_ACCEPT_AT_ONCE)
        self._add_thread()
        if self._accepting:
            self._resume()
            self._check_path()
            if self._stopping:
                self._begin_drain()
        if not self._accepting:
            self._drain()

    def _pause(self) -> float | None:
        """How long nothing may happen before we look at the path or at the time."""
        now = monotonic()
        ends = [self._drain_deadline.remaining()]
        if self._accepting:
            ends.append(_PATH_CHECK)
        if self._paused_until is not None:
            ends.append(max(0.0, self._paused_until - now))
        elif self._queue_open and not self._accepting:
            return 0.0
        if self._unanswered and not self._threads:
            ends.append(_PATH_CHECK)  # by then there may be a thread to be had
        longest = self._lobby.longest()
        if longest is not None and not self._accepting:
            ends.append(max(0.0, longest[1] + DRAIN_SILENCE - now))
        return min((end for end in ends if end is not None), default=None)

    # -- accepting -------------------------------------------------------------------------

    def _accept(self, most: int) -> bool:
        """Accept those who wait, `most` at once; True if nobody is left."""
        for _ in range(most):
            try:
                stream = self._listener.accept()
            except BlockingIOError:
                return True
            except OutOfDescriptors:
                self._make_room(None)
                self._pause_accepting()
                return False
            except SipcError as error:
                self._log.problem(error.text)
                self._pause_accepting()
                return False
            if not self._has_spoken(stream):
                self._lobby.enter(stream, monotonic())
            while self._is_over():
                if not self._make_room(stream):
                    self._pause_accepting()
                    return False
        return False

    def _has_spoken(self, stream: Stream) -> bool:
        """Whether a connection is no longer silent: it was dispatched, or has gone."""
        try:
            spoken = stream.peek_now()
        except BlockingIOError:
            return False
        if spoken:
            self._dispatch(stream)
        else:
            self._log.detail("somebody looked: connected, and closed without a byte")
            stream.close()
        return True

    def _on_silent(self, descriptor: int) -> None:
        if self._is_silent(self._lobby.stream(descriptor)):
            return  # a false alarm
        self._has_spoken(self._lobby.leave(descriptor))

    @staticmethod
    def _is_silent(stream: Stream) -> bool:
        try:
            stream.peek_now()
        except BlockingIOError:
            return True
        return False

    def _is_over(self, more: int = 0) -> bool:
        """Whether connections, and `more`, take what the threads need for their handlers."""
        running = min(self._limits.threads, self._unanswered + 1)
        taken = len(self._lobby) + self._unanswered + more + running * _DESCRIPTORS_A_REQUEST
        taken += self._handler.descriptors()
        return taken > self._descriptors.current - _DESCRIPTORS_OF_OURS

    def _make_room(self, newest: Stream | None) -> bool:
        """See that one more can be accepted; False if that must wait.

        The longest silent connection is closed, but not the newest, nor one so young that
        its first byte may be on its way.
        """
        if self._descriptors.raise_to_most():
            return True
        if not self._short:
            self._short = True
            self._log.problem(
                "descriptors run short: silent connections are closed, others wait: "
                "allow more with ulimit -n"
            )
        longest = self._lobby.longest()
        if longest is None:
            return False
        stream, since = longest
        if stream is newest or monotonic() < since + _YOUNG:
            return False
        self._lobby.leave(stream.fileno())
        if not self._has_spoken(stream):
            stream.close()
        return True

    def _pause_accepting(self) -> None:
        self._paused_until = monotonic() + _NO_ROOM_PAUSE
        if self._accepting:
            self._poller.watch(self._listener.fileno(), 0)

    def _resume(self) -> None:
        """Accept again, if that was paused and there may be room by now."""
        if self._paused_until is None or monotonic() < self._paused_until:
            return
        if self._is_over(more=1) and not self._lobby:
            self._pause_accepting()  # until a request ends, which rings the bell
            return
        self._paused_until = None
        self._poller.watch(self._listener.fileno(), READ)
        if not self._is_over(more=1):
            self._short = False

    def _dispatch(self, stream: Stream) -> None:
        """Let a connection that has spoken wait for a thread."""
        self._requests += 1
        with self._lock:
            self._unanswered += 1
        request_id = f"{os.getpid()}-{self._requests}"
        if self._watch is not None:
            stream = self._watch(stream, request_id)
        self._spoken.put((stream, request_id))
        self._add_thread()
        if self._requests == self._limits.count:
            self._stopping = True

    def _add_thread(self) -> None:
        """See that there are as many threads as there is work for, up to the limit."""
        if len(self._threads) >= min(self._unanswered, self._limits.threads):
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

    # -- answering -------------------------------------------------------------------------

    def _work(self) -> None:
        """A thread's life: one request after the other."""
        workspace = Workspace()
        while (job := self._spoken.get()) is not None:
            record = self._answer(*job, workspace)
            with self._lock:
                self._unanswered -= 1
            self._log.request(record)
            if self._paused_until is not None or not self._accepting:
                self._bell.ring()

    def _answer(self, stream: Stream, request_id: str, workspace: Workspace) -> Record:
        """Answer one request; a defect of ours ends that request, and not the server."""
        record = Record(request_id, stream.peer())
        try:
            exchange = Exchange(
                stream,
                Request(request_id, self._path, record.peer),
                handler=self._handler,
                limits=self._limits,
                stages=self._stages,
                workspace=workspace,
            )
            return exchange.answer()
        except Exception as error:  # whatever it is, others must still be answered
            stream.close()
            record.outcome, record.detail = Outcome.BROKEN, repr(error)
            return record

    # -- stopping --------------------------------------------------------------------------

    def _check_path(self) -> None:
        now = monotonic()
        if now < self._path_checked + _PATH_CHECK:
            return
        self._path_checked = now
        if not self._listener.is_ours():
            self._ending = Ending.LOST
            self._stopping = True

    def _begin_drain(self) -> None:
        """Nobody new, but all that had connected, those in the kernel's queue included."""
        self._log.detail("stopping: answering everybody who has connected")
        self._accepting = False
        self._drain_deadline = Deadline(self._limits.drain_timeout)
        self._poller.forget(self._listener.fileno())
        self._listener.withdraw()
        self._stages.drain.set()
        self._lobby.start_again(monotonic())

    def _drain(self) -> None:
        """Empty the queue, close who stays silent, end all when time is up or somebody insists."""
        now = monotonic()
        if self._queue_open and (self._paused_until is None or now >= self._paused_until):
            self._paused_until = None
            if self._is_over(more=1) and not self._lobby:
                self._pause_accepting()  # until a request ends, which rings the bell
            elif self._accept(_ACCEPT_AT_ONCE):
                self._close_queue()
        self._lobby.hang_up(silent_since=now - DRAIN_SILENCE)
        if self.signals > 1:
            self._stages.hurry.set()
        if self.signals > 1 or self._drain_deadline.passed():
            self._give_up()

    def _close_queue(self) -> None:
        self._queue_open = False
        self._paused_until = None
        self._listener.close()

    def _give_up(self) -> None:
        """End what goes on; what waits for a thread is ended when it gets one."""
        if self._stages.end.is_set():
            return
        if self._unanswered:
            self._ending = Ending.UNFINISHED
        self._stages.end.set()
        self._drain_deadline = Deadline(None)
        if self._queue_open:
            self._close_queue()
        self._lobby.hang_up()
        if not self._threads:
            self._drop_spoken()

    def _drop_spoken(self) -> None:
        """Without a single thread nobody else would ever hang up on who waits for one."""
        while not self._spoken.empty():
            if (job := self._spoken.get()) is not None:
                job[0].close()
                with self._lock:
                    self._unanswered -= 1

    def _end(self) -> None:
        """Nothing of ours is left, however we came here."""
        if self._accepting:
            self._listener.withdraw()
        if self._queue_open:
            self._close_queue()
        if self._unanswered:
            self._stages.end.set()
            self._stages.hurry.set()
        for _ in self._threads:
            self._spoken.put(None)
        patience = Deadline(_JOIN_PATIENCE)
        for thread in self._threads:
            thread.join(patience.remaining())
        self._handler.end(self._limits.kill_after, self._stages.hurry)
        self._lobby.hang_up()
        self._poller.close()
