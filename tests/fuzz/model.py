"""The reference model of the bytes of a message. It shares no code with the product."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

HEADER = re.compile(rb"[0-9a-fA-F]{4}")
MAX_PACKET = 0xFFF0


class Verdict(enum.Enum):
    """The result of decoding all bytes up to the end of the stream."""

    COMPLETE = "complete"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Decoded:
    verdict: Verdict
    payload: bytes
    """The payload before the flush, the malformed packet or the end."""
    size: int
    """Bytes up to and with the flush or the malformed header."""


def decode(wire: bytes) -> Decoded:
    """Decode a message; what follows its flush is ignored."""
    payload, at = [], 0
    while at + 4 <= len(wire):
        header = wire[at : at + 4]
        if not HEADER.fullmatch(header):
            return Decoded(Verdict.MALFORMED, b"".join(payload), at + 4)
        length = int(header, 16)
        if length == 0:
            return Decoded(Verdict.COMPLETE, b"".join(payload), at + 4)
        if not 4 <= length <= MAX_PACKET:
            return Decoded(Verdict.MALFORMED, b"".join(payload), at + 4)
        payload.append(wire[at + 4 : at + length])
        at += length
    verdict = Verdict.TRUNCATED if wire else Verdict.NOTHING
    return Decoded(verdict, b"".join(payload), len(wire))


def is_written_by_sipc(wire: bytes) -> bool:
    """Whether sipc may have written these bytes: in lower case, no empty packet, a flush last."""
    at = 0
    while at + 4 <= len(wire):
        header = wire[at : at + 4]
        length = int(header, 16) if HEADER.fullmatch(header) else -1
        if header != header.lower() or not (length == 0 or 5 <= length <= MAX_PACKET):
            return False
        if length == 0:
            return at + 4 == len(wire)
        at += length
    return True
