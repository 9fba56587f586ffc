"""One `sipc serve` for the tests of a module that only ask it something.

Each test gives it a handler of its own: the server's command reads a file, which the test writes.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from helpers.procfs import processes
from helpers.server import Server
from helpers.waiting import wait_until


class SharedServer(Server):
    """A server that several tests ask, one after the other."""

    def __init__(self, folder: Path, *options) -> None:
        self._script = folder / "handler"
        self._script.touch()
        self._logged = 0  # requests in the log of the tests before
        super().__init__(folder / "sock", f". {self._script}", *options)

    def set_handler(self, command: str) -> None:
        """Answer the requests that come from now on with this command."""
        self._script.write_text(command)

    def counters(self) -> dict[str, int]:
        """Return what SIGUSR1 makes the server log."""
        before = len(re.findall(r"^counters:", self.log, re.M))
        self.signal(signal.SIGUSR1)
        line = self.wait_for_log(r"^counters:", before + 1)
        return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}

    def kill(self) -> None:
        """End the server and all its handlers at once."""
        for pid in processes(self.mark):
            os.kill(pid, signal.SIGKILL)
        self._join()

    def end_test(self) -> None:
        """Check that a test has left nothing in the server, and forget the log of the test."""
        assert self.process.poll() is None, self.log
        self.wait_until_idle()
        wait_until(lambda: set(processes(self.mark)) == {self.pid}, "no process of a handler left")
        counted = self.counters()
        assert counted["in_flight"] == counted["waiting"] == counted["silent"] == 0, self.log
        ended = counted["answered"] + counted["failed"]
        if ended > self._logged:  # a worker thread logs a request after it was counted
            self.wait_for_log(r"^\d+-\d+ pid=", ended - self._logged)
        assert "Traceback" not in self.log
        self._logged = ended
        self._lines.clear()


class SharedServers:
    """The shared servers of a module, by their options; leaving the `with` ends them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[tuple[str, ...], SharedServer] = {}
        self._used: set[tuple[str, ...]] = set()
        self._started = 0

    def get(self, command: str, *options) -> SharedServer:
        """Return a server with these options that answers with this command."""
        key = tuple(map(str, options))
        if key not in self._servers:
            folder = self._folder / str(self._started)
            folder.mkdir()
            self._started += 1
            self._servers[key] = SharedServer(folder, *key)
        self._used.add(key)
        self._servers[key].set_handler(command)
        return self._servers[key]

    def end_test(self) -> None:
        """Check the servers that the test has used; end one that a test has broken."""
        for key in sorted(self._used):
            self._used.discard(key)
            server = self._servers[key]
            try:
                server.end_test()
            except BaseException:
                del self._servers[key]
                server.kill()
                raise

    def __enter__(self) -> SharedServers:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            with server:
                pass
