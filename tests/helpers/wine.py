"""Run sipc and other programs under Wine, in place of Windows.

Standard streams are always pipes: with a file or /dev/null Python does not start.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

from helpers.command import environment
from helpers.paths import TESTS
from helpers.procfs import all_processes, arguments
from helpers.server import LoggedProcess
from helpers.terminal import terminal
from helpers.waiting import TIMEOUT

HERE = TESTS / "windows"


def windows_path(path: Path) -> str:
    """Return the Windows name of a path, as programs under Wine know it."""
    return str(path) if str(path)[1:2] == ":" else "Z:" + str(path).replace("/", "\\")


def processes_with_argument(word: str) -> list[int]:
    """Find the processes with a word on their command line, those of Wine included."""
    return [pid for pid in all_processes() if word in arguments(pid)]


class Completed:
    """A program that has ended: its status and its output, with the line ends of Unix."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.raw = out
        self.out = out.replace(b"\r\n", b"\n").decode(errors="replace")
        self.err = err.replace(b"\r\n", b"\n").decode(errors="replace")


def ended(client, input=b""):  # noqa: A002 - as subprocess has it
    """Run a client to its end. Wine lets a process that keeps running inherit its stderr."""
    with client:
        client.stdin.write(input)
        client.stdin.close()
        out = client.stdout.read()
        client.wait(TIMEOUT)
        os.set_blocking(client.stderr.fileno(), False)
        return Completed(client.returncode, out, client.stderr.read() or b"")


def wine_environment(**more: str) -> dict[str, str]:
    """Return the environment, without the options of the pytest that runs this."""
    kept = environment(**more)
    kept.pop("PYTEST_ADDOPTS", None)
    return kept


class Wine:
    """Starts programs."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.words = words
        self.folder = folder
        self._settings = dict(word.split("=", 1) for word in words if "=" in word)
        # While a process holds this lock, Wine is in use, for example by another pytest worker.
        self._lock = os.open(self._prefix(), os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        # Started by a program of a test, Wine's own server would keep the streams of that one open,
        # and reading them would not end. Also, each test would start that server again.
        self._keeper = self.start("idle.py")
        self._keeper.stdout.readline()

    def start(self, script: str, *arguments: object, **more: str) -> subprocess.Popen[bytes]:
        """A Python script of this folder, all its standard streams pipes."""
        return subprocess.Popen(
            [*self.words, windows_path(HERE / script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=wine_environment(**more),
        )

    def run(
        self,
        script: str,
        *arguments: object,
        input: bytes = b"",  # noqa: A002 - as subprocess has it
        timeout: float = TIMEOUT,
        **more: str,
    ) -> Completed:
        """Run such a script to its end."""
        program = self.start(script, *arguments, **more)
        try:
            out, err = program.communicate(input, timeout)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{script} still runs: {late.stdout} {late.stderr}") from None
        finally:
            program.kill()
            program.wait()
        return Completed(program.returncode, out, err)

    def sipc(self, *arguments: object, **options) -> Completed:
        """Run sipc to its end."""
        return self.run("run_sipc.py", *arguments, **options)

    @contextmanager
    def server(self, *arguments: object):
        """Run `sipc serve` until it listens; kill it at the end, unless it has ended."""
        program = self.start("run_sipc.py", "serve", *arguments)
        server = LoggedProcess(program, f"serve {arguments}")
        try:
            server.wait_for_log("listening on")
            yield server
        finally:
            server.kill()

    @contextmanager
    def terminal(self, *arguments: object):
        """Run sipc on a terminal, which is its console; return the program and the terminal."""
        command = [*self.words, windows_path(HERE / "run_sipc.py"), *map(str, arguments)]
        with terminal() as tty:
            env = wine_environment(TERM="xterm")
            program = tty.start(command, cwd=self.folder, env=env)
            try:
                yield program, tty
            finally:
                program.kill()
                program.wait()

    def close(self) -> None:
        """End Wine and all its programs, unless other tests use it.

        A program of other tests that is killed here might exit with status 0.
        """
        self._keeper.kill()
        self._keeper.wait()
        for stream in (self._keeper.stdin, self._keeper.stdout, self._keeper.stderr):
            stream.close()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # the last of them ends it
        else:
            subprocess.run(
                ["wineserver", "-k"], env=wine_environment(**self._settings), check=False
            )
        os.close(self._lock)

    def _prefix(self) -> Path:
        """The folder with this Wine's files."""
        found = self._settings.get("WINEPREFIX") or os.environ.get("WINEPREFIX")
        folder = Path(found) if found else Path.home() / ".wine"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
