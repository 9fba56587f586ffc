"""System calls that differ between operating systems, except those of transport and process.

base.System documents all functions. This package imports few modules, as every command loads it.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    from simpleipc_cli.system.windows import *  # noqa: F403
else:
    from simpleipc_cli.system.posix import *  # noqa: F403


def absolute_path(path: str, resolve: Callable[[str], str] = os.path.abspath) -> str:
    """Return the absolute path; `path` itself if the working directory was removed.

    os.path.realpath as `resolve` resolves links, too.
    """
    try:
        return resolve(path)
    except OSError:
        return path


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.system import base, posix, windows

    FdPoll = base.FdPoll
    _posix: base.System = posix
    _windows: base.System = windows
