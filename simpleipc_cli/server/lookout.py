"""What one exchange waits for: with all others at the desk first, alone when it leaves that."""

from __future__ import annotations

from typing import Generic, TypeVar

from simpleipc_cli.transport import Poller, new_poller

Owner = TypeVar("Owner")


class Lookout(Generic[Owner]):
    """Descriptors of one owner among those that a shared poller watches."""

    __slots__ = ("_owner", "_owners", "_poller", "_wanted")

    def __init__(self, poller: Poller, owners: dict[int, Owner], owner: Owner) -> None:
        """`owners` tells the poller's user whose a descriptor is; kept up here."""
        self._poller = poller
        self._owners = owners
        self._owner = owner
        self._wanted: dict[int, int] = {}

    def watch(self, descriptor: int, wanted: int) -> None:
        """See Poller."""
        if self._wanted.get(descriptor) != wanted:
            self._wanted[descriptor] = wanted
            self._owners[descriptor] = self._owner
            self._poller.register(descriptor, wanted)

    def forget(self, descriptor: int) -> None:
        """See Poller."""
        if self._wanted.pop(descriptor, None) is not None:
            del self._owners[descriptor]
            self._poller.unregister(descriptor)

    def leave(self) -> None:
        """From now on the owner waits by itself, in a thread of its own."""
        own = new_poller()
        for descriptor, wanted in self._wanted.items():
            self._poller.unregister(descriptor)
            del self._owners[descriptor]
            own.register(descriptor, wanted)
        self._poller, self._owners = own, dict.fromkeys(self._wanted, self._owner)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """See Poller. Only for an owner that has left."""
        return self._poller.wait(timeout)

    def end(self) -> None:
        """The owner is over, and forgotten: a circle of objects would be freed late."""
        self._owners = {}
        del self._owner

    def close(self) -> None:
        """The owner waits for nothing any more. Only for one that has left."""
        self._poller.close()
