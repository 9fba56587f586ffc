"""The way in: `sipc` and `python -m simpleipc_cli`."""

from __future__ import annotations

import signal

# Until main() takes over, Ctrl-C ends the process quietly: Python would show a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from simpleipc_cli.cli import main

if __name__ == "__main__":
    main()
