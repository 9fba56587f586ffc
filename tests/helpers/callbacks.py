"""Servers of the API in this process, and what they log."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager

from helpers.waiting import TIMEOUT, wait_until
from simpleipc_cli.api.server import Server

LOGGER = "simpleipc_cli"


def reverse(request):
    return request[::-1]


def reverse_stream(request, reply):
    reply.write(request.read()[::-1])


async def reverse_later(request):
    await asyncio.sleep(0)
    return request[::-1]


async def reverse_stream_later(request, reply):
    await reply.write((await request.read())[::-1])


KINDS = {
    "bytes": reverse,
    "stream": reverse_stream,
    "async-bytes": reverse_later,
    "async-stream": reverse_stream_later,
}
"""One callback of each kind; all answer with the request backwards."""


class Gate:
    """Holds calls until the test opens it."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self._open = threading.Event()

    def pass_through(self):
        self.begun.release()
        assert self._open.wait(TIMEOUT)
        self.ended.release()

    def wait_until_begun(self, number=1):
        for _ in range(number):
            assert self.begun.acquire(timeout=TIMEOUT)

    def wait_until_ended(self, number=1):
        for _ in range(number):
            assert self.ended.acquire(timeout=TIMEOUT)

    def open(self):
        self._open.set()

    def as_kind(self, kind):
        """A callback of a kind that waits here and then answers with the request backwards."""

        def call(request):
            self.pass_through()
            return request[::-1]

        def call_stream(request, reply):
            self.pass_through()
            reverse_stream(request, reply)

        async def call_later(request):
            await asyncio.to_thread(self.pass_through)
            return request[::-1]

        async def call_stream_later(request, reply):
            await asyncio.to_thread(self.pass_through)
            await reverse_stream_later(request, reply)

        found = {
            "bytes": call,
            "stream": call_stream,
            "async-bytes": call_later,
            "async-stream": call_stream_later,
        }
        return found[kind]


class Outcomes:
    """What the servers of this process log: see the fixture `logged`."""

    def __init__(self, caplog):
        self._caplog = caplog
        caplog.set_level(logging.DEBUG, logger=LOGGER)

    @property
    def records(self):
        return [record for record in list(self._caplog.records) if record.name == LOGGER]

    def wait_for(self, *outcomes):
        """Wait until requests have ended; check how, in any order: the log comes last."""

        def found():
            return [record.outcome for record in self.records if hasattr(record, "outcome")]

        wait_until(lambda: len(found()) >= len(outcomes), f"{len(outcomes)} requests to end")
        assert sorted(found()) == sorted(outcomes)

    def tracebacks(self):
        """The exceptions whose tracebacks were logged."""
        return [record.exc_info[1] for record in self.records if record.exc_info]

    def messages(self):
        return [record.getMessage() for record in self.records]


@contextmanager
def answering(path, callback, **options):
    """Run a server; leaving the `with` ends all requests at once, also after a failed test."""
    server = Server(path, callback, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.stop()
        assert server.wait(TIMEOUT)
