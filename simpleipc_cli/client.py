"""The client's side: reach an endpoint, and one exchange with it.

Request and response go at the same time, whatever the other end reads first: the request
is written by a thread of its own as soon as it does not fit into the kernel's buffer.
"""

from __future__ import annotations

import _thread
from time import monotonic, sleep

from simpleipc_cli.deadline import Deadline
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
from simpleipc_cli.message import MessageReader, MessageWriter
from simpleipc_cli.transport import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Peer, Stream

BUFFER_SIZE = 512 * 1024
"""Bytes of response taken at once: eight full packets. More wins nothing, less costs a tenth."""

_FIRST_DELAY, _MAX_DELAY = 0.001, 0.05  # seconds between tries, at will


def connect_with_retry(
    locate: Callable[[], str],
    *,
    connect_timeout: float | None,
    wait: Deadline | None = None,
    deadline: Deadline | None = None,
) -> Stream:
    """Connect; with `wait`, keep trying while the endpoint is missing, refuses or is busy.

    `locate` gives the path, anew for each try. `connect_timeout` (seconds) is for one try
    at a busy endpoint, `deadline` for all.

    Raises EndpointError: what kept us from connecting at the last try.
    """
    deadline = deadline or Deadline(None)
    pause = _FIRST_DELAY
    while True:
        limit = deadline.sooner(connect_timeout)
        if wait is not None:
            limit = limit.sooner(wait.remaining())
        try:
            return connect(locate(), limit)
        except (NotListening, PathNotFound):
            if wait is None or wait.passed() or deadline.passed():
                raise
        left = [time for time in (wait.remaining(), deadline.remaining()) if time is not None]
        sleep(min(pause, *left) if left else pause)
        pause = min(pause * 2, _MAX_DELAY)


def exchange(
    stream: Stream,
    first: Buffer,
    more: Callable[[], Buffer] | None,
    deliver: Callable[[memoryview], None],
    deadline: Deadline,
) -> None:
    """Send a request and hand its response to `deliver`, piece by piece; then hang up.

    The request is `first`, and behind it whatever `more()` returns until that is empty;
    `more` may wait, and is called from another thread. Returns when the response is
    complete, even if the request is not. A piece is only good until `deliver` returns.

    Raises CutOff, ProtocolError, TimedOut, and what `more` and `deliver` raise. No error
    completes a request: a server never takes half of one for whole.
    """
    writer = MessageWriter()
    writer.write(first)
    if more is None:
        writer.finish()
    sender: _Sender | None = None
    try:
        if write_nowait_to(stream, writer) and (writer.pending or more is not None):
            sender = _Sender(stream, writer, more)
            sender.start()
        _receive(stream, deliver, deadline)
    except IncompleteMessage:
        if sender is not None and sender.failure is not None:
            raise sender.failure from None
        raise
    finally:
        if sender is None:
            stream.close()
        else:
            stream.shut_down()
            sender.leave_it_the_stream()


def write_nowait_to(stream: Stream, writer: MessageWriter) -> bool:
    """Write without waiting; False if nobody reads any more."""
    try:
        while writer.pending:
            writer.written(stream.write_nowait(writer.pending))
    except BlockingIOError:
        pass
    except PeerClosed:
        return False
    return True


def _receive(stream: Stream, deliver: Callable[[memoryview], None], deadline: Deadline) -> None:
    """Take one response."""
    reader = MessageReader()
    buffer = memoryview(bytearray(BUFFER_SIZE))
    while not reader.complete:
        count = stream.read(buffer, deadline)
        if not count:
            reader.end()
        for payload in reader.feed(buffer[:count]):
            deliver(payload)


class _Sender:
    """Writes the rest of a request from a thread of its own."""

    def __init__(
        self, stream: Stream, writer: MessageWriter, more: Callable[[], Buffer] | None
    ) -> None:
        self._stream = stream
        self._writer = writer
        self._more = more
        self._working = _thread.allocate_lock()
        self._one_is_out = _thread.allocate_lock()  # of the two who use the stream
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._working.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            self._end()
            raise SipcError(f"{error} to send with", "allow more with ulimit -u") from None

    def leave_it_the_stream(self) -> None:
        """Wait for the end of the thread, unless it may be waiting for its input.

        The stream is closed by whoever is done with it last.
        """
        if self._more is None:
            self._working.acquire()
        self._leave()

    def _leave(self) -> None:
        if not self._one_is_out.acquire(False):
            self._stream.close()

    def _end(self) -> None:
        self._leave()
        self._working.release()

    def _run(self) -> None:
        try:
            self._send()
        except PeerClosed:
            pass  # the receiving side will see why
        except BaseException as failure:
            self.failure = failure
            self._stream.shut_down()
        finally:
            self._end()

    def _send(self) -> None:
        writer, stream = self._writer, self._stream
        while True:
            while writer.pending:
                writer.written(stream.write(writer.pending))
            if writer.finished:
                return
            payload = self._more() if self._more is not None else b""
            if payload:
                writer.write(payload)
            else:
                writer.finish()


class ProbeResult:
    """What a probe found at an endpoint."""

    __slots__ = ("error", "peer", "seconds", "state")

    def __init__(self, error: EndpointError | None, peer: Peer | None, seconds: float) -> None:
        """`seconds` is how long connecting took at the last try, or failing to."""
        self.error = error
        """Why nobody could be reached; None if somebody listens."""
        self.peer = peer
        """Who listens."""
        self.seconds = seconds
        self.state = "listening" if error is None else _state(error)


_STATES = (
    (ServerBusy, "busy"),
    (NotListening, "not listening"),
    (PathNotFound, "path not found"),
    (NotASocket, "invalid path"),
    (PermissionDenied, "permission denied"),
)


def _state(error: EndpointError) -> str:
    return next((name for kind, name in _STATES if isinstance(error, kind)), "other error")


def look(
    locate: Callable[[], str],
    *,
    timeout: float | None,
    wait: Deadline | None = None,
    deadline: Deadline | None = None,
    question: Callable[[Stream, Deadline], None] | None = None,
) -> ProbeResult:
    """See whether somebody listens: connect, and hang up without a byte.

    `timeout` (seconds) is for one try at a busy endpoint, `wait` and `deadline` as in reach().
    With a `question` the connection is not closed, but handed to it; `timeout` is then for the
    last try and the question together. Raises what the question raises.
    """
    began = monotonic()
    limit = Deadline(timeout)

    def locate_now() -> str:
        nonlocal began, limit
        path = locate()
        began = monotonic()  # what is told is how long the last try took
        limit = Deadline(timeout)
        return path

    try:
        stream = connect_with_retry(
            locate_now, connect_timeout=timeout, wait=wait, deadline=deadline
        )
    except EndpointError as error:
        return ProbeResult(error, None, monotonic() - began)
    seconds = monotonic() - began
    finding = ProbeResult(None, stream.peer(), seconds)
    if question is None:
        stream.close()
    else:
        question(stream, limit)
    return finding


def wait_until_gone(
    locate: Callable[[], str], *, timeout: float | None, wait: Deadline
) -> ProbeResult:
    """Look again and again until nobody listens, or `wait` is over; the last finding."""
    pause = _FIRST_DELAY
    while True:
        finding = look(locate, timeout=timeout, deadline=wait)
        if finding.error is not None and not isinstance(finding.error, ServerBusy):
            return finding
        if wait.passed():
            return finding
        left = wait.remaining()
        sleep(pause if left is None else min(pause, left))
        pause = min(pause * 2, _MAX_DELAY)
