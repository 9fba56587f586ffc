"""Fixtures of tests/inprocess: its modules import them, as conftest.py is not loaded under Wine."""

from __future__ import annotations

import pytest

from helpers.callbacks import KINDS, Outcomes
from helpers.inprocess_server import raw_clients


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "demo.sock")


@pytest.fixture
def client(path):
    with raw_clients(path) as connect_one:
        yield connect_one


@pytest.fixture
def logged(caplog):
    return Outcomes(caplog)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param
