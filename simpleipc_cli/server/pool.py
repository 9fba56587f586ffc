"""A server from its first connection to its last answer: serves, and stops without losing one.

The main thread accepts, and waits for the first byte of each connection, for whoever says
nothing must cost nothing. A connection that has spoken is answered at the desk: by the main
thread, too, or by one of a crew if that might take long.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from time import monotonic

from simpleipc_cli.deadline import NEVER, Deadline
from simpleipc_cli.server.counters import Counters
from simpleipc_cli.server.descriptors import DescriptorLimit
from simpleipc_cli.server.desk import Desk
from simpleipc_cli.server.entrance import Entrance
from simpleipc_cli.server.handler import Handler
from simpleipc_cli.server.limits import DRAIN_SILENCE, Limits
from simpleipc_cli.server.log import Log, Record
from simpleipc_cli.server.notify import Notifier
from simpleipc_cli.server.stages import Stages
from simpleipc_cli.transport import READ, Listener, Stream, new_bell, new_wide_poller

_CHORES_PAUSE = 0.02  # seconds between looks at everything while much happens, at will
_FINEST = 0.01  # seconds; for how short a time waiting is worth while, at will
_PATH_CHECK = 0.4  # seconds between looks at the path: twice within the promised second


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
        notifier: Notifier | None = None,
    ) -> None:
        """Takes over the listener; `path` is its absolute path. Raises OSError.

        `watch` may put something between a connection and its exchange, for people who want to
        see; it is told the request's id, and may not raise. `notifier` hears when the stop
        begins, and in time that the server is well.
        """
        self._listener = listener
        self._handler = handler
        self._limits = limits
        self._log = log
        self._notifier = notifier or Notifier()

        self._bell = new_bell()
        self._stages = Stages()
        self._poller = new_wide_poller()
        self._poller.register(self._bell.fileno(), READ)
        counters = Counters()
        self._desk = Desk(
            path,
            self._poller,
            handler=handler,
            limits=limits,
            log=log,
            counters=counters,
            stages=self._stages,
            watch=watch,
            on_done=self._on_done,
        )
        self._entrance = Entrance(
            listener,
            self._poller,
            limits=limits,
            log=log,
            counters=counters,
            descriptors=descriptors,
            unanswered=lambda: self._desk.unanswered,
            reserved=handler.descriptors,
            admit=self._admit,
        )
        self._counters = counters

        self.signals = 0
        """How often stop() was called."""
        self._stopping = False  # somebody or something has asked for it
        self._accepting = True  # no stop has begun
        self._report_due = False
        self._renewal_due = False
        self._path_checked = monotonic()
        self._drain_deadline = Deadline(None)
        self._chores_due = 0.0
        self._ending = Ending.DRAINED

    # -- from any thread or signal handler ---------------------------------------------------

    def stop(self) -> None:
        """Begin to stop; called again, stop at once."""
        self.signals += 1
        self._stopping = True
        if self.signals > 1:
            self._stages.hurry.set()  # here, too: the end of the handler may be waited for
        self._bell.ring()

    def report(self) -> None:
        """Write the counters to the log."""
        self._report_due = True
        self._bell.ring()

    def renew(self) -> None:
        """Open the log anew, and let the handler replace what it keeps."""
        self._renewal_due = True
        self._bell.ring()

    # -- the main thread ---------------------------------------------------------------------

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
        if self._desk.crew.is_over:
            self._bell.close()
            self._stages.close()

    def _is_done(self) -> bool:
        entrance = self._entrance
        return not (entrance.is_queue_open or self._desk.unanswered or entrance.silent)

    def _turn(self) -> None:
        """Wait for something, and see to it."""
        for descriptor in self._desk.go_on(self._poller.wait(self._rest())):
            if descriptor == self._bell.fileno():
                self._bell.quiet()
                self._chores_due = 0.0
            else:
                self._entrance.on_ready(descriptor)
                self._chores_due = min(self._chores_due, monotonic() + _CHORES_PAUSE)
        if self._stopping or monotonic() >= self._chores_due:
            self._do_chores()

    def _rest(self) -> float | None:
        """How long to wait if nothing happens; not finely, as that takes a system call more."""
        due = min(self._desk.due, self._chores_due)
        if due == NEVER:
            return None
        left = due - monotonic()
        return max(left, _FINEST) if left > 0 else 0.0

    def _do_chores(self) -> None:
        """What is not to be done for each request: it would take longer than that itself."""
        self._notifier.tick()
        self._desk.crew.add_thread()
        self._see_to_wishes()
        if self._accepting:
            self._entrance.go_on()
            self._check_path()
            self._check_idle()
            if self._stopping:
                self._begin_drain()
        if not self._accepting:
            self._drain()
        pause = self._pause()
        self._chores_due = NEVER if pause is None else monotonic() + pause

    def _pause(self) -> float | None:
        """How long nothing may happen before we look at the path or at the time."""
        ends = [
            self._drain_deadline.remaining(),
            self._notifier.remaining(),
            self._entrance.pause(DRAIN_SILENCE),
        ]
        if self._accepting or self._desk.crew.is_stuck:  # by then there may be a thread to be had
            ends.append(_PATH_CHECK)
        if self._accepting:
            ends.append(self._idle_left())
        return min((end for end in ends if end is not None), default=None)

    def _admit(self, stream: Stream) -> None:
        """A connection has spoken."""
        self._desk.take(stream)
        if self._counters.requests == self._limits.count:
            self._stopping = True

    def _on_done(self, record: Record) -> None:
        """A request has ended; called by any thread."""
        if record.quits:
            self._stopping = True
        wanted = self._desk.wants_to_know or self._entrance.is_paused or not self._accepting
        if record.quits or wanted:
            self._bell.ring()

    def _see_to_wishes(self) -> None:
        if self._renewal_due:
            self._renewal_due = False
            self._log.reopen()
            self._handler.renew()
        if self._report_due:
            self._report_due = False
            figures = self._desk.figures(silent=self._entrance.silent)
            self._log.counters({**figures, **self._handler.counts()})

    def _idle_left(self) -> float | None:
        """Seconds until we have been idle for too long; None while we are not."""
        limit = self._limits.idle_timeout
        if limit is None or (since := self._desk.idle_since()) is None:
            return None
        return max(0.0, since + limit - monotonic())

    def _check_idle(self) -> None:
        if self._idle_left() == 0.0:
            self._log.detail(f"idle for {self._limits.idle_timeout:g} s")
            self._stopping = True

    def _check_path(self) -> None:
        now = monotonic()
        if now < self._path_checked + _PATH_CHECK:
            return
        self._path_checked = now
        if not self._listener.is_ours():
            self._ending = Ending.LOST
            self._stopping = True

    # -- stopping ----------------------------------------------------------------------------

    def _begin_drain(self) -> None:
        """Nobody new, but all that had connected, those in the kernel's queue included."""
        self._log.detail("stopping: answering everybody who has connected")
        self._notifier.stopping("stopping: answering everybody who has connected")
        self._accepting = False
        self._drain_deadline = Deadline(self._limits.drain_timeout)
        self._entrance.begin_drain()
        self._stages.drain.set()
        self._desk.heed_stop()

    def _drain(self) -> None:
        """Empty the queue, close who stays silent, end all when time is up or somebody insists."""
        self._entrance.drain(DRAIN_SILENCE)
        if self.signals > 1:
            self._stages.hurry.set()
        if self.signals > 1 or self._drain_deadline.passed():
            self._give_up()

    def _give_up(self) -> None:
        """End what goes on; what waits for a thread is ended when it gets one."""
        if self._stages.end.is_set():
            return
        if self._desk.unanswered:
            self._ending = Ending.UNFINISHED
        self._stages.end.set()
        self._drain_deadline = Deadline(None)
        self._desk.heed_stop()
        if self._entrance.is_queue_open:
            self._entrance.close_queue()
        self._entrance.hang_up()
        self._desk.drop()
        if self._desk.crew.is_stuck:
            self._desk.crew.drop()

    def _end(self) -> None:
        """Nothing of ours is left, however we came here."""
        if self._entrance.is_queue_open:
            self._entrance.close_queue()
        if self._desk.unanswered:
            self._stop_all()
        self._desk.crew.end()
        self._handler.end(self._limits.kill_after, self._stages.hurry)
        self._entrance.hang_up()
        self._poller.close()

    def _stop_all(self) -> None:
        """After a defect of ours: nobody is waited for. Each stage is heeded behind the other."""
        self._stages.hurry.set()
        for stage in (self._stages.drain, self._stages.end):
            if not stage.is_set():
                stage.set()
                self._desk.heed_stop()
        self._desk.drop()
        if self._desk.crew.is_stuck:
            self._desk.crew.drop()
