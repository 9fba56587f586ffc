"""`sipc send --progress`: a bar on a terminal after a second, lines elsewhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from contextlib import contextmanager

import pytest
from helpers.command import SIPC, Program
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall, threads
from helpers.scripted_server import ScriptedServer, scripted_server
from helpers.sending import EchoServer, echo
from helpers.terminal import BAR, terminal, terminal_environment, wait_for_bar
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets, read_message

MIB = 1 << 20


class Held:
    """A conversation that reads a request, sends a part of a response, and waits for `go`."""

    def __init__(self, begin: bytes = packets(b"some"), end: bytes = message(b"thing")) -> None:
        self.begin, self.end = begin, end
        self.go = threading.Event()
        self.begun = threading.Event()

    def __call__(self, connection) -> None:
        read_message(connection)
        connection.sendall(self.begin)
        self.begun.set()
        assert self.go.wait(TIMEOUT)
        connection.sendall(self.end)


@contextmanager
def sending(conversation, endpoint, tty, *options, wrapper=(), **popen):
    """Run a client whose stderr is a terminal; wait for the end of it and the conversation."""
    popen = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": tty.slave,
        "env": terminal_environment(),
        **popen,
    }
    with scripted_server(endpoint, conversation):
        with Program([*wrapper, SIPC, "send", endpoint, *options], **popen) as client:
            try:
                yield client
            finally:
                if isinstance(conversation, Held):
                    conversation.go.set()
                client.kill()


def test_a_bar_appears_without_an_option_shows_the_progress_and_disappears(endpoint, folder):
    (folder / "request").write_bytes(bytes(3_000_000))
    held = Held(begin=packets(bytes(1_500_000)))
    with terminal() as tty:
        with sending(held, endpoint, tty, "--data-file", folder / "request") as client:
            response = client.stdout.read(1_500_000)
            both = r"sent +━+ 3\.0 MB of 3\.0 MB .*\nreceived ━+ 1\.5 MB .*"
            wait_until(lambda: re.fullmatch(both, tty.screen.text), "the bar")
            held.go.set()
            assert response + client.stdout.read() == bytes(1_500_000) + b"thing"
            assert client.wait() == 0
        output = tty.finish()
    assert tty.screen.text == ""
    assert (tty.screen.row, tty.screen.column) == (0, 0), "the cursor is where it was"
    assert b"?25" not in output, "the cursor was never hidden"


def test_the_bar_shows_the_size_of_standard_input(endpoint, folder):
    (folder / "request").write_bytes(bytes(3_000_000))
    held = Held()
    with terminal() as tty, open(folder / "request", "rb") as request:
        os.lseek(request.fileno(), 1_000_000, os.SEEK_SET)
        with sending(held, endpoint, tty, "--progress", stdin=request) as client:
            wait_until(lambda: "2.0 MB of 2.0 MB" in tty.screen.text, "what is left of the file")
            held.go.set()
            assert client.wait() == 0


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [(b"", 7, "cut off"), (b"zzzz", 7, "bad packet length"), (b"0000", 10, "not as expected")],
    ids=["cut off", "malformed", "not as expected"],
)
def test_only_an_error_message_stays_on_the_terminal(endpoint, end, status, words):
    held = Held(end=end)
    options = ["-d", "x", "--progress", "--expect", "y"]
    with terminal() as tty:
        with sending(held, endpoint, tty, *options) as client:
            wait_for_bar(tty)
            held.go.set()
            assert client.wait() == status
        tty.finish()
    shown = "".join(tty.screen.text.split("\n"))  # a long line continues on the next one
    assert shown.startswith("sipc send: ")
    assert words in shown
    assert not BAR.search(tty.screen.text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_on_the_terminal(endpoint, number):
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x", "--progress") as client:
            wait_for_bar(tty)
            client.send_signal(number)
            assert client.wait() == 128 + number
        tty.finish()
    assert tty.screen.text == ""


def test_after_ctrl_c_only_its_echo_stays_on_the_terminal(endpoint):
    held = Held()
    with terminal() as tty:
        options = {"wrapper": ["setsid", "--ctty"], "stdin": tty.slave}
        with sending(held, endpoint, tty, "-d", "x", "--progress", **options) as client:
            wait_for_bar(tty)
            tty.type(b"\x03")
            assert client.wait() == 130
        tty.finish()
    assert tty.screen.text.replace("^C", "") == ""


def test_a_response_on_the_same_terminal_replaces_the_bar(endpoint):
    seen, finish = threading.Event(), threading.Event()

    def conversation(connection):
        read_message(connection)
        assert seen.wait(TIMEOUT)
        connection.sendall(packets(b"the\n"))
        assert finish.wait(TIMEOUT)
        connection.sendall(message(b"response\n"))

    with terminal() as tty:
        options = ["-d", "x", "--progress"]
        with sending(conversation, endpoint, tty, *options, stdout=tty.slave) as client:
            wait_for_bar(tty)
            seen.set()
            wait_until(lambda: tty.screen.text == "the", "the response alone")
            wait_until(lambda: len(threads(client.pid)) == 1, "the end of the drawing")
            finish.set()
            assert client.wait() == 0
        tty.finish()
    assert tty.screen.text == "the\nresponse"


def test_the_bar_does_not_change_the_response(endpoint, folder):
    payload = os.urandom(5 * MIB)
    (folder / "request").write_bytes(payload)
    with terminal() as tty:
        options = ["--progress", "--data-file", folder / "request"]
        with sending(echo, endpoint, tty, *options) as client:
            assert client.stdout.read() == payload
            assert client.wait() == 0
        tty.finish()
    assert tty.screen.text == ""


# -- no bar ----------------------------------------------------------------------------


QUIET = {
    "not asked for": (["--no-progress"], {}),
    "NO_COLOR": ([], {"NO_COLOR": "1"}),
    "a dumb terminal": ([], {"TERM": "dumb"}),
    "an unknown terminal": ([], {"TERM": ""}),
}


@pytest.mark.parametrize(("options", "env"), QUIET.values(), ids=QUIET)
def test_no_thread_draws_if_no_bar_can_be_drawn(endpoint, options, env):
    held = Held()
    with terminal() as tty:
        env = {**terminal_environment(), **env}
        with sending(held, endpoint, tty, "-d", "x", *options, env=env) as client:
            assert held.begun.wait(TIMEOUT)
            assert len(threads(client.pid)) == 1
            held.go.set()
            assert client.wait() == 0
        assert tty.finish() == b""


def test_a_thread_draws_on_a_terminal(endpoint):
    """The tests here rely on this number of threads."""
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x") as client:
            assert held.begun.wait(TIMEOUT)
            assert len(threads(client.pid)) == 2


def test_no_thread_draws_beside_a_trace_on_the_terminal(endpoint):
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x", "--trace") as client:
            assert held.begun.wait(TIMEOUT)
            assert len(threads(client.pid)) == 1


def test_no_bar_is_shown_while_the_user_types_the_request(endpoint):
    with terminal() as tty:

        def conversation(connection):
            assert connection.recv(10) == b"0007hi\n"
            wait_until(lambda: len(threads(client.pid)) == 2, "the sender, and no other thread")
            tty.type(b"\x04")
            assert connection.recv(10) == b"0000"
            assert len(threads(client.pid)) <= 2
            connection.sendall(message(b"ok"))

        with sending(conversation, endpoint, tty, stdin=tty.slave) as client:
            wait_until(lambda: b"Ctrl-D" in tty.output, "the hint")
            tty.type(b"hi\n")
            assert client.stdout.read() == b"ok"
            assert client.wait() == 0
        tty.finish()
    assert not BAR.search(tty.screen.text)


def test_no_bar_is_shown_in_a_pipe(endpoint):
    held = Held()
    with terminal() as tty:
        env = terminal_environment(FORCE_COLOR="1", TTY_COMPATIBLE="1")
        options = {"stderr": subprocess.PIPE, "env": env}
        with sending(held, endpoint, tty, "-d", "x", **options) as client:
            assert held.begun.wait(TIMEOUT)
            assert len(threads(client.pid)) == 1
            held.go.set()
            assert client.communicate() == (b"something", b"")


LINE = (
    rb"sipc send: sent [\d.]+ \w+ of 3\.0 MB at [\d.,]+ \w+/s,"
    rb" received [\d.,]+ \w+ at [\d.,]+ \w+/s\n"
)
ALL_SENT = b"sipc send: sent 3.0 MB of 3.0 MB at"


@pytest.mark.parametrize("where", ["a pipe", "a dumb terminal", "beside a trace"])
def test_the_option_shows_lines_if_no_bar_can_be_drawn(endpoint, folder, where):
    (folder / "request").write_bytes(bytes(3_000_000))
    options = ["--progress", "--data-file", folder / "request"]
    popen = {}
    if where == "a pipe":
        popen["stderr"] = subprocess.PIPE
    elif where == "a dumb terminal":
        popen["env"] = {**terminal_environment(), "TERM": "dumb"}
    else:
        options.append("--trace")
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, *options, **popen) as client:
            output = b""
            if where == "a pipe":
                while ALL_SENT not in output:
                    output += client.stderr.readline()
            else:
                wait_until(lambda: ALL_SENT in tty.output, "a line while it goes on")
            held.go.set()
            assert client.stdout.read() == b"something"
            assert client.wait() == 0
            if where == "a pipe":
                output += client.stderr.read()
        output += tty.finish().replace(b"\r", b"")
    lines = [line + b"\n" for line in output.splitlines() if b"sipc send: sent" in line]
    assert all(re.fullmatch(LINE, line) for line in lines)
    assert lines[-1].startswith(ALL_SENT)
    assert b"received 9 bytes at" in lines[-1], "the last line is about the whole exchange"
    assert b"\x1b" not in output


def test_the_option_shows_a_line_for_the_shortest_exchange(endpoint):
    with EchoServer(endpoint):
        done = run_cli("send", endpoint, "-d", "hello", "--progress")
    assert (done.returncode, done.stdout) == (0, b"hello")
    *_, last = done.stderr.splitlines()  # others come first if a second passes
    assert re.fullmatch(rb"sipc send: sent 5 bytes at [^\n]*, received 5 bytes at [^\n]*", last)


# -- terminals that behave badly -------------------------------------------------------


def fill(slave: int) -> None:
    """Write until the terminal takes no more, as after Ctrl-S."""
    os.set_blocking(slave, False)
    try:
        while os.write(slave, b"-" * 1000):
            pass
    except BlockingIOError:
        pass
    os.set_blocking(slave, True)


def test_a_terminal_that_accepts_no_output_does_not_stop_the_exchange(endpoint):
    payload = os.urandom(MIB)
    with terminal(reading=False) as tty, ScriptedServer(endpoint, echo):
        fill(tty.slave)
        done = subprocess.run(
            [SIPC, "send", endpoint, "--progress"],
            input=payload,
            stdout=subprocess.PIPE,
            stderr=tty.slave,
            env=terminal_environment(),
        )
    assert (done.returncode, done.stdout) == (0, payload)


def test_a_signal_ends_send_though_the_terminal_accepts_no_output(endpoint):
    held = Held()
    with terminal(reading=False) as tty:
        fill(tty.slave)
        with sending(held, endpoint, tty, "-d", "x", "--progress") as client:
            assert held.begun.wait(TIMEOUT)
            wait_until(lambda: is_writing(client.pid), "the drawing to be stuck")
            client.send_signal(signal.SIGTERM)
            assert client.wait(TIMEOUT) == 143


def is_writing(pid: int) -> bool:
    """Whether a thread of a process waits in write(2)."""
    return any(is_in_syscall(thread, "write") for thread in threads(pid))


def test_send_completes_the_exchange_after_its_terminal_has_closed(endpoint):
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x", "--progress") as client:
            wait_for_bar(tty)
            tty.close_slave()
            tty.hang_up()
            wait_until(lambda: len(threads(client.pid)) == 1, "the drawing to end")
            held.go.set()
            assert client.stdout.read() == b"something"
            assert client.wait() == 0


def test_a_warning_replaces_the_progress_bar(endpoint, folder):
    """The trace file may have 1,000 bytes, which it reaches only after the bar is shown."""
    held = Held(end=message(os.urandom(2000)) + b"0005x" * 100)
    with terminal() as tty:
        options = ["-d", "x", "--progress", "--trace-file", folder / "trace"]
        wrapper = ["prlimit", "--fsize=1000"]
        with sending(held, endpoint, tty, *options, wrapper=wrapper) as client:
            wait_for_bar(tty)
            held.go.set()
            client.communicate()
            assert client.returncode == 0
        tty.finish()
    shown = "".join(tty.screen.text.split("\n"))
    assert shown.startswith("sipc send: cannot write the trace to")
    assert not BAR.search(tty.screen.text)


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
def test_send_completes_the_exchange_if_progress_lines_cannot_be_written(endpoint, stream):
    with EchoServer(endpoint):
        command = f"{SIPC} send {endpoint} -d x --progress {stream}"
        done = subprocess.run(["sh", "-c", command], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x", b"")
