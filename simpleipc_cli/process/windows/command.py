"""A command as the user wrote it, and how it is started."""

from __future__ import annotations


class WinCommand:
    """A command line for the system's shell."""

    def __init__(self, line: str, search_path: str) -> None:  # noqa: ARG002 - the shell looks
        self.line = line

    def is_missing(self) -> bool:
        """Return False: only the shell knows whether a command exists."""
        return False

    def shell_argv(self, shell: str) -> str:
        """Return the command line. /s: the shell removes these quotes and no others."""
        return f'"{shell}" /d /s /c "{self.line}"'
