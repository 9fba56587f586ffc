"""A handler that writes its process's number to a file, and answers with it and its request."""

import os
import sys

with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\n")
request = sys.stdin.read()
print(os.getpid(), request, os.environ.get("UNIXLOCALPATH"), os.environ.get("UNIXREMOTEPID"))
