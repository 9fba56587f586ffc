"""Bytes as people can read them: in quotes, on one line, nothing in it that a terminal obeys."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.buffers import Buffer

_ESCAPES = {
    code: f"\\x{code:02x}"
    for code in range(256)
    if not 0x20 <= code < 0x7F  # plain ASCII
} | {ord('"'): '\\"', ord("\\"): "\\\\", 9: "\\t", 10: "\\n", 13: "\\r"}


def quoted(data: Buffer) -> str:
    """All of the bytes, in double quotes: printable ASCII as it is, the rest escaped.

    Reads back as the same bytes in Python, behind a `b`.
    """
    return '"' + bytes(data).decode("latin-1").translate(_ESCAPES) + '"'
