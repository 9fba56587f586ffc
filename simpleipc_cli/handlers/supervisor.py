"""A thread that maintains idle processes while there is no request for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock, Thread

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport import READ, Latch, new_latch, new_scalable_poller, new_wakeup_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.process import ChildProcess

_POLL_INTERVAL = 0.05  # seconds between looks at whether to kill now (tunable)


class Supervisor:
    """Calls `maintain` when a process has exited, after wake(), and when it is due."""

    def __init__(self, maintain: Callable[[], float | None]) -> None:
        """`maintain` returns the seconds until its next call, None for no such time.

        start() must follow. Raises SipcError without free descriptors.
        """
        self._maintain = maintain
        self._lock = Lock()
        self._processes: dict[int, ChildProcess] = {}
        self._is_closing = False
        try:
            self.kill_now: Latch = new_latch()
            """Set when processes that are being stopped get no more time."""
            self._wakeup = new_wakeup_event()
            self._poller = new_scalable_poller()
            self._poller.register(self._wakeup.fileno(), READ, self._on_wakeup)
        except OSError as error:
            raise SipcError(f"cannot supervise idle handlers: {error.strerror}") from error
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread. Raises SipcError if the system has no more threads."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise SipcError(f"cannot supervise idle handlers: {error}") from error

    def add(self, process: ChildProcess) -> None:
        """Notice when this process exits."""
        number = process.descriptor
        with self._lock:
            self._processes[number] = process
            self._poller.register(number, READ, partial(self._on_exit, number))

    def remove(self, process: ChildProcess) -> None:
        """Stop watching a process. Call it before the process is stopped."""
        with self._lock:
            if self._processes.get(process.descriptor) is process:
                self._remove(process.descriptor)

    def wake(self) -> None:
        """Have `maintain` called soon. Can be called from a signal handler."""
        self._wakeup.set()

    def close(self, kill_now: Latch) -> None:
        """End the thread once `maintain` has returned; `kill_now` cuts that short."""
        self._is_closing = True
        self._wakeup.set()
        while self._thread.is_alive():
            self._thread.join(_POLL_INTERVAL)
            if kill_now.is_set():
                self.kill_now.set()
        self._poller.close()
        self._wakeup.close()
        self.kill_now.close()

    def _run(self) -> None:
        timeout: float | None = 0.0
        while not self._is_closing:
            self._poller.dispatch(timeout)
            if not self._is_closing:
                timeout = self._maintain()

    def _on_wakeup(self, _events: int) -> None:
        self._wakeup.clear()

    def _on_exit(self, number: int, _events: int) -> None:
        """A process has exited, unless its descriptor's number is another's by now."""
        with self._lock:
            process = self._processes.get(number)
            if process is not None and process.status() is not None:
                self._remove(number)

    def _remove(self, number: int) -> None:
        del self._processes[number]
        self._poller.unregister(number)
