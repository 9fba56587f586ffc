"""A handler that says more than a pipe holds on its standard error, and fails if it cannot."""

import sys

sys.stdin.read()
for _ in range(200):
    print("x" * 1000, file=sys.stderr, flush=True)
print("done", end="")
