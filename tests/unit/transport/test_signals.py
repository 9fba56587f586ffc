"""A signal ends a wait on a stream, also one that came at the worst moment."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest
from helpers.procfs import is_in_syscall
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.transport import connect


class Heard(Exception):
    """The signal's handler was called."""


@pytest.fixture
def heard():
    def hear(_number, _frame):
        raise Heard

    before = signal.signal(signal.SIGUSR1, hear)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("limit", [None, 1000.0], ids=["without limit", "with a limit"])
def test_a_signal_that_interrupts_no_call_is_handled(endpoint, heard, limit):
    """As one that comes just before the call: here it interrupts a thread that does not mind."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        stream = connect(str(endpoint), Deadline(None))
        silent, _ = listener.accept()

        def signalling():
            wait_until(lambda: is_in_syscall(os.getpid(), "recvfrom"), "the read to wait")
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            if not ended.wait(TIMEOUT):
                given_up.append(True)
            silent.close()  # else a read that hears nothing would wait for ever

        ended, given_up = threading.Event(), []
        thread = threading.Thread(target=signalling)
        thread.start()
        try:
            with pytest.raises(Heard):
                stream.read(memoryview(bytearray(10)), Deadline(limit))
        finally:
            ended.set()
            thread.join()
            stream.close()
        assert not given_up
