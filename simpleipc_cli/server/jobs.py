"""What waits for a thread, and threads that wait for it.

Not queue.SimpleQueue: there every job that is taken wakes a second thread for nothing, and it is
the one that has waited longest that gets it. Here it is the one that has just worked, whose
memory is still at hand, and nobody else is woken.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Jobs(Generic[Job]):
    """First in, first out."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._lock = Lock()
        self._waiting: deque[Job] = deque()
        self._idle: list[tuple[Lock, list[Job]]] = []  # threads: how to wake one, and its job

    def put(self, job: Job) -> None:
        """One more, for the next thread that is free."""
        with self._lock:
            if not self._idle:
                self._waiting.append(job)
                return
            bell, hands = self._idle.pop()
        hands.append(job)
        bell.release()

    def get(self) -> Job:
        """The one that has waited longest; waits for one."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            bell: Lock = Lock()
            hands: list[Job] = []
            bell.acquire()
            self._idle.append((bell, hands))
        bell.acquire()
        return hands[0]

    def drop(self) -> list[Job]:
        """All that wait; nobody will get them."""
        with self._lock:
            dropped = list(self._waiting)
            self._waiting.clear()
        return dropped
