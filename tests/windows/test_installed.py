"""What pip installs from the wheel under Wine: sipc.exe."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.waiting import TIMEOUT
from helpers.wine import Completed, ended, windows_path, wine_environment


def symlinks(folder: Path, names, targets: Path) -> None:
    for name in names:
        (folder / name).symlink_to(targets / name)


class Installed:
    """A Python for Windows of its own, in a folder whose path has a space, with the wheel."""

    def __init__(self, wine, folder: Path) -> None:
        self._words, self.folder = wine.words[:-1], wine.folder
        self._python = folder / "python.exe"
        self._program = folder / "Scripts/sipc.exe"
        original = Path(wine.words[-1]).parent
        modules = ("lib", "python311._pth")
        symlinks(folder, (p.name for p in original.iterdir() if p.name not in modules), original)
        (folder / "requirements").symlink_to(original / "lib")
        (folder / "tools").mkdir()
        pip = pytest.importorskip("pip", reason="needs pip: python3 -m venv .venv")
        symlinks(folder / "tools", ["pip"], Path(pip.__file__).parent.parent)
        places = ["python311.zip", ".", r"Lib\site-packages", "requirements", "tools"]
        (folder / "python311._pth").write_text("\n".join([*places, ""]))

    def install(self, wheel: Path) -> None:
        pip = ["-m", "pip", "install", "--quiet", "--no-warn-script-location"]
        command = [self._python, *pip, "--no-index", "--no-deps", windows_path(wheel)]
        done = ended(self._start(*command))
        assert (done.status, done.out) == (0, ""), done.err

    def _start(self, *words) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._words, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=wine_environment(),
        )

    def sipc(self, *arguments, **options) -> Completed:
        return ended(self._start(self._program, *arguments), **options)


@pytest.fixture(scope="module")
def installed(wine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with a space")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
    )
    found = Installed(wine, folder)
    (wheel,) = folder.glob("*.whl")
    found.install(wheel)
    return found


@pytest.fixture
def path(folder):
    return windows_path(folder / "sock")


@contextmanager
def stopped(installed, path):
    """Stop the server at the path at the end."""
    try:
        yield
    finally:
        installed.sipc("send", path, "-d", "quit")
        assert installed.sipc("probe", "--wait-gone", f"{TIMEOUT}s", path).status == 0


def test_the_installed_program_serves_in_the_background_and_sends(installed, path):
    (installed.folder / "shout.py").write_text("def answer(request):\n    return request.upper()\n")
    with stopped(installed, path):
        serve = ["serve", path, "--call", "shout:answer", "--quit-on", "quit"]
        started = installed.sipc(*serve, "--background", "--max-wait", "1h")
        assert (started.status, started.out) == (0, ""), started.err
        done = installed.sipc("send", path, input=b"hello")
        assert (done.status, done.out, done.err) == (0, "HELLO", "")


def test_the_installed_program_passes_its_exit_status_on(installed, path):
    done = installed.sipc("probe", path)
    assert (done.status, done.out.endswith(": path not found\n")) == (4, True)
