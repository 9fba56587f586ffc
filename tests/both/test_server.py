"""What the server promises its clients, for whatever platform this runs on."""

from __future__ import annotations

import threading
from queue import Queue

import pytest
from scripted import (
    PATIENCE,
    EchoHandler,
    Stopped,
    ask,
    message,
    payload_of,
    read_all,
    read_some,
    serving,
    told,
    wait_until,
    write_all,
)

from simpleipc_cli.client import look
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import CutOff, InUse, PathNotFound, SipcError
from simpleipc_cli.server.handler import Handler
from simpleipc_cli.server.pool import Ending
from simpleipc_cli.transport import connect, connect_now, listen

MUCH = bytes(range(256)) * 20_000


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "demo.sock")


@pytest.fixture
def client(path):
    """Connects, as often as it is called."""
    streams = []

    def new(data=b""):
        stream = connect(path, Deadline(PATIENCE))
        streams.append(stream)
        write_all(stream, data)
        return stream

    yield new
    for stream in streams:
        stream.close()


class Gate:
    """A handler that says that it has begun, and goes on when it is let."""

    def __init__(self):
        self._begun = Queue()
        self._open = threading.Event()

    def act(self, inside):
        self._begun.put(inside.request.id)
        request = inside.read_all()
        inside.wait_for(self._open)
        inside.write(request)

    def wait_until_begun(self):
        return self._begun.get(timeout=PATIENCE)

    def open(self):
        self._open.set()


def at_once(number, act):
    """Do the same in so many threads; what each returned."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(act())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return found


# answers


@pytest.mark.parametrize("request_", [b"ping", b"", MUCH], ids=["small", "empty", "large"])
def test_a_request_is_answered(path, request_):
    with serving(path) as server:
        assert ask(path, request_) == request_
        assert server.log.outcomes(1) == ["answered"]
    assert server.log.records[0].bytes_in == len(request_)
    assert server.log.records[0].bytes_out == len(request_)


def test_eight_clients_at_once_and_a_thousand_requests(path):
    def client():
        return [ask(path, b"%d" % number) for number in range(125)]

    with serving(path, handler=EchoHandler()) as server:
        answers = at_once(8, client)
        assert answers == [[b"%d" % number for number in range(125)]] * 8
        assert server.log.outcomes(1000) == ["answered"] * 1000
        assert server.counted()["answered"] == 1000


def test_who_writes_all_before_reading_gets_an_answer(path, client):
    with serving(path):
        assert payload_of(read_all(client(message(MUCH)))) == MUCH


def test_a_handler_may_answer_before_it_reads(path):
    def act(inside):
        inside.write(MUCH)
        inside.write(inside.read_all())

    with serving(path, act):
        assert ask(path, MUCH) == MUCH + MUCH


def test_a_handler_need_not_read(path):
    with serving(path, lambda inside: inside.write(b"no")) as server:
        assert ask(path, MUCH) == b"no"
        assert server.log.outcomes(1) == ["answered"]


def test_an_answer_comes_as_it_is_made(path, client):
    """And the handler sees the request as it is written."""
    with serving(path):
        stream = client(b"0005a")
        assert read_some(stream) == b"0005a"
        write_all(stream, b"0005b")
        assert read_some(stream) == b"0005b"
        write_all(stream, b"0000")
        assert read_all(stream) == b"0000"


def test_a_whole_request_is_waited_for(path, client):
    gate = Gate()
    with serving(path, gate.act, whole_request=True) as server:
        stream = client(message(MUCH)[:-4])
        client(b"0005x").close()
        assert server.log.outcomes(1) == ["cut_off"]
        write_all(stream, b"0000")
        gate.wait_until_begun()
        gate.open()
        assert payload_of(read_all(stream)) == MUCH
    assert gate._begun.empty()  # who was cut off began nothing


def test_a_handler_knows_whom_it_answers(path):
    seen = []

    def act(inside):
        seen.append(inside.request)

    with serving(path, act):
        ask(path)
        ask(path)
    assert [request.path for request in seen] == [path, path]
    assert len({request.id for request in seen}) == 2
    assert all(request.peer.pid > 0 for request in seen)


# what fails


def test_a_failed_handler_sends_no_flush(path):
    def act(inside):
        inside.write(b"half")
        return 3

    with serving(path, act) as server:
        assert told(path, message(b"x")) == b"0008half"
        with pytest.raises(CutOff):
            ask(path)
        assert server.log.outcomes(2) == ["failed"] * 2
    assert server.log.records[0].detail == "status 3"


def test_a_failed_handler_s_client_is_heard_out(path):
    """It may be one that writes all before it reads."""
    with serving(path, lambda inside: 1):
        assert told(path, message(MUCH)) == b""


class Broken(Handler):
    """Cannot start anything, or has a defect."""

    def __init__(self, error):
        self._error = error

    def start(self, request, stored):
        raise self._error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(SipcError("no"), "not_started"), (ValueError("a defect"), "broken")],
    ids=["not started", "defect"],
)
def test_a_handler_that_cannot_start_costs_its_request_alone(path, error, outcome):
    with serving(path, handler=Broken(error)) as server:
        for _ in range(2):
            with pytest.raises(CutOff):
                ask(path)
        assert server.log.outcomes(2) == [outcome] * 2


@pytest.mark.parametrize("bytes_", ["zzzz", "0001", "0002", "0003", "-004", " 00f", "fff1"])
def test_a_malformed_request_ends_its_connection_alone(path, bytes_):
    with serving(path) as server:
        assert told(path, bytes_.encode()) == b""
        assert server.log.outcomes(1) == ["malformed"]
        assert ask(path) == b"ping"


@pytest.mark.parametrize("bytes_", ["0", "000", "0009hel", "0009hello", "0009hello00"])
def test_a_request_that_is_cut_off_has_no_end(path, client, bytes_):
    ends = []

    def act(inside):
        ends.append(inside.read_all())

    with serving(path, act) as server:
        client(bytes_.encode()).close()
        assert server.log.outcomes(1) == ["cut_off"]
        assert not server.log.records[0].outcome.is_error
    assert ends == []


def test_bytes_behind_the_flush_are_dropped(path):
    with serving(path) as server:
        assert told(path, message(b"one") + message(b"two")) == message(b"one")
        assert server.log.outcomes(1) == ["answered"]


def test_who_only_looks_is_no_request(path):
    with serving(path) as server:
        assert look(lambda: path, timeout=PATIENCE).state == "listening"
        assert ask(path) == b"ping"  # accepted behind it
        server.log.wait_until(lambda: [line for line in server.log.lines if "looked" in line], "it")
        assert server.log.outcomes(1) == ["answered"]
        assert server.counted()["looked"] == 1


# limits


def test_no_more_are_answered_at_once_than_there_are_threads(path):
    lock, counts, now = threading.Lock(), [], [0]
    full, gate = threading.Semaphore(0), threading.Event()

    def act(inside):
        with lock:
            now[0] += 1
            counts.append(now[0])
        full.release()
        inside.wait_for(gate)
        with lock:
            now[0] -= 1
        inside.write(b"done")

    with serving(path, act, threads=2) as server:
        answers = []
        clients = threading.Thread(target=lambda: answers.extend(at_once(6, lambda: ask(path))))
        clients.start()
        for _ in range(2):
            assert full.acquire(timeout=PATIENCE)
        server.wait_until_waiting(4)
        gate.set()
        clients.join(PATIENCE)
        assert answers == [b"done"] * 6
    assert max(counts) == 2


def test_the_silent_keep_nobody_from_an_answer(path, client):
    with serving(path, threads=1) as server:
        silent = [client() for _ in range(20)]
        assert ask(path) == b"ping"
        assert server.counted()["silent"] == 20
        for stream in silent:
            write_all(stream, message(b"late"))
        assert [read_all(stream) for stream in silent] == [message(b"late")] * 20


def test_a_request_may_be_so_large_and_no_larger(path):
    with serving(path, max_request=100_000) as server:
        assert ask(path, b"x" * 100_000) == b"x" * 100_000
        assert server.log.outcomes(1) == ["answered"]
        with pytest.raises(CutOff):
            ask(path, b"x" * 100_001)
        assert server.log.outcomes(2) == ["answered", "too_large"]


@pytest.mark.parametrize("begun", [b"0", b"0009hel", b"0009hello"])
def test_who_falls_silent_in_a_request_is_hung_up_on(path, client, begun):
    with serving(path, read_timeout=0.2) as server:
        stream = client(begun)
        assert payload_of(read_all(stream)) is None
        assert server.log.outcomes(1) == ["silent"]


def test_who_does_not_read_is_hung_up_on(path, client):
    def act(inside):
        while True:
            inside.write(MUCH)

    with serving(path, act, write_timeout=0.2) as server:
        client(message(b"x"))
        assert server.log.outcomes(1) == ["stuck"]


def test_a_handler_has_so_much_time(path):
    with serving(path, lambda inside: inside.wait_for_the_end(), timeout=0.2) as server:
        with pytest.raises(CutOff):
            ask(path)
        assert server.log.outcomes(1) == ["timed_out"]


# hanging up


@pytest.mark.parametrize("sent", [b"0005x", b"0005x0000"], ids=["in mid-request", "behind it"])
def test_a_hang_up_ends_the_handler(path, client, sent):
    begun, ended = threading.Event(), threading.Event()

    def act(inside):
        begun.set()
        try:
            inside.wait_for_the_end()
        except Stopped:
            ended.set()
            raise

    with serving(path, act) as server:
        stream = client(sent)
        assert begun.wait(PATIENCE)
        stream.close()
        assert ended.wait(PATIENCE)
        assert server.log.outcomes(1) == ["hung_up" if sent.endswith(b"0000") else "cut_off"]


def test_a_handler_may_finish_for_nobody(path, client):
    gate, done = Gate(), threading.Event()

    def act(inside):
        gate.act(inside)
        done.set()

    with serving(path, act, finish_on_hangup=True) as server:
        stream = client(message(b"x"))
        gate.wait_until_begun()
        stream.close()
        gate.open()
        assert done.wait(PATIENCE)
        assert server.log.outcomes(1) == ["hung_up"]


# the end


def test_it_stops_when_it_is_told_to(path):
    with serving(path) as server:
        assert ask(path) == b"ping"
        server.stop()
        assert server.end() is Ending.DRAINED
        with pytest.raises(PathNotFound):
            connect_now(path)


def test_it_stops_behind_so_many_requests(path):
    with serving(path, count=3) as server:
        assert [ask(path) for _ in range(3)] == [b"ping"] * 3
        assert server.end() is Ending.DRAINED


def test_it_stops_when_a_request_says_so(path):
    with serving(path, quit_on=b"quit") as server:
        for other in (b"qui", b"quits", b"QUIT"):
            assert ask(path, other) == other
        assert ask(path, b"quit") == b""
        assert server.end() is Ending.DRAINED


def test_it_stops_when_nobody_has_asked_for_long_enough(path):
    with serving(path, idle_timeout=0.2) as server:
        assert server.end() is Ending.DRAINED


def test_a_path_is_served_again(path):
    for number in range(3):
        with serving(path) as server:
            assert ask(path, b"%d" % number) == b"%d" % number
            server.stop()
            assert server.end() is Ending.DRAINED


def test_a_path_has_one_server(path):
    with serving(path):
        with pytest.raises(InUse):
            listen(path, mode=0o600, backlog=1)
        assert ask(path) == b"ping"


def test_all_who_have_asked_are_answered_before_the_end(path, client):
    gate = Gate()
    with serving(path, gate.act, threads=1) as server:
        streams = [client(message(b"%d" % number)) for number in range(5)]
        gate.wait_until_begun()
        server.stop()
        gate.open()
        assert server.end() is Ending.DRAINED
    assert [payload_of(read_all(stream)) for stream in streams] == [b"0", b"1", b"2", b"3", b"4"]


def test_while_it_stops_nobody_new_gets_in(path, client):
    gate = Gate()
    with serving(path, gate.act) as server:
        stream = client(message(b"x"))
        gate.wait_until_begun()
        server.stop()
        wait_until(lambda: look(lambda: path, timeout=0).error, "nobody to get in")
        gate.open()
        assert payload_of(read_all(stream)) == b"x"
        assert server.end() is Ending.DRAINED


def test_who_is_silent_does_not_keep_it_from_its_end(path, client):
    with serving(path) as server:
        streams = [client(), client(b"0009he")]
        assert ask(path) == b"ping"
        server.stop()
        assert server.end() is Ending.DRAINED
    assert read_all(streams[0]) == b""


@pytest.mark.parametrize("how", ["told again", "out of time"])
def test_what_goes_on_is_ended_in_the_end(path, client, how):
    begun = threading.Event()

    def act(inside):
        begun.set()
        inside.wait_for_the_end()

    with serving(path, act, drain_timeout=PATIENCE if how == "told again" else 0.1) as server:
        stream = client(message(b"x"))
        assert begun.wait(PATIENCE)
        server.stop()
        if how == "told again":
            server.stop()
        assert server.end() is Ending.UNFINISHED
        assert payload_of(read_all(stream)) is None
        assert server.log.outcomes(1) == ["stopped"]
