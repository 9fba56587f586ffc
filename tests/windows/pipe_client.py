"""Clients that do not use the package; the first argument names one."""

import ctypes
import hashlib
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.wire import decode, message, packets

GENERIC_READ, GENERIC_WRITE, OPEN_EXISTING = 0x80000000, 0x40000000, 3
FLUSH = b"0000"


def opened(path):
    """Open the pipe of a path as a blocking file; try again while it is busy."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateFileW.restype = ctypes.c_void_p
    name = "\\\\.\\pipe\\" + path.replace(":", "_", 1).replace("/", "\\")
    while True:
        handle = kernel.CreateFileW(
            name, GENERIC_READ | GENERIC_WRITE, 0, None, OPEN_EXISTING, 0, None
        )
        if handle != ctypes.c_void_p(-1).value:
            return Pipe(kernel, handle)
        busy = 231
        if ctypes.get_last_error() != busy:
            raise ctypes.WinError(ctypes.get_last_error())
        kernel.WaitNamedPipeW(name, 1000)


class Pipe:
    def __init__(self, kernel, handle):
        self._kernel, self._handle = kernel, ctypes.c_void_p(handle)

    def write(self, data):
        done = ctypes.c_ulong()
        if not self._kernel.WriteFile(self._handle, data, len(data), ctypes.byref(done), None):
            raise ctypes.WinError(ctypes.get_last_error())
        assert done.value == len(data)

    def read(self, size=1 << 16):
        """Return some bytes; none at the end."""
        room, done = ctypes.create_string_buffer(size), ctypes.c_ulong()
        if not self._kernel.ReadFile(self._handle, room, size, ctypes.byref(done), None):
            broken_pipe = 109
            if ctypes.get_last_error() != broken_pipe:
                raise ctypes.WinError(ctypes.get_last_error())
            return b""
        return room.raw[: done.value]

    def read_all(self):
        return b"".join(iter(self.read, b""))

    def close(self):
        self._kernel.CloseHandle(self._handle)


def payload_of(wire):
    """Return the payload of a complete message; raise an error for any other."""
    payload, is_complete = decode(wire)
    assert is_complete, wire[-20:]
    return payload


def half_duplex(path, megabytes):
    """Write all of a large request before reading a byte, as git's clients do."""
    piece = bytes(range(256)) * 256
    sent, pipe = hashlib.sha256(), opened(path)
    for _ in range(int(megabytes) * 16):
        pipe.write(packets(piece))
        sent.update(piece)
    pipe.write(FLUSH)
    answer = payload_of(pipe.read_all())
    print(len(answer), hashlib.sha256(answer).digest() == sent.digest())


def many(path, clients, requests):
    """Run clients at once, each with several requests; print the number and the responses."""
    answers = []

    def ask():
        for _ in range(int(requests)):
            pipe = opened(path)
            pipe.write(message(b"ping"))
            answers.append(payload_of(pipe.read_all()))
            pipe.close()

    threads = [threading.Thread(target=ask) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(answers), *sorted(set(answers)))


def raw(path, *all_of_it):
    """Send bytes unchanged, each on a separate connection; print the responses."""
    for what in all_of_it:
        pipe = opened(path)
        pipe.write(what.encode())
        print(pipe.read_all())
        pipe.close()


def each(path, *requests):
    """One after the other; a line for each: its payload, or "cut off"."""
    for request in requests:
        pipe = opened(path)
        pipe.write(message(request.encode()))
        answer = pipe.read_all()
        print(payload_of(answer).decode() if answer.endswith(FLUSH) else "cut off")
        pipe.close()


def leave(path, what):
    """Send bytes unchanged, and close."""
    pipe = opened(path)
    pipe.write(what.encode())
    pipe.close()


def hang(path, what):
    """Send bytes unchanged, report that, and close at the end of standard input."""
    pipe = opened(path)
    pipe.write(what.encode())
    print("sent", flush=True)
    sys.stdin.read()
    pipe.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
