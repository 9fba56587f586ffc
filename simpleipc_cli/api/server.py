"""A server in this process whose requests a Python function answers."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from threading import Event, Lock, RLock, Thread
from types import TracebackType
from typing import Any, Self

from simpleipc_cli.api.client import endpoint_at
from simpleipc_cli.errors import SipcError, errno_hint
from simpleipc_cli.handlers.callback import CallbackHandler
from simpleipc_cli.server.acceptor import MIN_FDS
from simpleipc_cli.server.context import Log, RequestRecord, ServerConfig
from simpleipc_cli.server.server import ExitReason
from simpleipc_cli.server.server import Server as EventLoop
from simpleipc_cli.spool import usable_folders
from simpleipc_cli.system import MAX_WAIT, spool_folders
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import listen, reports_users

_ABORT_TIMEOUT = 5.0  # seconds from an abort until threads that hang are left (tunable)


class Server:
    """Answers the requests at a path by calling a function.

    The function is one of these, or the same as a coroutine function (`async def`), which then gets
    an AsyncRequest and an AsyncReply:

        def answer(request: bytes) -> bytes
        def answer(request: Request, reply: Reply) -> None

    Its return completes the response. If it raises, the response is cut off, so that the client
    gets IncompleteMessage, and the traceback is logged. Up to `max_concurrency` requests are
    answered at once, so the function must be safe to call from several threads. As a context
    manager, the server runs in a thread for the time of the `with`.

    A server changes nothing of the process: no signal handler, no directory, no limit. It
    logs through logging.getLogger("simpleipc_cli").
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        callback: Callable[..., Any],
        *,
        max_concurrency: int = 8,
        mode: int = 0o600,
        group: int | None = None,
        allowed_users: Collection[int] | None = None,
        backlog: int = 1024,
        max_request: int | None = None,
        read_timeout: float | None = 30.0,
        write_timeout: float | None = 60.0,
        timeout: float | None = None,
        drain_timeout: float | None = 10.0,
        idle_timeout: float | None = None,
        max_requests: int | None = None,
    ) -> None:
        """Prepare a server at `path`; None is the default endpoint of `sipc`.

        Times are seconds, sizes bytes, None means no limit. `mode` and `group` (a gid) are those of
        the socket; of the users that these let in, only `allowed_users` (uids) are answered, if
        given. `backlog` connections wait in the kernel. A request may have `max_request` bytes, may
        pause for `read_timeout`, and its client may stop reading for `write_timeout`; its call may
        take `timeout`, after which the client is cut off. stop() waits `drain_timeout` for running
        requests. The server stops after `idle_timeout` without a request, and after
        `max_requests`. Windows has neither `group` nor `allowed_users`.

        Raises SipcError if `callback` has the wrong parameters, ValueError for a limit below 1, or
        a time that is not above 0 (`drain_timeout` may be 0).
        """
        self._endpoint = endpoint_at(path)
        self._log = _Logging()
        self._handler = CallbackHandler(callback, self._log, max_concurrency=max_concurrency)
        self._mode, self._group, self._backlog = mode, group, backlog
        folders = spool_folders(os.environ)
        self._config = _checked(
            ServerConfig(
                max_concurrency=max_concurrency,
                max_request=max_request,
                read_timeout=read_timeout,
                write_timeout=write_timeout,
                handler_timeout=timeout,
                drain_timeout=drain_timeout,
                abort_timeout=_ABORT_TIMEOUT,
                max_requests=max_requests,
                idle_timeout=idle_timeout,
                allowed_users=None if allowed_users is None else frozenset(allowed_users),
                spool_folders=usable_folders(folders) or folders,
            )
        )
        # Reentrant, as a signal handler may call stop() during a call of the same thread.
        self._lock = RLock()
        self._early_stops = 0
        self._loop: EventLoop | None = None
        self._thread: Thread | None = None
        self._start_failure: BaseException | None = None
        self._failure: BaseException | None = None

    @property
    def path(self) -> str:
        """Where the server listens."""
        return self._endpoint.path

    def start(self) -> None:
        """Listen, and serve in a daemon thread until stop(). A server starts once.

        Clients can connect when this returns. Raises AddressInUse if another server listens at the
        path, another EndpointError if the path cannot be used, SipcError without descriptors and
        for `allowed_users` where users have no uids.
        """
        if self._thread is not None:
            raise RuntimeError("a server can be started only once")
        self._pid = os.getpid()
        # The thread takes the lock when it runs, an interrupted start() so that it never will.
        self._may_run = Lock()
        self._started = Event()
        # Not Thread.join(): after Ctrl-C, Python takes the thread for ended (seen in 3.11).
        self._ended = Event()
        try:
            self._thread = Thread(target=self._run, daemon=True)
            atexit.register(self._abort)  # else the socket's file would stay
            self._thread.start()
            while not self._started.wait(MAX_WAIT):
                pass
        except BaseException as error:  # also Ctrl-C
            if self._may_run.acquire(blocking=False):  # the thread does not run, and never will
                self._thread = None
                atexit.unregister(self._abort)
            else:
                self._abort()
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None  # which interrupted a wait of `threading`
            if not isinstance(error, (RuntimeError, MemoryError)):
                raise
            hint = "raise the limits of processes and memory"
            raise SipcError(f"no thread for the server: {error}", hint) from error
        if self._start_failure is not None:
            failure, self._start_failure, self._thread = self._start_failure, None, None
            raise failure

    def _run(self) -> None:
        """Listen and serve: in its own thread, as Ctrl-C interrupts only the main thread."""
        if not self._may_run.acquire(blocking=False):
            return  # start() was interrupted
        try:
            loop = self._listen()
        except BaseException as error:
            self._start_failure = error
            atexit.unregister(self._abort)
            self._ended.set()
            self._started.set()
            return
        with self._lock:
            self._loop = loop
            for _ in range(self._early_stops):
                loop.stop()
        self._started.set()
        self._serve(loop)

    def _listen(self) -> EventLoop:
        if self._config.allowed_users is not None and not reports_users():
            raise SipcError("allowed_users: not supported on this platform", "leave it out")
        descriptors = DescriptorLimit(may_raise=False)
        if descriptors.maximum < MIN_FDS:
            raise SipcError(
                f"the limit of {descriptors.maximum} file descriptors is too low",
                f"raise it to at least {MIN_FDS} (ulimit -n)",
            )
        path = self._endpoint.ensure_parent()
        if self._endpoint.warning:
            self._log.warning(self._endpoint.warning)
        listener = listen(
            path,
            mode=self._mode,
            group=self._group,
            backlog=self._backlog,
            cancelled=lambda: self._early_stops > 1,
        )
        try:
            return EventLoop(
                listener,
                handler=self._handler,
                config=self._config,
                log=self._log,
                descriptors=descriptors,
            )
        except BaseException as error:  # also MemoryError
            listener.stop_listening()
            listener.close()
            if not isinstance(error, OSError):
                raise
            hint = errno_hint(error, "check the limits of the process")
            raise SipcError(f"cannot serve: {error.strerror}", hint) from error

    def _serve(self, loop: EventLoop) -> None:
        try:
            try:
                if loop.run() is ExitReason.PATH_LOST:
                    hint = "find out what did that, and start another server"
                    raise SipcError(f"{self.path} was removed or replaced", hint)
            except BaseException as failure:
                self._failure = failure
                self._log.error(f"the server at {self.path} has failed: {failure}")
            atexit.unregister(self._abort)
            with self._lock:
                self._loop = None
                loop.close()
        finally:
            self._ended.set()

    def _abort(self) -> None:
        if os.getpid() != self._pid:  # a fork has neither the server's thread nor its socket
            return
        for _ in range(2):
            self.stop()
        self._ended.wait(_ABORT_TIMEOUT)

    def stop(self) -> None:
        """Begin to stop: refuse new clients, answer all that have connected.

        The second call ends all requests at once. Returns immediately; may be called by any thread,
        by a callback, by a signal handler, and before start(), which then stops at once.
        """
        with self._lock:
            if self._loop is None:
                self._early_stops += 1
            else:
                self._loop.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended; return False if it has not after `timeout` seconds.

        A callback must not call this. Raises SipcError if the server has ended because its path was
        removed or replaced.
        """
        if self._thread is None:
            return True
        if timeout is None:
            while not self._ended.wait(MAX_WAIT):
                pass
        elif not self._ended.wait(timeout):
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def serve_forever(self) -> None:
        """Serve until stop(), or until Ctrl-C, after which KeyboardInterrupt is raised.

        Raises as start() and wait() do.
        """
        try:
            self.start()
            self.wait()
        except KeyboardInterrupt:
            self._stop_and_wait()
            raise

    def _stop_and_wait(self) -> None:
        """Stop, and wait for the end; Ctrl-C ends all requests."""
        self.stop()
        try:
            self.wait()
        except KeyboardInterrupt:
            self._stop_and_wait()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_and_wait()


def _checked(config: ServerConfig) -> ServerConfig:
    """Raise ValueError for a limit that allows nothing."""
    limits = {
        "max_concurrency": config.max_concurrency,
        "max_request": config.max_request,
        "max_requests": config.max_requests,
        "read_timeout": config.read_timeout,
        "write_timeout": config.write_timeout,
        "timeout": config.handler_timeout,
        "idle_timeout": config.idle_timeout,
    }
    for name, limit in limits.items():
        if limit is not None and limit <= 0:
            raise ValueError(f"{name} must be above 0; None is no limit")
    if config.drain_timeout is not None and config.drain_timeout < 0:
        raise ValueError("drain_timeout must not be negative; None is no limit")
    return config


class _Logging(Log):
    """Writes the records to the `logging` module."""

    needs_peer = False

    def __init__(self) -> None:
        self._logger = logging.getLogger("simpleipc_cli")

    def _write(self, level: int, text: str, **options: Any) -> None:
        # Of the program's own handlers: it must not end the server.
        with suppress(BaseException):
            self._logger.log(level, "%s", text, **options)

    def error(self, text: str) -> None:
        self._write(logging.ERROR, text)

    def warning(self, text: str) -> None:
        self._write(logging.WARNING, text)

    def info(self, text: str) -> None:
        self._write(logging.INFO, text)

    def debug(self, text: str) -> None:
        self._write(logging.DEBUG, text)

    def request(self, record: RequestRecord) -> None:
        level = logging.WARNING if record.warnings else logging.INFO
        if record.outcome.is_error:
            level = logging.ERROR
        if self._logger.isEnabledFor(level):
            reasons = "; ".join(filter(None, (record.detail, *record.warnings)))
            text = f"request {record.request.id}: {record.outcome.value.replace('_', ' ')}"
            self._write(
                level,
                f"{text}: {reasons}" if reasons else text,
                extra={"request_id": record.request.id, "outcome": record.outcome.value},
            )

    def exception(self, text: str, error: BaseException) -> None:
        self._write(logging.ERROR, text, exc_info=error)

    def stats(self, counters: Mapping[str, int]) -> None:
        pass

    def reopen(self) -> None:
        pass
