"""A signal that comes where Python loses what its handler raises still ends the program.

Python only reports what a callback raises, such as importlib's after an import, and its compiler
drops what comes up while it computes a large constant. So a `sitecustomize` module sends SIGTERM
at one call or return of a Python function, counted from the moment at which SIGTERM is handled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from helpers.command import SIPC, Program, environment
from helpers.server import Server
from helpers.waiting import TIMEOUT

SITECUSTOMIZE = """
import _signal
import _thread
import json
import operator
import os
import sys
from functools import partial

LIST, AT, IN_COMPILER, DELAY = (
    os.environ.get(f"TEST_{name}") for name in ("LIST", "AT", "IN_COMPILER", "DELAY")
)
SOURCE = "x = 1; " * 100 + "x = 2**31"
names = []


def on_event(frame, event, argument):
    if _signal.getsignal(_signal.SIGTERM) == _signal.SIG_DFL:
        return
    if event in ("call", "return"):
        names.append(frame.f_code.co_qualname)
        if len(names) == int(AT or 0):
            sys.setprofile(None)
            if DELAY:
                sys.modules["simpleipc_cli.cli"]._RESEND_DELAY = float(DELAY)
            send()
    elif LIST and argument is os.write:  # "listening on ..."
        sys.setprofile(None)
        with open(LIST, "w") as file:
            json.dump(names, file)


def send():
    if not IN_COMPILER:
        os.kill(os.getpid(), _signal.SIGTERM)
    else:  # without a bytecode in between, at which Python would look for signals
        arrive = partial(_thread.interrupt_main, _signal.SIGTERM)
        list(map(operator.call, [arrive, partial(compile, SOURCE, "x", "exec")]))


if "sipc" in " ".join(sys.orig_argv[1:2]):
    sys.setprofile(on_event)
"""

CALLBACK = "_get_module_lock.<locals>.cb"  # importlib's
WRAPPED = "Field.__set_name__"  # of dataclasses: Python 3.11 puts a RuntimeError in its place
PARTS = 8

VERBS = {
    "serve": ["serve", "--exec", "cat", "--drain-timeout", "0"],  # as Server does
    "send": ["send", "--wait", "1h", "-d", "x"],
    "send with click": ["send", "--wait", "1h", "-d", "x", "--trace"],
    "probe": ["probe", "--wait", "1h"],
}


@pytest.fixture
def variables(folder):
    """An environment in which programs load that module."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return environment(PYTHONPATH=str(folder / "site"))


@pytest.fixture
def start(folder, variables) -> list[str]:
    """The functions that a server calls and returns from, until it listens."""
    names = folder / "names"
    with Server(folder / "first", "cat", env={**variables, "TEST_LIST": str(names)}):
        return json.loads(names.read_text())


def signalled(verb: str, folder, variables, at: int, **more: str) -> tuple[int, str]:
    """Return the status of a program that gets SIGTERM at this event, and its output.

    It leaves no file and no process.
    """
    endpoint = folder / "sock"
    env = {**variables, "TEST_AT": str(at), **more}
    with Program([SIPC, *VERBS[verb], endpoint], stderr=subprocess.PIPE, env=env) as program:
        _, said = program.communicate(timeout=TIMEOUT)
    left = [name for name in os.listdir(folder) if name.startswith((endpoint.name, ".sipc-"))]
    assert left == [], f"at {at}"
    return program.returncode, said.decode().replace(f"listening on {endpoint}\n", "")


def spread(points: Sequence[int], count: int) -> Sequence[int]:
    return points[:: max(1, len(points) // count)]


ENDS = [(143, ""), (0, "")]
"""How a server ends; with 0 if the signal was sent again when it listened, or was about to."""


def assert_each_ends_a_server(points: list[int], folder, variables) -> None:
    for at in points:
        assert signalled("serve", folder, variables, at) in ENDS, f"at event {at}"


def events(names: list[str], wanted: str) -> list[int]:
    return [at for at, name in enumerate(names, 1) if name == wanted]


def test_a_signal_at_any_point_of_the_start_ends_the_server(folder, start, variables):
    everything = range(1, len(start))
    lost = events(start, CALLBACK)
    wrapped = events(start, WRAPPED)
    assert lost
    points = [*lost[:4], *spread(lost[4:-4], 4), *lost[-4:], *wrapped[:1], *spread(everything, 7)]
    assert_each_ends_a_server(points, folder, variables)


def test_a_lost_signal_is_sent_again_to_a_server_that_already_listens(folder, start, variables):
    at = events(start, CALLBACK)[-1]
    assert signalled("serve", folder, variables, at, TEST_DELAY="1") in ENDS


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
def test_a_signal_at_every_point_of_the_start_ends_the_server(folder, start, variables, part):
    points = sorted({*events(start, CALLBACK), *range(1, len(start), 199)})
    assert_each_ends_a_server(points[part::PARTS], folder, variables)


@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_whose_exception_the_compiler_drops_ends_every_verb(folder, variables, verb):
    done = signalled(verb, folder, variables, 100, TEST_IN_COMPILER="yes")
    assert done in (ENDS if verb == "serve" else ENDS[:1])


CLEANUP = """
import signal, sys
from simpleipc_cli import cli

def run():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        while signal.getitimer(signal.ITIMER_REAL)[0]:  # until the first one has come again
            pass
        print("cleaned up")

sys.exit(cli._status("probe", run))
"""


def test_a_second_signal_does_not_interrupt_the_cleanup():
    command = [sys.executable, "-c", CLEANUP]
    done = subprocess.run(command, env=environment(), capture_output=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"cleaned up\n", b"")
