"""A handler that writes more than a pipe holds to standard error; a failed write ends it."""

import sys

sys.stdin.read()
for _ in range(200):
    print("x" * 1000, file=sys.stderr, flush=True)
print("done", end="")
