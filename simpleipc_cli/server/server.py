"""The server: its event loop and its shutdown.

The main thread accepts connections and runs exchanges. The threads communicate through a wakeup
event, the shutdown events, and the queue of the worker threads.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from threading import Lock
from time import monotonic

from simpleipc_cli.deadline import NEVER, Deadline
from simpleipc_cli.server.acceptor import Acceptor
from simpleipc_cli.server.context import Counters, Log, ServerConfig, ServerContext
from simpleipc_cli.server.dispatcher import Dispatcher
from simpleipc_cli.server.handler import Handler
from simpleipc_cli.server.loop_threads import LoopThreads
from simpleipc_cli.server.systemd import Notifier
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import READ, Listener, Stream, new_wakeup_event

_MIN_TIMEOUT = 0.01  # seconds; a shorter wait needs one more system call (tunable)
_KILL_TIMEOUT = 0.5  # seconds to wait for threads after the second stop() (tunable)
_PATH_CHECK = 0.4  # seconds between checks of the path; a loss is noticed within a second


class ExitReason(Enum):
    """Why the server has ended."""

    COMPLETED = "all requests were answered"
    ABORTED = "requests were ended before they were answered"
    PATH_LOST = "the path was removed or replaced"


class Server:
    """Serves one listener until it is stopped."""

    def __init__(
        self,
        listener: Listener,
        *,
        handler: Handler,
        config: ServerConfig,
        log: Log,
        descriptors: DescriptorLimit,
        observe: Callable[[Stream, str], Stream] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        """Own the listener. Raises OSError.

        `observe` may wrap each connection; it also gets the request's id, and must not raise.
        `notifier` reports the shutdown and watchdog messages to the service manager.
        """
        self._listener = listener
        self._config = config
        self._log = log
        self._notifier = notifier or Notifier({})
        self._wakeup = new_wakeup_event()
        self._context = ServerContext(handler, config, log, observe)
        handler.on_unstuck = self._wakeup.set
        self._shutdown = self._context.shutdown
        self._poller = self._context.poller
        self._poller.register(self._wakeup.fileno(), READ, self._on_wakeup)
        self._dispatcher = Dispatcher(self._context, self._on_done)
        self._descriptors = descriptors
        self._acceptor = Acceptor(listener, self._context, self._dispatcher, descriptors)

        self._may_drain = Lock()  # the first stop() acquires it and never releases it
        self.must_abort = False
        """Whether stop() was called twice."""
        self._kill_deadline = self._abort_deadline = NEVER  # when to stop waiting for threads
        self._is_accepting = True  # until the shutdown begins
        self._stats_requested = False
        self._reload_requested = False
        self._path_checked = monotonic()
        self._drain_deadline = Deadline(None)
        self._housekeeping_due = 0.0
        self._exit_reason = ExitReason.COMPLETED

    # -- from any thread or signal handler -------------------------------------------------

    def stop(self) -> None:
        """Start the shutdown; the second call aborts all requests."""
        self._shutdown.is_requested = True
        if not self._may_drain.acquire(blocking=False) and not self.must_abort:
            self.must_abort = True
            self._kill_deadline = monotonic() + _KILL_TIMEOUT
            if self._dispatcher.unanswered:  # check before killing handlers ends their requests
                self._exit_reason = ExitReason.ABORTED
            self._shutdown.killing.set()  # now, as the main thread may wait for a handler
        self._wakeup.set()

    def log_stats(self) -> None:
        """Write the counters to the log."""
        self._stats_requested = True
        self._wakeup.set()

    def reload(self) -> None:
        """Reopen the log, and make the handler replace its processes."""
        self._reload_requested = True
        self._wakeup.set()

    # -- the main thread -------------------------------------------------------------------

    def run(self) -> ExitReason:
        """Serve until stopped and until all requests have ended."""
        try:
            self._context.handler.start(self._poller, self._wakeup.set)
            if self._context.handler.has_calls:
                LoopThreads(self.run_once, self._context.calls).run()
            else:
                while self.run_once():
                    pass
        finally:
            self._end()
        return self._exit_reason

    def run_once(self) -> bool:
        """Wait for events and call their owners, then do what is due; return False at the end."""
        acceptor, dispatcher = self._acceptor, self._dispatcher
        if not (acceptor.is_open or dispatcher.unanswered or acceptor.idle):
            return False
        due = min(dispatcher.due, self._housekeeping_due, acceptor.retry_at, acceptor.refused_due)
        timeout = None
        if due != NEVER:
            timeout = due - monotonic()
            timeout = max(timeout, _MIN_TIMEOUT) if timeout > 0 else 0.0
        if self._context.calls:  # more than could be made since the last events
            timeout = 0.0
        self._poller.dispatch(timeout)
        if dispatcher.queue:
            dispatcher.start_queued()
        now = monotonic()
        if self._housekeeping_due == NEVER:
            self._housekeeping_due = now + _PATH_CHECK  # the event may have made some work due
        if now >= dispatcher.due:
            dispatcher.resume_due(now)
        if self._shutdown.is_requested or now >= min(
            self._housekeeping_due, acceptor.retry_at, acceptor.refused_due
        ):
            self._housekeeping()
        return True

    @property
    def counters(self) -> Counters:
        """The counters, when the server has ended."""
        return self._context.counters

    def close(self) -> None:
        """Free the descriptors. stop() must not be called after this."""
        if self._dispatcher.threads.is_ended:
            self._wakeup.close()
            self._shutdown.close()

    def _on_wakeup(self, _events: int) -> None:
        self._wakeup.clear()
        self._housekeeping_due = 0.0

    def _on_done(self) -> None:
        """Wake the main thread if it waits for the end of a request. Any thread may call this."""
        is_stopping = self._shutdown.is_requested or not self._acceptor.is_open
        if self._dispatcher.queue or is_stopping or self._acceptor.retry_at != NEVER:
            self._wakeup.set()

    def _housekeeping(self) -> None:
        """Do the checks that take too long to be done for each request."""
        self._notifier.tick()
        self._dispatcher.threads.add_thread()
        self._apply_requests()
        if self._is_accepting:
            self._acceptor.maintain()
            self._check_path()
            self._check_idle()
            if self._shutdown.is_requested:
                self._begin_drain()
        if not self._is_accepting:
            self._drain()
        self._housekeeping_due = self._next_housekeeping()

    def _next_housekeeping(self) -> float:
        now = monotonic()
        due = min(self._acceptor.due, self._kill_deadline, self._abort_deadline)
        for remaining in (self._drain_deadline.remaining(), self._notifier.remaining()):
            if remaining is not None:
                due = min(due, now + remaining)
        if self._dispatcher.threads.is_starved or (
            self._is_accepting
            and (
                self._listener.can_lose_path
                or self._descriptors.is_raised
                or self._dispatcher.unanswered
            )
        ):
            due = min(due, now + _PATH_CHECK)  # then, threads or descriptors may be free
        if self._is_accepting and (idle_end := self._idle_end()) is not None:
            due = min(due, idle_end)
        return due

    def _apply_requests(self) -> None:
        """Carry out the requests of signal handlers."""
        if self._reload_requested:
            self._reload_requested = False
            self._log.reopen()
            self._context.handler.reload()
        if self._stats_requested:
            self._stats_requested = False
            counters = self._dispatcher.stats(idle=len(self._acceptor.idle))
            self._log.stats({**counters, **self._context.handler.stats()})

    def _idle_end(self) -> float | None:
        """Return when the idle timeout expires; None while the server is not idle."""
        limit = self._config.idle_timeout
        if limit is None or (since := self._dispatcher.idle_since()) is None:
            return None
        return since + limit

    def _check_idle(self) -> None:
        end = self._idle_end()
        if end is not None and monotonic() >= end:
            self._log.debug(f"idle for {self._config.idle_timeout:g} s")
            self._shutdown.is_requested = True

    def _check_path(self) -> None:
        now = monotonic()
        if now < self._path_checked + _PATH_CHECK:
            return
        self._path_checked = now
        if not self._listener.owns_path():
            self._exit_reason = ExitReason.PATH_LOST
            self._shutdown.is_requested = True

    # -- shutdown --------------------------------------------------------------------------

    def _begin_drain(self) -> None:
        """Refuse new clients, but answer all that have connected."""
        self._log.debug("stopping: answering all connected clients")
        self._notifier.stopping("stopping: answering all connected clients")
        self._is_accepting = False
        self._drain_deadline = Deadline(self._config.drain_timeout)
        self._acceptor.begin_drain()
        self._shutdown.draining.set()
        self._dispatcher.on_shutdown()

    def _drain(self) -> None:
        """Answer clients in the kernel's queue; abort after the drain timeout."""
        self._acceptor.drain()
        if self.must_abort or self._drain_deadline.expired():
            self._abort()
        if monotonic() >= min(self._kill_deadline, self._abort_deadline):
            self._abandon()

    def _abort(self) -> None:
        """Abort all requests; those in the queue for a worker thread end when they get one."""
        if self._shutdown.aborting.is_set():
            return
        if self._dispatcher.unanswered:
            self._exit_reason = ExitReason.ABORTED
        self._shutdown.aborting.set()
        self._drain_deadline = Deadline(None)
        self._abort_deadline = monotonic() + self._config.abort_timeout
        self._dispatcher.on_shutdown()
        self._acceptor.close_listener()
        self._acceptor.close_all_idle()
        self._dispatcher.abort_queued()

    def _abandon(self) -> None:
        """End without waiting for threads that hang, for example at a disk that does not answer."""
        self._kill_deadline = self._abort_deadline = NEVER
        self._shutdown.killing.set()
        self._dispatcher.abandon()

    def _end(self) -> None:
        """Free all resources, also after an internal error."""
        self._acceptor.close_listener()
        if self._dispatcher.unanswered:  # after an internal error
            self._shutdown.killing.set()
            for phase in (self._shutdown.draining, self._shutdown.aborting):
                phase.set()
                self._dispatcher.on_shutdown()
            self._dispatcher.abort_queued()
        self._dispatcher.threads.close()
        self._dispatcher.abandon()
        self._context.handler.close(self._shutdown.killing)
        self._acceptor.close_all_idle()
        self._poller.close()
