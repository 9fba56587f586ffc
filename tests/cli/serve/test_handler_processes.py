"""`sipc serve`: the processes of handlers, and those that they leave."""

from __future__ import annotations

import sys

from helpers.command import SIPC, environment
from helpers.procfs import children, state
from helpers.server import Server
from helpers.terminal import terminal
from helpers.waiting import wait_until
from helpers.wire import ask, connect, is_listening, message

# -- sessions and signals ------------------------------------------------------------------


def test_a_handler_cannot_wait_for_the_terminal(endpoint):
    command = "read x </dev/tty || echo none"
    with terminal() as tty:
        server = tty.start([SIPC, "serve", endpoint, "--exec", command], env=environment())
        with server:
            wait_until(lambda: is_listening(endpoint), "the server to listen")
            assert ask(endpoint, b"") == (b"none\n", True)
            server.terminate()


def test_a_handler_cannot_leave_its_process_group(endpoint):
    code = "import os; os.setpgid(0, os.getpgid(os.getppid()))"
    with Server(endpoint, f"exec {sys.executable} -ISc '{code}' 2>&1") as server:
        answer, is_whole = ask(endpoint, b"")
        assert b"PermissionError" in answer
        assert not is_whole
        server.wait_until_idle()


STOPPED = "trap ': >{folder}/ended; exit' TERM; : >{folder}/begun; kill -STOP $$"


def test_a_stopped_handler_gets_sigterm(endpoint, folder):
    command = STOPPED.format(folder=folder)
    with Server(endpoint, command, "--kill-after", "1000s") as server:
        with connect(endpoint) as client:
            client.sendall(message(b""))
            wait_until((folder / "begun").exists, "the handler to begin")
            (handler,) = children(server.pid)
            wait_until(lambda: state(handler) == "T", "it to stop itself")
        wait_until((folder / "ended").exists, "its end")


def test_a_stopped_process_of_a_handler_gets_sigterm(endpoint, folder):
    other = f'sh -c "{STOPPED.replace("$$", chr(92) + "$$").format(folder=folder)}"'
    command = f"{other} >/dev/null 2>&1 & until grep -q '^State:.T' /proc/$!/status; do :; done"
    with Server(endpoint, command, "--kill-after", "1000s"):
        assert ask(endpoint, b"") == (b"", True)
        wait_until((folder / "ended").exists, "its end")
