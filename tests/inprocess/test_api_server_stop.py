"""Starts and stops of a Server of the API, and its path; on Linux and Windows."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from helpers.callbacks import KINDS, Gate, answering, reverse
from helpers.inprocess_fixtures import client, kind, logged, path  # noqa: F401 - fixtures
from helpers.inprocess_server import (
    TIMEOUT,
    ask,
    raw_clients,
    read_all,
    run_concurrently,
    wait_until,
)
from helpers.wire import message

from simpleipc_cli.api.server import Server
from simpleipc_cli.errors import AddressInUse, EndpointError, SipcError
from simpleipc_cli.system import HAS_OWNERSHIP
from simpleipc_cli.transport import connect_nowait, listen

MUCH = bytes(range(256)) * 20_000


def asked(path, number, request=b"one"):
    """Start clients; return the thread, and the list that gets their answers."""
    answers = []
    thread = threading.Thread(
        target=lambda: answers.extend(run_concurrently(number, lambda: ask(path, request)))
    )
    thread.start()
    return thread, answers


# stopping


def test_a_stop_answers_what_runs(path, kind):
    gate = Gate()
    with Server(path, gate.as_kind(kind)) as server:
        thread, answers = asked(path, 3)
        gate.wait_until_begun(3)
        server.stop()
        wait_until(lambda: not _listens(path), "it to refuse clients")
        assert not server.wait(0)
        gate.open()
        assert server.wait(TIMEOUT)
    thread.join(TIMEOUT)
    assert answers == [b"eno"] * 3


def _listens(path):
    """Without waiting: on Windows a pipe that is in use refuses clients by being busy."""
    try:
        connect_nowait(path).close()
    except EndpointError:
        return False
    return True


def test_a_second_stop_ends_all_requests_at_once(path, kind, client, logged):
    gate = Gate()
    server = Server(path, gate.as_kind(kind), max_concurrency=2, drain_timeout=None)
    server.start()
    try:
        streams = [client(message(b"one")) for _ in range(3)]
        gate.wait_until_begun(2)
        server.stop()
        server.stop()
        assert [read_all(stream) for stream in streams] == [b""] * 3
        assert server.wait(TIMEOUT)
        logged.wait_for("aborted", "aborted", "aborted")
    finally:
        gate.open()


def test_a_stop_waits_only_for_the_drain_timeout(path, kind, client, logged):
    gate = Gate()
    server = Server(path, gate.as_kind(kind), drain_timeout=0.1)
    server.start()
    try:
        stream = client(message(b"one"))
        gate.wait_until_begun()
        server.stop()
        assert server.wait(TIMEOUT)
        assert read_all(stream) == b""
        logged.wait_for("aborted")
    finally:
        gate.open()


def test_a_callback_that_returns_after_the_end_changes_nothing(path, logged):
    gate = Gate()
    server = Server(path, gate.as_kind("bytes"), drain_timeout=0)
    server.start()
    with raw_clients(path) as connect_one:
        connect_one(message(b"one"))
        gate.wait_until_begun()
        server.stop()
        server.stop()
        assert server.wait(TIMEOUT)
    gate.open()
    gate.wait_until_ended()
    assert logged.tracebacks() == []


def test_a_callback_may_stop_its_server(path, kind):
    """Also before it answers."""
    servers = []

    class Stopping(Gate):
        def pass_through(self):
            servers[-1].stop()

    servers.append(Server(path, Stopping().as_kind(kind)))
    servers[-1].start()
    assert ask(path, b"one") == b"eno"
    assert servers[-1].wait(TIMEOUT)


def test_a_server_that_is_stopped_before_its_start_ends_at_once(path):
    server = Server(path, reverse)
    server.stop()
    server.serve_forever()
    assert server.wait(0)


def test_stop_and_wait_may_be_called_at_any_time(path):
    server = Server(path, reverse)
    assert server.wait()
    with server:
        assert not server.wait(0)
    for _ in range(3):
        server.stop()
        assert server.wait()


def test_a_server_starts_only_once(path):
    with Server(path, reverse) as server:
        with pytest.raises(RuntimeError):
            server.start()
        assert ask(path) == b"gnip"
    with pytest.raises(RuntimeError):
        server.start()


def test_a_coroutine_is_cancelled_and_may_clean_up(path, client):
    begun, cleaned = threading.Semaphore(0), threading.Semaphore(0)

    async def answer(request):
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.release()

    with answering(path, answer):
        client(message(b"x"))
        assert begun.acquire(timeout=TIMEOUT)
    assert cleaned.acquire(blocking=False)


def test_a_coroutine_that_is_cancelled_before_it_began_frees_its_place(path, client, logged):
    """Another one blocks asyncio's loop meanwhile."""
    gate = Gate()

    async def answer(request):
        if request != b"x":
            gate.pass_through()
        return request

    with answering(path, answer, max_concurrency=2):
        first = client(message(b"first"))
        gate.wait_until_begun()
        second = client(message(b"x"))
        third = client(message(b"x"))  # it waits
        second.close()
        logged.wait_for("client_closed")
        gate.open()
        assert read_all(first) == message(b"first")
        assert read_all(third) == message(b"x")


# paths


def test_two_servers_cannot_have_one_path(path):
    with Server(path, reverse):
        other = Server(path, lambda request: b"other")
        with pytest.raises(AddressInUse):
            other.start()
        with pytest.raises(AddressInUse):
            other.serve_forever()
        assert ask(path) == b"gnip"
    with other:  # it may try again
        assert ask(path) == b"other"


def test_several_servers_run_in_one_process(path):
    first, second = Server(path + "1", reverse), Server(path + "2", KINDS["async-stream"])
    with first, second:
        assert ask(path + "1") == ask(path + "2") == b"gnip"
        first.stop()
        assert first.wait(TIMEOUT)
        assert ask(path + "2") == b"gnip"


def test_a_server_follows_another_at_the_path(path):
    for _ in range(5):
        with Server(path, reverse) as server:
            assert server.path == path
            assert ask(path) == b"gnip"


def test_the_default_path_is_that_of_the_command(path, monkeypatch):
    monkeypatch.setenv("SIPC_PATH", path)
    with Server(None, reverse) as server:
        assert server.path == path
        assert ask(path) == b"gnip"


def test_a_path_may_be_any_path_like_object(tmp_path):
    with Server(tmp_path / "sock", reverse):
        assert ask(str(tmp_path / "sock")) == b"gnip"


def test_a_path_that_cannot_be_used_is_an_error(tmp_path):
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(EndpointError):
            Server(str(tmp_path / name), reverse).start()


def test_users_are_limited_only_where_they_have_numbers(path):
    if HAS_OWNERSHIP:
        Server(path, reverse, allowed_users=[7], group=7)
    else:
        with pytest.raises(SipcError, match="allowed_users"):
            Server(path, reverse, allowed_users=[7]).start()
        with pytest.raises(EndpointError, match="group"):
            Server(path, reverse, group=7).start()


def test_users_are_not_limited_where_the_system_does_not_report_them(path, monkeypatch):
    monkeypatch.setattr("simpleipc_cli.api.server.reports_users", lambda: False)
    with pytest.raises(SipcError, match="allowed_users: not supported on this platform"):
        Server(path, reverse, allowed_users=[7]).start()
    assert not os.path.exists(path)


def test_a_listener_without_a_server_is_found(path):
    """The path of a program that listens, and does not answer, is not taken."""
    listener = listen(path, mode=0o600, backlog=1)
    try:
        with pytest.raises(AddressInUse):
            Server(path, reverse).start()
    finally:
        listener.stop_listening()
        listener.close()
