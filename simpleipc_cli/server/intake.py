"""A request between its client and its handler: what has come and has not been taken yet.

It waits in the buffer it was read into, as long as nothing more is read; behind that, on
disk. It leaves in the order in which it came.
"""

from __future__ import annotations

from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.message import MessageReader, consume
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.server.handler import Run
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import Stream

_MOST_UNREAD = 1 << 16  # bytes: what a pipe holds (pipe(7))


class _Watchword:
    """Whether a request is exactly some bytes, as far as it has come."""

    def __init__(self, word: bytes) -> None:
        self._word = word
        self._seen = 0

    def feed(self, payload: list[Buffer]) -> None:
        """More has come."""
        for piece in payload:
            end = self._seen + len(piece)
            if self._word[self._seen : end] != piece:
                end = len(self._word) + 1
            self._seen = end

    @property
    def may_follow(self) -> bool:
        """Whether all that has come is how it begins, or all of it."""
        return self._seen <= len(self._word)

    @property
    def is_all(self) -> bool:
        """Whether it is exactly what has come."""
        return self._seen == len(self._word)


class Intake:
    """One request coming in."""

    def __init__(
        self, buffer: memoryview, spool_folder: str, *, hold: bool, watchword: bytes | None = None
    ) -> None:
        """`buffer` is read into. With `hold` all of the request goes to disk first.

        A request that may yet turn out to be the watchword has not begun.
        """
        self._buffer = buffer
        self._hold = hold
        self._watchword = None if watchword is None else _Watchword(watchword)
        self._reader = MessageReader()
        self._inbox: list[Buffer] = []
        self._spool = Spool(spool_folder)
        self._fed = bytearray()  # the beginning of what a run that is kept has taken
        self._fed_bytes = 0  # all that it has
        self.unwanted = False
        """Whether nobody takes the rest: it is still read, for the client's sake, and dropped."""

    @property
    def waiting(self) -> bool:
        """Whether something that came has not been taken."""
        return bool(self._inbox or self._spool)

    @property
    def stores_next(self) -> bool:
        """Whether what is read next goes to disk."""
        return self._hold or bool(self._inbox) or bool(self._spool)

    @property
    def complete(self) -> bool:
        """Whether the flush has come."""
        return self._reader.complete

    @property
    def begun(self) -> bool:
        """Whether it is known to be a request: a byte of payload has come, or the flush."""
        if self._reader.complete:
            return True
        if self._watchword is not None and self._watchword.may_follow:
            return False
        return self._reader.payload_bytes > 0

    @property
    def is_watchword(self) -> bool:
        """Whether it is complete, and the watchword."""
        return self.complete and self._watchword is not None and self._watchword.is_all

    @property
    def inside_packet(self) -> bool:
        """Whether a packet has begun and is not complete."""
        return self._reader.inside_packet

    @property
    def packets(self) -> int:
        """Packets that came whole."""
        return self._reader.packets

    @property
    def payload_bytes(self) -> int:
        """Bytes of payload that came."""
        return self._reader.payload_bytes

    @property
    def trailing_bytes(self) -> int:
        """Bytes that came behind the flush, and were dropped."""
        return self._reader.trailing_bytes

    def read(self, stream: Stream) -> bool:
        """Take what the client has written; False at the end of the stream.

        Raises BlockingIOError if nothing has come, ProtocolError, CutOff at an end before
        the flush, and SipcError if the disk is full.
        """
        if self._inbox and not self._spool:
            self._spool.append(self._inbox)  # it lies in the buffer that is read into next
            self._inbox = []
        count = stream.read_nowait(self._buffer)
        if not count:
            self._reader.end()
            return False
        payload: list[Buffer] = list(self._reader.feed(self._buffer[:count]))
        if self._watchword is not None:
            self._watchword.feed(payload)
        if self.unwanted:
            return True
        if self._hold or self.waiting:
            self._spool.append(payload)
        else:
            self._inbox = payload
        return True

    @property
    def held(self) -> Spool:
        """The whole request, once it is complete, if it was to be held."""
        return self._spool

    def feed(self, run: Run) -> bool:
        """Write as much as the handler takes; True once it has got the whole request.

        Raises SipcError if what waits on disk cannot be read back.
        """
        while self.waiting:
            if not self._inbox:
                self._inbox = [self._spool.take(len(self._buffer))]
            try:
                count = run.write(self._inbox, last=self.complete and not self._spool)
            except BlockingIOError:
                return False
            except PeerClosed:
                run.lose_input()
                if not run.kept:
                    self.discard()
                return False
            if run.kept:
                self._remember(count)
            consume(self._inbox, count)
            if self._inbox:
                return False  # a short write: it will be told when there is room again
        return self.complete and not self.unwanted

    def _remember(self, count: int) -> None:
        """Keep a copy of what was written, as long as all of it may still lie in a pipe."""
        self._fed_bytes += count
        if self._fed_bytes <= _MOST_UNREAD:
            self._fed += b"".join(self._inbox)[:count]

    def rewind(self) -> bool:
        """Let everything wait again, for another run to take; False if that cannot be done.

        It can be where the run has read nothing: that much is remembered.
        """
        if self.unwanted or self._fed_bytes != len(self._fed):
            return False
        if self._fed:
            self._inbox.insert(0, bytes(self._fed))
        self._fed.clear()
        self._fed_bytes = 0
        return True

    def discard(self) -> None:
        """Nobody takes the rest."""
        self.unwanted = True
        self._inbox = []
        self._spool.close()

    def close(self) -> None:
        """Free what it holds."""
        self._spool.close()
