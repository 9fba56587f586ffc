from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleipc_cli.batch.reorder import (
    MAX_BUFFERED,
    MAX_MEMORY,
    MAX_MEMORY_EACH,
    BufferUsage,
    OrderedOutput,
    OutputFailed,
    PendingResponse,
    WriteBuffer,
)
from simpleipc_cli.errors import SipcError


class Sink:
    """Takes a given number of bytes at each call."""

    def __init__(self, *takes: int) -> None:
        self.taken = b""
        self.takes = deque(takes)

    def fileno(self) -> int:
        raise NotImplementedError

    def write_nowait(self, payload: memoryview) -> int:
        if len(payload) > (limit := self.takes.popleft() if self.takes else len(payload)):
            payload = payload[:limit]
        self.taken += payload
        return len(payload)

    def write(self, payload: memoryview) -> None:
        self.taken += payload


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    return str(tmp_path_factory.mktemp("waiting"))


def new_output(sink, disk, separator=b"\n") -> tuple[OrderedOutput, BufferUsage]:
    usage = BufferUsage(disk)
    return OrderedOutput(WriteBuffer(sink), usage, separator), usage


def view(text: bytes) -> memoryview:
    return memoryview(text)


def is_unused(usage: BufferUsage) -> bool:
    return (usage.size, usage.memory, usage.files) == (0, 0, 0)


# -- responses that wait -----------------------------------------------------------------

payloads = st.sampled_from([1, 100, MAX_MEMORY_EACH - 100, MAX_MEMORY_EACH, MAX_MEMORY_EACH + 1])
takes = st.sampled_from([-1, -100, -MAX_MEMORY_EACH, -3 * MAX_MEMORY_EACH])


@settings(deadline=None)
@given(steps=st.lists(payloads | takes, max_size=15))
def test_waiting_bytes_keep_their_order_in_memory_and_on_disk(disk, steps):
    usage = BufferUsage(disk)
    response = PendingResponse(1, usage)
    model = b""
    for number, step in enumerate(steps):
        if step > 0:
            payload = bytes([number]) * step
            response.store(view(payload))
            model += payload
        elif model:
            taken = response.take(-step)
            assert taken
            assert model.startswith(taken)
            model = model[len(taken) :]
        assert response.is_waiting is bool(model)
        assert usage.size == len(model)
        assert usage.memory <= MAX_MEMORY_EACH
        assert usage.files <= 1
    response.close()
    assert is_unused(usage)


def test_all_responses_together_use_little_memory(disk):
    usage = BufferUsage(disk)
    responses = [
        PendingResponse(number, usage) for number in range(MAX_MEMORY // MAX_MEMORY_EACH + 5)
    ]
    for response in responses:
        response.store(view(bytes(MAX_MEMORY_EACH)))
    assert usage.memory == MAX_MEMORY
    assert usage.files == 5
    for response in responses:
        response.close()
    assert is_unused(usage)


# -- the order -------------------------------------------------------------------------


def test_the_next_response_is_written_at_once_and_later_responses_wait(disk):
    sink = Sink()
    output, usage = new_output(sink, disk)
    first, second, third = (output.new_response(number) for number in (1, 2, 3))
    output.deliver(second, view(b"two"))
    output.deliver(first, view(b"one,"))
    output.write_nowait()
    assert sink.taken == b"one,"
    third.complete = second.complete = True
    output.write_nowait()
    assert sink.taken == b"one,"
    first.complete = True
    output.write_nowait()
    assert sink.taken == b"one,\ntwo\n\n"
    assert output.is_idle
    assert is_unused(usage)


ENDS = [(b"", b"\n"), (b"a", b"a\n"), (b"a\n", b"a\n"), (b"\n", b"\n"), (b"a\n\n", b"a\n\n")]


@pytest.mark.parametrize(("response", "expected"), ENDS)
@pytest.mark.parametrize("early", [True, False], ids=["its turn", "before its turn"])
def test_a_newline_is_added_to_responses_without_one(disk, response, expected, early):
    sink = Sink()
    output, _ = new_output(sink, disk)
    first = output.new_response(1)
    ended = output.new_response(2)
    first.complete = early
    output.write_nowait()
    for byte in response:
        output.deliver(ended, view(bytes([byte])))
    first.complete = ended.complete = True
    output.write_nowait()
    assert sink.taken == b"\n" + expected


def test_a_nul_is_added_to_every_response(disk):
    sink = Sink()
    output, _ = new_output(sink, disk, b"\0")
    for number, response in enumerate([b"a", b"b\0", b"c\n"], 1):
        started = output.new_response(number)
        output.deliver(started, view(response))
        started.complete = True
    output.write_nowait()
    assert sink.taken == b"a\0b\0\0c\n\0"


def test_a_slow_sink_receives_everything_in_order(disk):
    sink = Sink(0, 1, 0, 70_000, 5, 0, 0)
    output, usage = new_output(sink, disk)
    responses = [output.new_response(number) for number in range(1, 4)]
    whole = [bytes([64 + number]) * 150_000 for number in range(3)]
    for response, payload in zip(reversed(responses), reversed(whole), strict=True):
        for at in range(0, len(payload), 50_000):
            output.deliver(response, view(payload[at : at + 50_000]))
        response.complete = True
        output.write_nowait()
    while not output.is_idle:
        output.write_nowait()
    assert sink.taken == b"".join(payload + b"\n" for payload in whole)
    assert is_unused(usage)


def test_new_bytes_never_overtake_waiting_ones(disk):
    sink = Sink(0)
    buffer = WriteBuffer(sink)
    output = OrderedOutput(buffer, BufferUsage(disk), b"\n")
    response = output.new_response(1)
    output.deliver(response, view(b"a" * MAX_BUFFERED))
    output.deliver(response, view(b"b"))
    buffer.flush_nowait()
    output.deliver(response, view(b"c"))
    output.write_nowait()
    assert sink.taken == b"a" * MAX_BUFFERED + b"bc"


def test_little_memory_is_used_while_the_sink_takes_nothing(disk):
    sink = Sink(*[0] * 1000)
    output, usage = new_output(sink, disk)
    response = output.new_response(1)
    for _ in range(100):
        output.deliver(response, view(bytes(MAX_BUFFERED)))
        output.write_nowait()
    assert usage.memory <= MAX_MEMORY_EACH
    assert usage.size == 99 * MAX_BUFFERED
    assert not output.is_idle
    output.close()
    assert is_unused(usage)


def test_a_failing_sink_is_not_reported_as_a_failed_response(disk):
    class Broken(Sink):
        def write_nowait(self, payload: memoryview) -> int:
            raise SipcError("broken")

    output, _ = new_output(Broken(), disk)
    response = output.new_response(1)
    output.deliver(response, view(b"x"))
    with pytest.raises(OutputFailed) as failed:
        output.write_nowait()
    assert str(failed.value.error) == "broken"


def test_a_response_that_cannot_be_stored_keeps_its_beginning(disk):
    output, usage = new_output(Sink(), f"{disk}/missing")
    output.new_response(1)
    second = output.new_response(2)
    output.deliver(second, view(bytes(MAX_MEMORY_EACH)))
    with pytest.raises(SipcError, match="missing"):
        output.deliver(second, view(b"more"))
    assert usage.size == MAX_MEMORY_EACH
    output.close()
    assert is_unused(usage)
