"""A worker that answers with the number of the request and its text.

"end" ends it, "leave" before it has read the flush. After "last" it ends as soon as it is given
another request, and has not read a byte of that.
"""

import _winapi
import msvcrt
import os
import sys
import time

stdin = open(0, "rb", buffering=0)  # noqa: SIM115 - kept to the end
stdout = open(1, "wb", buffering=0)  # noqa: SIM115


def read(size):
    pieces = []
    while size:
        piece = stdin.read(size)
        if not piece:
            sys.exit()
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def write(data):
    while data:
        data = data[stdout.write(data) :]


for number in range(1, 1000):
    message = b""
    while (length := int(read(4), 16)) != 0:
        message += read(length - 4)
        if message == b"leave":
            sys.exit(3)
    if message == b"end":
        sys.exit(3)
    ends = message == b"last"
    message = b"%d %d " % (os.getpid(), number) + message
    for at in range(0, len(message), 65516):
        piece = message[at : at + 65516]
        write(b"%04x%s" % (len(piece) + 4, piece))
    write(b"0000")
    while ends:
        if _winapi.PeekNamedPipe(msvcrt.get_osfhandle(0), 0)[0]:
            sys.exit(3)
        time.sleep(0.005)
