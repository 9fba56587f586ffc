"""A server in this process whose handler is a function, on any platform."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, contextmanager
from queue import Queue

from helpers.streams import accepted, listening, read_all, read_some, write_all
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import decode
from simpleipc_cli.client import exchange
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.server.context import Log, ServerConfig
from simpleipc_cli.server.handler import Handler, HandlerRun, Result
from simpleipc_cli.server.server import Server
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import connect, listen, new_wakeup_event


class Stopped(Exception):
    """The server has ended this run."""


def payload_of(data):
    """Return the payload of a complete message, None for any other."""
    payload, is_complete = decode(data)
    return payload if is_complete else None


# clients


def ask(path, request=b"ping", more=None, seconds=TIMEOUT):
    """Send a request with the client of the package; return the response."""
    answer = []
    stream = connect(path, Deadline(TIMEOUT))
    exchange(stream, request, more, lambda piece: answer.append(bytes(piece)), Deadline(seconds))
    return b"".join(answer)


def raw_response_to(path, data):
    """Send raw bytes; return what comes back, up to the end of the connection."""
    stream = connect(path, Deadline(TIMEOUT))
    try:
        write_all(stream, data)
        return read_all(stream)
    finally:
        stream.close()


@contextmanager
def raw_clients(path):
    """Yield a function that connects and writes a few bytes; close its connections afterwards."""
    streams = []

    def new(data=b""):
        stream = connect(path, Deadline(TIMEOUT))
        streams.append(stream)
        write_all(stream, data)
        return stream

    try:
        yield new
    finally:
        for stream in streams:
            stream.close()


def run_concurrently(number, act):
    """Call a function in several threads at once; return the results."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(act())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    return found


# the handler


class StreamPairs:
    """Connected streams, used as pipes."""

    def __init__(self, path, listener):
        self._path = path
        self._listener = listener
        self._lock = threading.Lock()

    def new(self):
        with self._lock:
            return connect(self._path, Deadline(TIMEOUT)), accepted(self._listener)


class RunContext:
    """The argument of a handler function: a request to read and a response to write."""

    def __init__(self, request, stdin, stdout, ended):
        self.request = request
        self.stdin = stdin
        self.stdout = stdout
        self._ended = ended

    def read(self):
        """Return a part of the request; no bytes at its end."""
        data = read_some(self.stdin)
        if self._ended.is_set():
            raise Stopped
        return data

    def read_all(self):
        return b"".join(iter(self.read, b""))

    def write(self, data):
        try:
            write_all(self.stdout, data)
        except PeerClosed:
            raise Stopped from None

    def wait_for(self, event):
        """Wait until the test sets an event, or the server ends this run."""
        wait_until(lambda: event.is_set() or self._ended.is_set(), "the test to set an event")
        if not event.is_set():
            raise Stopped

    def wait_for_the_end(self):
        """Wait until the server ends this run."""
        assert self._ended.wait(TIMEOUT)
        raise Stopped


class ScriptedRun(HandlerRun):
    """A run of a handler function, in a thread."""

    def __init__(self, act, request, pairs):
        self._writer, stdin = pairs.new()
        self._reader, stdout = pairs.new()
        self._exit_event = new_wakeup_event()
        self._ended = threading.Event()
        self._status = None
        self.input = self._writer.fileno()
        self.output = self._reader.fileno()
        self.exit = self._exit_event.fileno()
        self._context = RunContext(request, stdin, stdout, self._ended)
        self._thread = threading.Thread(target=self._run, args=(act,))
        self._thread.start()

    def _run(self, act):
        status = 1
        try:
            status = act(self._context) or 0
        except Stopped:
            pass
        finally:
            self._context.stdout.close()
            self._context.stdin.close()
            self._status = status
            self._exit_event.set()

    def write(self, payload, *, last):
        return self._writer.write_nowait(payload)

    def end_input(self):
        self.input = -1
        self._writer.close()

    def abandon_input(self):
        pass

    def read(self, buffer):
        count = self._reader.read_nowait(buffer)
        if not count:
            self.output = -1
        return [buffer[:count]] if count else []

    def result(self):
        status = self._status
        return None if status is None else Result(status == 0, str(status), f"status {status}")

    def kill(self):
        self._ended.set()

    def stop(self, kill_now):
        self._ended.set()
        self.end_input()
        self.output = -1
        self._reader.close()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self._exit_event.close()


class EchoRun(HandlerRun):
    """Echoes a request once it is complete, without a thread or a pipe."""

    def __init__(self):
        self._events = [new_wakeup_event() for _ in range(3)]
        self.input, self.output, self.exit = (wakeup.fileno() for wakeup in self._events)
        self._kept = bytearray()
        self._result = None

    def write(self, payload, *, last):
        before = len(self._kept)
        self._kept += b"".join(payload)
        return len(self._kept) - before

    def end_input(self):
        self.input = -1
        for wakeup in self._events[1:]:
            wakeup.set()

    def abandon_input(self):
        pass

    def read(self, buffer):
        if not self._kept:
            self.output = -1
            self._result = Result(True, "0", "status 0")
            return []
        kept, self._kept = self._kept, b""
        return [memoryview(kept)]

    def result(self):
        return self._result

    def kill(self):
        pass

    def stop(self, kill_now):
        for wakeup in self._events:
            wakeup.close()


class EchoHandler(Handler):
    """Echoes small requests as fast as possible."""

    accepts_spooled = False

    def run(self, request, spooled, payload):
        return EchoRun()


class ScriptedHandler(Handler):
    """Calls a function with a RunContext for each request."""

    accepts_spooled = False

    def __init__(self, act, pairs):
        self._act = act
        self._pairs = pairs

    def run(self, request, spooled, payload):
        return ScriptedRun(self._act, request, self._pairs)


class PausedHandler:
    """A handler that echoes its request after a test opens it; the test can wait for its start."""

    def __init__(self):
        self._begun = Queue()
        self._open = threading.Event()

    def act(self, context):
        self._begun.put(context.request.id)
        request = context.read_all()
        context.wait_for(self._open)
        context.write(request)

    def wait_until_begun(self):
        return self._begun.get(timeout=TIMEOUT)

    def open(self):
        self._open.set()


def echo(context):
    while data := context.read():
        context.write(data)


# the server


class RecordingLog(Log):
    """A log that keeps all records."""

    def __init__(self):
        self._changed = threading.Condition()
        self.records = []
        self.lines = []
        self.figures = []

    def _add(self, where, what):
        with self._changed:
            where.append(what)
            self._changed.notify_all()

    def request(self, record):
        self._add(self.records, record)

    def warning(self, text):
        self._add(self.lines, text)

    error = info = debug = warning

    def exception(self, text, error):
        self._add(self.lines, f"{text}: {error!r}")

    def stats(self, figures):
        self._add(self.figures, figures)

    def reopen(self):
        raise AssertionError("not asked for")

    def wait_until(self, state: Callable[[], object], what: str):
        """Call `state` after each log record until it returns a true value; return that."""
        with self._changed:
            assert self._changed.wait_for(state, TIMEOUT), what
            return state()

    def outcomes(self, number):
        """Wait until a number of requests have ended; return the names of their outcomes."""
        self.wait_until(lambda: len(self.records) >= number, f"{number} requests to end")
        return [record.outcome.value for record in self.records]


class InProcessServer:
    """A running server, in a thread."""

    def __init__(self, path, handler, config, log=None, descriptors=None):
        self.path = path
        self.log = log or RecordingLog()
        self.ending = None
        listener = listen(path, mode=0o600, backlog=100)
        self._server = Server(
            listener,
            handler=handler,
            config=config,
            log=self.log,
            descriptors=descriptors or DescriptorLimit(),
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        self.ending = self._server.run()

    def stop(self):
        self._server.stop()

    @property
    def must_abort(self):
        return self._server.must_abort

    def end(self):
        """Wait until the server ends; return the exit reason."""
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        return self.ending

    def counted(self):
        """Return the current counters."""
        before = len(self.log.figures)
        self._server.log_stats()
        return self.log.wait_until(lambda: self.log.figures[before:], "counters")[0]

    def wait_until_waiting(self, number):
        """Wait until a number of requests wait for a thread."""
        wait_until(lambda: self.counted()["queued"] >= number, "requests to wait")

    def close(self):
        """End the server, if it has not ended yet."""
        if self._thread.is_alive():
            self._server.stop()
            self._server.stop()
        ending = self.end()
        self._server.close()
        assert ending is not None


@contextmanager
def serving(path, act=echo, *, handler=None, **config):
    """Run a server at a path; abort its exchanges at the end."""
    inner = path + ".handler"
    with listening(inner) as listener:
        made = handler or ScriptedHandler(act, StreamPairs(inner, listener))
        with closing(InProcessServer(path, made, ServerConfig(**config))) as server:
            yield server


@contextmanager
def echo_server(path):
    """Run a server that echoes small requests."""
    with closing(InProcessServer(str(path), EchoHandler(), ServerConfig())) as server:
        yield server
