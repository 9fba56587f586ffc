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
