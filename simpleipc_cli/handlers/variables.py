"""Variables that handlers find in their environment."""

from __future__ import annotations

PER_REQUEST = (
    "UNIXREMOTEPID",
    "UNIXREMOTEEUID",
    "UNIXREMOTEEGID",
    "SIPC_REQUEST_ID",
)
"""Variables that tell of one request: not for processes that are started before theirs."""
