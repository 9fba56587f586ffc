"""Keeps a crowd of silent connections out of the server's own table of descriptors.

The system copies that table for every handler that is started: with ten thousand silent
connections in it, each request takes three times as long. So of a crowd all but a few are
held by a process of their own, which hands back whoever speaks or goes. It is started when
there is a crowd, and ends when it holds nobody. Where there can be no such process, all goes
on without it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic

from simpleipc_cli.errors import PeerClosed, SipcError
from simpleipc_cli.server.counters import Counters
from simpleipc_cli.server.lobby import Lobby
from simpleipc_cli.server.log import Log
from simpleipc_cli.transport import READ, Holder, Poller, Stream

_KEPT = 96  # silent connections that stay: copying them costs a request a few hundredths, at will
_BATCH = 32  # connections from which on it is worth a message, at will
_SETTLED = 0.1  # seconds of silence behind which a first byte is not to be expected soon, at will
_MOST_ON_THE_WAY = 256  # a user's processes may have but so many as descriptors, mostly 1024
_AIR = 64  # descriptors of the holder's own, and for connections on both their ways
_PAUSE = 0.1  # seconds until what was not taken is tried again, at will
_REST = 1.0  # seconds from a holder's end until another is started, at will
_LONG_REST = 10.0  # the same for one that could not be started, at will
_TIMEOUT = 2.0  # seconds in which a dismissed holder has to end, at will


class Cloakroom:
    """Those silent connections that another process holds."""

    def __init__(
        self,
        lobby: Lobby,
        poller: Poller,
        *,
        start: Callable[[], Holder] | None,
        most: int,
        counters: Counters,
        log: Log,
    ) -> None:
        """Takes from `lobby` what is too much. `start` starts a process that holds them.

        `poller` will tell READ for `descriptor`: call take_back() then. `most` is how many
        descriptors a process can have. Whom the holder closes goes into `counters`.
        """
        self._lobby = lobby
        self._poller = poller
        self._start = start
        self._most = most - _AIR
        self._counters = counters
        self._log = log

        self._holder: Holder | None = None
        self.descriptor = -1
        """What to poll; -1 without a holder."""
        self.away = 0
        """How many are held, those on the way included."""
        self._on_the_way = 0
        self._heard = 0.0  # when the holder has last said something, or was last given something
        self._is_ready = False  # it has said something
        self._not_before = 0.0  # a moment until which nothing is tried
        self._closes_at: float | None = None  # when all is over
        self._leaves_at: float | None = None  # when a dismissed holder is ended
        self._held_up_until: float | None = None  # nobody can be taken back before
        self._complained = False

    # -- there -------------------------------------------------------------------------------

    def tidy(self, now: float) -> None:
        """Hand over those that are too many and silent for long; end a holder of nobody."""
        self.go_on(now)
        if self._leaves_at is not None:
            return
        if not self._is_crowded():
            if self._holder is not None and not self.away:
                self._dismiss(now)
        elif self._has_settled(now):
            self._open(now)
            while self._give(silent_since=now - _SETTLED):
                pass

    def take(self, now: float) -> bool:
        """Hand over some at once, however young; False if that cannot be, or not yet."""
        if self._is_crowded():
            self._open(now)
        return self._give(silent_since=inf)

    def exchange(self, newest: Stream | None) -> bool:
        """Hand over one in any case; False if that cannot be now.

        Is the holder full, it closes who has been silent longest of all. `newest` stays here.
        """
        if not self.away or self._is_busy():
            return False
        streams = self._lobby.longest_of(1, inf)
        if not streams or streams[0] is newest:
            return False
        return self._hand_over(streams, close=int(self.away >= self._most))

    def is_awaited(self) -> bool:
        """Whether exchange() may be possible in a moment: the holder is busy, and not dead."""
        if self._holder is None or self._closes_at is not None:
            return False
        return self._is_busy() and monotonic() < self._heard + _TIMEOUT

    def _is_busy(self) -> bool:
        """Whether it has not yet dealt with what it was told last."""
        return self._on_the_way >= _BATCH or not self._is_ready

    def _is_crowded(self) -> bool:
        return len(self._lobby) >= _KEPT + _BATCH

    def _has_settled(self, now: float) -> bool:
        longest = self._lobby.longest()
        return longest is not None and longest[1] <= now - _SETTLED

    def _give(self, silent_since: float) -> bool:
        room = min(_MOST_ON_THE_WAY - self._on_the_way, self._most - self.away)
        most = min(room, len(self._lobby) - _KEPT, 4 * _BATCH)
        streams = self._lobby.longest_of(most, silent_since)
        return bool(streams) and self._hand_over(streams)

    def _hand_over(self, streams: list[Stream], *, close: int = 0) -> bool:
        """Give them away, if they are taken: they are here until then."""
        if self._holder is None or self._leaves_at is not None or self._closes_at is not None:
            return False
        if monotonic() < self._not_before:
            return False
        try:
            taken = self._holder.give(streams, close=close)
        except SipcError as error:
            self._complain(error)
            self._not_before = monotonic() + _LONG_REST
            return False
        if not taken:
            self._not_before = monotonic() + _PAUSE
            return False
        if not self._on_the_way:
            self._heard = monotonic()
        for stream in streams:
            self._lobby.leave(stream.fileno())
            stream.close()
        self.away += len(streams)
        self._on_the_way += len(streams)
        return True

    # -- and back ----------------------------------------------------------------------------

    def take_back(self, *, room: bool) -> Stream | None:
        """One who has spoken or gone, or None. Raises BlockingIOError when there is no more.

        Raises OutOfDescriptors if somebody would come and there is no room for one.
        """
        if self._holder is None:
            raise BlockingIOError
        try:
            word = self._holder.hear(room=room)
        except PeerClosed as error:
            self._on_end(error)
            raise BlockingIOError from None
        self._is_ready = True
        self._not_before = 0.0
        self._heard = monotonic()
        if self._leaves_at is not None:
            self._leaves_at = self._heard + _TIMEOUT
        self._on_the_way -= word.held
        self.away -= word.closed
        self._counters.closed_silent += word.closed
        if word.stream is not None:
            self.away -= 1
        return word.stream

    def hold_up(self, now: float) -> None:
        """There is no descriptor for one who comes back: he waits."""
        self._held_up_until = now + _PAUSE
        if self._leaves_at is not None:
            self._leaves_at = now + _TIMEOUT
        self._poller.forget(self.descriptor)

    @property
    def is_held_up(self) -> bool:
        """Whether somebody may wait to come back for want of a descriptor."""
        return self._held_up_until is not None

    # -- the process ---------------------------------------------------------------------------

    def pause(self, now: float) -> float | None:
        """Seconds after which to call tidy(), or behind close_at() go_on()."""
        if self._holder is not None:
            closing = self._closes_at if self._leaves_at is None else self._leaves_at
            moments = [one for one in (closing, self._held_up_until) if one is not None]
            if moments:
                return max(0.0, min(moments) - now)
        longest = self._lobby.longest()
        if longest is None or not self._is_crowded() or not self._may_give():
            return None
        return max(0.0, self._not_before - now, longest[1] + _SETTLED - now)

    def _may_give(self) -> bool:
        """Whether time alone is missing: that there is room again will be heard."""
        if self._closes_at is not None:
            return False
        if self._holder is None:
            return self._start is not None and self._most >= _BATCH
        return self._on_the_way < _MOST_ON_THE_WAY and self.away < self._most

    def go_on(self, now: float) -> None:
        """Do what was put off: take back, or end who was to leave by now."""
        if self._held_up_until is not None and now >= self._held_up_until:
            self._held_up_until = None
            self._poller.watch(self.descriptor, READ)
        if self._leaves_at is not None and now >= self._leaves_at:
            self.end()
        if self._closes_at is not None and (now >= self._closes_at or not self.away):
            self._dismiss(now)

    def close_at(self, moment: float) -> None:
        """Take nobody any more, and close who is still silent at that moment."""
        self._closes_at = moment

    def _dismiss(self, now: float) -> None:
        """Let the holder hand back who has spoken by now, close the others, and end."""
        if self._holder is not None and self._leaves_at is None:
            self._leaves_at = now + _TIMEOUT
            self._holder.dismiss()

    def end(self) -> None:
        """End the holder at once; whom it held is closed."""
        if self._holder is None:
            return
        self._poller.forget(self.descriptor)
        self._holder.end()
        self._counters.closed_silent += self.away
        self._holder = None
        self.descriptor = -1
        self.away = self._on_the_way = 0
        self._leaves_at = self._held_up_until = None
        self._not_before = monotonic() + _REST

    def _open(self, now: float) -> None:
        """Start a holder, if there is none and may be one."""
        if self._start is None or self._most < _BATCH or self._closes_at is not None:
            return
        if self._holder is not None or now < self._not_before:
            return
        try:
            self._holder = self._start()
        except SipcError as error:
            self._complain(error)
            self._not_before = now + _LONG_REST
            return
        self._is_ready = False
        self._heard = now
        self.descriptor = self._holder.fileno()
        self._poller.watch(self.descriptor, READ)
        self._log.detail("many are silent: another process holds most of them")

    def _on_end(self, error: PeerClosed) -> None:
        """The holder has ended, as it was told to or not."""
        dismissed = self._leaves_at is not None
        held = self.away
        self.end()
        if dismissed:
            return
        if held:
            self._log.problem(
                f"{held} silent connections were closed: {error}, which held them: see who ended it"
            )
        else:
            self._complain(error)
            self._not_before = monotonic() + _LONG_REST

    def _complain(self, error: SipcError) -> None:
        """Say once that it cannot be done: nothing is lost by that but time."""
        if not self._complained:
            self._complained = True
            self._log.problem(
                f"silent connections cannot be held by another process ({error}): "
                "handlers start the more slowly the more there are"
            )
