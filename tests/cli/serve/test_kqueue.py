"""`sipc serve` with a scripted kqueue, which behaves as the sources of XNU and FreeBSD say."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from helpers import scripted_kqueue
from helpers.command import environment, sipc
from helpers.paths import TESTS
from helpers.procfs import children
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, connect, message, packets, receive_all
from helpers.workers import ask_worker, serve_workers

pytestmark = pytest.mark.skipif(not scripted_kqueue.IS_AVAILABLE, reason="Linux is masked")

MASK = f"""
import os, sys
if "sipc" in [os.path.basename(word) for word in sys.orig_argv]:
    sys.path.append({str(TESTS)!r})
    from helpers import scripted_kqueue
    sys.path.remove({str(TESTS)!r})
    scripted_kqueue.apply("SYSTEM")
"""


@pytest.fixture(params=["darwin", "freebsd14"])
def masked(request, tmp_path):
    """The environment of programs for which this is another system."""
    (tmp_path / "sitecustomize.py").write_text(MASK.replace("SYSTEM", request.param))
    return environment(PYTHONPATH=str(tmp_path))


def test_requests_of_all_sizes_are_answered(endpoint, masked):
    with Server(endpoint, "cat", env=masked) as server:
        for payload in (b"", b"hello", os.urandom(3_000_000)):
            done = sipc("send", endpoint, input=payload, env=masked)
            assert (done.returncode, done.stdout) == (0, payload)
        done = sipc("send", "--lines", "-j", 3, endpoint, input=b"a\nb\nc\n", env=masked)
        assert (done.returncode, done.stdout) == (0, b"a\nb\nc\n")
        assert server.stop() == 0


def test_lines_of_a_file_are_sent(endpoint, masked, tmp_path):
    """A kqueue does not report the end of a file on macOS."""
    path = tmp_path / "lines"
    path.write_bytes(b"a\nb\n")
    with Server(endpoint, "cat", env=masked), path.open() as file:
        done = sipc("send", "--lines", endpoint, input=None, stdin=file, env=masked)
        assert (done.returncode, done.stdout) == (0, b"a\nb\n")


def test_a_half_close_is_no_hang_up(endpoint, masked, gate):
    with Server(endpoint, f"cat; {gate.wait}; echo end", env=masked), connect(endpoint) as client:
        client.sendall(message(b"hello"))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == packets(b"hello")
        gate.open()
        assert receive_all(client) == message(b"end\n")


def test_a_handler_ends_with_its_client(endpoint, folder, masked):
    with Server(endpoint, f": >{folder}/begun; sleep 1000", env=masked) as server:
        with connect(endpoint) as client:
            client.sendall(message(b""))
            wait_until((folder / "begun").exists, "the handler to begin")
        server.wait_for_log("client closed")
        server.wait_until_idle()


def test_the_exit_of_a_handler_is_known(endpoint, masked):
    with Server(endpoint, "cat; kill -KILL $$", env=masked) as server:
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"hello", False)
        server.wait_for_log("status=SIGKILL", 3)


def test_a_worker_that_has_ended_is_replaced(endpoint, masked):
    with serve_workers(endpoint, env=masked) as server:
        (worker,) = {int(ask_worker(endpoint, "pid")) for _ in range(3)}
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not children(server.pid), "its end to be noticed")
        assert int(ask_worker(endpoint, "pid")) != worker
