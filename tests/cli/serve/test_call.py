"""`sipc serve --call`: a Python function in the server's own process answers."""

from __future__ import annotations

import os
import re
import signal
from contextlib import contextmanager

import pytest
from helpers.call_server import CallServer
from helpers.command import assert_error_line, environment, sipc
from helpers.soak import soak
from helpers.waiting import wait_until
from helpers.wire import ask, connect, message, open_connections, receive_all

MODULE = '''\
"""Callbacks of each kind."""
import asyncio, os, subprocess, sys, threading, time

def answer(request):
    if request.startswith(b"wait "):
        open(request[5:] + b".begun", "w").close()
        while not os.path.exists(request[5:]):
            time.sleep(0.01)
    elif request == b"sleep":
        time.sleep(1000)
    elif request == b"fail":
        raise ValueError("as asked")
    elif request == b"blocked":
        return subprocess.check_output(["grep", "SigBlk", "/proc/self/status"])[::-1]
    elif request == b"print":
        print("printed", flush=True)
    return request[::-1]

def stream(request, reply):
    reply.write(answer(request.read()))

async def answer_later(request):
    return await asyncio.to_thread(answer, request)

async def stream_later(request, reply):
    await reply.write(await asyncio.to_thread(answer, await request.read()))

class Answers:
    @staticmethod
    def answer(request):
        return answer(request)

def none(): pass
def three(a, b, c): pass
number = 3
'''
KINDS = ["answer", "stream", "answer_later", "stream_later"]


@pytest.fixture
def module(folder):
    """The module `callbacks` in the folder; a function that changes it."""

    def write(text):
        # In place of the old one at once, and of another size, by which Python knows it.
        new = folder / "callbacks.new"
        new.write_text(text)
        new.rename(folder / "callbacks.py")

    write(MODULE)
    return write


@contextmanager
def calling(endpoint, name, *options, **more):
    """A server that calls a function of the module."""
    more.setdefault("env", environment(PYTHONDONTWRITEBYTECODE="1"))
    with CallServer(
        endpoint, None, "--call", f"callbacks:{name}", *options, cwd=endpoint.parent, **more
    ) as server:
        if name.endswith("later"):
            server.warm_up()  # asyncio's loop stays
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_callback_answers(endpoint, module, kind):
    with calling(endpoint, kind) as server:
        for payload in (b"ping", b"", bytes(range(256)) * 20_000):
            assert ask(endpoint, payload) == (payload[::-1], True)
        assert ask(endpoint, b"fail") == (b"", False)
        assert ask(endpoint, b"ping") == (b"gnip", True)
        line = server.wait_for_log("handler failed")
        assert "ValueError: as asked" in line
        assert 'raise ValueError("as asked")' in server.log
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        traceback, server._lines = server.log, []
    assert traceback.count("Traceback") == 1


def test_a_callback_may_be_an_attribute_of_a_class(endpoint, module):
    with calling(endpoint, "Answers.answer"):
        assert ask(endpoint, b"ping") == (b"gnip", True)


@pytest.mark.parametrize("kind", ["answer", "answer_later"])
def test_a_program_that_a_callback_starts_has_no_blocked_signals(endpoint, module, kind):
    with calling(endpoint, kind):
        assert ask(endpoint, b"blocked")[0][::-1].split() == [b"SigBlk:", b"0" * 16]


def test_print_goes_to_standard_error(endpoint, module):
    with calling(endpoint, "answer") as server:
        assert ask(endpoint, b"print") == (b"tnirp", True)
        server.wait_for_log("^printed$")


# what cannot be called


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing:answer", ["cannot import missing:answer", "ModuleNotFoundError"]),
        ("callbacks:missing", ["cannot import callbacks:missing", "AttributeError"]),
        ("callbacks:none", ["wrong parameters"]),
        soak("callbacks:three", ["wrong parameters"]),
        soak("callbacks:number", ["callback"]),
        ("callbacks", ["MODULE:FUNCTION"]),
        soak(":answer", ["MODULE:FUNCTION"]),
        soak("callbacks:", ["MODULE:FUNCTION"]),
        ("broken:answer", ["SyntaxError"]),
        soak("exits:answer", ["SystemExit"]),
        ("raises:answer", ["two"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_called_is_one_line(endpoint, module, name, words):
    (endpoint.parent / "broken.py").write_text("def answer(:\n")
    (endpoint.parent / "exits.py").write_text("raise SystemExit(3)\n")
    (endpoint.parent / "raises.py").write_text("raise ValueError('two\\nlines')\n")
    done = sipc("serve", endpoint, "--call", name, cwd=endpoint.parent)
    if b"Usage" in done.stderr:
        assert done.returncode == 2
        assert words[0].encode() in done.stderr
    else:
        assert_error_line(done, 1, *words)
    assert not os.path.lexists(endpoint)


def test_an_import_error_has_a_traceback_if_asked_for(endpoint, module):
    debug = environment(SIPC_DEBUG="1")
    done = sipc("serve", endpoint, "--call", "missing:answer", cwd=endpoint.parent, env=debug)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert b"ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("other", [("--exec", "cat"), ("--worker", "cat")], ids=str)
def test_a_server_has_one_kind_of_handler(endpoint, module, other):
    done = sipc("serve", endpoint, "--call", "callbacks:answer", *other, cwd=endpoint.parent)
    assert done.returncode == 2
    assert b"Usage: sipc serve" in done.stderr


# reload


def test_sighup_loads_the_module_again_for_new_requests(endpoint, module, folder):
    with calling(endpoint, "answer") as server:
        with connect(endpoint) as old:
            old.sendall(message(f"wait {folder}/go".encode()))
            wait_until((folder / "go.begun").exists, "a call")
            module(MODULE + "def answer(request): return b'new'\n")
            server.signal(signal.SIGHUP)
            server.wait_for_log("reloaded the callback")
            assert ask(endpoint, b"ping") == (b"new", True)
            (folder / "go").touch()
            assert receive_all(old) == message(f"wait {folder}/go".encode()[::-1])


@pytest.mark.parametrize(
    "broken",
    ["raise SystemExit", "import missing", "def answer(:", "x = 1", "def answer(a, b): pass"],
)
def test_a_module_that_is_broken_keeps_the_old_callback(endpoint, module, broken):
    with calling(endpoint, "answer") as server:
        module(broken + "\n")
        server.signal(signal.SIGHUP)
        server.wait_for_log("cannot reload the callback, the old one stays")
        assert ask(endpoint, b"ping") == (b"gnip", True)
        module(MODULE + "def answer(request): return b'mended'\n")
        server.signal(signal.SIGHUP)
        server.wait_for_log("reloaded the callback")
        assert ask(endpoint, b"ping") == (b"mended", True)


# callbacks that hang


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_ends_after_the_drain_timeout_though_a_callback_hangs(endpoint, module, kind):
    options = ("--timeout", "0.1", "--drain-timeout", "0.2", "--threads", "1")
    with calling(endpoint, kind, *options) as server:
        assert ask(endpoint, b"sleep") == (b"", False)
        server.wait_for_log("still running after 0.1 s")
        with connect(endpoint) as waiting:
            waiting.sendall(message(b"ping"))
            if kind in ("answer", "stream"):
                assert server.counters()["stuck"] == 1
            server.signal()
            receive_all(waiting)
        assert server.wait() in (0, 143)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_signal_ends_the_server_though_a_callback_hangs(endpoint, module, kind):
    with calling(endpoint, kind, "--drain-timeout", "0") as server:
        with connect(endpoint) as client:
            client.sendall(message(b"sleep"))
            wait_until(lambda: server.counters()["in_flight"] == 1, "a call")
            server.signal()
            wait_until(lambda: not os.path.lexists(endpoint), "it to stop")
            server.signal()
            assert server.wait() == 143
            assert receive_all(client) == b""


def test_a_stuck_callback_frees_its_place_when_it_returns(endpoint, module, folder):
    with calling(endpoint, "answer", "--timeout", "0.1", "--threads", "1") as server:
        assert ask(endpoint, f"wait {folder}/go".encode()) == (b"", False)
        server.wait_for_log("occupies a thread")
        with connect(endpoint) as client:
            client.sendall(message(b"ping"))
            wait_until(lambda: server.counters()["queued"] == 1, "it to wait")
            (folder / "go").touch()
            assert receive_all(client) == message(b"gnip")
        assert "stuck" not in server.counters()


# the other options


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_callbacks_as_threads_run_at_once(endpoint, module, folder, kind):
    with calling(endpoint, kind, "--threads", "3") as server:
        with open_connections(endpoint, 5) as clients:
            for number, client in enumerate(clients[:3]):
                client.sendall(message(f"wait {folder}/{number}".encode()))
            wait_until(lambda: all((folder / f"{n}.begun").exists() for n in range(3)), "three")
            for number, client in enumerate(clients[3:]):
                client.sendall(message(f"wait {folder}/{number}".encode()))
            wait_until(lambda: server.counters()["queued"] == 2, "two to wait")
            assert server.counters()["in_flight"] == 3
            for number in range(3):
                (folder / str(number)).touch()
            for number, client in enumerate(clients):
                expected = f"wait {folder}/{number % 3}".encode()[::-1]
                assert receive_all(client) == message(expected)


def test_a_background_server_calls_and_logs(endpoint, module, folder):
    log, pid_file = folder / "log", folder / "pid"
    done = sipc(
        *("serve", "sock", "--call", "callbacks:answer", "--background"),
        *("--log-file", "log", "--pid-file", "pid"),
        cwd=folder,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    pid = int(pid_file.read_text())
    try:
        assert ask(endpoint, b"fail") == (b"", False)
        assert ask(endpoint, b"print") == (b"tnirp", True)
        module(MODULE + "def answer(request): return b'new'\n")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "reloaded the callback" in log.read_text(), "a reload")
        assert ask(endpoint, b"ping") == (b"new", True)
        assert "ValueError: as asked" in log.read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not os.path.lexists(endpoint), "it to stop")


def test_a_background_server_that_cannot_import_says_so(endpoint, module, folder):
    done = sipc("serve", endpoint, "--call", "missing:answer", "--background", cwd=folder)
    assert_error_line(done, 1, "cannot import missing:answer")


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_request_begins_a_call_only_when_it_is_complete(endpoint, module, kind):
    with calling(endpoint, kind, "--whole-request", "--threads", "1") as server:
        with connect(endpoint) as client:
            client.sendall(b"0005p")
            wait_until(lambda: server.counters()["in_flight"] == 1, "a request")
            client.sendall(message(b"ing"))
            assert receive_all(client) == message(b"gnip")


def test_a_server_ends_after_a_number_of_requests(endpoint, module):
    with calling(endpoint, "answer", "--count", "2") as server:
        assert [ask(endpoint, b"ab") for _ in range(2)] == [(b"ba", True)] * 2
        assert server.wait() == 0


def test_the_quit_request_calls_nothing(endpoint, module):
    with calling(endpoint, "answer", "--quit-on", "fail") as server:
        assert ask(endpoint, b"fail") == (b"", True)
        assert server.wait() == 0


def test_counters_add_up(endpoint, module):
    with calling(endpoint, "answer") as server:
        for payload in (b"a", b"fail", b"b", b"fail", b"c"):
            ask(endpoint, payload)
        wait_until(lambda: server.counters()["in_flight"] == 0, "all to end")
        found = server.counters()
        assert (found["answered"], found["handler_failed"], found["requests"]) == (3, 2, 5)
        server._lines = [line for line in server._lines if "Traceback" not in line]


def test_a_record_in_json_is_one_line(endpoint, module):
    with calling(endpoint, "answer", "--log-format", "json") as server:
        assert ask(endpoint, b"fail") == (b"", False)
        server.wait_for_log('"outcome": ?"handler_failed"')
        assert all(re.match(r"\{.*\}$", line) for line in server.log.splitlines())
        server._lines = []
