"""Where an endpoint is: at a given path, or at the default places of server and clients."""

from __future__ import annotations

import os
import stat

from simpleipc_cli import system
from simpleipc_cli.errors import (
    NotListening,
    OutOfResources,
    PathNotFound,
    PermissionDenied,
    ServerBusy,
    SipcError,
    file_hint,
)
from simpleipc_cli.transport import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.transport import Stream

_PRIVATE = 0o700
_RUNTIME_FOLDERS = "/run/user"
"""Where systemd creates the directories for XDG_RUNTIME_DIR (pam_systemd(8))."""

_HINT = "remove or repair it, or give the endpoint as PATH or in SIPC_PATH"


class Endpoint:
    """A path, and optionally a directory that must be private, and another place for clients."""

    __slots__ = ("_other", "_path", "_private_folder", "_user", "path", "warning")

    def __init__(
        self,
        path: str,
        private_folder: str | None = None,
        user: int = -1,
        other: Endpoint | None = None,
    ) -> None:
        """`private_folder` must belong to `user` (a uid) with mode 0700.

        Clients try `other` if no server listens at `path`; servers do not.
        """
        self.path = path
        """The path; after connect(), that of the place where a server listens."""
        self.warning = ""
        """What a server should log about the path."""
        self._path = path
        self._private_folder = private_folder
        self._user = user
        self._other = other

    def connect(self, deadline: Deadline) -> Stream:
        """Connect once to the server; if none listens, try the other place.

        Raises what transport.connect() raises, and PermissionDenied for a directory that is not
        private. If no server listens at either place, the error is that of the first; its text
        says why the other place is not used.
        """
        self.path = self._path
        try:
            return connect(self.path_checked(), deadline)
        except (NotListening, PathNotFound) as error:
            if self._other is None:
                raise
            first = error
        try:
            stream = self._other.connect(deadline)
        except (OutOfResources, ServerBusy):
            self.path = self._other.path
            raise
        except SipcError as error:
            is_missing = isinstance(error, (NotListening, PathNotFound))
            hint = first.hint if is_missing else error.hint
            raise type(first)(f"{first}, and {error}", hint) from None
        self.path = self._other.path
        return stream

    def path_checked(self) -> str:
        """Return the path of the first place for a client. Call it before each try to connect.

        Another user may have created the directory. Once it belongs to this user, no other user can
        replace it, as /tmp is sticky. Raises PermissionDenied if it is not private, PathNotFound if
        it is missing.
        """
        folder = self._private_folder
        if folder is None:
            return self._path
        try:
            status = os.lstat(folder)
        except FileNotFoundError:
            raise PathNotFound(f"{self._path} does not exist") from None
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
        return self._path

    def ensure_parent(self) -> str:
        """Return the path for a server; create the private directory if it is missing.

        Raises PermissionDenied, SipcError.
        """
        folder = self._private_folder
        if folder is None:
            return self._path
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

    Of the last two, a server uses /tmp/sipc-UID also if the other directory does not exist. Clients
    try both, as a cron job or a service may lack the variable that a login session has; without it,
    they try systemd's value for it. On Windows, where users have no number (-1), use %LOCALAPPDATA%
    in place of /tmp, and no second place.
    """
    if path := environment.get("SIPC_PATH"):
        return Endpoint(path)
    folder = environment.get("XDG_RUNTIME_DIR", "")
    if user < 0:
        return Endpoint(os.path.join(folder or environment.get("LOCALAPPDATA", ""), "sipc.sock"))
    private = f"/tmp/sipc-{user}"  # noqa: S108 - owner and mode are checked
    if folder and _exists(folder):
        other = _in_private_folder(private, user)
        return Endpoint(os.path.join(folder, "sipc.sock"), other=other)
    default = f"{_RUNTIME_FOLDERS}/{user}" if not folder and _exists(_RUNTIME_FOLDERS) else ""
    endpoint = _in_private_folder(private, user, folder or default)
    if folder:
        endpoint.warning = f"XDG_RUNTIME_DIR is ignored, as {folder} does not exist"
    return endpoint


def _in_private_folder(folder: str, user: int, other: str = "") -> Endpoint:
    """Return the endpoint in a directory that must be private; `other`: another such directory."""
    folder = folder.rstrip("/")  # else lstat() would follow a symbolic link
    return Endpoint(
        f"{folder}/sipc.sock", folder, user, _in_private_folder(other, user) if other else None
    )


def _exists(folder: str) -> bool:
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # connecting, or listening, reports the reason
    return True
