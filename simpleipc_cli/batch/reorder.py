"""Responses on their way out, in the order of their records.

A response whose turn has not come waits: a small one in memory, a large one on disk.
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
            """Return the descriptor to poll when not all was written."""

        def write_nowait(self, payload: memoryview) -> int:
            """Write without blocking; return the number of bytes. Raises SipcError."""

        def write(self, payload: memoryview) -> None:
            """Write all, blocking. Raises SipcError."""


MAX_BUFFERED = 64 * 1024
"""Bytes in front of a sink from which on nothing is added."""

MAX_MEMORY_EACH = 64 * 1024
"""Bytes of one response that wait in memory; most responses then need no file (tunable)."""

MAX_MEMORY = 16 * 1024 * 1024
"""Bytes of all responses that wait in memory (tunable)."""


class OutputFailed(Exception):
    """The output cannot be written to, which ends the batch: no record caused it."""

    def __init__(self, error: SipcError) -> None:
        super().__init__(error)
        self.error = error


class WriteBuffer:
    """Joins small pieces in front of a sink into one write."""

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
        """Write what the sink takes without blocking. Raises OutputFailed."""
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
    """What all waiting responses occupy."""

    size = 0
    """Bytes, in memory and on disk."""
    memory = 0
    """Bytes in memory."""
    files = 0
    """Open files, each of which occupies a descriptor."""

    def __init__(self, *folders: str) -> None:
        """The first of `folders` that works is for the files, which have no names."""
        self.folders = folders


class PendingResponse:
    """The response to one record, and those of its bytes that wait: first in, first out."""

    __slots__ = ("_memory", "_spool", "_usage", "complete", "needs_newline", "number")

    def __init__(self, number: int, usage: BufferUsage) -> None:
        self.number = number
        self.complete = False
        """Whether no more bytes will arrive, after success or failure."""
        self.needs_newline = True
        """Whether its last byte is not a newline."""
        self._usage = usage
        self._memory = bytearray()  # older than what is on disk
        self._spool: Spool | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it holds bytes."""
        return bool(self._memory or self._spool)

    def store(self, payload: memoryview) -> None:
        """Add bytes. Raises SipcError if the disk is full, after storing what fitted."""
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
    """Writes responses, which arrive in any order, in the order of their records."""

    def __init__(self, buffer: WriteBuffer, usage: BufferUsage, separator: bytes) -> None:
        """`separator` ends each response: a newline only if it lacks one, a NUL always."""
        self._buffer = buffer
        self._usage = usage
        self._separator = separator
        self.responses: deque[PendingResponse] = deque()
        """Those that are incomplete or not written, in order."""

    @property
    def is_idle(self) -> bool:
        """Whether everything has been written."""
        return not self.responses and not self._buffer

    def new_response(self, number: int) -> PendingResponse:
        """Add the response to the next record."""
        response = PendingResponse(number, self._usage)
        self.responses.append(response)
        return response

    def deliver(self, response: PendingResponse, payload: memoryview) -> None:
        """Add a part of a response: to the output if it is its turn, else to what waits.

        Raises OutputFailed; SipcError if it cannot be stored.
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
        """Write what the sink takes without blocking. Raises OutputFailed."""
        self._buffer.flush_nowait()
        while not self._buffer.is_full and self._refill():
            self._buffer.flush_nowait()

    def _refill(self) -> bool:
        """Move what is next to the buffer; return whether there was anything."""
        responses, buffer = self.responses, self._buffer
        moved = False
        while responses and not buffer.is_full:
            first = responses[0]
            if first.is_waiting:
                try:
                    buffer.add(first.take(MAX_BUFFERED))
                except SipcError as error:  # after a missing part nothing may follow
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
        """Drop everything that was not written."""
        for response in self.responses:
            response.close()
        self.responses.clear()
