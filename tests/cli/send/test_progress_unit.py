"""The display of progress, in this process: when it appears, and when it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

import pytest
from helpers.terminal import Screen, terminal, wait_for_bar
from helpers.waiting import wait_until

from simpleipc_cli import system
from simpleipc_cli.cli import output, stdio
from simpleipc_cli.cli.send import diagnostics
from simpleipc_cli.cli.send.diagnostics import Progress
from simpleipc_cli.observe import TransferStats


@pytest.fixture
def own_terminal(monkeypatch):
    """A terminal as standard error of the display."""
    with terminal() as tty:
        for module in (output, stdio):
            monkeypatch.setattr(module, "STDERR", tty.slave)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        yield tty


def test_the_display_appears_after_one_second():
    assert diagnostics.PROGRESS_AFTER == 1.0


@pytest.mark.parametrize("live", [True, False])
def test_an_exchange_of_less_than_a_second_is_not_shown_and_not_delayed(own_terminal, live):
    shown = Progress(TransferStats(), None, is_live=live, delay=1000.0)
    shown.start()
    shown.stop()
    assert not shown._thread.is_alive()
    assert own_terminal.finish() == b""


def test_a_display_that_an_option_requests_appears_at_once(own_terminal):
    shown = Progress(TransferStats(), None, is_live=True, delay=0.0)
    shown.start()
    shown.start()
    wait_for_bar(own_terminal)
    shown.stop()
    shown.stop()
    own_terminal.finish()
    assert own_terminal.screen.text == ""


@pytest.mark.parametrize("colour", [True, False])
def test_a_bar_that_an_option_requests_has_no_colour_if_no_color_is_set(
    own_terminal, monkeypatch, colour
):
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    shown = Progress(TransferStats(), 100, is_live=True, delay=0.0)
    shown.start()
    wait_for_bar(own_terminal)
    shown.stop()
    assert bool(re.search(rb"\x1b\[[\d;]*3\d", own_terminal.finish())) == colour


def test_without_a_thread_there_is_no_bar_and_no_error(own_terminal, monkeypatch):
    def no_thread(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    shown = Progress(TransferStats(), None, is_live=True, delay=0.0)
    shown.start()
    shown.stop()


def test_an_error_of_the_display_is_not_reported(own_terminal, monkeypatch):
    """An exception in a thread would be an error of this test."""

    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(diagnostics, "_new_bar", broken)
    shown = Progress(TransferStats(), None, is_live=True, delay=0.0)
    shown.start()
    wait_until(lambda: not shown._thread.is_alive(), "it to have failed")
    shown.stop()
    assert own_terminal.finish() == b""


JOBS = """
set -m
ask() {{ {python} -c "from simpleipc_cli.system import in_foreground as f; print(f(2))"; }}
ask >{folder}/background & wait
ask >{folder}/foreground
"""


def test_a_process_knows_whether_it_is_in_the_foreground(folder):
    with terminal() as tty:
        done = subprocess.run(
            ["setsid", "--ctty", "bash", "-c", JOBS.format(python=sys.executable, folder=folder)],
            stdin=tty.slave,
            stdout=tty.slave,
            stderr=tty.slave,
        )
        assert done.returncode == 0, tty.finish()
    found = [(folder / name).read_text() for name in ("background", "foreground")]
    assert found == ["False\n", "True\n"]


def test_a_process_in_the_background_draws_nothing(own_terminal, monkeypatch):
    asked = []
    foreground = threading.Event()

    def in_foreground(_terminal: int) -> bool:
        asked.append(own_terminal.output)
        return foreground.is_set()

    monkeypatch.setattr(system, "in_foreground", in_foreground)
    monkeypatch.setattr(diagnostics, "_REDRAW_INTERVAL", 0.01)
    shown = Progress(TransferStats(), None, is_live=True, delay=0.0)
    shown.start()
    wait_until(lambda: len(asked) > 5, "it to have asked")
    prompt = b"the prompt of a shell$ "
    os.write(own_terminal.slave, prompt)
    own_terminal.wait_for(prompt)  # so all that was written before is there, too
    assert own_terminal.output == prompt
    foreground.set()
    wait_for_bar(own_terminal)
    foreground.clear()
    before = len(asked)
    wait_until(lambda: len(asked) > before + 5, "it to have asked again")
    os.write(own_terminal.slave, prompt)
    shown.stop()
    assert own_terminal.finish().endswith(prompt), "what a shell has written is not removed"


def test_the_screen_of_these_tests_shows_the_same_as_a_terminal():
    screen = Screen().feed(b"one\r\ntwo\r\x1b[2K\x1b[1A\x1b[2Kthree\r\nfour")
    assert screen.text == "three\nfour"
