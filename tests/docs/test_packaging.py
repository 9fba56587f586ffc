"""The wheel, the source archive, what pip installs, the version."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from sysconfig import get_path

import pytest
from helpers.command import SIPC, environment, sipc
from helpers.paths import ROOT

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source archive and the wheel built from it."""
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=LEFT_OUT)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=checkout, check=True
    )
    return folder


def test_the_source_archive_is_complete(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        inside = {name.partition("/")[2] for name in files.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert {name for name in tracked if not name.startswith(".")} <= inside


def test_the_wheel_installs_pages_and_completions(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        shared = {name.partition(".data/data/")[2] for name in files.namelist()} - {""}
    pages = {f"share/man/man{page.suffix[1:]}/{page.name}" for page in (ROOT / "man").iterdir()}
    assert shared == pages | {
        "share/bash-completion/completions/sipc",
        "share/zsh/site-functions/_sipc",
        "share/fish/vendor_completions.d/sipc.fish",
    }


def test_the_installed_script_imports_only_the_package():
    imports = re.findall(r"^(?:import|from) .*", Path(SIPC).read_text(), re.M)
    if "import re" in imports:
        pytest.skip("an old pip made the script: python3 -m venv --upgrade-deps .venv")
    assert imports == ["import sys", "from simpleipc_cli.__main__ import main"]


def install(built: Path, python: str | Path, *options, **variables: str) -> None:
    """Let pip install the wheel for a Python, without its requirements and without a network."""
    pytest.importorskip("pip", reason="needs pip: python3 -m venv .venv")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [*pip, "--no-index", "--no-deps", *options, wheel], check=True, env=environment(**variables)
    )


def add_requirements(folder: Path) -> None:
    """Let a folder of modules also have those that are installed for the tests."""
    (folder / "requirements.pth").write_text(get_path("purelib") + "\n")


def assert_works(program: Path, folder: Path, package: Path, **variables: str) -> None:
    """Check that the script starts servers and clients with the package of its installation."""
    folder.mkdir()
    (folder / "where.py").write_text(
        "import simpleipc_cli\n\n\ndef answer(request):\n"
        "    return simpleipc_cli.__file__.encode()\n"
    )
    env = environment(**variables)
    command = f"{shlex.quote(str(program))} serve --call where:answer --count 2"
    options = {"program": [program], "env": env, "cwd": folder}
    started = sipc("send", "sock", "-d", "x", "--wait", "1h", "--spawn", command, **options)
    assert (started.returncode, started.stderr) == (0, b"")
    assert Path(os.fsdecode(started.stdout)) == package / "simpleipc_cli/__init__.py"
    assert sipc("send", "sock", "-d", "x", **options).stdout == started.stdout


def test_pip_installs_into_an_environment_whose_path_has_a_space(built, tmp_path):
    place = tmp_path / "a path"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    install(built, place / "bin/python")
    (modules,) = place.glob("lib/python*/site-packages")
    add_requirements(modules)
    assert_works(place / "bin/sipc", tmp_path / "work", modules)
    assert (place / "share/man/man1/sipc.1").exists()


def test_pip_installs_for_a_user(built, tmp_path):
    home = tmp_path / "home"
    variables = {"PYTHONUSERBASE": str(home), "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    install(built, sys._base_executable, "--user", **variables)
    (modules,) = home.glob("lib/python*/site-packages")
    add_requirements(modules)
    assert_works(home / "bin/sipc", tmp_path / "work", modules, PYTHONUSERBASE=str(home))
    assert (home / "share/man/man1/sipc.1").exists()


def test_the_program_prints_its_version():
    assert sipc("--version").stdout == f"sipc, version {version('simpleipc-cli')}\n".encode()


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "simpleipc_cli", "--version"], capture_output=True, env=environment()
    )
    assert done.stdout == sipc("--version").stdout
