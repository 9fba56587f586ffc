"""A signal ends a wait on a stream, even a signal just before the call."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest
from helpers.procfs import is_in_syscall
from helpers.waiting import TIMEOUT, wait_until
from helpers.xnu import portable

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.transport import connect


class Handled(Exception):
    """Raised by the handler of the signal."""


@pytest.fixture
def handled():
    def handler(_number, _frame):
        raise Handled

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("call", ["recvfrom", "poll"])
@pytest.mark.parametrize("limit", [None, 1000.0], ids=["without limit", "with a limit"])
def test_a_signal_that_interrupts_no_call_is_handled(endpoint, handled, limit, call):
    """Act as a signal just before the call: it interrupts another thread, no call here."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        stream = connect(str(endpoint), Deadline(None))
        if call == "poll":
            stream = portable(stream)
        silent, _ = listener.accept()

        def signalling():
            wait_until(lambda: is_in_syscall(os.getpid(), call), "the read to wait")
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            if not ended.wait(TIMEOUT):
                not_handled.append(True)
            silent.close()  # else a read that gets no signal would not end

        ended, not_handled = threading.Event(), []
        thread = threading.Thread(target=signalling)
        thread.start()
        try:
            with pytest.raises(Handled):
                stream.read(memoryview(bytearray(10)), Deadline(limit))
        finally:
            ended.set()
            thread.join()
            stream.close()
        assert not not_handled
