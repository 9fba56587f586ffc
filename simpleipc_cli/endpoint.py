"""Where an endpoint is when nobody says: a path that server and clients agree on."""

from __future__ import annotations

import os
import stat

from simpleipc_cli.errors import NotPermitted, PathNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PRIVATE = 0o700
_REMEDY = "remove or repair it, or name the endpoint: as PATH or in SIPC_PATH"


def default_path(environment: Mapping[str, str], user: int, *, make_folder: bool) -> str:
    """$SIPC_PATH, else sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    The last is a folder that anybody could have made: it must belong to `user` and be
    open to nobody else. It is made if missing and `make_folder`. Raises NotPermitted if
    it is not so, PathNotFound if it is missing.
    """
    if path := environment.get("SIPC_PATH"):
        return path
    if folder := environment.get("XDG_RUNTIME_DIR"):
        return os.path.join(folder, "sipc.sock")
    folder = f"/tmp/sipc-{user}"  # noqa: S108 - owner and mode are checked
    if make_folder:
        _make_private(folder)
    _check_private(folder, user)
    return f"{folder}/sipc.sock"


def _make_private(folder: str) -> None:
    try:
        os.mkdir(folder, _PRIVATE)
        os.chmod(folder, _PRIVATE)  # whatever the umask
    except FileExistsError:
        pass
    except OSError as error:
        raise NotPermitted(f"cannot make the folder {folder}: {error.strerror}", _REMEDY) from error


def _check_private(folder: str, user: int) -> None:
    try:
        found = os.lstat(folder)
    except OSError:
        raise PathNotFound(f"{folder}/sipc.sock does not exist") from None
    if not stat.S_ISDIR(found.st_mode):
        raise NotPermitted(f"{folder} is in the way: it is not a folder", _REMEDY)
    if found.st_uid != user:
        raise NotPermitted(f"{folder} belongs to somebody else (uid {found.st_uid})", _REMEDY)
    if stat.S_IMODE(found.st_mode) != _PRIVATE:
        mode = stat.S_IMODE(found.st_mode)
        raise NotPermitted(f"{folder} has mode {mode:04o}, not 0700", _REMEDY)
