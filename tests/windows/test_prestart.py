"""`serve --prestart` under Wine: handlers that start before their requests."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from helpers.waiting import TIMEOUT, wait_until
from helpers.wine import HERE, processes_with_argument, windows_path


@pytest.fixture
def path(folder):
    return windows_path(folder / "sock")


@pytest.fixture
def starts(folder):
    """A folder with a file for each handler; see prestarted.py."""
    (folder / "starts").mkdir()
    return folder / "starts"


@pytest.fixture
def ahead(wine, starts):
    """The command of a handler that creates files."""
    script = windows_path(HERE / "prestarted.py")
    return f'"{windows_path(wine.words[-1])}" "{script}" "{windows_path(starts)}"'


@contextmanager
def ending(wine, path, *options):
    """A server that ends in order: killed just when it starts a handler, it would leave that.

    A process is started first, and only then put into the job that ends with the server.
    """
    options = ("--quit-on", "quit", "--kill-after", "0", *options)
    with wine.server(path, *options) as server:
        yield server
        wine.sipc("send", path, "-d", "quit")
        assert server.wait() == 0


def numbers(starts, count):
    """Wait for a number of handlers; return their process ids."""

    def found():
        names = [file.name for file in starts.iterdir() if not file.suffix]
        return len(names) >= count and names

    return wait_until(found, f"{count} handlers")


def test_a_prestarted_handler_is_started_before_each_request(wine, path, starts, ahead):
    with ending(wine, path, "--prestart", "2", "--exec", ahead) as server:
        for count in (2, 3, 4):
            ready = numbers(starts, count)
            pid, word, its_path, peer = wine.sipc("send", path, "-d", "hello").out.split()
            assert pid in ready
            assert (word, its_path, peer) == ("hello", path, "None")
        assert len(numbers(starts, 5)) == 5, "each is used once"
    assert "ended before" not in server.log


def test_a_request_without_a_prestarted_handler_starts_one(wine, path, starts, ahead):
    """Handlers started for a request know the client's process id."""
    with ending(wine, path, "--prestart", "1", "--threads", "2", "--exec", ahead):
        numbers(starts, 1)
        holds = wine.start("pipe_client.py", "hang", path, "0005x")
        assert holds.stdout.readline().strip() == b"sent"
        wait_until(lambda: list(starts.glob("*.begun")), "the handler to have a request")
        _, word, its_path, peer = wine.sipc("send", path, "-d", "hello").out.split()
        assert (word, its_path) == ("hello", path)
        assert int(peer) > 0
        holds.communicate(timeout=TIMEOUT)
        assert wine.sipc("send", path, "-d", "hello").status == 0


def test_a_prestarted_handler_may_respond_without_reading(wine, path, starts, ahead):
    with ending(wine, path, "--prestart", "2", "--exec", f"{ahead} unread"):
        for count in (2, 3, 4, 5):
            numbers(starts, count)
            ran = wine.sipc("send", path, "-d", "ping")
            assert (ran.status, ran.out.strip()) == (0, "pong")
        assert len(numbers(starts, 6)) == 6, "each has been used"


def test_prestarted_handlers_that_have_failed_are_not_used(wine, path):
    with ending(wine, path, "--prestart", "1", "--exec", "exit 3") as server:
        server.wait_for_log("ended before its request: exit status 3")
        assert wine.sipc("send", path, "-d", "ping").status == 7


def test_no_prestarted_handler_outlives_the_server(wine, path, starts, ahead):
    options = ("--prestart", "2", "--quit-on", "quit", "--kill-after", "0")

    def handlers():
        return processes_with_argument(windows_path(starts))

    with wine.server(path, *options, "--exec", ahead) as server:
        numbers(starts, 2)
        assert handlers()
        wine.sipc("send", path, "-d", "quit")
        assert server.wait() == 0
        wait_until(lambda: not handlers(), "the handlers to be gone")
    with wine.server(path, *options, "--exec", ahead) as server:
        numbers(starts, 4)
        server.process.kill()
        wait_until(lambda: not handlers(), "the handlers to be gone")
