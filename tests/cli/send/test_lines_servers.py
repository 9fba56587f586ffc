"""`sipc send --lines` to a missing or a busy server."""

from __future__ import annotations

import subprocess
from functools import partial

import pytest
from helpers import sending
from helpers.command import sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import descriptors, is_in_syscall
from helpers.scripted_server import ScriptedServer, receive_request
from helpers.sending import EchoServer, failed_records, feed
from helpers.server import Server
from helpers.sockets import busy_listener, stale_socket
from helpers.unread import has_read_all
from helpers.waiting import wait_until
from helpers.wire import message

send_lines = partial(sending.send_lines, stderr=subprocess.PIPE)


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_a_missing_server_is_reported_for_each_record(endpoint, run):
    """At once: --connect-timeout, here unlimited, applies only to a busy server."""
    options = ["-j", 2, "--connect-timeout", "0"]
    done = run("send", endpoint, "--lines", *options, input=b"1\n2\n3")
    assert (done.returncode, done.stdout) == (4, b"\n\n\n")
    assert failed_records(done.stderr) == [1, 2, 3]


def test_a_stale_socket_and_a_wrong_path_are_reported_with_their_exit_statuses(endpoint, folder):
    stale_socket(endpoint)
    assert run_cli("send", endpoint, "--lines", input=b"1\n").returncode == 3
    assert run_cli("send", folder, "--lines", input=b"1\n").returncode == 5


def test_an_input_without_records_needs_no_server(endpoint):
    done = run_cli("send", endpoint, "--lines", input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("stale", [False, True])
def test_wait_sends_every_record_once_when_a_server_listens(endpoint, stale):
    records = b"1\n2\n3\n4\n"
    if stale:
        stale_socket(endpoint)
    with send_lines(endpoint, "-j", 2, "--wait", "1h") as client:
        feed(client, records)
        client.stdin.close()
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait")
        endpoint.unlink(missing_ok=True)
        with EchoServer(endpoint) as server:
            assert client.stdout.read() == records
            assert client.wait() == 0
    assert sorted(server.requests) == [b"1", b"2", b"3", b"4"]


def test_wait_limits_the_time_for_each_record_and_the_others_are_sent(endpoint):
    with send_lines(endpoint, "--wait", "50ms") as client:
        feed(client, b"1\n2\n")
        errors = client.stderr.readline() + client.stderr.readline()
        assert failed_records(errors) == [1, 2]
        with EchoServer(endpoint):
            feed(client, b"3\n")
            client.stdin.close()
            assert client.stdout.read() == b"\n\n3\n"
            assert client.wait() == 4


def test_a_request_is_never_sent_twice(endpoint):
    """With --wait, too, a truncated response is a failure and no reason to try again."""
    requests = []

    def conversation(connection):
        requests.append(receive_request(connection))

    with ScriptedServer(endpoint, conversation):
        done = run_cli("send", endpoint, "--lines", "--wait", "1h", "-j", 2, input=b"1\n2\n3\n")
    assert (done.returncode, done.stdout) == (7, b"\n\n\n")
    assert sorted(requests) == [b"1", b"2", b"3"]


def check_busy(endpoint, *limit) -> None:
    with busy_listener(endpoint):
        done = run_cli("send", endpoint, "--lines", *limit, input=b"x\n")
    assert (done.returncode, done.stdout) == (3, b"\n")
    assert failed_records(done.stderr) == [1]
    assert b"busy" in done.stderr


@pytest.mark.parametrize("option", ["--connect-timeout", "--wait"])
def test_a_server_that_stays_busy_is_reported_as_not_listening(endpoint, option):
    check_busy(endpoint, option, "20ms")


def test_send_waits_for_a_busy_server(endpoint):
    with (
        busy_listener(endpoint) as busy,
        send_lines(endpoint, "--connect-timeout", "0") as client,
    ):
        feed(client, b"x\n")
        wait_until(lambda: has_read_all(client), "it to read its input")
        client.stdin.close()
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait")
        busy.accept()[0].close()
        with busy.accept()[0] as connection:
            connection.sendall(message(receive_request(connection)))
        assert client.stdout.read() == b"x\n"
        assert client.wait() == 0


def test_max_time_ends_a_wait_for_a_busy_server(endpoint, max_time):
    rounds = iter(range(100))
    max_time.is_over = lambda: next(rounds) > 20  # the client has tried to connect by then
    check_busy(endpoint, "-m", "1h")


def test_a_long_path_works_and_leaves_no_descriptor_open(folder):
    path = folder / ("d" * 100) / ("s" * 100)
    path.parent.mkdir()
    with Server(path, "cat"), send_lines(path, "-j", 2) as client:
        feed(client, b"1\n2\n3\n")
        assert [client.stdout.readline() for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
        assert not any("dddd" in name for name in descriptors(client.pid))
        client.stdin.close()
