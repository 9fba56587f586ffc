"""One thread runs short exchanges; long ones, and those that may block, delay no other."""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.patience import without_limits
from helpers.procfs import children, processes, stop_process, threads
from helpers.server import Server
from helpers.soak import soak
from helpers.unread import unread
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, decode, message, open_connections, packets, receive_all
from helpers.workers import ask_worker, serve_workers

MIB = 1 << 20
WITHOUT_TIMES = without_limits(
    "handlers.exec._QUICK", "handlers.exec._QUICK_FOR", "server.server._PATH_CHECK"
)
"""A program that treats each start of a handler as fast, and runs no periodic task."""


def end_at_once(server: Server) -> None:
    """Abort the server by a second signal, after it has received the first."""
    server.signal()
    server.wait_for_log("^stopping")
    server.signal()
    server.wait()


def test_many_simultaneous_short_requests_need_one_thread(endpoint, gate):
    """One more thread is for the first start, which may be slow."""
    many = 12
    command = f"cat; {gate.wait}; echo done"
    with (
        Server(endpoint, command, "--threads", many, program=WITHOUT_TIMES) as server,
        open_connections(endpoint, many) as clients,
    ):
        gate.open(1)
        assert ask(endpoint, b"hello ") == (b"hello done\n", True)
        for client in clients:
            client.sendall(message(b"hello "))
        wait_until(lambda: len(children(server.pid)) == many, "all handlers to run")
        assert len(threads(server.pid)) == 3  # including the thread that receives signals
        gate.open()
        assert {decode(receive_all(client)) for client in clients} == {(b"hello done\n", True)}


def test_handlers_that_end_slowly_delay_no_other_request(endpoint, folder):
    """Handlers that ignore SIGTERM, whose clients have closed."""
    stubborn = folder / "stubborn"
    command = f"read -r what; test $what = echo && exec cat; trap '' TERM; : >{stubborn}; "
    command += "exec sleep 1000"
    options = ("--kill-after", "1000s", "--threads", "3", "-v")
    with Server(endpoint, command, *options) as server:
        for _ in range(2):
            stubborn.unlink(missing_ok=True)
            with connect(endpoint) as client:
                client.sendall(message(b"stay\n"))
                wait_until(stubborn.exists, "the handler to ignore SIGTERM")
        for number in range(8):
            assert ask(endpoint, b"echo\n%d" % number) == (b"%d" % number, True)
        wait_until(lambda: len(children(server.pid)) == 2, "those two alone to be left")
        end_at_once(server)


def test_processes_left_by_a_handler_that_ignore_sigterm_are_killed(shared_server):
    command = "trap '' TERM; sleep 1000 >/dev/null 2>&1 & cat"
    server = shared_server(command, "--kill-after", "100ms")
    for _ in range(2):
        assert ask(server.path, b"hello") == (b"hello", True)
    wait_until(lambda: set(processes(server.mark)) == {server.pid}, "no other process to be left")


def test_a_handler_whose_program_cannot_be_read_delays_no_other_event(endpoint, folder):
    """As on a file system that hangs; here the test holds a lease on the file (fcntl(2))."""
    program = folder / "program"
    program.write_text("#!/bin/sh\nexec cat\n")
    program.chmod(0o755)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent to the holder of the lease
    try:
        with Server(endpoint, str(program)) as server, connect(endpoint) as client:
            with program.open("r+b") as file:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                client.sendall(message(b"hello"))
                wait_until(lambda: not unread(client), "it to be read")
                server.signal(signal.SIGUSR1)
                assert "in_flight=1" in server.wait_for_log("counters")
            assert decode(receive_all(client)) == (b"hello", True)
    finally:
        signal.signal(signal.SIGIO, before)


def test_a_worker_that_ends_slowly_delays_no_other_request(endpoint):
    worker = (
        "trap '' TERM; cat; exec sleep 1000"  # cat echoes; the shell continues at the end of cat
    )
    options = ("--threads", 2, "--kill-after", "1000s", "-v")
    with serve_workers(endpoint, *options, worker=worker) as server:
        assert ask_worker(endpoint, "x") == b"x"
        (pid,) = children(server.pid)
        stop_process(pid)
        with connect(endpoint) as client:
            client.sendall(packets(b"half"))  # it is replaced, as it has half a request
            assert client.recv(100) == packets(b"half"), "it was handed over"
        for _ in range(3):
            assert ask_worker(endpoint, "y") == b"y"
        os.kill(pid, signal.SIGCONT)
        end_at_once(server)


def test_a_worker_that_ignores_its_end_after_its_last_request_delays_no_other_request(endpoint):
    worker = "trap '' TERM; cat; exec sleep 1000"
    options = ("--threads", 8, "--max-requests-per-worker", 1, "--kill-after", "1000s", "-v")
    with serve_workers(endpoint, *options, worker=worker) as server:
        for _ in range(3):
            assert ask_worker(endpoint, "x") == b"x"
        assert len(children(server.pid)) == 3
        end_at_once(server)


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, MIB // 2 + 1])
def test_requests_around_the_size_limit_for_a_thread_are_answered_unchanged(shared_server, size):
    """In many packets, and in a single write."""
    server = shared_server("exec cat")
    payload = os.urandom(size)
    assert ask(server.path, payload) == (payload, True)
    with connect(server.path) as client:
        for at in range(0, size, 100_000):
            client.sendall(packets(payload[at : at + 100_000]))
        client.sendall(b"0000")
        assert decode(receive_all(client)) == (payload, True)


def test_each_long_request_has_a_worker_thread(endpoint):
    with (
        Server(endpoint, "cat >/dev/null; echo done") as server,
        open_connections(endpoint, 3) as clients,
    ):
        for client in clients:
            client.sendall(packets(bytes(2 * MIB)))
        wait_until(lambda: len(threads(server.pid)) == 5, "a thread for each")
        for client in clients:
            client.sendall(b"0000")
            assert decode(receive_all(client)) == (b"done\n", True)


def test_a_request_that_is_spooled_gets_a_worker_thread(endpoint):
    """Bytes that may still become the quit bytes: no handler gets them before."""
    with Server(endpoint, "cat", "--quit-on", "hello there") as server, connect(endpoint) as client:
        client.sendall(packets(b"hello "))
        wait_until(lambda: not unread(client), "it to be read")
        assert len(threads(server.pid)) == 2  # main and signal thread
        client.sendall(packets(b"the"))
        wait_until(lambda: len(threads(server.pid)) == 3, "a thread")
        client.sendall(message(b" world"))
        assert decode(receive_all(client)) == (b"hello the world", True)


def test_a_queued_request_starts_when_a_worker_thread_is_free(endpoint, gate):
    """Not only when the server handles another event."""
    options = ("--threads", "1", "--whole-request")
    with (
        Server(endpoint, f"{gate.wait}; cat", *options, program=WITHOUT_TIMES) as server,
        open_connections(endpoint, 3) as clients,
    ):
        for client in clients:
            client.sendall(message(b"hello"))
        wait_until(lambda: server.counters()["queued"] == 2, "all to have come")
        waiting = list(clients)  # the server may accept a connection before or after it has sent
        while waiting:
            gate.open(1)
            (client, *_), _, _ = select.select(waiting, [], [], TIMEOUT)
            assert decode(receive_all(client)) == (b"hello", True)
            waiting.remove(client)


def test_short_requests_are_answered_while_clients_do_not_read_long_responses(endpoint):
    """All exchanges that may run at once but one wait until their clients read."""
    with Server(endpoint, "cat", "--threads", 4) as server, ExitStack() as stack:
        stuck = [stack.enter_context(connect(endpoint)) for _ in range(3)]
        payload = bytes(3 * MIB)
        for client in stuck:
            client.sendall(message(payload))  # read ahead, onto disk
        for number in range(8):
            assert ask(endpoint, b"%d" % number) == (b"%d" % number, True)
        wait_until(lambda: len(children(server.pid)) == 3, "theirs alone to be left")
        for client in stuck:
            assert decode(receive_all(client)) == (payload, True)


def test_abort_closes_exchanges_on_the_event_loop_and_in_the_queue(endpoint, folder):
    """One request has a handler, one is half sent, one is queued."""
    begun = folder / "begun"
    command = f": >{begun}; cat >/dev/null; exec sleep 1000"
    options = ("--threads", "2", "--drain-timeout", "100ms")
    with Server(endpoint, command, *options) as server, open_connections(endpoint, 3) as clients:
        clients[0].sendall(message(b"whole"))
        wait_until(begun.exists, "the handler to begin")
        clients[1].sendall(packets(b"half"))
        wait_until(lambda: len(children(server.pid)) == 2, "both handlers to run")
        clients[2].sendall(message(b"waits"))
        server.signal()
        assert [receive_all(client) for client in clients] == [b"", b"", b""]
        assert server.wait() == 143
    assert len([line for line in server.log.splitlines() if "in=" in line]) == 3


def test_a_request_that_begins_after_the_stop_has_the_read_timeout_of_the_drain(endpoint, gate):
    command = f"{gate.wait}; cat"
    options = ("--threads", "1", "--drain-timeout", "0", "--read-timeout", "0")
    with Server(endpoint, command, *options) as server, open_connections(endpoint, 2) as clients:
        clients[0].sendall(message(b"whole"))
        wait_until(lambda: children(server.pid), "its handler")
        clients[1].sendall(packets(b"half"))
        server.signal()
        wait_until(lambda: not endpoint.exists(), "the stop to begin")
        gate.open()
        assert receive_all(clients[0]) == message(b"whole")
        assert receive_all(clients[1]) in (packets(b"half"), b"")  # the handler may be slow
        assert server.wait() == 0


@pytest.mark.parametrize("count", [60, soak(300)])
def test_reused_descriptor_numbers_mix_up_no_connections(endpoint, count):
    """Clients close in all states while others connect: descriptor numbers are often reused."""
    with Server(endpoint, "cat", "--threads", 4) as server, ExitStack() as stack:
        alive: list[tuple[bytes, object]] = []
        for number in range(count):
            client = stack.enter_context(connect(endpoint))
            wire = message(b"%d" % number)
            match number % 3:
                case 0:
                    client.sendall(wire)
                    alive.append((b"%d" % number, client))
                case 1:
                    client.sendall(wire[: number % len(wire)])
                    client.close()
                case 2:
                    client.sendall(wire)
                    client.close()
        for payload, client in alive:
            assert decode(receive_all(client)) == (payload, True)
    assert "Error" not in server.log
    assert Path(endpoint).exists() is False


_COLLECTING = """
import gc, runpy, signal, sys

def collect(*_):
    print("objects in circles:", gc.collect(), file=sys.stderr, flush=True)

gc.disable()
signal.signal(signal.SIGUSR2, collect)
del sys.argv[0]
runpy.run_path(sys.argv[0], None, "__main__")
"""
COLLECTING = [sys.executable, "-c", _COLLECTING]
"""Runs a Python program in which SIGUSR2 frees and counts objects in reference cycles."""


def collect(server: Server, count: int) -> int:
    """Free objects in reference cycles, for the `count`th time; return their number."""
    server.signal(signal.SIGUSR2)
    return int(server.wait_for_log("^objects in circles: ", count).split()[-1])


@pytest.mark.parametrize("start", [Server, serve_workers], ids=["processes", "workers"])
def test_no_request_leaves_reference_cycles(endpoint, start):
    command = {Server: ("cat",), serve_workers: ()}[start]
    with start(endpoint, *command, "-q", wrapper=COLLECTING) as server:
        for _ in range(5):
            assert ask(endpoint, b"pid")[1]
        collect(server, 1)
        for _ in range(30):
            assert ask(endpoint, b"pid")[1]
        server.wait_until_idle()
        assert collect(server, 2) < 30


COUNTING = """
import gc, signal, sys
from simpleipc_cli.cli import main
from simpleipc_cli.server.exchange import Exchange

def count(*_):
    found = sum(type(one) is Exchange for one in gc.get_objects())
    print(found, "exchanges are left", file=sys.stderr, flush=True)

gc.disable()
signal.signal(signal.SIGUSR2, count)
main()
"""


def test_exchanges_are_freed_at_their_end(endpoint):
    """Also before Python's garbage collector runs."""
    program = (sys.executable, "-c", COUNTING)
    options = ["--on-hangup", "finish", "--timeout", "500ms"]
    with Server(endpoint, "sleep 1", *options, program=program) as server:
        with connect(endpoint) as client:
            for _ in range(5):  # four fit into the pipe to the handler, which reads none of them
                client.sendall(packets(bytes(16384)))
                wait_until(lambda: not unread(client), "the server to read that")
        for payload in (b"", packets(b"one"), message(b"hello")):
            with connect(endpoint) as client:
                client.sendall(payload)
        with connect(endpoint) as client:
            client.sendall(message(b"timed out"))
            assert receive_all(client) == b""
        server.wait_until_idle()
        asked = itertools.count(1)

        def all_are_freed():  # the end of an exchange may take a short time
            server.signal(signal.SIGUSR2)
            return server.wait_for_log("exchanges are left", next(asked)).startswith("0 ")

        wait_until(all_are_freed, "all exchanges to be freed")
