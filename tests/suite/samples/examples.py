"""A property."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st


@given(st.integers())
def test_property(number):
    assert number == number + 0
