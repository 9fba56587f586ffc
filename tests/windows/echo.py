"""A handler that answers with its request, as it comes."""

import msvcrt
import os

for descriptor in (0, 1):
    msvcrt.setmode(descriptor, os.O_BINARY)
while data := os.read(0, 1 << 16):
    while data:
        data = data[os.write(1, data) :]
