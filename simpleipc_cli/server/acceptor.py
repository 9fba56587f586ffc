"""Accepts connections, tracks idle ones, and applies back-pressure when descriptors run out.

A connection that has not sent data is idle and uses a descriptor. When no descriptor is left, the
server closes the connection that has been idle longest. If there is no idle connection, it stops
accepting until a request ends.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from functools import partial
from time import monotonic

from simpleipc_cli.deadline import NEVER
from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.context import DRAIN_IDLE_TIMEOUT, ServerContext
from simpleipc_cli.server.dispatcher import Dispatcher
from simpleipc_cli.system import count_open_fds
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import READ, Listener, OutOfDescriptors, Stream

_ACCEPT_RETRY = 0.1  # seconds before accepting again without descriptors (tunable)
_WARN_AGAIN = 60.0  # seconds without a warning before it is logged again (tunable)
_MAX_BATCH = 256  # connections accepted in a row (tunable)
_SINGLES = 8  # events with one connection each, if one had no second (tunable)
_FDS_PER_REQUEST = 6  # both ends of two pipes, pidfd and spool, besides the connection
_FDS_OF_SERVER = 24  # standard streams, listener, poller, wakeup events, and some spare ones
_SPARE_FDS = 6  # for files that are open for a moment (tunable)
MIN_FDS = _FDS_OF_SERVER + _FDS_PER_REQUEST + 2
"""The smallest descriptor limit with which a server can run."""

_MIN_IDLE = 0.1  # seconds before an idle connection may be closed (tunable)


class Acceptor:
    """The listener and all connections that have not sent data."""

    def __init__(
        self,
        listener: Listener,
        context: ServerContext,
        dispatcher: Dispatcher,
        descriptors: DescriptorLimit,
    ) -> None:
        """Pass each connection that has sent data to `dispatcher`."""
        self._listener = listener
        self._poller = context.poller
        self._handler = context.handler
        self._config = context.config
        self._log = context.log
        self._counters = context.counters
        self._dispatcher = dispatcher
        self._descriptors = descriptors

        # Idle connections and the time since when they are idle, the longest idle first.
        self.idle: OrderedDict[Stream, float] = OrderedDict()
        self._warned: dict[str, float] = {}  # warnings, and the time of the last occurrence
        self._refused: Counter[int] = Counter()  # connections by user, within a second
        self.refused_due = NEVER
        """Monotonic time at which to call maintain() or drain(), which log the number of
        refusals."""
        self._is_draining = False
        self.retry_at = NEVER
        """Monotonic time at which to accept again, while that is paused."""
        # Inherited descriptors count, too; but one request must be possible.
        own_fds = max(_FDS_OF_SERVER, count_open_fds() + _SPARE_FDS)
        self._fds_per_request = _FDS_PER_REQUEST + self._handler.run_fds
        max_own = descriptors.maximum - self._handler.min_fds - self._fds_per_request - 2
        self._own_fds = max(_FDS_OF_SERVER, min(own_fds, max_own))
        self._reserved = self._own_fds + context.config.max_concurrency * self._fds_per_request
        # Connections to accept at the next event, at least one; below 1, the events until it tries
        # two again, as to try in vain takes longer than an event.
        self._batch = 1
        self.is_open = True
        """Whether the kernel's queue may have clients that must be accepted."""
        self._poller.register(listener.fileno(), READ, self._on_connection)

    @property
    def due(self) -> float:
        """Monotonic time at which to call maintain() or drain(), or NEVER."""
        due = min(self.retry_at, self.refused_due)
        if self.retry_at == NEVER and self._is_draining and self.is_open:
            return 0.0
        if self._is_draining and self.idle:
            due = min(due, next(iter(self.idle.values())) + DRAIN_IDLE_TIMEOUT)
        return due

    def maintain(self) -> None:
        """Accept again after a pause if descriptors are free; lower the limit if possible."""
        if monotonic() >= self.refused_due:
            self._log_refused()
        descriptors = self._descriptors
        if descriptors.is_raised:
            in_use = descriptors.current - self._own_fds - self._free_fds()
            if in_use <= descriptors.original // 2:
                descriptors.lower()
        if self.retry_at == NEVER or monotonic() < self.retry_at:
            return
        if self._must_wait():
            self._pause()
        else:
            self.retry_at = NEVER
            self._poller.register(self._listener.fileno(), READ)

    def begin_drain(self) -> None:
        """Remove the endpoint's path; accept only the clients in the kernel's queue."""
        self._is_draining = True
        self._poller.unregister(self._listener.fileno())
        self._stop_listening()
        if self._listener.is_externally_owned:
            self.close_listener()
        now = monotonic()
        for stream in self.idle:
            self.idle[stream] = now

    def drain(self) -> None:
        """Empty the kernel's queue, and close connections that have been idle for too long."""
        now = monotonic()
        if now >= self.refused_due:
            self._log_refused()
        if self.is_open and (self.retry_at == NEVER or now >= self.retry_at):
            self.retry_at = NEVER
            if self._must_wait():
                self._pause()
            elif self._accept(_MAX_BATCH):
                self.close_listener()
        while self.idle:
            stream, since = next(iter(self.idle.items()))
            if since > now - DRAIN_IDLE_TIMEOUT:
                break
            self._close_idle(stream)

    def close_listener(self) -> None:
        """Accept no more connections. May be called again."""
        if not self.is_open:
            return
        if not self._is_draining:
            self._stop_listening()
        self.is_open = False
        self.retry_at = NEVER
        self._log_refused()
        self._listener.close()

    def _stop_listening(self) -> None:
        warning = self._listener.stop_listening()
        if warning is not None:
            self._log.warning(warning)

    def close_all_idle(self) -> None:
        """Close all connections that have not sent data."""
        for stream in self.idle:
            self._poller.unregister(stream.fileno())
            stream.close()
        self._counters.idle_closed += len(self.idle)
        self.idle.clear()

    def _on_connection(self, _events: int) -> None:
        if self._accept(max(self._batch, 1)):
            self._batch = 1 if self._batch > 2 else -_SINGLES
        else:
            self._batch = min(self._batch * 2, _MAX_BATCH) if self._batch > 0 else self._batch + 1

    def _accept(self, max_count: int) -> bool:
        """Accept up to `max_count` connections; return whether all were accepted."""
        for _ in range(max_count):
            try:
                stream = self._listener.accept()
            except BlockingIOError:
                if self._listener.is_exhausted:
                    self._poller.unregister(self._listener.fileno())
                    self.close_listener()
                return True
            except OutOfDescriptors:
                self._free_descriptor(None)
                self._pause()
                return False
            except SipcError as error:
                self._warn(error.text)
                self._pause()
                return False
            self._counters.accepted += 1
            if self._config.allowed_users is not None and not self._is_allowed(stream):
                self._counters.refused += 1
                stream.close()
                continue
            if not self._submit(stream):
                self._add_idle(stream)
            in_use = len(self.idle) + self._dispatcher.unanswered + self._handler.held_fds
            if in_use > self._descriptors.current - self._reserved and self._is_short(stream):
                self._pause()
                return False
        return False

    def _is_allowed(self, stream: Stream) -> bool:
        """Return whether the client's user is allowed; log each user once a second."""
        try:
            peer = stream.peer()
        except OSError as error:
            self._warn(f"refused a connection: its user is unknown: {error.strerror}")
            return False
        if peer.uid in (self._config.allowed_users or ()):
            return True
        if peer.uid < 0:
            self._warn("refused a connection: its user is unknown")
            return False
        if not self._refused:
            self.refused_due = monotonic() + 1.0
        self._refused[peer.uid] += 1
        if self._refused[peer.uid] == 1:
            self._log.info(f"refused uid={peer.uid} pid={peer.pid}: not allowed by --allow-user")
        return False

    def _log_refused(self) -> None:
        for uid, count in self._refused.items():
            if count > 1:
                text = f"refused uid={uid} {count - 1} more times: not allowed by --allow-user"
                self._log.info(text)
        self._refused.clear()
        self.refused_due = NEVER

    def _add_idle(self, stream: Stream) -> None:
        self.idle[stream] = monotonic()
        try:
            self._poller.register(stream.fileno(), READ, partial(self._on_idle_event, stream))
        except OSError as error:  # the kernel has no memory for polling it
            del self.idle[stream]
            self._drop(stream, error.strerror)

    def _on_idle_event(self, stream: Stream, _events: int) -> None:
        self._remove_idle(stream)
        if not self._submit(stream):
            self._add_idle(stream)

    def _submit(self, stream: Stream) -> bool:
        """Submit a connection that has sent data; close one that has ended without data.

        Return False if it is idle.
        """
        try:
            if not self._dispatcher.submit(stream):
                self._counters.closed_without_data += 1
                self._log.debug("client connected and closed without sending data")
                stream.close()
        except BlockingIOError:
            return False
        except OSError as error:
            self._drop(stream, error.strerror)
        except SipcError as error:
            self._drop(stream, error.text)
        return True

    def _drop(self, stream: Stream, why: str | None) -> None:
        """Close a connection on which a system call failed before its first data."""
        self._counters.closed_without_data += 1
        self._warn(f"a connection failed and was closed: {why}")
        stream.close()

    def _remove_idle(self, stream: Stream) -> None:
        del self.idle[stream]
        self._poller.unregister(stream.fileno())

    # -- back-pressure ---------------------------------------------------------------------

    def _is_short(self, newest: Stream) -> bool:
        """Return whether handlers lack descriptors even after closing idle connections."""
        while self._free_fds() < 0:
            if not self._free_descriptor(newest):
                return True
        return False

    def _free_fds(self) -> int:
        """Return the number of free descriptors, without those that the next request needs."""
        unanswered = self._dispatcher.unanswered
        running = min(self._config.max_concurrency, unanswered + 1)
        in_use = len(self.idle) + unanswered + running * self._fds_per_request
        in_use += self._handler.held_fds
        return self._descriptors.current - self._own_fds - in_use

    def _must_wait(self) -> bool:
        """Return whether only the end of a request can free a descriptor."""
        return self._free_fds() < 1 and not self.idle

    def _free_descriptor(self, newest: Stream | None) -> bool:
        """Raise the limit, else close the longest idle connection, but not `newest`.

        Return False if neither is possible.
        """
        if self._descriptors.raise_to_maximum():
            return True
        self._warn(
            "out of file descriptors: closing idle connections and pausing accept: "
            "raise the limit (ulimit -n)"
        )
        if not self.idle:
            return False
        stream, since = next(iter(self.idle.items()))
        if stream is newest or monotonic() < since + _MIN_IDLE:
            return False
        self._close_idle(stream)
        return True

    def _warn(self, text: str) -> None:
        """Log the first of repeated warnings."""
        now = monotonic()
        if now > self._warned.get(text, -_WARN_AGAIN) + _WARN_AGAIN:
            self._log.warning(text)
        self._warned[text] = now

    def _close_idle(self, stream: Stream) -> None:
        """Close an idle connection, unless it has sent data that no event has reported yet.

        An event may be late: the process may have been stopped, or the machine suspended.
        """
        self._on_idle_event(stream, READ)
        if stream in self.idle:
            self._remove_idle(stream)
            self._counters.idle_closed += 1
            stream.close()

    def _pause(self) -> None:
        self.retry_at = monotonic() + _ACCEPT_RETRY
        if not self._is_draining:
            self._poller.register(self._listener.fileno(), 0)
