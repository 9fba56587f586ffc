"""`sipc serve` when its own code raises an exception."""

from __future__ import annotations

import re
import sys

import pytest
from helpers.command import environment
from helpers.procfs import processes
from helpers.server import Server
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import connect, message, packets, receive_all

BROKEN = """
from simpleipc_cli.cli import main
from simpleipc_cli.server.exchange import Exchange

def fail(self, io, events):
    raise RuntimeError("a defect")

Exchange._on_output = fail
main()
"""


def test_a_request_that_ends_with_an_internal_error_delays_no_other(endpoint):
    program = (sys.executable, "-c", BROKEN)
    ignores = endpoint.with_name("ignores")
    command = "trap '' TERM; read word; test $word = loud && echo; "
    command += f"test $word = silent && touch {ignores}; exec sleep 1000"
    with Server(endpoint, command, "--kill-after", "1000s", program=program) as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"loud\n"))
            assert receive_all(client) == b""
        with connect(endpoint) as another:
            another.sendall(packets(b"silent\n"))
            wait_until(ignores.exists, "the other's handler to ignore SIGTERM")
        for _ in range(2):
            server.signal()
            wait_until(lambda: not endpoint.exists(), "it to begin to stop")
        assert server.wait() == 143
        assert "RuntimeError('a defect')" in server.log


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["plain", "verbose"])
def test_the_log_shows_on_request_where_an_internal_error_was_raised(endpoint, options):
    with Server(endpoint, "echo", *options, program=(sys.executable, "-c", BROKEN)) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"x"))
            assert receive_all(client) == b""
        line = server.wait_for_log(r"RuntimeError\('a defect'\)")
        assert bool(re.search(r"raised in .* > fail:\d+", line)) == bool(options)


BREAKING = """
import os, sys
from simpleipc_cli.cli import main
from simpleipc_cli.server.server import Server

def fail(self):
    if os.path.exists(os.environ["BREAK"]):
        raise RuntimeError("a defect")

Server._check_idle = fail
main()
"""


def test_an_internal_error_that_ends_the_server_leaves_no_handler(endpoint, folder):
    whole = ["--whole-request"]  # one has a thread
    for number, options in enumerate(([], whole)):
        broken = folder / f"broken-{number}"
        program, env = (sys.executable, "-c", BREAKING), environment(BREAK=str(broken))
        command = "trap '' TERM; echo begun; exec sleep 1000"
        with Server(endpoint, command, *options, program=program, env=env) as server:
            with connect(endpoint) as client:
                client.sendall(message(b"hello"))
                assert client.recv(10) == b"000abegun\n"
                broken.touch()
                assert server.process.wait(TIMEOUT) == 1
                wait_until(lambda: not processes(server.mark), "no handler to be left")
