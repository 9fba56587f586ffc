"""Starting and ending processes on Unix: the only room that does, but for the transport's own.

A child gets a process group of its own, default signal handling and the descriptor limit
that this process was started with. It is watched through a pidfd, and not reaped before
its group has been dealt with: so long, neither its number nor its group's can be reused.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from threading import Thread
from time import monotonic
from typing import NoReturn

from simpleipc_cli.errors import SipcError
from simpleipc_cli.process.posix.command import SHELL, Command
from simpleipc_cli.process.posix.posix_spawn import NOTHING, best_spawn
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import Latch, new_poller
from simpleipc_cli.transport.base import READ

# Runs "$@" with a soft descriptor limit. `ulimit` is POSIX but for -S and -n, which every
# shell on Linux has.
_WITH_LIMIT = 'ulimit -S -n "$0" && exec "$@"'

_TIMEOUT = 1.0  # seconds; who has been killed and is still there is not waited for, at will
_FIRST_DELAY, _MAX_DELAY = 0.001, 0.02  # seconds between looks at a group, at will
_PAUSE_BEFORE_LOOKING = 0.005  # seconds; looking at all processes is for who does not go soon


class Process:
    """A child that leads a process group of its own."""

    def __init__(self, pid: int) -> None:
        """Takes charge of a child. Raises SipcError without descriptors; it is ended then."""
        self.pid = pid
        self._status: int | None = None
        self._reaped = False
        try:
            self.descriptor = os.pidfd_open(pid)
        except OSError as error:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise SipcError(
                f"cannot watch process {pid}: {error.strerror}",
                "allow more descriptors with ulimit -n",
            ) from error

    def status(self) -> int | None:
        """Exit status, or minus the signal that killed it; None while it runs."""
        if self._status is None and not self._reaped:
            found = os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                exited = found.si_code == os.CLD_EXITED
                self._status = found.si_status if exited else -found.si_status
        return self._status

    def wait(self, seconds: float, hurry: Latch | None) -> bool:
        """Wait until it has ended, so long at most, or until there is no time left."""
        return self._wait_for_exit(monotonic() + seconds, hurry)

    def stop(self, grace: float, hurry: Latch | None) -> None:
        """End the whole group: SIGTERM, and SIGKILL once `grace` seconds are over.

        Returns when nobody is left, the child reaped. `hurry`, if any, cuts the grace short.
        Raises SipcError if the child cannot be ended.
        """
        deadline = monotonic() + grace
        if not self._reaped:
            self._end_child(deadline, hurry)
        if not self._wait_for_group(deadline, hurry):
            self._signal(signal.SIGKILL)
            self._wait_for_group(monotonic() + _TIMEOUT, None)

    def stop_now(self) -> None:
        """The same, if the child has ended and nobody of its group is left.

        Else BlockingIOError: call stop(), and soon, as the child may have been reaped.
        """
        if not self._reaped:
            if self.status() is None:
                raise BlockingIOError
            self._end_child(0.0, None)
        if self._group_lives(look_closely=False):
            raise BlockingIOError

    def _end_child(self, deadline: float, hurry: Latch | None) -> None:
        try:
            # Not reaped yet, so that the number can be nobody else's group, even if it exited.
            self._signal(signal.SIGTERM)
            if not self._wait_for_exit(deadline, hurry):
                self._signal(signal.SIGKILL)
                if not self._wait_for_exit(monotonic() + _TIMEOUT, None):
                    self._leave_to_itself()
            self.status()
            os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED)
            self._reaped = True
        finally:
            os.close(self.descriptor)

    def let_go(self) -> None:
        """Let it live on. It is watched no more, but as long as we live it leaves no zombie."""
        os.close(self.descriptor)
        _reap_later(self.pid)

    def _leave_to_itself(self) -> NoReturn:
        """It does not die: it has become another user, or hangs in the kernel."""
        _reap_later(self.pid)
        raise SipcError(f"process {self.pid} cannot be ended", "see what it is")

    def _wait_for_exit(self, deadline: float, hurry: Latch | None) -> bool:
        if self.status() is not None:
            return True
        poller = new_poller()
        poller.register(self.descriptor, READ)
        if hurry is not None:
            poller.register(hurry.fileno(), 0)
        while self.status() is None:
            left = deadline - monotonic()
            if left <= 0 or (hurry is not None and hurry.is_set()):
                return False
            poller.wait(left)
        return True

    def _wait_for_group(self, deadline: float, hurry: Latch | None) -> bool:
        """Wait until the group is empty. No event tells: its members are not our children.

        As long as it is not empty its number cannot be given to another.
        """
        if not self._group_lives(look_closely=False):
            return True
        poller = new_poller()
        if hurry is not None:
            poller.register(hurry.fileno(), 0)
        pause = _FIRST_DELAY
        while self._group_lives(look_closely=pause > _PAUSE_BEFORE_LOOKING):
            left = deadline - monotonic()
            if left <= 0 or (hurry is not None and hurry.is_set()):
                return False
            poller.wait(min(pause, left))
            pause = min(pause * 2, _MAX_DELAY)
        return True

    def _group_lives(self, *, look_closely: bool) -> bool:
        """Whether anybody is left; a close look tells the dead whom nobody has reaped."""
        if not self._signal(0):
            return False
        try:  # as a container's first process we are also the parent of all orphans
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        return not look_closely or _has_living_member(self.pid)

    def _signal(self, number: int) -> bool:
        """Signal the group, and the child, which may have left it; False if nobody is there."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            if self._reaped:
                return False
        except PermissionError:
            pass  # somebody is in it, but has become another user
        if number and self._status is None and not self._reaped:
            try:
                signal.pidfd_send_signal(self.descriptor, number)
            except (ProcessLookupError, PermissionError):
                pass
        return True


def _reap_later(pid: int) -> None:
    """See that a child's end leaves no zombie, whenever that is."""
    if os.waitpid(pid, os.WNOHANG) != (0, 0):
        return
    try:
        Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
    except RuntimeError:
        pass  # no thread is to be had: a zombie until we end


def _has_living_member(group: int) -> bool:
    """Whether a process group has a member that is no zombie, as proc(5) tells."""
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
        return False  # it has just gone
    return int(its_group) == group and state not in b"ZX"


def spawn(
    command: Command,
    environment: Mapping[str, str],
    files: Sequence[tuple[int, int]],
    limit: DescriptorLimit,
    more: Mapping[str, str] = NOTHING,
) -> Process:
    """Start a command; `files` pairs our descriptors with the child's numbers for them.

    All other descriptors of ours that are not inheritable are closed in the child. For
    `environment` and `more` see Start. Raises SipcError.
    """
    direct = command.direct_argv()
    if direct is not None:
        try:
            return _start(*direct, environment, files, limit, more)
        except OSError:
            pass  # a script without "#!", say: what the system cannot start, the shell may
    try:
        return _start(SHELL, command.shell_argv(), environment, files, limit, more)
    except OSError as error:
        raise SipcError(f"cannot start {command.line!r}: {error.strerror}") from error


def _start(
    program: str,
    arguments: list[str],
    environment: Mapping[str, str],
    files: Sequence[tuple[int, int]],
    limit: DescriptorLimit,
    more: Mapping[str, str],
) -> Process:
    with limit as soft_limit:
        if soft_limit is not None:
            arguments = [SHELL, "-c", _WITH_LIMIT, str(soft_limit), program, *arguments[1:]]
            program = SHELL
        pid = best_spawn()(program, arguments, environment, files, more)
    return Process(pid)


def describe(status: int) -> tuple[str, str]:
    """How a process ended: in one word, and for people."""
    if status >= 0:
        return str(status), f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return name.replace(" ", "-"), f"killed by {name}"
