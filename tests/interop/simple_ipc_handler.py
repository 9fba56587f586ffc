#!/usr/bin/env python3
"""Speaks the commands of git's own test helper, `test-tool simple-ipc`, as a handler.

sipc serve PATH --exec simple_ipc_handler.py
"""

import os
import signal
import sys
import time

ROWS = 10_000
SLOW_ROWS, SLOW_PAUSE = 1_000, 0.01  # seconds


def row(number: int) -> bytes:
    """A line of the long responses."""
    return b"big: %075d\n" % number


def sendbytes(ballast: bytes) -> bytes:
    """Return whether all bytes up to a NUL equal the first: git compares a C string."""
    ballast = ballast.split(b"\0")[0]
    if different := len(ballast) - ballast.count(ballast[:1] or b"?"):
        return b"errs:%d\n" % different
    return b"rcvd:%s%08d\n" % (ballast[:1] or b"\0", len(ballast))


def main() -> None:
    """Answer one request."""
    request = sys.stdin.buffer.read()
    say = sys.stdout.buffer.write
    if request == b"ping":
        say(b"pong")
    elif request == b"big":
        say(b"".join(map(row, range(ROWS))))
    elif request == b"chunk":
        for number in range(ROWS):
            say(row(number))
    elif request == b"slow":
        for number in range(SLOW_ROWS):
            say(row(number))
            sys.stdout.flush()
            time.sleep(SLOW_PAUSE)
    elif request.startswith(b"sendbytes "):
        say(sendbytes(request.removeprefix(b"sendbytes ")))
    elif request == b"quit":
        os.kill(os.getppid(), signal.SIGTERM)  # serve --quit-on quit could do this
    else:
        say(b"unhandled command: " + request.split(b"\0")[0])


main()
