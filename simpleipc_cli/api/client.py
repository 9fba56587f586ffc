"""The client in the public API: send a request, stream one, start a server that is missing.

Any thread may call these functions, many at once. They block: an asyncio program calls them by
`asyncio.to_thread`. They change nothing that belongs to the whole process.
"""

from __future__ import annotations

import os

from simpleipc_cli import client, system
from simpleipc_cli.batch.reorder import BufferUsage, PendingResponse
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint, default_endpoint
from simpleipc_cli.errors import NotListening, PathNotFound, PeerClosed, SipcError, TimedOut
from simpleipc_cli.pktline import MessageReader, MessageWriter, consume
from simpleipc_cli.transport import READ, WRITE, new_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Stream

    StrPath = str | os.PathLike[str]
    BytesLike = Buffer

__all__ = ["Connection", "connect", "ensure_running", "send"]

_CHUNK = 64 * 1024  # bytes read, and returned, at once (tunable)


def send(
    path: StrPath | None,
    request: BytesLike,
    *,
    timeout: float | None = None,
    connect_timeout: float | None = 1.0,
    wait: float | None = None,
) -> bytes:
    """Send one request and return the response, both in memory.

    path: the endpoint; None for the default one.
    request: the payload, of any length.
    timeout: seconds for the whole call; None for no limit.
    connect_timeout: seconds to wait for a free place in the queue of a busy server; None for no
        limit.
    wait: seconds to retry while the endpoint is missing, refuses or is busy; None does not retry,
        math.inf has no limit. Nothing has been sent then, so that no request is sent twice.

    Raises:
        EndpointError: nothing was sent. Its subclasses say why: PathNotFound, NotListening,
            ServerBusy, NotASocket, PermissionDenied, OutOfResources.
        TimedOut: connected, but the response was not complete in time.
        IncompleteMessage: the response was cut off, so the server failed.
        ProtocolError: the response is not Simple-IPC.
        SipcError: the system refused to read or write.
    """
    payload = _octets(request)
    deadline = Deadline(timeout)
    stream = _connected(path, deadline, connect_timeout, wait)
    pieces: list[bytes] = []
    client.exchange(stream, payload, None, lambda piece: pieces.append(bytes(piece)), deadline)
    return b"".join(pieces)


def connect(
    path: StrPath | None,
    *,
    timeout: float | None = None,
    connect_timeout: float | None = 1.0,
    wait: float | None = None,
) -> Connection:
    """Connect, and return the connection, for one request and one response of any size.

    Arguments are those of send(); `timeout` begins here and limits the exchange to its end.

    Raises:
        EndpointError: not connected, as for send().
    """
    deadline = Deadline(timeout)
    return Connection(_connected(path, deadline, connect_timeout, wait), deadline)


class Connection:
    """One request and its response, from connect(). For one thread at a time, and for `with`.

    Client and server cannot block each other: while the server does not read the request, the
    received part of the response is stored in memory, then in an unnamed file in $TMPDIR or
    /var/tmp.

    Every method raises TimedOut when the time of connect() is over, ValueError after close().
    """

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline
        self._writer = MessageWriter()
        self._reader = MessageReader()
        self._response = PendingResponse(1, BufferUsage(*system.spool_folders(os.environ)))
        self._buffer = memoryview(bytearray(_CHUNK))
        self._poller = new_poller()
        self._descriptor = stream.fileno()
        self._is_closed = False
        self._server_reads = True
        self._at_end = False  # the server writes no more
        self._failure: SipcError | None = None
        """The error after which the response is unusable."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: BytesLike) -> bool:
        """Write a part of the request; return False if the server reads no more.

        That alone is no error: the response may be complete. The rest is then dropped.

        Raises:
            IncompleteMessage, ProtocolError: as for iteration, if that is known already.
            SipcError: the system refused to write, or the response cannot be kept.
            ValueError: after finish().
        """
        self._check_open()
        payload = _octets(data)
        if self._writer.finished:
            raise ValueError("the request is finished")
        self._writer.write(payload)
        return self._write_pending()

    def finish(self) -> None:
        """Complete the request. Raises what write() raises; does nothing when called again."""
        self._check_open()
        if not self._writer.finished:
            self._writer.finish()
        self._write_pending()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the response in pieces, as they arrive, up to its end.

        May begin before finish(), for a server that answers before it has read all.

        Raises:
            IncompleteMessage: the response was cut off, after all pieces that had arrived.
            ProtocolError: the response is not Simple-IPC.
            SipcError: the system refused to read.
        """
        while True:
            self._check_open()  # an iterator may outlive the connection
            if piece := self._response.take(_CHUNK):
                yield piece
            elif self._failure is not None:
                raise self._failure
            elif self._reader.complete:
                return
            else:
                self._wait(READ)

    def read(self) -> bytes:
        """Return the rest of the response. Raises what iteration raises.

        Raises:
            ValueError: before finish(), as the server would wait for the rest of the request.
        """
        if not self._writer.finished:
            raise ValueError("the request is not finished: call finish()")
        return b"".join(self)

    def close(self) -> None:
        """Close the connection. The server does not answer a request without finish()."""
        if not self._is_closed:
            self._is_closed = True
            self._failure = None  # whose traceback refers to this object
            self._poller.close()
            self._stream.close()
            self._response.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("the connection is closed")

    def _write_pending(self) -> bool:
        pending = self._writer.pending
        try:
            while pending and self._server_reads:
                self._remaining()
                if self._failure is not None:
                    raise self._failure
                try:
                    consume(pending, self._stream.write_nowait(pending))
                except BlockingIOError:
                    self._wait(READ | WRITE)
        except PeerClosed:
            self._server_reads = False
        if not self._server_reads:
            pending.clear()
            self._receive()  # an error in the response must end a loop of writes
            if self._failure is not None:
                raise self._failure
        return self._server_reads

    def _remaining(self) -> float | None:
        left = self._deadline.remaining()
        if left == 0.0:
            raise TimedOut("no complete response in time")
        return left

    def _wait(self, events: int) -> None:
        """Wait for one of the events, and store the response bytes that arrive."""
        left = self._remaining()
        self._poller.register(self._descriptor, events & (WRITE if self._at_end else READ | WRITE))
        for _, ready in self._poller.wait(left):
            if ready & ~WRITE:
                self._receive()

    def _receive(self) -> None:
        """Store response bytes that have arrived, at most one buffer."""
        if self._at_end or self._failure is not None:
            return
        try:
            count = self._stream.read_nowait(self._buffer)
            self._at_end = not count
            if self._at_end:
                self._reader.feed_eof()
            for payload in self._reader.feed(self._buffer[:count]):
                self._response.store(payload)
        except BlockingIOError:
            pass
        except SipcError as error:
            self._failure = error


def ensure_running(
    path: StrPath | None,
    command: str | Sequence[str],
    *,
    timeout: float | None = 10.0,
    connect_timeout: float | None = 1.0,
    env: Mapping[str, str] | None = None,
) -> None:
    """Start a server if none listens on the endpoint, and return once one does.

    If several threads or processes call this at once, one runs the command; the others wait for
    its server. The server keeps running after this process, in a new session without a terminal.

    path: the endpoint; None for the default one.
    command: a shell's command line, or the program and its arguments. It gets the absolute path
        in the variable SIPC_PATH. It may stay in the foreground, or exit with status 0 when its
        server runs in the background. Its standard input and output are the null device.
    timeout: seconds until a server must listen; None for no limit. The command is then terminated.
    connect_timeout: seconds to wait for a free place in the queue of a busy server.
    env: the command's environment variables; None for those of this process.

    This process must neither ignore SIGCHLD nor reap children that are not its own, as by
    os.wait(). In the main thread SIGINT, SIGTERM and SIGHUP wait while the command is started; if
    the handler of one raises an exception, the command is terminated unless its server listens.
    In other threads no signal has an effect. A thread then waits to reap the server.

    Raises:
        SpawnFailed: the command cannot be started, or failed; the message has the end of its
            standard error.
        PathNotFound, NotListening: no server listened in time.
        ServerBusy: a server listens, but is busy.
        EndpointError: nothing can listen there, or the system refuses to connect.
        SipcError: the command cannot be terminated.
    """
    deadline = Deadline(timeout)
    try:
        _connected(path, deadline, connect_timeout, None).close()
        return
    except (NotListening, PathNotFound):
        pass
    from simpleipc_cli.autostart import connect_or_start  # noqa: PLC0415 - mostly one listens
    from simpleipc_cli.process import join_words  # noqa: PLC0415

    line = command if isinstance(command, str) else join_words(command)
    environment = os.environ if env is None else env
    connect_or_start(
        endpoint_at(path), line, environment, connect_timeout=connect_timeout, deadline=deadline
    ).close()


def endpoint_at(path: StrPath | None) -> Endpoint:
    """Return the endpoint at `path`, or the default one."""
    if path is None:
        return default_endpoint(os.environ, system.user_id())
    return Endpoint(os.fsdecode(path))


def _connected(
    path: StrPath | None, deadline: Deadline, connect_timeout: float | None, wait: float | None
) -> Stream:
    return client.connect_with_retry(
        endpoint_at(path).connect,
        connect_timeout=connect_timeout,
        wait=None if wait is None else Deadline(wait),
        deadline=deadline,
    )


def _octets(data: BytesLike) -> Buffer:
    """Return a view of single bytes, so that its length is the number of bytes."""
    return data if isinstance(data, bytes) else memoryview(data).cast("B")
