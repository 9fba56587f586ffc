"""`sipc serve`: clients that close, send nothing, or send malformed requests."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from threading import Event

import pytest
from helpers.command import SIPC, Program, environment, needs_root, sipc
from helpers.procfs import children, descriptors, is_in_syscall, peak_memory, stop_process
from helpers.server import Server
from helpers.unread import unread
from helpers.waiting import wait_until
from helpers.wire import (
    ask,
    connect,
    decode,
    message,
    open_connections,
    packets,
    receive_all,
)

MIB = 1 << 20
USUAL = ("--threads", 1, "--kill-after", "100ms")
FINISH = ("--threads", 1, "--on-hangup", "finish")
SHORT_TIMES = ("--read-timeout", "300ms", "--write-timeout", "300ms")
SHORT_TIMEOUT = ("--timeout", "1s", "--kill-after", "100ms")
"""Options of servers that several tests share."""


@pytest.fixture
def server_for(shared_server):
    """Return a server that answers with a command; most tests share it."""
    return lambda command, *options: shared_server(command, *(options or USUAL))


def eof_witness(folder) -> str:
    """Return a handler that makes files at its start and at the end of its input."""
    return f": >{folder}/begun; cat >/dev/null; : >{folder}/eof; echo done"


@pytest.mark.parametrize("options", [(), ("--whole-request",)], ids=["streaming", "whole"])
@pytest.mark.parametrize("payload", [b"hello", bytes(2 * MIB)], ids=["short", "long"])
def test_a_handler_never_reads_the_end_of_a_request_whose_client_closed(
    server_for, folder, options, payload
):
    server = server_for(eof_witness(folder), *options)
    with connect(server.path) as client:
        client.sendall(packets(payload))
        if not options:
            wait_until((folder / "begun").exists, "the handler to begin")
    server.wait_for_log("request incomplete")
    server.wait_until_idle()
    assert (folder / "begun").exists() == (not options)
    assert not (folder / "eof").exists()


def test_a_handler_that_ignores_sigterm_does_not_read_the_end_either(server_for, folder):
    server = server_for(f"trap '' TERM; {eof_witness(folder)}")
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
    server.wait_for_log("request incomplete")
    server.wait_until_idle()
    assert not (folder / "eof").exists()


def test_a_half_close_before_the_flush_truncates_the_request(server_for, folder):
    server = server_for(eof_witness(folder))
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
        server.wait_for_log("request incomplete")
        assert not (folder / "eof").exists()


def test_a_process_left_by_a_handler_does_not_read_the_end_of_half_a_request(server_for, folder):
    """Its leader has exited, its output is closed, and it still reads."""
    command = f"exec 3<&0; (trap '' TERM; cat <&3; : >{folder}/eof) >/dev/null & exec >&-"
    server = server_for(command)
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        assert client.recv(100) == b"0000"
    server.wait_until_idle()
    assert not (folder / "eof").exists()


@pytest.mark.parametrize("how", ["kill", "finish"])
def test_a_client_killed_during_the_response_kills_the_handler_or_lets_it_finish(
    server_for, folder, gate, how
):
    command = f"cat; trap ': >{folder}/term; exit 1' TERM; echo more; "
    command += f"{gate.wait}; : >{folder}/finished"
    patient = ("--threads", 1, "--kill-after", "1000s")
    server = server_for(command, *{"kill": patient, "finish": FINISH}[how])
    command = [SIPC, "send", server.path, "-d", "hello\n"]
    with Program(command, stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"hello\n"
        assert client.stdout.readline() == b"more\n"
        client.kill()
    if how == "kill":
        server.wait_for_log("client closed")
    else:
        assert len(children(server.pid)) == 1
        gate.open()
        server.wait_for_log("client closed.*allowed to finish")
    server.wait_until_idle()
    assert (folder / "term").exists() == (how == "kill")
    assert (folder / "finished").exists() == (how == "finish")


def test_a_handler_may_finish_although_no_client_reads_its_megabytes(server_for, folder):
    command = f"cat; head -c 5000000 /dev/zero; : >{folder}/finished"
    server = server_for(command, *FINISH)
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        assert client.recv(9)[4:] == b"hello"  # its packet may hold more
    server.wait_for_log("client closed")
    assert (folder / "finished").exists()


def test_finishing_is_for_complete_requests_only(server_for, folder):
    server = server_for(eof_witness(folder), *FINISH)
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
    server.wait_for_log("request incomplete")
    server.wait_until_idle()
    assert not (folder / "eof").exists()


@pytest.mark.parametrize("how", ["kill", "finish"])
def test_a_client_that_closes_while_queued_gets_no_handler(server_for, folder, gate, how):
    command = f"echo x >>{folder}/runs; {gate.wait}; cat"
    server = server_for(command, *{"kill": USUAL, "finish": FINISH}[how])
    with connect(server.path) as first:
        first.sendall(message(b"first"))
        wait_until((folder / "runs").exists, "the first handler")
        with connect(server.path) as gone:
            gone.sendall(message(b"second"))
        gate.open()
        assert decode(receive_all(first)) == (b"first", True)
    server.wait_for_log("client closed|request incomplete")
    assert (folder / "runs").read_text() == "x\n"


def test_a_client_that_reads_the_response_without_completing_its_request_was_answered(
    server_for,
):
    server = server_for("echo done")
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        answer = b""
        while not answer.endswith(b"0000"):
            answer += client.recv(100)
        assert answer == message(b"done\n")
    server.wait_for_log("in=5 out=5 status=0 .*: answered")


NONSENSE = {
    "text": b"GET / HTTP/1.0\r\n\r\n",
    "truncated header": b"00",
    "truncated payload": b"0009hel",
    "bad hex": b"00g5x",
    "plus sign": b"+00fhello-hello",
    "delim": b"0001",
    "response end": b"0002",
    "length 3": b"0003",
    "over-long": b"fff1" + bytes(65517),
    "ffff": b"ffff" + bytes(70000),
    "after a packet": packets(b"hello") + b"zzzz",
}


@pytest.mark.parametrize("wire", NONSENSE.values(), ids=NONSENSE)
def test_malformed_requests_are_refused_and_the_next_is_answered(server_for, folder, wire):
    server = server_for(eof_witness(folder))
    with connect(server.path) as client:
        try:
            client.sendall(wire)
            if wire in (NONSENSE["truncated header"], NONSENSE["truncated payload"]):
                client.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # it was refused before it was all written
        assert receive_all(client) == b""
    server.wait_for_log("malformed: .*expected 0000|request incomplete: ")
    server.wait_until_idle()
    assert not (folder / "eof").exists()
    assert ask(server.path, b"") == (b"done\n", True)


def test_a_connection_closed_without_a_byte_runs_nothing_and_is_no_error(server_for, folder):
    server = server_for(f"echo x >>{folder}/runs")
    for _ in range(10):
        connect(server.path).close()
    assert sipc("probe", server.path).returncode == 0
    ask(server.path, b"")
    line = server.wait_for_log(": answered")
    logged = [each for each in server.log.splitlines() if not each.startswith("listening on ")]
    assert logged == [line]
    assert (folder / "runs").read_text() == "x\n"


def test_descriptors_taken_by_requests_make_others_wait_and_none_fail(endpoint, gate):
    wrapper = ["prlimit", "--nofile=48"]
    with ExitStack() as stack:
        server = stack.enter_context(
            Server(endpoint, f"{gate.wait}; cat", "--threads", 2, wrapper=wrapper)
        )
        stop_process(server.pid)  # so that no connection is idle when the server accepts it
        clients = stack.enter_context(open_connections(endpoint, 40))
        for number, client in enumerate(clients):
            client.sendall(message(b"%d" % number))
        server.signal(signal.SIGCONT)
        server.wait_for_log("out of file descriptors")
        gate.open()
        for number, client in enumerate(clients):
            assert decode(receive_all(client)) == (b"%d" % number, True)


def test_clients_that_stop_after_a_byte_are_closed_and_the_next_is_answered(server_for):
    server = server_for("cat", *SHORT_TIMES)
    with open_connections(server.path, 8) as clients:
        for client in clients:
            client.sendall(b"0")
        assert ask(server.path, b"hello") == (b"hello", True)
        assert [receive_all(client) for client in clients] == [b""] * 8
    server.wait_for_log("read timeout: no data for 0.3 s", count=8)


def drip(client: socket.socket) -> None:
    """Write a byte every 20 ms, until that fails."""
    while True:
        client.sendall(b"x")
        Event().wait(0.02)


def test_a_client_that_writes_a_byte_at_a_time_is_closed_when_a_packet_takes_too_long(endpoint):
    """It writes a byte so often that it is never silent for as long as the limit."""
    with Server(endpoint, "cat", "--read-timeout", "2s") as server, connect(endpoint) as client:
        client.sendall(b"fff0")

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(client)
        server.wait_for_log("read timeout: a packet was not complete after 2 s")


def test_the_read_timeout_does_not_run_while_the_handler_reads_slowly(endpoint):
    """The client has more to write than the handler reads."""
    with Server(endpoint, "sleep 3; wc -c", "--read-timeout", "2s") as server:
        assert ask(endpoint, bytes(5 * MIB)) == (b"5242880\n", True)
        assert "read timeout" not in server.log


def test_an_endless_response_to_a_client_that_does_not_read_stays_out_of_memory(server_for):
    server = server_for("exec yes")
    before = peak_memory(server.pid)
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        wait_until(
            lambda: any(is_in_syscall(pid, "write") for pid in children(server.pid)),
            "the handler to be held up",
        )
        assert peak_memory(server.pid) - before < 24 * MIB
        assert not [name for name in descriptors(server.pid) if "deleted" in name]
    server.wait_for_log("client closed")


def test_a_client_that_never_reads_is_closed(server_for):
    server = server_for("exec yes", *SHORT_TIMES)
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        server.wait_for_log("write timeout: no data moved for 0.3 s")
        server.wait_until_idle()


def test_the_write_timeout_does_not_run_while_the_client_writes(endpoint):
    """Bytes move in one direction: that is enough."""
    command = "head -c 2000000 /dev/zero; cat"
    with Server(endpoint, command, "--write-timeout", "2s") as server, connect(endpoint) as client:
        for _ in range(10):
            client.sendall(packets(bytes(65516)))
            Event().wait(0.25)
        client.sendall(b"0000")
        payload, whole = decode(receive_all(client))
        assert (len(payload), whole) == (2_000_000 + 10 * 65516, True), server.log


def test_the_timeout_ends_a_hanging_handler_and_its_process_group(server_for, folder):
    os.mkfifo(folder / "ready")
    command = f"(trap '' TERM; echo >{folder}/ready; exec sleep 1000) & "
    command += f"read -r _ <{folder}/ready; cat; exec sleep 1000"
    server = server_for(command, *SHORT_TIMEOUT)
    assert ask(server.path, b"hello")[1] is False
    server.wait_for_log("handler timeout: still running after 1 s")
    server.wait_until_idle()


def test_a_request_is_read_to_its_end_after_its_handler_timed_out(server_for):
    server = server_for("exec sleep 1000", *SHORT_TIMEOUT)
    with connect(server.path) as client:
        client.sendall(packets(bytes(200_000)))
        wait_until(lambda: not unread(client), "the server to read on, as the handler has ended")
        client.sendall(packets(bytes(5 * MIB)) + b"0000")
        assert receive_all(client) == b""
        server.wait_for_log("handler timeout")


def test_a_request_longer_than_allowed_is_refused(server_for, folder):
    server = server_for(eof_witness(folder), "--max-request", "1K")
    assert ask(server.path, bytes(1024)) == (b"done\n", True)
    (folder / "eof").unlink()
    assert ask(server.path, bytes(1025)) == (b"", False)
    server.wait_for_log("too large: more than 1024 bytes")
    server.wait_until_idle()
    assert not (folder / "eof").exists()


@needs_root
def test_requests_are_stored_in_the_first_folder_that_works(endpoint, folder):
    """Not in a TMPDIR that is gone, nor in a /var/tmp that is read-only."""
    read_only = 'mount -t tmpfs -o ro none /var/tmp && exec "$@"'
    env = environment(TMPDIR=str(folder / "missing"))
    wrapper = ("unshare", "-m", "sh", "-c", read_only, "-")
    with Server(endpoint, "cat", "--whole-request", wrapper=wrapper, env=env) as server:
        assert ask(endpoint, bytes(MIB)) == (bytes(MIB), True)
        assert "TMPDIR" not in server.log


def test_a_server_warns_at_the_start_if_no_folder_takes_files(endpoint):
    wrapper = ("prlimit", "--fsize=0")
    with Server(endpoint, "cat", "--whole-request", wrapper=wrapper) as server:
        line = server.log.splitlines()[0]
        assert line.startswith("sipc serve: no file can be written in ")
        assert "/var/tmp or /tmp: requests that must be stored fail: set TMPDIR" in line
        assert ask(endpoint, b"x") == (b"", False)
        server.wait_for_log("aborted: cannot write to a spool file")


@needs_root
def test_a_full_disk_ends_a_request_and_not_the_server(endpoint, folder):
    spool = folder / "small"
    spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", spool], check=True)
    try:
        env = {**os.environ, "TMPDIR": str(spool)}
        with Server(endpoint, "cat", "--whole-request", env=env) as server:
            assert ask(endpoint, bytes(3 * MIB)) == (b"", False)
            line = server.wait_for_log("No space left on device")
            assert str(spool) in line
            assert "TMPDIR" in line
            assert ask(endpoint, bytes(1000)) == (bytes(1000), True)
    finally:
        subprocess.run(["umount", spool], check=True)


def test_a_stopped_handler_ends_too(server_for, folder):
    server = server_for(f": >{folder}/begun; kill -STOP $$")
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
    server.wait_for_log("client closed")
    server.wait_until_idle()


def test_a_second_signal_ends_handlers_at_once(endpoint, folder):
    command = f"trap '' TERM; : >{folder}/begun; exec sleep 1000"
    options = ["--kill-after", "1000s", "--drain-timeout", "0"]
    with Server(endpoint, command, *options) as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
        server.signal(signal.SIGTERM)
        wait_until(lambda: not endpoint.exists(), "the path to go")
        server.signal(signal.SIGTERM)
        assert server.wait() == 143
        assert decode(receive_all(client)) == (b"", False)
        assert "aborted: " in server.log


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

        def all_are_freed():  # an exchange that ends may take a moment
            server.signal(signal.SIGUSR2)
            return server.wait_for_log("exchanges are left", next(asked)).startswith("0 ")

        wait_until(all_are_freed, "all exchanges to be freed")


BROKEN = """
from simpleipc_cli.cli import main
from simpleipc_cli.server.exchange import Exchange

def fail(self, io, events):
    raise RuntimeError("a defect")

Exchange._on_output = fail
main()
"""


def test_a_request_that_ends_with_an_internal_error_delays_no_other(endpoint):
    program = (sys.executable, "-c", BROKEN)
    ignores = endpoint.with_name("ignores")
    command = "trap '' TERM; read word; test $word = loud && echo; "
    command += f"test $word = silent && touch {ignores}; exec sleep 1000"
    with Server(endpoint, command, "--kill-after", "1000s", program=program) as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"loud\n"))
            assert receive_all(client) == b""
        with connect(endpoint) as another:
            another.sendall(packets(b"silent\n"))
            wait_until(ignores.exists, "the other's handler to ignore SIGTERM")
        for _ in range(2):
            server.signal()
            wait_until(lambda: not endpoint.exists(), "it to begin to stop")
        assert server.wait() == 143
        assert "RuntimeError('a defect')" in server.log


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["plain", "verbose"])
def test_the_log_shows_on_request_where_an_internal_error_was_raised(endpoint, options):
    with Server(endpoint, "echo", *options, program=(sys.executable, "-c", BROKEN)) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"x"))
            assert receive_all(client) == b""
        line = server.wait_for_log(r"RuntimeError\('a defect'\)")
        assert bool(re.search(r"raised in .* > fail:\d+", line)) == bool(options)
