"""The way in: accepts connections, lets the silent wait, and keeps room for the others."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.counters import Counters
from simpleipc_cli.server.descriptors import DescriptorLimit
from simpleipc_cli.server.limits import Limits
from simpleipc_cli.server.lobby import Lobby
from simpleipc_cli.server.log import Log
from simpleipc_cli.transport import READ, Listener, OutOfDescriptors, Poller, Stream

_NO_ROOM_PAUSE = 0.1  # seconds before accepting is tried again without descriptors, at will
_SHORT_FOR = 60.0  # seconds without a shortage after which the next is another one, at will
_ACCEPT_AT_ONCE = 256  # connections accepted before others get their turn, at will
_DESCRIPTORS_A_REQUEST = 6  # both ends of two pipes, pidfd and spool, the connection apart
_DESCRIPTORS_OF_OURS = 24  # standard streams, listener, poller, bell, latches, and some air
LEAST_DESCRIPTORS = _DESCRIPTORS_OF_OURS + _DESCRIPTORS_A_REQUEST + 2
"""How many descriptors a server must be allowed at least."""

_YOUNG = 0.1  # seconds in which a connection's first byte may be on its way, at will


class Entrance:
    """Everybody who has connected and not spoken yet, and the queue they came from."""

    def __init__(
        self,
        listener: Listener,
        poller: Poller,
        *,
        limits: Limits,
        log: Log,
        counters: Counters,
        descriptors: DescriptorLimit,
        unanswered: Callable[[], int],
        reserved: Callable[[], int],
        admit: Callable[[Stream], None],
    ) -> None:
        """`poller` tells when to call on_ready(). Who has spoken goes to `admit`.

        `unanswered` is how many of these are not done, `reserved` how many descriptors others
        hold.
        """
        self._listener = listener
        self._poller = poller
        self._limits = limits
        self._log = log
        self._counters = counters
        self._descriptors = descriptors
        self._unanswered = unanswered
        self._reserved = reserved
        self._admit = admit

        self._lobby = Lobby(poller)
        self._short_at: float | None = None  # when there was no room, and that is known
        self._draining = False  # nobody new but those in the queue
        self._paused_until: float | None = None  # no room: accept nobody before this
        self.is_queue_open = True
        """Whether somebody may still wait in the kernel's queue."""
        poller.register(listener.fileno(), READ)

    @property
    def silent(self) -> int:
        """How many have connected and said nothing."""
        return len(self._lobby)

    @property
    def is_paused(self) -> bool:
        """Whether nobody is accepted for want of room, which the end of a request may make."""
        return self._paused_until is not None

    def pause(self, silence: float) -> float | None:
        """Seconds after which to call go_on() or drain(); `silence` is what drain() will allow."""
        now = monotonic()
        ends = []
        if self._paused_until is not None:
            ends.append(max(0.0, self._paused_until - now))
        elif self._draining and self.is_queue_open:
            return 0.0
        longest = self._lobby.longest()
        if longest is not None and self._draining:
            ends.append(max(0.0, longest[1] + silence - now))
        return min(ends, default=None)

    def on_ready(self, descriptor: int) -> None:
        """Somebody has spoken or gone, or new ones wait."""
        if descriptor in self._lobby:
            self._on_silent(descriptor)
        elif not self._draining:
            self._accept(_ACCEPT_AT_ONCE)

    def go_on(self) -> None:
        """Tidy up. Accept again, if that was paused and there may be room by now."""
        if self._descriptors.is_raised and self._taken() <= self._descriptors.original // 2:
            self._descriptors.lower()
        if self._paused_until is None or monotonic() < self._paused_until:
            return
        if self._must_wait():
            self._pause_accepting()
            return
        self._paused_until = None
        self._poller.register(self._listener.fileno(), READ)

    def begin_drain(self) -> None:
        """The path goes; nobody new but those who wait in the queue. The silent start again."""
        now = monotonic()
        self._draining = True
        self._poller.unregister(self._listener.fileno())
        self._listener.withdraw()
        if self._listener.keeps_queue:
            self.close_queue()
        self._lobby.start_again(now)

    def drain(self, silence: float) -> None:
        """Empty the queue, and close who has been silent for so many seconds."""
        now = monotonic()
        if self.is_queue_open and (self._paused_until is None or now >= self._paused_until):
            self._paused_until = None
            if self._must_wait():
                self._pause_accepting()
            elif self._accept(_ACCEPT_AT_ONCE):
                self.close_queue()
        while (longest := self._lobby.longest()) is not None and longest[1] <= now - silence:
            self._lose_patience(longest[0])

    def close_queue(self) -> None:
        """Accept nobody any more."""
        if not self._draining:
            self._listener.withdraw()
        self.is_queue_open = False
        self._paused_until = None
        self._listener.close()

    def hang_up(self) -> None:
        """Close everybody who is silent."""
        self._counters.closed_silent += self._lobby.hang_up()

    def _accept(self, most: int) -> bool:
        """Accept those who wait, `most` at once; True if nobody is left."""
        for _ in range(most):
            try:
                stream = self._listener.accept()
            except BlockingIOError:
                return True
            except OutOfDescriptors:
                self._make_room(None)
                self._pause_accepting()
                return False
            except SipcError as error:
                self._log.problem(error.text)
                self._pause_accepting()
                return False
            self._receive(stream)
            while self._is_over():
                if not self._make_room(stream):
                    self._pause_accepting()
                    return False
        return False

    def _receive(self, stream: Stream) -> None:
        self._counters.accepted += 1
        if not self._is_allowed(stream):
            self._counters.refused += 1
            stream.close()
        elif not self._has_spoken(stream):
            self._lobby.enter(stream, monotonic())

    def _is_allowed(self, stream: Stream) -> bool:
        allowed = self._limits.allowed_users
        if allowed is None or (peer := stream.peer()).uid in allowed:
            return True
        self._log.news(f"refused uid={peer.uid} pid={peer.pid}: not one of --allow-user")
        return False

    def _has_spoken(self, stream: Stream) -> bool:
        """Whether a connection is no longer silent: it was admitted, or has gone."""
        try:
            spoken = stream.peek_now()
        except BlockingIOError:
            return False
        if spoken:
            self._admit(stream)
        else:
            self._counters.looked += 1
            self._log.detail("somebody looked: connected, and closed without a byte")
            stream.close()
        return True

    def _on_silent(self, descriptor: int) -> None:
        if self._is_silent(self._lobby.stream(descriptor)):
            return  # a false alarm
        self._has_spoken(self._lobby.leave(descriptor))

    @staticmethod
    def _is_silent(stream: Stream) -> bool:
        try:
            stream.peek_now()
        except BlockingIOError:
            return True
        return False

    # -- room ------------------------------------------------------------------------------

    def _is_over(self, more: int = 0) -> bool:
        """Whether connections, and `more`, take what the threads need for their handlers."""
        return self._taken() + more > self._descriptors.current - _DESCRIPTORS_OF_OURS

    def _must_wait(self) -> bool:
        """Whether there is no room for one more before a request ends."""
        return self._is_over(more=1) and not self._lobby

    def _taken(self) -> int:
        """How many descriptors connections and their handlers have, and one more request would."""
        unanswered = self._unanswered()
        running = min(self._limits.threads, unanswered + 1)
        taken = len(self._lobby) + unanswered + running * _DESCRIPTORS_A_REQUEST
        return taken + self._reserved()

    def _make_room(self, newest: Stream | None) -> bool:
        """See that one more can be accepted; False if that must wait. `newest` stays."""
        if self._descriptors.raise_to_most():
            return True
        self._say_short()
        return self._close_longest(newest)

    def _close_longest(self, newest: Stream | None) -> bool:
        """Close who has been silent longest; False if there is nobody.

        Not the newest, nor one so young that its first byte may be on its way.
        """
        longest = self._lobby.longest()
        if longest is None:
            return False
        stream, since = longest
        if stream is newest or monotonic() < since + _YOUNG:
            return False
        self._lose_patience(stream)
        return True

    def _say_short(self) -> None:
        """Say it once: under load there may be room for a moment, again and again."""
        now = monotonic()
        if self._short_at is None or now > self._short_at + _SHORT_FOR:
            self._log.problem(
                "descriptors run short: silent connections are closed, others wait: "
                "allow more with ulimit -n"
            )
        self._short_at = now

    def _lose_patience(self, stream: Stream) -> None:
        """Close a silent connection, unless it has spoken since we last looked.

        That may be long ago: we may have been stopped, or the whole machine suspended.
        """
        self._lobby.leave(stream.fileno())
        if not self._has_spoken(stream):
            self._counters.closed_silent += 1
            stream.close()

    def _pause_accepting(self) -> None:
        self._paused_until = monotonic() + _NO_ROOM_PAUSE
        if not self._draining:
            self._poller.register(self._listener.fileno(), 0)
