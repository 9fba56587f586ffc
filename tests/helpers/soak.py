"""How often tests are repeated under the marker `soak`."""

from __future__ import annotations

import os

import pytest

SOAK = int(os.environ.get("SIPC_SOAK", "3"))


def soak(*values, **options):
    """Parameters of a test that only `-m soak` runs."""
    return pytest.param(*values, marks=pytest.mark.soak, **options)
