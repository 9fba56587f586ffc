"""Listeners, and clients that connect to them, on Linux and Windows."""

from __future__ import annotations

import errno
import re
import sys
import threading
from contextlib import ExitStack, closing, suppress
from importlib import import_module

import pytest
from helpers import streams
from helpers.inprocess_fixtures import path  # noqa: F401 - fixtures
from helpers.streams import accepted, connected, connected_until_busy, listening, write_all
from helpers.waiting import TIMEOUT

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import (
    AddressInUse,
    EndpointError,
    NotASocket,
    OutOfResources,
    PathNotFound,
    ServerBusy,
    SipcError,
)
from simpleipc_cli.transport import connect, connect_nowait, listen


@pytest.fixture(autouse=True, params=["native"] if sys.platform == "win32" else ["native", "xnu"])
def system(request, monkeypatch):
    """The sockets of this system, or such as those of macOS."""
    if request.param == "xnu":
        from helpers import xnu  # noqa: PLC0415 - not on Windows

        xnu.install(monkeypatch, sys.modules[__name__], streams)


@pytest.fixture
def listener(path):
    with listening(path) as listener:
        yield listener


def test_connecting_to_a_missing_path_is_an_error(path):
    for attempt in (lambda: connect(path, Deadline(TIMEOUT)), lambda: connect_nowait(path)):
        with pytest.raises(PathNotFound, match="does not exist"):
            attempt()


@pytest.mark.parametrize("name", ["", "a\0b"], ids=["empty", "NUL"])
def test_an_invalid_name_of_an_endpoint_is_an_error(name):
    with pytest.raises(NotASocket):
        connect_nowait(name)
    with pytest.raises(SipcError):
        listen(name, mode=0o600, backlog=1)


def test_a_path_has_at_most_one_listener(path, listener):
    with pytest.raises(AddressInUse):
        listen(path, mode=0o600, backlog=16)


def test_one_of_several_listeners_that_start_at_once_takes_the_path(path):
    start = threading.Barrier(8)
    won, lost = [], []

    def try_it():
        start.wait()
        try:
            won.append(listen(path, mode=0o600, backlog=16))
        except AddressInUse as error:
            lost.append(error)

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    with ExitStack() as stack:
        for listener in won:
            stack.callback(listener.close)
            stack.callback(listener.stop_listening)
        assert (len(won), len(lost)) == (1, 7)
        connect(path, Deadline(TIMEOUT)).close()


def test_a_listener_starts_though_clients_connect_and_close_meanwhile(path):
    """On Windows a client can open a pipe before its server waits for clients."""
    has_ended = threading.Event()

    def connect_and_close():
        while not has_ended.is_set():
            with suppress(EndpointError):
                connect_nowait(path).close()

    threads = [threading.Thread(target=connect_and_close) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            with listening(path):
                pass
    finally:
        has_ended.set()
        for thread in threads:
            thread.join(TIMEOUT)


def test_a_listener_with_a_full_backlog_is_busy_until_it_accepts_a_connection(path):
    with (
        listening(path, backlog=1) as listener,
        connected_until_busy(path) as clients,
        ExitStack() as stack,
    ):
        with pytest.raises(ServerBusy):
            connect(path, Deadline(0.05))
        later = []
        thread = threading.Thread(target=lambda: later.append(connect(path, Deadline(TIMEOUT))))
        thread.start()
        for _ in clients:
            stack.enter_context(closing(accepted(listener)))
        thread.join(TIMEOUT)
        assert len(later) == 1
        later[0].close()


def test_a_withdrawn_listener_accepts_only_earlier_connections(path, listener):
    with ExitStack() as stack:
        waiting = [stack.enter_context(closing(connect_nowait(path))) for _ in range(4)]
        write_all(waiting[3], b"hello")
        listener.stop_listening()
        with pytest.raises(SipcError):
            connect(path, Deadline(0.05))
        clients = [stack.enter_context(closing(listener.accept())) for _ in waiting]
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert clients[3].read(bytearray(10), Deadline(TIMEOUT)) == 5


def test_a_path_can_be_taken_again_after_its_listener_has_closed(path):
    for _ in range(3):
        with connected(path):
            pass


@pytest.mark.parametrize(
    ("numbers", "kind", "remedy"),
    [
        ((errno.ENOMEM, 8), OutOfResources, "free memory|close some programs"),
        ((errno.EINTR, 995), EndpointError, "try again later"),
        ((errno.ENOSPC, 112), EndpointError, "free space"),
    ],
    ids=["no memory", "interrupted", "a full disk"],
)
def test_an_unusual_error_about_an_endpoint_has_a_matching_remedy(path, numbers, kind, remedy):
    """The error numbers of POSIX and of Windows."""
    endpoint_error = import_module(connect.__module__).endpoint_error
    error = endpoint_error(OSError(numbers[0], "a reason", None, numbers[1]), path)
    assert type(error) is kind
    assert re.search(remedy, error.hint)
    assert path in str(error)
