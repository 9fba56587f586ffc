"""A handler that reports its start, and sleeps."""

import sys
import time

print("asleep", file=sys.stderr, flush=True)
time.sleep(1000)
