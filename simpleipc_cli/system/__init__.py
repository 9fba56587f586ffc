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


def spool_folders(environment: Mapping[str, str]) -> list[str]:
    """Return the directories for spooled bytes, best first; some of them may not work."""
    folders = (environment.get("TMPDIR"), *SPOOL_FOLDERS)  # noqa: F405
    return list(dict.fromkeys(folder for folder in folders if folder))


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simpleipc_cli.system import base, posix, windows

    FdPoll = base.FdPoll
    _posix: base.System = posix
    _windows: base.System = windows
