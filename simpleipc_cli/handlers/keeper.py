"""A thread that looks after processes which wait for requests, while no request looks at them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport import READ, Latch, new_bell, new_latch, new_wide_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.handlers.spawn import Process

_LOOK = 0.05  # seconds between looks at whether to hurry, at will


class Keeper:
    """Calls `tend` when one of its processes has ended, when rung for, and when it is time."""

    def __init__(self, tend: Callable[[], float | None]) -> None:
        """`tend` returns after how many seconds it wants to be called again, None: never.

        Call start() when it can be called. Raises SipcError if there are no descriptors.
        """
        self._tend = tend
        self._lock = Lock()
        self._watched: dict[int, Process] = {}
        self._closing = False
        try:
            self.hurry: Latch = new_latch()
            """Set when what is being ended is to be given no more time."""
            self._bell = new_bell()
            self._poller = new_wide_poller()
            self._poller.register(self._bell.fileno(), READ)
        except OSError as error:
            raise SipcError(f"nothing can look after handlers: {error.strerror}") from error
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin. Raises SipcError if the system has no more threads."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise SipcError(f"nothing can look after handlers: {error}") from error

    def watch(self, process: Process) -> None:
        """Notice its end."""
        with self._lock:
            self._watched[process.descriptor] = process
            self._poller.register(process.descriptor, READ)

    def forget(self, process: Process) -> None:
        """Look at it no more. Do so before it is stopped."""
        with self._lock:
            if self._watched.get(process.descriptor) is process:
                self._forget(process.descriptor)

    def ring(self) -> None:
        """Let `tend` be called soon. Also from a signal handler."""
        self._bell.ring()

    def close(self, hurry: Latch) -> None:
        """End the thread, when it is done with what it is doing. `hurry` cuts that short."""
        self._closing = True
        self._bell.ring()
        while self._thread.is_alive():
            self._thread.join(_LOOK)
            if hurry.is_set():
                self.hurry.set()
        self._poller.close()
        self._bell.close()
        self.hurry.close()

    def _run(self) -> None:
        pause: float | None = 0.0
        while not self._closing:
            for descriptor, _ in self._poller.wait(pause):
                if descriptor == self._bell.fileno():
                    self._bell.quiet()
                else:
                    self._on_end(descriptor)
            if not self._closing:
                pause = self._tend()

    def _on_end(self, descriptor: int) -> None:
        """Its number can be another's by now: that one goes on being watched."""
        with self._lock:
            process = self._watched.get(descriptor)
            if process is not None and process.status() is not None:
                self._forget(descriptor)

    def _forget(self, descriptor: int) -> None:
        del self._watched[descriptor]
        self._poller.unregister(descriptor)
