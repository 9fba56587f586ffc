"""Run `sipc serve`: create the handler and the server, pass signals, return the status."""

from __future__ import annotations

import os
import signal
import sys
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import sleep

from simpleipc_cli import system
from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode
from simpleipc_cli.cli.serve import ServeOptions
from simpleipc_cli.cli.serve.log import LineLog
from simpleipc_cli.cli.stdio import format_error, print_error, unexpected_error
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import Cancelled, SipcError
from simpleipc_cli.handlers.base import Program, handler_environment
from simpleipc_cli.handlers.exec import PrestartHandler, ProcessHandler
from simpleipc_cli.process import Command, PidFile, kill_children, reap_orphans
from simpleipc_cli.server import systemd
from simpleipc_cli.server.acceptor import MIN_FDS
from simpleipc_cli.server.context import Log, ServerConfig
from simpleipc_cli.server.handler import Handler
from simpleipc_cli.server.server import ExitReason, Server
from simpleipc_cli.spool import usable_folders
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.text import printable
from simpleipc_cli.transport import Listener, Stream, listen, reports_users

_STOP_SIGNALS, _RELOAD_SIGNALS, _STATS_SIGNALS = (
    [signal.Signals[name] for name in names]
    for names in (system.STOP_SIGNALS, system.RELOAD_SIGNALS, system.STATS_SIGNALS)
)

_MAX_ABORT = 3.0  # seconds from the second signal to the exit, unless the main thread hangs
_MAX_TASK = 0.2  # seconds to wait for each call before that exit, as it may hang (tunable)


class SignalRouter:
    """Passes signals to a server, also those that arrive before the server exists.

    If the system allows it, a thread receives the signals: the main thread cannot while it hangs in
    a system call, for example at a disk that does not answer.
    """

    def __init__(self, *, sighup_reloads: bool, blocks_signals: bool) -> None:
        """Handle signals from now on.

        Without `blocks_signals` the main thread receives them: what blocks signals for the process
        blocks them for the programs that a callback starts, too.

        An ignored stop signal, except SIGTERM, stays ignored: shells and nohup(1) rely on that. All
        other signals are always handled. This includes SIGHUP if it means reload: a daemon's parent
        has ignored it only because of the terminal.
        """
        self.first = 0
        """The first stop signal; 0 if there was none."""
        self._stop_count = 0
        self._server: Server | None = None
        self._remove_path: Callable[[], object] = bool
        self._pending: SimpleQueue[Callable[[Server], None]] = SimpleQueue()
        self._methods: dict[int, Callable[[Server], None]] = {
            number: Server.stop
            for number in _STOP_SIGNALS
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
        }
        self._methods |= dict.fromkeys(_STATS_SIGNALS, Server.log_stats)
        if sighup_reloads:
            self._methods |= dict.fromkeys(_RELOAD_SIGNALS, Server.reload)
        for number in self._methods:
            signal.signal(number, lambda number, _frame: self._on_signal_in_main_thread(number))
        if blocks_signals:
            system.receive_signals(self._methods, self._on_signal_in_thread)

    def attach(self, server: Server, listener: Listener) -> None:
        """Pass all signals to this server, including those that have already arrived."""
        self._remove_path = listener.stop_listening
        self._server = server
        self._pass_on()

    def ignore(self) -> None:
        """Ignore signals from now on: the server has ended, and the process is about to exit."""
        self._server = None
        for number in self._methods:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int) -> None:
        method = self._methods[number]
        if method is Server.stop:
            self.first = self.first or number
            self._stop_count += 1
        self._pending.put(method)
        self._pass_on()

    def _pass_on(self) -> None:
        with suppress(Empty):
            while (server := self._server) is not None:
                self._pending.get_nowait()(server)

    def _on_signal_in_thread(self, number: int) -> None:
        self._on_signal(number)
        if self._stop_count > 1:
            self._end()

    def _on_signal_in_main_thread(self, number: int) -> None:
        self._on_signal(number)
        if self._stop_count == 2:
            with suppress(RuntimeError, MemoryError):  # no more threads
                start_new_thread(self._end, ())  # a Thread could wait for a lock that we hold

    def _end(self) -> None:
        """End the process if it hangs. All calls here except the last may hang, too."""
        sleep(_MAX_ABORT)  # the main thread ends the process earlier, unless it hangs
        kill_children()
        what = "the server was ended while its main thread hung"
        error = SipcError(what, "check the disks that it uses")
        report = partial(print_error, format_error("serve", error))
        for task in (self._remove_path, report):
            with suppress(RuntimeError, MemoryError):  # no more threads
                thread = Thread(target=task, daemon=True)
                thread.start()
                thread.join(_MAX_TASK)
        os._exit(SIGNALLED + self.first)


def run_in_background(endpoint: Endpoint, options: ServeOptions) -> int:
    """Serve in a daemon; return the exit status of this process, the parent or the daemon.

    Raises SipcError: TimedOut if the daemon does not listen within --max-wait.
    """
    from simpleipc_cli.process import ReadyPipe, daemonize, describe  # noqa: PLC0415 - seldom needed

    daemon = daemonize([sys.executable, *sys.orig_argv[1:]], os.environ)
    if isinstance(daemon, ReadyPipe):
        return run(endpoint.ensure_parent(), options, on_listening=daemon.notify)
    status = daemon.wait(options.max_wait)
    if status is None:
        return ExitCode.OK
    if status < 0:
        what = f"the server was {describe(status)[1]} before it listened"
        print_error(format_error("serve", SipcError(what, "find out what sent the signal")))
        return SIGNALLED - status
    return status


def run(
    path: str,
    options: ServeOptions,
    *,
    listener: Listener | None = None,
    on_listening: Callable[[], None] = lambda: None,
    on_completed: Callable[[Server], int] = lambda _server: ExitCode.OK,
) -> int:
    """Serve until stopped; return the exit status.

    `listener` listens already, at the absolute or abstract `path`; without it, listen on `path`.
    `on_listening` is called when clients can connect; `on_completed` when all requests have ended,
    for the exit status; it may raise SipcError.
    """
    signals = SignalRouter(
        sighup_reloads=options.sighup_reloads, blocks_signals=options.call is None
    )
    log = _open_log(options)
    with _errors_logged(log, options), _trace(path, log, options) as observe:
        descriptors = DescriptorLimit()
        absolute = system.absolute_path(path) if listener is None else path
        config = _check_config(options.server_config(), log)
        handler = _new_handler(options, absolute, descriptors, log)
        _check_limit(descriptors, handler)
        with nullcontext() if options.pid_file is None else PidFile(options.pid_file):
            try:
                listener = listener or listen(
                    path,
                    mode=options.socket_mode,
                    group=options.group,
                    backlog=options.backlog,
                    cancelled=lambda: signals.first != 0,
                )
            except Cancelled:
                return SIGNALLED + signals.first
            notifier = systemd.Notifier(os.environ, log.warning)
            with _closed_after_failure(listener):
                server = Server(
                    listener,
                    handler=handler,
                    config=config,
                    log=log,
                    descriptors=descriptors,
                    observe=observe,
                    notifier=notifier,
                )
            signals.attach(server, listener)
            if not options.stdio:
                log.info(f"listening on {path}")
            on_listening()
            notifier.ready(f"listening on {printable(path)}")
            reap_orphans()
            reason = server.run()
            status = on_completed(server) if reason is ExitReason.COMPLETED else ExitCode.OK
            signals.ignore()
            server.close()
            notifier.close()
            return status or _exit_status(reason, server, path, signals, log)


@contextmanager
def _closed_after_failure(listener: Listener) -> Iterator[None]:
    """Stop listening if the server cannot be created. Raises SipcError in place of OSError."""
    try:
        yield
    except OSError as error:
        listener.stop_listening()
        listener.close()
        failed = unexpected_error(error)
        raise SipcError(f"cannot start: {failed}", failed.hint) from error


def _open_log(options: ServeOptions) -> LineLog:
    log = LineLog(options)
    if options.warning:
        log.warning(f"sipc serve: {options.warning}")
    return log


def _exit_status(
    reason: ExitReason, server: Server, path: str, signals: SignalRouter, log: Log
) -> int:
    if reason is ExitReason.PATH_LOST:
        raise SipcError(f"{path} was removed or replaced", "find out why, and restart the server")
    if reason is ExitReason.COMPLETED:
        return ExitCode.OK
    hint = "allow more time with --drain-timeout"
    if server.must_abort:
        hint = "a second signal aborts, a single one lets requests finish"
    log.error(f"sipc serve: not all requests were answered: {hint}")
    return SIGNALLED + signals.first if signals.first else ExitCode.FAILURE


@contextmanager
def _errors_logged(log: Log, options: ServeOptions) -> Iterator[None]:
    """Write the error that ends the server also to its log file: a daemon has no stderr.

    With --verbose, write the traceback of an unexpected error, too.
    """
    if options.verbose:
        import traceback  # noqa: PLC0415 - loaded now: later there may be no free descriptor
    try:
        yield
    except Exception as error:
        shown = error if isinstance(error, SipcError) else unexpected_error(error)
        if options.log_file is not None:
            log.error(f"sipc serve: {shown.text}")
        if options.verbose and shown is not error:
            for line in "".join(traceback.format_exception(error)).splitlines():
                log.debug(line)
        raise


@contextmanager
def _trace(
    path: str, log: Log, options: ServeOptions
) -> Iterator[Callable[[Stream, str], Stream] | None]:
    """Open the trace; yield a function that wraps the stream of a request, or None."""
    if options.trace_file is None and not options.trace:
        yield None
        return
    from simpleipc_cli.cli.line_writer import open_trace  # noqa: PLC0415 - seldom needed

    def warn(error: SipcError) -> None:
        log.error(f"sipc serve: {error.text}")

    tracer = open_trace(warn, on_stderr=options.trace, path=options.trace_file)
    try:
        yield lambda stream, request_id: tracer.observe(stream, request_id, "accepted on", path)
    finally:
        tracer.close()


def _new_handler(options: ServeOptions, path: str, limit: DescriptorLimit, log: Log) -> Handler:
    """Return the handler, without starting processes. `path` is absolute or abstract."""
    if options.call is not None:
        return _new_callback_handler(options.call, options.threads, log)
    line = options.command or options.worker or ""
    command = Command(line, os.environ.get("PATH", os.defpath))
    if command.is_missing():
        log.warning(f"sipc serve: command not found: {line}: requests fail until it exists")
    environment = handler_environment(systemd.without_own_variables(os.environ), path)
    stderr = None
    if options.stderr_goes_to != "inherit":
        from simpleipc_cli.handlers.stderr import HandlerStderr  # noqa: PLC0415 - seldom needed

        stderr = HandlerStderr(log if options.stderr_goes_to == "log" else None)
    program = Program(command, environment, limit, log, options.kill_after, stderr)
    if options.prestart is not None:
        return PrestartHandler(program, count=options.prestart)
    if options.worker is None:
        return ProcessHandler(program)
    from simpleipc_cli.handlers.worker_pool import WorkerPool  # noqa: PLC0415

    return WorkerPool(
        program,
        max_workers=options.threads,
        max_requests=options.max_requests_per_worker,
    )


def _new_callback_handler(name: str, max_concurrency: int, log: Log) -> Handler:
    from simpleipc_cli.handlers.callback import CallbackHandler, import_callback  # noqa: PLC0415

    sys.path.insert(0, os.getcwd())  # as for python -m
    sys.stdout = sys.stderr  # for print() in the callback
    return CallbackHandler(
        import_callback(name),
        log,
        max_concurrency=max_concurrency,
        load=partial(import_callback, name, again=True),
    )


def _check_config(config: ServerConfig, log: Log) -> ServerConfig:
    """Remove unusable spool folders; log a warning if none is usable.

    Raises SipcError for allowed_users on a system that does not report the user of a client.
    """
    if config.allowed_users is not None and not reports_users():
        what = "--allow-user: this system does not report the user of a client"
        raise SipcError(what, "leave it out, and use --mode or --group")
    if usable := usable_folders(config.spool_folders):
        return replace(config, spool_folders=usable)
    log.warning(
        f"sipc serve: no file can be written in {' or '.join(config.spool_folders)}: requests that "
        "must be stored fail: set TMPDIR to a directory with free space"
    )
    return config


def _check_limit(descriptors: DescriptorLimit, handler: Handler) -> None:
    needed = MIN_FDS + handler.min_fds + handler.run_fds
    if descriptors.maximum < needed:
        raise SipcError(
            f"the limit of {descriptors.maximum} file descriptors is too low",
            f"raise it to at least {needed} (ulimit -n)",
        )
