"""Run `sipc` with a server whose event loop starts all processes but the first.

strace makes each start slow, and a server makes starts that may be slow in threads.
"""

from simpleipc_cli.cli import main
from simpleipc_cli.handlers import exec as handlers

handlers._QUICK = handlers._QUICK_FOR = 3600.0
main()
