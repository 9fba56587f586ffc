"""Starts sipc in a group of its own, and sends that Ctrl-Break once a line has come from it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

SIPC = str(Path(__file__).with_name("sipc_there.py"))

if __name__ == "__main__":
    program = subprocess.Popen(
        [sys.executable, SIPC, *sys.argv[1:]],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
    )
    print(program.stderr.readline().decode().strip(), flush=True)
    os.kill(program.pid, signal.CTRL_BREAK_EVENT)
    rest = program.communicate(timeout=60)[1]
    print(program.returncode, rest.decode())
