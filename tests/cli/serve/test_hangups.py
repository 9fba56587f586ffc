"""`sipc serve`: clients that close early, or send malformed requests."""

from __future__ import annotations

import signal
import socket
import subprocess

import pytest
from helpers.command import SIPC, Program, sipc
from helpers.procfs import children
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, packets, receive_all

MIB = 1 << 20
USUAL = ("--threads", 1, "--kill-after", "100ms")
FINISH = ("--threads", 1, "--on-hangup", "finish")


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


def test_a_handler_that_ignores_sigterm_never_reads_the_end_of_a_truncated_request(
    server_for, folder
):
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


def test_a_process_left_by_a_handler_never_reads_the_end_of_a_truncated_request(server_for, folder):
    """Its group leader has exited, its output is closed, and it still reads."""
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


def test_a_handler_may_finish_though_the_client_of_its_long_response_has_closed(server_for, folder):
    command = f"cat; head -c 5000000 /dev/zero; : >{folder}/finished"
    server = server_for(command, *FINISH)
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        assert client.recv(9)[4:] == b"hello"  # its packet may contain more bytes
    server.wait_for_log("client closed")
    assert (folder / "finished").exists()


def test_a_handler_may_finish_only_after_a_complete_request(server_for, folder):
    server = server_for(eof_witness(folder), *FINISH)
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
    server.wait_for_log("request incomplete")
    server.wait_until_idle()
    assert not (folder / "eof").exists()


@pytest.mark.parametrize("how", ["kill", "finish"])
def test_no_handler_starts_for_a_client_that_closed_while_its_request_was_queued(
    server_for, folder, gate, how
):
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


def test_a_client_that_read_its_whole_response_counts_as_answered_without_a_flush(
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
def test_malformed_requests_are_refused_and_the_next_request_is_answered(server_for, folder, wire):
    server = server_for(eof_witness(folder))
    with connect(server.path) as client:
        try:
            client.sendall(wire)
            if wire in (NONSENSE["truncated header"], NONSENSE["truncated payload"]):
                client.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # the server refused it before all was written
        assert receive_all(client) == b""
    server.wait_for_log("malformed: .*expected 0000|request incomplete: ")
    server.wait_until_idle()
    assert not (folder / "eof").exists()
    assert ask(server.path, b"") == (b"done\n", True)


def test_a_connection_that_closes_without_a_byte_starts_no_handler_and_is_no_error(
    server_for, folder
):
    server = server_for(f"echo x >>{folder}/runs")
    for _ in range(10):
        connect(server.path).close()
    assert sipc("probe", server.path).returncode == 0
    ask(server.path, b"")
    line = server.wait_for_log(": answered")
    logged = [each for each in server.log.splitlines() if not each.startswith("listening on ")]
    assert logged == [line]
    assert (folder / "runs").read_text() == "x\n"


def test_the_server_ends_a_handler_that_is_stopped_by_a_signal(server_for, folder):
    server = server_for(f": >{folder}/begun; kill -STOP $$")
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
    server.wait_for_log("client closed")
    server.wait_until_idle()


def test_a_second_signal_ends_all_handlers_at_once(endpoint, folder):
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
