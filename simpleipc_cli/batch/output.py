"""Answers on their way out, in the order of their records, as far as they are taken."""

from __future__ import annotations

from collections import deque

from simpleipc_cli.batch.reorder import Answer, BufferUsage
from simpleipc_cli.errors import SipcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Sink(Protocol):
        """Where bytes go in the end."""

        def fileno(self) -> int:
            """The descriptor to poll when not all was taken."""

        def write_nowait(self, payload: memoryview) -> int:
            """Write what is taken without waiting, and return how many bytes.

            Raises SipcError.
            """

        def write(self, payload: memoryview) -> None:
            """Write all of it, waiting for room. Raises SipcError."""


ROOM = 64 * 1024
"""Bytes that may wait right before the sink; with more than that it counts as stuck."""

_NEWLINE = b"\n"


class OutputFailed(Exception):
    """The output takes nothing more: the end of everything, and no record's own failure."""

    def __init__(self, error: SipcError) -> None:
        """`error` is what to tell the user."""
        super().__init__(error)
        self.error = error


class WriteBuffer:
    """The last bytes before a sink: many small pieces become one write."""

    __slots__ = ("_bytes", "sink")

    def __init__(self, sink: Sink) -> None:
        """Nothing waits yet."""
        self.sink = sink
        self._bytes = bytearray()

    def __len__(self) -> int:
        """How many bytes wait."""
        return len(self._bytes)

    @property
    def stuck(self) -> bool:
        """Whether so much waits that nothing should be added."""
        return len(self._bytes) >= ROOM

    def add(self, payload: bytes | memoryview) -> None:
        """Let some more wait."""
        self._bytes += payload

    def flush(self) -> None:
        """Write what the sink takes without waiting. Raises OutputFailed."""
        if self._bytes:
            with memoryview(self._bytes) as view:
                try:
                    written = self.sink.write_nowait(view)
                except SipcError as error:
                    raise OutputFailed(error) from error
            del self._bytes[:written]

    def drain(self) -> None:
        """Write all, waiting for room. Raises SipcError."""
        with memoryview(self._bytes) as view:
            self.sink.write(view)
        self._bytes.clear()


class OrderedOutput:
    """Takes answers as they come and hands them on in order, each with an end of its own."""

    def __init__(self, outlet: WriteBuffer, stock: BufferUsage, separator: bytes) -> None:
        """`separator` ends answers: a newline those that lack one, a NUL all."""
        self._outlet = outlet
        self._stock = stock
        self._separator = separator
        self._always = separator != _NEWLINE
        self._answers: deque[Answer] = deque()

    def __len__(self) -> int:
        """How many answers are not complete, or not delivered."""
        return len(self._answers)

    @property
    def idle(self) -> bool:
        """Whether everything has been delivered."""
        return not self._answers and not self._outlet

    @property
    def oldest(self) -> int | None:
        """The number of the oldest answer here, if there is any."""
        return self._answers[0].number if self._answers else None

    def begin(self, number: int) -> Answer:
        """A place for the next record's answer. Numbers go up by one."""
        answer = Answer(number, self._stock)
        self._answers.append(answer)
        return answer

    def deliver(self, answer: Answer, payload: memoryview) -> None:
        """Take a part of an answer: further out if it has its turn, else into store.

        Raises OutputFailed; SipcError if it cannot be stored.
        """
        answer.needs_newline = payload[-1] != _NEWLINE[0]
        outlet = self._outlet
        if answer is self._answers[0] and not answer.waiting and not outlet.stuck:
            outlet.add(payload)
            if outlet.stuck:
                outlet.flush()
        else:
            answer.store(payload)

    def pump(self) -> None:
        """Hand on what is taken without waiting. Raises OutputFailed."""
        self._outlet.flush()
        while not self._outlet.stuck and self._refill():
            self._outlet.flush()

    def _refill(self) -> bool:
        """Move what has its turn to the outlet; False if there was nothing."""
        answers, outlet = self._answers, self._outlet
        moved = False
        while answers and not outlet.stuck:
            first = answers[0]
            if first.waiting:
                outlet.add(self._take(first))
            elif first.complete:
                if self._always or first.needs_newline:
                    outlet.add(self._separator)
                answers.popleft().close()
            else:
                break
            moved = True
        return moved

    def _take(self, answer: Answer) -> bytes:
        try:
            return answer.take(ROOM)
        except SipcError as error:  # with a part of it missing nothing could follow
            raise OutputFailed(error) from error

    def close(self) -> None:
        """Free what is left."""
        while self._answers:
            self._answers.popleft().close()
