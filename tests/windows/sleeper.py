"""A handler that sleeps, and says so."""

import sys
import time

print("asleep", file=sys.stderr, flush=True)
time.sleep(1000)
