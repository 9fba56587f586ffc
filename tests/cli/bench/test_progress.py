"""What `sipc bench` shows on a terminal."""

from __future__ import annotations

import io
from contextlib import contextmanager

import pytest
from helpers.command import SIPC
from helpers.scripted_server import RespondingServer
from helpers.terminal import terminal, terminal_environment
from helpers.waiting import TIMEOUT
from rich.console import Console

from simpleipc_cli.bench.generator import SECOND, LoadPlan
from simpleipc_cli.bench.processes import Progress
from simpleipc_cli.cli.bench.terminal import View


def lines_of(view: View) -> list[str]:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(view.draw())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("plan", "left"),
    [
        ({"duration": 10 * SECOND}, "2.0 s of 10.0 s"),
        ({"requests": 80}, "2.0 s, 50%"),
        ({"duration": 10 * SECOND, "requests": 80}, "2.0 s of 10.0 s, 50%"),
        ({}, "2.0 s"),
    ],
    ids=["time", "number", "both", "endless"],
)
def test_the_display_shows_the_progress_of_the_load(plan, left):
    view = View(LoadPlan("/run/x", **plan))
    view.add(Progress(38, 2, 2 * SECOND))
    assert lines_of(view)[1].endswith(f"  {left}")
    assert lines_of(view)[2] == "requests  38 answered, 2 failed"


def test_the_display_shows_the_rate_of_the_last_seconds():
    view = View(LoadPlan("/run/x", duration=60 * SECOND))
    for second in range(1, 21):
        answered = 10 * second if second <= 10 else 100 + 30 * (second - 10)
        view.add(Progress(answered, 0, second * SECOND))
    assert lines_of(view)[3] == "now       30/s"


@pytest.mark.parametrize("warmup", [0, SECOND])
def test_the_display_shows_that_the_load_has_not_started(warmup):
    view = View(LoadPlan("/run/x", duration=SECOND, warmup=warmup))
    view.add(Progress(0, 0, 0))
    assert lines_of(view)[1].endswith("warming up" if warmup else "starting")
    assert lines_of(view)[3] == "now       -"


@contextmanager
def bench_on_terminal(endpoint, *arguments, **more):
    """Run `sipc bench` on a terminal of 80 columns; return the program and the terminal."""
    with RespondingServer(endpoint), terminal() as tty:
        command = [SIPC, "bench", endpoint, *arguments]
        with tty.start(command, env=terminal_environment(**more)) as program:
            yield program, tty


def run_on_terminal(endpoint, *arguments, **more) -> tuple[str, int]:
    """Return what a terminal shows of a whole run, and the exit status."""
    with bench_on_terminal(endpoint, *arguments, **more) as (program, tty):
        status = program.wait(TIMEOUT)
        return tty.finish().decode(), status


def test_a_terminal_shows_progress_and_then_the_report_in_its_place(endpoint):
    with bench_on_terminal(endpoint, "-z", "1h") as (program, tty):
        tty.wait_for(b"answered")
        tty.type(b"\x03")
        assert program.wait(TIMEOUT) == 130
        shown = tty.finish().decode()
    assert "progress" in shown
    assert "\x1b[1m" in shown
    assert "\x1b[?25" not in shown, "a stopped program could not show the cursor again"
    left = tty.screen.text
    assert "progress" not in left
    assert left.count(str(endpoint)) == left.count("requests") == 1


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_a_terminal_without_colour_gets_plain_text(endpoint, more):
    shown, status = run_on_terminal(endpoint, "-n", "20", **more)
    assert status == 0
    assert "\x1b" not in shown
    assert "progress" not in shown


@pytest.mark.parametrize("mode", ["-tostop", "tostop"])
def test_bench_in_the_background_shows_no_progress_and_is_not_stopped(endpoint, mode):
    script = f'stty {mode}; set -m; "$@" >/dev/null & wait $!'
    with RespondingServer(endpoint), terminal() as tty:
        command = ["bash", "-c", script, "bash", SIPC, "bench", endpoint, "-n", "20"]
        with tty.start(command, env=terminal_environment()) as shell:
            assert shell.wait(TIMEOUT) == 0
        assert b"\x1b" not in tty.finish()  # bash may say that the job is done


def test_quiet_shows_nothing_on_a_terminal(endpoint):
    assert run_on_terminal(endpoint, "-n", "20", "-q") == ("", 0)
