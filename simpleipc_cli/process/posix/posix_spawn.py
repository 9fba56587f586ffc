"""posix_spawn(3), called so that Python's other threads continue meanwhile.

It returns once the child has called execve(), which takes a quarter of a millisecond or more.
`os.posix_spawn` holds the interpreter lock for that time, and so starts one process after the
other however many threads call it. So the C library is called directly where that is possible.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

NO_VARIABLES: Mapping[str, str] = {}

ALL_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})

# These values are the same in glibc, musl and the BSDs.
_SETPGROUP, _SETSIGDEF, _SETSIGMASK = 0x02, 0x04, 0x08

# Bytes for a posix_spawnattr_t, a posix_spawn_file_actions_t or a sigset_t, whose sizes Python
# does not know. Those of glibc, the largest, are 336, 80 and 128.
_STRUCT_SIZE = 1024


class SpawnProgram(Protocol):
    """Starts a program as the leader of a process group, with default signal handling."""

    def __call__(
        self,
        program: str,
        arguments: list[str],
        environment: Mapping[str, str],
        files: Sequence[tuple[int, int]],
        variables: Mapping[str, str] = NO_VARIABLES,
    ) -> int:
        """Return the child's process id; `files` pairs our descriptors with the child's.

        `environment` must never change, as its encoded form is kept; `variables` are added to it,
        and have other names. Descriptors that are not inheritable are closed in the child. Raises
        OSError, and ValueError for a NUL in a text.
        """


@cache
def best_spawn() -> SpawnProgram:
    """Return the best available function. The first call loads ctypes: some milliseconds."""
    try:
        return spawn_libc()
    except ImportError:
        return spawn_os


def spawn_os(
    program: str,
    arguments: list[str],
    environment: Mapping[str, str],
    files: Sequence[tuple[int, int]],
    variables: Mapping[str, str] = NO_VARIABLES,
) -> int:
    """Start a program; block other threads meanwhile. See SpawnProgram."""
    return os.posix_spawn(
        program,
        arguments,
        {**environment, **variables},
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in files],
        setpgroup=0,
        setsigmask=(),
        setsigdef=ALL_SIGNALS,
    )


def spawn_libc() -> SpawnProgram:
    """Return a function that lets other threads continue. Raises ImportError if impossible."""
    try:
        import ctypes  # noqa: PLC0415 - some builds of Python lack it

        return _LibcSpawn(ctypes).spawn
    except (AttributeError, MemoryError, OSError) as error:
        # MemoryError: ctypes makes a callback when it is loaded, for which some systems have
        # no memory (MemoryDenyWriteExecute= of systemd).
        raise ImportError(f"posix_spawn is not available through ctypes: {error!r}") from error


class _LibcSpawn:
    """The C library's functions, and the attributes that all children get."""

    def __init__(self, ctypes: Any) -> None:
        """Raises AttributeError, OSError if something is missing."""
        self._c = ctypes
        self._pointer_size = ctypes.sizeof(ctypes.c_char_p)
        # Short calls keep the interpreter lock: getting it back could take milliseconds.
        quick = ctypes.PyDLL(None)
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
        _check(quick.posix_spawnattr_setpgroup(attributes, 0))
        flags = self._c.c_short(_SETPGROUP | _SETSIGDEF | _SETSIGMASK)
        _check(quick.posix_spawnattr_setflags(attributes, flags))
        return attributes

    def spawn(
        self,
        program: str,
        arguments: list[str],
        environment: Mapping[str, str],
        files: Sequence[tuple[int, int]],
        variables: Mapping[str, str] = NO_VARIABLES,
    ) -> int:
        number = self._c.c_int()
        path, *words = _encoded([program, *arguments])
        argv = self._array(words)
        envp, _referenced = self._environment(environment, variables)
        actions = self._new_struct()
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
