"""What the tests share: the installed `sipc`, servers under watch, and clients made by hand.

The clients here know the protocol on their own: tests must not trust the code they test.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import pytest

SIPC = str(Path(sys.executable).with_name("sipc"))
PATIENCE = 30.0
"""Seconds after which a test gives up on a state. Never reached when all is well."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, or mounts: root")

MARK = "SIPC_TEST_MARK"
MAX_PAYLOAD = 65516


def wait_until(state, what: str, patience: float = PATIENCE):
    """Wait for a state; what it returned, once that is true."""
    ticks = threading.Event()
    end = monotonic() + patience
    while monotonic() < end:
        if found := state():
            return found
        ticks.wait(0.005)
    raise AssertionError(f"not within {patience} s: {what}")


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would lead sipc elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"SIPC_PATH", "XDG_RUNTIME_DIR", "LISTEN_FDS", "NOTIFY_SOCKET"}
    }
    return {**kept, "PATH": f"{Path(SIPC).parent}:{kept['PATH']}", **more}


def sipc(*arguments, input: bytes = b"", **options) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
    """Run the installed sipc to its end."""
    options.setdefault("env", environment())
    options.setdefault("timeout", 120)
    return subprocess.run([SIPC, *map(str, arguments)], input=input, capture_output=True, **options)


def processes(mark: str) -> dict[int, str]:
    """Processes that inherited a mark, zombies too, with their state."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = entry.joinpath("stat").read_text().rpartition(")")[2]
            except OSError:
                pass
    return found


def children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += (task / "children").read_text().split()
        except FileNotFoundError:
            pass  # a thread that has just ended; its children are another's now
    return [int(child) for child in found]


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            pass
    return sorted(links)


_CALLS = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "poll": 7,
        "readv": 19,
        "connect": 42,
        "recvfrom": 45,
        "futex": 202,
        "epoll_wait": 232,
        "clock_nanosleep": 230,
    },
    "aarch64": {
        "read": 63,
        "write": 64,
        "poll": 73,
        "readv": 65,
        "futex": 98,
        "epoll_wait": 22,
        "connect": 203,
        "recvfrom": 207,
        "clock_nanosleep": 115,
    },
}


def sleeps_in(pid: int, call: str) -> bool:
    """Whether a process waits in a system call."""
    try:
        number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except OSError:
        return False
    return number == str(_CALLS[os.uname().machine][call])


def is_at_rest(pid: int) -> bool:
    """Whether all threads of a process wait for something to happen, or for each other."""
    tasks = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return all(sleeps_in(task, "epoll_wait") or sleeps_in(task, "futex") for task in tasks)


def waits_for_room(pid: int) -> bool:
    """Whether a process waits, with epoll(7), until it can write something."""
    return any(
        int(found[1], 16) & select.EPOLLOUT
        for file in Path(f"/proc/{pid}/fdinfo").iterdir()
        for found in re.finditer(r"^tfd:.* events: *([0-9a-f]+)", file.read_text(), re.M)
    )


def halt(pid: int) -> None:
    """Stop a process, and wait until it stands still: a signal takes its time."""
    os.kill(pid, signal.SIGSTOP)

    def stands_still():
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return all(
            (task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt" for task in tasks
        )

    wait_until(stands_still, "it to stand still")


def peak_memory(pid: int) -> int:
    """The most memory a process has used so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


class Server:
    """A running `sipc serve`; leaving the `with` checks that nothing is left of it."""

    def __init__(
        self, path, command: str | None, *options, wrapper=(), program=(SIPC,), **popen
    ) -> None:
        self.path = str(path)
        self.mark = uuid.uuid4().hex
        popen["env"] = {**popen.get("env", environment()), MARK: self.mark}
        arguments = [*wrapper, *program, "serve", self.path]
        if command is not None:
            arguments += ["--exec", command]
        self.process = subprocess.Popen(
            [*arguments, *map(str, options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **popen,
        )
        self.pid = self.process.pid
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            if {"-q", "--log-file", "--log-format"} & set(options):
                wait_until(self._listens, "it to listen")
            else:
                self.wait_for_log(f"^listening on {re.escape(self.path)}")  # not: another one is
        except BaseException:
            self.process.kill()
            self._join()
            raise
        self.open_at_start = descriptors(self.pid)

    def _read(self) -> None:
        for line in self.process.stderr:
            self._lines.append(line.decode(errors="replace").rstrip("\n"))

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            connect(self.path).close()
        except OSError:
            return False
        return "anon_inode:[eventpoll]" in descriptors(self.pid)  # the last that it opens

    @property
    def log(self) -> str:
        return "\n".join(self._lines)

    def wait_for_log(self, pattern: str, count: int = 1) -> str:
        """Wait until so many lines match; the last of them."""

        def enough():
            found = [line for line in list(self._lines) if re.search(pattern, line)]
            if len(found) >= count:
                return found[-1]
            assert self.process.poll() is None or self._reader.is_alive(), self.log
            return None

        return wait_until(enough, f"{count} x {pattern!r} in the log:\n{self.log}")

    def connections(self) -> list[str]:
        """Sockets that were not open at the start."""
        return [name for name in descriptors(self.pid) if name not in self.open_at_start]

    def processor_time(self) -> float:
        """Seconds that the server itself has been on a processor."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_until_idle(self) -> None:
        """Wait until no handler is left and every connection is closed."""
        wait_until(lambda: not children(self.pid), "no handler left")
        wait_until(
            # A client may have been there when we first looked.
            lambda: not Counter(descriptors(self.pid)) - Counter(self.open_at_start),
            f"descriptors as at the start: {self.open_at_start} {descriptors(self.pid)}",
        )

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(PATIENCE)
        self._join()
        return status

    def stop(self) -> int:
        self.signal()
        return self.wait()

    def _join(self) -> None:
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stderr.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind, *_: object) -> None:
        if self.process.poll() is None:
            if kind is None:
                self.wait_until_idle()
            self.signal()
        self._join()
        if kind is None:
            self.check_nothing_left()

    def check_nothing_left(self) -> None:
        wait_until(lambda: not processes(self.mark), f"no process left: {processes(self.mark)}")
        folder = Path(self.path).parent
        left = [name for name in os.listdir(folder) if re.search(r"^\.sipc-|\.lock$", name)]
        assert not left
        assert "Traceback" not in self.log


def packets(payload: bytes) -> bytes:
    """A payload as packets, without a flush."""
    pieces = [payload[at : at + MAX_PAYLOAD] for at in range(0, len(payload), MAX_PAYLOAD)]
    return b"".join(b"%04x%s" % (len(piece) + 4, piece) for piece in pieces)


def message(payload: bytes) -> bytes:
    """A payload as a whole message."""
    return packets(payload) + b"0000"


def connect(path) -> socket.socket:
    """A raw connection."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(PATIENCE)
    try:
        connected.connect(str(path))
    except BaseException:
        connected.close()
        raise
    return connected


def receive_all(connection: socket.socket) -> bytes:
    """Everything until the other end closes; a reset is an end."""
    pieces = []
    while True:
        try:
            piece = connection.recv(1 << 20)
        except ConnectionResetError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)


def decode(wire: bytes) -> tuple[bytes, bool]:
    """The payload on the wire, and whether a flush was its end."""
    payload, at = [], 0
    while at + 4 <= len(wire):
        length = int(wire[at : at + 4], 16)
        if length == 0:
            assert at + 4 == len(wire), "bytes behind the flush"
            return b"".join(payload), True
        payload.append(wire[at + 4 : at + length])
        at += length
    return b"".join(payload), False


def ask(path, payload: bytes) -> tuple[bytes, bool]:
    """What git's client does: write all, then read all. The payload, and whether it is whole."""
    with connect(path) as connection:
        connection.sendall(message(payload))
        return decode(receive_all(connection))


@contextmanager
def crowd(path, size: int):
    """So many raw connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(path)) for _ in range(size)]


@contextmanager
def served_by(path, conversation):
    """A server made by hand: `conversation` is called with its one connection."""
    failures = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            try:
                with listener.accept()[0] as connection:
                    connection.settimeout(30)
                    conversation(connection)
            except BaseException as failure:  # told to the test
                failures.append(failure)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()
    assert not failures


def read_message(connection) -> bytes:
    """The bytes of one whole message."""
    wire = b""
    while not wire.endswith(b"0000"):
        piece = connection.recv(1 << 20)
        assert piece, "the request was cut off"
        wire += piece
    return wire


def flooded(wire: bytes):
    """A server that never stops answering."""

    def conversation(connection):
        read_message(connection)
        try:
            while True:
                connection.sendall(wire)
        except (BrokenPipeError, ConnectionResetError):
            pass

    return conversation


def answering(wire: bytes, seen: list[bytes] | None = None):
    """A server that reads a request and then writes this."""

    def conversation(connection):
        request = read_message(connection)
        if seen is not None:
            seen.append(request)
        connection.sendall(wire)

    return conversation


class Program(subprocess.Popen):
    """A running program; a `with` that fails does not wait for its end, but sees to it."""

    def __exit__(self, kind, *rest) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def trace_lines(trace: bytes) -> list[tuple[str, str]]:
    """The lines of a trace without their time: pairs of exchange and what happened.

    Every line has to be whole: none is mixed with another.
    """
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d"
    event = (
        r'= (connected|connected for request "\S+"|accepted) (to|on) ".*": pid=\d+ uid=\d+ gid=\d+'
        r"|= closed: sent bytes=\d+ packets=\d+, received bytes=\d+ packets=\d+"
        r"|> not sent: .*"
        r"|[><] (sent|received) (0000( behind the flush)?: flush"
        r'|[0-9a-f]{4} \(\d+ bytes\)( behind the flush)?: (empty|".*"( and \d+ left out)?)'
        r"|malformed.*|not understood.*|cut off: .*|unfinished: .*|end of stream)"
    )
    found = []
    for line in trace.decode("ascii").splitlines():
        match = re.fullmatch(rf"{time} (\d+-\d+) ({event})", line)
        assert match, line
        found.append((match[1], match[2]))
    return found


def trace_events(trace: bytes) -> list[str]:
    """What happened in the one exchange of a trace."""
    lines = trace_lines(trace)
    assert len({name for name, _ in lines}) == 1
    return [event for _, event in lines]
