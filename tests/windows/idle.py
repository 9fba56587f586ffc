"""Keeps Wine running: its own server, once it is started, lives until the last program ends."""

import sys

print("here", flush=True)
sys.stdin.read()
