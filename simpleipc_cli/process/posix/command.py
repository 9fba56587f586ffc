"""A shell command line, and how it is started.

It is started without a shell, which is faster, only if that makes no difference: for plain words,
the first of which is an executable file and not a builtin of the shell.
"""

from __future__ import annotations

import os
import re
import shlex

SHELL = "/bin/sh"

# Words that no shell changes.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+:,./=-]*")

# A word that no shell changes, and that may be the name of a file.
_LITERAL = re.compile(r"[A-Za-z0-9_@%+:,./\x80-\U0010ffff][A-Za-z0-9_@%+:,./~#\x80-\U0010ffff-]*")

# Builtins and reserved words of dash and bash, which /bin/sh may be.
_SHELL_WORDS = frozenset(
    (
        ". : alias bg bind break builtin caller case cd chdir command compgen complete compopt "
        "continue coproc declare dirs disown do done echo elif else enable esac eval exec exit "
        "export false fc fg fi for function getopts hash help history if in jobs kill let local "
        "logout mapfile popd printf pushd pwd read readarray readonly return select set shift "
        "shopt source suspend test then time times trap true type typeset ulimit umask unalias "
        "unset until wait while"
    ).split()
)


class Command:
    """A shell command line. Each start searches for the program again: files can change."""

    def __init__(self, line: str, search_path: str) -> None:
        self.line = line
        words = line.split(" ") if "\n" not in line else []
        words = [word for word in words if word]
        self._places = _places(words[0], search_path) if words else []
        self._word = words[0] if len(words) == 1 and _LITERAL.fullmatch(words[0]) else ""
        plain = bool(words) and all(_PLAIN.fullmatch(word) for word in words)
        self._words = words if plain and "=" not in words[0] else []

    def shell_argv(self) -> list[str]:
        """Return the argument list with which a shell runs the line."""
        if self._is_local_file():
            return [SHELL, "-c", "./" + shlex.quote(self._word)]
        return [SHELL, "-c", "--", self.line]

    def direct_argv(self) -> tuple[str, list[str]] | None:
        """Return the program's file and its argument list, None if a shell is needed."""
        if not self._words:
            return None
        first = self._words[0]
        if self._is_local_file():
            first = "./" + first
            return (first, [first]) if _is_program(first) else None
        if first in _SHELL_WORDS:
            return None
        program = self._find()
        return None if program is None else (program, self._words)

    def is_missing(self) -> bool:
        if not self._words or self._words[0] in _SHELL_WORDS:
            return False
        first = self._words[0]
        if "/" in first:
            return not os.path.exists(first)
        return not self._is_local_file() and self._find() is None

    def _is_local_file(self) -> bool:
        """Return whether the line is one word: a file here, but no program in PATH."""
        word = self._word
        if not word or "/" in word or not os.path.isfile(word):
            return False
        return self._find() is None

    def _find(self) -> str | None:
        """Return the file of the program that the first word names, as shutil.which() does."""
        return next(filter(_is_program, self._places), None)


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and not os.path.isdir(path)


def _places(word: str, search_path: str) -> list[str]:
    """Return the files that a program's name may stand for."""
    if "/" in word:
        return [word]
    folders = search_path.split(os.pathsep) if search_path else []
    return [os.path.join(folder, word) for folder in folders]
