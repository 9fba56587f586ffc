"""A terminal for tests, and the text that it shows for a program's output."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import threading
from contextlib import contextmanager

from helpers.command import Program, environment
from helpers.report import show_on_failure
from helpers.waiting import TIMEOUT, wait_until

BAR = re.compile(r"^sent +\S", re.M)
"""The first line of a progress bar."""

_CUT_OFF = re.compile(r"\x1b(\[[?\d;]*)?$")  # by where a read happened to end
_PIECE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b(.)|([\r\n\b])|([^\x1b\r\n\b]+)", re.S)


class Screen:
    """The lines on a terminal of 80 columns, from the bytes that were written to it.

    Supports the escape sequences that rich uses, and fails for all others.
    """

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0
        self.cursor_shown = True

    def feed(self, data: bytes) -> Screen:
        whole = _CUT_OFF.sub("", data.decode(errors="ignore"))
        for numbers, command, odd, control, text in _PIECE.findall(whole):
            assert not odd, f"ESC {odd!r}"
            if text:
                self._write(text)
            elif control:
                self._control(control)
            else:
                self._command(command, numbers)
        return self

    def _write(self, text: str) -> None:
        assert text.isprintable(), text
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.column += len(text)
        while self.column > 80:  # the rest is on the next line
            rest = self.lines[self.row][80:]
            self.lines[self.row] = self.lines[self.row][:80]
            self._control("\n")
            self.lines[self.row] = rest
            self.column = len(rest)

    def _control(self, control: str) -> None:
        if control == "\n":
            self.row += 1
            self.column = 0
            if self.row == len(self.lines):
                self.lines.append("")
        elif control == "\r":
            self.column = 0
        else:
            self.column -= 1

    def _command(self, command: str, numbers: str) -> None:
        match command, numbers:
            case "m", _:
                pass
            case "A", _:
                self.row -= int(numbers or 1)
                assert self.row >= 0, "above the first line"
            case "K", "2":
                self.lines[self.row] = ""
            case "K", "" | "0":
                self.lines[self.row] = self.lines[self.row][: self.column]
            case (("h" | "l"), "?25"):
                self.cursor_shown = command == "h"
            case _:
                raise AssertionError(f"ESC [ {numbers} {command}")

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()


class Terminal:
    """A real pseudo-terminal; what is written to it is kept."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.output = b""
        self._reader: threading.Thread | None = None
        show_on_failure("screen", lambda: self.screen.text, lambda: self.master >= 0)

    def start_reading(self) -> None:
        stopping, self._stop = os.pipe()
        self._reader = threading.Thread(target=self._read, args=(stopping,), daemon=True)
        self._reader.start()

    def _read(self, stopping: int) -> None:
        """Read until all others have closed it, or hang_up() closes the pipe to `stopping`."""
        poll = select.poll()
        poll.register(stopping, 0)
        poll.register(self.master, select.POLLIN)
        try:
            while stopping not in dict(poll.poll()):
                self.output += os.read(self.master, 65536)
        except OSError:
            pass  # all others have closed it
        finally:
            os.close(stopping)

    def close_slave(self) -> None:
        """Close this process's descriptor; reading ends when the other processes end."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def finish(self) -> bytes:
        """Wait until no process has it open; return all that was written to it."""
        self.close_slave()
        if self._reader is not None:
            self._reader.join(TIMEOUT)
            assert not self._reader.is_alive(), "a process still has the terminal open"
        return self.output

    def hang_up(self) -> None:
        """Close it from the other side: writing to it fails from now on."""
        if self.master >= 0:
            if self._reader is not None:  # a call that reads would keep it open
                os.close(self._stop)
                self._reader.join(TIMEOUT)
            os.close(self.master)
            self.master = -1

    def close(self) -> None:
        self.close_slave()
        self.hang_up()

    def become_controlling(self) -> None:
        """For a child that leads a session: Ctrl-C typed here reaches it."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def start(self, command, **options) -> Program:
        """Start a program in a new session, with this as its controlling terminal.

        Ctrl-C typed here sends it SIGINT. When it ends, reading ends.
        """
        program = Program(
            ["setsid", "--ctty", *map(str, command)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            **options,
        )
        self.close_slave()
        return program

    def wait_for(self, text: bytes) -> None:
        """Wait until a text has been written."""
        wait_until(lambda: text in self.output, f"{text!r} on the terminal")

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    @property
    def screen(self) -> Screen:
        return Screen().feed(self.output)


@contextmanager
def terminal(*, reading: bool = True):
    """A terminal that is read, unless `reading` is false; closed in the end."""
    opened = Terminal()
    if reading:
        opened.start_reading()
    try:
        yield opened
    finally:
        opened.close()


def terminal_environment(**more: str) -> dict[str, str]:
    """An environment that allows a live display."""
    plain = environment(**{"TERM": "xterm-256color", **more})
    return {
        name: value
        for name, value in plain.items()
        if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"} or name in more
    }


def wait_for_bar(tty) -> str:
    return wait_until(lambda: BAR.search(text := tty.screen.text) and text, "a bar")
