"""`sipc serve --trace` and `--trace-file`, and the proxy that is made of both ends."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import socket
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.command import SIPC, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import descriptors
from helpers.server import Server
from helpers.soak import soak
from helpers.traces import trace_lines
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import MAX_PAYLOAD, ask, connect, decode, message, receive_all

MIB = 1 << 20


def requests_of(trace: bytes) -> dict[str, list[str]]:
    """Return the events of each request."""
    found: dict[str, list[str]] = {}
    for name, event in trace_lines(trace):
        found.setdefault(name, []).append(event)
    return found


def closed(trace: bytes) -> int:
    return len(re.findall(rb" = closed: .*\n", trace))


@pytest.fixture(scope="module")
def _trace(tmp_path_factory):
    return tmp_path_factory.mktemp("trace") / "trace"


@pytest.fixture
def traced_server(_trace, shared_server):
    """Return a server that answers with a command, and the file with its trace of this test."""

    def server(command: str):
        found = shared_server(command, "--trace-file", _trace)
        os.truncate(_trace, 0)
        return found, _trace

    return server


def test_each_request_is_traced_with_its_id_from_the_log(traced_server):
    server, trace = traced_server('echo "$SIPC_REQUEST_ID $(cat)"')
    answers = []
    for number in range(3):
        answers.append(ask(server.path, b"ping%d" % number)[0])
        server.wait_for_log("answered", number + 1)  # a thread may log an earlier one later
    wait_until(lambda: closed(trace.read_bytes()) == 3, "three ends")
    log = server.log
    found = requests_of(trace.read_bytes())
    assert list(found) == re.findall(r"^(\d+-\d+) .*: answered$", log, re.M)
    for number, (name, events) in enumerate(found.items()):
        answer = f"{name} ping{number}\n"
        assert answers[number] == answer.encode()
        size = len(answer) + 4
        assert events == [
            f'= accepted on "{server.path}": pid={os.getpid()} uid={os.getuid()} gid={os.getgid()}',
            f'< received 0009 (9 bytes): "ping{number}"',
            "< received 0000: flush",
            f'> sent {size:04x} ({size} bytes): "{answer[:-1]}\\n"',
            "> sent 0000: flush",
            f"= closed: sent bytes={size + 4} packets=1, received bytes=13 packets=1",
        ]


def test_a_trace_on_stderr_is_interleaved_with_the_log(endpoint):
    with Server(endpoint, "cat", "--trace") as server:
        assert ask(endpoint, b"ping") == (b"ping", True)
        server.wait_for_log("= closed: ")
        server.wait_for_log(": answered$")
        log = server.log
    ours = re.compile(r"^(listening|stopping|\d+-\d+ pid=)")
    trace = [line for line in log.splitlines() if not ours.search(line)]
    assert len(requests_of("\n".join(trace).encode())) == 1
    assert len(trace) == 6


def test_without_the_option_no_trace_is_written(endpoint):
    with Server(endpoint, "cat", "-v") as server:
        ask(endpoint, b"ping")
        server.wait_for_log("answered")
        assert "flush" not in server.log


def one_request(trace) -> list[str]:
    """Return the events of the only request, after it has ended."""
    wait_until(lambda: closed(trace.read_bytes()) == 1, "its end")
    (events,) = requests_of(trace.read_bytes()).values()
    return events


def test_the_trace_of_a_failed_handler_has_an_unfinished_response(traced_server):
    server, trace = traced_server("echo half; exit 3")
    assert ask(server.path, b"x") == (b"half\n", False)
    assert one_request(trace)[3:5] == [
        r'> sent 0009 (9 bytes): "half\n"',
        "> sent unfinished: without a flush, after 9 bytes",
    ]


CLIENTS = {
    "cut off": (
        b"0009he",
        "< received truncated: end of stream inside a packet of 9 bytes, 3 missing",
    ),
    "malformed": (b"0005xzzzz!!", "< received malformed: bad packet length 'zzzz' at byte 5"),
    "after the flush": (b"00000005y", '< received 0005 (5 bytes) after the flush: "y"'),
}


@pytest.mark.parametrize(("wire", "expected"), CLIENTS.values(), ids=CLIENTS)
def test_the_trace_shows_the_defect_of_a_request(traced_server, wire, expected):
    server, trace = traced_server("cat")
    with connect(server.path) as client:
        client.sendall(wire)
        client.shutdown(socket.SHUT_WR)
        receive_all(client)
    assert any(event.startswith(expected) for event in one_request(trace))


def test_a_request_that_arrives_byte_by_byte_has_one_line_for_each_packet(traced_server):
    server, trace = traced_server("cat")
    with connect(server.path) as client:
        for byte in b"0004" + message(b"hello"):
            client.sendall(bytes([byte]))
        assert decode(receive_all(client)) == (b"hello", True)
    assert [event for event in one_request(trace) if event.startswith("<")] == [
        "< received 0004 (4 bytes): empty",
        '< received 0009 (9 bytes): "hello"',
        "< received 0000: flush",
    ]


def test_a_probe_leaves_no_line_in_the_trace(traced_server):
    server, trace = traced_server("cat")
    assert run_cli("probe", server.path).returncode == 0
    ask(server.path, b"x")
    assert len(one_request(trace)) == 6


def test_the_trace_file_is_private_and_not_inherited_by_handlers(endpoint, folder):
    trace = folder / "trace"
    with Server(endpoint, "ls -l /proc/self/fd", "--trace-file", trace) as server:
        listed, _ = ask(endpoint, b"")
        assert b"trace" not in listed
        assert str(trace) in descriptors(server.pid)
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600


def test_a_trace_file_that_cannot_be_opened_prevents_the_start(endpoint, folder):
    done = run_cli("serve", endpoint, "--exec", "cat", "--trace-file", folder / "no" / "such")
    assert done.returncode == 1
    assert re.fullmatch(rb"sipc serve: cannot open the trace file [^\n]+\n", done.stderr)
    assert os.listdir(folder) == []


def test_a_full_disk_causes_one_warning_and_requests_are_answered(endpoint):
    payload = os.urandom(100_000)
    with Server(endpoint, "cat", "--trace-file", "/dev/full") as server:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: ask(endpoint, payload), range(8)))
        server.wait_for_log("answered", 8)
        log = server.log
    assert answers == [(payload, True)] * 8
    assert log.count("trace") == 1
    assert (
        "sipc serve: cannot write the trace to /dev/full: No space left on device:"
        " the program continues without it" in log
    )


def test_a_trace_pipe_that_is_not_read_delays_no_request(endpoint, folder):
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)  # the pipe is soon full
    with Server(endpoint, "head -c 5000000 /dev/zero", "--trace-file", fifo) as server:
        for _ in range(3):
            assert ask(endpoint, b"") == (bytes(5_000_000), True)
        server.wait_for_log("answered", 3)
        assert server.stop() == 0
        assert re.search(
            r"fifo: \(\d+ lines were lost: the trace was full or not read\)", server.log
        )
    os.close(reader)


@pytest.mark.parametrize(("count", "size"), [(8, MIB // 4), soak(16, MIB)])
def test_concurrent_requests_do_not_mix_their_lines(endpoint, folder, count, size):
    trace = folder / "trace"
    payload = b'"\n' * (size // 2)
    with Server(endpoint, "cat", "--trace-file", trace):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(endpoint, payload), range(count)))
    assert answers == [(payload, True)] * count
    found = requests_of(trace.read_bytes())
    assert len(found) == count
    wire = message(payload)
    for events in found.values():
        assert events[0].startswith("= accepted")
        received = f"received bytes={len(wire)} packets={-(-size // MAX_PAYLOAD)}"
        assert received in events[-1]


# -- a proxy ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _proxy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxy")
    front, back, log = (folder / name for name in ("front", "back", "log"))
    command = f"{shlex.quote(SIPC)} send --trace-file {log} {back}"
    with Server(back, "tr a-z A-Z", "--trace-file", folder / "back.log"):
        with Server(front, command, "--trace-file", folder / "front.log"):
            yield folder


@pytest.fixture
def proxy(_proxy):
    """The front server, the back server, and the log of their traffic in this test."""
    for name in ("front.log", "log", "back.log"):
        (_proxy / name).write_bytes(b"")
    return _proxy


def wait_for_ends(folder, count: int) -> dict[str, dict[str, list[str]]]:
    """Return the three traces once each has this many ends."""
    names = ["front.log", "log", "back.log"]
    wait_until(
        lambda: all(closed((folder / name).read_bytes()) == count for name in names), "all ends"
    )
    return {name: requests_of((folder / name).read_bytes()) for name in names}


def test_the_three_traces_of_a_proxy_show_the_same_exchange(proxy):
    payload = b"hello\n\x1b" * 20_000  # 140,000 bytes
    done = sipc("send", proxy / "front", input=payload)
    assert (done.returncode, done.stdout, done.stderr) == (0, payload.upper(), b"")
    traces = wait_for_ends(proxy, 1)
    (front_name,) = traces["front.log"]
    (events,) = traces["log"].values()
    assert events[0].startswith(f'= connected for request "{front_name}" to "{proxy}/back": pid=')
    for name, trace in traces.items():
        (events,) = trace.values()
        shown = re.search(r'"(hello\\n\\x1b)+', " ".join(events))
        assert shown, name
        sent, received = re.fullmatch(
            r"= closed: sent bytes=(\d+) packets=\d+, received bytes=(\d+) packets=\d+", events[-1]
        ).groups()
        assert len(payload) < int(sent) < len(payload) * 1.01
        assert len(payload) < int(received) < len(payload) * 1.01


@pytest.mark.parametrize(("count", "size"), [(3, MIB // 2), soak(6, 3 * MIB)])
def test_concurrent_requests_through_a_proxy_are_unchanged_and_in_one_log(proxy, count, size):
    payloads = [bytes([letter]) * size for letter in b"abcdef"[:count]]
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda payload: ask(proxy / "front", payload), payloads))
    assert answers == [(payload.upper(), True) for payload in payloads]
    traces = wait_for_ends(proxy, count)
    assert {len(trace) for trace in traces.values()} == {count}
    for events in traces["log"].values():
        letters = re.findall(r'bytes\): "(\w)', " ".join(events))
        assert len({letter.lower() for letter in letters}) == 1, "each has only its own payload"


def test_a_proxy_truncates_a_response_that_its_server_has_truncated(endpoint, folder):
    with Server(folder / "failing", "echo half; exit 1"):
        command = f"{shlex.quote(SIPC)} send --trace-file {folder}/flog {folder}/failing"
        with Server(endpoint, command):
            assert ask(endpoint, b"x") == (b"half\n", False)
    events = requests_of((folder / "flog").read_bytes()).popitem()[1]
    assert "< received truncated: end of stream without a flush, after 9 bytes" in events


def test_a_proxy_can_be_started_by_a_command_line_of_a_shell(folder):
    script = """
sipc serve back.sock --exec 'tr a-z A-Z' 2>/dev/null &
sipc serve front.sock --exec 'sipc send --trace-file log back.sock' 2>/dev/null &
sipc probe -q --wait 60s back.sock && sipc probe -q --wait 60s front.sock
echo hello | sipc send front.sock
kill %1 %2; wait
grep -c 'received 0000: flush' log
"""
    path = f"{os.path.dirname(SIPC)}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-mc", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert done.stdout == b"HELLO\n1\n"
