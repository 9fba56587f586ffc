"""Which function starts programs: the C library's with the flags of this system, or Python's."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys

import pytest
from helpers.procfs import children

from simpleipc_cli.errors import SipcError
from simpleipc_cli.process.posix import spawn
from simpleipc_cli.process.posix.spawn import (
    Program,
    best_spawn,
    session_options,
    spawn_libc,
    spawn_os,
)

WITHOUT = {
    "no ctypes": "sys.modules['ctypes'] = None",
    "no memory for it": """
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name == "ctypes":
            raise MemoryError
sys.meta_path.insert(0, Refusing())
""",
    "no such function": "import ctypes; ctypes.CDLL = lambda name: object()",
    "no library": """
import ctypes
def refuse(name):
    raise OSError("no")
ctypes.CDLL = refuse
""",
}


@pytest.mark.parametrize("spoil", WITHOUT.values(), ids=WITHOUT)
def test_python_starts_programs_if_posix_spawn_is_missing(spoil):
    program = f"""
import os, sys
{spoil}
from simpleipc_cli.process.posix.spawn import Program, spawn_os, best_spawn
assert best_spawn() is spawn_os
pid = best_spawn()(Program("/bin/echo", ["echo", "started"], {{}}))
assert os.waitpid(pid, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"started\n", b"")


def test_posix_spawn_is_used_if_it_has_the_needed_features():
    assert best_spawn() is not spawn_os


@pytest.fixture
def posix_spawn(monkeypatch):
    """Replaces os.posix_spawn by a function that raises an error."""

    def replace(error: Exception) -> None:
        def fail(*_arguments, **_options):
            raise error

        monkeypatch.setattr("os.posix_spawn", fail)

    return replace


def test_python_can_create_sessions_on_this_system():
    before = children(os.getpid())
    assert session_options.__wrapped__() == {"setsid": True}
    assert children(os.getpid()) == before


def test_without_sessions_a_group_is_created(posix_spawn):
    posix_spawn(NotImplementedError("posix_spawn: setsid unavailable on this platform"))
    assert session_options.__wrapped__() == {"setpgroup": 0}


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_shortage_of_processes_does_not_count_as_forbidden(number, posix_spawn):
    posix_spawn(OSError(number, os.strerror(number)))
    assert session_options.__wrapped__() == {"setsid": True}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_sandbox_that_forbids_processes_is_named(number, posix_spawn):
    posix_spawn(OSError(number, os.strerror(number)))
    with pytest.raises(SipcError, match="cannot start processes") as caught:
        session_options.__wrapped__()
    assert caught.value.hint == "allow clone3(2), vfork(2) and setsid(2) in the sandbox"


class OtherLibrary:
    """The functions of another system's C library; records flags and duplicated descriptors."""

    def __init__(self, names: str) -> None:
        self.flags = -1
        self.duplicated: list[tuple[int, int]] = []
        self._names = names.split()

    def __getattr__(self, name: str):
        if name in {"kqueue", "epoll_create1"} - {*self._names}:
            raise AttributeError(name)
        return lambda *_: 0

    def posix_spawnattr_setflags(self, _attributes, flags) -> int:
        self.flags = flags.value
        return 0

    def posix_spawn_file_actions_adddup2(self, _actions, ours: int, theirs: int) -> int:
        self.duplicated.append((ours, theirs))
        return 0


@pytest.mark.parametrize(
    ("platform", "session", "flags"),
    [
        ("linux", {"setsid": True}, 0x04 | 0x08 | 0x80),
        ("linux", {"setpgroup": 0}, 0x04 | 0x08 | 0x02),
        ("darwin", {"setsid": True}, 0x04 | 0x08 | 0x0400 | 0x4000),
        ("darwin", {"setpgroup": 0}, 0x04 | 0x08 | 0x02 | 0x4000),
        ("freebsd14", {"setpgroup": 0}, 0x10 | 0x20 | 0x02),
        ("freebsd16", {"setsid": True}, 0x10 | 0x20 | 0x02),  # its number is not known
        ("openbsd7", {"setpgroup": 0}, 0x10 | 0x20 | 0x02),
        ("netbsd10", {"setpgroup": 0}, 0x10 | 0x20 | 0x02),
        ("dragonfly6", {"setpgroup": 0}, 0x10 | 0x20 | 0x02),
    ],
)
def test_each_systems_c_library_gets_its_own_flags(platform, session, flags, monkeypatch):
    library = OtherLibrary("epoll_create1" if platform == "linux" else "kqueue")
    monkeypatch.setattr(ctypes, "PyDLL", lambda _: library)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(spawn, "session_options", lambda: session)
    spawn_libc()(Program("/bin/true", ["true"], {}, [(5, 0), (6, 1)]))
    assert library.flags == flags
    # On macOS a program gets only the descriptors that are named.
    named = [(2, 2)] if platform == "darwin" else []
    assert library.duplicated == [(5, 0), (6, 1), *named]


@pytest.mark.parametrize("platform", ["sunos5", "freebsd14", "darwin"])
def test_python_starts_programs_if_the_c_library_is_not_known(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert best_spawn.__wrapped__() is spawn_os
