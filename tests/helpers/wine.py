"""Programs under Wine: sipc as Windows users have it, as far as Wine is Windows.

Standard streams are always pipes: with a file or /dev/null Python does not start there.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import threading
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from helpers.command import environment
from helpers.paths import TESTS

HERE = TESTS / "windows"
TIMEOUT = 90.0
"""Seconds after which a program is given up: before pytest gives up the test."""


def windows_path(path: Path) -> str:
    """A path of ours as Windows programs under Wine know it."""
    return str(path) if str(path)[1:2] == ":" else "Z:" + str(path).replace("/", "\\")


def processes_with_argument(word: str) -> list[int]:
    """What runs with a word on its command line: all that Wine runs are processes here, too."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words:
            found.append(int(entry.name))
    return found


class Completed:
    """A program that has ended: status, and what it wrote, with line ends as ours."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.raw = out
        self.out = out.replace(b"\r\n", b"\n").decode(errors="replace")
        self.err = err.replace(b"\r\n", b"\n").decode(errors="replace")


def wine_environment(**more: str) -> dict[str, str]:
    """The environment, without what is meant for the pytest that runs here."""
    kept = environment(**more)
    kept.pop("PYTEST_ADDOPTS", None)
    return kept


class Wine:
    """Starts programs."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.words = words
        self.folder = folder
        self._settings = dict(word.split("=", 1) for word in words if "=" in word)
        # As long as anybody has this lock, Wine is in use: other tests may run here, too.
        self._lock = os.open(self._prefix(), os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        # Started by a program of a test, Wine's own server would keep that one's streams open:
        # nobody could read them to their end. And it would be started again and again.
        self._keeper = self.start("keeper.py")
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
        """The same, to its end."""
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
        """sipc, to its end."""
        return self.run("sipc_there.py", *arguments, **options)

    @contextmanager
    def server(self, *arguments: object):
        """`sipc serve` that listens; killed in the end, if it has not ended by itself."""
        serving = WineServer(self.start("sipc_there.py", "serve", *arguments))
        try:
            serving.wait_for("listening on")
            yield serving
        finally:
            serving.kill()

    @contextmanager
    def terminal(self, *arguments: object):
        """sipc on a terminal, which is a console to it."""
        master, slave = pty.openpty()
        command = [*self.words, windows_path(HERE / "sipc_there.py"), *map(str, arguments)]
        program = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=self.folder,
            env=wine_environment(TERM="xterm"),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(slave)
        on = Terminal(program, master)
        try:
            yield on
        finally:
            program.kill()
            program.wait()
            os.close(master)

    def close(self) -> None:
        """End Wine itself, and with it all that it runs, unless others use it.

        What of theirs was killed here would end with status 0 as often as not.
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
        """Where this Wine keeps what is its own."""
        found = self._settings.get("WINEPREFIX") or os.environ.get("WINEPREFIX")
        folder = Path(found) if found else Path.home() / ".wine"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, program: subprocess.Popen[bytes], master: int) -> None:
        self.program = program
        self._master = master
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until a text is shown."""
        end = monotonic() + TIMEOUT
        while text not in self.shown:
            assert monotonic() < end, self.shown
            self._read()

    def type(self, keys: str) -> None:
        """As if somebody did."""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Read to its end; its status."""
        end = monotonic() + TIMEOUT
        while self.program.poll() is None:
            assert monotonic() < end, self.shown
            self._read()
        return self.program.returncode

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.1)[0]:
            try:
                self.shown += os.read(self._master, 4096).decode(errors="replace")
            except OSError:
                pass  # nobody has its other end any more


class WineServer:
    """A running server, whose standard error is collected."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self.program = program
        self.said = ""
        self._more = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self.program.stderr:
            with self._more:
                self.said += line.decode(errors="replace").replace("\r", "")
                self._more.notify_all()
        with self._more:
            self._over = True
            self._more.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until it has said something."""
        with self._more:
            self._more.wait_for(lambda: text in self.said or self._over, TIMEOUT)
            assert text in self.said, self.said

    def end(self) -> int:
        """Wait for its end; its status."""
        status = self.program.wait(TIMEOUT)
        self._thread.join(TIMEOUT)
        return status

    def kill(self) -> None:
        """End it at once, and hear it out."""
        self.program.kill()
        self.program.wait()
        self._thread.join(TIMEOUT)
        for stream in (self.program.stdin, self.program.stdout, self.program.stderr):
            stream.close()
