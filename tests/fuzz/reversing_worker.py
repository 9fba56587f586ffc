"""A worker that responds with the reversed request; it accepts only bytes that sipc may write."""

from __future__ import annotations

import sys

MAX_PAYLOAD = 65516


def request() -> bytes | None:
    payload = []
    while True:
        header = sys.stdin.buffer.read(4)
        if not header and not payload:
            return None
        length = int(header, 16)
        if header != b"%04x" % length or not (length == 0 or 5 <= length <= MAX_PAYLOAD + 4):
            sys.exit(f"malformed: {header!r}")
        if not length:
            return b"".join(payload)
        payload.append(sys.stdin.buffer.read(length - 4))
        if len(payload[-1]) < length - 4:
            sys.exit("truncated")


def main() -> None:
    while (payload := request()) is not None:
        payload = payload[::-1]
        for at in range(0, len(payload), MAX_PAYLOAD):
            piece = payload[at : at + MAX_PAYLOAD]
            sys.stdout.buffer.write(b"%04x%s" % (len(piece) + 4, piece))
        sys.stdout.buffer.write(b"0000")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
