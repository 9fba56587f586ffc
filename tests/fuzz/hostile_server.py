"""A server in a thread of this process that follows a plan for each connection."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable

from fuzz.conversations import Conversation, Conversations, Plan
from helpers.waiting import TIMEOUT


class ServedConversation(Conversation):
    """A server's end. It gets its plan with the first byte of the request, or at once."""

    def __init__(
        self, connection: socket.socket, next_plan: Callable[[bytes], Plan], *, at_once: bool
    ) -> None:
        super().__init__(connection, None)
        self._next_plan = next_plan
        if at_once:
            self.begin(next_plan(b""))

    def step(self) -> None:
        if self.plan is not None:
            super().step()
        elif start := self._peek():
            self.begin(self._next_plan(start))
        else:
            self.close()

    def _peek(self) -> bytes:
        try:
            return self.connection.recv(1000, socket.MSG_PEEK)
        except ConnectionResetError:
            return b""


class HostileServer:
    """Leaving the `with` stops the server, and raises its error if it has failed."""

    def __init__(self, path, next_plan: Callable[[bytes], Plan], *, at_once: bool = False) -> None:
        """`next_plan` gets the start of a request; with `at_once`, nothing, before the request."""
        self.ended: queue.SimpleQueue[ServedConversation] = queue.SimpleQueue()
        self._next_plan = next_plan
        self._at_once = at_once
        self._failure: BaseException | None = None
        self._stops = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1000)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(self, kind, *_: object) -> None:
        self._stops = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(TIMEOUT)
        self._listener.close()
        assert kind is not None or self._failure is None, self._failure

    def _run(self) -> None:
        conversations = Conversations()
        self._listener.setblocking(False)
        try:
            while not self._stops:
                self._accept(conversations)
                for one in conversations.turn(self._listener):
                    if one.plan is not None:
                        self.ended.put(one)
        except BaseException as failure:
            self._failure = failure
        finally:
            conversations.close()

    def _accept(self, conversations: Conversations) -> None:
        try:
            connection = self._listener.accept()[0]
        except BlockingIOError:
            return
        conversations.open.append(
            ServedConversation(connection, self._next_plan, at_once=self._at_once)
        )

    def take(self, count: int) -> list[ServedConversation]:
        """Wait for the end of this many conversations that had a plan."""
        return [self.ended.get(timeout=TIMEOUT) for _ in range(count)]
