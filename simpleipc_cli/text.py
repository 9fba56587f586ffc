"""Bytes as people can read them: in quotes, on one line, nothing in it that a terminal obeys."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.pktline import Buffer

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


def printable(text: str) -> str:
    """Text that may hold anything, with whatever is not plain to read escaped.

    Loads no codec, as the error to report may be that no file can be opened.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def json_safe(text: str) -> str:
    """Text for JSON that everybody can read.

    Bytes of a path that are no text are half of a surrogate pair in Python, which JSON can
    write and strict readers refuse.
    """
    return text.encode("utf-8", "backslashreplace").decode()
