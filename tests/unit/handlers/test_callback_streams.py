"""The asyncio event loop of coroutine functions, at moments that only a test can time."""

from __future__ import annotations

import asyncio
import threading

from helpers.waiting import TIMEOUT

from simpleipc_cli.handlers.callback_streams import Coroutines


def test_a_coroutine_that_ends_together_with_the_event_loop_is_reported():
    """Its last step comes directly after the loop's own end was requested."""
    coroutines = Coroutines(1)
    begun, is_ending, reports = threading.Event(), threading.Event(), []
    join = coroutines._thread.join

    def join_and_say_so(timeout):
        is_ending.set()
        join(timeout)

    async def end():
        begun.set()
        assert is_ending.wait(TIMEOUT)
        await asyncio.sleep(0)
        return b"response"

    coroutines.start(end(), lambda *report: reports.append(report))
    assert begun.wait(TIMEOUT)
    coroutines._thread.join = join_and_say_so
    coroutines.close()
    assert reports == [(None, b"response")]


def test_a_coroutine_that_cleans_up_when_the_event_loop_ends_is_not_cancelled_again():
    coroutines = Coroutines(1)
    begun, is_ending, cleaned = threading.Event(), threading.Event(), []
    join = coroutines._thread.join

    def join_and_say_so(timeout):
        is_ending.set()
        join(timeout)

    async def clean_up():
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            assert is_ending.wait(TIMEOUT)
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.append(True)

    cancel = coroutines.start(clean_up(), lambda *_report: None)
    assert begun.wait(TIMEOUT)
    cancel()
    coroutines._thread.join = join_and_say_so
    coroutines.close()
    assert cleaned == [True]
