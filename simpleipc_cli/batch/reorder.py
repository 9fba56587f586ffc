"""Answers that wait for their turn: small ones in memory, the others on disk."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.spool import Spool

MEMORY_EACH = 64 * 1024
"""Bytes of one answer that wait in memory, at will: most answers need no file."""

MEMORY_ALL = 16 * 1024 * 1024
"""Bytes of all answers together that wait in memory, at will."""


class BufferUsage:
    """What all that waits takes up together."""

    __slots__ = ("files", "folder", "memory", "size")

    def __init__(self, folder: str) -> None:
        """`folder` is where files will be made; they have no names."""
        self.folder = folder
        self.size = 0
        """Bytes that wait, wherever."""
        self.memory = 0
        """Bytes of them in memory."""
        self.files = 0
        """Files, and so descriptors."""


class Answer:
    """A record's place in the output, and what waits there: first in, first out."""

    __slots__ = ("_memory", "_spool", "_stock", "complete", "needs_newline", "number")

    def __init__(self, number: int, stock: BufferUsage) -> None:
        """An answer of which nothing has come."""
        self.number = number
        self.complete = False
        """Whether nothing more will come, be it that the record has failed."""
        self.needs_newline = True
        """Whether its last byte is no newline."""
        self._stock = stock
        self._memory = bytearray()  # older than what is on disk
        self._spool: Spool | None = None

    @property
    def waiting(self) -> bool:
        """Whether bytes wait here."""
        return bool(self._memory or self._spool)

    def store(self, payload: memoryview) -> None:
        """Add bytes. Raises SipcError when the disk is full, with what fitted kept."""
        size, stock = len(payload), self._stock
        if (
            not self._spool
            and len(self._memory) + size <= MEMORY_EACH
            and stock.memory + size <= MEMORY_ALL
        ):
            self._memory += payload
            stock.memory += size
            stock.size += size
            return
        spool = self._spool or self._new_spool()
        before = len(spool)
        try:
            spool.append([payload])
        finally:
            stock.size += len(spool) - before

    def take(self, limit: int) -> bytes:
        """Remove and return the oldest bytes, `limit` at most. Raises SipcError."""
        stock = self._stock
        if self._memory:
            taken = bytes(self._memory[:limit])
            del self._memory[:limit]
            stock.memory -= len(taken)
        else:
            taken = self._spool.take(limit) if self._spool is not None else b""
        stock.size -= len(taken)
        return taken

    def close(self) -> None:
        """Free what it holds; what still waits is lost."""
        stock = self._stock
        stock.memory -= len(self._memory)
        stock.size -= len(self._memory)
        self._memory.clear()
        if self._spool is not None:
            stock.size -= len(self._spool)
            stock.files -= 1
            self._spool.close()
            self._spool = None

    def _new_spool(self) -> Spool:
        from simpleipc_cli.spool import Spool  # noqa: PLC0415 - most answers never need one

        if self._spool is None:
            self._spool = Spool(self._stock.folder)
            self._stock.files += 1
        return self._spool
