"""A handler that echoes its request as it arrives."""

import msvcrt
import os

for descriptor in (0, 1):
    msvcrt.setmode(descriptor, os.O_BINARY)
while data := os.read(0, 1 << 16):
    while data:
        data = data[os.write(1, data) :]
