"""Where connections wait that have not sent a byte: they cost a descriptor and nothing else."""

from __future__ import annotations

from collections import OrderedDict

from simpleipc_cli.transport import READ, Poller, Stream


class Lobby:
    """Silent connections, the longest silent first."""

    def __init__(self, poller: Poller) -> None:
        """`poller` will tell READ for the descriptor of one that speaks, or goes."""
        self._poller = poller
        self._waiting: OrderedDict[int, tuple[Stream, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __contains__(self, descriptor: int) -> bool:
        """Whether a descriptor is of one that waits."""
        return descriptor in self._waiting

    def enter(self, stream: Stream, now: float) -> None:
        """One more waits, from `now` on."""
        self._waiting[stream.fileno()] = (stream, now)
        self._poller.register(stream.fileno(), READ)

    def stream(self, descriptor: int) -> Stream:
        """One of those that wait."""
        return self._waiting[descriptor][0]

    def leave(self, descriptor: int) -> Stream:
        """One waits no longer; the stream is the caller's from now on."""
        stream, _ = self._waiting.pop(descriptor)
        self._poller.unregister(descriptor)
        return stream

    def longest(self) -> tuple[Stream, float] | None:
        """Who has been silent longest, and since when."""
        return next(iter(self._waiting.values()), None)

    def start_again(self, now: float) -> None:
        """Count everybody's silence from `now`."""
        for descriptor, (stream, _) in self._waiting.items():
            self._waiting[descriptor] = (stream, now)

    def hang_up(self) -> int:
        """Close everybody; how many."""
        closed = 0
        while (found := self.longest()) is not None:
            self.leave(found[0].fileno()).close()
            closed += 1
        return closed
