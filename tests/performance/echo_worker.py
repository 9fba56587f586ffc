"""A worker that answers each packet with itself, and each message with its flush."""

import sys

stream, answers = sys.stdin.buffer, sys.stdout.buffer
while header := stream.read(4):
    if header == b"0000":
        answers.write(header)
        answers.flush()
    else:
        answers.write(header + stream.read(int(header, 16) - 4))
