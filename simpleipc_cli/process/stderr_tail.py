"""The end of what a process wrote to its standard error: most likely why it exited."""

from __future__ import annotations

_MAX_BYTES = 4096  # kept (tunable)
_MAX_LINES, _MAX_CHARACTERS = 5, 500  # shown (tunable)


class StderrTail:
    """Keeps the end of a process's standard error."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_MAX_BYTES:]

    def text(self) -> str:
        """Return the last lines as one line, which may hold any characters."""
        lines = self._tail.decode("utf-8", "backslashreplace").splitlines()
        text = " | ".join([line.strip() for line in lines if line.strip()][-_MAX_LINES:])
        return text if len(text) <= _MAX_CHARACTERS else f"...{text[-_MAX_CHARACTERS:]}"
