"""Programs started by the C library and by Python: the same result."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from helpers.command import environment
from helpers.procfs import children
from helpers.server import Server
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask

from simpleipc_cli.process.posix import spawn
from simpleipc_cli.process.posix.background import inheritable_fds
from simpleipc_cli.process.posix.child import StdioPipes
from simpleipc_cli.process.posix.spawn import (
    NO_VARIABLES,
    Command,
    Program,
    spawn_libc,
    spawn_os,
)
from simpleipc_cli.system import fd_limit
from simpleipc_cli.system.fd_limit import DescriptorLimit

NOBODY = 65534


@pytest.fixture(params=["library", "python"])
def start(request):
    return spawn_libc() if request.param == "library" else spawn_os


def output_of(start, *command: str, environment=None, files=(), variables=NO_VARIABLES) -> bytes:
    """Return what a program writes to its standard output; it must succeed."""
    reader, writer = os.pipe()
    try:
        all_files = [(writer, 1), *files]
        pid = start(Program(command[0], list(command), environment or {}, all_files, variables))
    finally:
        os.close(writer)
    with open(reader, "rb") as file:
        written = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return written


def test_arguments_arrive_unchanged(start):
    words = ["", "two words", "'\"$", "\xe9\u2603", "\udcff\udc80"]
    written = output_of(start, "/usr/bin/printf", "%s|", *words)
    assert written == b"|two words|'\"$|\xc3\xa9\xe2\x98\x83|\xff\x80|"


def test_a_program_gets_exactly_the_given_environment(start):
    given = {"ODD": "a=b \udcff\n", "EMPTY": "", "\udcfe": "x"}
    written = output_of(start, "/usr/bin/env", "-0", environment=given)
    assert sorted(written.split(b"\0")) == sorted([b"ODD=a=b \xff\n", b"EMPTY=", b"\xfe=x", b""])


def test_an_empty_environment_stays_empty(start):
    assert output_of(start, "/usr/bin/env") == b""


def test_a_program_has_only_the_given_descriptors(start):
    pipe = os.pipe()
    try:
        files = [(pipe[0], 7), (pipe[1], pipe[1])]  # one keeps its number
        written = output_of(start, "/bin/ls", "/proc/self/fd", files=files)
    finally:
        for descriptor in pipe:
            os.close(descriptor)
    found = {int(number) for number in written.split()}
    given = {0, 1, 2, 7, pipe[1], *inheritable_fds()}
    assert given <= found
    assert len(found - given) == 1  # the descriptor that lists the folder


def test_without_proc_a_start_does_not_check_every_possible_descriptor(monkeypatch):
    """The limit in a container may be a thousand million, which a test cannot set."""

    def no_proc(_path):
        raise FileNotFoundError

    before = inheritable_fds()
    monkeypatch.setattr("os.listdir", no_proc)
    monkeypatch.setattr("os.sysconf", lambda _name: 1 << 60)
    assert inheritable_fds() == before


def test_each_program_has_its_own_environment(start):
    one, other = {"NAME": "one", "MORE": ""}, {"NAME": "other"}
    for given, variables in ((one, {"ID": "1"}), (one, {"ID": "2"}), (other, {}), (one, {})):
        written = output_of(start, "/usr/bin/env", environment=given, variables=variables).decode()
        assert dict(line.split("=", 1) for line in written.splitlines()) == given | variables


def test_a_program_leads_a_session_and_has_the_default_signal_state(start):
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGPIPE, 34)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, 35])
    try:
        status = output_of(start, "/bin/cat", "/proc/self/status", "/proc/self/stat").decode()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in kept.items():
            signal.signal(number, handler)
    lines = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert int(lines["SigBlk"], 16) == 0
    assert int(lines["SigIgn"], 16) & ~(0b11 << 31) == 0  # two are used by glibc itself
    pid, group, session = group_and_session(status.splitlines()[-1])
    assert (group, session) == (pid, pid)


def group_and_session(line: str) -> tuple[int, int, int]:
    """Return three numbers of a process from its proc_pid_stat(5): pid, group, session."""
    pid, _, rest = line.partition(" ")  # the rest: (name) state parent group session
    return (int(pid), *map(int, rest.split()[3:5]))


@pytest.mark.parametrize(
    ("name", "number"),
    [("missing", errno.ENOENT), ("file", errno.EACCES), ("text", errno.ENOEXEC)],
)
def test_an_error_of_the_system_is_raised(start, folder, name, number):
    (folder / "file").touch(mode=0o644)
    (folder / "text").touch(mode=0o755)
    before = set(children(os.getpid()))  # those of other tests may still end
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        start(Program(str(folder / name), [name], {}))
    assert caught.value.errno == number
    assert set(children(os.getpid())) <= before


def test_too_many_arguments_are_an_error(start):
    with pytest.raises(OSError, match=os.strerror(errno.E2BIG)) as caught:
        start(Program("/bin/true", ["true", "x" * (1 << 20)], {}))
    assert caught.value.errno == errno.E2BIG


def test_a_descriptor_that_is_not_open_is_an_error(start):
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        start(Program("/bin/true", ["true"], {}, [(987, 0)]))


# Limits its own process for good, so it cannot run in the process of the tests.
LIMITED = """
import os
import resource
import sys

from simpleipc_cli.process.posix.spawn import Program, spawn_libc, spawn_os

start = spawn_libc() if sys.argv[1] == "library" else spawn_os
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
if os.geteuid() == 0:  # no limit holds for root
    os.setuid(int(sys.argv[2]))
try:
    start(Program("/bin/true", ["true"], {}))
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.mark.parametrize("by", ["library", "python"])
def test_too_many_processes_are_an_error(by):
    done = subprocess.run([sys.executable, "-c", LIMITED, by, str(NOBODY)], capture_output=True)
    assert (done.returncode, done.stderr) == (errno.EAGAIN, b"")


@pytest.mark.parametrize(
    ("program", "arguments", "given"),
    [
        ("/bin/true\0x", ["true"], {}),
        ("/bin/true", ["true", "a\0b"], {}),
        ("/bin/true", ["true"], {"A": "b\0c"}),
        ("/bin/true", ["true"], {"A\0B": "c"}),
    ],
    ids=["program", "argument", "value", "name"],
)
def test_a_nul_in_a_text_is_an_error(start, program, arguments, given):
    with pytest.raises(ValueError, match="null"):
        start(Program(program, arguments, given))


# -- on a system whose posix_spawn(3) creates no sessions -------------------------------------


@pytest.mark.parametrize("how", [spawn_libc, lambda: spawn_os], ids=["library", "python"])
def test_without_sessions_a_program_leads_a_process_group(how, monkeypatch):
    monkeypatch.setattr(spawn, "session_options", lambda: {"setpgroup": 0})
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        status = output_of(how(), "/bin/cat", "/proc/self/status", "/proc/self/stat").decode()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    pid, group, session = group_and_session(status.splitlines()[-1])
    assert (group, session) == (pid, os.getsid(0))
    assert "SigBlk:\t0000000000000000\n" in status


# -- concurrently ---------------------------------------------------------------------------


@pytest.fixture
def held(script):
    """Make programs that cannot be executed before release()."""
    kept = signal.signal(signal.SIGIO, signal.SIG_IGN)  # from the kernel, to the holder
    with ExitStack() as files:

        def make(name: str) -> Held:
            program = script("", name)
            program.write_bytes(Path("/bin/true").read_bytes())
            return files.enter_context(Held(program).kept())

        yield make
    signal.signal(signal.SIGIO, kept)


class Held:
    """A program under a lease: executing it waits in the kernel until the lease is released."""

    def __init__(self, program: Path) -> None:
        self.program = str(program)
        self._file = program.open("rb")
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    @contextmanager
    def kept(self):
        try:
            yield self
        finally:
            self._file.close()

    def is_waited_for(self) -> bool:
        return fcntl.fcntl(self._file, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def release(self) -> None:
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_UNLCK)


class StartThread(threading.Thread):
    """A thread that starts a program."""

    def __init__(self, held: Held, limit: DescriptorLimit) -> None:
        super().__init__(daemon=True)
        self._held, self._limit = held, limit
        self._pipes = StdioPipes()
        self.process = None
        self.start()
        wait_until(held.is_waited_for, "the program to be executed")

    def run(self) -> None:
        command = Command(self._held.program, "")
        self.process = self._pipes.spawn(command, environment(), self._limit, {})

    def finish(self) -> None:
        self._held.release()
        self.join(TIMEOUT)
        assert self.process.wait(TIMEOUT, None)
        assert self.process.status() == 0
        self.process.stop(0.0, None)
        self._pipes.close()


def test_programs_are_started_concurrently(held):
    limit = DescriptorLimit()
    both = [StartThread(held("first"), limit), StartThread(held("second"), limit)]
    assert [each.process for each in both] == [None, None]
    for each in both:
        each.finish()


@pytest.fixture
def small_limit():
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, kept[1]))
    yield 256
    resource.setrlimit(resource.RLIMIT_NOFILE, kept)


def test_the_limit_is_not_raised_while_a_program_is_started(held, small_limit, monkeypatch):
    monkeypatch.setattr(fd_limit, "_MAX_START", TIMEOUT)
    limit = DescriptorLimit()

    def wait_for_waiting(count: int) -> None:
        wait_until(lambda: len(limit._changed._waiters) == count, f"{count} threads to wait")

    starting = StartThread(held("program"), limit)
    raising = threading.Thread(target=limit.raise_to_maximum)
    raising.start()
    wait_for_waiting(1)
    later = []
    after = threading.Thread(target=lambda: later.append(limit_of_child(limit)))
    after.start()
    wait_for_waiting(2)
    assert (starting.process, later) == (None, [])
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == small_limit
    starting.finish()
    for thread in (raising, after):
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limit.maximum
    assert later == [small_limit]
    assert limit_of_child(limit) == small_limit


def limit_of_child(limit: DescriptorLimit) -> int:
    """Return the soft limit that a handler has."""
    pipes = StdioPipes()
    process = pipes.spawn(Command("ulimit -Sn", ""), environment(), limit, {})
    assert process.wait(TIMEOUT, None)
    (written,) = pipes.read(memoryview(bytearray(100)))
    process.stop(0.0, None)
    pipes.close()
    return int(bytes(written))


def test_handlers_that_start_at_once_do_not_inherit_each_others_descriptors(endpoint):
    found = []

    def list_descriptors() -> None:
        found.extend([ask(endpoint, b"x") for _ in range(10)])

    with Server(endpoint, "exec ls /proc/self/fd", "--threads", 8, "-q"):
        threads = [threading.Thread(target=list_descriptors) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    assert found == [(b"0\n1\n2\n3\n", True)] * 80  # the last one lists the folder
