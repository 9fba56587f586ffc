"""What a callback of two arguments gets, and where coroutines run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any

from simpleipc_cli.errors import IncompleteMessage, PeerClosed
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.server.handler import RequestInfo
from simpleipc_cli.transport import Peer

_PIECE = 64 * 1024  # bytes of a request in one piece of its iteration: what a pipe holds
_CLIENT_GONE = "the client has gone, or the server has ended the request"
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


class _DaemonThreads(ThreadPoolExecutor):
    """A thread pool whose threads do not delay the exit of the interpreter."""

    def __init__(self, max_threads: int) -> None:
        super().__init__(max_threads)
        self._max_threads = max_threads
        self._thread_count = 0
        self._idle = Semaphore(0)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(self, function: Callable[..., Any], /, *values: Any, **named: Any) -> Future[Any]:
        """Call a function in a thread. Raises RuntimeError if none can be started."""
        future: Future[Any] = Future()
        if not self._idle.acquire(blocking=False) and self._thread_count < self._max_threads:
            try:
                Thread(target=self._run, daemon=True).start()
                self._thread_count += 1
            except (RuntimeError, MemoryError):
                if not self._thread_count:
                    raise
        self._calls.put((future, partial(function, *values, **named)))
        return future

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del item, future, call  # their memory is not kept while the thread waits
            self._idle.release()

    def end(self) -> None:
        """Have the threads end after their calls."""
        for _ in range(self._thread_count):
            self._calls.put(None)


class Coroutines:
    """An asyncio event loop in a thread of its own."""

    def __init__(self, max_concurrency: int) -> None:
        """Raises OSError or RuntimeError without descriptors or threads."""
        self._loop = asyncio.new_event_loop()
        # Two for each callback of two arguments: one reads, one writes.
        self._threads = _DaemonThreads(2 * max_concurrency + _SPARE_THREADS)
        self._loop.set_default_executor(self._threads)
        self._is_closed = False
        self._unreported: set[asyncio.Task[Any]] = set()  # also tasks that have just ended
        self._thread = Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise

    def _run(self) -> None:
        while not self._is_closed:
            # A task of a callback that raises SystemExit ends the loop's run: it must go on.
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()
        if tasks := self._unreported | asyncio.all_tasks(self._loop):
            for task in tasks:
                if not task.cancelling():  # a second time would end what the coroutine cleans up
                    task.cancel()
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=_JOIN_TIMEOUT))
        self._loop.close()
        self._threads.end()  # after the last call: that of a callback's end closes its files

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        on_done: Callable[[BaseException | None, Any], None],
    ) -> Callable[[], None]:
        """Run a coroutine; return a function that cancels it.

        Its thread calls `on_done` with what it has raised, or with what it has returned.
        """
        task: asyncio.Task[tuple[BaseException | None, Any]]

        async def run() -> tuple[BaseException | None, Any]:
            try:
                return None, await coroutine
            except BaseException as error:  # a task must not raise SystemExit: see _run()
                return error, b""

        def start() -> None:
            nonlocal task
            task = self._loop.create_task(run())
            self._unreported.add(task)
            task.add_done_callback(report)

        def report(task: asyncio.Task[tuple[BaseException | None, Any]]) -> None:
            self._unreported.remove(task)
            if task.cancelled():  # before it began
                coroutine.close()
                on_done(asyncio.CancelledError(), b"")
            else:
                on_done(*task.result())

        def cancel() -> None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(lambda: task.cancel())  # noqa: PLW0108 - set by start()

        self._loop.call_soon_threadsafe(start)
        return cancel

    def close(self) -> None:
        """Cancel all coroutines, and end the loop once they have ended, or after a second."""
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2 * _JOIN_TIMEOUT)
