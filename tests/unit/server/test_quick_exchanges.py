"""Requests that are answered without an exchange, by an event loop that the test runs itself."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import termios
from contextlib import closing
from functools import partial

import pytest
from helpers.inprocess_server import RecordingLog
from helpers.procfs import state
from helpers.waiting import wait_until
from helpers.wire import connect, decode, message
from helpers.workers import WORKER

from simpleipc_cli.api.server import Server
from simpleipc_cli.errors import Shortage, SipcError
from simpleipc_cli.handlers import exec as exec_handlers
from simpleipc_cli.handlers.base import Program, handler_environment
from simpleipc_cli.handlers.exec import ProcessRun
from simpleipc_cli.handlers.worker_pool import WorkerPool
from simpleipc_cli.process import Command
from simpleipc_cli.server import dispatcher, quick_exchange
from simpleipc_cli.server import server as plain
from simpleipc_cli.server.context import RequestRecord, ServerConfig
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import listen
from simpleipc_cli.transport.unix.stream import UnixStream

LIMIT = 4096
"""Bytes of a response that is written without an exchange."""


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


@pytest.fixture
def loop(endpoint):
    with closing(Loop(endpoint, lambda request: request)) as loop:
        yield loop


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


def test_a_small_request_is_answered_without_an_exchange(loop, endpoint):
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    assert len(loop.quick) == 1
    assert not loop.server._dispatcher._on_loop
    loop.call()
    assert response(client) == message(b"hello")
    counters = loop.server._dispatcher.stats(idle=0)
    assert (counters["answered"], counters["bytes_in"], counters["bytes_out"]) == (1, 5, 5)


def test_bytes_after_the_request_are_read_and_dropped(loop, endpoint, monkeypatch):
    notes = []
    monkeypatch.setattr(RequestRecord, "note_dropped", lambda _, count: notes.append(count))
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    client.sendall(message(b"more"))
    loop.call()
    assert response(client) == message(b"hello")  # else the end would be a reset connection
    assert notes == [len(message(b"more"))]


@pytest.mark.parametrize(("error", "starts"), [(SipcError, 1), (Shortage, 2)])
def test_a_run_whose_start_fails_may_have_worked_and_is_started_again_only_in_a_shortage(
    loop, endpoint, monkeypatch, error, starts
):
    started = []

    def fail(request, _payload):
        started.append(request)
        raise error("as asked")

    monkeypatch.setattr(loop.server._context.handler, "run_nowait", fail)
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: started)
    loop.answer()
    assert response(client) == b""
    assert len(started) == starts
    assert loop.server._dispatcher.stats(idle=0)["spawn_failed"] == 1


@pytest.mark.parametrize("size", [1, LIMIT - 1, LIMIT, LIMIT + 1, 65516, 65517, 100_000])
def test_requests_and_responses_of_all_sizes_are_answered(loop, endpoint, size):
    client = ask(endpoint, message(bytes(size)))
    loop.run_until(lambda: loop.calls)
    loop.answer()
    assert response(client) == message(bytes(size))
    assert loop.server._dispatcher.stats(idle=0)["bytes_out"] == size


@pytest.mark.parametrize(
    "pieces",
    [
        (b"00", b"09hello0000"),
        (b"0009hello", b"0000"),
        (b"0009hello00", b"00"),
        (b"0007hel", b"0006lo0000"),
    ],
    ids=["header", "flush", "in the flush", "two packets"],
)
def test_a_request_that_arrives_in_pieces_is_answered(endpoint, pieces):
    with Server(endpoint, lambda request: request):
        with connect(endpoint) as client:
            for piece in pieces:
                client.sendall(piece)
                wait_until(lambda: not unread(client), "the piece to be read")
            assert client.recv(100, socket.MSG_WAITALL) == message(b"hello")


def unread(connection):
    """Return how many bytes the server has not read yet."""
    found = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def test_an_empty_response_is_a_flush(endpoint):
    with closing(Loop(endpoint, lambda _: b"")) as loop:
        client = ask(endpoint, message(b"hello"))
        loop.run_until(lambda: loop.calls)
        loop.answer()
        assert response(client) == b"0000"


@pytest.mark.parametrize("taken", [0, 1, 4, 6, 9, 11, 12])
@pytest.mark.parametrize("size", [1, 5, LIMIT])
def test_an_exchange_sends_what_the_connection_does_not_take_at_once(
    loop, endpoint, monkeypatch, taken, size
):
    wire = message(b"x" * size)
    client = ask(endpoint, wire)
    loop.run_until(lambda: loop.calls)
    write = UnixStream.write_nowait

    def write_some(stream, buffers):
        """Write as if the connection had space for so many bytes, but only now."""
        monkeypatch.undo()
        if not taken:
            raise BlockingIOError
        return write(stream, [b"".join(buffers)[:taken]])

    monkeypatch.setattr(UnixStream, "write_nowait", write_some)
    loop.answer()
    assert response(client) == wire
    assert loop.server._dispatcher.stats(idle=0)["answered"] == 1


def test_a_defect_ends_only_its_own_request(loop, endpoint, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    (quick,) = loop.quick
    with monkeypatch.context() as patch:
        patch.setattr(type(quick), "_send", fail)
        loop.call()
    assert response(client) == b""
    assert loop.server._dispatcher.stats(idle=0)["internal_error"] == 1


def test_no_event_is_waited_for_while_a_call_is_due(loop, endpoint, monkeypatch):
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    timeouts = []
    with monkeypatch.context() as patch:
        poller = type(loop.server._poller)
        patch.setattr(poller, "dispatch", lambda _, timeout: timeouts.append(timeout))
        assert loop.server.run_once()
    assert timeouts == [0]
    loop.answer()
    assert response(client) == message(b"hello")


def test_calls_that_wait_when_the_server_drains_are_made(loop, endpoint):
    clients = [ask(endpoint, message(b"hello")) for _ in range(3)]
    loop.run_until(lambda: len(loop.calls) == 3)
    loop.server.stop()
    loop.server.run_once()
    loop.answer()
    assert [response(client) for client in clients] == [message(b"hello")] * 3


def test_calls_that_wait_when_the_server_aborts_are_not_made(endpoint):
    called = []
    with closing(Loop(endpoint, called.append)) as loop:
        clients = [ask(endpoint, message(b"hello")) for _ in range(3)]
        loop.run_until(lambda: len(loop.calls) == 3)
        loop.server.stop()
        loop.server.stop()
        loop.server.run_once()
        loop.answer()
        assert [response(client) for client in clients] == [b""] * 3
        assert not called
        assert loop.server._dispatcher.stats(idle=0)["aborted"] == 3


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


@pytest.fixture
def worker_loop(endpoint):
    new_pool = partial(WorkerPool, max_workers=1, max_requests=None)
    with closing(ProcessLoop(endpoint, new_pool, WORKER, b"echo first")) as loop:
        yield loop


def test_an_idle_worker_answers_a_small_request_without_an_exchange(
    worker_loop, endpoint, monkeypatch
):
    monkeypatch.setattr(type(worker_loop.server._dispatcher), "_new_exchange", None)
    monkeypatch.setattr(quick_exchange, "_MAX_TIME", 3600.0)  # the worker may be slow
    client = ask(endpoint, message(b"echo hello"))
    worker_loop.run_to_the_end()
    assert response(client) == message(b"hello")
    assert worker_loop.pool.stats()["workers_started"] == 1
    assert (worker_loop.counters()["bytes_in"], worker_loop.counters()["bytes_out"]) == (20, 10)


@pytest.mark.parametrize(
    ("words", "payload", "outcome"),
    [
        ("half", b"half", "handler_failed"),
        ("kill", b"hal", "handler_failed"),
        ("nonsense", b"half", "handler_failed"),
        ("behind", b"good", "answered"),
        ("slow", b"slow", "answered"),
    ],
    ids=["half", "kill", "nonsense", "behind", "slow"],
)
def test_an_exchange_continues_what_a_worker_does_not_answer_in_one_packet(
    worker_loop, endpoint, words, payload, outcome
):
    client = ask(endpoint, message(words.encode()))
    answered = worker_loop.counters()["answered"]
    worker_loop.run_to_the_end()
    assert decode(response(client)) == (payload, outcome == "answered")
    assert worker_loop.counters()["answered"] == answered + (outcome == "answered")
    assert outcome == "answered" or worker_loop.counters()[outcome] == 1
    assert worker_loop.pool.stats()["workers_started"] == 1


def test_another_worker_answers_a_request_that_the_first_has_not_read(worker_loop, endpoint):
    (worker,) = worker_loop.pool._idle
    os.kill(worker.process.pid, signal.SIGSTOP)
    wait_until(lambda: state(worker.process.pid) == "T", "it to be stopped")
    client = ask(endpoint, message(b"echo hello"))
    worker_loop.run_until(lambda: worker_loop.quick)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker_loop.run_to_the_end()
    assert response(client) == message(b"hello")
    assert worker_loop.pool.stats()["workers_started"] == 2


def test_a_client_that_leaves_ends_a_worker_that_takes_long(worker_loop, endpoint, folder):
    client = ask(endpoint, message(f"wait {folder}/go {folder}/begun".encode()))
    worker_loop.run_until(lambda: worker_loop.server._dispatcher._on_loop)
    client.close()
    worker_loop.run_to_the_end()
    assert worker_loop.counters()["client_closed"] == 1
    assert worker_loop.pool.stats()["workers_running"] == 0


def test_a_worker_that_takes_long_can_answer_when_the_server_drains(worker_loop, endpoint, folder):
    client = ask(endpoint, message(f"wait {folder}/go".encode()))
    worker_loop.run_until(lambda: worker_loop.quick)
    worker_loop.server.stop()
    worker_loop.run_until(lambda: worker_loop.server._dispatcher._on_loop)
    (folder / "go").touch()
    worker_loop.run_to_the_end()
    assert response(client) == message(b"waited")


HANDLER = 'IFS= read -r what; eval "$what"'
"""Runs the first line of the request as a command, whose input is the rest."""


@pytest.fixture
def exec_loop(endpoint, monkeypatch):
    """A loop that starts a process for each request, which may be slow, and takes it for quick."""
    for limit in ("_QUICK", "_QUICK_FOR"):
        monkeypatch.setattr(exec_handlers, limit, 3600.0)
    monkeypatch.setattr(quick_exchange, "_MAX_TIME", 3600.0)
    new_handler = exec_handlers.ProcessHandler
    with closing(ProcessLoop(endpoint, new_handler, HANDLER, b"printf first\n")) as loop:
        loop.server._dispatcher._quick_from = 0.0  # the output of the first may have waited
        yield loop


@pytest.mark.parametrize("size", [0, 5, LIMIT - 4, LIMIT])
def test_a_process_answers_a_small_request_without_an_exchange(
    exec_loop, endpoint, monkeypatch, size
):
    """A request of more than 4096 bytes is not written before the start."""
    monkeypatch.setattr(type(exec_loop.server._dispatcher), "_new_exchange", None)
    client = ask(endpoint, message(b"cat\n" + bytes(size)))
    exec_loop.run_to_the_end()
    assert response(client) == message(bytes(size))
    assert exec_loop.counters()["answered"] == 2
    assert exec_loop.counters()["bytes_out"] == 5 + size


@pytest.mark.parametrize(
    ("command", "payload", "outcome"),
    [
        ("printf half; exit 3", b"half", "handler_failed"),
        ("printf half; kill -9 $$", b"half", "handler_failed"),
        ("exec >&-; exit 3", b"", "handler_failed"),
        ("printf good; sleep 1000 >/dev/null &", b"good", "answered"),
        ("printf good; sleep 1000 &", b"good", "answered"),
        (f"head -c {LIMIT + 1} /dev/zero", bytes(LIMIT + 1), "answered"),
    ],
    ids=["exit", "kill", "silent", "a child", "a child that writes", "much"],
)
def test_an_exchange_continues_what_is_left_to_do_after_the_exit_of_a_process(
    exec_loop, endpoint, command, payload, outcome
):
    client = ask(endpoint, message(command.encode() + b"\n"))
    answered = exec_loop.counters()["answered"]
    exec_loop.run_to_the_end()
    assert decode(response(client)) == (payload, outcome == "answered")
    assert exec_loop.counters()["answered"] == answered + (outcome == "answered")
    assert outcome == "answered" or exec_loop.counters()[outcome] == 1


@pytest.mark.parametrize("taken", [0, 1, LIMIT, 65_004])
def test_an_exchange_writes_what_the_pipe_to_a_process_does_not_take_at_once(
    exec_loop, endpoint, monkeypatch, taken
):
    client = ask(endpoint, message(b"cat\n" + bytes(65_000)))
    write = ProcessRun.write

    def write_some(run, payload, *, last):
        """Write as if the pipe had space for so many bytes, but only now."""
        monkeypatch.setattr(ProcessRun, "write", write)
        if not taken:
            raise BlockingIOError
        return write(run, [payload[0][:taken]], last=last)

    monkeypatch.setattr(ProcessRun, "write", write_some)
    exec_loop.run_to_the_end()
    assert decode(response(client)) == (bytes(65_000), True)


def test_an_exchange_continues_a_process_whose_output_waits(
    exec_loop, endpoint, folder, monkeypatch
):
    """It passes on the output as it is produced. So do the exchanges of the next requests."""
    monkeypatch.setattr(dispatcher, "_SLOW_FOR", 3600.0)
    command = f"printf begun; : >{folder}/begun; "
    command += f"until test -e {folder}/go; do sleep 0.01; done; printf done\n"
    with ask(endpoint, message(command.encode())) as client:
        exec_loop.run_until(lambda: exec_loop.quick)
        wait_until((folder / "begun").exists, "it to write")
        (quick,) = exec_loop.quick
        quick.due = exec_loop.server._dispatcher.due = 0.0
        exec_loop.run_until(lambda: unread_by_client(client))
        assert client.recv(100) == b"0009begun"
        monkeypatch.setattr(dispatcher, "QuickExchange", None)
        with ask(endpoint, message(b"cat\nnext")) as other:
            exec_loop.run_until(lambda: exec_loop.counters()["answered"] == 2)
            assert other.recv(100) == message(b"next")
        (folder / "go").touch()
        exec_loop.run_until(lambda: exec_loop.counters()["answered"] == 3)
        assert response(client) == message(b"done")


def unread_by_client(connection):
    """Return how many bytes the client has not read yet."""
    found = fcntl.ioctl(connection, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def test_a_client_that_leaves_ends_a_process_that_takes_long(exec_loop, endpoint, monkeypatch):
    monkeypatch.setattr(quick_exchange, "_MAX_TIME", 0.0)
    client = ask(endpoint, message(b"exec sleep 1000\n"))
    exec_loop.run_until(lambda: exec_loop.server._dispatcher._on_loop)
    client.close()
    exec_loop.run_to_the_end()
    assert exec_loop.counters()["client_closed"] == 1
