"""The rows of the table: what is measured on each side, and how."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from time import perf_counter

from helpers.command import SIPC, environment, sipc
from helpers.paths import ROOT
from helpers.procfs import processor_time
from helpers.server import Server
from helpers.system_calls import calls_of_a_request
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import connect, is_listening, message
from performance.bare import Echo, bare_rate
from performance.measuring import Measure, Missing, Row, Scale

PYTHON = [sys.executable, "-c", "pass"]
GIB = 1 << 30
_TURNS = 5  # more and shorter samples for what takes milliseconds

Sides = tuple[Measure, Measure]


def row(
    what: str, against: str, unit: str, goal: float, *, at_most: bool, turns: int = 1
) -> Callable:
    """Makes a row from a function that sets up and yields its two measures."""

    def made(sides: Callable) -> Row:
        return Row(what, against, unit, goal, at_most, contextmanager(sides), turns)

    return made


def program(name: str, package: str) -> str:
    """Return the path of a program to compare with. Raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"needs {name}: apt-get install {package}")
    return found


# -- start-up ------------------------------------------------------------------------------


def milliseconds(command: list, often: int, **options: object) -> float:
    """Return the median time of some runs of a command."""
    environ = {**environment(), "PYTHONDONTWRITEBYTECODE": ""}
    took = []
    for _ in range(often):
        began = perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, env=environ, **options)
        took.append(perf_counter() - began)
        assert done.returncode == 0, command
    return median(took) * 1e3


@contextmanager
def answering_at_once(folder: Path) -> Iterator[str]:
    """A server that takes almost no time."""
    path = str(folder / "sock")
    command = [sys.executable, str(ROOT / "tests/helpers/echo_server.py"), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"listening\n"
        yield path
        server.kill()


def started(what: str, goal: float, *words: str, piped: bool = False) -> Row:
    """Compare the time of a form of sipc with that of Python itself."""

    def sides(folder: Path, scale: Scale) -> Iterator[Sides]:
        often = scale(3, 1)
        with answering_at_once(folder) as path:
            command = [SIPC, *(path if word == "PATH" else word for word in words)]
            given = {"input": b"small\n"} if piped else {"stdin": subprocess.DEVNULL}
            yield (
                lambda: milliseconds(command, often, **given),
                lambda: milliseconds(PYTHON, often, stdin=subprocess.DEVNULL),
            )

    return row(what, "`python -c pass`", "ms", goal, at_most=True, turns=_TURNS)(sides)


@row("a Tab press in bash", "`python -c pass`", "ms", 1.0, at_most=True, turns=_TURNS)
def tab(folder: Path, scale: Scale) -> Iterator[Sides]:
    """Time a shell that loads the completion and completes a word, without a Python."""
    if shutil.which("bash") is None:
        raise Missing("needs bash")
    script = 'PATH=/none; source "$0"; COMP_WORDS=(sipc send --w); COMP_CWORD=2; _sipc'
    press = [shutil.which("bash"), "-c", script, str(ROOT / "completions/sipc.bash")]
    often = scale(3, 1)
    yield lambda: milliseconds(press, often), lambda: milliseconds(PYTHON, often)


# -- small requests ------------------------------------------------------------------------


@contextmanager
def cat_by_s6(path: str) -> Iterator[int]:
    """s6-ipcserver with a cat for each connection; its process."""
    command = [program("s6-ipcserver", "s6"), "-c", "64", "-b", "128", path, "cat"]
    with subprocess.Popen(command) as server:
        try:
            wait_until(lambda: os.path.exists(path), "s6-ipcserver to listen")
            yield server.pid
        finally:
            server.terminate()


def small_requests(clients: int, *, is_busy: bool = False) -> Row:
    """Process per request, in sipc and s6; `is_busy`: beside a spinning process per processor."""

    def sides(folder: Path, scale: Scale) -> Iterator[Sides]:
        count = scale(400 if is_busy else 1000, 40)

        def measure(path: str) -> float:
            with spinning() if is_busy else nullcontext():
                return bare_rate(Path(path), clients, count)

        (folder / "peer").mkdir()  # it leaves a lock file
        theirs = str(folder / "peer/sock")
        with Server(folder / "sipc", "cat", "-q") as ours, cat_by_s6(theirs):
            yield partial(measure, ours.path), partial(measure, theirs)

    what = f"`serve --exec cat`, small requests, {clients} clients"
    what += ", beside one spinning process per core" if is_busy else ""
    goal = 0.8 if is_busy else 0.92
    return row(what, "s6-ipcserver with cat", "requests/s", goal, at_most=False)(sides)


@contextmanager
def spinning() -> Iterator[None]:
    """One process on each processor that never waits."""
    with ExitStack() as stack:
        for number in os.sched_getaffinity(0):
            spin = f"import os\nos.sched_setaffinity(0, [{number}])\nwhile True: pass"
            process = stack.enter_context(subprocess.Popen([sys.executable, "-IS", "-c", spin]))
            stack.callback(process.kill)
        yield


@row(
    "`serve --exec cat`, processor time of the server alone",
    "the barest loop that runs cat",
    "us each",
    1.3,
    at_most=True,
)
def exec_alone(folder: Path, scale: Scale) -> Iterator[Sides]:
    """The processor time of the server itself, without the processes that it starts."""
    count = scale(1000, 40)

    def measure(path: str, pid: int) -> float:
        before = processor_time(pid)
        bare_rate(Path(path), 1, count)
        return (processor_time(pid) - before) / count * 1e6

    theirs = str(folder / "bare")
    bare = [sys.executable, "-I", str(Path(__file__).with_name("bare_exec.py")), theirs]
    with Server(folder / "sipc", "cat", "-q") as ours, subprocess.Popen(bare) as peer:
        wait_until(lambda: is_listening(theirs), "the bare loop to listen")
        yield partial(measure, ours.path, ours.pid), partial(measure, theirs, peer.pid)
        peer.kill()


@row("`serve --exec cat`, calls of a small request", "38", "system calls", 1.0, at_most=True)
def system_calls(folder: Path, scale: Scale) -> Iterator[Sides]:
    """The system calls of the server itself."""
    if shutil.which("strace") is None:
        raise Missing("needs strace")
    yield lambda: len(calls_of_a_request(Path(mkdtemp(dir=folder)))), lambda: 38


WORKER = """
import os
while wire := os.read(0, 65536):
    os.write(1, wire)
"""


def worked(clients: int) -> Row:
    """A worker that returns its request: the server's own time, and the change of process."""

    def sides(folder: Path, scale: Scale) -> Iterator[Sides]:
        count = scale(10_000, 100)
        program = folder / "worker.py"
        program.write_text(WORKER)
        worker = (sys.executable, "-IS", str(program))
        path, bare = folder / "sipc", folder / "bare"
        with (
            Server(path, None, "--worker", f"exec {shlex.join(worker)}", "-q") as server,
            Echo(bare, 1, worker=worker),
        ):
            yield (
                lambda: bare_rate(path, clients, count),
                lambda: bare_rate(bare, clients, count),
            )
            server.stop()  # else its workers keep running

    what = f"`serve --worker` answering at once, {clients} clients"
    against = "a bare accept loop that frames, with the same worker"
    return row(what, against, "requests/s", 0.6, at_most=False)(sides)


def called(clients: int) -> Row:
    """A callback that returns its request: the server's own time, in one process."""

    def sides(folder: Path, scale: Scale) -> Iterator[Sides]:
        (folder / "called.py").write_text("def echo(request):\n    return request\n")
        count = scale(10_000, 100)
        path, bare = folder / "sipc", folder / "bare"
        with (
            Server(path, None, "--call", "called:echo", "-q", cwd=folder),
            Echo(bare, 1, framing=True),
        ):
            yield (
                lambda: bare_rate(path, clients, count),
                lambda: bare_rate(bare, clients, count),
            )

    what = f"`serve --call` of an echo, {clients} clients"
    return row(what, "a bare accept loop that frames", "requests/s", 0.6, at_most=False)(sides)


# -- many bytes ----------------------------------------------------------------------------


def bulk(what: str, handler: str, goal: float = 1.0) -> Row:
    """Gigabytes through send and serve, compared with two cats."""

    def sides(folder: Path, scale: Scale) -> Iterator[Sides]:
        size = scale(2 * GIB, GIB // 16)
        path = folder / "sock"

        def through(pipeline: str) -> float:
            script = f"head -c {size} /dev/zero | {pipeline} >/dev/null"
            began = perf_counter()
            subprocess.run(["bash", "-o", "pipefail", "-c", script], env=environment(), check=True)
            return size / 1e9 / (perf_counter() - began)

        with Server(path, handler, "-q"):
            yield lambda: through(f"{SIPC} send {path}"), lambda: through("cat | cat")

    return row(what, "the same through two `cat` in a pipe", "GB/s", goal, at_most=False)(sides)


@row("peak memory, echo of gigabytes: the larger of both ends", "40 MiB", "MiB", 1, at_most=True)
def memory(folder: Path, scale: Scale) -> Iterator[Sides]:
    """Return the kernel's figure for an ended process, which includes shared libraries."""
    size = scale(2 * GIB, GIB // 16)
    path = str(folder / "sock")
    measured = str(Path(__file__).with_name("peak.py"))

    def both() -> float:
        serve = [sys.executable, measured, SIPC, "serve", path, "--exec", "cat", "--count", "1"]
        script = f"head -c {size} /dev/zero | {sys.executable} {measured} {SIPC} send"
        script += f" --wait 10s {path} >/dev/null"
        with subprocess.Popen([*serve, "-q"], stderr=subprocess.PIPE, env=environment()) as server:
            done = subprocess.run(
                ["bash", "-c", script], stderr=subprocess.PIPE, check=True, env=environment()
            )
            told = server.communicate(timeout=TIMEOUT)[1]
        return max(int(told), int(done.stderr)) / 1024

    yield both, lambda: 40.0


# -- many records, many connections ----------------------------------------------------------


@row("`send --lines -j 8`", "a loop of `sipc send`", "records/s", 50.0, at_most=False)
def records(folder: Path, scale: Scale) -> Iterator[Sides]:
    """10,000 records in one process; the loop is measured on 500."""
    many, few = scale(10_000, 100), scale(500, 10)
    lines = b"".join(b"%d\n" % number for number in range(many))

    def together(path: str) -> float:
        began = perf_counter()
        assert len(sipc("send", path, "--lines", "-j", "8", input=lines).stdout) == len(lines)
        return many / (perf_counter() - began)

    def one_by_one(path: str) -> float:
        loop = f"for i in $(seq {few}); do echo $i | {SIPC} send {path}; done"
        began = perf_counter()
        subprocess.run(["bash", "-c", loop], stdout=subprocess.DEVNULL, env=environment())
        return few / (perf_counter() - began)

    with answering_at_once(folder) as path:
        yield lambda: together(path), lambda: one_by_one(path)


@row("`bench`, its highest rate", "bare loops, their highest", "requests/s", 0.85, at_most=False)
def benched(folder: Path, scale: Scale) -> Iterator[Sides]:
    """Compare the best rate of one and two processes on each side."""
    count = scale(10_000, 200)
    path = folder / "sock"

    def bench() -> float:
        rates = []
        for shape in (("-c", 1), ("-c", 32), ("-c", 64, "--processes", 2)):
            run = sipc("bench", path, "-d", "hello", "-n", count, *shape, "--json", "-")
            rates.append(json.loads(run.stdout)["rate"])
        return max(rates)

    with Echo(path, 2):
        yield bench, lambda: max(bare_rate(path, processes, count) for processes in (1, 2))


def p99(path: Path, count: int) -> float:
    """Measure a small request in milliseconds."""
    took = []
    for _ in range(count):
        began = perf_counter()
        with connect(path) as connection:
            connection.sendall(message(b"hello"))
            while not connection.recv(1 << 16).endswith(b"0000"):
                pass
        took.append(perf_counter() - began)
    return sorted(took)[int(count * 0.99)] * 1e3


@row("p99 of a small request under 8 busy streams", "without them", "ms", 3.0, at_most=True)
def under_load(folder: Path, scale: Scale) -> Iterator[Sides]:
    """Each stream is a client that sends without end to a handler that reads it all."""
    path = folder / "sock"
    count = scale(500, 20)
    with Server(path, "cat", "-q", "--threads", "16"):

        def loaded() -> float:
            with ExitStack() as stack:
                for _ in range(8):
                    stack.enter_context(endless(path))
                return p99(path, count)

        yield loaded, lambda: p99(path, count)


@contextmanager
def endless(path: Path) -> Iterator[None]:
    """A client that sends zeros until the end of the `with`, and drops what it gets."""
    command = [SIPC, "send", str(path), "--data-file", "/dev/zero"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment(), **pipe) as client:
        dropping = threading.Thread(target=lambda: [*iter(partial(os.read, dropped, 1 << 16), b"")])
        dropped = client.stdout.fileno()
        assert os.read(dropped, 1)  # it is busy
        dropping.start()
        yield
        client.send_signal(signal.SIGKILL)
        dropping.join()


def among_idle(idle: int) -> Row:
    """Another process connects, as its number of descriptors is limited, too."""

    def sides(folder: Path, scale: Scale) -> Iterator[Sides]:
        path = folder / "sock"
        count, held = scale(1000, 20), scale(idle, 100)
        program = Path(__file__).with_name("idle_clients.py")
        command = [sys.executable, str(program), str(path), str(held)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with Server(path, "cat", "-q", "--backlog", "1024") as server:

            def with_idle() -> float:
                with subprocess.Popen(command, **pipes) as others:
                    if others.stdout.readline() != b"connected\n":
                        raise Missing(f"cannot hold {held} connections: ulimit -Hn")
                    wait_until(lambda: len(server.connections()) >= held, "all to be accepted")
                    rate = bare_rate(path, 4, count)
                    others.communicate()
                return rate

            yield with_idle, lambda: bare_rate(path, 4, count)

    what = f"rate with {idle:,} idle connections"
    return row(what, "with none", "requests/s", 0.9, at_most=False)(sides)


ROWS: list[Row] = [
    started("`sipc send PATH < small`", 1.25, "send", "PATH", piped=True),
    started("`sipc send PATH -d x`", 1.25, "send", "PATH", "-d", "x"),
    started("`sipc probe -q PATH`", 1.2, "probe", "-q", "PATH"),
    started("`sipc --help`", 4.0, "--help"),
    tab,
    *(small_requests(clients) for clients in (1, 8)),
    small_requests(8, is_busy=True),
    exec_alone,
    system_calls,
    *(worked(clients) for clients in (1, 8)),
    *(called(clients) for clients in (1, 8)),
    bulk("2 GiB, `send` to `serve --exec 'cat >/dev/null'`", "cat >/dev/null"),
    bulk("2 GiB, echo through `cat`", "cat", 0.7),
    memory,
    records,
    benched,
    under_load,
    *(among_idle(idle) for idle in (1_000, 10_000)),
]
