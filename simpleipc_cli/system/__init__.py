"""What differs between operating systems and is neither transport nor process.

base.System lists and documents what it offers. Loads little: every call of every verb needs it.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from simpleipc_cli.system.windows import *  # noqa: F403
else:
    from simpleipc_cli.system.posix import *  # noqa: F403

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.system import base, posix, windows

    FdPoll = base.FdPoll
    _posix: base.System = posix
    _windows: base.System = windows
