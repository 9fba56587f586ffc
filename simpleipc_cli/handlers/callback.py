"""Python functions that answer requests in the server's own process.

A function of one argument gets the whole request and returns the response; the thread of the
event loop calls it (server/loop_threads.py). A function of two arguments reads the request and
writes the response by piece, through pipes and in a thread of its own. Coroutine functions run in
an asyncio event loop on another thread.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

from simpleipc_cli.errors import IncompleteMessage, PeerClosed, SipcError
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process import StdioPipes
from simpleipc_cli.server.context import Log
from simpleipc_cli.server.handler import Handler, HandlerRun, RequestInfo, Result
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import Peer, WakeupEvent, new_wakeup_event

Callback = Callable[..., Any]

_PIECE = 64 * 1024  # bytes of a request in one piece of its iteration: what a pipe holds
_CLIENT_GONE = "the client has gone, or the server has ended the request"
_NO_DESCRIPTOR = "no descriptor for a callback", "raise the descriptor limit (ulimit -n)"
_SPARE_THREADS = 32  # for asyncio.to_thread() in callbacks (tunable)
_JOIN_TIMEOUT = 1.0  # seconds for coroutines to end after they are cancelled (tunable)


class Request:
    """The request that a callback of two arguments reads."""

    def __init__(self, info: RequestInfo, descriptor: int, is_complete: Callable[[], bool]) -> None:
        self._file = os.fdopen(descriptor, "rb")
        self._is_complete = is_complete
        self.id: str = info.id
        """The request's id in the log."""
        self.peer: Peer = info.peer
        """The client's process: `pid`, `uid`, `gid`; -1 where the system does not know them."""

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer only at the end; a negative size reads all.

        Raises IncompleteMessage if the client has gone before its request was complete.
        """
        data = self._file.read(size)
        if size < 0 or len(data) < size:
            self._check_end()
        return data

    def __iter__(self) -> Iterator[bytes]:
        """Yield the request as it arrives, in pieces of at most 64 KiB. Raises as read() does."""
        while data := self._file.read1(_PIECE):
            yield data
        self._check_end()

    def _check_end(self) -> None:
        if not self._is_complete():
            raise IncompleteMessage(f"the request is not complete: {_CLIENT_GONE}")

    def _close(self) -> None:
        self._file.close()


class Reply:
    """The response that a callback of two arguments writes."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, data: Buffer) -> None:
        """Send bytes to the client; wait while it does not read.

        Raises PeerClosed if the client has gone, or the server has ended the request.
        """
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            raise PeerClosed(_CLIENT_GONE) from None

    def _close(self) -> None:
        self._file.close()


class AsyncRequest:
    """The request that a coroutine function of two arguments reads."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.id = request.id
        self.peer = request.peer

    async def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, as Request.read() does."""
        return await asyncio.to_thread(self._request.read, size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the request as it arrives, as Request does."""
        pieces = iter(self._request)
        while data := await asyncio.to_thread(next, pieces, b""):
            yield data


class AsyncReply:
    """The response that a coroutine function of two arguments writes."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def write(self, data: Buffer) -> None:
        """Send bytes to the client, as Reply.write() does."""
        await asyncio.to_thread(self._reply.write, data)


class _Outcome:
    """How a call ended: its result, or that the server has stopped the run before.

    A callback cannot be killed: one that goes on after that counts as stuck.
    """

    def __init__(self, handler: CallbackHandler, info: RequestInfo) -> None:
        self.lock = Lock()
        self.result: Result | None = None
        self.is_stopped = False
        self._handler = handler
        self._info = info

    def set(self, error: BaseException | None) -> None:
        """Note that the callback has returned, or what it has raised."""
        result = Result(True, "0", "returned")
        if error is not None:
            name = type(error).__name__
            result = Result(False, name, f"the callback raised {name}: {error}")
            is_expected = (PeerClosed, IncompleteMessage, asyncio.CancelledError)
            if not (self.is_stopped and isinstance(error, is_expected)):
                self._handler.log.exception(f"request {self._info.id}: {result.text}", error)
        with self.lock:
            self.result = result
            if self.is_stopped:
                self._handler.count_stuck(-1)

    def stop(self) -> None:
        """Note that the server has stopped the run."""
        with self.lock:
            if self.result is None and not self.is_stopped:
                self._handler.count_stuck(1)
            self.is_stopped = True


class CallRun(HandlerRun):
    """One call of a function that gets the whole request."""

    def __init__(self, handler: CallbackHandler, info: RequestInfo, payload: bytes) -> None:
        self.input = self.output = self.exit = -1
        self.call = self._call
        self._function = handler.function
        self._payload = payload
        self._response = b""
        self._outcome = _Outcome(handler, info)
        self._event: WakeupEvent | None = None

    def _call(self) -> None:
        try:
            response = self._function(self._payload)
        except BaseException as error:
            self._finish(error, b"")
        else:
            self._finish(None, response)

    def _finish(self, error: BaseException | None, response: Any) -> None:
        if isinstance(response, (bytes, bytearray, memoryview)):
            self._response = bytes(response)
        else:
            name = type(response).__name__
            error = TypeError(f"the callback must return bytes, not {name}")
        self._outcome.set(error)
        with self._outcome.lock:
            if self._event is not None:
                self._event.set()

    def start_thread(self) -> None:
        """Make the call in a thread of its own. Raises SipcError."""
        self.call = None
        if not self.make_pollable():
            raise SipcError(*_NO_DESCRIPTOR)
        _start_thread(self._call)

    def make_pollable(self) -> bool:
        try:
            event = new_wakeup_event()
        except OSError:
            return False
        with self._outcome.lock:
            self._event = event
            self.output = event.fileno()
            if self._outcome.result is not None:
                event.set()
        return True

    def read(self, buffer: memoryview) -> list[memoryview]:  # noqa: ARG002 - it needs no copy
        if self._outcome.result is None:
            raise BlockingIOError
        self.output = -1
        return [memoryview(self._response)]

    def result(self) -> Result | None:
        return self._outcome.result

    def stop_nowait(self) -> bool:
        self.call = None
        self._outcome.stop()
        with self._outcome.lock:
            if self._event is not None:
                self._event.close()
                self._event = None
        return True

    def stop(self, kill_now: WakeupEvent) -> None:  # noqa: ARG002 - nothing can be killed
        self.stop_nowait()

    def kill(self) -> None:
        pass

    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:  # noqa: ARG002
        raise PeerClosed("the callback has the whole request")

    def end_input(self) -> None:
        pass

    def abandon_input(self) -> None:
        pass


class CoroutineRun(CallRun):
    """One call of a coroutine function that gets the whole request."""

    def __init__(self, handler: CallbackHandler, info: RequestInfo, payload: bytes) -> None:
        """Start the call. Raises SipcError."""
        super().__init__(handler, info, payload)
        self.call = None
        if not self.make_pollable():
            raise SipcError(*_NO_DESCRIPTOR)
        self._cancel = handler.coroutines.start(self._function(payload), self._on_done)

    def _on_done(self, error: BaseException | None, response: Any) -> None:
        self._finish(error, response)

    def stop_nowait(self) -> bool:
        super().stop_nowait()
        self._cancel()
        return True


class StreamRun(StdioPipes, HandlerRun):
    """One call of a function that reads the request and writes the response by piece."""

    def __init__(self, handler: CallbackHandler, info: RequestInfo) -> None:
        """Start the call. Raises SipcError."""
        super().__init__()
        self.exit = -1
        self._is_request_complete = False
        self._outcome = _Outcome(handler, info)
        stdin, stdout = self.take_child_ends()
        self._request = Request(info, stdin, lambda: self._is_request_complete)
        self._reply = Reply(stdout)
        self._cancel: Callable[[], None] = lambda: None
        if handler.is_coroutine:
            call = handler.function(AsyncRequest(self._request), AsyncReply(self._reply))
            self._cancel = handler.coroutines.start(call, self._on_coroutine_done)
            return
        try:
            _start_thread(self._call, handler.function)
        except SipcError:
            self._end_streams()
            self.close()
            raise

    def _call(self, function: Callback) -> None:
        error = None
        try:
            function(self._request, self._reply)
        except BaseException as raised:
            error = raised
        self._outcome.set(error)
        self._end_streams()

    def _end_streams(self) -> None:
        self._reply._close()
        self._request._close()

    def _on_coroutine_done(self, error: BaseException | None, _response: Any) -> None:
        self._outcome.set(error)
        # In a thread: a read that the coroutine has not waited for may hold the file's lock.
        asyncio.get_running_loop().run_in_executor(None, self._end_streams)

    def end_input(self) -> None:
        self._is_request_complete = True
        super().end_input()

    def result(self) -> Result | None:
        return self._outcome.result

    def stop_nowait(self) -> bool:
        self._outcome.stop()
        self.close()
        self._cancel()
        return True

    def stop(self, kill_now: WakeupEvent) -> None:  # noqa: ARG002 - nothing can be killed
        self.stop_nowait()

    def kill(self) -> None:
        pass


class _Coroutines:
    """An asyncio event loop in a thread of its own."""

    def __init__(self, max_concurrency: int) -> None:
        self._loop = asyncio.new_event_loop()
        # Two for each callback of two arguments: one reads, one writes.
        self._threads = ThreadPoolExecutor(2 * max_concurrency + _SPARE_THREADS)
        self._loop.set_default_executor(self._threads)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        on_done: Callable[[BaseException | None, Any], None],
    ) -> Callable[[], None]:
        """Run a coroutine; return a function that cancels it.

        Its thread calls `on_done` with what it has raised, or with what it has returned.
        """
        task: asyncio.Task[Any]

        def start() -> None:
            nonlocal task
            task = self._loop.create_task(coroutine)
            task.add_done_callback(report)

        def report(task: asyncio.Task[Any]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            on_done(error, b"" if error is not None else task.result())

        def cancel() -> None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(lambda: task.cancel())  # noqa: PLW0108 - set by start()

        self._loop.call_soon_threadsafe(start)
        return cancel

    def close(self) -> None:
        """End the loop once all coroutines have ended, or after a second."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_TIMEOUT)
        self._threads.shutdown(wait=False)


class CallbackHandler(Handler):
    """Answers requests by calling a function."""

    has_calls = True

    def __init__(
        self,
        function: Callback,
        log: Log,
        *,
        max_concurrency: int,
        load: Callable[[], Callback] | None = None,
    ) -> None:
        """`load` returns the function to use after reload().

        Raises SipcError for a wrong signature.
        """
        self.log = log
        self.stuck = 0
        self.function = function
        self._kind = _kind_of(function)
        is_stream, self.is_coroutine = self._kind
        self.needs_whole_request = self.accepts_spooled = not is_stream
        self._load = load
        self._lock = Lock()
        self._max_concurrency = max_concurrency
        self._coroutines: _Coroutines | None = None

    @property
    def coroutines(self) -> _Coroutines:
        """Where coroutine functions run. Raises SipcError if it cannot be started."""
        with self._lock:
            if self._coroutines is None:
                self._coroutines = _Coroutines(self._max_concurrency)
            return self._coroutines

    def count_stuck(self, change: int) -> None:
        """Count callbacks whose runs have been stopped before they have returned."""
        with self._lock:
            self.stuck += change
        if change < 0:
            self.on_unstuck()

    def run_nowait(
        self, request: RequestInfo, payload: Sequence[Buffer] | None
    ) -> HandlerRun | None:
        if not self.needs_whole_request:
            return StreamRun(self, request)
        if payload is None:
            return None
        if self.is_coroutine:
            return CoroutineRun(self, request, b"".join(payload))
        return CallRun(self, request, b"".join(payload))

    def run(
        self, request: RequestInfo, spooled: Spool | None, payload: Sequence[Buffer] | None
    ) -> HandlerRun:
        if spooled is not None:
            payload = [spooled.take(len(spooled))]
            spooled.close()
        run = self.run_nowait(request, payload or [])
        assert run is not None  # noqa: S101
        if isinstance(run, CallRun) and run.call is not None:
            run.start_thread()
        return run

    def reload(self) -> None:
        if self._load is not None:
            Thread(target=self._reload, args=(self._load,), daemon=True).start()

    def _reload(self, load: Callable[[], Callback]) -> None:
        try:
            function = load()
            if _kind_of(function) != self._kind:
                raise SipcError("the new function is of another kind", "restart the server")
        except Exception as error:
            text = error.text if isinstance(error, SipcError) else repr(error)
            self.log.warning(f"cannot reload the callback, the old one stays: {text}")
        else:
            self.function = function
            self.log.info("reloaded the callback")

    def stats(self) -> dict[str, int]:
        return {"stuck": self.stuck} if self.stuck else {}

    def close(self, kill_now: WakeupEvent) -> None:  # noqa: ARG002 - nothing can be killed
        if self._coroutines is not None:
            self._coroutines.close()


def _kind_of(function: Callback) -> tuple[bool, bool]:
    """Return whether it has two parameters, and whether it is a coroutine function.

    Raises SipcError for any other number of parameters.
    """
    hint = "define it as f(request: bytes) -> bytes, or f(request: Request, reply: Reply)"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise SipcError(f"the callback cannot be called: {error}", hint) from error
    for count in (1, 2):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        called = function if inspect.isroutine(function) else type(function).__call__
        return count == 2, inspect.iscoroutinefunction(inspect.unwrap(called))
    raise SipcError(f"the callback has the wrong parameters: {signature}", hint)


def _start_thread(function: Callable[..., None], *arguments: object) -> None:
    try:
        Thread(target=function, args=arguments, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        hint = "raise the limits of processes and memory, or lower --threads"
        raise SipcError(f"{error} for a callback", hint) from error
