"""Run servers as processes and watch them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import uuid
from collections import Counter
from pathlib import Path

from helpers.command import SIPC, environment
from helpers.procfs import MARK, children, descriptors, processes, threads, waits_for_events
from helpers.report import show_on_failure
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import is_listening


class LoggedProcess:
    """A running program whose standard error, a pipe, is collected line by line."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.process = process
        self.pid = process.pid
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        shown = name.encode(errors="backslashreplace").decode()  # for the report of a worker
        show_on_failure(f"log of {shown}", lambda: self.log, lambda: process.poll() is None)

    def _read(self) -> None:
        for line in self.process.stderr:
            self._lines.append(line.decode(errors="replace").rstrip("\r\n"))

    @property
    def log(self) -> str:
        return "\n".join(self._lines)

    def wait_for_log(self, pattern: str, count: int = 1) -> str:
        """Wait until `count` lines match; return the last of them."""

        def last_match():
            # Before the lines: it may write the last ones, and end, in between.
            has_ended = self.process.poll() is not None and not self._reader.is_alive()
            found = [line for line in list(self._lines) if re.search(pattern, line)]
            if len(found) >= count:
                return found[-1]
            assert not has_ended, self.log
            return None

        return wait_until(last_match, f"{count} x {pattern!r} in the log:\n{self.log}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait until the process has ended and its log is read; return the exit status."""
        status = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    def kill(self) -> None:
        """Kill the process, unless it has ended, and read the rest of its log."""
        self.process.kill()
        self.wait()


class Server(LoggedProcess):
    """A running `sipc serve`. The end of the `with` checks that no process or file is left.

    Its drain has no time limit, unless an option sets one.
    """

    def __init__(
        self, path, command: str | None, *options, wrapper=(), program=(SIPC,), **popen
    ) -> None:
        self.path = str(path)
        self.mark = uuid.uuid4().hex
        popen["env"] = {**popen.get("env", environment()), MARK: self.mark}
        arguments = [*wrapper, *program, "serve", self.path]
        if command is not None:
            arguments += ["--exec", command]
        if "--drain-timeout" not in options:
            options = (*options, "--drain-timeout", "0")
        super().__init__(
            subprocess.Popen(
                [*arguments, *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                **popen,
            ),
            self.path,
        )
        try:
            if {"-q", "--log-file", "--log-format"} & set(options):
                wait_until(self._listens, "it to listen")
                # Not both at once: the check itself wakes the server.
                # With --call, the main thread is not the one that waits.
                wait_until(self._is_waiting_for_events, "it to wait")
            else:
                self.wait_for_log(f"^listening on {re.escape(self.path)}")  # not "another ..."
        except BaseException:
            self.kill()
            raise
        self.open_at_start = descriptors(self.pid)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log
        return is_listening(self.path)

    def _is_waiting_for_events(self) -> bool:
        return any(waits_for_events(thread) for thread in threads(self.pid))

    def counters(self) -> dict[str, int]:
        """Return the counters that the server logs after SIGUSR1; check their sums."""
        before = len(re.findall(r"^counters:", self.log, re.M))
        self.signal(signal.SIGUSR1)
        line = self.wait_for_log(r"^counters:", before + 1)
        found = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}
        assert found["accepted"] == sum(
            found[name]
            for name in ("requests", "closed_without_data", "refused", "idle_closed", "idle")
        )
        return found

    def counters_at_rest(self) -> dict[str, int]:
        """Wait until all requests are counted: after the response, it may take a time."""

        def ended() -> dict[str, int] | None:
            found = self.counters()
            return None if found["in_flight"] + found["queued"] else found

        return wait_until(ended, "every request to be counted")

    def connections(self) -> list[str]:
        """Sockets that were not open at the start. The server may open a file at any time."""
        found = [name for name in descriptors(self.pid) if name.startswith("socket:")]
        return [name for name in found if name not in self.open_at_start]

    def wait_until_accepted(self, count: int) -> None:
        """Wait until it has this many connections, and waits for what they send."""
        wait_until(lambda: len(self.connections()) == count, f"{count} connections")
        self.counters()  # the server writes them after it has handled the connections

    def wait_until_idle(self) -> None:
        """Wait until all handlers and connections have ended, or the server has ended."""

        def is_idle() -> bool:
            # A client may have been connected at the first check.
            left = Counter(descriptors(self.pid)) - Counter(self.open_at_start)
            return not children(self.pid) and not left

        wait_until(is_idle, f"no handler, and no descriptors but {self.open_at_start}")

    def stop(self) -> int:
        self.signal()
        return self.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind, *_: object) -> None:
        is_idle = False
        try:
            if kind is None and self.process.poll() is None:
                self.wait_until_idle()
            is_idle = kind is None
        finally:
            self.signal()  # nothing if it has ended
            if not is_idle:
                self.signal(signal.SIGINT)  # a second signal ends its handlers
            self.wait()
        if kind is None:
            self.check_nothing_left()

    def check_nothing_left(self) -> None:
        wait_until(lambda: not processes(self.mark), f"no process left: {processes(self.mark)}")
        folder = Path(self.path).parent
        left = [name for name in os.listdir(folder) if re.search(r"\.sipc-|\.lock$", name)]
        assert not left
        assert "Traceback" not in self.log
