"""The file of a trace of `sipc send`, and traces that cannot be written."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import peak_memory
from helpers.scripted_server import ScriptedServer, respond_with, scripted_server
from helpers.sending import echo, start_send, umask
from helpers.soak import soak
from helpers.traces import trace_events, trace_lines
from helpers.waiting import TIMEOUT
from helpers.wire import message, packets, read_message

MIB = 1 << 20


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_only_its_owner_may_read_a_new_trace_file_and_an_old_one_keeps_its_mode(
    endpoint, folder, mask
):
    (folder / "old").touch(0o644)
    (folder / "old").chmod(0o644)
    with ScriptedServer(endpoint, echo), umask(mask):
        for name in ("old", "new"):
            done = run_cli("send", endpoint, "-d", "", "--trace-file", folder / name)
            assert done.returncode == 0
    assert stat.S_IMODE((folder / "old").stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o600 & ~mask


def test_exchanges_are_appended_in_order_each_with_a_different_id(endpoint, folder):
    trace = folder / "trace"
    with scripted_server(endpoint, echo):
        for _ in range(2):
            assert sipc("send", endpoint, "-d", "ping", "--trace-file", trace).returncode == 0
    lines = trace_lines(trace.read_bytes())
    names = list(dict.fromkeys(name for name, _ in lines))
    assert len(names) == 2
    assert [name for name, _ in lines] == [name for name in names for _ in range(6)]


@pytest.mark.parametrize("count", [4, soak(12)])
def test_exchanges_at_the_same_time_do_not_mix_their_lines(endpoint, folder, count):
    trace = folder / "trace"
    payload = b'"\n' * 500_000

    def one(_: int) -> None:
        done = sipc("send", endpoint, "--trace-file", trace, input=payload)
        assert (done.returncode, done.stdout, done.stderr) == (0, payload, b"")

    with scripted_server(endpoint, echo):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(one, range(count)))
    lines = trace_lines(trace.read_bytes())
    names = {name for name, _ in lines}
    assert len(names) == count
    for name in names:
        mine = [event for found, event in lines if found == name]
        assert mine[-1].startswith("= closed: sent bytes=1000")
        assert sum(event.startswith("> sent") for event in mine) > 16


def refused(done, *words: str) -> None:
    assert done.returncode == 1
    assert re.fullmatch(rb"sipc send: cannot open the trace file [^\n]+: [^\n]+\n", done.stderr)
    for word in words:
        assert word.encode() in done.stderr


def test_a_file_that_cannot_be_opened_is_reported_before_anything_is_sent(endpoint, folder):
    os.mkfifo(folder / "unread")
    (folder / "output").write_text("old")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        for name, word in [
            ("no/such", "No such file"),
            (".", "Is a directory"),
            ("unread", "no process reads"),
            ("sock", "no process reads"),
            ("", "No such file"),
        ]:
            arguments = ["-d", "x", "-o", "output", "--trace-file", name]
            refused(run_cli("send", endpoint, *arguments, cwd=folder), word)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert sorted(os.listdir(folder)) == ["output", "sock", "unread"]
    assert (folder / "output").read_text() == "old"


@pytest.mark.parametrize("size", [1, 2 * MIB])
def test_a_full_disk_causes_one_warning_and_the_exchange_continues(endpoint, size):
    payload = os.urandom(size)
    with scripted_server(endpoint, echo):
        done = run_cli("send", endpoint, "--trace-file", "/dev/full", input=payload)
    assert (done.returncode, done.stdout) == (0, payload)
    assert done.stderr == (
        b"sipc send: cannot write the trace to /dev/full: No space left on device:"
        b" the program continues without it\n"
    )


@pytest.mark.parametrize("trace", ["2>&-", "2>/dev/full"])
def test_a_trace_that_cannot_be_written_does_not_stop_the_exchange(endpoint, folder, trace):
    requests = []
    with scripted_server(endpoint, respond_with(message(b"SECRET"), requests)):
        command = f"{SIPC} send {endpoint} -d x --trace --trace-file {folder}/trace {trace}"
        done = subprocess.run(["sh", "-c", command], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"SECRET")
    assert requests == [b"0005x0000"], "no trace on the wire"
    assert len(trace_events((folder / "trace").read_bytes())) == 6


def test_a_reader_of_the_trace_that_exits_does_not_stop_the_exchange(endpoint):
    reader, writer = os.pipe()
    os.close(reader)
    with scripted_server(endpoint, echo):
        command = [SIPC, "send", endpoint, "-d", "x", "--trace"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"x")


@pytest.mark.parametrize("how", ["stderr", "file"])
def test_a_reader_that_does_not_read_the_trace_loses_lines_and_delays_nothing(
    endpoint, folder, how
):
    """More than 350 lines of 500 bytes each do not fit into a pipe."""
    payload = b"\0" * (12 * MIB)
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        with open(fifo, "wb") as writer, scripted_server(endpoint, echo):
            options = ["--trace"] if how == "stderr" else ["--trace-file", fifo]
            done = subprocess.run(
                [SIPC, "send", endpoint, *options],
                input=payload,
                stdout=subprocess.PIPE,
                stderr=writer if how == "stderr" else subprocess.PIPE,
            )
        assert (done.returncode, done.stdout) == (0, payload)
        trace = reader.read()
    assert len(trace) > 30_000
    lines = trace_lines(trace)
    assert lines[0][1].startswith("= connected")
    if how == "file":
        assert re.fullmatch(
            rb"sipc send: [^\n]*fifo: \(\d+ lines were lost: the trace was full or not read\):"
            rb" read it while it is written\n",
            done.stderr,
        )
        lost = int(re.search(rb"\((\d+) lines", done.stderr)[1])
        assert lost > len(lines)


def test_the_trace_says_how_many_lines_a_slow_reader_lost(endpoint, folder):
    size = 12 * MIB
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    go = threading.Event()

    def conversation(connection):
        read_message(connection)
        connection.sendall(packets(bytes(size)))
        assert go.wait(TIMEOUT)
        connection.sendall(b"0000")

    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with (
        scripted_server(endpoint, conversation),
        start_send(endpoint, "-d", "x", "--trace-file", fifo) as client,
    ):
        assert len(client.stdout.read(size)) == size
        trace = os.read(reader, MIB)
        go.set()
        assert client.stdout.read() == b""
        assert client.wait() == 0
        trace += os.read(reader, MIB)
    os.close(reader)
    found = re.findall(
        rb"^\((\d+) lines were lost: the trace was full or not read\)\n", trace, re.M
    )
    assert len(found) == 1
    rest = re.sub(rb"^\(.*\n", b"", trace, flags=re.M)
    assert len(trace_lines(rest)) + int(found[0]) == -(-size // 65516) + 5
    assert trace_lines(rest)[-1][1].startswith("= closed")


def test_send_traces_to_a_file_whose_name_is_not_utf_8(folder):
    endpoint, trace = os.fsencode(folder) + b"/s\xff\n", os.fsencode(folder) + b"/t\xff"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(endpoint)
        listener.listen()
        with Program([SIPC, "send", endpoint, "-d", "x", "--trace-file", trace]) as client:
            with listener.accept()[0] as connection:
                read_message(connection)
                connection.sendall(b"0000")
            assert client.wait() == 0
    assert (
        rf'= connected to "{folder}/s\xff\n": '
        in trace_events(Path(os.fsdecode(trace)).read_bytes())[0]
    )


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_the_trace_does_not_depend_on_the_locale(endpoint, locale):
    with scripted_server(endpoint, echo):
        env = environment(LC_ALL=locale, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
        done = sipc("send", endpoint, "--trace", input="pä".encode(), env=env)
    assert done.stdout == "pä".encode()
    assert r'> sent 0007 (7 bytes): "p\xc3\xa4"' in trace_events(done.stderr)


def test_the_request_that_a_handler_answers_is_in_its_trace(endpoint):
    with scripted_server(endpoint, echo):
        env = environment(SIPC_REQUEST_ID='12-3 "\x1b' + "x" * 1000)
        done = run_cli("send", endpoint, "-d", "", "--trace", env=env)
    first = done.stderr.split(b"\n")[0].decode()
    assert rf' = connected for request "12-3 \"\x1b{"x" * 57}" to "{endpoint}": pid=' in first


@pytest.mark.parametrize("size", [80_000_000, soak(200_000_000)])
def test_the_trace_of_a_large_exchange_is_not_held_in_memory(endpoint, folder, size):
    trace = folder / "trace"
    with (
        scripted_server(endpoint, echo),
        Program(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as head,
        start_send(endpoint, "--trace-file", trace, stdin=head.stdout) as client,
    ):
        head.stdout.close()
        received = 0
        while piece := client.stdout.read(MIB):
            received += len(piece)
            if received < size - 20 * MIB:  # after that the client may have ended
                peak = peak_memory(client.pid)
        assert (received, client.wait(), head.wait()) == (size, 0, 0)
    assert peak < 64 * MIB
    last = trace_events(trace.read_bytes())[-1]
    count = int(re.search(r"received bytes=(\d+)", last)[1])
    assert size < count < size * 1.1


@pytest.mark.parametrize("count", [5000, soak(100_000)])
def test_every_packet_of_a_few_bytes_has_a_line_in_the_trace(endpoint, folder, count):
    trace = folder / "trace"
    with scripted_server(endpoint, respond_with(b"0005x" * count + b"0000")):
        done = run_cli("send", endpoint, "-d", "", "--trace-file", trace)
    assert done.stdout == b"x" * count
    assert trace.read_bytes().count(b' < received 0005 (5 bytes): "x"\n') == count
