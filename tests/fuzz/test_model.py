"""The reference model follows the table of the protocol."""

from __future__ import annotations

import pytest
from fuzz.model import Decoded, Verdict, decode, is_written_by_sipc
from helpers.wire import message

COMPLETE, MALFORMED, TRUNCATED = Verdict.COMPLETE, Verdict.MALFORMED, Verdict.TRUNCATED

CASES = [
    (b"", Verdict.NOTHING, b""),
    (b"0000", COMPLETE, b""),
    (b"0009hello0000", COMPLETE, b"hello"),
    (b"000Ahello!0000", COMPLETE, b"hello!"),
    (b"00040005x00040000", COMPLETE, b"x"),
    (b"0005x00000005y0000", COMPLETE, b"x"),
    (b"0005x", TRUNCATED, b"x"),
    (b"0009he", TRUNCATED, b"he"),
    (b"0005x000", TRUNCATED, b"x"),
    (b"fff0", TRUNCATED, b""),
    *((b"0005x" + header + b"0000", MALFORMED, b"x") for header in
      (b"0001", b"0002", b"0003", b"fff1", b"ffff", b"+0f5", b"0x0e", b"-004", b" 00f", b"0_0e")),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "verdict", "payload"), CASES, ids=str)
def test_the_model_decodes_messages_as_the_protocol_defines(wire, verdict, payload):
    decoded = decode(wire)
    assert (decoded.verdict, decoded.payload) == (verdict, payload)


def test_a_complete_message_ends_with_its_flush():
    assert decode(b"0005x0000rest") == Decoded(COMPLETE, b"x", 9)


@pytest.mark.parametrize("size", [0, 1, 65516, 65517, 200_000])
def test_the_model_distinguishes_what_sipc_writes_from_what_it_accepts(size):
    wire = message(b"x" * size)
    assert is_written_by_sipc(wire)
    assert is_written_by_sipc(wire[:-1])
    for wrong in (b"0004" + wire, wire + b"0", b"000Ahello!" + wire, b"0001"):
        assert is_written_by_sipc(wrong) == (wrong == wire)
