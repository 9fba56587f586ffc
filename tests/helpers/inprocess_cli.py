"""Run the command line in this process, for tests that need no separate process.

Not for a command that serves, that a signal ends, or whose output is a closed pipe: these need a
process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from threading import get_ident

from helpers.command import environment
from simpleipc_cli import cli

_MODES = ("r", "w", "w")  # of standard input, output and error


def run_cli(
    *arguments,
    input: bytes = b"",  # noqa: A002
    env=None,
    cwd=None,
) -> subprocess.CompletedProcess[bytes]:
    """Run `sipc` with these arguments; return its exit status and output.

    Call it from the main thread. `env` is the whole environment; by default that of
    `helpers.command.environment()`. Standard streams are regular files.
    """
    words = ["sipc", *map(str, arguments)]
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in _MODES]
        files[0].write(input)
        files[0].seek(0)
        with signals_kept(), _surroundings(words, environment() if env is None else env, cwd):
            with _standard_streams([file.fileno() for file in files]), _descriptors_closed():
                status = _exit_status()
        for file in files:
            file.seek(0)
        return subprocess.CompletedProcess(words, status, files[1].read(), files[2].read())


def _exit_status() -> int:
    try:
        cli.main()
    except SystemExit as ending:
        return ending.code


@contextmanager
def _surroundings(words, variables, cwd):
    """Set argv, environment and directory; afterwards restore all that sipc may change."""
    before = sys.argv, dict(os.environ), os.getcwd(), os._exit, sys.unraisablehook
    pid = os.getpid()

    def exit_now(status: int) -> None:
        if os.getpid() != pid:  # a forked child
            before[3](status)
        raise SystemExit(status)

    sys.argv = words
    os.environ.clear()
    os.environ.update(variables)
    if cwd is not None:
        os.chdir(cwd)
    os._exit = exit_now
    try:
        yield
    finally:
        sys.argv, variables, folder, os._exit, sys.unraisablehook = before
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)


@contextmanager
def signals_kept():
    """Restore signal handlers, the signal mask and the timer afterwards."""
    timer = signal.getitimer(signal.ITIMER_REAL)  # perhaps a time limit for this test
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


@contextmanager
def _standard_streams(descriptors):
    """Redirect descriptors 0, 1 and 2, and Python's streams for them, to other files."""
    streams = sys.stdin, sys.stdout, sys.stderr
    for stream in streams[1:]:
        stream.flush()
    saved = [os.dup(number) for number in range(3)]
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        ours = [
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            for number, mode in enumerate(_MODES)
        ]
        ours[2].reconfigure(line_buffering=True)  # as Python opens it
        sys.stdin, sys.stdout, sys.stderr = ours
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = streams
            for stream in ours:
                stream.close()
    finally:
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextmanager
def _descriptors_closed():
    """Close the files that the command leaves open until its process exits."""
    thread, functions = get_ident(), (os.open, os.dup)
    opened: dict[int, tuple[int, ...]] = {}

    def identity(descriptor: int) -> tuple[int, ...]:
        try:
            return tuple(os.fstat(descriptor)[1:3])
        except OSError:
            return ()

    def remembering(function):
        def call(*arguments, **options):
            descriptor = function(*arguments, **options)
            if get_ident() == thread:
                opened[descriptor] = identity(descriptor)
            return descriptor

        return call

    os.open, os.dup = map(remembering, functions)
    try:
        yield
    finally:
        os.open, os.dup = functions
        for descriptor, opened_as in opened.items():
            if identity(descriptor) == opened_as:  # else it is closed, and perhaps another's now
                os.close(descriptor)
