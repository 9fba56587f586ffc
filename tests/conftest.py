"""Fixtures for all tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def folder():
    """A folder with a short path: socket addresses are short."""
    path = Path(tempfile.mkdtemp(prefix="sipc-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def endpoint(folder):
    """A path for a socket."""
    return folder / "sock"


@pytest.fixture
def script(folder):
    """Writes an executable file and returns its path."""

    def write(text: str, name: str = "handler.sh") -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


ONE_BY_ONE = ("performance", "windows")
"""Folders whose tests are not run at the same time as each other, also when others are."""


def pytest_collection_modifyitems(items):
    for item in items:
        for folder in ONE_BY_ONE:
            if item.path.is_relative_to(Path(__file__).parent / folder):
                item.add_marker(pytest.mark.xdist_group(folder))
