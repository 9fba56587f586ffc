"""Start and end processes on POSIX systems.

A child gets a process group of its own, default signal handling and the descriptor limit that
this process was started with. It is watched through a pidfd. It is reaped only after its group
has been signalled: until then neither its number nor its group's can be reused.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from threading import Thread
from time import monotonic
from typing import NoReturn

from simpleipc_cli.deadline import Backoff
from simpleipc_cli.errors import SipcError
from simpleipc_cli.process.posix.command import SHELL, Command
from simpleipc_cli.process.posix.posix_spawn import NO_VARIABLES, best_spawn
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import READ, Latch, new_poller

# Runs "$@" with a soft descriptor limit. POSIX has no -S and -n, but every shell on Linux does.
_WITH_LIMIT = 'ulimit -S -n "$0" && exec "$@"'

_KILL_TIMEOUT = 1.0  # seconds to wait for a killed process (tunable)
_GROUP_DELAYS = (0.001, 0.02)  # seconds between polls of a group: first and longest (tunable)
_SCAN_AFTER = 0.005  # seconds: delay from which on polls scan /proc for zombies


class ChildProcess:
    """A child that leads a process group of its own. See base.ChildProcess."""

    def __init__(self, pid: int) -> None:
        """Take over a child. If no descriptor is free, kill it and raise SipcError."""
        self.pid = pid
        self._status: int | None = None
        self._is_reaped = False
        try:
            self.descriptor = os.pidfd_open(pid)
        except OSError as error:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise SipcError(
                f"cannot watch process {pid}: {error.strerror}",
                "raise the descriptor limit (ulimit -n)",
            ) from error

    def status(self) -> int | None:
        if self._status is None and not self._is_reaped:
            found = os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                exited = found.si_code == os.CLD_EXITED
                self._status = found.si_status if exited else -found.si_status
        return self._status

    def wait(self, seconds: float, kill_now: Latch | None) -> bool:
        return self._wait_for_exit(monotonic() + seconds, kill_now)

    def stop(self, grace_period: float, kill_now: Latch | None) -> None:
        end = monotonic() + grace_period
        if not self._is_reaped:
            self._end_child(end, kill_now)
        if not self._wait_for_group(end, kill_now):
            self._signal(signal.SIGKILL)
            self._wait_for_group(monotonic() + _KILL_TIMEOUT, None)

    def stop_nowait(self) -> bool:
        if not self._is_reaped:
            if self.status() is None:
                return False
            self._end_child(0.0, None)
        return not self._group_exists(ignore_zombies=False)

    def detach(self) -> None:
        """Let it run on. It is no longer watched, but reaped while this process runs."""
        os.close(self.descriptor)
        _reap_in_background(self.pid)

    def _end_child(self, end: float, kill_now: Latch | None) -> None:
        try:
            self._signal(signal.SIGTERM)  # before it is reaped: see above
            if not self._wait_for_exit(end, kill_now):
                self._signal(signal.SIGKILL)
                if not self._wait_for_exit(monotonic() + _KILL_TIMEOUT, None):
                    self._abandon()
            os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED)
            self._is_reaped = True
        finally:
            os.close(self.descriptor)

    def _abandon(self) -> NoReturn:
        """Report a child that has become another user's, or is blocked in the kernel."""
        _reap_in_background(self.pid)
        raise SipcError(
            f"process {self.pid} cannot be ended", "check whose it is, and what it waits for"
        )

    def _wait_for_exit(self, end: float, kill_now: Latch | None) -> bool:
        if self.status() is not None:
            return True
        poller = new_poller()
        poller.register(self.descriptor, READ)
        if kill_now is not None:
            poller.register(kill_now.fileno(), 0)
        while self.status() is None:
            left = end - monotonic()
            if left <= 0 or (kill_now is not None and kill_now.is_set()):
                return False
            poller.wait(left)
        return True

    def _wait_for_group(self, end: float, kill_now: Latch | None) -> bool:
        """Wait until the group is empty, by polling: its members are not our children.

        While it has a member, its number cannot be given to another group.
        """
        if not self._group_exists(ignore_zombies=False):
            return True
        poller = new_poller()
        if kill_now is not None:
            poller.register(kill_now.fileno(), 0)
        delays = Backoff(*_GROUP_DELAYS)
        delay = delays.next()
        while self._group_exists(ignore_zombies=delay > _SCAN_AFTER):
            left = end - monotonic()
            if left <= 0 or (kill_now is not None and kill_now.is_set()):
                return False
            poller.wait(min(delay, left))
            delay = delays.next()
        return True

    def _group_exists(self, *, ignore_zombies: bool) -> bool:
        """Return whether the group has members; to ignore zombies, scan all processes."""
        if not self._signal(0):
            return False
        try:  # as a container's first process we are also the parent of all orphans
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        return not ignore_zombies or _has_living_member(self.pid)

    def _signal(self, number: int) -> bool:
        """Signal the group, and the child, which may have left it; False if neither exists."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            if self._is_reaped:
                return False
        except PermissionError:
            pass  # its members now run as another user
        if number and self._status is None and not self._is_reaped:
            try:
                signal.pidfd_send_signal(self.descriptor, number)
            except (ProcessLookupError, PermissionError):
                pass
        return True


def _reap_in_background(pid: int) -> None:
    """Reap a child whenever it exits, so that it leaves no zombie."""
    if os.waitpid(pid, os.WNOHANG) != (0, 0):
        return
    try:
        Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
    except RuntimeError:
        pass  # no thread is available: a zombie until we exit


def _has_living_member(group: int) -> bool:
    """Return whether a process group has a member that is not a zombie (proc(5))."""
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


def prepare_spawn() -> None:
    """Load what starts processes, which takes some milliseconds, before it is needed."""
    best_spawn()


def spawn(
    command: Command,
    environment: Mapping[str, str],
    files: Sequence[tuple[int, int]],
    limit: DescriptorLimit,
    variables: Mapping[str, str] = NO_VARIABLES,
) -> ChildProcess:
    """Start a command; `files` pairs our descriptors with the child's numbers for them.

    Our other descriptors are closed in the child unless they are inheritable. For `environment`
    and `variables` see SpawnProgram. Raises SipcError.
    """
    direct = command.direct_argv()
    while True:
        program, arguments = (SHELL, command.shell_argv()) if direct is None else direct
        try:
            with limit as soft_limit:
                if soft_limit is not None:
                    arguments = [SHELL, "-c", _WITH_LIMIT, str(soft_limit), program, *arguments[1:]]
                    program = SHELL
                pid = best_spawn()(program, arguments, environment, files, variables)
        except OSError as error:
            if direct is None:
                raise SipcError(
                    f"cannot start {command.line!r}: {error.strerror}",
                    "check the limits (ulimit -a)",
                ) from error
            direct = None  # such as a script without "#!", which a shell can start
        else:
            return ChildProcess(pid)


def describe(status: int) -> tuple[str, str]:
    """Return how a process ended, as one word and as a message."""
    if status >= 0:
        return str(status), f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return name.replace(" ", "-"), f"killed by {name}"
