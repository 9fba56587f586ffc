"""Start and end processes on Windows, which has no process groups to signal.

Each child runs in a job of its own, which its own children cannot leave, and which is killed when
our handle of it is closed: nothing of a handler survives its request, nor a killed server.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.process.windows.command import Command
from simpleipc_cli.process.windows.create_process import JobObject, create_process
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import HANGUP, READ, Latch, new_poller
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.poller import Pollable, completion_port

_CTRL_BREAK = 1
_KILL_TIMEOUT = 1.0  # seconds to wait for a killed process (tunable)
_CRASHED = 0x80000000  # statuses from here on are the system's own, known in hexadecimal


class ChildProcess(Pollable):
    """A child, with all processes that it starts. See base.ChildProcess."""

    def __init__(
        self, line: str, environment: Mapping[str, str], streams: tuple[int, int, int]
    ) -> None:
        """Start it. Raises OSError."""
        self._job = JobObject()
        try:
            self._handle, self.pid = create_process(line, environment, streams, job=self._job)
        except BaseException:
            self._job.close()
            raise
        super().__init__()
        self._has_exited = False
        self._wait = completion_port().wait_for(self._handle, self._on_exit)

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - every change calls notify()
        return READ if self._has_exited else 0

    def _on_exit(self, _operation: object) -> None:
        self._has_exited = True
        self.notify()

    def status(self) -> int | None:
        return int(win32.api.GetExitCodeProcess(self._handle)) if self._has_exited else None

    def stop(self, grace_period: float, kill_now: Latch | None) -> None:
        """Send Ctrl-Break to the child alone, and after the grace period kill all."""
        try:
            if not self._has_exited and self._send_ctrl_break():
                self.wait(grace_period, kill_now)
            self._job.kill()
            if not self.wait(_KILL_TIMEOUT, None):
                raise SipcError(f"process {self.pid} cannot be ended", "check what it waits for")
            self._job.wait_until_empty()
        finally:
            self._close()

    def stop_nowait(self) -> bool:
        """Return False: only stop() waits for what the child has started."""
        return False

    def _send_ctrl_break(self) -> bool:
        """Return False if we have no console, through which it is sent."""
        kernel = win32.dll("kernel32")
        return bool(kernel.GenerateConsoleCtrlEvent(_CTRL_BREAK, self.pid))

    def wait(self, seconds: float, kill_now: Latch | None) -> bool:
        end = monotonic() + seconds
        poller = new_poller()
        poller.register(self.descriptor, READ)
        if kill_now is not None:
            poller.register(kill_now.fileno(), 0)
        try:
            while not self._has_exited:
                left = end - monotonic()
                if left <= 0 or any(events & HANGUP for _, events in poller.wait(left)):
                    break
        finally:
            poller.close()
        return self._has_exited

    def _close(self) -> None:
        try:
            win32.overlapped.UnregisterWait(self._wait)
        except OSError:
            pass  # its callback is running
        self._job.close()
        win32.api.CloseHandle(self._handle)
        self.unregister()


def prepare_spawn() -> None:
    """Do nothing: CreateProcess needs no preparation."""


def spawn(
    command: Command,
    environment: Mapping[str, str],
    files: tuple[int, int, int],
    limit: DescriptorLimit,  # noqa: ARG001 - Windows has none
    variables: Mapping[str, str],
) -> ChildProcess:
    """Start a command; `files` are the handles of its standard streams. Raises SipcError."""
    line = command.shell_argv(environment.get("COMSPEC", "cmd.exe"))
    try:
        return ChildProcess(line, {**environment, **variables}, files)
    except OSError as error:
        raise SipcError(
            f"cannot start {command.line!r}: {win32.strerror(error)}", "end some programs"
        ) from error


def describe(status: int) -> tuple[str, str]:
    """Return how a process ended, as one word and as a message."""
    word = str(status) if status < _CRASHED else f"0x{status:08X}"
    return word, f"exit status {word}"
