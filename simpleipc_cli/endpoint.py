"""Where an endpoint is, also when nobody says: a path that server and clients agree on."""

from __future__ import annotations

import os
import stat

from simpleipc_cli.errors import PathNotFound, PermissionDenied, SipcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PRIVATE = 0o700
_REMEDY = "remove or repair it, or name the endpoint: as PATH or in SIPC_PATH"


class Endpoint:
    """A path, and the folder that has to be private for it, if any."""

    __slots__ = ("_private_folder", "_user", "path")

    def __init__(self, path: str, private_folder: str | None = None, user: int = -1) -> None:
        """`private_folder` must belong to `user` (a uid) and be open to nobody else."""
        self.path = path
        self._private_folder = private_folder
        self._user = user

    def locate(self) -> str:
        """The path, for a client. Ask right before each try to connect.

        Anybody could have made the folder; but once it is ours it stays so, as /tmp is
        sticky. Raises NotPermitted if it is not private, PathNotFound if it is missing.
        """
        if self._private_folder is not None:
            self._check_private(self._private_folder)
        return self.path

    def prepare(self) -> str:
        """The path, for a server: the private folder is made if missing.

        Raises NotPermitted, SipcError.
        """
        if self._private_folder is not None:
            _make_private(self._private_folder)
        return self.locate()

    def _check_private(self, folder: str) -> None:
        try:
            found = os.lstat(folder)
        except OSError:
            raise PathNotFound(f"{self.path} does not exist") from None
        if not stat.S_ISDIR(found.st_mode):
            raise PermissionDenied(f"{folder} is in the way: it is not a folder", _REMEDY)
        if found.st_uid != self._user:
            raise PermissionDenied(
                f"{folder} belongs to somebody else (uid {found.st_uid})", _REMEDY
            )
        if stat.S_IMODE(found.st_mode) != _PRIVATE:
            mode = stat.S_IMODE(found.st_mode)
            raise PermissionDenied(f"{folder} has mode {mode:04o}, not 0700", _REMEDY)


def default_endpoint(environment: Mapping[str, str], user: int) -> Endpoint:
    """$SIPC_PATH, else sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    Where users have no number (-1), on Windows, the last is %LOCALAPPDATA%.
    """
    if path := environment.get("SIPC_PATH"):
        return Endpoint(path)
    if folder := environment.get("XDG_RUNTIME_DIR"):
        return Endpoint(os.path.join(folder, "sipc.sock"))
    if user < 0:
        return Endpoint(os.path.join(environment.get("LOCALAPPDATA", ""), "sipc.sock"))
    folder = f"/tmp/sipc-{user}"  # noqa: S108 - owner and mode are checked
    return Endpoint(f"{folder}/sipc.sock", folder, user)


def _make_private(folder: str) -> None:
    try:
        os.mkdir(folder, _PRIVATE)
        os.chmod(folder, _PRIVATE)  # whatever the umask
    except FileExistsError:
        pass
    except OSError as error:
        kind = PermissionDenied if isinstance(error, PermissionError) else SipcError
        raise kind(f"cannot make the folder {folder}: {error.strerror}", _REMEDY) from error
