"""Start a command line, with or without a shell, by posix_spawn(3).

posix_spawn() returns when the child has called execve(), after 0.25 milliseconds or more.
`os.posix_spawn` holds the interpreter lock for that time, so that threads start processes one after
the other. So the C library is called directly if possible.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from simpleipc_cli.errors import SipcError
from simpleipc_cli.process import base

SHELL = "/bin/sh"

join_words = shlex.join
"""Returns the command line that has these words."""

# ASCII characters of words that a shell passes unchanged, and those that may change a word. A
# regular expression for them would take 10 ms to compile.
_PLAIN = {char for char in map(chr, range(128)) if char.isalnum() or char in "_@%+:,./=-"}
_SPECIAL = {char for char in map(chr, range(128)) if char not in _PLAIN - {"="} | {"~", "#"}}

# Builtins, aliases and reserved words of each shell that may be /bin/sh: dash, bash (macOS), ash
# (BusyBox, FreeBSD, NetBSD) and ksh (OpenBSD).
_SHELL_WORDS = frozenset(
    (
        ". : alias autoload bg bind break builtin caller case cd chdir command compgen complete "
        "compopt continue coproc declare dirs disown do done echo elif else enable esac eval exec "
        "exit export false fc fdflags fg fi for freebsd_wordexp function functions getopts hash "
        "help history if in inputrc integer jobid jobs kill let local logout mapfile popd print "
        "printf pushd pwd r read readarray readonly return select set setvar shift shopt source "
        "specialvar stop suspend test then time times trap true type typeset ulimit umask unalias "
        "unset until wait whence while wordexp"
    ).split()
)

NO_VARIABLES: Mapping[str, str] = {}

ALL_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})

_FORBIDDEN = {errno.EPERM, errno.ENOSYS}  # errors of a sandbox; others may be gone later
_SETPGROUP = 0x02  # the same on all systems
_STDERR = 2
_MAX_CACHED = 64  # pairs of pipes, and commands; a server has a pair for each request (tunable)


class _Library(NamedTuple):
    """What Python does not know of a C library: the flags of posix_spawnattr_setflags(3)."""

    function: str
    """The name of a function that other C libraries lack."""
    reset: int
    """POSIX_SPAWN_SETSIGDEF and POSIX_SPAWN_SETSIGMASK."""
    setsid: int = 0
    """POSIX_SPAWN_SETSID; 0 if there is none."""
    close: int = 0
    """POSIX_SPAWN_CLOEXEC_DEFAULT of macOS; 0 if there is none."""


# From spawn.h of glibc, musl, macOS (sys/spawn.h of XNU) and the BSDs.
_BSD = _Library("kqueue", 0x10 | 0x20)
_LIBRARIES = {
    "linux": _Library("epoll_create1", 0x04 | 0x08, setsid=0x80),
    "darwin": _Library("kqueue", 0x04 | 0x08, setsid=0x0400, close=0x4000),
    **dict.fromkeys(("dragonfly", "freebsd", "netbsd", "openbsd"), _BSD),
}

# Bytes for a posix_spawnattr_t, a posix_spawn_file_actions_t or a sigset_t. The largest are those
# of glibc: 336, 80 and 128. On macOS and in most BSDs the first two are pointers.
_STRUCT_SIZE = 1024


class Command(base.Command):
    """A shell command line. Each start searches for the program again, as files can change.

    It is started without a shell, which is faster, only if the result is the same: the line must be
    plain words, and the first word an executable file and not a shell builtin.
    """

    def __init__(self, line: str, search_path: str) -> None:
        super().__init__(line, search_path)
        words = line.split(" ") if "\n" not in line else []
        words = [word for word in words if word]
        self._places = _places(words[0], search_path) if words else []
        self._word = words[0] if len(words) == 1 and _is_literal(words[0]) else ""
        plain = bool(words) and all(word[0] != "=" and _PLAIN.issuperset(word) for word in words)
        self._words = words if plain and "=" not in words[0] else []
        # posix_spawnp(3) searches faster; but in the PATH of this process, if it has one. A file is
        # checked first: on a disk that hangs, this thread must hang, not a child that it starts.
        is_own = search_path != "" and search_path.split(os.pathsep) == os.get_exec_path()
        is_name = bool(self._words) and "/" not in words[0] and words[0] not in _SHELL_WORDS
        self._is_searched = is_name and is_own

    def start(self, start: Callable[[str, list[str]], int]) -> int:
        """Call `start` with a program and its arguments, if possible without a shell.

        `start` searches for a program whose name has no slash, or raises FileNotFoundError. Return
        the process id that it returns. Raises OSError.
        """
        if self._is_searched:
            try:
                return start(self._words[0], self._words)
            except OSError as error:
                if error.errno == errno.EAGAIN:  # no process: not even for a shell
                    raise
                if error.errno not in (errno.ENOENT, errno.EACCES):
                    return start(SHELL, self.shell_argv())
        direct = self.direct_argv()
        if direct is not None:
            try:
                return start(*direct)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    raise
                # Such as a script without "#!", which a shell can start.
        return start(SHELL, self.shell_argv())

    def shell_argv(self) -> list[str]:
        """Return the argument list with which a shell runs the line."""
        if self._is_local_file():
            return [SHELL, "-c", "./" + shlex.quote(self._word)]
        # An option must not begin with a space. FreeBSD's shell would execute a "--".
        return [SHELL, "-c", " " + self.line if self.line[:1] in {"-", "+"} else self.line]

    def direct_argv(self) -> tuple[str, list[str]] | None:
        """Return the program's file and its argument list; None if a shell is needed."""
        if not self._words:
            return None
        program = self._find()
        first = self._words[0]
        if program is None and self._is_local_file():
            first = "./" + first
            return (first, [first]) if _is_program(first) else None
        return None if program is None or first in _SHELL_WORDS else (program, self._words)

    def is_missing(self) -> bool:
        if not self._words or self._words[0] in _SHELL_WORDS:
            return False
        first = self._words[0]
        if "/" in first:
            return not os.path.exists(first)
        return not self._is_local_file() and self._find() is None

    def _is_local_file(self) -> bool:
        """Return whether the line is the name of a file in the working directory, not in PATH."""
        word = self._word
        if not word or "/" in word or not os.path.isfile(word):
            return False
        return self._find() is None

    def _find(self) -> str | None:
        """Return the file of the program that the first word names, like shutil.which()."""
        return next(filter(_is_program, self._places), None)


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and not os.path.isdir(path)


def _is_literal(word: str) -> bool:
    """Return whether a shell passes a word unchanged, so that it may name a file."""
    return word[0] not in "~#-" and _SPECIAL.isdisjoint(word)


def _places(word: str, search_path: str) -> list[str]:
    """Return the files that a program's name may refer to, in the order of the search."""
    if "/" in word:
        return [word]
    folders = search_path.split(os.pathsep) if search_path else []
    return [os.path.join(folder, word) for folder in folders]


class Program(NamedTuple):
    """A program to start with default signal handling, as the leader of a new session.

    Its session has no terminal, so it cannot block on one. It cannot leave its process group. If
    posix_spawn(3) cannot create sessions, it is the leader of a new process group.
    """

    path: str
    """It is searched for in the PATH of this process if it has no slash."""
    arguments: list[str]
    environment: Mapping[str, str]
    """Must never change, as its encoded form is cached."""
    files: Sequence[tuple[int, int]] = ()
    """Pairs of this process's and the child's descriptors.

    The child inherits no others, except those that are marked inheritable; on macOS, only standard
    error of them.
    """
    variables: Mapping[str, str] = NO_VARIABLES
    """Added to the environment; must have other names."""


SpawnProgram = Callable[[Program], int]
"""Starts a program; returns its process id. Raises OSError, and ValueError for a NUL byte."""


@cache
def session_options() -> Mapping[str, Any]:
    """Return the arguments with which os.posix_spawn creates a session, or at least a group.

    Raises SipcError if the system forbids new processes.
    """
    try:
        os.posix_spawn("", [SHELL], {}, setsid=True)  # there is no such program
    except NotImplementedError:  # for example in the BSDs
        return {"setpgroup": 0}
    except OSError as error:
        if error.errno in _FORBIDDEN:
            raise SipcError(
                f"cannot start processes: {error.strerror}",
                "allow clone3(2), vfork(2) and setsid(2) in the sandbox",
            ) from error
    return {"setsid": True}


@cache
def best_spawn() -> SpawnProgram:
    """Return the best available function. The first call loads ctypes, in some milliseconds.

    Raises SipcError if the system forbids new processes.
    """
    session_options()  # asked now, not by the first request
    try:
        return spawn_libc()
    except (AttributeError, ImportError, KeyError, MemoryError, OSError):
        # KeyError: an unknown system.
        # MemoryError: ctypes allocates executable memory when it is loaded, which some systems
        # forbid (MemoryDenyWriteExecute= of systemd).
        return spawn_os


def spawn_os(program: Program) -> int:
    """Start a program; other threads are blocked during the call. See SpawnProgram."""
    return os.posix_spawnp(
        program.path,
        program.arguments,
        {**program.environment, **program.variables},
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in program.files],
        setsigmask=(),
        setsigdef=ALL_SIGNALS,
        **session_options(),
    )


def spawn_libc() -> SpawnProgram:
    """Return a function that does not block other threads; fails in some builds of Python."""
    import ctypes  # noqa: PLC0415 - see best_spawn()

    return _LibcSpawn(ctypes, _LIBRARIES[sys.platform.rstrip("0123456789")]).spawn


class _LibcSpawn:
    """The C library's functions, and the attributes of all children."""

    def __init__(self, ctypes: Any, library: _Library) -> None:
        """Raises AttributeError, OSError if the C library lacks a function."""
        self._c = ctypes
        self._library = library
        # Short calls keep the interpreter lock: acquiring it again could take milliseconds.
        quick = ctypes.PyDLL(None)
        getattr(quick, library.function)  # the C library is the one that the flags are for
        self._spawn = ctypes.CDLL(None).posix_spawnp
        self._quick = quick
        self._attributes = self._new_attributes(quick)  # constant from now on
        self._last: tuple[Mapping[str, str], int, Any] = (NO_VARIABLES, 0, self._array([]))
        # Most starts have the command of the one before, and descriptors of an earlier one.
        self._argv = lru_cache(_MAX_CACHED)(self._new_argv)
        self._actions = lru_cache(_MAX_CACHED)(self._new_actions)

    def _new_attributes(self, quick: Any) -> Any:
        attributes, signals = self._new_struct(), self._new_struct()
        _check(quick.posix_spawnattr_init(attributes))
        quick.sigemptyset(signals)
        _check(quick.posix_spawnattr_setsigmask(attributes, signals))
        for number in ALL_SIGNALS:
            quick.sigaddset(signals, int(number))  # fails for the two that glibc uses
        _check(quick.posix_spawnattr_setsigdefault(attributes, signals))
        setsid = self._library.setsid if "setsid" in session_options() else 0
        flags = self._library.reset | self._library.close | (setsid or _SETPGROUP)
        _check(quick.posix_spawnattr_setflags(attributes, self._c.c_short(flags)))
        return attributes

    def spawn(self, program: Program) -> int:
        number = self._c.c_int()
        path, argv = self._argv(program.path, *program.arguments)
        envp, _referenced = self._environment(program.environment, program.variables)
        actions = self._actions(*program.files).struct
        given = (path, actions, self._attributes, argv, envp)
        _check(self._spawn(self._c.byref(number), *given), program.path)
        return int(number.value)

    def _new_argv(self, *texts: str) -> tuple[bytes, Any]:
        """Return the path and the arguments for posix_spawn(3)."""
        path, *words = _encoded([*texts])
        return path, self._array(words)

    def _new_actions(self, *files: tuple[int, int]) -> _FileActions:
        # macOS has no pipe2 and no accept4: for a moment, new descriptors are inheritable.
        kept = [(_STDERR, _STDERR)] if self._library.close else []
        return _FileActions(self._quick, self._new_struct(), [*files, *kept])

    def _environment(
        self, environment: Mapping[str, str], variables: Mapping[str, str]
    ) -> tuple[Any, Any]:
        """Return both as one array, and an object that must be kept as long as the array.

        The array of `environment` is cached: it is large, and mostly the same in the next call.
        """
        last, more, array = self._last
        if last is not environment or more != len(variables):
            more = len(variables)
            array = self._array([*_encoded(_settings(environment)), *[None] * more])
            self._last = (environment, more, array)
        both = type(array).from_buffer_copy(array)
        both[-1 - more : -1] = _encoded(_settings(variables))
        return both, array

    def _new_struct(self) -> Any:
        return self._c.create_string_buffer(_STRUCT_SIZE)

    def _array(self, texts: Sequence[bytes | None]) -> Any:
        """Return an array of C strings that ends with a null pointer; it references the strings."""
        return (self._c.c_char_p * (len(texts) + 1))(*texts)


class _FileActions:
    """A posix_spawn_file_actions_t that duplicates descriptors. It never changes.

    Adding a pair makes two system calls in glibc, which compares both with the descriptor limit.
    """

    def __init__(self, library: Any, struct: Any, files: Sequence[tuple[int, int]]) -> None:
        _check(library.posix_spawn_file_actions_init(struct))
        self._destroy = library.posix_spawn_file_actions_destroy
        self.struct = struct
        for ours, theirs in files:
            _check(library.posix_spawn_file_actions_adddup2(struct, ours, theirs))

    def __del__(self) -> None:
        if hasattr(self, "struct"):
            self._destroy(self.struct)


def _settings(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _encoded(texts: list[str]) -> list[bytes]:
    """Encode texts for the system. Raises ValueError for a NUL byte, which would end a text.

    One call encodes all: separate calls take 50 microseconds for an ordinary environment.
    """
    found = os.fsencode("\0".join(texts)).split(b"\0") if texts else []
    if len(found) != len(texts):
        raise ValueError("embedded null byte")
    return found


def _check(number: int, program: str | None = None) -> None:
    """Raise OSError for an error number that posix_spawn(3) returned: it does not set errno."""
    if number:
        raise OSError(number, os.strerror(number), program)
