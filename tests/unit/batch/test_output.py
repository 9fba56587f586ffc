from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleipc_cli.batch.output import ROOM, OrderedOutput, OutputFailed, WriteBuffer
from simpleipc_cli.batch.reorder import MEMORY_ALL, MEMORY_EACH, Answer, BufferUsage
from simpleipc_cli.errors import SipcError


class Sink:
    """Takes a given number of bytes at each call."""

    def __init__(self, *takes: int) -> None:
        self.taken = b""
        self.takes = deque(takes)

    def fileno(self) -> int:
        raise NotImplementedError

    def write_nowait(self, payload: memoryview) -> int:
        if len(payload) > (most := self.takes.popleft() if self.takes else len(payload)):
            payload = payload[:most]
        self.taken += payload
        return len(payload)

    def write(self, payload: memoryview) -> None:
        self.taken += payload


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    return str(tmp_path_factory.mktemp("waiting"))


def new_output(sink, disk, separator=b"\n") -> tuple[OrderedOutput, BufferUsage]:
    stock = BufferUsage(disk)
    return OrderedOutput(WriteBuffer(sink), stock, separator), stock


def view(text: bytes) -> memoryview:
    return memoryview(text)


def nothing_waits(stock: BufferUsage) -> bool:
    return (stock.size, stock.memory, stock.files) == (0, 0, 0)


# -- answers that wait -----------------------------------------------------------------

payloads = st.sampled_from([1, 100, MEMORY_EACH - 100, MEMORY_EACH, MEMORY_EACH + 1])
takes = st.sampled_from([-1, -100, -MEMORY_EACH, -3 * MEMORY_EACH])


@settings(deadline=None)
@given(steps=st.lists(payloads | takes, max_size=15))
def test_waiting_bytes_keep_their_order_in_memory_and_on_disk(disk, steps):
    stock = BufferUsage(disk)
    answer = Answer(1, stock)
    model = b""
    for number, step in enumerate(steps):
        if step > 0:
            payload = bytes([number]) * step
            answer.store(view(payload))
            model += payload
        elif model:
            taken = answer.take(-step)
            assert taken
            assert model.startswith(taken)
            model = model[len(taken) :]
        assert answer.waiting is bool(model)
        assert stock.size == len(model)
        assert stock.memory <= MEMORY_EACH
        assert stock.files <= 1
    answer.close()
    assert nothing_waits(stock)


def test_all_responses_together_use_little_memory(disk):
    stock = BufferUsage(disk)
    answers = [Answer(number, stock) for number in range(MEMORY_ALL // MEMORY_EACH + 5)]
    for answer in answers:
        answer.store(view(bytes(MEMORY_EACH)))
    assert stock.memory == MEMORY_ALL
    assert stock.files == 5
    for answer in answers:
        answer.close()
    assert nothing_waits(stock)


# -- the order -------------------------------------------------------------------------


def test_the_next_response_is_written_at_once_and_the_others_wait(disk):
    sink = Sink()
    output, stock = new_output(sink, disk)
    first, second, third = (output.begin(number) for number in (1, 2, 3))
    output.deliver(second, view(b"two"))
    output.deliver(first, view(b"one,"))
    output.pump()
    assert sink.taken == b"one,"
    third.complete = second.complete = True
    output.pump()
    assert sink.taken == b"one,"
    first.complete = True
    output.pump()
    assert sink.taken == b"one,\ntwo\n\n"
    assert output.idle
    assert nothing_waits(stock)


ENDS = [(b"", b"\n"), (b"a", b"a\n"), (b"a\n", b"a\n"), (b"\n", b"\n"), (b"a\n\n", b"a\n\n")]


@pytest.mark.parametrize(("answer", "expected"), ENDS)
@pytest.mark.parametrize("early", [True, False], ids=["its turn", "before its turn"])
def test_a_newline_is_added_to_responses_without_one(disk, answer, expected, early):
    sink = Sink()
    output, _ = new_output(sink, disk)
    first = output.begin(1)
    ended = output.begin(2)
    first.complete = early
    output.pump()
    for byte in answer:
        output.deliver(ended, view(bytes([byte])))
    first.complete = ended.complete = True
    output.pump()
    assert sink.taken == b"\n" + expected


def test_a_nul_is_added_to_every_response(disk):
    sink = Sink()
    output, _ = new_output(sink, disk, b"\0")
    for number, answer in enumerate([b"a", b"b\0", b"c\n"], 1):
        begun = output.begin(number)
        output.deliver(begun, view(answer))
        begun.complete = True
    output.pump()
    assert sink.taken == b"a\0b\0\0c\n\0"


def test_a_slow_sink_receives_everything_in_order(disk):
    sink = Sink(0, 1, 0, 70_000, 5, 0, 0)
    output, stock = new_output(sink, disk)
    answers = [output.begin(number) for number in range(1, 4)]
    whole = [bytes([64 + number]) * 150_000 for number in range(3)]
    for answer, payload in zip(reversed(answers), reversed(whole), strict=True):
        for at in range(0, len(payload), 50_000):
            output.deliver(answer, view(payload[at : at + 50_000]))
        answer.complete = True
        output.pump()
    while not output.idle:
        output.pump()
    assert sink.taken == b"".join(payload + b"\n" for payload in whole)
    assert nothing_waits(stock)


def test_new_bytes_never_overtake_waiting_ones(disk):
    sink = Sink(0)
    outlet = WriteBuffer(sink)
    output = OrderedOutput(outlet, BufferUsage(disk), b"\n")
    answer = output.begin(1)
    output.deliver(answer, view(b"a" * ROOM))
    output.deliver(answer, view(b"b"))
    outlet.flush()
    output.deliver(answer, view(b"c"))
    output.pump()
    assert sink.taken == b"a" * ROOM + b"bc"


def test_little_memory_is_used_while_the_sink_takes_nothing(disk):
    sink = Sink(*[0] * 1000)
    output, stock = new_output(sink, disk)
    answer = output.begin(1)
    for _ in range(100):
        output.deliver(answer, view(bytes(ROOM)))
        output.pump()
    assert stock.memory <= MEMORY_EACH
    assert stock.size == 99 * ROOM
    assert not output.idle
    output.close()
    assert nothing_waits(stock)


def test_a_failing_sink_is_no_failure_of_a_response(disk):
    class Broken(Sink):
        def write_nowait(self, payload: memoryview) -> int:
            raise SipcError("broken")

    output, _ = new_output(Broken(), disk)
    answer = output.begin(1)
    output.deliver(answer, view(b"x"))
    with pytest.raises(OutputFailed) as failed:
        output.pump()
    assert str(failed.value.error) == "broken"


def test_a_response_that_cannot_be_stored_keeps_its_beginning(disk):
    output, stock = new_output(Sink(), f"{disk}/missing")
    output.begin(1)
    second = output.begin(2)
    output.deliver(second, view(bytes(MEMORY_EACH)))
    with pytest.raises(SipcError, match="missing"):
        output.deliver(second, view(b"more"))
    assert stock.size == MEMORY_EACH
    output.close()
    assert nothing_waits(stock)
