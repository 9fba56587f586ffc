"""The command line in this process works as the installed command, and changes no state."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from functools import partial

import pytest
from helpers.command import environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import descriptors
from helpers.scripted_server import respond_with, scripted_server
from helpers.waiting import wait_until
from helpers.wire import message

ALIKE = [
    ["--version"],
    ["send", "--b\udcffgus"],
    ["send", "n\xfcne", "-d", "x"],  # without click
    ["send", "none", "-d", "x", "--stats"],
    ["probe", "none"],
    ["bench", "none"],
]


def seconds_removed(output: bytes) -> bytes:
    return b" ".join(word for word in output.split() if b"." not in word)


@pytest.mark.parametrize("arguments", ALIKE, ids=" ".join)
def test_a_command_in_this_process_ends_as_the_installed_command_does(folder, arguments):
    outcomes = []
    for run in (run_cli, sipc):
        done = run(*arguments, cwd=folder)
        output = [seconds_removed(stream) for stream in (done.stdout, done.stderr)]
        outcomes.append((done.returncode, *output))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1:] != (b"", b"")


@pytest.mark.parametrize("options", [[], ["--stats"]], ids=["without click", "with click"])
def test_a_command_in_this_process_reads_a_request_and_writes_a_response(endpoint, options):
    requests = []
    with scripted_server(endpoint, respond_with(message(b"\xffpong"), requests)):
        done = run_cli("send", endpoint, *options, input=b"\xffping")
    assert (done.returncode, done.stdout) == (0, b"\xffpong")
    assert requests == [b"0009\xffping0000"]


def test_a_command_in_this_process_has_the_given_environment_and_folder(endpoint):
    with scripted_server(endpoint, respond_with(message(b"pong"))):
        done = run_cli("send", env=environment(SIPC_PATH="sock"), cwd=endpoint.parent)
    assert (done.returncode, done.stdout) == (0, b"pong")


def test_a_command_in_this_process_restores_signals_streams_and_environment(folder, request):
    def state():
        handlers = [signal.getsignal(number) for number in signal.valid_signals()]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        streams = sys.stdin, sys.stdout, sys.stderr, sys.argv, sys.unraisablehook
        standard = [os.fstat(number)[:3] for number in range(3)]
        return handlers, mask, streams, standard, os._exit, dict(os.environ), os.getcwd()

    def handler(number, frame):
        pass

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        request.addfinalizer(partial(signal.signal, number, signal.getsignal(number)))
        signal.signal(number, handler)
    before = state()
    for arguments in ALIKE:
        run_cli(*arguments, cwd=folder)
        assert state() == before


@pytest.mark.parametrize(
    "options",
    [
        ["--data-file", "file"],
        ["--output", "/dev/null"],
        ["--output", "/dev/fd/2"],
        ["--trace-file", "trace"],
        ["--output", "file", "--expect", "other"],
    ],
    ids=" ".join,
)
def test_files_that_the_command_leaves_open_are_closed(endpoint, folder, options):
    (folder / "file").touch()
    with scripted_server(endpoint, respond_with(message(b"pong"))):
        before = Counter(descriptors(os.getpid()))
        run_cli("send", "sock", *options, cwd=folder)
        # The server may be about to close its connection.
        wait_until(lambda: not Counter(descriptors(os.getpid())) - before, "all to be closed")


def test_a_command_in_this_process_does_not_stop_a_timer_of_the_test_run(endpoint, request):
    before = signal.setitimer(signal.ITIMER_REAL, 1000)
    request.addfinalizer(partial(signal.setitimer, signal.ITIMER_REAL, *before))
    with scripted_server(endpoint, respond_with(message(b"pong"))):
        done = run_cli("probe", endpoint, "-d", "ping", "-t", "2000", "--expect-regex", "pong")
    assert done.returncode == 0
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
