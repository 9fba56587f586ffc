"""`sipc send --lines --jobs N`: no two records wait for each other."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import termios
import threading
import tty

import pytest
from helpers.inprocess_cli import run_cli
from helpers.scripted_server import ScriptedServer, receive_request, wait_for_close
from helpers.sending import feed, numbers, send_lines
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets

MIB = 1 << 20


class OneThread:
    """A server with one thread that reads all requests before it responds to the first.

    It responds in the order that is asked for, to each in full before the next.
    """

    def __init__(self, path, order: list[int], response) -> None:
        self._order = order
        self._response = response
        self._server = ScriptedServer(path, self._collect, in_turn=True)
        self._collected: dict[int, object] = {}
        self.answered: list[int] = []

    def _collect(self, connection) -> None:
        number = int(receive_request(connection))
        self._collected[number] = connection.dup()
        if len(self._collected) == len(self._order):
            for wanted in self._order:
                with self._collected[wanted] as answering:
                    answering.settimeout(TIMEOUT)
                    answering.sendall(message(self._response(wanted)))
                self.answered.append(wanted)

    def __enter__(self) -> OneThread:
        self._server.__enter__()
        return self

    def __exit__(self, *failure) -> None:
        self._server.__exit__(*failure)


@pytest.mark.parametrize("order", [[8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_send_does_not_deadlock_with_a_server_with_one_thread(endpoint, order):
    """No response fits into a buffer, neither the next one to be written nor a later one."""
    with OneThread(endpoint, order, lambda number: b"%d" % number * 1_000_000):
        done = run_cli("send", endpoint, "--lines", "-j", 8, input=numbers(8))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [b"%d" % number * 1_000_000 for number in range(1, 9)]


@pytest.mark.parametrize("stream", ["stdout", "stdout and stderr in one"])
def test_a_stopped_reader_causes_no_deadlock_with_a_server_with_one_thread(endpoint, stream):
    """All responses but the last, which delays no other, are read before any is written."""
    order = [2, 1, 3, 4]

    def response(number):
        return b"%d" % number * 2_000_000

    joined = {"stderr": subprocess.STDOUT} if "stderr" in stream else {}
    with (
        OneThread(endpoint, order, response) as server,
        send_lines(endpoint, "-j", 4, **joined) as client,
    ):
        feed(client, numbers(4))
        client.stdin.close()
        wait_until(lambda: server.answered[:3] == [2, 1, 3], "all responses but one")
        assert client.stdout.read() == b"".join(response(n) + b"\n" for n in (1, 2, 3, 4))
        assert client.wait() == 0


@pytest.mark.parametrize("options", [[], ["--progress"]], ids=["alone", "with a bar"])
def test_a_stopped_terminal_causes_no_deadlock_with_a_server_with_one_thread(endpoint, options):
    """A terminal at some time has less room than a write needs."""
    order = [2, 1, 3, 4]

    def response(number):
        return b"%d\n" % number * 150_000

    with OneThread(endpoint, order, response) as server:
        master, slave = pty.openpty()
        tty.setraw(slave)  # with the newlines of a terminal
        mode = termios.tcgetattr(slave)
        mode[1] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        with send_lines(endpoint, "-j", 4, *options, stdout=slave, stderr=slave) as client:
            os.close(slave)
            feed(client, numbers(4))
            client.stdin.close()
            wait_until(lambda: server.answered[:3] == [2, 1, 3], "all responses but one")
            expected = b"".join(response(number) for number in (1, 2, 3, 4))
            expected = expected.replace(b"\n", b"\r\n")
            shown = read_terminal(master)
            assert shown[shown.index(expected[:10]) :][: len(expected)] == expected
            assert client.wait() == 0


def read_terminal(master: int) -> bytes:
    """Return all bytes written to a terminal until no process has it open."""
    shown = bytearray()
    try:
        while piece := os.read(master, MIB):
            shown += piece
    except OSError:
        pass  # EIO
    os.close(master)
    return bytes(shown)


def test_an_error_message_that_is_not_read_delays_no_other_record(endpoint):
    """Error messages and responses go to the same pipe, which is full."""
    full, failed, answered = threading.Event(), threading.Event(), threading.Event()

    def conversation(connection):
        number = int(receive_request(connection))
        if number == 1:
            connection.sendall(packets(b"x" * 2_000_000))
            full.set()
            assert answered.wait(TIMEOUT)
            connection.sendall(b"0000")
        elif number == 2:
            assert full.wait(TIMEOUT)
            connection.sendall(b"nonsense")
            wait_for_close(connection)
            failed.set()
        else:
            assert failed.wait(TIMEOUT)
            connection.sendall(message(b"y" * 2_000_000))
            answered.set()

    with ScriptedServer(endpoint, conversation):
        with send_lines(endpoint, "-j", 3, stderr=subprocess.STDOUT) as client:
            feed(client, numbers(3))
            client.stdin.close()
            assert answered.wait(TIMEOUT)
            out = client.stdout.read()
            assert client.wait() == 7
    error = re.search(rb"sipc send: record 2: [^\n]*\n", out)[0]
    assert out.replace(error, b"") == b"x" * 2_000_000 + b"\n\n" + b"y" * 2_000_000 + b"\n"
