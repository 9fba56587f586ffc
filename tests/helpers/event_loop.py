"""Servers whose event loop the test runs itself, and their clients."""

from __future__ import annotations

import os

from helpers.inprocess_server import RecordingLog
from helpers.wire import connect, message
from simpleipc_cli.api.server import Server
from simpleipc_cli.handlers.base import Program, handler_environment
from simpleipc_cli.process import Command
from simpleipc_cli.server import server as plain
from simpleipc_cli.server.context import ServerConfig
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import listen


class Loop:
    """A server without threads: `run()` waits for events, `call()` makes the next call."""

    def __init__(self, path, callback, **options):
        self.server = Server(path, callback, **options)._listen()
        self.calls = self.server._context.calls
        self.quick = self.server._dispatcher._quick
        self.server._context.handler.start(self.server._poller, bool)

    def run_until(self, is_done):
        while not is_done():
            assert self.server.run_once()

    def call(self):
        run, on_called = self.calls.popleft()
        if run.call is not None:
            run.call()
            on_called()

    def answer(self):
        """Make all calls and events until no request is left."""
        while self.calls or self.server._dispatcher.unanswered:
            if self.calls:
                self.call()
            else:
                self.server.run_once()

    def close(self):
        self.server._end()
        self.server.close()


class ProcessLoop(Loop):
    """The same with processes, which have answered one request."""

    def __init__(self, path, new_handler, command, first):
        """`new_handler` makes the handler of a program."""
        log, descriptors = RecordingLog(), DescriptorLimit()
        environment = handler_environment(os.environ, str(path))
        program = Program(Command(command, os.environ["PATH"]), environment, descriptors, log, 2.0)
        self.pool = new_handler(program)
        listener = listen(str(path), mode=0o600, backlog=16)
        self.server = plain.Server(
            listener, handler=self.pool, config=ServerConfig(), log=log, descriptors=descriptors
        )
        self.calls = self.server._context.calls
        self.quick = self.server._dispatcher._quick
        self.pool.start(self.server._poller, bool)
        client = ask(path, message(first))
        self.run_until(lambda: self.counters()["answered"])
        assert response(client) == message(b"first")

    def counters(self):
        return self.server._dispatcher.stats(idle=0)

    def run_to_the_end(self):
        """Run until the second request has ended."""
        dispatcher = self.server._dispatcher
        self.run_until(lambda: self.counters()["requests"] == 2 and not dispatcher.unanswered)


def ask(endpoint, wire):
    connection = connect(endpoint)
    connection.sendall(wire)
    return connection


def response(connection):
    with connection:
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
        return received
