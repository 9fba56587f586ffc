"""Different payloads for the requests of a load: which process sends which one, and when."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.batch.batch import RecordSplitter
from simpleipc_cli.bench.generator import LoadPlan
from simpleipc_cli.bench.payloads import Payloads, split_records
from simpleipc_cli.bench.processes import split


def numbered(count: int, **more) -> Payloads:
    return Payloads("file", tuple(b"%d" % number for number in range(count)), **more)


def sent_by(plan: LoadPlan) -> list[bytes]:
    """Return the payloads of the requests that a process counts."""
    return [payload for payload, _ in islice(plan.payloads.in_turn(), plan.requests)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 7), st.booleans())
def test_as_many_requests_as_payloads_send_each_of_them_once(count, processes, warmup, is_open):
    plan = LoadPlan(
        "/x",
        payloads=numbered(count),
        requests=count,
        concurrency=100,
        interval=10 if is_open else None,
        warmup=warmup * 10,
    )
    sent = [payload for share in split(plan, processes) for payload in sent_by(share)]
    assert sorted(sent) == sorted(plan.payloads.data)


@given(st.integers(1, 10), st.integers(1, 6), st.integers(1, 60))
def test_processes_send_the_payloads_of_one_process(count, processes, requests):
    plan = LoadPlan("/x", payloads=numbered(count), requests=requests, concurrency=100)
    sent = [payload for share in split(plan, processes) for payload in sent_by(share)]
    assert sorted(sent) == sorted(sent_by(plan))


def test_after_the_last_payload_the_first_one_follows():
    pairs = numbered(3, expected=(b"a", b"b", b"c")).in_turn()
    assert list(islice(pairs, 5)) == [
        (b"0", b"a"), (b"1", b"b"), (b"2", b"c"), (b"0", b"a"), (b"1", b"b")
    ]  # fmt: skip


@given(st.integers(1, 60))
def test_shuffling_keeps_all_payloads_with_their_expected_responses(count):
    whole = numbered(count, expected=tuple(b"to %d" % number for number in range(count)))
    shuffled = whole.shuffled()
    assert sorted(shuffled.data) == sorted(whole.data)
    assert shuffled.expected == tuple(b"to " + payload for payload in shuffled.data)
    assert shuffled == whole.shuffled()


def test_shuffling_gives_the_same_order_in_every_version_of_python():
    assert b"".join(numbered(10).shuffled().data) == b"7391802645"


@given(st.binary(max_size=30).map(lambda data: data.replace(b"x", b"\n\0")))
@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_records_are_those_of_send(separator, data):
    splitter = RecordSplitter(separator)
    for part in filter(None, (data, b"")):
        splitter.feed(part)
    records = [payload for payload, _ in iter(splitter.next_chunk, None)]
    splitter.feed(b"")
    records += [payload for payload, _ in iter(splitter.next_chunk, None)]
    assert split_records(data, separator) == tuple(records)
