"""The end of what a process wrote to its standard error: most likely why it ended."""

from __future__ import annotations

_KEPT = 4096  # bytes of standard error; more than a line of text can show, at will
_MOST_LINES, _MOST_CHARACTERS = 5, 500  # of its last words, at will


class StderrTail:
    """Keeps the end of what it is told."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._tail = b""

    def add(self, piece: bytes) -> None:
        """More was said."""
        self._tail = (self._tail + piece)[-_KEPT:]

    def text(self) -> str:
        """The last lines, as one; may hold any characters."""
        lines = self._tail.decode("utf-8", "backslashreplace").splitlines()
        text = " | ".join([line.strip() for line in lines if line.strip()][-_MOST_LINES:])
        return text if len(text) <= _MOST_CHARACTERS else f"...{text[-_MOST_CHARACTERS:]}"
