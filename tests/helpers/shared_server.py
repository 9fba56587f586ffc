"""One `sipc serve` for all tests of a module that only send requests."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from helpers.procfs import children, processes
from helpers.server import Server
from helpers.spawning import end
from helpers.waiting import wait_until
from helpers.wire import wait_until_accepted
from helpers.workers import WorkerServer


class SharedServer(Server):
    """A server for several tests, one after another, each with its own handler.

    The server's command reads a file, which each test writes.
    """

    def __init__(self, folder: Path, *options) -> None:
        self._logged = 0  # requests in the log of the tests before
        self._script = folder / "handler"
        self._script.touch()
        super().__init__(folder / "sock", f". {self._script}", *options)

    def set_handler(self, command: str) -> None:
        """Answer requests with this command from now on."""
        self._script.write_text(command)

    def kill(self) -> None:
        """End the server and all its handlers at once."""
        for pid in processes(self.mark):
            end(pid, signal.SIGKILL)
        self.wait()

    def end_test(self) -> None:
        """Check that a test has left no process or connection; skip the log of the test."""
        assert self.process.poll() is None, self.log
        wait_until_accepted(self.path)  # else a connection may appear in the next test
        self.wait_until_idle()
        counted = wait_until(self._counters_at_rest, "the end of every request")
        self._check_processes()
        ended = counted["answered"] + counted["failed"]
        if ended > self._logged:  # a worker thread logs a request after it was counted
            self.wait_for_log(r"^\d+-\d+ pid=", ended - self._logged)
        assert "Traceback" not in self.log
        self._logged = ended
        self._lines.clear()

    def _counters_at_rest(self) -> dict[str, int] | None:
        counted = self.counters()
        return None if counted["in_flight"] + counted["queued"] + counted["idle"] else counted

    def _check_processes(self) -> None:
        wait_until(lambda: set(processes(self.mark)) == {self.pid}, "no process of a handler left")


class SharedWorkerServer(WorkerServer, SharedServer):
    """A server whose worker, or its replacement, answers the requests of several tests."""

    def __init__(self, folder: Path, worker: str, *options) -> None:
        self._logged = 0
        options = (*options, "--threads", 1)
        Server.__init__(self, folder / "sock", None, "--worker", worker, *options)

    def _check_processes(self) -> None:
        """Check nothing: the worker keeps running, and a replaced one may exit late."""


class SharedWorkerScripts(SharedWorkerServer):
    """A server whose worker runs the script that each test writes into a file.

    The worker of a test is stopped at the end of the test.
    """

    def __init__(self, folder: Path, *options) -> None:
        self._script = folder / "worker"
        self._script.touch()
        super().__init__(folder, f". {self._script}", *options)

    def _check_processes(self) -> None:
        for pid in processes(self.mark):
            if pid != self.pid:
                end(pid, signal.SIGKILL)
        wait_until(lambda: set(processes(self.mark)) == {self.pid}, "no worker left")
        # The server reaps a worker after it has logged its end, and logs the counters after that.
        wait_until(lambda: not children(self.pid), "every worker to be reaped")
        self.counters()


class SharedServers:
    """The shared servers of a module; the end of the `with` stops them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[tuple[object, ...], SharedServer] = {}
        self._used: set[tuple[object, ...]] = set()
        self._started = 0

    def get(self, start: Callable[..., SharedServer], *arguments) -> SharedServer:
        """Return the server that was started with these arguments, or start it."""
        key = (start, *arguments)
        if key not in self._servers:
            folder = self._folder / str(self._started)
            folder.mkdir()
            self._started += 1
            self._servers[key] = start(folder, *arguments)
        self._used.add(key)
        return self._servers[key]

    def end_test(self) -> None:
        """Check the servers that the test has used; end one that the test has broken."""
        while self._used:
            key = self._used.pop()
            try:
                self._servers[key].end_test()
            except BaseException:
                self._servers.pop(key).kill()
                raise

    def __enter__(self) -> SharedServers:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            with server:
                pass
