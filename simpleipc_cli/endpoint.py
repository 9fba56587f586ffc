"""The path of an endpoint: as given, or the default of server and clients."""

from __future__ import annotations

import os
import stat

from simpleipc_cli import system
from simpleipc_cli.errors import PathNotFound, PermissionDenied, SipcError, file_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PRIVATE = 0o700
_HINT = "remove or repair it, or give the endpoint as PATH or in SIPC_PATH"


class Endpoint:
    """A path, and optionally a directory that must be private."""

    __slots__ = ("_private_folder", "_user", "path")

    def __init__(self, path: str, private_folder: str | None = None, user: int = -1) -> None:
        """`private_folder` must belong to `user` (a uid) with mode 0700."""
        self.path = path
        self._private_folder = private_folder
        self._user = user

    def path_checked(self) -> str:
        """Return the path for a client. Call it before each try to connect.

        Another user may have created it. Once it belongs to this user, no other user can replace
        it, as /tmp is sticky. Raises PermissionDenied if it is not private, PathNotFound if it is
        missing.
        """
        folder = self._private_folder
        if folder is None:
            return self.path
        try:
            status = os.lstat(folder)
        except FileNotFoundError:
            raise PathNotFound(f"{self.path} does not exist") from None
        except OSError as error:
            what = f"cannot check {folder}: {error.strerror}"
            raise PermissionDenied(what, file_hint(error, _HINT)) from error
        if not stat.S_ISDIR(status.st_mode):
            raise PermissionDenied(f"{folder} is not a directory", _HINT)
        if status.st_uid != self._user:
            raise PermissionDenied(f"{folder} belongs to another user (uid {status.st_uid})", _HINT)
        if system.is_ambiguous_user(status.st_uid):
            raise PermissionDenied(f"{folder} may belong to another user", _HINT)
        if stat.S_IMODE(status.st_mode) != _PRIVATE:
            mode = stat.S_IMODE(status.st_mode)
            raise PermissionDenied(f"{folder} has mode {mode:04o}, not 0700", _HINT)
        return self.path

    def ensure_parent(self) -> str:
        """Return the path for a server; create the private directory if it is missing.

        Raises PermissionDenied, SipcError.
        """
        folder = self._private_folder
        if folder is None:
            return self.path
        try:
            os.mkdir(folder, _PRIVATE)
            os.chmod(folder, _PRIVATE)  # independent of the umask
        except FileExistsError:
            pass
        except OSError as error:
            kind = PermissionDenied if isinstance(error, PermissionError) else SipcError
            what = f"cannot create the directory {folder}: {error.strerror}"
            raise kind(what, file_hint(error, _HINT)) from error
        return self.path_checked()


def default_endpoint(environment: Mapping[str, str], user: int) -> Endpoint:
    """Return $SIPC_PATH, else sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    On Windows, where users have no number (-1), use %LOCALAPPDATA% in place of /tmp.
    """
    if path := environment.get("SIPC_PATH"):
        return Endpoint(path)
    if folder := environment.get("XDG_RUNTIME_DIR"):
        return Endpoint(os.path.join(folder, "sipc.sock"))
    if user < 0:
        return Endpoint(os.path.join(environment.get("LOCALAPPDATA", ""), "sipc.sock"))
    folder = f"/tmp/sipc-{user}"  # noqa: S108 - owner and mode are checked
    return Endpoint(f"{folder}/sipc.sock", folder, user)
