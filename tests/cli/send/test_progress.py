"""`sipc send --progress`: on a real terminal, after a while, and never in the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, sipc
from helpers.scripted_server import scripted_server
from helpers.server import Server
from helpers.terminal import BAR, terminal, terminal_environment, wait_for_bar
from helpers.waiting import wait_until
from helpers.wire import message, packets, read_message

MIB = 1 << 20


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


class Held:
    """A conversation that reads a request, answers a part, and waits for its go."""

    def __init__(self, begin: bytes = packets(b"some"), end: bytes = message(b"thing")) -> None:
        self.begin, self.end = begin, end
        self.go = threading.Event()
        self.begun = threading.Event()

    def __call__(self, connection) -> None:
        read_message(connection)
        connection.sendall(self.begin)
        self.begun.set()
        assert self.go.wait(30)
        try:
            connection.sendall(self.end)
        except BrokenPipeError:
            pass  # some are ended before


@contextmanager
def sending(held: Held, endpoint, tty, *options, env=None, **popen):
    """A client whose stderr is a terminal; in the end it and the conversation are over."""
    popen.setdefault("stdin", subprocess.DEVNULL)
    popen.setdefault("stdout", subprocess.PIPE)
    with scripted_server(endpoint, held):
        client = Program(
            [SIPC, "send", endpoint, *options],
            stderr=tty.slave,
            env=env or terminal_environment(),
            **popen,
        )
        try:
            yield client
        finally:
            held.go.set()
            client.kill()
            client.wait()
            if client.stdout:
                client.stdout.close()


def test_a_bar_appears_by_itself_tells_how_far_it_is_and_leaves_nothing(endpoint, folder):
    (folder / "request").write_bytes(bytes(3_000_000))
    held = Held(begin=packets(bytes(1_500_000)))
    with terminal() as tty:
        with sending(held, endpoint, tty, "--data-file", folder / "request") as client:
            answer = client.stdout.read(1_500_000)
            seen = wait_until(
                lambda: (text := tty.screen.text) and " 1.5 MB" in text and text, "the bar"
            )
            sent, received = seen.splitlines()
            assert re.fullmatch(r"sent +━+ 3\.0 MB of 3\.0 MB .*", sent)
            assert re.fullmatch(r"received ━+ 1\.5 MB .*", received)
            held.go.set()
            assert answer + client.stdout.read() == bytes(1_500_000) + b"thing"
            assert client.wait() == 0
        output = tty.finish()
    assert tty.screen.text == ""
    assert (tty.screen.row, tty.screen.column) == (0, 0), "the cursor is where it was"
    assert b"?25" not in output, "the cursor was never hidden"


def test_the_size_of_what_is_left_of_standard_input_is_known(endpoint, folder):
    (folder / "request").write_bytes(bytes(3_000_000))
    held = Held()
    with terminal() as tty, open(folder / "request", "rb") as request:
        os.lseek(request.fileno(), 1_000_000, os.SEEK_SET)
        with sending(held, endpoint, tty, stdin=request) as client:
            wait_until(lambda: "2.0 MB of 2.0 MB" in tty.screen.text, "all that is left")
            held.go.set()
            assert client.wait() == 0


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [(b"", 7, "cut off"), (b"zzzz", 7, "bad packet length"), (b"0000", 10, "not as expected")],
    ids=["cut off", "nonsense", "not as expected"],
)
def test_an_error_leaves_only_itself_on_the_terminal(endpoint, end, status, words):
    held = Held(end=end)
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x", "--expect", "y") as client:
            wait_for_bar(tty)
            held.go.set()
            assert client.wait() == status
        tty.finish()
    shown = "".join(tty.screen.text.split("\n"))  # a long line goes on in the next
    assert shown.startswith("sipc send: ")
    assert words in shown
    assert not BAR.search(tty.screen.text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_on_the_terminal(endpoint, number):
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x") as client:
            wait_for_bar(tty)
            client.send_signal(number)
            assert client.wait() == 128 + number
        tty.finish()
    assert tty.screen.text == ""


def test_ctrl_c_leaves_nothing_but_itself(endpoint):
    held = Held()
    with terminal() as tty:
        with sending(
            held,
            endpoint,
            tty,
            "-d",
            "x",
            start_new_session=True,
            preexec_fn=tty.become_controlling,
        ) as client:
            wait_for_bar(tty)
            tty.type(b"\x03")
            assert client.wait() == 130
        tty.finish()
    assert tty.screen.text.replace("^C", "") == ""


def test_an_answer_on_the_same_terminal_takes_the_place_of_the_bar(endpoint):
    seen, finish = threading.Event(), threading.Event()

    def conversation(connection):
        read_message(connection)
        assert seen.wait(30)
        connection.sendall(packets(b"the\n"))
        assert finish.wait(30)
        connection.sendall(message(b"answer\n"))

    with terminal() as tty, scripted_server(endpoint, conversation):
        command = [SIPC, "send", endpoint, "-d", "x"]
        with Program(
            command, stdout=tty.slave, stderr=tty.slave, env=terminal_environment()
        ) as client:
            wait_for_bar(tty)
            seen.set()
            wait_until(lambda: tty.screen.text == "the", "the answer alone")
            assert threads(client.pid) == 1, "no bar comes any more"
            finish.set()
            assert client.wait() == 0
        tty.finish()
    assert tty.screen.text == "the\nanswer"


def test_the_answer_is_the_answer_whatever_is_drawn(endpoint, folder):
    payload = os.urandom(20 * MIB)
    (folder / "request").write_bytes(payload)
    with terminal() as tty, Server(endpoint, "cat"):
        command = [SIPC, "send", endpoint, "--progress", "--data-file", folder / "request"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=tty.slave, env=terminal_environment()
        )
        assert (done.returncode, done.stdout) == (0, payload)
        tty.finish()
    assert tty.screen.text == ""


# -- when there is none ----------------------------------------------------------------


QUIET = {
    "not asked for": (["--no-progress"], {}),
    "NO_COLOR": ([], {"NO_COLOR": "1"}),
    "a dumb terminal": ([], {"TERM": "dumb"}),
    "an unknown terminal": ([], {"TERM": ""}),
}


@pytest.mark.parametrize(("options", "env"), QUIET.values(), ids=QUIET)
def test_there_is_nobody_to_draw_where_no_bar_is_fit(endpoint, options, env):
    held = Held()
    with terminal() as tty:
        env = {**terminal_environment(), **env}
        with sending(held, endpoint, tty, "-d", "x", *options, env=env) as client:
            assert held.begun.wait(30)
            assert threads(client.pid) == 1
            held.go.set()
            assert client.wait() == 0
        assert tty.finish() == b""


def test_there_is_somebody_to_draw_on_a_terminal(endpoint):
    """What the test above goes by."""
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x") as client:
            assert held.begun.wait(30)
            assert threads(client.pid) == 2


def test_a_trace_on_the_terminal_has_it_for_itself(endpoint):
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x", "--trace") as client:
            assert held.begun.wait(30)
            assert threads(client.pid) == 1


def test_who_types_the_request_is_not_disturbed(endpoint):
    with terminal() as tty:

        def conversation(connection):
            assert connection.recv(10) == b"0007hi\n"
            wait_until(lambda: threads(client.pid) == 2, "the sender")  # and nobody else
            tty.type(b"\x04")
            assert connection.recv(10) == b"0000"
            assert threads(client.pid) <= 2
            connection.sendall(message(b"ok"))

        with scripted_server(endpoint, conversation):
            command = [SIPC, "send", endpoint]
            client = Program(
                command,
                stdin=tty.slave,
                stdout=subprocess.PIPE,
                stderr=tty.slave,
                env=terminal_environment(),
            )
            wait_until(lambda: b"Ctrl-D" in tty.output, "the hint")
            tty.type(b"hi\n")
            assert client.communicate()[0] == b"ok"
        tty.finish()
    assert not BAR.search(tty.screen.text)


def test_in_a_pipe_there_is_none(endpoint):
    held = Held()
    with scripted_server(endpoint, held):
        client = Program(
            [SIPC, "send", endpoint, "-d", "x"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=terminal_environment(FORCE_COLOR="1", TTY_COMPATIBLE="1"),
        )
        assert held.begun.wait(30)
        assert threads(client.pid) == 1
        held.go.set()
        assert client.communicate() == (b"something", b"")


LINE = (
    rb"sipc send: sent 3\.0 MB of 3\.0 MB at [\d.,]+ \w+/s, received [\d.,]+ \w+ at [\d.,]+ \w+/s\n"
)


@pytest.mark.parametrize("where", ["a pipe", "a dumb terminal", "beside a trace"])
def test_who_asks_for_it_where_no_bar_is_fit_gets_lines(endpoint, folder, where):
    (folder / "request").write_bytes(bytes(3_000_000))
    options = ["--progress", "--data-file", folder / "request"]
    if where == "beside a trace":
        options.append("--trace")
    held = Held()
    with terminal() as tty, scripted_server(endpoint, held):
        client = Program(
            [SIPC, "send", endpoint, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if where == "a pipe" else tty.slave,
            env=terminal_environment()
            if where != "a dumb terminal"
            else {**terminal_environment(), "TERM": "dumb"},
        )
        if where == "a pipe":
            assert re.fullmatch(LINE, client.stderr.readline()), "while it goes on"
        else:
            wait_until(lambda: re.search(LINE, tty.output.replace(b"\r", b"")), "a line")
        held.go.set()
        assert client.stdout.read() == b"something"
        assert client.wait() == 0
        if where == "a pipe":
            output = client.stderr.read()
            client.stderr.close()
        else:
            output = tty.finish().replace(b"\r", b"")
        client.stdout.close()
    lines = [line + b"\n" for line in output.splitlines() if b"sipc send: sent" in line]
    assert all(re.fullmatch(LINE, line) for line in lines)
    assert b"received 9 bytes at" in lines[-1], "the last one tells all"
    assert b"\x1b" not in output


def test_who_asks_for_it_gets_a_line_of_the_shortest_transfer(endpoint):
    with Server(endpoint, "cat"):
        done = sipc("send", endpoint, "-d", "hello", "--progress")
    assert (done.returncode, done.stdout) == (0, b"hello")
    assert re.fullmatch(
        rb"sipc send: sent 5 bytes at [^\n]*, received 5 bytes at [^\n]*\n", done.stderr
    )


# -- terminals that behave badly -------------------------------------------------------


def fill(slave: int) -> None:
    """Until the terminal takes no more, as after Ctrl-S."""
    os.set_blocking(slave, False)
    try:
        while os.write(slave, b"-" * 1000):
            pass
    except BlockingIOError:
        pass
    os.set_blocking(slave, True)


def test_a_terminal_that_takes_nothing_holds_up_nothing(endpoint):
    payload = os.urandom(5 * MIB)
    with terminal(reading=False) as tty, Server(endpoint, "cat"):
        fill(tty.slave)
        done = subprocess.run(
            [SIPC, "send", endpoint, "--progress"],
            input=payload,
            stdout=subprocess.PIPE,
            stderr=tty.slave,
            env=terminal_environment(),
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (0, payload)


def test_a_signal_ends_it_though_the_terminal_takes_nothing(endpoint):
    held = Held()
    with terminal(reading=False) as tty:
        fill(tty.slave)
        with sending(held, endpoint, tty, "-d", "x", "--progress") as client:
            assert held.begun.wait(30)
            wait_until(lambda: any_sleeps_in_write(client.pid), "the drawing to be stuck")
            client.send_signal(signal.SIGTERM)
            assert client.wait(30) == 143


def any_sleeps_in_write(pid: int) -> bool:
    write = {"x86_64": "1", "aarch64": "64"}[os.uname().machine]
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return any((task / "syscall").read_text().split()[0] == write for task in tasks)


def test_a_terminal_that_goes_away_does_no_harm(endpoint):
    held = Held()
    with terminal() as tty:
        with sending(held, endpoint, tty, "-d", "x") as client:
            wait_for_bar(tty)
            tty.close_slave()
            tty.hang_up()
            wait_until(lambda: threads(client.pid) == 1, "the drawing to end")
            held.go.set()
            assert client.stdout.read() == b"something"
            assert client.wait() == 0


def test_a_warning_takes_the_place_of_the_bar(endpoint, folder):
    """The trace file may have 1,000 bytes; they are reached only when the bar is there."""
    held = Held(end=message(os.urandom(2000)) + b"0005x" * 100)
    with terminal() as tty:
        with scripted_server(endpoint, held):
            command = ["prlimit", "--fsize=1000", SIPC, "send", endpoint, "-d", "x"]
            client = Program(
                [*command, "--trace-file", folder / "trace"],
                stdout=subprocess.PIPE,
                stderr=tty.slave,
                env=terminal_environment(),
            )
            wait_for_bar(tty)
            held.go.set()
            client.communicate()
            assert client.returncode == 0
        tty.finish()
    shown = "".join(tty.screen.text.split("\n"))
    assert shown.startswith("sipc send: cannot write the trace to")
    assert not BAR.search(tty.screen.text)


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
def test_asked_for_with_nowhere_to_go_it_does_no_harm(endpoint, stream):
    with Server(endpoint, "cat"):
        command = f"{SIPC} send {endpoint} -d x --progress {stream}"
        done = subprocess.run(["sh", "-c", command], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x", b"")
