"""One end of many connections at once, each of which follows a plan that never blocks.

Waiting takes no time: a conversation that stalls continues when some others have ended, or when all
of them stall.
"""

from __future__ import annotations

import enum
import select
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from fuzz import model, mutations
from fuzz.model import Verdict
from helpers.waiting import TIMEOUT


class Ending(enum.Enum):
    """The action after all pieces are written."""

    READ = "reads until the peer closes"
    HALF_CLOSE = "writes no more, reads until the peer closes"
    CLOSE = "closes at once"
    CLOSE_UNREAD = "closes when there is something to read, and does not read it"
    CLOSE_LATE = "reads nothing, and closes after others have ended"


READING = (Ending.READ, Ending.HALF_CLOSE)


@dataclass
class Plan:
    """The bytes that one end writes, and in which pieces."""

    seed: int
    pieces: list[bytes]
    ending: Ending
    stall_at: int = -1
    """The number of the piece before which the end stalls."""
    stall: int = 0
    """The number of other conversations that must end during the stall."""
    reads_while_writing: bool = True
    reads_message_first: bool = False
    read_size: int = 1 << 16

    def __post_init__(self) -> None:
        self.wire = b"".join(self.pieces)
        self.decoded = model.decode(self.wire)

    @property
    def verdict(self) -> Verdict:
        return self.decoded.verdict

    def __str__(self) -> str:
        shown = [repr(piece[:200]) + "..." * (len(piece) > 200) for piece in self.pieces[:20]]
        return (
            f"input {self.seed}: {self.verdict.value} ({len(self.wire)} bytes), "
            f"{self.ending.value}, stalls {self.stall} at {self.stall_at}, "
            f"reads {'first' * self.reads_message_first} {'always' * self.reads_while_writing} "
            f"{self.read_size}: [{', '.join(shown)}]"
        )


def make_plan(random: Random, seed: int, payload: bytes) -> Plan:
    """Draw a plan: half of the messages are valid ones."""
    packets = mutations.valid(random, payload)
    wire = b"".join(packets) if random.random() < 0.5 else mutations.mutate(random, packets)
    parts = mutations.pieces(random, wire)
    plan = Plan(
        seed,
        parts,
        random.choices(list(Ending), (60, 25, 5, 5, 5))[0],
        reads_while_writing=random.random() < 0.5,
        read_size=random.choice((1, 1000, 1 << 16)) if len(wire) < 500 else 1 << 16,
    )
    if plan.ending is Ending.CLOSE_LATE:
        plan.stall_at, plan.stall = len(parts), 8
    elif random.random() < 0.2:
        plan.stall_at, plan.stall = random.randint(0, len(parts)), random.randint(1, 8)
    return plan


class Conversation:
    """One end of a connection."""

    def __init__(self, connection: socket.socket, plan: Plan | None) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.received = bytearray()
        self.saw_end = False
        self.is_over = False
        self.stall = 0
        """The number of other conversations that must end before it continues."""
        self.plan = plan
        if plan is not None:
            self.begin(plan)

    def begin(self, plan: Plan) -> None:
        self.plan = plan
        self._unsent = deque(plan.pieces)
        self._reads_message = plan.reads_message_first
        self._half_closed = False
        self._stall_before(0)

    def _stall_before(self, piece: int) -> None:
        if piece == self.plan.stall_at:
            self.stall = self.plan.stall

    def _reads(self) -> bool:
        plan = self.plan
        if self._reads_message:
            return True
        may_read = plan.ending in READING and (plan.reads_while_writing or not self._unsent)
        return may_read and not self.saw_end

    def events(self) -> int:
        """Return the events to poll for; 0 if the conversation can continue at once."""
        if self.plan is None or self._reads_message:
            return select.POLLIN
        if self._unsent:
            return select.POLLOUT | (select.POLLIN if self._reads() else 0)
        if self.plan.ending is Ending.HALF_CLOSE and not self._half_closed:
            return 0
        waits = self._reads() or self.plan.ending is Ending.CLOSE_UNREAD
        return select.POLLIN if waits else 0

    def step(self) -> None:
        """Write one piece at most, and read once at most."""
        if self._reads():
            self._receive()
        if self._reads_message:
            return
        if self._unsent:
            self._send()
        if not self._unsent and not self.stall:
            self._end()

    def _send(self) -> None:
        piece = self._unsent.popleft()
        try:
            count = self.connection.send(piece)
        except BlockingIOError:
            count = 0
        except (BrokenPipeError, ConnectionResetError):
            self._unsent.clear()
            return
        if count < len(piece):
            self._unsent.appendleft(piece[count:])
        else:
            self._stall_before(len(self.plan.pieces) - len(self._unsent))

    def _receive(self) -> None:
        try:
            data = self.connection.recv(self.plan.read_size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.received += data
        self.saw_end = not data
        if self._reads_message:
            is_complete = self.received.endswith(b"0000") and (
                model.decode(bytes(self.received)).verdict is Verdict.COMPLETE
            )
            self._reads_message = not (self.saw_end or is_complete)

    def _end(self) -> None:
        ending = self.plan.ending
        if ending is Ending.HALF_CLOSE and not self._half_closed:
            self._half_closed = True
            with suppress(OSError):  # the peer may have closed
                self.connection.shutdown(socket.SHUT_WR)
        if ending in READING:
            if self.saw_end:
                self.close()
        elif ending is not Ending.CLOSE_UNREAD or self._has_unread():
            self.close()

    def _has_unread(self) -> bool:
        try:
            self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        if self.plan is not None and self.plan.ending is Ending.CLOSE_UNREAD:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.is_over = True


class Conversations:
    """Return the conversations that can continue at once."""

    def __init__(self) -> None:
        self.open: list[Conversation] = []

    def turn(self, listener: socket.socket | None = None) -> list[Conversation]:
        """Wait until a conversation can continue, run it; return those that have ended."""
        able = [one for one in self.open if one.stall <= 0]
        if not able:
            able = self.open
            for one in able:
                one.stall = 0
        poll = select.poll()
        events = {one: one.events() for one in able}
        for one, wanted in events.items():
            poll.register(one.connection, wanted)
        if listener is not None:
            poll.register(listener, select.POLLIN)
        timeout = TIMEOUT * 1000 if all(events.values()) else 0
        ready = {number for number, _ in poll.poll(timeout)}
        is_stuck = not ready and timeout > 0 and self.open
        assert not is_stuck, "stuck:\n" + "\n".join(str(one.plan) for one in self.open)
        for one, wanted in events.items():
            if one.connection.fileno() in ready or not wanted:
                one.step()
        over = [one for one in self.open if one.is_over]
        self.open = [one for one in self.open if not one.is_over]
        for one in self.open:
            one.stall = max(0, one.stall - len(over))
        return over

    def close(self) -> None:
        for one in self.open:
            one.close()
