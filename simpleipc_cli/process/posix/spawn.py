"""How a command line is started: with a shell or without, and by posix_spawn(3).

posix_spawn() returns once the child has called execve(), which takes a quarter of a millisecond or
more. `os.posix_spawn` holds the interpreter lock for that time, and so starts one process after the
other however many threads call it. So the C library is called directly where that is possible.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from simpleipc_cli.process import base

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

NO_VARIABLES: Mapping[str, str] = {}

ALL_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})

# Flags of the C libraries of Linux. Others have another value for _SETSID, or none.
_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80

# Bytes for a posix_spawnattr_t, a posix_spawn_file_actions_t or a sigset_t, whose sizes Python
# does not know. Those of glibc, the largest, are 336, 80 and 128.
_STRUCT_SIZE = 1024


class Command(base.Command):
    """A shell command line. Each start searches for the program again: files can change.

    It is started without a shell, which is faster, only if that makes no difference: for plain
    words, the first of which is an executable file and not a builtin of the shell.
    """

    def __init__(self, line: str, search_path: str) -> None:
        super().__init__(line, search_path)
        words = line.split(" ") if "\n" not in line else []
        words = [word for word in words if word]
        self._places = _places(words[0], search_path) if words else []
        self._word = words[0] if len(words) == 1 and _LITERAL.fullmatch(words[0]) else ""
        plain = bool(words) and all(_PLAIN.fullmatch(word) for word in words)
        self._words = words if plain and "=" not in words[0] else []

    def start(self, start: Callable[[str, list[str]], int]) -> int:
        """Call `start` with a program and its arguments, if possible without a shell.

        Return the process id that it returns. Raises OSError.
        """
        direct = self.direct_argv()
        if direct is not None:
            try:
                return start(*direct)
            except OSError:
                pass  # such as a script without "#!", which a shell can start
        return start(SHELL, self.shell_argv())

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


class Program(NamedTuple):
    """A program to start, as the leader of a session, with default signal handling.

    In its session there is no terminal that it could wait for, and it cannot leave its group.
    """

    path: str
    arguments: list[str]
    environment: Mapping[str, str]
    """Must never change, as its encoded form is kept."""
    files: Sequence[tuple[int, int]] = ()
    """Our descriptors and the child's numbers for them.

    The child gets no others of ours, except those that are inheritable.
    """
    variables: Mapping[str, str] = NO_VARIABLES
    """Added to the environment; must have other names."""


SpawnProgram = Callable[[Program], int]
"""Starts a program; returns its process id. Raises OSError, and ValueError for a NUL in a text."""


@cache
def best_spawn() -> SpawnProgram:
    """Return the best available function. The first call loads ctypes: some milliseconds."""
    try:
        return spawn_libc()
    except (AttributeError, ImportError, MemoryError, OSError):
        # MemoryError: ctypes makes a callback when it is loaded, for which some systems have
        # no memory (MemoryDenyWriteExecute= of systemd).
        return spawn_os


def spawn_os(program: Program) -> int:
    """Start a program; block other threads meanwhile. See SpawnProgram."""
    return os.posix_spawn(
        program.path,
        program.arguments,
        {**program.environment, **program.variables},
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in program.files],
        setsigmask=(),
        setsigdef=ALL_SIGNALS,
        setsid=True,
    )


def spawn_libc() -> SpawnProgram:
    """Return a function that lets other threads continue; some builds of Python have none."""
    import ctypes  # noqa: PLC0415 - see best_spawn()

    return _LibcSpawn(ctypes).spawn


class _LibcSpawn:
    """The C library's functions, and the attributes that all children get."""

    def __init__(self, ctypes: Any) -> None:
        """Raises AttributeError, OSError if something is missing."""
        self._c = ctypes
        self._pointer_size = ctypes.sizeof(ctypes.c_char_p)
        # Short calls keep the interpreter lock: getting it back could take milliseconds.
        quick = ctypes.PyDLL(None)
        quick.epoll_create1  # noqa: B018 - not a C library of Linux without it
        self._spawn = ctypes.CDLL(None).posix_spawn
        self._init = quick.posix_spawn_file_actions_init
        self._add_dup2 = quick.posix_spawn_file_actions_adddup2
        self._destroy = quick.posix_spawn_file_actions_destroy
        self._attributes = self._new_attributes(quick)  # only read from now on
        self._last: tuple[Mapping[str, str], Any] = (NO_VARIABLES, self._array([]))

    def _new_attributes(self, quick: Any) -> Any:
        attributes, signals = self._new_struct(), self._new_struct()
        _check(quick.posix_spawnattr_init(attributes))
        quick.sigemptyset(signals)
        _check(quick.posix_spawnattr_setsigmask(attributes, signals))
        for number in ALL_SIGNALS:
            quick.sigaddset(signals, int(number))  # refuses the two that glibc uses itself
        _check(quick.posix_spawnattr_setsigdefault(attributes, signals))
        flags = self._c.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)
        _check(quick.posix_spawnattr_setflags(attributes, flags))
        return attributes

    def spawn(self, program: Program) -> int:
        number = self._c.c_int()
        path, *words = _encoded([program.path, *program.arguments])
        argv = self._array(words)
        envp, _referenced = self._environment(program.environment, program.variables)
        actions = self._new_struct()
        _check(self._init(actions))
        try:
            for ours, theirs in program.files:
                _check(self._add_dup2(actions, ours, theirs))
            given = (path, actions, self._attributes, argv, envp)
            _check(self._spawn(self._c.byref(number), *given), program.path)
        finally:
            self._destroy(actions)
        return int(number.value)

    def _environment(
        self, environment: Mapping[str, str], variables: Mapping[str, str]
    ) -> tuple[Any, Any]:
        """Return both as an array, and an object that must live as long as the array.

        The array of `environment` is kept for the next call: it is mostly the same, and large.
        """
        last, array = self._last
        if last is not environment:
            array = self._array(_encoded(_settings(environment)))
            self._last = (environment, array)
        count = len(array) - 1
        both = (self._c.c_char_p * (count + len(variables) + 1))()
        self._c.memmove(both, array, count * self._pointer_size)
        for number, setting in enumerate(_encoded(_settings(variables)), count):
            both[number] = setting
        return both, array

    def _new_struct(self) -> Any:
        return self._c.create_string_buffer(_STRUCT_SIZE)

    def _array(self, texts: list[bytes]) -> Any:
        """Return an array of C strings with a null pointer at its end; it keeps them alive."""
        return (self._c.c_char_p * (len(texts) + 1))(*texts)


def _settings(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _encoded(texts: list[str]) -> list[bytes]:
    """Encode texts for the system. Raises ValueError for a NUL, which would cut a text.

    All at once: one by one takes 50 microseconds for an ordinary environment.
    """
    found = os.fsencode("\0".join(texts)).split(b"\0") if texts else []
    if len(found) != len(texts):
        raise ValueError("embedded null byte")
    return found


def _check(number: int, program: str | None = None) -> None:
    """Raise the error whose number a function of posix_spawn(3) returned: errno is not set."""
    if number:
        raise OSError(number, os.strerror(number), program)
