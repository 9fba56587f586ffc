"""The entry point of `sipc` and `python -m simpleipc_cli`."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself is slow to load: see cli/__init__.py

# Until main() takes over, Ctrl-C ends the process quietly: Python would show a traceback.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from simpleipc_cli.cli import main

if __name__ == "__main__":
    main()
