"""A worker that carries out its requests: the first word is a command, the rest its arguments.

Each message is packets and a flush, over standard input and output. With the argument "echo" it
returns every request instead.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def take(count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        piece = os.read(0, count - len(taken))
        if not piece:
            sys.exit(0)
        taken += piece
    return taken


def request() -> bytes:
    payload = b""
    while length := int(take(4), 16):
        payload += take(length - 4)
    return payload


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def packet(payload: bytes) -> bytes:
    pieces = [payload[at : at + 65516] for at in range(0, len(payload), 65516)]
    return b"".join(b"%04x%s" % (len(piece) + 4, piece) for piece in pieces)


def answer(payload: bytes) -> None:
    write(packet(payload) + b"0000")


def touch(path: str) -> None:
    open(path, "w").close()


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.002)


def act(what: str, *rest: str) -> None:
    match what:
        case "echo":
            answer(" ".join(rest).encode())
        case "pid":
            answer(b"%d" % os.getpid())
        case "environment":
            answer("\n".join(f"{name}={value}" for name, value in os.environ.items()).encode())
        case "exit":  # without a response
            sys.exit(int(rest[0]))
        case "once":  # the first worker that gets this exits, another one responds
            if not os.path.exists(rest[0]):
                touch(rest[0])
                sys.exit(5)
            answer(b"again")
        case "last":  # respond, then exit
            answer(b"%d" % os.getpid())
            sys.exit(0)
        case "wait":  # until a file exists, then respond
            for begun in rest[1:]:
                touch(begun)
            wait_for(rest[0])
            answer(b"waited")
        case "begin":  # a response, which ends when a file exists
            write(packet(b"begun"))
            wait_for(rest[0])
        case "half":
            write(packet(b"half"))
            sys.exit(3)
        case "kill":
            write(packet(b"half")[:-1])
            os.kill(os.getpid(), signal.SIGKILL)
        case "close":
            write(packet(b"half"))
            os.close(1)
            time.sleep(1000)
        case "nonsense":
            write(packet(b"half") + b"hello\x07 world")
            time.sleep(1000)
        case "behind":  # more than one response in one piece
            write(packet(b"good") + b"0000" + packet(b"bad") + b"0000")
        case "between":  # something later, while it has no request
            answer(b"good")
            wait_for(rest[0])
            write(packet(b"bad") + b"0000")
            touch(rest[1])
        case "hang":
            time.sleep(1000)
        case "deaf":  # reads no more, and leaves a child running
            os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")
            answer(b"good")
            time.sleep(1000)
        case "complain":  # on standard error, one word a line, without the end of the last
            os.write(2, "\n".join(rest).encode())
            answer(b"good")
        case "flood":  # standard error, while it has no request
            answer(b"good")
            wait_for(rest[0])
            for _ in range(1000):
                os.write(2, b"x" * 9999 + b"\n")
            touch(rest[1])
        case "slow":
            for byte in packet(b"slow") + b"0000":
                write(bytes([byte]))
                time.sleep(0.002)
        case _:
            raise ValueError(what)


if __name__ == "__main__":
    if "ignore" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        payload = request()
        if "echo" in sys.argv:
            answer(payload)
        else:
            act(*payload.decode().split())
