"""Environment variables of handlers."""

from __future__ import annotations

PER_REQUEST = (
    "UNIXREMOTEPID",
    "UNIXREMOTEEUID",
    "UNIXREMOTEEGID",
    "SIPC_REQUEST_ID",
)
"""Variables of one request: not for processes that are started before it."""
