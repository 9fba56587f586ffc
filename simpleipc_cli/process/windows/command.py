"""A command line of the system's shell."""

from __future__ import annotations


class Command:
    """A command line of cmd.exe."""

    def __init__(self, line: str, _search_path: str) -> None:
        self.line = line

    def is_missing(self) -> bool:
        """Return False: only the shell knows whether a command exists."""
        return False

    def shell_argv(self, shell: str) -> str:
        """Return the command line. /s: the shell removes these quotes and no others."""
        return f'"{shell}" /d /s /c "{self.line}"'
