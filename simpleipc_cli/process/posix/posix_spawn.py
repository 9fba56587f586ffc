"""posix_spawn(3) that lets Python's other threads go on while it works.

It returns once the child has called execve(), which takes a quarter of a millisecond and
more. `os.posix_spawn` holds Python's lock for so long: whatever the number of threads, one
process is started after the other, and nothing else is done meanwhile. So the C library is
called directly. Where that cannot be had, `os.posix_spawn` serves.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

NOTHING: Mapping[str, str] = {}

ALL_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})

# The same in glibc, musl and the BSDs.
_SETPGROUP, _SETSIGDEF, _SETSIGMASK = 0x02, 0x04, 0x08

# Bytes for a posix_spawnattr_t, a posix_spawn_file_actions_t or a sigset_t: Python has no
# way to ask for their sizes. glibc's, the largest, take 336, 80 and 128.
_ROOM = 1024


class Start(Protocol):
    """Starts a program as the leader of a process group, all signals at their defaults."""

    def __call__(
        self,
        program: str,
        arguments: list[str],
        environment: Mapping[str, str],
        files: Sequence[tuple[int, int]],
        more: Mapping[str, str] = NOTHING,
    ) -> int:
        """Returns the child's number; `files` pairs our descriptors with the child's.

        `environment` is one that never changes, as it is not looked at again when it is handed
        over many times in a row; `more` is added to it, and has other names. Descriptors that
        are not inheritable are closed in the child. Raises OSError, and ValueError for a NUL
        in a text.
        """


@cache
def best_spawn() -> Start:
    """What can be had here. The first call loads ctypes, which takes some milliseconds."""
    try:
        return spawn_libc()
    except ImportError:
        return spawn_os


def spawn_os(
    program: str,
    arguments: list[str],
    environment: Mapping[str, str],
    files: Sequence[tuple[int, int]],
    more: Mapping[str, str] = NOTHING,
) -> int:
    """See Start. Other threads wait."""
    return os.posix_spawn(
        program,
        arguments,
        {**environment, **more},
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in files],
        setpgroup=0,
        setsigmask=(),
        setsigdef=ALL_SIGNALS,
    )


def spawn_libc() -> Start:
    """One by which other threads go on. Raises ImportError where that cannot be had."""
    try:
        import ctypes  # noqa: PLC0415 - there are Pythons without it

        return _Library(ctypes).start
    except (AttributeError, MemoryError, OSError) as error:
        # MemoryError: ctypes makes a callback when it is loaded, for which some systems have
        # no memory (MemoryDenyWriteExecute= of systemd).
        raise ImportError(f"no posix_spawn by ctypes: {error!r}") from error


class _Library:
    """The C library's functions, and the attributes that all children get."""

    def __init__(self, ctypes: Any) -> None:
        """Raises AttributeError, OSError if something is missing."""
        self._c = ctypes
        self._pointer = ctypes.sizeof(ctypes.c_char_p)
        # What takes no time keeps Python's lock: getting it back could take milliseconds.
        quick = ctypes.PyDLL(None)
        self._spawn = ctypes.CDLL(None).posix_spawn
        self._init = quick.posix_spawn_file_actions_init
        self._add_dup2 = quick.posix_spawn_file_actions_adddup2
        self._destroy = quick.posix_spawn_file_actions_destroy
        self._attributes = self._made_attributes(quick)  # only read from now on
        self._last: tuple[Mapping[str, str], Any] = (NOTHING, self._array([]))

    def _made_attributes(self, quick: Any) -> Any:
        attributes, signals = self._room(), self._room()
        _check(quick.posix_spawnattr_init(attributes))
        quick.sigemptyset(signals)
        _check(quick.posix_spawnattr_setsigmask(attributes, signals))
        for number in ALL_SIGNALS:
            quick.sigaddset(signals, int(number))  # it takes not all: two are glibc's own
        _check(quick.posix_spawnattr_setsigdefault(attributes, signals))
        _check(quick.posix_spawnattr_setpgroup(attributes, 0))
        flags = self._c.c_short(_SETPGROUP | _SETSIGDEF | _SETSIGMASK)
        _check(quick.posix_spawnattr_setflags(attributes, flags))
        return attributes

    def start(
        self,
        program: str,
        arguments: list[str],
        environment: Mapping[str, str],
        files: Sequence[tuple[int, int]],
        more: Mapping[str, str] = NOTHING,
    ) -> int:
        """See Start."""
        number = self._c.c_int()
        path, *words = _encoded([program, *arguments])
        argv = self._array(words)
        envp, _kept = self._environment(environment, more)
        actions = self._room()
        _check(self._init(actions))
        try:
            for ours, theirs in files:
                _check(self._add_dup2(actions, ours, theirs))
            given = (path, actions, self._attributes, argv, envp)
            _check(self._spawn(self._c.byref(number), *given), program)
        finally:
            self._destroy(actions)
        return int(number.value)

    def _environment(
        self, environment: Mapping[str, str], more: Mapping[str, str]
    ) -> tuple[Any, Any]:
        """Both as an array, and what must be kept as long as that is used.

        That of the first is kept for the next time: it is mostly the same, and large.
        """
        last, array = self._last
        if last is not environment:
            array = self._array(_encoded(_settings(environment)))
            self._last = (environment, array)
        count = len(array) - 1
        both = (self._c.c_char_p * (count + len(more) + 1))()
        self._c.memmove(both, array, count * self._pointer)
        for number, setting in enumerate(_encoded(_settings(more)), count):
            both[number] = setting
        return both, array

    def _room(self) -> Any:
        return self._c.create_string_buffer(_ROOM)

    def _array(self, texts: list[bytes]) -> Any:
        """C strings, ended by a null pointer; it keeps alive what it points to."""
        return (self._c.c_char_p * (len(texts) + 1))(*texts)


def _settings(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _encoded(texts: list[str]) -> list[bytes]:
    """As the system sees them. Raises ValueError for a NUL, which would end one early.

    All at once: one by one takes 50 microseconds for an ordinary environment.
    """
    found = os.fsencode("\0".join(texts)).split(b"\0") if texts else []
    if len(found) != len(texts):
        raise ValueError("embedded null byte")
    return found


def _check(number: int, program: str | None = None) -> None:
    """These functions return an error's number, and leave errno alone."""
    if number:
        raise OSError(number, os.strerror(number), program)
