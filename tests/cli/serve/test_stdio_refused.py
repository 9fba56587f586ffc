"""`sipc serve` on a standard input that it refuses, and options that it refuses with --stdio."""

from __future__ import annotations

import socket
import subprocess
from functools import partial

import pytest
from helpers.command import SIPC, Program, environment
from helpers.inprocess_cli import run_cli
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import accepted, is_listening


@pytest.mark.parametrize(
    "options",
    [
        ("some.sock",),
        ("--mode", "0600"),
        ("--backlog", "5"),
        ("--count", "1"),
        ("--background",),
        ("--pid-file", "pid"),
        ("--prestart", "2"),
    ],
    ids=" ".join,
)
def test_options_of_an_endpoint_are_refused(options):
    done = run_cli("serve", "--stdio", "--exec", "cat", *options)
    assert done.returncode == 2
    assert b"cannot be combined with --stdio" in done.stderr


@pytest.mark.parametrize("option", ["--log-file", "--trace-file"])
@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/stdout", "/dev/fd/1", "-"])
def test_no_log_can_be_written_to_the_connection(option, name):
    done = run_cli("serve", "--stdio", "--exec", "cat", option, name)
    assert done.returncode == 2
    assert f"{option}: with --stdio, this is the connection".encode() in done.stderr


# -- without the option


def start_on(stdin: socket.socket, *arguments) -> subprocess.CompletedProcess[bytes]:
    """Run `sipc serve` on a socket to its end, without --stdio."""
    command = [SIPC, "serve", "--exec", "cat", *arguments]
    return subprocess.run(
        command, stdin=stdin, capture_output=True, env=environment(), timeout=TIMEOUT
    )


@pytest.mark.parametrize("more", [[], ["--stdio"]], ids=["without", "with --stdio"])
def test_a_listening_socket_as_standard_input_is_a_usage_error(endpoint, more):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        done = start_on(listener, *more)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(b"Error: standard input is a listening socket: ")


def test_a_connection_as_standard_input_is_a_usage_error_without_the_option(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        client, theirs = accepted(listener)
        with client, theirs:
            done = start_on(theirs)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(b"Error: standard input is a connection: use --stdio ")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_is_not_connected_is_a_usage_error(kind):
    with socket.socket(socket.AF_UNIX, kind) as unconnected:
        done = start_on(unconnected, "--stdio")
    assert done.returncode == 2
    assert b"no stream, or not connected" in done.stderr


def test_a_server_may_be_started_with_a_socket_pair_as_standard_input(folder):
    """As sshd and programs in Node do."""
    ours, theirs = socket.socketpair()
    path = folder / "own.sock"
    env = environment(SIPC_PATH=str(path))
    with ours, theirs, Program([SIPC, "serve", "--exec", "cat"], stdin=theirs, env=env) as program:
        wait_until(partial(is_listening, path), "it to listen")
        program.terminate()
        assert program.wait(TIMEOUT) == 0
