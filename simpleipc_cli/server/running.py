"""The handler's side of an exchange: one run, what it is fed, and what is polled of it.

Knows nothing of the client: what a run's end means for the answer is for the exchange to say.
"""

from __future__ import annotations

from typing import Any

from simpleipc_cli.server.handler import Result, Run
from simpleipc_cli.server.intake import Intake
from simpleipc_cli.server.lookout import Lookout
from simpleipc_cli.transport import READ, WRITE, Latch


class Running:
    """A run from its start to its end; before that, and behind it, nothing at all."""

    def __init__(self, lookout: Lookout[Any], intake: Intake) -> None:
        """Nothing runs yet. The run will be fed from `intake`."""
        self._lookout = lookout
        self._intake = intake
        self.run: Run | None = None
        """What runs; its descriptors can be compared with what the poller tells."""
        self.exited = False
        """Whether the run has ended by itself."""

    def begin(self, run: Run) -> None:
        """It has begun."""
        self.exited = False
        self.run = run

    @property
    def lingering(self) -> bool:
        """Whether it has ended in part, and the rest is due: its output, or a worker's exit."""
        run = self.run
        return self.exited or (run is not None and run.kept and run.output < 0)

    @property
    def feeding(self) -> bool:
        """Whether the run is to be given what is left of the request, whatever it answered."""
        run = self.run
        return run is not None and run.kept and run.input >= 0 and not self._intake.unwanted

    @property
    def owes_reading(self) -> bool:
        """Whether it is the run that keeps the rest of the request waiting."""
        return self.feeding and (self._intake.waiting or self._intake.complete)

    def watch(self, *, blocked: bool) -> None:
        """Tell the poller what is due next; `blocked`: the answer can go no further now."""
        run, intake = self.run, self._intake
        if run is None:
            return
        if run.input >= 0 and not intake.unwanted:
            # Also when all was written and its end was not: there was no room for it.
            due = intake.waiting or intake.complete
            self._lookout.watch(run.input, WRITE if due else 0)
        if run.output >= 0:
            if blocked:  # its hang-up would be told again and again
                self._lookout.forget(run.output)
            else:
                self._lookout.watch(run.output, READ)
        if not self.exited:
            self._lookout.watch(run.exit, READ)

    def feed(self) -> None:
        """Let the run take what waits for it; at the request's end, say so."""
        run = self.run
        if run is None or run.input < 0:
            return
        descriptor = run.input
        complete = self._intake.feed(run)
        if complete or run.input < 0:
            self._lookout.forget(descriptor)
        if complete:
            run.end_input()  # may close it; if not, it is watched anew
        elif self._intake.unwanted:
            self.discard_request()

    def lose_input(self) -> None:
        """The run reads no more."""
        run = self.run
        if run is None:
            return
        if run.kept:  # it may be about to end, without having looked at the request
            self._lookout.forget(run.input)
            run.lose_input()
        else:
            self.discard_request()

    def discard_request(self) -> None:
        """The rest of the request is for nobody: it is read from the client and dropped.

        The input is not ended: something that the handler left behind may still read it,
        and must not take half a request for a whole one.
        """
        self._intake.discard()
        if self.run is not None:
            self._lookout.forget(self.run.input)
            self.run.lose_input()

    def read(self, run: Run, buffer: memoryview) -> list[memoryview]:
        """Pieces of the answer. Raises BlockingIOError if none is there."""
        descriptor = run.output
        pieces = run.read(buffer)
        if not pieces or run.output < 0:
            self._lookout.forget(descriptor)
            run.end_output()
        return pieces

    def end_output(self) -> None:
        """Read no more of the answer."""
        run = self.run
        if run is not None and run.output >= 0:
            self._lookout.forget(run.output)
            run.end_output()

    def on_exit(self, run: Run) -> None:
        """The run has ended by itself; its output may not have been read yet."""
        self.exited = True
        self._lookout.forget(run.exit)

    def result(self) -> Result | None:
        """How it ended, once its answer has ended, too."""
        run = self.run
        if run is None or run.output >= 0:
            return None
        result = run.result()
        if result is not None and not self.exited:
            self.on_exit(run)  # of no interest any more
        return result

    def stop(self, grace: float, hurry: Latch) -> None:
        """End the run and whatever it left behind, if there is one. Raises SipcError."""
        run, self.run = self.run, None
        if run is not None:
            self._forget(run)
            run.stop(grace, hurry)

    def stop_now(self) -> None:
        """The same without waiting. Raises BlockingIOError if it must be waited for."""
        run = self.run
        if run is not None:
            self._forget(run)
            run.stop_now()
            self.run = None

    def _forget(self, run: Run) -> None:
        for descriptor in (run.input, run.output, run.exit):
            self._lookout.forget(descriptor)
