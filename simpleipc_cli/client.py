"""The client: connect with retries, exchange one request for one response, probe an endpoint.

Request and response are sent at the same time, so that the server may write before it reads: a
thread writes the part of the request that does not fit into the kernel's buffer.
"""

from __future__ import annotations

import _thread
from time import monotonic

from simpleipc_cli.deadline import Backoff, Deadline
from simpleipc_cli.errors import (
    EndpointError,
    IncompleteMessage,
    NotASocket,
    NotListening,
    PathNotFound,
    PeerClosed,
    PermissionDenied,
    ServerBusy,
    SipcError,
)
from simpleipc_cli.pktline import MessageReader, MessageWriter, consume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Peer, Stream

BUFFER_SIZE = 512 * 1024
"""Bytes per read: eight full packets. A larger buffer is no faster, a smaller one 10 % slower."""

_FIRST_BUFFER = 4 * 1024  # bytes; most responses fit, and a large buffer takes time to allocate
_RETRY_DELAYS = (0.001, 0.05)  # seconds: first and longest (tunable)


def connect_with_retry(
    connect: Callable[[Deadline], Stream],
    *,
    connect_timeout: float | None,
    wait: Deadline | None = None,
    deadline: Deadline | None = None,
) -> Stream:
    """Connect; with `wait`, retry while the endpoint is missing, refuses or is busy.

    `connect` tries once, as Endpoint.connect(). `connect_timeout` (seconds) limits one try while
    the endpoint is busy, `deadline` all tries together.

    Raises the EndpointError of the last try.
    """
    limit = deadline or Deadline(None)
    if wait is not None:
        limit = limit.capped(wait.remaining())
    backoff = Backoff(*_RETRY_DELAYS)
    while True:
        try:
            return connect(limit.capped(connect_timeout))
        except (NotListening, PathNotFound, ServerBusy):
            if wait is None or limit.expired():
                raise
        limit.sleep(backoff.next())


def exchange(
    stream: Stream,
    first_chunk: Buffer,
    read_more: Callable[[], Buffer] | None,
    on_data: Callable[[memoryview], None],
    deadline: Deadline,
) -> None:
    """Send a request, pass the response to `on_data` in pieces, and close the stream.

    The request is `first_chunk`, then the bytes from `read_more()`, until that returns none;
    `read_more` may block and is called in another thread. Returns when the response is complete,
    even if the request is not. A buffer passed to `on_data` is valid only during the call.

    Raises IncompleteMessage, ProtocolError, TimedOut, and what `read_more` and `on_data` raise.
    After an error no flush is sent, so that the server sees that the request is truncated.
    """
    writer = MessageWriter()
    writer.write(first_chunk)
    if read_more is None:
        writer.finish()
    sender: _Sender | None = None
    try:
        if _write_pending_nowait(stream, writer) and (writer.pending or read_more is not None):
            sender = _Sender(stream, writer, read_more)
            sender.start()
        _receive(stream, on_data, deadline)
    except IncompleteMessage:
        if sender is not None and sender.failure is not None:
            raise sender.failure from None
        raise
    finally:
        if sender is None:
            stream.close()
        else:
            stream.shutdown()
            sender.join_and_close()


def _write_pending_nowait(stream: Stream, writer: MessageWriter) -> bool:
    """Write without blocking; return False if the peer has closed."""
    try:
        while writer.pending:
            consume(writer.pending, stream.write_nowait(writer.pending))
    except BlockingIOError:
        pass
    except PeerClosed:
        return False
    return True


def _receive(stream: Stream, on_data: Callable[[memoryview], None], deadline: Deadline) -> None:
    reader = MessageReader()
    buffer = memoryview(bytearray(_FIRST_BUFFER))
    while not reader.complete:
        count = stream.read(buffer, deadline)
        if not count:
            reader.feed_eof()
        for payload in reader.feed(buffer[:count]):
            on_data(payload)
        if count == len(buffer) < BUFFER_SIZE:
            buffer = memoryview(bytearray(BUFFER_SIZE))


class _Sender:
    """Writes the rest of a request, in another thread."""

    def __init__(
        self, stream: Stream, writer: MessageWriter, read_more: Callable[[], Buffer] | None
    ) -> None:
        self._stream = stream
        self._writer = writer
        self._read_more = read_more
        self._running = _thread.allocate_lock()
        self._first_user_done = _thread.allocate_lock()  # the second user closes the stream
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._running.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            self._end()
            hint = "raise the limits of processes and memory"  # the error does not name the limit
            raise SipcError(f"cannot send: {error}", hint) from None

    def join_and_close(self) -> None:
        """Wait for the thread, unless it may block on its input.

        The last user of the stream closes it.
        """
        if self._read_more is None:
            self._running.acquire()
        self._release_stream()

    def _release_stream(self) -> None:
        if not self._first_user_done.acquire(False):
            self._stream.close()

    def _end(self) -> None:
        self._release_stream()
        self._running.release()

    def _run(self) -> None:
        try:
            self._send()
        except PeerClosed:
            pass  # the thread that reads the response reports the error
        except BaseException as failure:
            self.failure = failure
            self._stream.shutdown()
        finally:
            self._end()

    def _send(self) -> None:
        writer, stream = self._writer, self._stream
        while True:
            while writer.pending:
                consume(writer.pending, stream.write(writer.pending))
            if writer.finished:
                return
            payload = self._read_more() if self._read_more is not None else b""
            if payload:
                writer.write(payload)
            else:
                writer.finish()


class ProbeOutcome:
    """The result of probing an endpoint."""

    __slots__ = ("error", "peer", "seconds", "state")

    def __init__(self, error: EndpointError | None, peer: Peer | None, seconds: float) -> None:
        self.error = error
        """Why the connection failed; None if a server listens."""
        self.peer = peer
        """The server's process, if it listens."""
        self.seconds = seconds
        """Duration of the last try to connect."""
        self.state = next(name for kind, name in _STATES if isinstance(error, kind))


_STATES = (
    (type(None), "listening"),
    (ServerBusy, "busy"),
    (NotListening, "not listening"),
    (PathNotFound, "path not found"),
    (NotASocket, "invalid path"),
    (PermissionDenied, "permission denied"),
    (EndpointError, "other error"),
)


def probe(
    connect: Callable[[Deadline], Stream],
    *,
    timeout: float | None,
    wait: Deadline | None = None,
    deadline: Deadline | None = None,
    on_connected: Callable[[Stream, Deadline], None] | None = None,
) -> ProbeOutcome:
    """Check whether a server listens: connect, and close without sending a byte.

    `timeout` (seconds) limits one try while the endpoint is busy; the arguments `connect`, `wait`
    and `deadline` are those of connect_with_retry(). If `on_connected` is given, it is called with
    the open stream; `timeout` then limits the last try and this call together. Raises what
    `on_connected` raises.
    """
    started_at = monotonic()

    def start_clock_and_connect(limit: Deadline) -> Stream:
        nonlocal started_at
        started_at = monotonic()  # only the last try is timed
        return connect(limit)

    try:
        stream = connect_with_retry(
            start_clock_and_connect, connect_timeout=timeout, wait=wait, deadline=deadline
        )
    except EndpointError as error:
        return ProbeOutcome(error, None, monotonic() - started_at)
    seconds = monotonic() - started_at
    try:
        peer = stream.peer()
    except OSError:
        peer = None  # a sandbox forbids the call
    result = ProbeOutcome(None, peer, seconds)
    if on_connected is None:
        stream.close()
    else:
        on_connected(stream, Deadline(None if timeout is None else timeout - seconds))
    return result


def wait_until_gone(
    connect: Callable[[Deadline], Stream], *, timeout: float | None, wait: Deadline
) -> ProbeOutcome:
    """Probe until no server listens, or `wait` expires; return the last result."""
    backoff = Backoff(*_RETRY_DELAYS)
    while True:
        result = probe(connect, timeout=timeout, deadline=wait)
        is_gone = result.error is not None and not isinstance(result.error, ServerBusy)
        if is_gone or wait.expired():
            return result
        wait.sleep(backoff.next())
