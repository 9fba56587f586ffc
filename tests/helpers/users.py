"""Act as another user, as only root can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def become(user: int) -> Iterator[None]:
    """Have the permissions of this user alone. For tests with one thread."""
    before = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before)
