"""What a user sees of an unexpected error."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
from helpers.command import SIPC, assert_error_line, environment
from helpers.injection import SAME_CALLS, needs_strace
from helpers.inprocess_cli import run_cli
from helpers.waiting import TIMEOUT

from simpleipc_cli.cli.bench import command as bench
from simpleipc_cli.cli.probe import run as probe
from simpleipc_cli.cli.serve import run as serve

VERBS = [
    ("probe", probe, "resolve_endpoint", ["probe"]),
    ("probe with click", probe, "resolve_endpoint", ["probe", "-d", ""]),
    ("bench", bench, "resolve_endpoint", ["bench", "-n", "1"]),
    ("serve", serve, "PidFile", ["serve", "--exec", "cat", "--pid-file", "pid"]),
]


@pytest.fixture(params=VERBS, ids=lambda verb: verb[0])
def failing(request, endpoint, folder, monkeypatch):
    """A function that runs a verb in which this error is raised."""
    _, module, name, arguments = request.param

    def run(error: Exception, *options: str, env=None):
        def allocate_something(*_):
            raise error

        monkeypatch.setattr(module, name, allocate_something)
        return run_cli(*arguments, *options, endpoint, env=env, cwd=folder)

    return run


def os_error(number: int, *more: str) -> OSError:
    return OSError(number, os.strerror(number), *more)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (os_error(errno.ENOMEM), ["Cannot allocate memory", ": free memory"]),
        (
            os_error(errno.EMFILE, "/some/file"),
            ["Too many open files", "'/some/file'", "ulimit -n"],
        ),
        (os_error(errno.EPIPE), ["Broken pipe", ": set SIPC_DEBUG=1 to see where"]),
    ],
    ids=["ENOMEM", "EMFILE", "EPIPE"],
)
def test_an_error_of_the_system_names_its_caller_its_object_and_a_matching_remedy(
    failing, error, words
):
    done = failing(error)
    assert_error_line(done, 1, "allocate_something", *words)
    assert b"standard output" not in done.stderr


def test_any_other_error_is_one_line_and_asks_for_a_report(failing):
    assert_error_line(failing(KeyError("some key")), 1, "unexpected KeyError: 'some key': please")


def test_a_traceback_is_shown_on_request(failing):
    done = failing(KeyError("some key"), env=environment(SIPC_DEBUG="1"))
    assert done.returncode == 1
    *traceback, line = done.stderr.decode().splitlines()
    assert traceback[0] == "Traceback (most recent call last):"
    assert any("allocate_something" in one for one in traceback)
    assert "unexpected KeyError: 'some key': please" in line


@pytest.mark.parametrize("error", [os_error(errno.EIO), KeyError("some key")], ids=repr)
@pytest.mark.parametrize("options", [[], ["-v"]], ids=["plain", "verbose"])
def test_the_log_has_the_error_that_ends_a_server_and_on_request_its_traceback(
    endpoint, folder, monkeypatch, error, options
):
    def allocate_something(*_):
        raise error

    monkeypatch.setattr(serve, "PidFile", allocate_something)
    arguments = ["--exec", "cat", "--pid-file", "pid", "--log-file", "log", *options]
    assert_error_line(run_cli("serve", endpoint, *arguments, cwd=folder), 1)
    log = (folder / "log").read_text()
    assert log.splitlines()[0].split(" ", 1)[1].startswith("sipc serve: ")
    assert ("Traceback (most recent call last):" in log) == bool(options)
    assert ("in allocate_something" in log) == bool(options)


@needs_strace[0]
@needs_strace[1]
def test_a_system_call_that_fails_is_not_reported_as_an_error_of_standard_output(endpoint):
    """The client waits for its input with poll(2)."""
    calls = SAME_CALLS["poll"]
    command = ["strace", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:error=ENOMEM", SIPC, "send", endpoint, "-m", "1h"]
    done = subprocess.run(
        command, input=b"", capture_output=True, env=environment(), timeout=TIMEOUT
    )
    assert_error_line(done, 1, "wait_until_ready", "Cannot allocate memory: free memory")
