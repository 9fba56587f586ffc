"""A server in a thread that is a function of its connection's stream, on Linux and Windows."""

from __future__ import annotations

import threading

from helpers.streams import accepted
from helpers.waiting import TIMEOUT
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.pktline import MessageReader
from simpleipc_cli.transport import listen


class Peer:
    """A server for a number of connections, in a thread each; `act(stream)` is what it does.

    A client may close early at any time: what it lacks then is for the test to check.
    """

    def __init__(self, path, act, connections=1):
        self._listener = listen(path, mode=0o600, backlog=64)
        self._act = act
        self.failure = None
        self._threads = [threading.Thread(target=self._accept, args=(connections,))]
        self._threads[0].start()

    def _accept(self, connections):
        for _ in range(connections - 1):
            stream = accepted(self._listener)
            self._threads.append(threading.Thread(target=self._talk, args=(stream,)))
            self._threads[-1].start()
        self._talk(accepted(self._listener))

    def _talk(self, stream):
        try:
            self._act(stream)
        except PeerClosed:
            pass
        except Exception as error:
            self.failure = error
        finally:
            stream.close()

    def join(self):
        for thread in self._threads:  # the first one adds the others
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    def close(self):
        self.join()
        self._listener.stop_listening()
        self._listener.close()
        assert self.failure is None


def request_of(stream):
    """The payload of one whole message."""
    reader, buffer, found = MessageReader(), memoryview(bytearray(1 << 18)), []
    while not reader.complete:
        count = stream.read(buffer, Deadline(TIMEOUT))
        if not count:
            raise PeerClosed("the request was cut off")
        found += [bytes(piece) for piece in reader.feed(buffer[:count])]
    return b"".join(found)
