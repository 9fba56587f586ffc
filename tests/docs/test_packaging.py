"""The wheel, the source archive, the installed script, the version."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version

import pytest
from helpers.command import environment, sipc
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


def test_the_script_of_the_wheel_imports_only_the_package(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (script,) = (name for name in files.namelist() if name.endswith(".data/scripts/sipc"))
        lines = files.read(script).splitlines()
        assert not [name for name in files.namelist() if name.endswith("/entry_points.txt")]
    assert lines[0] == b"#!python"  # the installer replaces this by the path of its Python
    imports = [line for line in lines if line.startswith((b"import ", b"from "))]
    assert imports == [b"from simpleipc_cli.__main__ import main"]


def test_the_program_prints_its_version():
    assert sipc("--version").stdout == f"sipc, version {version('simpleipc-cli')}\n".encode()


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "simpleipc_cli", "--version"], capture_output=True, env=environment()
    )
    assert done.stdout == sipc("--version").stdout
