"""Stop this process, then run a Python program in it: `python stopped.py PROGRAM ARGUMENT...`.

While it is stopped, strace can be attached: the calls of Python's start are then not counted. It
imports nothing that Python has not loaded: sipc should load its modules as it always does.
"""

import posix
import sys

SIGSTOP = 19

posix.kill(posix.getpid(), SIGSTOP)
sys.argv = sys.argv[1:]
__file__ = sys.argv[0]
with open(__file__, encoding="utf-8") as _program:
    exec(compile(_program.read(), __file__, "exec"))
