"""A Windows Python under Wine, with sipc."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from helpers.wine import Wine

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def wine(tmp_path_factory):
    """Wine from `get-wine` or SIPC_WINE; all its processes end with the fixture."""
    prefix = os.environ.get("SIPC_WINE")
    if prefix is None:
        got = subprocess.run([HERE / "get-wine", "--found"], capture_output=True, text=True)
        if got.returncode:
            pytest.skip("no Windows Python under Wine: run tests/windows/get-wine")
        prefix = got.stdout
    running = Wine(prefix.split(), tmp_path_factory.mktemp("wine"))
    yield running
    running.close()
