"""What the file system says about an endpoint, for people."""

from __future__ import annotations

import os
import pwd
import stat

from simpleipc_cli.transport.unix.stream import file_type


def inspect(path: str) -> dict[str, object]:
    """Type, owner's name (or number) and mode of what is at `path`; None where unknown."""
    try:
        found = os.stat(path)
    except OSError:
        return {"type": None, "owner": None, "mode": None}
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return {
        "type": file_type(found.st_mode).split(" ", 1)[1],
        "owner": owner,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
    }
