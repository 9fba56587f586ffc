"""Listeners on Windows named pipes.

A client opens a free *instance* of the pipe. There are always some: when a client opens an
instance, the completion port's thread creates another one, even while all other threads are busy.
So `backlog` is the number of connections that may wait for accept().
"""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Callable
from typing import Any

from simpleipc_cli.errors import AddressInUse, EndpointError, PermissionDenied
from simpleipc_cli.transport.base import READ
from simpleipc_cli.transport.base_server import Listener
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.poller import Pollable, completion_port
from simpleipc_cli.transport.windows.stream import (
    PIPE_BUFFER,
    WinStream,
    endpoint_error,
    pipe_name,
)

_FREE_INSTANCES = 8  # for clients that connect before the port's thread runs again (tunable)
_OTHERS_WRITE = 0o002


def listen(
    path: str,
    *,
    mode: int,
    backlog: int,
    group: int | None = None,
    cancelled: Callable[[], bool] = lambda: False,  # noqa: ARG001 - it never waits
) -> WinListener:
    """Listen on the pipe of `path`, for this user, or for all users if `mode` lets others write.

    Raises AddressInUse if a server listens there, NotASocket, PermissionDenied.
    """
    if group is not None:
        raise EndpointError(f"{path} cannot be given to a group", "leave the group out")
    name = pipe_name(path)
    guard = 0
    try:
        # A second pipe is the lock: only one server can create it. Git's servers have no such lock,
        # so the listener also sets FILE_FLAG_FIRST_PIPE_INSTANCE; but Wine 8 ignores that flag.
        guard = win32.create_lock_pipe(name + ".lock")
        if not guard:
            raise AddressInUse(f"another server is listening on {path}")
        rules = _access_rules(for_all=bool(mode & _OTHERS_WRITE))
        return WinListener(name, backlog, guard, rules)
    except BaseException as error:
        if guard:
            win32.api.CloseHandle(guard)
        if isinstance(error, OSError):
            raise _listen_error(error, name, path) from error
        raise


def _access_rules(*, for_all: bool) -> str:
    """Grant full access to this user; with `for_all`, also reading and writing to all users.

    Another user with the right to write can also create instances, and so answer in place of this
    server. Git's clients need both rights to open a pipe, so git's own servers have the same
    weakness.
    """
    rules = f"D:P(A;;GA;;;{win32.own_user()})"
    return rules + "(A;;GRGW;;;WD)" if for_all else rules


def _listen_error(error: OSError, name: str, path: str) -> EndpointError:
    """Distinguish a name in use from a forbidden one: the system's error is the same for both."""
    if win32.winerror(error) == win32.ACCESS_DENIED:
        try:
            win32.api.WaitNamedPipe(name, 1)
        except OSError as found:
            if win32.winerror(found) == win32.FILE_NOT_FOUND:
                return PermissionDenied(f"{path}: {win32.strerror(error)}", "choose another path")
        return AddressInUse(f"another server is listening on {path}")
    return endpoint_error(error, path)


class WinListener(Pollable, Listener):
    """A named pipe that clients can open."""

    can_lose_path = False

    def __init__(self, name: str, backlog: int, guard: int, rules: str) -> None:
        """Own the guard pipe. Raises OSError."""
        super().__init__()
        self._name = name
        self._backlog = backlog
        self._guard = guard
        self._access = win32.SecurityDescriptor(rules)
        self._lock = _thread.allocate_lock()
        self._free: dict[int, Any] = {}  # handles of instances, and their pending operations
        self._queue: deque[WinStream] = deque()
        self._is_open = True
        try:
            self._fill_up(first=True)
        except BaseException:
            self._access.close()
            self.unregister()
            raise

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - every change calls notify()
        return READ if self._queue else 0

    def accept(self) -> WinStream:
        with self._lock:
            if not self._queue:
                self._fill_up()  # it may have failed before, for lack of memory
                raise BlockingIOError
            stream = self._queue.popleft()
            self._fill_up()
        return stream

    def stop_listening(self) -> None:
        """Refuse new clients. The name is in use until the last connection is closed."""
        with self._lock:
            self._is_open = False
            instances, self._free = self._free, {}
            for handle, operation in instances.items():
                if operation is not None:
                    operation.cancel()
                if _has_client(handle):
                    self._enqueue(handle)
                else:
                    win32.api.CloseHandle(handle)
        self.notify()

    def close(self) -> None:
        self.stop_listening()
        while self._queue:
            self._queue.popleft().close()
        guard, self._guard = self._guard, 0
        if guard:
            win32.api.CloseHandle(guard)
            self._access.close()
        self.unregister()

    def _fill_up(self, *, first: bool = False) -> None:
        """Create free instances, up to the limit of the queue.

        Raises OSError if the first of all cannot be created.
        """
        while self._is_open:
            if len(self._free) >= min(_FREE_INSTANCES, self._backlog - len(self._queue)):
                return
            try:
                self._add_instance(first=first)
                first = False
            except OSError as error:
                if win32.winerror(error) == win32.api.ERROR_NO_DATA:  # its client has closed
                    continue
                if first:
                    raise
                return  # out of memory: accept() tries again

    def _add_instance(self, *, first: bool) -> None:
        """Create an instance and start waiting for its client. Raises OSError."""
        api = win32.api
        handle = api.CreateNamedPipe(
            self._name,
            api.PIPE_ACCESS_DUPLEX
            | api.FILE_FLAG_OVERLAPPED
            | (api.FILE_FLAG_FIRST_PIPE_INSTANCE if first else 0),
            # As in git's clients and servers: write messages, read bytes.
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
            operation = completion_port().start(
                lambda operation: operation.ConnectNamedPipe(handle),
                lambda operation: self._on_connected(handle, operation),
            )
        except OSError:
            del self._free[handle]
            api.CloseHandle(handle)
            raise
        self._free[handle] = operation
        if not operation.pending:  # a client has opened it already
            self._take_client(handle)

    def _on_connected(self, handle: int, operation: Any) -> None:
        """Queue a client, unless stop_listening() or _add_instance() has handled it."""
        with self._lock:
            if self._free.get(handle) is operation:
                self._take_client(handle)
                self._fill_up()
        self.notify()

    def _take_client(self, handle: int) -> None:
        del self._free[handle]
        if _has_client(handle):  # Wine may never set the result of the operation
            self._enqueue(handle)
        else:  # the client has closed
            win32.api.CloseHandle(handle)

    def _enqueue(self, handle: int) -> None:
        try:
            self._queue.append(WinStream(handle, accepted=True))
        except OSError:
            win32.api.CloseHandle(handle)


def _has_client(handle: int) -> bool:
    """Return whether an instance has, or had, a client."""
    try:
        win32.api.PeekNamedPipe(handle, 0)
    except OSError as error:
        return win32.winerror(error) == win32.BROKEN_PIPE
    return True
