from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from helpers.users import User

from simpleipc_cli.endpoint import default_endpoint
from simpleipc_cli.errors import PathNotFound, PermissionDenied, SipcError


def default_path(environment, user: int, *, make_folder: bool) -> str:
    endpoint = default_endpoint(environment, user)
    return endpoint.ensure_parent() if make_folder else endpoint.path_checked()


@pytest.fixture
def user():
    return User()


@pytest.fixture
def folder(user):
    """The user's folder, which does not exist yet."""
    folder = Path(f"/tmp/sipc-{user}")
    yield folder
    if folder.is_dir() and not folder.is_symlink():
        folder.rmdir()
    else:
        folder.unlink(missing_ok=True)


@pytest.fixture
def stranger():
    """A user id that no user has, and the folder that it would have."""
    number = 4_000_000_000 + os.getpid()
    folder = Path(f"/tmp/sipc-{number}")
    yield number, folder
    if folder.exists():
        folder.rmdir()


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


CHOICES = {
    "SIPC_PATH": ({"SIPC_PATH": "/a/sock"}, "/a/sock"),
    "SIPC_PATH, relative": ({"SIPC_PATH": "sock"}, "sock"),
    "XDG_RUNTIME_DIR": ({"XDG_RUNTIME_DIR": "/usr/lib"}, "/usr/lib/sipc.sock"),
    "SIPC_PATH first": ({"SIPC_PATH": "/a", "XDG_RUNTIME_DIR": "/usr"}, "/a"),
    "SIPC_PATH empty": ({"SIPC_PATH": "", "XDG_RUNTIME_DIR": "/usr"}, "/usr/sipc.sock"),
}
FALLBACKS = {
    "none": {},
    "empty": {"SIPC_PATH": "", "XDG_RUNTIME_DIR": ""},
    "others": {"TMPDIR": "/elsewhere", "HOME": "/home/me"},
    "missing": {"XDG_RUNTIME_DIR": "/no/such/folder"},
    "no folder": {"XDG_RUNTIME_DIR": "/dev/null/x"},
}
make_or_not = pytest.mark.parametrize("make_folder", [True, False], ids=["make", "look"])


@make_or_not
@pytest.mark.parametrize(("environment", "path"), CHOICES.values(), ids=CHOICES)
def test_the_environment_names_the_endpoint(environment, path, make_folder, user, folder):
    assert default_path(environment, user, make_folder=make_folder) == path
    assert not folder.exists()


@pytest.mark.parametrize("environment", FALLBACKS.values(), ids=FALLBACKS)
def test_without_the_variable_the_endpoint_is_in_the_folder_of_the_user(environment, user, folder):
    assert default_path(environment, user, make_folder=True) == f"{folder}/sipc.sock"


def test_the_folder_is_named_after_the_user_id(stranger):
    number, _ = stranger
    with pytest.raises(PathNotFound, match=rf"^/tmp/sipc-{number}/sipc\.sock "):
        default_path({}, number, make_folder=False)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277, 0o777], ids=oct)
def test_the_folder_is_private_with_any_umask(mask, user, folder, umask):
    umask(mask)
    default_path({}, user, make_folder=True)
    assert (mode(folder), folder.lstat().st_uid) == (0o700, user)


def test_an_existing_folder_is_used(user, folder):
    default_path({}, user, make_folder=True)
    before = folder.lstat()
    for make_folder in (True, False):
        assert default_path({}, user, make_folder=make_folder) == f"{folder}/sipc.sock"
    assert folder.lstat() == before


def test_a_client_makes_no_folder(user, folder):
    with pytest.raises(PathNotFound):
        default_path({}, user, make_folder=False)
    assert not folder.exists()


def assert_refused(user: int, folder: Path, make_folder: bool, why: str) -> None:
    before = folder.lstat()
    with pytest.raises(PermissionDenied, match=why) as caught:
        default_path({}, user, make_folder=make_folder)
    assert str(folder) in str(caught.value)
    assert "SIPC_PATH" in caught.value.hint
    assert folder.lstat()[:4] == before[:4]


WRONG_MODES = [0o000, 0o500, 0o600, 0o701, 0o710, 0o755, 0o777, 0o1700]


@make_or_not
@pytest.mark.parametrize("wrong", WRONG_MODES, ids=oct)
def test_a_folder_with_another_mode_is_refused(wrong, make_folder, user, folder):
    folder.mkdir()
    folder.chmod(wrong)
    assert_refused(user, folder, make_folder, f"mode {wrong:04o}, not 0700")


@make_or_not
def test_a_file_in_place_of_the_folder_is_refused(make_folder, user, folder):
    folder.touch(0o700)
    assert_refused(user, folder, make_folder, "not a directory")


@make_or_not
@pytest.mark.parametrize("target", ["existing", "missing"])
def test_a_symlink_in_place_of_the_folder_is_refused(make_folder, target, user, folder, tmp_path):
    (tmp_path / "existing").mkdir(0o700)
    folder.symlink_to(tmp_path / target)
    assert_refused(user, folder, make_folder, "not a directory")
    assert not (tmp_path / "missing").exists()


@make_or_not
def test_a_folder_of_another_user_is_refused(make_folder, stranger):
    number, folder = stranger
    folder.mkdir()
    folder.chmod(0o700)
    assert_refused(number, folder, make_folder, f"another user.*{os.geteuid()}")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free space"), (errno.EIO, "the device"), (errno.EACCES, "SIPC_PATH")],
)
def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(
    user, folder, monkeypatch, number, remedy
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.mkdir", fail)
    with pytest.raises(SipcError, match=os.strerror(number)) as caught:
        default_path({}, user, make_folder=True)
    assert str(folder) in str(caught.value)
    assert remedy in caught.value.hint
