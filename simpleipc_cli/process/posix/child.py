"""Child processes on POSIX systems, and the pipes between the server and them.

A child gets a new session, default signal handling and the descriptor limit that this process was
started with. It is reaped only after its process group has been signalled: until then the system
cannot reuse its number, which is also the group's.

The child's ends of the pipes are blocking, the server's ends are not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from select import PIPE_BUF
from threading import Thread, get_ident
from time import monotonic

from simpleipc_cli.deadline import Backoff
from simpleipc_cli.errors import PeerClosed, Shortage, SipcError, errno_hint
from simpleipc_cli.pktline import MAX_BUFFERS, Buffer
from simpleipc_cli.process import base
from simpleipc_cli.process.posix import orphans
from simpleipc_cli.process.posix.exit_watch import ExitWatch, best_exit_watch, exit_status
from simpleipc_cli.process.posix.guardian import Guardian
from simpleipc_cli.process.posix.spawn import (
    SHELL,
    Command,
    Program,
    best_spawn,
    session_options,
)
from simpleipc_cli.system import grow_pipe
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import READ, WakeupEvent, new_poller

# Runs "$@" with a soft descriptor limit. -S and -n are not in POSIX, but in each shell that may be
# /bin/sh on Linux, macOS and the BSDs.
_WITH_LIMIT = 'ulimit -S -n "$0" && exec "$@"'

_HELD_BY_HANDLERS = {errno.EAGAIN, errno.EMFILE, errno.ENFILE}  # processes and descriptors

_KILL_TIMEOUT = 1.0  # seconds to wait for a killed process (tunable)
_GROUP_DELAYS = (0.001, 0.02)  # seconds between polls of a group: first and longest (tunable)
_SCAN_AFTER = 0.005  # seconds; polls with at least this delay scan /proc for zombies


class ChildProcess(base.ChildProcess):
    """A child that leads a new session, and so a process group that it cannot leave."""

    may_stop_nowait = True

    def __init__(self, pid: int, watch: ExitWatch | None = None) -> None:
        """Own a child. If its exit cannot be watched, kill it and raise SipcError.

        `watch` was made before the child was started.
        """
        self.pid = pid
        self._status: int | None = None
        self._is_reaped = False
        orphans.own_children.add(pid)
        try:
            self._watch = watch or best_exit_watch()()
            self._watch.begin(pid)
            self.descriptor = self._watch.descriptor
        except OSError as error:
            self._signal(signal.SIGKILL)
            _wait(pid, 0)
            # No Shortage: it may have done its work, so it must not be started again.
            what = f"cannot watch process {pid}: {error.strerror}"
            raise SipcError(what, errno_hint(error, "check the limits")) from error

    def status(self) -> int | None:
        if self._status is None and not self._is_reaped:
            try:
                self._status = exit_status(self.pid)
            except OSError as error:
                raise self._wait_error(error) from error
        return self._status

    def stop(self, grace_period: float, kill_now: WakeupEvent | None) -> None:
        end = monotonic() + grace_period
        if not self._is_reaped:
            self._end_child(end, kill_now)
        if not self._wait_for_group(end, kill_now):
            self._signal(signal.SIGKILL)
            self._wait_for_group(monotonic() + _KILL_TIMEOUT, None)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop_nowait(self) -> bool:
        if not self._is_reaped:
            try:
                if self.status() is None:
                    return False
            except SipcError:
                return False  # stop() kills it
            self._end_child(0.0, None)
        return not self._group_exists(ignore_zombies=False)

    def detach(self) -> None:
        """Let it run. Stop watching it; reap it if it exits while this process runs."""
        self._watch.close()
        _reap(self.pid)

    def _end_child(self, end: float, kill_now: WakeupEvent | None) -> None:
        try:
            self._signal(signal.SIGTERM)  # before the child is reaped: see above
            if self._status is None:
                self._signal(signal.SIGCONT)  # a stopped process does not get SIGTERM
            if not self.wait(end - monotonic(), kill_now):
                self._signal(signal.SIGKILL)
                if not self.wait(_KILL_TIMEOUT, None):  # it runs as another user, or is blocked
                    raise SipcError(
                        f"process {self.pid} cannot be killed",
                        "check its user, and what it waits for",
                    )
        except SipcError:
            self._signal(signal.SIGKILL)  # also if waiting for it failed
            raise
        finally:
            self._is_reaped = True  # so that the descriptor is closed only once
            self._watch.close()
            _reap(self.pid)

    def _wait_for_group(self, end: float, kill_now: WakeupEvent | None) -> bool:
        """Wait until the group is empty, by polling: its members are not children of this process.

        While it has a member, the system cannot reuse its number.
        """
        if not self._group_exists(ignore_zombies=False):
            return True
        self._signal(signal.SIGCONT)
        poller = new_poller()
        if kill_now is not None:
            poller.register(kill_now.fileno(), READ)
        delays = Backoff(*_GROUP_DELAYS)
        delay = delays.next()
        while self._group_exists(ignore_zombies=delay > _SCAN_AFTER):
            left = end - monotonic()
            if left <= 0 or (kill_now is not None and kill_now.is_set()):
                return False
            try:
                poller.wait(min(delay, left))
            except OSError:
                return False  # waiting is impossible: the group is killed now
            delay = delays.next()
        return True

    def _group_exists(self, *, ignore_zombies: bool) -> bool:
        """Return whether the group has members. Ignoring zombies takes a scan of all processes."""
        if not self._signal(0):
            return False
        try:  # the first process of a container is also the parent of all orphans
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except OSError:
            pass  # no member is a child of this process
        return not ignore_zombies or _has_living_member(self.pid)

    def _signal(self, number: int) -> bool:
        """Signal the group; return False if it does not exist."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except OSError:
            # Its members run as another user, or a sandbox forbids the call. On macOS also if only
            # zombies are left: then they are waited for until their parent reaps them.
            pass
        return True


def _start_error(what: str, error: OSError, hint: str) -> SipcError:
    kind = Shortage if error.errno in _HELD_BY_HANDLERS else SipcError
    return kind(f"{what}: {error.strerror}", errno_hint(error, hint))


def start_child(command: Command, start: Callable[[str, list[str]], int]) -> ChildProcess:
    """Start a command by `start`, see Command.start(). Raises OSError, SipcError.

    No child starts if its exit cannot be watched.
    """
    watch = best_exit_watch()()
    thread = get_ident()
    orphans.starting.add(thread)
    try:
        try:
            pid = command.start(start)
        except BaseException:
            watch.close()
            raise
        return ChildProcess(pid, watch)
    finally:
        orphans.starting.discard(thread)
        if orphans.is_due:
            orphans.reap()


def _reap(pid: int) -> None:
    """Reap a child: now if it has exited, else in a thread when it exits."""
    if _wait(pid, os.WNOHANG):
        return
    try:
        Thread(target=_wait, args=(pid, 0), daemon=True).start()
    except RuntimeError:
        pass  # no thread can start: the child stays a zombie until this process exits


def _wait(pid: int, flags: int) -> bool:
    """Return whether the child has exited and is reaped."""
    try:
        if os.waitpid(pid, flags) == (0, 0):
            return False
    except ChildProcessError:
        pass  # reaped already
    except OSError:
        return False  # a sandbox forbids the call
    orphans.own_children.discard(pid)
    return True


def _has_living_member(group: int) -> bool:
    """Return whether a process group has a member that is not a zombie (proc(5))."""
    if not os.path.exists(f"/proc/{os.getpid()}/stat"):
        return True  # /proc is empty, or another system's
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    return any(_is_alive_in(number, group) for number in numbers)


def _is_alive_in(number: str, group: int) -> bool:
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False  # it has just exited
    return int(its_group) == group and state not in b"ZX"


def describe(status: int) -> tuple[str, str]:
    """Return how a process ended, as one word and as a message."""
    if status >= 0:
        return str(status), f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return name.replace(" ", "-"), f"killed by {name}"


reap_orphans: Callable[[], None] = orphans.reap_orphans
kill_children: Callable[[], None] = orphans.kill_children


def exit_watch_fds() -> int:
    """Return the number of descriptors with which the exit of one child is watched.

    Raises SipcError if the system forbids processes or does not report their exit.
    """
    session_options()
    try:
        return best_exit_watch().fds
    except OSError as error:
        what = "cannot watch the exit of a process"
        raise _start_error(what, error, "check the limits") from error


def prepare_spawn() -> None:
    """Import the code that starts processes early, as this takes some milliseconds."""
    best_spawn()


class StdioPipes(base.StdioPipes):
    """Pipes whose ends in the server are non-blocking."""

    accepts_file = True

    _bulk = 32 * 1024.0
    """A pipe is enlarged after a transfer of at least this size: half of its default size."""

    def __init__(self, stdin: int | None = None, stderr: int | None = None) -> None:
        self.input = self.output = self._reader = -1
        self._guardian: Guardian | None = None
        self._guarded = 0  # the guardian's number for the input pipe
        self._child_ends: list[int] = []
        try:
            if stdin is None:
                stdin, self.input = os.pipe()
                self._child_ends.append(stdin)
            self._reader, stdout = os.pipe()
            self._child_ends.append(stdout)
            os.set_blocking(self._reader, False)
            if stderr == base.PIPE:
                self.errors, stderr = os.pipe()
                self._child_ends.append(stderr)
                os.set_blocking(self.errors, False)
        except OSError as error:
            self.close()
            raise _start_error(
                "cannot create a pipe for the handler", error, "check the limits"
            ) from error
        self.output = self._reader  # set to -1 at end of file; the reader stays open
        self._child_files = [(stdin, 0), (stdout, 1)]
        if stderr is not None:
            self._child_files.append((stderr, 2))
        self._is_input_blocking = True
        self._is_input_enlarged = self._is_output_enlarged = False

    def spawn(
        self,
        command: Command,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        variables: Mapping[str, str],
    ) -> ChildProcess:
        def start(path: str, arguments: list[str]) -> int:
            with limit as soft_limit:
                if soft_limit is not None:
                    if "/" not in path:  # the shell would not say if it does not find the program
                        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                    arguments = [SHELL, "-c", _WITH_LIMIT, str(soft_limit), path, *arguments[1:]]
                    path = SHELL
                pid = best_spawn()(
                    Program(path, arguments, environment, self._child_files, variables)
                )
            self._close_child_ends()  # at once: a pidfd needs a free descriptor
            return pid

        try:
            process = start_child(command, start)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                what = f"cannot start {command.line!r}"
                raise _start_error(what, error, "check the command") from error
            raise
        if self._guardian is not None:
            self._guardian.assign(self._guarded, process.pid)
        return process

    def take_child_ends(self) -> tuple[int, int]:
        stdin, stdout = self._child_ends
        self._child_ends = []
        return stdin, stdout

    def write_whole(self, payload: Sequence[Buffer]) -> bool:
        if sum(map(len, payload)) > PIPE_BUF:
            return False
        try:
            if payload:
                os.writev(self.input, payload)  # never partial: the new pipe has space for it
        except OSError:  # the caller writes again, which reports the error
            return False
        self.end_input()
        return True

    def guard_input(self, guardian: Guardian) -> None:
        self._guarded = guardian.hold(self.input)
        self._guardian = guardian

    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:  # noqa: ARG002
        try:
            if self._is_input_blocking:
                os.set_blocking(self.input, False)
                self._is_input_blocking = False
            count = os.writev(self.input, payload[:MAX_BUFFERS])
        except BrokenPipeError:
            raise PeerClosed("the handler has closed its standard input") from None
        except BlockingIOError:
            raise
        except OSError as error:
            raise SipcError(f"cannot write to the handler: {error.strerror}") from error
        if count >= self._bulk and not self._is_input_enlarged:
            self._is_input_enlarged = True
            grow_pipe(self.input)
        return count

    def end_input(self) -> None:
        descriptor, self.input = self.input, -1
        if descriptor >= 0:
            os.close(descriptor)
            if self._guardian is not None:
                self._guardian.release(self._guarded)

    def unread(self) -> int:
        return _unread(self.input)

    def read(self, buffer: memoryview) -> list[memoryview]:
        try:
            count = os.readv(self._reader, [buffer])
        except BlockingIOError:
            raise
        except OSError as error:
            raise SipcError(f"cannot read the handler's output: {error.strerror}") from error
        if count >= self._bulk and not self._is_output_enlarged:
            self._is_output_enlarged = True
            grow_pipe(self._reader)
        if not count:
            self.output = -1
            return []
        return [buffer[:count]]

    def has_output(self) -> bool:
        return _unread(self._reader) > 0

    def close(self) -> None:
        self._close_child_ends()
        self.end_input()
        self.output = -1
        descriptor, self._reader = self._reader, -1
        if descriptor >= 0:
            os.close(descriptor)
        if self.errors >= 0:
            os.close(self.errors)
            self.errors = -1

    def _close_child_ends(self) -> None:
        while self._child_ends:
            os.close(self._child_ends.pop())


class WorkerPipes(StdioPipes):
    """Pipes of a worker. They are not enlarged: much unread input would delay the next client."""

    _bulk = float("inf")


def _unread(descriptor: int) -> int:
    """Return the number of bytes in a pipe, even if it has no reader. Raises SipcError.

    For a write end it is always 0 on macOS and in the BSDs: there a worker counts as one that has
    read its whole request, even if it has not.
    """
    size = struct.pack("@i", 0)
    try:
        (found,) = struct.unpack("@i", fcntl.ioctl(descriptor, termios.FIONREAD, size))
    except OSError as error:
        raise SipcError(f"cannot query the handler's pipe: {error.strerror}") from error
    return int(found)
