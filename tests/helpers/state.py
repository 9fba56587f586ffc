"""Put the test run, and every program that it starts, into a known state.

What the caller happens to pass on (ignored signals, umask, locale, limits, variables, closed
streams) must not decide a test.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import time

import pytest

KEPT_BY_CONTROLLER = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)

SETTINGS = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "TZ": "UTC"}

DOCUMENTED = {
    *("SIPC_GIT", "SIPC_PERFORMANCE", "SIPC_SEED", "SIPC_SOAK", "SIPC_TEST_TOOL", "SIPC_WINE"),
    "SIPC_TEST_RUN",  # leftovers.py
    "SIPC_TEST_LIKE",  # masked.py
    "PYTHONWARNINGS",  # tests/pythons/run
    "XDG_CACHE_HOME",  # no test's, but where the programs are that the tests have fetched
}
"""Variables that are meant to decide something, though their names match the pattern below."""

REMOVED = re.compile(
    "LANGUAGE|LC_.*|TERM.*|COLORTERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|CLICOLOR.*|TTY_.*|JUPYTER_.*"
    "|SIPC_.*|PYTHON.*|GIT_.*|XDG_.*|TMPDIR|TMP|TEMP"
    "|LISTEN_.*|NOTIFY_SOCKET|WATCHDOG_.*|JOURNAL_STREAM|INVOCATION_ID|MAINPID"
    "|BASH.*|ENV|SHELLOPTS|CDPATH|GLOBIGNORE|ZDOTDIR|POSIXLY_CORRECT|MALLOC_.*|MANPAGER|PAGER|LESS"
)

LIMITS = {
    resource.RLIMIT_NOFILE: (1024, 65536),
    resource.RLIMIT_STACK: (8 << 20, resource.RLIM_INFINITY),
    resource.RLIMIT_CORE: (0, resource.RLIM_INFINITY),
    resource.RLIMIT_FSIZE: (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    resource.RLIMIT_DATA: (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    resource.RLIMIT_AS: (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    resource.RLIMIT_CPU: (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
}
"""Soft and hard limits. A hard limit can only be raised with CAP_SYS_RESOURCE."""

MIN_FILES = 256
"""The lowest hard limit of open files with which the tests can pass, but for needs_files()."""


def needs_files(count: int) -> pytest.MarkDecorator:
    """Skip a test where the hard limit of open files is lower and cannot be raised."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return pytest.mark.skipif(hard < count, reason=f"needs {count} open files: ulimit -Hn")


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Whether workers of pytest-xdist run the tests for this process."""
    return not is_worker(config) and bool(getattr(config.option, "tx", None))


def use_worker_if_signals_are_ignored(config: pytest.Config) -> None:
    """Leave the tests to a worker, even with `-n 0`, where this process has to ignore signals.

    `nohup pytest &` has to survive when its terminal hangs up, and a background job must not die
    of a Ctrl-C that is meant for the foreground. But a program only tests signals properly if it
    inherits none as ignored, and then it must not be in the process group that gets those. So the
    controller keeps what it inherited for SIGINT, SIGQUIT, SIGHUP and SIGTERM, and each worker
    leads a session of its own, in which all signals have their defaults.
    """
    ignored = [n for n in KEPT_BY_CONTROLLER if signal.getsignal(n) is signal.SIG_IGN]
    if ignored and not is_worker(config) and not config.option.numprocesses:
        config.option.numprocesses = 1


def reset(config: pytest.Config) -> None:
    """Enter the known state, apart from the working directory and HOME."""
    if is_worker(config):
        os.setsid()
    _reset_signals(kept=KEPT_BY_CONTROLLER if is_controller(config) else ())
    os.umask(0o022)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
    for name in list(os.environ):
        if REMOVED.fullmatch(name) and name not in DOCUMENTED:
            del os.environ[name]
    os.environ.update(SETTINGS)
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    time.tzset()
    for limit, (soft, hard) in LIMITS.items():
        _set_limit(limit, soft, hard)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < MIN_FILES:
        raise pytest.UsageError(f"the tests need {MIN_FILES} open files: raise ulimit -Hn")


def set_home(fallback: str) -> None:
    """Set HOME to the user's home, or to a folder that is made if that cannot be written to."""
    home = os.path.expanduser("~")
    if not (os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)):
        home = fallback
        os.makedirs(home, exist_ok=True)
    os.environ["HOME"] = home


def _reset_signals(kept: tuple[int, ...]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    python_ignores = {signal.SIGPIPE, signal.SIGXFSZ}  # and restores in the programs it starts
    for number in signal.valid_signals() - set(kept) - python_ignores:
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


def _set_limit(limit: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(limit, (soft, hard))
    except (ValueError, PermissionError):  # the hard limit can only stay
        hard = resource.getrlimit(limit)[1]
        if hard != resource.RLIM_INFINITY:
            soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(limit, (soft, hard))
