"""Servers in threads that follow a test's script, also a faulty one."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import decode, message, read_message, receive_wire


def receive_request(connection: socket.socket) -> bytes:
    """Read the payload of one whole request."""
    return decode(read_message(connection))[0]


def silent(connection: socket.socket) -> None:
    """Read all bytes and send none, until the client closes."""
    while connection.recv(1 << 20):
        pass


def wait_for_close(connection: socket.socket) -> None:
    """Wait until the client closes. If it has unread bytes, the connection is reset."""
    try:
        assert connection.recv(1) == b""
    except ConnectionResetError:
        pass


def wait_until_unchanged(count) -> None:
    """Wait until a count is above 0 and has not changed for a while; there is no event for this."""
    seen = []

    def is_still() -> bool:
        seen.append(count())
        return seen[-1] > 0 and seen[-50:] == seen[-1:] * 50

    wait_until(is_still, "the count to stop changing")


class ScriptedServer:
    """Calls `converse(connection)` for each connection: in threads, or one after another.

    The end of the `with` stops it, and fails if a conversation has failed. A client may close
    early at any time: what it lacks then is for the test to check.
    """

    def __init__(self, path, converse, *, in_turn: bool = False, backlog: int = 1000) -> None:
        self.path = str(path)
        self._converse = converse
        self._in_turn = in_turn
        self._backlog = backlog
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self.accepted = 0
        self._bind()

    def _bind(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(self._backlog)

    def __enter__(self) -> ScriptedServer:
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(self, kind, *_: object) -> None:
        self.stop()
        assert kind is not None or not self._failures, self._failures

    def stop(self) -> None:
        """Refuse clients, accept those that have connected, and wait for all conversations."""
        self.refuse()
        self._acceptor.join(TIMEOUT)
        for thread in self._threads:
            thread.join(TIMEOUT)

    def refuse(self) -> None:
        """Refuse clients from now on. Those that have connected are still accepted."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _accept(self) -> None:
        with self.listener as listener:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return  # refuse() was called, and no client is left in the queue
                self.accepted += 1
                connection.settimeout(TIMEOUT)
                if self._in_turn:
                    self._talk(connection)
                else:
                    thread = threading.Thread(target=self._talk, args=(connection,))
                    self._threads.append(thread)
                    thread.start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._converse(connection)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BaseException as failure:
            self._failures.append(failure)


class RespondingServer(ScriptedServer):
    """Keeps the payload of every request, and answers with `respond(payload)`, as bytes to send.

    While `go_on` is clear, responses wait.
    """

    def __init__(self, path, respond=message, **options) -> None:
        super().__init__(path, self._answer, **options)
        self.respond = respond
        self.requests: list[bytes] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def _answer(self, connection: socket.socket) -> None:
        payload, is_complete = decode(receive_wire(connection))
        if is_complete:
            self.requests.append(payload)
            self.go_on.wait(TIMEOUT)
            connection.sendall(self.respond(payload))

    def stop(self) -> None:
        self.go_on.set()
        super().stop()


@contextmanager
def scripted_server(path, conversation):
    """Run a server that calls `conversation(connection)` for its only client."""
    with ScriptedServer(path, conversation) as server:
        yield
        wait_until(lambda: server.accepted, "a client to connect")


def endless_response(wire: bytes):
    """A server whose response ends only when the client closes."""

    def conversation(connection):
        receive_wire(connection)
        while True:
            connection.sendall(wire)

    return conversation


def respond_with(wire: bytes, seen: list[bytes] | None = None):
    """A server that reads a request and then writes these bytes."""

    def conversation(connection):
        request = read_message(connection)
        if seen is not None:
            seen.append(request)
        connection.sendall(wire)

    return conversation
