"""What the pollers of POSIX systems promise alike; kqueue is scripted, as macOS and FreeBSD do it.

See also tests/inprocess/test_pollers.py.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from contextlib import closing, suppress

import pytest
from helpers import scripted_kqueue
from helpers.streams import reported
from helpers.waiting import TIMEOUT

from simpleipc_cli.transport import HANGUP, READ, WRITE, new_wakeup_event
from simpleipc_cli.transport.unix import poll, poller

pytestmark = pytest.mark.skipif(not scripted_kqueue.IS_AVAILABLE, reason="Linux is masked")


def new_kqueue_poller(monkeypatch):
    return scripted_kqueue.install(monkeypatch).KqueuePoller()


def new_freebsd_poller(monkeypatch):
    return scripted_kqueue.install(monkeypatch, freebsd=True).KqueuePoller()


FEW = {
    "poll": lambda _: poll.PollPoller(),
    "kqueue": new_kqueue_poller,
    "freebsd": new_freebsd_poller,
}
ALL = {**FEW, "many": lambda _: poller.new_scalable_poller()}


@pytest.fixture(params=ALL)
def any_poller(request, monkeypatch):
    with closing(ALL[request.param](monkeypatch)) as made:
        yield made


@pytest.fixture(params=FEW)
def few_poller(request, monkeypatch):
    """A poller that also takes files that epoll(7) refuses."""
    with closing(FEW[request.param](monkeypatch)) as made:
        yield made


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pipe():
    """The ends of a pipe, as files."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as read_end, open(writer, "wb", buffering=0) as write_end:
        yield read_end, write_end


# -- half-closed and closed peers ----------------------------------------------------------


def test_a_half_close_is_no_hang_up(any_poller, pair):
    ours, theirs = pair
    any_poller.register(ours.fileno(), READ)
    theirs.shutdown(socket.SHUT_WR)
    for _ in range(2):
        assert reported(any_poller) == {ours.fileno(): READ}
    any_poller.register(ours.fileno(), 0)
    assert any_poller.wait(0) == []


def test_a_close_after_a_half_close_is_a_hang_up(any_poller, pair):
    ours, theirs = pair
    any_poller.register(ours.fileno(), 0)
    theirs.shutdown(socket.SHUT_WR)
    assert any_poller.wait(0) == []
    theirs.close()
    for _ in range(2):
        assert reported(any_poller) == {ours.fileno(): HANGUP}


@pytest.mark.parametrize("before", [READ, WRITE, READ | WRITE])
def test_a_hang_up_is_reported_after_other_events_were_asked_for(any_poller, pair, before):
    ours, theirs = pair
    any_poller.register(ours.fileno(), before)
    any_poller.wait(0)
    any_poller.register(ours.fileno(), 0)
    any_poller.wait(0)
    theirs.close()
    assert reported(any_poller) == {ours.fileno(): HANGUP}


def test_reading_and_writing_are_one_event(any_poller, pair):
    ours, theirs = pair
    calls = []
    any_poller.register(ours.fileno(), READ | WRITE, calls.append)
    theirs.sendall(b"x")
    any_poller.dispatch(TIMEOUT)
    assert calls == [READ | WRITE]
    any_poller.register(ours.fileno(), READ)
    any_poller.dispatch(TIMEOUT)
    any_poller.register(ours.fileno(), WRITE)
    any_poller.dispatch(TIMEOUT)
    assert calls == [READ | WRITE, READ, WRITE]


def test_space_to_write_is_not_reported_unless_it_is_asked_for(any_poller, pair):
    ours, theirs = pair
    ours.setblocking(False)
    any_poller.register(ours.fileno(), 0)
    size = 0
    with suppress(BlockingIOError):
        while True:
            size += ours.send(b"x" * 10_000)
    assert any_poller.wait(0) == []
    while size:
        size -= len(theirs.recv(1 << 16))
    assert any_poller.wait(0) == []
    any_poller.register(ours.fileno(), WRITE)
    assert reported(any_poller) == {ours.fileno(): WRITE}


def test_a_number_that_is_in_use_again_has_none_of_its_former_events(any_poller, pair):
    ours, theirs = pair
    number = ours.fileno()
    any_poller.register(number, READ)
    theirs.close()
    assert reported(any_poller) == {number: READ | HANGUP}
    ours.close()
    any_poller.discard(number)
    other, peer = socket.socketpair()
    with other, peer:
        other = socket.socket(fileno=os.dup2(other.detach(), number))
        with other:
            any_poller.register(number, READ)
            assert any_poller.wait(0) == []
            peer.sendall(b"x")
            assert reported(any_poller) == {number: READ}
            any_poller.unregister(number)
            assert any_poller.wait(0) == []


# -- pipes ---------------------------------------------------------------------------------


def test_a_pipe_without_a_reader_has_hung_up_until_it_is_unregistered(any_poller, pipe):
    reader, writer = pipe
    any_poller.register(writer.fileno(), 0)
    assert any_poller.wait(0) == []
    reader.close()
    for _ in range(3):
        assert reported(any_poller) == {writer.fileno(): HANGUP}
    any_poller.unregister(writer.fileno())
    assert any_poller.wait(0) == []


def test_a_pipe_that_had_no_reader_before_has_hung_up(any_poller, pipe):
    reader, writer = pipe
    reader.close()
    any_poller.register(writer.fileno(), WRITE)
    assert reported(any_poller)[writer.fileno()] & HANGUP


def test_a_pipe_without_a_writer_has_hung_up_also_while_it_has_data(any_poller, pipe):
    reader, writer = pipe
    any_poller.register(reader.fileno(), READ)
    assert any_poller.wait(0) == []
    writer.write(b"data")
    assert reported(any_poller) == {reader.fileno(): READ}
    writer.close()
    assert reported(any_poller) == {reader.fileno(): READ | HANGUP}
    assert reader.read(4) == b"data"
    assert reported(any_poller)[reader.fileno()] & HANGUP


def test_a_full_pipe_is_writable_after_it_was_read(any_poller, pipe):
    reader, writer = pipe
    os.set_blocking(writer.fileno(), False)
    while writer.write(b"x" * 4096):
        pass
    any_poller.register(writer.fileno(), WRITE)
    assert any_poller.wait(0) == []
    reader.read(1 << 20)
    assert reported(any_poller) == {writer.fileno(): WRITE}


# -- files that kqueue and epoll refuse ----------------------------------------------------


def test_a_file_is_always_ready_also_at_its_end(few_poller, tmp_path):
    path = tmp_path / "file"
    path.touch()
    with path.open("r+b") as file:
        few_poller.register(file.fileno(), READ | WRITE)
        for _ in range(2):
            assert reported(few_poller) == {file.fileno(): READ | WRITE}
        few_poller.register(file.fileno(), WRITE)
        assert reported(few_poller) == {file.fileno(): WRITE}
        few_poller.unregister(file.fileno())
        assert few_poller.wait(0) == []


def test_the_null_device_is_always_ready(few_poller):
    with open(os.devnull, "r+b", buffering=0) as null:
        few_poller.register(null.fileno(), READ)
        assert reported(few_poller) == {null.fileno(): READ}
        few_poller.register(null.fileno(), WRITE)
        assert reported(few_poller) == {null.fileno(): WRITE}


def test_the_end_of_a_named_pipe_is_reported(few_poller, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(reader, "rb", buffering=0) as file, path.open("wb", buffering=0) as writer:
        few_poller.register(reader, READ)
        assert few_poller.wait(0) == []
        writer.write(b"data")
        assert reported(few_poller) == {reader: READ}
        assert file.read(10) == b"data"
        assert few_poller.wait(0) == []
        writer.close()
        assert reader in reported(few_poller)
        assert file.read(10) == b""


def test_files_and_sockets_are_waited_for_together(few_poller, pair):
    ours, theirs = pair
    with open(os.devnull, "rb", buffering=0) as null:
        few_poller.register(ours.fileno(), READ)
        few_poller.register(null.fileno(), 0)
        threading.Timer(0.01, theirs.sendall, [b"x"]).start()
        assert reported(few_poller) == {ours.fileno(): READ}
        few_poller.register(null.fileno(), READ)
        assert reported(few_poller) == {ours.fileno(): READ, null.fileno(): READ}


def test_a_kqueue_does_not_take_a_closed_descriptor(monkeypatch, pair):
    ours, _ = pair
    with closing(new_kqueue_poller(monkeypatch)) as kqueue:
        number = ours.detach()
        os.close(number)
        with pytest.raises(OSError, match="Bad file descriptor"):
            kqueue.register(number, READ)
        assert kqueue.wait(0) == []


# -- is_hung_up ----------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["linux", "kqueue"])
def test_only_a_closed_peer_has_hung_up(monkeypatch, pair, system):
    ours, theirs = pair
    module = poll if system == "linux" else scripted_kqueue.install(monkeypatch)
    assert not module.is_hung_up(ours.fileno())
    theirs.sendall(b"x")
    theirs.shutdown(socket.SHUT_WR)
    assert not module.is_hung_up(ours.fileno())
    theirs.close()
    assert module.is_hung_up(ours.fileno())


# -- what a system lacks or forbids --------------------------------------------------------


def lacking(monkeypatch, module, name):
    monkeypatch.delattr(module, name, raising=False)


def forbidding(number):
    def forbid(monkeypatch, module, name):
        def fail(*_arguments):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module, name, fail, raising=False)

    return forbid


REASONS = {
    "lacks it": lacking,
    "ENOSYS": forbidding(errno.ENOSYS),
    "EPERM": forbidding(errno.EPERM),
}


@pytest.mark.parametrize("reason", REASONS)
def test_poll_is_used_where_there_is_no_epoll(monkeypatch, reason, pair):
    REASONS[reason](monkeypatch, select, "epoll")
    ours, theirs = pair
    with closing(poller.new_scalable_poller()) as made:
        assert type(made) is poll.PollPoller
        made.register(ours.fileno(), READ)
        assert made.wait(0) == []
        theirs.sendall(b"x")
        assert reported(made) == {ours.fileno(): READ}


@pytest.mark.parametrize("reason", REASONS)
def test_a_wakeup_event_is_a_pipe_where_there_is_no_eventfd(monkeypatch, reason, any_poller):
    REASONS[reason](monkeypatch, os, "eventfd")
    event = new_wakeup_event()
    assert {os.get_blocking(event._reader), os.get_blocking(event._writer)} == {False}
    assert not os.get_inheritable(event._reader)
    assert not os.get_inheritable(event._writer)
    number = event.fileno()
    any_poller.register(number, READ)
    assert any_poller.wait(0) == []
    for _ in range(100_000):  # more than a pipe has space for
        event.set()
    for _ in range(2):
        assert reported(any_poller) == {number: READ}
    assert event.is_set()
    event.clear()
    assert not event.is_set()
    assert any_poller.wait(0) == []
    event.clear()
    event.set()
    assert reported(any_poller) == {number: READ}
    any_poller.unregister(number)
    event.close()
    event.set()  # as another thread may
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize(("module", "name"), [(select, "epoll"), (os, "eventfd")])
def test_a_shortage_of_descriptors_is_an_error(monkeypatch, module, name):
    forbidding(errno.EMFILE)(monkeypatch, module, name)
    made = poller.new_scalable_poller if name == "epoll" else new_wakeup_event
    with pytest.raises(OSError, match="Too many open files"):
        made()


def test_threads_and_pollers_are_woken_by_a_pipe(monkeypatch, any_poller):
    lacking(monkeypatch, os, "eventfd")
    with closing(new_wakeup_event()) as event:
        any_poller.register(event.fileno(), READ)
        for _ in range(100):
            thread = threading.Thread(target=event.set)
            thread.start()
            assert reported(any_poller) == {event.fileno(): READ}
            event.clear()
            thread.join(TIMEOUT)
