"""`sipc serve`: timeouts, and limits of size."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from helpers.patience import Clock
from helpers.procfs import children, descriptors, is_in_syscall, is_waiting, peak_memory
from helpers.server import Server
from helpers.unread import unread
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, decode, message, open_connections, packets, receive_all

MIB = 1 << 20
SHORT_TIMES = ("--read-timeout", "300ms", "--write-timeout", "300ms")
SHORT_TIMEOUT = ("--timeout", "1s", "--kill-after", "100ms")
"""Options of servers that several tests share."""


def test_clients_that_stop_after_a_byte_are_disconnected_and_the_next_client_is_answered(
    shared_server,
):
    server = shared_server("cat", *SHORT_TIMES)
    with open_connections(server.path, 8) as clients:
        for client in clients:
            client.sendall(b"0")
        assert ask(server.path, b"hello") == (b"hello", True)
        assert [receive_all(client) for client in clients] == [b""] * 8
    server.wait_for_log("read timeout: no data for 0.3 s", count=8)


def write_each_second(client: socket.socket, clock: Clock, wire: bytes, count: int) -> None:
    """Write these bytes at each second of the server's clock."""
    for _ in range(count):
        client.sendall(wire)
        wait_until(lambda: not unread(client), "the server to read that")
        clock.advance(1)


def test_a_client_that_writes_byte_by_byte_is_disconnected_when_a_packet_takes_too_long(
    endpoint, clock
):
    """The client writes a byte so often that no pause reaches the limit."""
    options = ("--read-timeout", "3s")
    with (
        Server(endpoint, "cat", *options, program=clock.program) as server,
        connect(endpoint) as client,
    ):
        client.sendall(b"fff0")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            write_each_second(client, clock, b"x", 1000)
        server.wait_for_log("read timeout: a packet was not complete after 3 s")


def test_the_read_timeout_does_not_run_while_the_handler_reads_slowly(endpoint, gate, clock):
    """The client writes more than the handler reads."""
    command = f"{gate.wait}; wc -c"
    options = ("--read-timeout", "2s")
    wire = memoryview(message(bytes(5 * MIB)))

    def server_waits() -> bool:
        """Write as much as possible; return whether the server does not read that."""
        nonlocal wire
        waits = children(server.pid) and is_waiting(server.pid)
        try:
            wire = wire[client.send(wire) :]
        except BlockingIOError:
            return waits
        return False

    with (
        Server(endpoint, command, *options, program=clock.program) as server,
        connect(endpoint) as client,
    ):
        client.setblocking(False)
        wait_until(server_waits, "the server to wait for the handler")
        client.settimeout(TIMEOUT)
        clock.advance(10)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2.5)  # it looks at its clock in that time
        gate.open()
        client.sendall(wire)
        assert decode(receive_all(client)) == (b"5242880\n", True)


def test_an_endless_response_to_a_client_that_does_not_read_is_not_held_in_memory(shared_server):
    server = shared_server("exec yes")
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


def test_a_client_that_never_reads_is_disconnected(shared_server):
    server = shared_server("exec yes", *SHORT_TIMES)
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        server.wait_for_log("write timeout: no data moved for 0.3 s")
        server.wait_until_idle()


def test_the_write_timeout_does_not_run_while_the_client_still_writes(endpoint, clock):
    """Bytes in one direction are enough to restart the timeout."""
    command = "head -c 2000000 /dev/zero; cat"
    options = ("--write-timeout", "2s")
    with (
        Server(endpoint, command, *options, program=clock.program) as server,
        connect(endpoint) as client,
    ):
        write_each_second(client, clock, packets(bytes(65516)), 10)
        client.sendall(b"0000")
        payload, whole = decode(receive_all(client))
        assert (len(payload), whole) == (2_000_000 + 10 * 65516, True), server.log


def test_the_timeout_ends_a_hanging_handler_and_its_process_group(shared_server, folder):
    os.mkfifo(folder / "ready")
    command = f"(trap '' TERM; echo >{folder}/ready; exec sleep 1000) & "
    command += f"read -r _ <{folder}/ready; cat; exec sleep 1000"
    server = shared_server(command, *SHORT_TIMEOUT)
    assert ask(server.path, b"hello")[1] is False
    server.wait_for_log("handler timeout: still running after 1 s")
    server.wait_until_idle()


def test_a_request_is_read_to_its_end_after_its_handler_timed_out(shared_server):
    server = shared_server("exec sleep 1000", *SHORT_TIMEOUT)
    with connect(server.path) as client:
        client.sendall(packets(bytes(200_000)))
        wait_until(lambda: not unread(client), "the server to read on, as the handler has ended")
        client.sendall(packets(bytes(5 * MIB)) + b"0000")
        assert receive_all(client) == b""
        server.wait_for_log("handler timeout")


def test_a_request_longer_than_the_maximum_is_refused(shared_server, folder):
    command = f"cat >/dev/null; : >{folder}/eof; echo done"
    server = shared_server(command, "--max-request", "1K")
    assert ask(server.path, bytes(1024)) == (b"done\n", True)
    (folder / "eof").unlink()
    assert ask(server.path, bytes(1025)) == (b"", False)
    server.wait_for_log("too large: more than 1024 bytes")
    server.wait_until_idle()
    assert not (folder / "eof").exists()
