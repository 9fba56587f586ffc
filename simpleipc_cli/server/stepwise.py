"""What is done step by step: at the desk with others, where nothing may wait, or in a thread.

Who steps it looks at three things behind each step: whether it is `over`, whether it
`needs_thread`, and until when, `due`, it can be left alone if nothing happens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from simpleipc_cli.deadline import NEVER
from simpleipc_cli.server.lookout import Lookout
from simpleipc_cli.transport import Poller

Ready = Sequence[tuple[int, int]]
"""What a poller tells."""


class MightWait(Exception):
    """What comes next might have to wait, which it may not at the desk."""

    def __init__(self, again: Callable[[], object]) -> None:
        """`again` is to be done where it may, and must find all as it would have been here."""
        super().__init__()
        self.again = again


class Stepwise(ABC):
    """Something at the desk, or on its way to its end in a thread."""

    def __init__(self, poller: Poller, owners: dict[int, Any]) -> None:
        """What `poller` tells of the descriptors that are ours in `owners` is for step()."""
        self.over = False
        """Whether it has come to its end."""
        self.needs_thread = False
        """Whether to let a thread carry it on."""
        self.due = NEVER
        """The moment, on the monotonic clock, when to step it whatever happens."""
        self._lookout: Lookout[Any] = Lookout(poller, owners, self)
        self._may_wait = False  # it has a thread
        self._again: Callable[[], object] | None = None  # to be done in the next step

    def step(self, ready: Ready = ()) -> None:
        """Let go on what can: `ready` is what the poller tells."""
        try:
            try:
                self._step(ready)
            except MightWait:
                raise
            except Exception as error:  # whatever it is, others must go on
                self._break_off(error)
                self._finish()
        except MightWait as later:
            self._again = later.again
            self.needs_thread = True

    def leave_desk(self) -> None:
        """From now on the poller tells nothing more of it: carry_on() is called next."""
        self._lookout.leave()

    def carry_on(self) -> None:
        """To its end, waiting where that has to be: for a thread that does nothing else."""
        self._may_wait = True
        try:
            while not self.over:
                self.step(self._lookout.wait(self._pause()))
        finally:
            self._lookout.close()

    def _pause(self) -> float | None:
        """How long nothing may happen before the next step."""
        if self._again is not None:
            return 0
        return None if self.due == NEVER else max(0.0, self.due - monotonic())

    def _do_again(self) -> None:
        """What was left for this step."""
        again, self._again = self._again, None
        if again is not None:
            again()

    def _finish(self) -> None:
        """Nothing is to be done any more, and nothing leads back here: see Lookout.end()."""
        self.over = True
        self._again = None
        self._lookout.end()

    @abstractmethod
    def _step(self, ready: Ready) -> None:
        """See step(). Raises MightWait, before anything is done by halves."""

    @abstractmethod
    def _break_off(self, error: Exception) -> None:
        """There was a defect of ours: clean up. Raises MightWait."""
