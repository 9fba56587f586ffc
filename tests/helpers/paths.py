"""Where the checkout's files are."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
WIRE = TESTS / "wire"
"""Recorded conversations of real git programs."""
