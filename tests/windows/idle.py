"""Keeps Wine running: the wineserver runs until the last Windows program ends."""

import sys

print("here", flush=True)
sys.stdin.read()
