"""The calls of a callback, one for each request.

A callback cannot be killed: one that goes on after the server has ended its request counts as
stuck, which keeps another request from being started in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from typing import Any, Protocol

from simpleipc_cli.errors import IncompleteMessage, PeerClosed, SipcError
from simpleipc_cli.handlers.callback_streams import (
    AsyncReply,
    AsyncRequest,
    Coroutines,
    Reply,
    Request,
)
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process import StdioPipes
from simpleipc_cli.server.context import Log
from simpleipc_cli.server.handler import HandlerRun, RequestInfo, Result
from simpleipc_cli.transport import WakeupEvent, new_wakeup_event

Callback = Callable[..., Any]

_RETURNED = Result(True, "0", "returned")
_NO_DESCRIPTOR = "no descriptor for a callback", "raise the descriptor limit (ulimit -n)"


class Caller(Protocol):
    """The handler whose function is called."""

    function: Callback
    is_coroutine: bool
    log: Log

    @property
    def coroutines(self) -> Coroutines:
        """Where coroutine functions run."""

    def count_stuck(self, change: int) -> None:
        """Count callbacks that go on although their requests have ended."""


class _CallbackRun(HandlerRun):
    """A call, and how it ended.

    A callback cannot be killed: one that goes on after the server has stopped the run counts as
    stuck.
    """

    exit = -1
    _result: Result | None = None
    _is_stopped = False
    _event: WakeupEvent | None = None  # set at the end of the call, once another thread polls it

    def __init__(self, handler: Caller, info: RequestInfo) -> None:
        self._lock = Lock()
        self._handler = handler
        self._info = info

    def _end(self, error: BaseException | None) -> None:
        """Note that the callback has returned, or what it has raised."""
        result = _RETURNED
        if error is not None:
            name = type(error).__name__
            result = Result(False, name, f"the callback raised {_text_of(error)}")
            is_expected = (PeerClosed, IncompleteMessage, asyncio.CancelledError)
            if not (self._is_stopped and isinstance(error, is_expected)):
                self._handler.log.exception(f"request {self._info.id}: {result.text}", error)
        with self._lock:
            self._result = result
            if self._is_stopped:
                self._handler.count_stuck(-1)
            if self._event is not None:
                self._event.set()

    def _mark_stopped(self) -> None:
        """Note that the server has stopped the run."""
        with self._lock:
            if self._result is None and not self._is_stopped:
                self._handler.count_stuck(1)
            self._is_stopped = True

    def result(self) -> Result | None:
        return self._result

    def stop(self, kill_now: WakeupEvent) -> None:  # noqa: ARG002 - nothing can be killed
        self.stop_nowait()

    def kill(self) -> None:
        pass


def _text_of(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except BaseException:  # it is the callback's own
        return name


class CallRun(_CallbackRun):
    """One call of a function that gets the whole request."""

    input = output = -1

    def __init__(self, handler: Caller, info: RequestInfo, payload: bytes) -> None:
        super().__init__(handler, info)
        self.call = self._call
        self._function = handler.function
        self._payload = payload
        self._response = b""

    def _call(self) -> None:
        self.call = None
        try:
            response = self._function(self._payload)
        except BaseException as error:
            self._finish(error, b"")
        else:
            self._finish(None, response)

    def _finish(self, error: BaseException | None, response: Any) -> None:
        try:
            if not isinstance(response, (bytes, bytearray, memoryview)):
                name = type(response).__name__
                raise TypeError(f"the callback must return bytes, not {name}")
            self._response = bytes(response)
        except Exception as wrong:  # also a memoryview that was released, or no memory
            error = wrong
        self._end(error)

    def start_thread(self) -> None:
        """Make the call in a thread of its own. Raises SipcError."""
        self.call = None
        if not self.make_pollable():
            raise SipcError(*_NO_DESCRIPTOR)
        try:
            _start_thread(self._call)
        except SipcError:
            self._close_event()
            raise

    def make_pollable(self) -> bool:
        try:
            event = new_wakeup_event()
        except OSError:
            return False
        with self._lock:
            self._event = event
            self.output = event.fileno()
            if self._result is not None:
                event.set()
        return True

    def read(self, buffer: memoryview) -> list[memoryview]:  # noqa: ARG002 - it needs no copy
        if self._result is None:
            raise BlockingIOError
        self.output = -1
        return [memoryview(self._response)]

    def stop_nowait(self) -> bool:
        if self._result is not None and self._event is None:
            return True  # no other thread knows of it: that needs an event, see make_pollable()
        if self._stop() and self._result is None:
            raise SipcError("the callback is still running and occupies a thread")
        return True

    def _stop(self) -> bool:
        """Return whether it was called: else it never will be."""
        was_called, self.call = self.call is None, None
        if was_called:
            self._mark_stopped()
        self._close_event()
        return was_called

    def _close_event(self) -> None:
        with self._lock:
            if self._event is not None:
                self._event.close()
                self._event = None

    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:  # noqa: ARG002
        raise PeerClosed("the callback has the whole request")

    def end_input(self) -> None:
        pass

    def abandon_input(self) -> None:
        pass


class CoroutineRun(CallRun):
    """One call of a coroutine function that gets the whole request."""

    def __init__(self, handler: Caller, info: RequestInfo, payload: bytes) -> None:
        """Start the call. Raises SipcError."""
        super().__init__(handler, info, payload)
        self.call = None
        if not self.make_pollable():
            raise SipcError(*_NO_DESCRIPTOR)
        try:
            coroutines = handler.coroutines
            self._cancel = coroutines.start(self._function(payload), self._finish)
        except BaseException:
            self._close_event()
            raise

    def stop_nowait(self) -> bool:
        self._stop()
        self._cancel()
        return True


class StreamRun(StdioPipes, _CallbackRun):
    """One call of a function that reads the request and writes the response by piece."""

    def __init__(self, handler: Caller, info: RequestInfo) -> None:
        """Start the call. Raises SipcError."""
        StdioPipes.__init__(self)
        _CallbackRun.__init__(self, handler, info)
        self._is_request_complete = False
        stdin, stdout = self.take_child_ends()
        self._request = Request(info, stdin, lambda: self._is_request_complete)
        self._reply = Reply(stdout)
        self._cancel: Callable[[], None] = lambda: None
        try:
            if not handler.is_coroutine:
                _start_thread(self._call, handler.function)
                return
            coroutines = handler.coroutines
            call = handler.function(AsyncRequest(self._request), AsyncReply(self._reply))
            self._cancel = coroutines.start(call, self._on_coroutine_done)
        except BaseException:
            self._end_streams()
            self.close()
            raise

    def _call(self, function: Callback) -> None:
        error = None
        try:
            _check_nothing(function(self._request, self._reply))
        except BaseException as raised:
            error = raised
        self._end(error)
        self._end_streams()

    def _end_streams(self) -> None:
        self._reply._close()
        self._request._close()

    def _on_coroutine_done(self, error: BaseException | None, _response: Any) -> None:
        self._end(error)
        # In a thread: a read that the coroutine has not waited for may hold the file's lock.
        asyncio.get_running_loop().run_in_executor(None, self._end_streams)

    def end_input(self) -> None:
        # close() calls this, too: then the callback must not take the end for that of the request.
        self._is_request_complete = not self._is_stopped
        super().end_input()

    def stop_nowait(self) -> bool:
        self._mark_stopped()
        self.close()
        self._cancel()
        return True


def _check_nothing(returned: object) -> None:
    """Raise TypeError for what is lost: the generator of a `yield`, or a coroutine."""
    if returned is not None:
        name = type(returned).__name__
        raise TypeError(f"a callback of two arguments must return None, not {name}")


def _start_thread(function: Callable[..., None], *arguments: object) -> None:
    try:
        Thread(target=function, args=arguments, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        hint = "raise the limits of processes and memory, or lower --threads"
        raise SipcError(f"{error} for a callback", hint) from error
