"""Outputs other than a standard stream: files, messages in between, live displays.

They take longer to load than a small exchange takes: see stdio.py.
"""

from __future__ import annotations

import errno
import os
import stat
from time import sleep

from simpleipc_cli import system
from simpleipc_cli.cli.exitcodes import Terminated
from simpleipc_cli.cli.parse import spool_folders
from simpleipc_cli.cli.stdio import (
    CHUNK,
    STDERR,
    STDOUT,
    Output,
    named_descriptor,
    open_in_time,
    standard_output,
    write_error,
)
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress as Bar

_USE_EFFECTIVE_IDS = os.access in os.supports_effective_ids
_POLL_INTERVAL = 0.01  # seconds between tries to write (tunable)
_NOT_REPLACEABLE = {errno.EACCES, errno.EBUSY, errno.EPERM, errno.EROFS, errno.EXDEV}


class MessageOutput(Output):
    """Standard error, for messages. Write errors are ignored."""

    def __init__(self, deadline: Deadline) -> None:
        """After `deadline`, write() no longer waits for space."""
        super().__init__(STDERR, "standard error", deadline)

    def write_nowait(self, payload: memoryview) -> int:
        try:
            return super().write_nowait(payload)
        except (SipcError, Terminated):
            return len(payload)

    def write(self, payload: memoryview) -> None:
        while payload := payload[self.write_nowait(payload) :]:
            if self._deadline.expired():
                return
            sleep(_POLL_INTERVAL)


class FileOutput(Output):
    """A file that gets its name only when it is complete.

    An old file that can be written but not replaced, such as a mount point, is overwritten then.
    """

    def __init__(self, path: str) -> None:
        """Check the path; create no file yet. Raises SipcError."""
        super().__init__(-1, path, Deadline(None))
        try:
            self._path = os.path.realpath(path)  # a symbolic link is kept, its target is replaced
        except OSError as error:
            raise write_error(path, error) from error
        folder, name = os.path.split(self._path)
        # A name may have 255 bytes: leave space for the suffix.
        self._temporary = os.path.join(folder, f".{name[:40]}.sipc-{os.urandom(6).hex()}")

    def open(self) -> None:
        try:
            old = _stat_or_none(self._path)
            if old is not None and not os.access(
                self._path, os.W_OK, effective_ids=_USE_EFFECTIVE_IDS
            ):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            try:
                # Only the owner may read it until its group is set.
                self._create_temporary(0o666 if old is None else 0o600)
            except OSError as error:
                if old is None or error.errno not in _NOT_REPLACEABLE:
                    raise
                self._create_elsewhere(error)
                return
        except OSError as error:
            raise write_error(self._name, error) from error
        if old is not None and system.HAS_OWNERSHIP:
            self._copy_ownership(old)

    def _create_elsewhere(self, error: OSError) -> None:
        """Create the temporary file in the first folder that accepts one, else raise `error`."""
        name = os.path.basename(self._temporary)
        for folder in spool_folders():
            self._temporary = os.path.join(folder, name)
            try:
                self._create_temporary(0o600)
            except OSError:
                continue
            return
        raise error

    def _create_temporary(self, mode: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.OPEN_FLAGS
        self._descriptor = os.open(self._temporary, flags, mode)

    def _copy_ownership(self, old: os.stat_result) -> None:
        """Keep owner and mode if permitted, as a shell's redirection does."""
        mode = stat.S_IMODE(old.st_mode) & 0o777
        if not self._chown(old.st_uid, old.st_gid) and not self._chown(-1, old.st_gid):
            mode &= ~0o070  # they were the permissions of the old group
        os.fchmod(self._descriptor, mode)

    def _chown(self, user: int, group: int) -> bool:
        try:
            os.fchown(self._descriptor, user, group)
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        return -1

    def write_nowait(self, payload: memoryview) -> int:
        self.write(payload)
        return len(payload)

    def commit(self) -> None:
        try:
            _sync(self._descriptor)  # before the rename: no power failure leaves a partial file
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)  # some file systems report a full disk only now
            try:
                os.replace(self._temporary, self._path)
            except OSError as error:
                if error.errno not in _NOT_REPLACEABLE:
                    raise
                self._overwrite()  # close() removes the temporary file
            else:
                self._temporary = ""
        except OSError as error:
            raise write_error(self._name, error) from error

    def _overwrite(self) -> None:
        # No O_CREAT: in a sticky folder it fails for another user's file (fs.protected_regular).
        target = os.open(self._path, os.O_WRONLY | os.O_TRUNC | system.OPEN_FLAGS)
        with open(target, "wb", buffering=0) as file, open(self._temporary, "rb") as complete:
            while data := complete.read(CHUNK):
                file.write(data)
            _sync(target)

    def close(self) -> None:
        """Without commit(), remove the file and keep the old one."""
        if self._descriptor >= 0:
            try:
                os.close(self._descriptor)
            except OSError:
                pass  # the file will be removed
        if self._temporary:
            try:
                os.unlink(self._temporary)
            except OSError:
                pass


def _sync(descriptor: int) -> None:
    """Write a file to its disk if the file system supports that. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS}:
            raise


def open_output(path: str | None, deadline: Deadline) -> Output:
    """Return the output for -o. None or "-" is standard output. Only a regular file is replaced."""
    if path is None or path == "-":
        return standard_output(deadline)
    try:
        descriptor = named_descriptor(path, STDOUT)
        if descriptor is not None:
            os.fstat(descriptor)  # an error unless it is open
            return Output(descriptor, path, deadline)
        found = _stat_or_none(path)
        if found is not None and not stat.S_ISREG(found.st_mode):
            return Output(open_in_time(path, os.O_WRONLY, deadline), path, deadline)
    except OSError as error:
        raise write_error(path, error) from error
    if not os.path.basename(path):
        raise SipcError(f"{path!r} is not the name of a file", "give another name after -o")
    return FileOutput(path)


def _stat_or_none(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def rich_console() -> Console:
    """Return a console on standard error for a LiveDisplay."""
    from rich.console import Console  # noqa: PLC0415 - takes long to load

    class CursorConsole(Console):
        """Keeps the cursor visible: a stopped or killed process could not show it again."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
            return False

    terminal = open(STDERR, "w", errors="replace", closefd=False)  # noqa: SIM115
    return CursorConsole(file=terminal, force_terminal=True)


class LiveDisplay:
    """Draws a live display of rich, if this process is in the terminal's foreground.

    In the background it would overwrite the shell's prompt, or be stopped (stty tostop).
    """

    def __init__(self, display: Live | Bar) -> None:
        self._display = display
        self._is_shown = False

    def refresh(self) -> None:
        if system.in_foreground(STDERR):
            if not self._is_shown:
                self._display.start()
                self._is_shown = True
            self._display.refresh()

    def stop(self) -> None:
        """Remove the display."""
        if self._is_shown and system.in_foreground(STDERR):
            self._display.stop()
