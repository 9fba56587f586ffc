"""Named pipes of Windows, the server's half: taking a name, and accepting.

A client opens one of the pipe's free *instances*. A few are always kept free; each one that
is taken is replaced at once, by the port's thread, however busy the others are. So `backlog`
is how many connections may wait for accept().
"""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Callable
from typing import Any

from simpleipc_cli.errors import AddressInUse, EndpointError, PermissionDenied
from simpleipc_cli.transport.base import READ
from simpleipc_cli.transport.base_listening import Listener
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.overlapped_pipe import PIPE_BUFFER
from simpleipc_cli.transport.windows.poller import Pollable, completion_port
from simpleipc_cli.transport.windows.stream import WinStream, endpoint_error, pipe_name

_FREE = 8  # instances kept free: clients that come within one turn of the port's thread, at will
_OTHERS_WRITE = 0o002


def listen(
    path: str,
    *,
    mode: int,
    backlog: int,
    group: int | None = None,
    give_up: Callable[[], bool] = lambda: False,  # noqa: ARG001 - nothing is waited for
) -> WinListener:
    """Listen on the pipe of `path`, for our own user, or for all if `mode` lets others write.

    Raises InUse if somebody listens there, InvalidPath, NotPermitted.
    """
    if group is not None:
        raise EndpointError(f"{path} cannot be given to a group", "pipes of Windows have none")
    name = pipe_name(path)
    guard = _take_guard(name, path)
    try:
        return WinListener(name, path, backlog, guard, _rules(for_all=bool(mode & _OTHERS_WRITE)))
    except BaseException as error:
        win32.api.CloseHandle(guard)
        if isinstance(error, OSError):
            raise _why_not_taken(error, name, path) from error
        raise


def _rules(*, for_all: bool) -> str:
    """Full access for our user, who makes the instances; reading and writing for others.

    Whoever may write may also make instances: the system asks for both rights of a client that
    opens a pipe as git's do. So others could answer in our place, as with git's own servers.
    """
    rules = f"D:P(A;;GA;;;{win32.own_user()})"
    return rules + "(A;;GRGW;;;WD)" if for_all else rules


def _take_guard(name: str, path: str) -> int:
    """Another pipe, of which there can be one only, and which ends with its process.

    Windows itself has FILE_FLAG_FIRST_PIPE_INSTANCE for this, which we ask for, too, as git's
    servers know no guard; but Wine 8 does not mind it.
    """
    api = win32.api
    try:
        return int(
            api.CreateNamedPipe(
                name + ".lock",
                api.PIPE_ACCESS_INBOUND,
                win32.REJECT_REMOTE_CLIENTS,
                1,
                0,
                0,
                0,
                api.NULL,
            )
        )
    except OSError as error:
        if win32.winerror(error) in (win32.PIPE_BUSY, win32.ACCESS_DENIED):
            raise AddressInUse(f"another server is listening on {path}") from None
        raise endpoint_error(error, path) from error


def _why_not_taken(error: OSError, name: str, path: str) -> EndpointError:
    """The system says the same of a name that is in use and of one that is forbidden."""
    if win32.winerror(error) == win32.ACCESS_DENIED:
        try:
            win32.api.WaitNamedPipe(name, 1)
        except OSError as found:
            if win32.winerror(found) == win32.FILE_NOT_FOUND:
                return PermissionDenied(f"{path}: {win32.strerror(error)}")
        return AddressInUse(f"another server is listening on {path}")
    return endpoint_error(error, path)


class WinListener(Listener, Pollable):
    """A named pipe that clients can open."""

    def __init__(self, name: str, path: str, backlog: int, guard: int, rules: str) -> None:
        """Takes over the guard. Raises OSError."""
        super().__init__()
        self._name = name
        self._path = path
        self._backlog = backlog
        self._guard = guard
        self._access = win32.SecurityDescriptor(rules)
        self._lock = _thread.allocate_lock()
        self._free: dict[int, Any] = {}  # instances by handle, with what waits for their client
        self._queue: deque[WinStream] = deque()
        self._open = True
        try:
            self._add_instance(first=True)
            self._fill_up()
        except BaseException:
            self._access.close()
            self.unregister()
            raise

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - changes are told anyway
        """See Pollable."""
        return READ if self._queue else 0

    def fileno(self) -> int:
        """See Listener."""
        return self.descriptor

    def accept(self) -> WinStream:
        """See Listener."""
        with self._lock:
            if not self._queue:
                self._fill_up()  # there may not have been enough room for it before
                raise BlockingIOError
            stream = self._queue.popleft()
            self._fill_up()
        return stream

    def owns_path(self) -> bool:
        """See Listener. Nobody can take away the name of a pipe."""
        return True

    def stop_listening(self) -> None:
        """See Listener. The name is in use until the last connection is closed."""
        with self._lock:
            self._open = False
            instances, self._free = self._free, {}
            for handle, waiting in instances.items():
                if waiting is not None:
                    waiting.cancel()
                if _has_client(handle):
                    self._enqueue(handle)
                else:
                    win32.api.CloseHandle(handle)
        self.notify()

    def close(self) -> None:
        """See Listener."""
        self.stop_listening()
        while self._queue:
            self._queue.popleft().close()
        guard, self._guard = self._guard, 0
        if guard:
            win32.api.CloseHandle(guard)
            self._access.close()
        self.unregister()

    def _fill_up(self) -> None:
        """Let instances wait for clients, as many as there is room for in the queue."""
        while self._open and len(self._free) < min(_FREE, self._backlog - len(self._queue)):
            try:
                self._add_instance(first=False)
            except OSError as error:
                if win32.winerror(error) != win32.api.ERROR_NO_DATA:  # its client is gone again
                    return  # no room for it now: accept() tries again

    def _add_instance(self, *, first: bool) -> None:
        """Make an instance that waits for a client, or has got one by now. Raises OSError."""
        api = win32.api
        handle = api.CreateNamedPipe(
            self._name,
            api.PIPE_ACCESS_DUPLEX
            | api.FILE_FLAG_OVERLAPPED
            | (api.FILE_FLAG_FIRST_PIPE_INSTANCE if first else 0),
            # git's clients and servers have messages that are read as bytes: so have we.
            api.PIPE_TYPE_MESSAGE | win32.REJECT_REMOTE_CLIENTS,
            api.PIPE_UNLIMITED_INSTANCES,
            PIPE_BUFFER,
            PIPE_BUFFER,
            0,
            self._access.address,
        )
        self._free[handle] = None
        try:
            completion_port().attach(handle)
            waiting = completion_port().start(
                lambda operation: operation.ConnectNamedPipe(handle),
                lambda operation: self._on_connected(handle, operation),
            )
        except OSError:
            del self._free[handle]
            api.CloseHandle(handle)
            raise
        self._free[handle] = waiting
        if not waiting.pending:  # somebody was faster
            self._take_client(handle)

    def _on_connected(self, handle: int, operation: Any) -> None:
        """The port: a client has opened an instance. That may have been seen before."""
        with self._lock:
            if self._free.get(handle) is operation:
                self._take_client(handle)
                self._fill_up()
        self.notify()

    def _take_client(self, handle: int) -> None:
        """A free instance is free no longer."""
        del self._free[handle]
        if _has_client(handle):  # Wine may never write down the outcome: see CompletionPort
            self._enqueue(handle)
        else:  # it is gone again: another instance will do
            win32.api.CloseHandle(handle)

    def _enqueue(self, handle: int) -> None:
        try:
            self._queue.append(WinStream(handle, accepted=True))
        except OSError:
            win32.api.CloseHandle(handle)


def _has_client(handle: int) -> bool:
    """Whether somebody has opened an instance, or had."""
    try:
        win32.api.PeekNamedPipe(handle, 0)
    except OSError as error:
        return win32.winerror(error) == win32.BROKEN_PIPE
    return True
