"""`sipc serve --exec`: requests and responses; either side may read or write first."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.patience import LINGER, without_limits
from helpers.procfs import children, is_waiting, peak_memory, state, threads
from helpers.server import Server
from helpers.soak import soak
from helpers.waiting import wait_until
from helpers.wire import (
    MAX_PAYLOAD,
    ask,
    connect,
    decode,
    message,
    open_connections,
    packets,
    receive_all,
)

MIB = 1 << 20
FLAT = 24 * MIB
"""Bytes: the memory of a server grows by less, with messages of any length."""

VOLUMES = [
    pytest.param(45_000_000, id="45 MB"),
    soak(300_000_000, id="300 MB"),
]

PAYLOADS = {
    "empty": b"",
    "one byte": b"x",
    "text": b"hello\n",
    "NULs and flush packets": b"\0\0" + b"0000" * 3 + b"0001\xff\n\r",
    "one full packet": b"\xfe" * MAX_PAYLOAD,
    "one byte more": b"\xfe" * (MAX_PAYLOAD + 1),
    "three megabytes": os.urandom(3 * MIB),
}

STREAMING = ("-v", "--kill-after", "100ms")
WHOLE = ("--whole-request",)
streamed_and_whole = pytest.mark.parametrize(
    "options", [STREAMING, WHOLE], ids=["streaming", "whole"]
)


@pytest.fixture
def server_for(shared_server):
    """Return a server that answers with a command; most tests share it."""
    return lambda command: shared_server(command, *STREAMING)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@streamed_and_whole
def test_any_payload_is_answered_unchanged(shared_server, payload, options):
    server = shared_server("exec cat", *options)
    assert ask(server.path, payload) == (payload, True)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_any_payload_that_send_sends_is_answered_unchanged(server_for, payload):
    done = sipc("send", server_for("exec cat").path, input=payload)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == payload


def test_a_request_that_arrives_byte_by_byte_is_understood(server_for):
    with connect(server_for("cat").path) as client:
        for byte in message(b"hello"):
            client.sendall(bytes([byte]))
        assert decode(receive_all(client)) == (b"hello", True)


def test_an_empty_packet_does_not_end_a_request(server_for):
    with connect(server_for("cat").path) as client:
        client.sendall(b"0004" + packets(b"one") + b"0004" + packets(b"two") + b"0000")
        assert decode(receive_all(client)) == (b"onetwo", True)


def test_a_request_of_many_packets_gets_a_worker_thread_even_if_they_are_small(endpoint):
    """Parsing packets takes time, which must not delay other exchanges."""
    with Server(endpoint, "cat") as server, connect(endpoint) as client:
        for _ in range(5):
            client.sendall(b"0004" * 1000)
        wait_until(lambda: len(threads(server.pid)) == 3, "a thread for the exchange")
        client.sendall(message(b"hello"))
        assert decode(receive_all(client)) == (b"hello", True)


def test_an_empty_response_is_only_a_flush(server_for):
    with connect(server_for("cat >/dev/null").path) as client:
        client.sendall(message(b"hello"))
        assert receive_all(client) == b"0000"


def test_requests_and_responses_are_streamed(server_for):
    with connect(server_for("cat").path) as client:
        for word in (b"one", b"two", b"three"):
            client.sendall(packets(word))
            assert client.recv(100) == packets(word)
        client.sendall(b"0000")
        assert receive_all(client) == b"0000"


@pytest.mark.parametrize("size", VOLUMES)
def test_a_long_request_from_a_client_that_writes_before_it_reads_is_not_held_in_memory(
    endpoint, size
):
    chunk = packets(os.urandom(15 * MAX_PAYLOAD))
    count = size // (15 * MAX_PAYLOAD)
    with Server(endpoint, "cat") as server, connect(endpoint) as client:
        before = peak_memory(server.pid)
        for _ in range(count):
            client.sendall(chunk)
        client.sendall(b"0000")
        received = 0
        reader = client.makefile("rb", buffering=MIB)
        while header := reader.read(4):
            if header == b"0000":
                break
            received += len(reader.read(int(header, 16) - 4))
        assert received == count * 15 * MAX_PAYLOAD
        assert not reader.read()
        reader.close()
        assert peak_memory(server.pid) - before < FLAT


@pytest.mark.parametrize("size", VOLUMES)
def test_a_long_request_through_a_server_and_a_proxy_is_not_held_in_memory(endpoint, folder, size):
    back = folder / "back"
    with Server(back, "cat") as back_server, Server(endpoint, f"{SIPC} send {back}") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"the relay has begun"))
            client.recv(4, socket.MSG_PEEK)
            pids = [server.pid, back_server.pid, *children(server.pid)]
            before = [peak_memory(pid) for pid in pids]
            zeros = packets(bytes(15 * MAX_PAYLOAD))
            sent = 0
            while sent < size:
                client.sendall(zeros)
                sent += 15 * MAX_PAYLOAD
            client.sendall(b"0000")
            grown = [peak_memory(pid) - was for pid, was in zip(pids, before, strict=True)]
            wire = 0
            while piece := client.recv(MIB):
                wire += len(piece)
                tail = piece[-4:]
        assert wire > size
        assert tail == b"0000"
        assert len(grown) == 3
        assert max(grown) < FLAT


def test_a_handler_may_write_much_before_it_reads(endpoint):
    request = os.urandom(10 * MIB)
    with Server(endpoint, "head -c 30000000 /dev/zero; cat") as server:
        before = peak_memory(server.pid)
        payload, whole = ask(endpoint, request)
        assert whole
        assert len(payload) == 30_000_000 + len(request)
        assert payload.endswith(request)
        assert peak_memory(server.pid) - before < FLAT


@streamed_and_whole
def test_a_handler_that_never_reads_answers_a_client_that_writes_first(shared_server, options):
    assert ask(shared_server("echo done", *options).path, bytes(5 * MIB)) == (b"done\n", True)


def test_the_whole_response_of_a_handler_that_closes_its_input_early_is_sent(server_for):
    server = server_for("exec <&-; head -c 3000000 /dev/zero")
    payload, whole = ask(server.path, bytes(5 * MIB))
    assert (len(payload), whole) == (3_000_000, True)


@pytest.mark.parametrize(
    ("command", "output"),
    [("cat; exit 3", b"hello\n"), ("echo sorry; exit 3", b"sorry\n"), ("kill -9 $$", b"")],
    ids=["after output", "without reading", "killed"],
)
def test_the_response_of_a_failed_handler_has_no_flush(server_for, command, output):
    server = server_for(command)
    assert ask(server.path, b"hello\n") == (output, False)
    line = server.wait_for_log(rf"^{server.pid}-\d+ .*handler failed")
    assert ("exit status 3" in line) == ("exit 3" in command)
    assert ("SIGKILL" in line) == ("kill" in command)


def test_send_reports_a_failed_handler(server_for):
    done = sipc("send", server_for("cat; exit 3").path, input=b"hello\n")
    assert (done.returncode, done.stdout) == (7, b"hello\n")
    assert b"cut off" in done.stderr


def test_a_client_with_5_megabytes_to_write_gets_the_failed_response_and_no_sigpipe(server_for):
    client = "import os,socket,sys;s=socket.socket(1);s.connect(sys.argv[1]);import signal;"
    client += "signal.signal(signal.SIGPIPE,signal.SIG_DFL);"
    client += "[os.write(s.fileno(),b'fff0'+bytes(65516)) for _ in range(80)];"
    client += "os.write(s.fileno(),b'0000');"
    client += "r=b''\nwhile d:=s.recv(65536): r+=d\nprint(r)"
    server = server_for("echo no; exit 3")
    done = subprocess.run([sys.executable, "-ISc", client, server.path], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"b'0007no\\n'\n")


def test_the_server_waits_for_a_filter_that_has_the_output_open(endpoint, script, gate):
    """The process continues when the server knows of the handler's exit and waits for output."""
    handler = script(
        "#!/bin/bash\n"
        f'exec > >(mapfile -t lines; {gate.wait}; printf "<%s>\\n" "${{lines[@]}}")\n'
        "exec cat\n"
    )
    program = without_limits(*LINGER)
    with Server(endpoint, str(handler), program=program) as server, connect(endpoint) as client:
        client.sendall(message(b"1\n2\n3\n"))
        wait_until(lambda: list(map(state, children(server.pid))) == ["Z"], "the handler to exit")
        wait_until(lambda: is_waiting(server.pid), "the server to wait")
        gate.open()
        assert decode(receive_all(client)) == (b"<1>\n<2>\n<3>\n", True)


def test_a_background_process_with_the_output_open_ends_with_the_request(endpoint):
    with Server(endpoint, "cat; sleep 1000 & exit 0", "-q") as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert "holds its output open" in server.wait_for_log("answered")
        server.wait_until_idle()


def test_a_background_process_without_the_output_open_ends_with_the_request(server_for, folder):
    command = f"(trap '' TERM; echo >{folder}/ready; exec sleep 1000) >/dev/null & "
    command = f"mkfifo {folder}/ready; {command} read -r _ <{folder}/ready; cat"
    server = server_for(command)
    assert ask(server.path, b"hello") == (b"hello", True)
    server.wait_until_idle()


def test_variables_tell_the_handler_the_peer_and_nothing_of_the_request(endpoint, folder):
    names = "PROTO UNIXLOCALPATH UNIXREMOTEPID UNIXREMOTEEUID UNIXREMOTEEGID SIPC_REQUEST_ID"
    shown = " ".join(f'"${name}"' for name in names.split())
    with Server("sock", f"printf '%s\\n' {shown}", cwd=folder) as server:
        done = Program(
            [SIPC, "send", endpoint, "-d", "$(touch owned) `touch owned`; touch owned"],
            stdout=subprocess.PIPE,
        )
        answer = done.communicate()[0].decode().split("\n")
        expected = ["UNIX", str(endpoint), str(done.pid), str(os.geteuid()), str(os.getegid())]
        assert answer[:5] == expected
        assert answer[5] == f"{server.pid}-1"
        assert not (folder / "owned").exists()


def test_the_ids_of_requests_differ(server_for):
    server = server_for("echo $SIPC_REQUEST_ID")
    assert len({ask(server.path, b"")[0] for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("text", "command"),
    [("cat\n", "handler.sh"), ("#!/bin/sh\ncat\n", "./handler.sh -x")],
    ids=["without a slash and a shebang", "with both"],
)
def test_a_handler_in_the_working_directory_is_found(folder, script, text, command):
    script(text)
    with Server("sock", command, cwd=folder):
        assert ask(folder / "sock", b"hello") == (b"hello", True)


@pytest.mark.parametrize(
    ("command", "whole"),
    [("read -r line; echo $line | cat", True), ("! cat", False)],
    ids=["succeeds", "fails"],
)
def test_a_command_is_a_shell_command_line(endpoint, command, whole):
    with Server(endpoint, command):
        assert ask(endpoint, b"hello\n") == (b"hello\n", whole)


def test_a_handler_starts_with_default_signals_and_the_original_descriptor_limit(endpoint):
    command = "ulimit -Sn; cat /proc/self/status"
    wrapper = ["sh", "-c", 'trap "" PIPE HUP USR1 XFSZ; ulimit -Sn 64; exec "$@"', "sh"]
    with Server(endpoint, command, wrapper=wrapper) as server:
        with open_connections(endpoint, 80):
            wait_until(lambda: len(server.connections()) >= 80, "all to be accepted")
            limit, *status = ask(endpoint, b"")[0].decode().splitlines()
        assert limit == "64"
        masks = [line.split()[1] for line in status if line.startswith(("SigIgn", "SigBlk"))]
        glibcs = 1 << 31 | 1 << 32  # 32 and 33, which no program but glibc can use
        assert [int(mask, 16) & ~glibcs for mask in masks] == [0, 0]


def test_a_client_that_half_closes_gets_its_response(server_for, gate):
    with connect(server_for(f"cat; {gate.wait}; echo end").path) as client:
        client.sendall(message(b"hello"))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == packets(b"hello")
        gate.open()
        assert receive_all(client) == message(b"end\n")


def test_bytes_after_the_flush_are_dropped_and_the_response_is_delivered(server_for):
    server = server_for("head -c 1000000 /dev/zero")
    with connect(server.path) as client:
        client.sendall(message(b"hello") + b"0009more" + bytes(MIB))
        payload, whole = decode(receive_all(client))
    assert (len(payload), whole) == (1_000_000, True)
    assert "bytes after the flush" in server.wait_for_log("answered")
    server.wait_until_idle()
    assert server.log.count("answered") == 1


def test_request_and_response_are_streamed_at_the_same_time(server_for):
    """Both sides would hang if one direction waited for the end of the other."""
    with connect(server_for("cat").path) as client:
        size = 8 * MIB
        sent = threading.Thread(target=lambda: client.sendall(message(bytes(size))))
        sent.start()
        payload, whole = decode(receive_all(client))
        sent.join()
        assert (len(payload), whole) == (size, True)


def test_with_whole_request_the_standard_input_of_the_handler_is_a_file(shared_server):
    server = shared_server("stat -L -c %F:%s /dev/stdin; cat", *WHOLE)
    assert ask(server.path, b"hello") == (b"regular file:5\nhello", True)


def test_with_whole_request_no_handler_starts_before_the_request_is_complete(shared_server, folder):
    server = shared_server(f": >{folder}/started; cat", *WHOLE)
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        assert ask(server.path, b"other") == (b"other", True)
        (folder / "started").unlink()
    server.wait_for_log("request incomplete")
    assert not (folder / "started").exists()


def test_as_many_requests_are_handled_at_once_as_threads_allows(shared_server, gate):
    """The other requests wait, and none is dropped."""
    server = shared_server(f"{gate.wait}; cat", "--threads", 2)
    with open_connections(server.path, 12) as clients:
        for number, client in enumerate(clients):
            client.sendall(message(b"%d" % number))
        wait_until(lambda: len(children(server.pid)) == 2, "two handlers")
        wait_until(lambda: server.counters()["queued"] == 10, "the others to have come")
        assert server.counters()["in_flight"] == len(children(server.pid)) == 2
        gate.open()
        for number, client in enumerate(clients):
            assert decode(receive_all(client)) == (b"%d" % number, True)


def test_a_missing_command_is_logged_and_fails_the_request(endpoint):
    with Server(endpoint, "no-such-command-here", env=environment()) as server:
        assert ask(endpoint, b"x") == (b"", False)
        assert "command not found: no-such-command-here" in server.log
        server.wait_for_log("exit status 127")
