"""A handler that answers with its process id and its request; with "unread", without reading.

It creates a file with the name of its process id in a folder when it starts, and another one with
the ending ".begun" when its request begins. Processes that append to one file at once on Windows
overwrite each other's lines.
"""

import os
import sys


def create(name):
    with open(os.path.join(sys.argv[1], name), "x"):
        pass


create(f"{os.getpid()}")
if "unread" in sys.argv:
    print("pong")
else:
    request = sys.stdin.read(1)
    create(f"{os.getpid()}.begun")
    request += sys.stdin.read()
    print(os.getpid(), request, os.environ.get("UNIXLOCALPATH"), os.environ.get("UNIXREMOTEPID"))
