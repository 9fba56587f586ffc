"""Python functions that answer requests in the server's own process.

A function of one argument gets the whole request and returns the response; the thread of the
event loop calls it (server/loop_threads.py). A function of two arguments reads the request and
writes the response by piece, through pipes and in a thread of its own. Coroutine functions run in
an asyncio event loop on another thread.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from threading import Lock, Thread

from simpleipc_cli.errors import SipcError
from simpleipc_cli.handlers.callback_runs import Callback, CallRun, CoroutineRun, StreamRun
from simpleipc_cli.handlers.callback_streams import Coroutines
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.server.context import Log
from simpleipc_cli.server.handler import Handler, HandlerRun, RequestInfo
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import WakeupEvent


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
        self.needs_whole_request = self.accepts_spooled = self.has_quick_runs = not is_stream
        self.needs_peer = is_stream
        self._load = load
        self._lock = Lock()
        self._reload_lock = Lock()  # the function of the last reload must be the last module's
        self._max_concurrency = max_concurrency
        self._coroutines: Coroutines | None = None

    @property
    def coroutines(self) -> Coroutines:
        """Where coroutine functions run. Raises SipcError if it cannot be started."""
        with self._lock:
            if self._coroutines is None:
                try:
                    self._coroutines = Coroutines(self._max_concurrency)
                except (OSError, RuntimeError, MemoryError) as error:
                    hint = "raise the limits of descriptors, processes and memory"
                    raise SipcError(f"no event loop for a coroutine: {error}", hint) from error
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
        if self._load is None:
            return
        try:
            Thread(target=self._reload, args=(self._load,), daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self.log.warning(f"cannot reload the callback, the old one stays: {error}")

    def _reload(self, load: Callable[[], Callback]) -> None:
        with self._reload_lock:
            self._reload_once(load)

    def _reload_once(self, load: Callable[[], Callback]) -> None:
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


def import_callback(name: str, *, again: bool = False) -> Callback:
    """Return the function `MODULE:FUNCTION`. `again` executes the module again.

    Raises SipcError.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise SipcError(f"{name!r} names no function", "give it as MODULE:FUNCTION")
    old = sys.modules.pop(module, None) if again else None
    importlib.invalidate_caches()
    try:
        found: Callback = attrgetter(function)(importlib.import_module(module))
    except BaseException as error:
        if old is not None:
            sys.modules[module] = old
        if not isinstance(error, (Exception, SystemExit)):  # a signal has ended us
            raise
        what = f"cannot import {name}: {type(error).__name__}: {error}"
        raise SipcError(what, "correct it, or set SIPC_DEBUG=1 for a traceback") from error
    return found


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
        called = type(function).__call__  # that of an object of a class of the callback's own
        is_coroutine = map(inspect.iscoroutinefunction, (function, called))
        return count == 2, any(is_coroutine)
    raise SipcError(f"the callback has the wrong parameters: {signature}", hint)
