"""Write responses in the order of their records.

A response waits until all earlier ones are written: in memory if it is small, else on disk.
"""

from __future__ import annotations

from collections import deque

from simpleipc_cli.errors import SipcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from simpleipc_cli.spool import Spool

    class Sink(Protocol):
        """The destination of the output."""

        def fileno(self) -> int:
            """Return the descriptor to poll after a partial write."""

        def write_nowait(self, payload: memoryview) -> int:
            """Write without blocking; return the number of bytes. Raises SipcError."""

        def write(self, payload: memoryview) -> None:
            """Write all, blocking. Raises SipcError."""


MAX_BUFFERED = 64 * 1024
"""A write buffer with at least this number of bytes is full."""

MAX_MEMORY_EACH = 64 * 1024
"""Maximum bytes of one waiting response in memory: most responses need no file (tunable)."""

MAX_MEMORY = 16 * 1024 * 1024
"""Maximum bytes of all waiting responses in memory (tunable)."""


class OutputFailed(Exception):
    """A write to the output failed. This ends the batch, as it is no failure of one record."""

    def __init__(self, error: SipcError) -> None:
        super().__init__(error)
        self.error = error


class WriteBuffer:
    """Joins small writes to a sink into larger ones."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def is_full(self) -> bool:
        return len(self._bytes) >= MAX_BUFFERED

    def add(self, payload: bytes | memoryview) -> None:
        self._bytes += payload

    def flush_nowait(self) -> None:
        """Write without blocking. Raises OutputFailed."""
        if self._bytes:
            with memoryview(self._bytes) as view:
                try:
                    written = self.sink.write_nowait(view)
                except SipcError as error:
                    raise OutputFailed(error) from error
            del self._bytes[:written]

    def flush(self) -> None:
        """Write all, blocking. Raises SipcError."""
        with memoryview(self._bytes) as view:
            self.sink.write(view)
        self._bytes.clear()


class BufferUsage:
    """Memory, disk space and files that all waiting responses use."""

    size = 0
    """Bytes in memory and on disk."""
    memory = 0
    """Bytes in memory."""
    files = 0
    """Open files: each uses a descriptor."""

    def __init__(self, *folders: str) -> None:
        """Create unlinked files in the first of `folders` that accepts one."""
        self.folders = folders


class PendingResponse:
    """The response to one record, with the queue of its waiting bytes."""

    __slots__ = ("_memory", "_spool", "_usage", "complete", "needs_newline", "number")

    def __init__(self, number: int, usage: BufferUsage) -> None:
        self.number = number
        self.complete = False
        """Whether no more bytes will arrive, after success or failure."""
        self.needs_newline = True
        """Whether the last byte is not a newline."""
        self._usage = usage
        self._memory = bytearray()  # older bytes than those on disk
        self._spool: Spool | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether bytes wait."""
        return bool(self._memory or self._spool)

    def store(self, payload: memoryview) -> None:
        """Add bytes. Raises SipcError if the disk is full, and keeps the bytes stored so far."""
        size, usage = len(payload), self._usage
        if (
            not self._spool
            and len(self._memory) + size <= MAX_MEMORY_EACH
            and usage.memory + size <= MAX_MEMORY
        ):
            self._memory += payload
            usage.memory += size
            usage.size += size
            return
        if self._spool is None:
            from simpleipc_cli.spool import Spool  # noqa: PLC0415 - most responses need no spool

            self._spool = Spool(*usage.folders)
            usage.files += 1
        before = len(self._spool)
        try:
            self._spool.append([payload])
        finally:
            usage.size += len(self._spool) - before

    def take(self, limit: int) -> bytes:
        """Remove and return the oldest bytes, at most `limit`. Raises SipcError."""
        usage = self._usage
        if self._memory:
            taken = bytes(self._memory[:limit])
            del self._memory[:limit]
            usage.memory -= len(taken)
        else:
            taken = self._spool.take(limit) if self._spool is not None else b""
        usage.size -= len(taken)
        return taken

    def close(self) -> None:
        """Drop the waiting bytes."""
        usage = self._usage
        usage.memory -= len(self._memory)
        usage.size -= len(self._memory)
        self._memory.clear()
        if self._spool is not None:
            usage.size -= len(self._spool)
            usage.files -= 1
            self._spool.close()
            self._spool = None


class OrderedOutput:
    """Writes responses in the order of their records. They may arrive in any order."""

    def __init__(self, buffer: WriteBuffer, usage: BufferUsage, separator: bytes) -> None:
        """`separator` ends each response: a NUL is always added, a newline only if missing."""
        self._buffer = buffer
        self._usage = usage
        self._separator = separator
        self.responses: deque[PendingResponse] = deque()
        """The responses that are incomplete or not written, in order."""

    @property
    def is_idle(self) -> bool:
        """Whether all responses have been written."""
        return not self.responses and not self._buffer

    def new_response(self, number: int) -> PendingResponse:
        """Append a response for the next record."""
        response = PendingResponse(number, self._usage)
        self.responses.append(response)
        return response

    def deliver(self, response: PendingResponse, payload: memoryview) -> None:
        """Write a part of a response if all earlier responses are written, else store it.

        Raises OutputFailed; SipcError if the part cannot be stored.
        """
        response.needs_newline = payload[-1] != ord("\n")
        buffer = self._buffer
        if response is self.responses[0] and not response.is_waiting and not buffer.is_full:
            buffer.add(payload)
            if buffer.is_full:
                buffer.flush_nowait()
        else:
            response.store(payload)

    def write_nowait(self) -> None:
        """Write without blocking. Raises OutputFailed."""
        self._buffer.flush_nowait()
        while not self._buffer.is_full and self._refill():
            self._buffer.flush_nowait()

    def _refill(self) -> bool:
        """Move the next waiting bytes into the buffer; return whether there were any."""
        responses, buffer = self.responses, self._buffer
        moved = False
        while responses and not buffer.is_full:
            first = responses[0]
            if first.is_waiting:
                try:
                    buffer.add(first.take(MAX_BUFFERED))
                except SipcError as error:  # a part is lost: write no later bytes
                    raise OutputFailed(error) from error
            elif first.complete:
                if self._separator != b"\n" or first.needs_newline:
                    buffer.add(self._separator)
                responses.popleft().close()
            else:
                break
            moved = True
        return moved

    def close(self) -> None:
        """Drop all bytes that were not written."""
        for response in self.responses:
            response.close()
        self.responses.clear()
