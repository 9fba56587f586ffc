"""A process that stays: one request after the other over its standard input and output.

Each message is packets ended by a flush, as on the wire: the request in, the answer out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic, sleep

from simpleipc_cli.buffers import Buffer
from simpleipc_cli.errors import PeerGone, ProtocolError
from simpleipc_cli.handlers import describe
from simpleipc_cli.message import MessageReader
from simpleipc_cli.pktline import FLUSH_PACKET, HEADER_SIZE, MAX_PAYLOAD
from simpleipc_cli.quoting import quoted
from simpleipc_cli.server.handler import Result, Run
from simpleipc_cli.server.limits import LINGER
from simpleipc_cli.transport import READ, Latch, new_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.handlers.pipes import Pipes
    from simpleipc_cli.handlers.spawn import Process

_LEAVE = 1.0  # seconds to end by itself at the end of its input, before SIGTERM; at will
_SHOWN = 60  # bytes of what a worker should not have written, at will
_PAUSE = 0.005  # seconds between looks at what it has not read: no event tells; at will
_EXITING = 0.1  # seconds between the end of an output and the exit that caused it, at will


class Worker:
    """A running worker process, and our ends of its pipes."""

    def __init__(self, number: int, generation: int, process: Process, pipes: Pipes) -> None:
        """Takes over process and pipes. `number` is its place, which a replacement gets."""
        self.number = number
        self.generation = generation
        self.process = process
        self.writer = pipes.writer
        self.reader = pipes.reader
        self.requests = 0
        """How many it was given."""
        self.answers = 0
        """How many it has answered in full."""
        self.pipes = pipes
        self._answered_at = 0.0
        self._poller = new_poller()  # kept, as each request looks at an idle worker
        self._poller.register(self.reader, READ)
        self._poller.register(self.writer, 0)

    def __str__(self) -> str:
        """As the log calls it."""
        return f"worker {self.number} (process {self.process.pid})"

    def is_ready(self) -> bool:
        """Whether it can be handed a request as it is: has read all, and said nothing since."""
        return not self.pipes.unread() and not self._poller.wait(0)

    def rest(self) -> None:
        """It has answered, and waits for its next request."""
        self._answered_at = monotonic()

    def surplus(self) -> str | None:
        """What it wrote, or did, that it should not have while it had no request, if anything.

        One that has not read all of its last request gets the time for that: LINGER seconds
        from its answer. What lies in the pipe would keep the next client waiting.
        """
        has_read_all = self._reads_all()
        ready = [descriptor for descriptor, _ in self._poller.wait(0)]
        if self.reader in ready:
            return self._what_came()
        if self.writer in ready:
            return "closed its standard input"
        return None if has_read_all else f"did not read on for {LINGER:g} s"

    def _reads_all(self) -> bool:
        while self.pipes.unread():
            if self.process.status() is not None or monotonic() >= self._answered_at + LINGER:
                return False
            sleep(_PAUSE)
        return True

    def _what_came(self) -> str | None:
        """What it wrote, or how its output came to an end."""
        buffer = memoryview(bytearray(_SHOWN))
        try:
            data = bytes(buffer[: self.pipes.read(buffer)])
        except BlockingIOError:
            return None
        if data:
            return f"wrote without a request: {quoted(data)}"
        self.process.wait(_EXITING, None)
        status = self.process.status()
        return "closed its standard output" if status is None else f"ended: {describe(status)[1]}"

    def stop(self, grace: float, hurry: Latch | None) -> None:
        """End it and all of its group; its input is not ended before. Raises SipcError."""
        try:
            self.process.stop(grace, hurry)
        finally:
            self._poller.close()
            self.pipes.close()

    def retire(self, grace: float, hurry: Latch | None) -> None:
        """End one that has no request: by the end of its input, if it minds that."""
        self.pipes.close_writer()
        self.process.wait(min(grace, _LEAVE), hurry)
        self.stop(grace, hurry)


class WorkerRun(Run):
    """One request being answered by a worker."""

    kept = True

    def __init__(
        self,
        worker: Worker,
        may_stay: Callable[[Worker], bool],
        done: Callable[[WorkerRun, float, Latch | None], None],
    ) -> None:
        """`done` is called in the end, as stop() with this run; with one that is fit and
        `may_stay` it does not wait.
        """
        self.worker = worker
        self.input = worker.writer
        self.output = worker.reader
        self.exit = worker.process.descriptor
        self.failure = ""
        """What it did wrong by itself, if it did."""
        self.surplus = ""
        """What it wrote behind its answer, as it can be shown."""
        self.ignored = False
        """Whether it failed and had not read a byte of the request."""
        self._may_stay = may_stay
        self._done = done
        # The packet being written. Its length has been promised, and what is not taken is
        # offered again: so, however little the pipe takes at once, the rest of it will come.
        self._header = b""
        self._left = 0
        self._flush = FLUSH_PACKET  # as much of it as was not written
        self._written = 0
        self._answer = MessageReader()
        self._silent = True  # it has not written a byte
        self._ended_at = 0.0  # when its output ended, if it did so by itself
        self._failed: Result | None = None

    @property
    def fit(self) -> bool:
        """Whether the worker has taken all, answered in full, and can be given another."""
        return self._answer.complete and not self._flush and not self.surplus

    @property
    def answered(self) -> bool:
        """Whether its answer is complete."""
        return self._answer.complete

    # -- the request -----------------------------------------------------------------------

    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:
        """See Run."""
        taken = 0
        try:
            for number, buffer in enumerate(payload, 1):
                piece = memoryview(buffer)
                while piece:
                    count = self._write_piece(piece, last=last and number == len(payload))
                    taken += count
                    piece = piece[count:]
                    if self._header or (self._left and piece):
                        return taken  # the pipe is full
        except BlockingIOError:
            if not taken:
                raise
        except PeerGone:
            if not taken:
                raise PeerGone("the worker has closed its standard input") from None
        return taken

    def _write_piece(self, piece: memoryview, *, last: bool) -> int:
        """Write as much of one packet as is there and is taken; with the very last, the flush."""
        if not self._left:
            self._left = min(len(piece), MAX_PAYLOAD)
            self._header = b"%04x" % (self._left + HEADER_SIZE)
        body = piece[: self._left]
        ends = last and len(body) == len(piece)
        buffers: list[Buffer] = [self._header, body]
        if ends:
            buffers.append(self._flush)
        count = self.worker.pipes.write(buffers)
        self._written += count
        of_header = min(count, len(self._header))
        self._header = self._header[of_header:]
        of_body = min(count - of_header, len(body))
        self._left -= of_body
        self._flush = self._flush[count - of_header - of_body :]
        return of_body

    def end_input(self) -> None:
        """See Run."""
        try:
            if self._flush and self.input >= 0:
                count = self.worker.pipes.write([self._flush])
                self._written += count
                self._flush = self._flush[count:]
        except BlockingIOError:
            return
        except PeerGone:
            pass
        self.lose_input()

    def lose_input(self) -> None:
        """See Run. The pipe stays: its end would be taken for the request's."""
        self.input = -1

    # -- the answer ------------------------------------------------------------------------

    def read(self, buffer: memoryview) -> list[memoryview]:
        """See Run."""
        count = self.worker.pipes.read(buffer)
        if not count:
            self._ended_at = monotonic()
            return []
        self._silent = False
        pieces = self._decode(buffer[:count])
        if not pieces and self.output >= 0:
            raise BlockingIOError  # half a packet's length, say
        return pieces

    def _decode(self, data: memoryview) -> list[memoryview]:
        """The payload in what came; ends the output at the flush, and at nonsense."""
        pieces = []
        try:
            for piece in self._answer.feed(data):
                pieces.append(piece)  # noqa: PERF402 - those before nonsense are good
        except ProtocolError as error:
            bad = data[max(0, len(data) - self._answer.unread - HEADER_SIZE) :]
            self.failure = f"wrote what is no packet: {error}: {quoted(bad[:_SHOWN])}"
            self.output = -1
        if self._answer.complete:
            self.output = -1
            behind = len(data) - self._answer.trailing_bytes
            if behind < len(data):
                self.surplus = quoted(data[behind:][:_SHOWN])
        return pieces

    def end_output(self) -> None:
        """See Run. The pipe stays for the next answer."""
        self.output = -1

    def result(self) -> Result | None:
        """See Run."""
        if self._answer.complete:
            return Result(True, "-", "answered")
        if self._failed is None and self.output < 0:
            self._failed = self._how_it_failed()
        return self._failed

    def _how_it_failed(self) -> Result | None:
        """What an output that has ended without an answer means; None if more may be known soon."""
        process = self.worker.process
        if not self.failure and process.status() is None and monotonic() < self._ended_at + LINGER:
            return None  # its exit may be on the way: it tells more
        word, untouched = "-", False
        # Also of one that has ended: what nobody has read lies in the pipe still.
        self.ignored = self.worker.pipes.unread() == self._written
        if not self.failure:
            status = process.status()
            if status is None:
                self.failure = "closed its standard output in mid-answer"
            else:
                word, how = describe(status)
                self.failure = f"ended before its answer was complete: {how}"
                # One that ends after an answer, as it may, can be handed a request just before.
                untouched = self.worker.answers > 0 and self._silent and self.ignored
        return Result(False, word, f"{self.worker} {self.failure}", untouched)

    def stop_now(self) -> None:
        """See Run."""
        if not self.fit or not self._may_stay(self.worker):
            raise BlockingIOError
        self.stop(0.0, None)

    def stop(self, grace: float, hurry: Latch | None) -> None:
        """See Run. A worker that is fit for it stays."""
        self.worker.requests += 1
        self.worker.answers += self._answer.complete
        self._done(self, grace, hurry)
