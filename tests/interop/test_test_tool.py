"""git's own test helper, `test-tool simple-ipc`, at the other end.

It is part of no package: build git, and set SIPC_TEST_TOOL to its t/helper/test-tool.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager

import pytest
from helpers.command import environment, sipc
from helpers.git_test_tool import BIG, handler
from helpers.procfs import MARK, processes
from helpers.server import Server
from helpers.waiting import TIMEOUT, wait_until

TOOL = os.environ.get("SIPC_TEST_TOOL")

pytestmark = pytest.mark.skipif(not TOOL, reason="SIPC_TEST_TOOL is not set")


def tool(verb: str, endpoint, *options, **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [TOOL, "simple-ipc", verb, f"--name={endpoint}", *options],
        env=environment(**more),
        capture_output=True,
        timeout=TIMEOUT,
    )


def said(done) -> bytes:
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_serve_answers_the_clients_of_the_test_tool(endpoint):
    with Server(endpoint, handler()):
        assert said(tool("is-active", endpoint)) == b""
        assert said(tool("send", endpoint, "--token=ping")) == b"pong\n"
        assert said(tool("send", endpoint, "--token=big")) == BIG + b"\n"
        assert said(tool("send", endpoint, "--token=chunk")) == BIG + b"\n"
        assert said(tool("send", endpoint, "--token=x")) == b"unhandled command: x\n"


def test_a_failed_handler_is_a_failure_for_the_test_tool(endpoint):
    with Server(endpoint, "echo half; exit 1"):
        done = tool("send", endpoint, "--token=ping")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"could not read IPC response" in done.stderr


@pytest.mark.parametrize("size", [1, 65_505, 65_506, 65_507, 70_000, 10_000_000])
def test_a_large_request_of_the_test_tool_arrives_whole(endpoint, size):
    """65,506 bytes and the command fill a packet."""
    with Server(endpoint, handler()):
        done = tool("sendbytes", endpoint, f"--bytecount={size}", "--byte=Q")
        assert said(done) == b"sent:Q%08d rcvd:Q%08d\n" % (size, size)


def test_many_clients_of_the_test_tool_are_answered_at_once(endpoint):
    with Server(endpoint, handler()):
        options = ["--threads=20", "--bytecount=100000", "--batchsize=10"]
        *lines, last = said(tool("multiple", endpoint, *options)).splitlines()
    assert last == b"client (good 200) (join 0), (errors 0)"
    assert len(lines) == 200
    for line in lines:
        sent, received = line.split()
        assert sent.removeprefix(b"sent:") == received.removeprefix(b"rcvd:")


def test_the_test_tool_stops_serve(endpoint):
    with Server(endpoint, handler()) as server:
        assert said(tool("stop-daemon", endpoint)) == b""
        assert server.wait() == 0
    assert not endpoint.exists()
    assert tool("is-active", endpoint).returncode == 1


@contextmanager
def daemon(endpoint):
    """Run the server of the test tool; leaving the `with` ends it."""
    mark = os.urandom(8).hex()
    path = f"{os.path.dirname(TOOL)}:{os.environ['PATH']}"  # it starts itself by its name
    said(tool("start-daemon", endpoint, "--threads=4", PATH=path, **{MARK: mark}))
    yield
    if sipc("probe", "-q", endpoint).returncode == 0:
        said(tool("stop-daemon", endpoint))
    wait_until(lambda: not processes(mark), "its server to end")


def test_the_server_of_the_test_tool_answers_probe_and_send(endpoint):
    assert sipc("probe", endpoint).returncode == 4
    with daemon(endpoint):
        assert sipc("probe", endpoint).returncode == 0
        assert said(sipc("send", endpoint, "-d", "ping")) == b"pong"
        assert said(sipc("send", endpoint, "-d", "big")) == BIG
        assert said(sipc("send", endpoint, "-d", "chunk")) == BIG
        ballast = b"sendbytes " + b"Q" * 10_000_000
        assert said(sipc("send", endpoint, input=ballast)) == b"rcvd:Q10000000\n"
        assert said(sipc("send", endpoint, "-d", "quit")) == b""
        assert sipc("probe", "--wait-gone", "30s", endpoint).returncode == 0
    assert sipc("probe", endpoint).returncode == 4


def test_the_server_of_the_test_tool_answers_bench(endpoint, folder):
    report = folder / "report.json"
    with daemon(endpoint):
        asked = ["-n", 5_000, "-c", 8, "-d", "ping", "--expect", "pong", "--fail-if", "errors>0"]
        done = sipc("bench", endpoint, *asked, "-q", "--json", report)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(report.read_text())["counts"]["answered"] == 5_000
