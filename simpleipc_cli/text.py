"""Make foreign bytes and text printable, quoted, or safe for JSON."""

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
    """Return bytes in double quotes: printable ASCII unchanged, everything else escaped.

    With a `b` in front, the result is a Python literal for the same bytes.
    """
    return '"' + bytes(data).decode("latin-1").translate(_ESCAPES) + '"'


def printable(text: str) -> str:
    """Escape every character that is not printable, terminal controls included.

    Loads no codec, so that it can print the error that no file can be opened.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def call_path(error: BaseException) -> str:
    """Return the functions and lines of an exception's traceback, the outermost first."""
    calls = []
    traceback = error.__traceback__
    while traceback is not None:
        calls.append(f"{traceback.tb_frame.f_code.co_qualname}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return " > ".join(calls)


def json_safe(text: str) -> str:
    """Escape lone surrogates, which strict JSON readers refuse.

    Python keeps the bytes of a path that are not UTF-8 as lone surrogates.
    """
    return text.encode("utf-8", "backslashreplace").decode()
