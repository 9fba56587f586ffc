"""The entry point of `sipc` and `python -m simpleipc_cli`."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself is slow to load: see cli/__init__.py
import gc

# Until main() takes over, Ctrl-C ends the process quietly: Python would show a traceback.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

# Loading modules creates no garbage. The verb switches the collector on: see cli/__init__.py.
gc.disable()

from simpleipc_cli.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
